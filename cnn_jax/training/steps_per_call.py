"""Makes several training steps in one call of the compiled program (`train.steps_per_call`).

Each call costs the host some tenths of a millisecond. On a GPU or a TPU the step of a small model
takes no longer than that, and the device waits for the host. A call of several steps keeps the
device busy. On a CPU a call costs little, and XLA runs convolutions in a loop many times slower
than outside of one, so a run on a CPU should keep one step per call.

`train.steps_per_call=0` makes this choice: one step per call on a CPU, and elsewhere as many as
`choose_steps_per_call` returns for the time of the run's first steps.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax.training.state import Step

SINGLE_STEP_PLATFORMS = ("cpu",)  # Here one step per call is the fastest.
MIN_MEASURED_STEPS = 10  # The time of a step is the mean of at least this many.
CALL_SECONDS = 0.1  # A signal to stop waits for a call, so no call is chosen to last longer.
# During a step of this length the host prepares the next one: more steps per call gain nothing.
MAX_STEP_SECONDS = 0.003
# A call of several steps is another program. In shorter runs its compilation takes longer than the
# calls save.
MIN_RUN_SECONDS = 10.0
MAX_STEPS_PER_CALL = 1024
MAX_STEPS_AHEAD = 10_000  # The steps whose log lines, evaluations and checkpoints are considered.


def choose_steps_per_call(
    step_seconds: float, step: int, until: int, ends_call: Callable[[int], bool]
) -> int:
    """Chooses the number of steps of a call: the smallest number that leads to the fewest calls.

    A call ends at the latest at a step that a log line, an evaluation or a checkpoint follows, and
    steps that do not fill a call are made one by one (`count_steps`). With a log line every 100
    steps, for example, calls of 50 steps are better than calls of 60.

    Args:
      step_seconds: Seconds that a step takes with one step per call.
      step: Number of steps done.
      until: The last step.
      ends_call: Returns whether a log line, an evaluation or a checkpoint follows a step.

    Returns:
      The number of steps; 1 if several steps per call would not make the run faster.
    """
    if step_seconds > MAX_STEP_SECONDS or step_seconds * (until - step) < MIN_RUN_SECONDS:
        return 1
    ahead = range(step + 1, min(until, step + MAX_STEPS_AHEAD) + 1)
    ends = [step, *filter(ends_call, ahead)]
    gaps = Counter(np.diff(ends).tolist()) or Counter([len(ahead)])

    def count_calls(size: int) -> int:
        return sum((gap // size + gap % size) * count for gap, count in gaps.items())

    most = min(int(CALL_SECONDS / step_seconds), MAX_STEPS_PER_CALL)
    return min(range(1, most + 1), key=count_calls)


def count_steps(step: int, until: int, size: int, ends_call: Callable[[int], bool]) -> int:
    """Returns how many steps the next call makes: `size` or 1.

    No call goes on beyond a step that a log line, an evaluation or a checkpoint follows. These
    therefore follow the same steps as with one step per call. Only two numbers of steps occur, so
    that at most two programs are compiled.

    Args:
      step: Number of steps done.
      until: The last step.
      size: Number of steps of a call that no log line, evaluation or checkpoint ends earlier.
      ends_call: Returns whether a log line, an evaluation or a checkpoint follows a step.
    """
    inner = range(step + 1, step + size)
    return size if step + size <= until and not any(map(ends_call, inner)) else 1


def repeat_step(step: Step) -> Step:
    """Returns a function that makes one step for each of several batches.

    Args:
      step: step(state, inputs, batch) -> state.

    Returns:
      steps(state, inputs, batches) -> state, where `batches` is the result of `stack_batches`.
    """

    def steps(state: Any, inputs: Any, batches: Any) -> Any:
        def advance(state: Any, batch: Any) -> tuple[Any, None]:
            # The barriers keep XLA from fusing the step with the loop around it. The step then has
            # the operations, and so the numbers, that it has with one step per call.
            state, batch = jax.lax.optimization_barrier((state, batch))
            return jax.lax.optimization_barrier(step(state, inputs, batch)), None

        return jax.lax.scan(advance, state, batches)[0]

    return steps


def stack_batches(batches: Sequence[Any]) -> Any:
    """Stacks batches, trees of arrays [B, ...], into one tree of arrays [steps, B, ...]."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
