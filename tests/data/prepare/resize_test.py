"""A set re-encoded once: sizes, names, splits; existing files are kept, damaged ones reported."""

import os

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import decode, folders, headers
from cnn_jax.data.prepare import __main__ as command_line


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
