"""TensorBoard's file of a launch, written at once: an error of the disk is raised where it occurs.

The SummaryWriter of tensorboardX writes in a thread, whose errors are only printed.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cnn_jax.optional_packages import require

Write = Callable[[Mapping[str, float], int], None]


@contextlib.contextmanager
def open_events(folder: Path, step: int) -> Iterator[Write]:
    """Opens the file of a launch; TensorBoard then hides what earlier launches wrote of its steps.

    Args:
      folder: The run's folder for TensorBoard, which is made.
      step: Where the launch starts. It is part of the file's name: two launches within a second
        are two files.

    Yields:
      write(numbers, step), which puts {name: number} on disk.

    Raises:
      OSError: If the file cannot be written.
      UserError: If tensorboardX is not installed.
    """
    summary = require("tensorboardX.summary")
    EventsWriter = require("tensorboardX.event_file_writer").EventsWriter  # noqa: N806
    protocol = require("tensorboardX.proto.event_pb2")
    folder.mkdir(parents=True, exist_ok=True)
    file = EventsWriter(str(folder / "events"), f".{step:010d}")

    def write(numbers: Mapping[str, float], step: int) -> None:
        for name, number in numbers.items():
            scalar = summary.scalar(name, number)
            file.write_event(protocol.Event(wall_time=time.time(), step=step, summary=scalar))
        file.flush()

    try:
        started = protocol.SessionLog(status=protocol.SessionLog.START)
        file.write_event(protocol.Event(step=step + 1, file_version="brain.Event:2"))
        file.write_event(protocol.Event(step=step + 1, session_log=started))
        file.flush()
        yield write
    finally:
        with contextlib.suppress(OSError):  # `write` has raised it before.
            file.close()
