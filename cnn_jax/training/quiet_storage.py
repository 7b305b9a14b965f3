"""Suppresses the lines that Orbax and TensorStore print about a failed save.

Orbax raises the error of the save too. Without this module a full disk gives hundreds of lines,
because each of Orbax's threads logs its own error, and TensorStore's callbacks find their event
loop closed.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator

_LOGGERS = ("absl", "asyncio")  # Orbax logs by absl, and leaves futures that nobody asks.


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Drops the lines that Orbax logs and the errors that its callbacks raise, inside the block.

    After an error they are dropped until the process ends, because Python reports the remains of a
    failed save whenever it collects them.
    """
    before, loggers = sys.unraisablehook, [logging.getLogger(name) for name in _LOGGERS]

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        # TensorStore calls back from C++, when Orbax has given up on the others.
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            before(unraisable)

    for logger in loggers:
        logger.addFilter(_is_wanted)
    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before
    for logger in loggers:
        logger.removeFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    if record.name == "asyncio":
        return "never retrieved" not in record.getMessage()
    return "/orbax/" not in record.pathname
