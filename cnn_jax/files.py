"""Files that are either complete or not there."""

import contextlib
import os
from pathlib import Path

from cnn_jax.errors import UserError

MAX_NAME_BYTES = 255  # Of a file or folder, on the usual file systems.


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: under another name, which is then moved.

    An old file is not changed until the new one is complete.

    Args:
      path: The file.
      content: Text (UTF-8) or bytes.

    Raises:
      OSError: If it cannot be written; no part of it is left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        error.filename, error.filename2 = str(path), None  # Users know nothing of the part.
        raise


def expand_path(what: str, path: str | Path) -> Path:
    """Returns the path with ~ replaced by the home folder.

    Args:
      what: Its name in messages, such as workdir.
      path: The path.

    Raises:
      UserError: If no file can have this path.
    """
    text = str(path)
    shown = text if len(text) <= 60 else f"{text[:40]}..."
    if "\0" in text:
        raise UserError(f"{what}={shown!r}: a path holds no null characters")
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
