"""python -m cnn_jax.data.inspect: its image sheet and its report."""

import os
import shutil
from pathlib import Path

import cv2
import matplotlib.image
import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.config import Data, parse_dataset
from cnn_jax.data import inspect
from cnn_jax.data.inspect import draw_sheet, main

PHOTOGRAPHS = Path(__file__).parents[1] / "testdata" / "images"


@pytest.fixture
def folder(tmp_path):
    for name, level, count in (("dark", 10, 5), ("light", 200, 6)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            image = np.full((20 + i, 40, 3), (level, level + 10, level + 20), np.uint8)[..., ::-1]
            cv2.imwrite(str(tmp_path / "set" / name / f"{i}.png"), image)
    (tmp_path / "set/light/notes.txt").write_text("not an image")
    return tmp_path / "set"


def test_the_report_has_counts_sizes_and_unreadable_files(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(
            [
                f"--data=folder:{folder}",
                f"--out={out}",
                "--shorter_side=18",
                "--crop=16",
                "--images=10",
            ]
        )
        == 0
    )
    report = (out / "report.txt").read_text()
    assert report in capsys.readouterr().out
    assert "10 training and 2 test images, 2 classes" in report
    assert "height 20 / 22 / 25; width 40 / 40 / 40; shorter 20 / 22 / 25" in report
    level = (4 * 10 + 5 * 200) / 9  # Unreadable files do not count.
    assert f"mean {level:.1f}  {level + 10:.1f}  {level + 20:.1f}" in report
    assert f"standard deviation {np.std([10] * 4 + [200] * 5):.1f}" in report
    assert "cannot be read: 1\n" in report and f"{folder}/light/notes.txt: is no image" in report
    assert "may be damaged inside: 0\n" in report
    assert "dark                                  4        1" in report
    assert (
        matplotlib.image.imread(out / "sheet.png").shape[2] == 4 and (out / "classes.png").exists()
    )


def test_the_image_sheet_shows_a_run_s_inputs(folder):
    settings = Data(
        dataset=parse_dataset(f"folder:{folder}"),
        train_resize=(18,),
        image_size=16,
        pad_and_crop=0,
        on_bad_image="skip",
    )
    source = data.load_dataset(settings)
    figure = draw_sheet(settings, source, source.class_names, 10, seed=0)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 10
    for axis in shown:
        level = 10 if axis.get_title() == "dark" else 200
        expected = np.full((16, 16, 1), level) + np.array([[[0, 10, 20]]])
        np.testing.assert_allclose(axis.images[0].get_array() * 255, expected, atol=0.01)


def test_sets_in_memory_are_shown_too(tmp_path):
    assert main(["--data=fake", f"--out={tmp_path}", "--images=3"]) == 0
    assert "96 training and 40 test images, 10 classes" in (tmp_path / "report.txt").read_text()


@pytest.mark.parametrize(
    "given, words",
    [
        (["--data=folder:nowhere"], "folder:nowhere: no such folder"),
        (["--data=fake", "--set", "model=vgg_a"], "takes fields of data"),
        (["--data=fake", "--images=1000000"], "--images=1000000: must be 1 to 400"),
        (["--data=fake", "--seed=-1"], "--seed=-1: must be 0"),
        (["--data=fake", "--images=0"], "--images=0: must be 1 to 400"),
    ],
)
def test_invalid_arguments_are_refused(tmp_path, capsys, given, words):
    assert main([*given, f"--out={tmp_path}"]) == 2
    assert words in capsys.readouterr().err


def test_jpegs_of_every_kind_are_counted(tmp_path):
    """Three classes of committed files, among them a rotated, a gray and a CMYK one."""
    classes = {
        "plain": ("baseline_420", "full_chroma_444", "progressive"),
        "colors": ("cmyk", "grey"),
        "sizes": ("exif_rotated", "odd_and_wide", "restart_markers"),
    }
    for name, files in classes.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for file in files:
            shutil.copy(PHOTOGRAPHS / f"{file}.jpg", tmp_path / "set" / name)
    out = tmp_path / "out"
    assert (
        main(
            [
                f"--data=folder:{tmp_path / 'set'}",
                f"--out={out}",
                "--shorter_side=96,192",
                "--crop=96",
            ]
        )
        == 0
    )
    report = (out / "report.txt").read_text()
    assert "8 training and 0 test images, 3 classes\n" in report
    assert "of a class is a test image, and no class has 5; give" in report
    assert "cannot be read: 0\n" in report and "may be damaged inside: 0\n" in report
    # 101x877 is the smallest height and the largest width; four others are 240x320 and three, one
    # of them rotated, 320x240.
    assert "height 101 / 240 / 320; width 240 / 320 / 877; shorter 101 / 240 / 240" in report
    assert matplotlib.image.imread(out / "sheet.png").std() > 0.1


def test_names_are_text_and_the_report_comes_before_the_figures(
    folder, tmp_path, monkeypatch, capsys
):
    names = ("$5_$10", os.fsdecode(b"caf\xe9"), "\\frac{", "a\x1b[31m\nb")
    for name in names:
        shutil.copytree(folder / "dark", folder / name)
    (folder / "light/nested").mkdir()
    out = tmp_path / os.fsdecode(b"out\xe9")
    arguments = [f"--data=folder:{folder}", f"--out={out}", "--shorter_side=18", "--crop=16"]
    assert main(arguments) == 0
    assert f"wrote {tmp_path / 'out'}\\xe9/report.txt" in capsys.readouterr().out
    report = (out / "report.txt").read_text()
    for name in ("$5_$10", "caf\\xe9", "\\frac{", "a\\x1b[31m\\nb"):
        assert f"\n{name} " in report
    assert "folders in class folders, not entered (1)" in report and "\x1b" not in report
    assert (out / "sheet.png").exists()
    shutil.rmtree(out)

    def fail(*_, **__):
        raise ValueError("a figure that cannot be drawn")

    monkeypatch.setattr(inspect, "draw_class_counts", fail)
    assert main(arguments) == 1 and "that cannot be drawn" in capsys.readouterr().err
    assert (out / "report.txt").read_text() == report


def test_the_report_names_images_if_none_can_be_decoded(tmp_path, capsys):
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.jpg").write_bytes(b"no image")
    assert main([f"--data=folder:{tmp_path / 'set'}", f"--out={tmp_path / 'out'}"]) == 2
    assert "none of its training images can be decoded" in capsys.readouterr().err
    assert "files that cannot be read: 2" in (tmp_path / "out/report.txt").read_text()
