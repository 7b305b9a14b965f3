"""Locks a run's folder, so that only one process at a time writes to it.

The system releases the lock when its holder dies.
"""

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cnn_jax import file_names
from cnn_jax.errors import UserError, explain_os_error


class HeldError(UserError):
    """The error of a folder whose lock another process holds.

    Attributes:
      holder: In words: the process, its host, and since when it holds the lock.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder} is in use by {holder}: wait for it, or end it")
        self.holder = holder


@contextlib.contextmanager
def hold(folder: Path, name: str = file_names.LOCK) -> Iterator[None]:
    """Holds the lock of a folder inside the `with` block.

    The lock is on the file <folder>/<name>, which names the holder. The file of a dead process is
    reused. Between machines the lock works if the file system supports locks between them.

    Args:
      folder: The run's folder.
      name: Name of the file.

    Raises:
      HeldError: If another process holds the lock.
      UserError: If the file cannot be opened, or its file system has no locks.
    """
    with _open(folder / name) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise HeldError(folder, _describe_holder(file.read())) from None
        except OSError as error:  # NFS locks no file that is open only for reading.
            what, remedy = f"{folder / name} cannot be locked", "choose another workdir"
            if not file.writable():
                remedy = f"let its owner permit writing, or {remedy}"
            raise explain_os_error(what, error, remedy) from None
        if not file.writable():  # Another user's file is locked too, but not written.
            yield
            return
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(
            json.dumps({"process": os.getpid(), "host": platform.node(), "since": now}) + "\n"
        )
        file.flush()
        yield


def check_free(folder: Path) -> None:
    """Checks that no other process holds the lock of a folder. Creates and changes no file.

    Args:
      folder: The run's folder.

    Raises:
      HeldError: If another process holds the lock.
    """
    with contextlib.suppress(OSError), open(folder / file_names.LOCK, errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeldError(folder, _describe_holder(file.read())) from None


def _open(path: Path) -> IO[str]:
    """Opens the lock file, for reading only if it is another user's and allows no more."""
    try:
        return open(path, "a+", errors="replace")
    except PermissionError:
        with contextlib.suppress(OSError):
            return open(path, errors="replace")
        raise UserError(
            f"{path} cannot be opened: let its owner permit it, or use another workdir"
        ) from None
    except OSError as error:
        what = f"cannot write to {path.parent}"
        raise explain_os_error(what, error, "choose another workdir") from None


def _describe_holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"
