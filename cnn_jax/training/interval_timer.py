"""Measures the time that the steps between two log lines take."""

import time

REDRAW_SECONDS = 0.5  # Between two waits for the device, so that the progress bar moves.


class IntervalTimer:
    """Measures the time since the last log line.

    Attributes:
      first: The step after which the interval began.
      waited: Seconds of the interval in which the loop waited for data.
      drawn: When the progress bar was last drawn, in seconds of `time.perf_counter`.
    """

    def __init__(self, step: int) -> None:
        self.restart(step)
        self.drawn = self.start

    def restart(self, step: int) -> None:
        """Begins a new interval after a step."""
        self.first, self.waited, self.start = step, 0.0, time.perf_counter()

    def measure_seconds(self) -> float:
        """Returns the length of the interval so far, in seconds."""
        return time.perf_counter() - self.start

    def should_redraw(self) -> bool:
        """Returns whether the progress bar has not moved for `REDRAW_SECONDS`."""
        return time.perf_counter() - self.drawn > REDRAW_SECONDS
