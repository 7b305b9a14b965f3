"""Files that are either complete or not there."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place and then moves it there.

    What was there before stays as it was until the new file is complete.

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
    except OSError:
        part.unlink(missing_ok=True)
        raise
