"""A set re-encoded once: sizes, names, splits; what is kept, made anew, reported and refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import decode, folders, headers
from cnn_jax.data.prepare import __main__ as command_line
from cnn_jax.data.prepare import resize
from cnn_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Two classes of six photographs, of which one is small and one damaged."""
    noise = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(6):
            coarse = Image.fromarray(noise.integers(0, 256, (6, 9, 3), np.uint8))
            coarse.resize((90, 60), Image.Resampling.BILINEAR).save(
                tmp_path / "set" / label / f"{i}.JPEG", quality=95
            )
    Image.new("RGB", (20, 10), (9, 99, 199)).save(tmp_path / "set/cat/1.JPEG", "PNG")
    whole = (tmp_path / "set/dog/2.JPEG").read_bytes()
    (tmp_path / "set/dog/2.JPEG").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def command(folder, *more):
    arguments = [
        "resize",
        f"--data=folder:{folder / 'set'}",
        "--shorter_side=32",
        f"--out={folder / 'out'}",
        *more,
    ]
    return command_line.main(arguments)


def test_a_folder_is_resized_with_its_names_and_its_split(folder, capsys):
    assert command(folder) == 0
    said = capsys.readouterr()
    assert "11 images" in said.out and "1 left out" in said.out
    assert "dog/2.JPEG: is cut short" in said.err
    before, after = (folders.load_folder(str(folder / name)) for name in ("set", "out"))
    assert [p for p in before.train.paths if p != "dog/2.JPEG"] == list(after.train.paths)
    assert before.test.paths == after.test.paths and before.class_names == after.class_names
    for i in range(len(after.test)):
        encoded = after.test.read(i)
        assert headers.read_size(encoded) == (32, 48)
        expected = decode.decode_resized(before.test.read(i), 32).astype(int)
        assert np.abs(decode.decode_resized(encoded, 32) - expected).mean() < 4
    assert (folder / "out/train/cat/1.JPEG").read_bytes() == (
        folder / "set/cat/1.JPEG"
    ).read_bytes()


def test_a_folder_whose_name_is_not_utf_8_is_written_and_printed(folder, capsys):
    out = folder / os.fsdecode(b"caf\xe9")
    assert command(folder, f"--out={out}") == 0
    assert "next: run with --data=folder:" in (said := capsys.readouterr().out)
    assert "caf\\xe9" in said and (out / "train/cat/1.JPEG").exists()


def test_existing_files_are_kept_and_missing_ones_are_made(folder):
    assert command(folder) == 0
    kept, lost = folder / "out/train/cat/0.JPEG", folder / "out/val/dog/4.JPEG"
    whole = lost.read_bytes()
    lost.unlink()
    kept.write_bytes(b"marked")
    assert command(folder) == 0
    assert kept.read_bytes() == b"marked" and lost.read_bytes() == whole
    assert not list(folder.glob("out/**/.*"))


def list_files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.JPEG")}


def test_a_folder_that_has_grown_is_refused(folder, capsys):
    """A file more moves others between training and testing: they would be in both."""
    assert command(folder) == 0
    before = list_files(folder / "out")
    shutil.copy(folder / "set/cat/0.JPEG", folder / "set/cat/00.JPEG")
    capsys.readouterr()
    assert command(folder) == 2
    said = capsys.readouterr().err
    assert "there were 10 training and 2 test images, and now there are 11 training and 2" in said
    assert said.count("\n") == 1 and "remove it or choose another --out" in said
    (folder / "set/cat/5.JPEG").unlink()  # Again as many as there were.
    assert command(folder) == 2
    assert "as many, but of other names or classes" in capsys.readouterr().err
    assert list_files(folder / "out") == before
    (folder / "set/cat/00.JPEG").rename(folder / "set/cat/5.JPEG")
    assert command(folder) == 0


def test_the_function_refuses_what_the_command_refuses(folder, capsys):
    def resize_folder(side=32):
        return resize.resize(folders.load_folder(str(folder / "set")), folder / "out", side)

    assert len(resize_folder()) == 1 and command(folder) == 0 and len(resize_folder()) == 1
    before = list_files(folder / "out")
    with pytest.raises(UserError, match="was written with"):
        resize_folder(side=24)
    shutil.copy(folder / "set/cat/0.JPEG", folder / "set/cat/00.JPEG")
    with pytest.raises(UserError, match="there were 10 training and 2 test images, and now"):
        resize_folder()
    record = folder / "out/resize.json"
    assert json.loads(record.read_text())["data"] == f"folder:{folder / 'set'}"
    record.unlink()
    with pytest.raises(UserError, match="contains other files"):
        resize_folder()
    assert list_files(folder / "out") == before


def test_a_folder_of_an_earlier_version_is_refused(folder, capsys):
    assert command(folder) == 0
    record = folder / "out/resize.json"
    content = json.loads(record.read_text())
    del content["source"]
    record.write_text(json.dumps(content))
    assert command(folder) == 2
    assert "written by an earlier version, which did not record them" in capsys.readouterr().err


def test_an_image_that_was_replaced_is_written_again(folder, capsys):
    """Also by one with an old time of modification, as a copy has that keeps it."""
    assert command(folder) == 0
    small = Image.new("RGB", (9, 9), (200, 30, 30))
    (folder / "set/cat/0.JPEG").unlink()
    small.save(folder / "set/cat/0.JPEG", "PNG")
    os.utime(folder / "set/cat/0.JPEG", (1, 1))
    repaired, damaged = folder / "set/dog/2.JPEG", folder / "set/dog/3.JPEG"
    small.save(repaired, "PNG")
    damaged.write_bytes(b"no image")
    before = list_files(folder / "out")
    capsys.readouterr()
    assert command(folder) == 0
    assert "dog/3.JPEG: is no image" in (said := capsys.readouterr().err) and "2.JPEG" not in said
    after = list_files(folder / "out")
    for name in ("train/cat/0.JPEG", "train/dog/2.JPEG"):
        assert after.pop(Path(name)) == repaired.read_bytes()
        before.pop(Path(name), None)
    assert Path("train/dog/3.JPEG") in before and Path("train/dog/3.JPEG") not in after
    del before[Path("train/dog/3.JPEG")]
    assert after == before


def test_another_size_or_another_folders_files_are_not_mixed(folder, capsys):
    assert command(folder) == 0
    assert command(folder, "--quality=50") == 2
    assert "was written with" in capsys.readouterr().err
    assert command(folder, f"--out={folder / 'set'}") == 2
    assert "contains other files" in capsys.readouterr().err
    assert (
        command(folder, "--quality=0") == 2
        and command(folder, f"--data=folder:{folder / 'none'}") == 2
    )
