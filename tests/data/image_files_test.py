"""Image files below a folder: links are followed once, hidden ones are left out."""

import os

import pytest

from cnn_jax.data.image_files import list_images
from cnn_jax.errors import UserError


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_images_of_all_folders_are_listed_and_hidden_ones_are_not(tmp_path):
    make(tmp_path, "b/1.JPG", "a/c/2.png", "0.webp", "notes.txt", "a/x.png/3.gif")
    make(tmp_path, ".thumbnails/1.png", "a/.trash/4.png", "a/._2.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert list_images("images", tmp_path) == ["0.webp", "a/c/2.png", "a/x.png/3.gif", "b/1.JPG"]
    assert list_images("images", tmp_path / ".thumbnails") == ["1.png"]


def test_links_to_folders_are_followed_and_no_folder_is_listed_twice(tmp_path):
    make(tmp_path, "elsewhere/red/1.png", "gallery/z/2.png", "gallery/z/deep/3.png")
    gallery = tmp_path / "gallery"
    (gallery / "red").symlink_to(tmp_path / "elsewhere/red")
    (gallery / "all").symlink_to(tmp_path / "elsewhere")
    (gallery / "a").symlink_to(gallery / "z")
    (gallery / "z/deep/up").symlink_to(gallery)
    (gallery / "loop").symlink_to("loop")
    (gallery / "gone.png").symlink_to("nowhere")
    (gallery / "4.png").symlink_to(gallery / "z/2.png")
    found = list_images("gallery", gallery)
    assert found == ["4.png", "all/red/1.png", "gone.png", "z/2.png", "z/deep/3.png"]
    (tmp_path / "linked").symlink_to(gallery)
    assert list_images("gallery", tmp_path / "linked") == found


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "b/2.png")
    scan = os.scandir

    def refuse(place):
        if os.fspath(place).endswith("b"):
            raise PermissionError(13, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    words = rf"gallery={tmp_path}: cannot be read \({tmp_path}/b: Permission denied\): make it"
    with pytest.raises(UserError, match=words):
        list_images("gallery", str(tmp_path))
