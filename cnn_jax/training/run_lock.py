"""One process at a time writes a run's folder: a lock that the system itself releases when its holder dies."""

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cnn_jax.errors import UserError


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds <folder>/lock, which names the holder; raises UserError, naming it, if another process does.

    A file that a dead process left is taken over. Between machines it holds where the file system passes locks on.
    """
    with open(folder / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(f"{folder} is in use by {_holder(file.read())}: wait for it, or end it") from None
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"process": os.getpid(), "host": platform.node(), "since": now}) + "\n")
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError):
        return "another process"
