"""Files that are either complete or not there."""

import contextlib
import errno
import os
import secrets
import time
from pathlib import Path

from cnn_jax.errors import UserError, explain_os_error

MAX_NAME_BYTES = 255  # Of the name of a file or folder, on the usual file systems.
PART_AGE_S = 3600  # No file takes so long to write.
MAX_DEPTH = 5  # Levels of a trial's files below runs/: STUDY/PRESET-DATA/tuning/TRIAL/SEED.


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: under another name, which is then moved.

    An old file is not changed until the new one is complete.

    Args:
      path: The file.
      content: Text (UTF-8) or bytes.

    Raises:
      OSError: If it cannot be written; no part of it is left behind.
    """
    # A number of the process would not do: in containers every launch may be process 1.
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        error.filename, error.filename2 = str(path), None  # Users know nothing of the part.
        raise


def check_writable(folder: Path, what: str, remedy: str) -> None:
    """Checks before long work that its results can be written to a folder, which is not made.

    Args:
      folder: The folder; it need not exist.
      what: Begins the message, such as 'cannot write to FOLDER'.
      remedy: Such as 'choose another workdir'.

    Raises:
      UserError: If the folder, or the one in which it would be made, is no folder or is read-only.
    """
    folder = folder.absolute()
    place = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not place.is_dir():
        code = errno.ENOTDIR
    elif not os.access(place, os.W_OK | os.X_OK):
        code = errno.EACCES
    else:
        return
    raise explain_os_error(what, OSError(code, os.strerror(code), str(place)), remedy)


def remove_parts(folder: Path, min_age_s: float = 0.0) -> None:
    """Removes what `write_whole` left in a folder where its process was killed.

    Args:
      folder: The folder; it need not exist.
      min_age_s: Younger ones may be written by another process, and are kept.
    """
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime >= min_age_s:
                part.unlink()


def find_files(place: Path, name: str) -> list[Path]:
    """Returns the files of this name in a folder and in those MAX_DEPTH levels below it, sorted.

    A whole file system, which a user may name by mistake, would take too long. Of a folder to which
    symbolic links lead, the file is found once, by the shortest path.
    """
    found: dict[Path, Path] = {}
    for depth in range(MAX_DEPTH + 1):
        for path in sorted(place.glob("*/" * depth + name)):
            found.setdefault(path.parent.resolve(), path)
    return sorted(found.values())


def find_seeds(run: Path) -> set[int]:
    """Returns the seeds k for which a run's folder has a folder seed<k>."""
    seeds = {read_seed(path.name) for path in run.glob("seed*") if path.is_dir()}
    return {seed for seed in seeds if seed is not None}


def read_seed(name: str) -> int | None:
    """Returns the seed k of a folder's name seed<k>; None: it has another name.

    Example:
      >>> read_seed("seed12"), read_seed("12"), read_seed("seeds")
      (12, None, None)
    """
    number = name.removeprefix("seed")
    return int(number) if number != name and number.isdecimal() and number.isascii() else None


def name_run_folder(folder: Path) -> tuple[str, str]:
    """Returns the names of a run's folder, (run, seed<k>), also of a path such as '.'."""
    whole = Path(os.path.abspath(folder))
    return whole.parent.name, whole.name


def make_folder_name(text: str) -> str:
    """Returns a text as the name of a folder: its letters, digits, - and _, joined by -.

    Example:
      >>> make_folder_name("resnet-20, seed 0, step 300")
      'resnet-20-seed-0-step-300'
    """
    kept = "".join(c if c.isalnum() or c in "-_" else " " for c in text)
    return "-".join(kept.split())


def expand_path(what: str, path: str | Path) -> Path:
    """Returns the path with ~ replaced by the home folder.

    Args:
      what: Its name in messages, such as workdir.
      path: The path.

    Raises:
      UserError: If no file can have this path, or it is an address, such as gs://bucket/runs.
    """
    text = str(path)
    shown = text if len(text) <= 60 else f"{text[:40]}..."
    if not text:
        raise UserError(f"{what}: its path is empty; give one")
    if "\0" in text:
        raise UserError(f"{what}={shown!r}: a path holds no null characters")
    if "://" in text:  # It would be a folder named gs:, in which nobody would look.
        raise UserError(
            f"{what}={shown}: is an address; mount that storage, and give the local folder"
        )
    for name in Path(text).parts:
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            raise UserError(f"{what}={shown}: a name in a path has at most {MAX_NAME_BYTES} bytes")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(
            f"{what}={shown}: there is no such home folder; write the path out"
        ) from None


def find_cache_folder() -> Path | None:
    """Returns $XDG_CACHE_HOME/cnn_jax or ~/.cache/cnn_jax; None if the user has no home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn_jax"
    except RuntimeError:
        return None
