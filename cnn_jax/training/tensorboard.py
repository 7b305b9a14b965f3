"""Writes TensorBoard's file of a launch.

Each number is written at once, so that an error of the disk is raised where it occurs. The
SummaryWriter of tensorboardX writes in a thread and only prints the thread's errors.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cnn_jax.optional_packages import require

Write = Callable[[Mapping[str, float], int], None]


@contextlib.contextmanager
def open_events(folder: Path, step: int) -> Iterator[Write]:
    """Opens TensorBoard's file of a launch.

    TensorBoard then hides the numbers that earlier launches wrote for steps after `step`.

    Args:
      folder: The run's folder for TensorBoard, which is created if it is missing.
      step: The step at which the launch starts. The file's name contains it, so that two launches
        within a second write two files.

    Yields:
      write(numbers, step), a function that writes {name: number} of a step to the disk.

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
