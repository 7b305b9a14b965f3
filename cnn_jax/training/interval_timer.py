"""Times the steps between two log lines."""

import time

REDRAW_SECONDS = 0.5  # Between two waits for the device, so that the progress bar moves.


class IntervalTimer:
    """Measures the steps since the last log line.

    Attributes:
      first: The step after which the interval began.
      waited: Seconds of it in which the step waited for data.
      drawn: When the progress bar was last drawn.
    """

    def __init__(self, step: int) -> None:
        self.restart(step)
        self.drawn = self.start

    def restart(self, step: int) -> None:
        """Begins an interval after this step."""
        self.first, self.waited, self.start = step, 0.0, time.perf_counter()

    def seconds(self) -> float:
        """Returns the interval's length so far."""
        return time.perf_counter() - self.start

    def should_redraw(self) -> bool:
        """Returns whether the progress bar has not moved for a while."""
        return time.perf_counter() - self.drawn > REDRAW_SECONDS
