"""Lists the image files in a folder of any form, as --gallery, --query and --images take it."""

import os

from cnn_jax.data.folder_scan import IMAGE_SUFFIXES
from cnn_jax.errors import explain_os_error


def list_images(what: str, folder: str | os.PathLike[str]) -> list[str]:
    """Returns the image files in a folder and in all folders in it, as sorted paths below it.

    Links are followed, and a folder to which several paths lead is listed once: by the path without
    links, if there is one. Hidden files and folders are left out. A link to nowhere with the name
    of an image is listed, so that whoever opens it names it.

    Args:
      what: What messages call the folder, such as gallery.
      folder: The folder.

    Raises:
      UserError: If a folder cannot be read.
    """
    names: list[str] = []
    seen: set[str] = set()
    folders, links = [""], list[str]()  # Links wait until all folders that are none are listed.
    while folders or links:
        below = folders.pop() if folders else links.pop(0)
        place = os.path.join(folder, below) if below else os.fspath(folder)
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            remedy = "make it readable, or move it away"
            raise explain_os_error(f"{what}={folder}: cannot be read", error, remedy) from None
        for entry in entries:
            path = os.path.join(below, entry.name)
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append(path)
            elif entry.name.casefold().endswith(IMAGE_SUFFIXES) and not _is_special(entry):
                names.append(path)
    return sorted(names)


def _is_special(entry: os.DirEntry) -> bool:
    """Returns whether it is a pipe, socket or device, from which reading may never return."""
    if entry.is_file(follow_symlinks=False):
        return False
    return os.path.exists(entry.path) and not os.path.isfile(entry.path)
