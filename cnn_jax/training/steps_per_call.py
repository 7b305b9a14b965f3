"""Several training steps in one call of the compiled program (`train.steps_per_call`).

Each call costs the host some tenths of a millisecond. On a GPU or a TPU the step of a small model
takes no longer than that, and the device waits for the host. One call of several steps leaves it
busy. XLA's CPU compiler runs convolutions in a loop many times slower than outside of one, and a
call costs little there: a run on CPU is best left at one step per call.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

Step = Callable[[Any, Any, Any], Any]


def divide_steps(
    done: int, until: int, size: int, ends_call: Callable[[int], bool]
) -> Iterator[int]:
    """Yields how many steps each call makes, from step `done` to step `until`.

    What follows a step - a log line, an evaluation, a checkpoint - falls where it would with one
    step per call: no call goes on beyond such a step. The first call makes one step. Every other
    one makes `size` steps or one, so that two programs are compiled at most.

    Args:
      done: The steps that are done.
      until: The last step.
      size: The steps of a call that meets nothing on its way.
      ends_call: Whether something follows a step.
    """
    step = done
    while step < until:
        inner = range(step + 1, step + size)
        fits = step > done and step + size <= until and not any(map(ends_call, inner))
        count = size if fits else 1
        yield count
        step += count


def repeat_step(step: Step) -> Step:
    """Returns steps(state, arrays, batches) -> state, one update for each of the batches.

    Args:
      step: step(state, arrays, batch) -> state.

    Returns:
      The function; the arrays of its batches have a first dimension more, the steps.
    """

    def steps(state: Any, arrays: Any, batches: Any) -> Any:
        def advance(state: Any, batch: Any) -> tuple[Any, None]:
            # The barriers keep XLA from fusing the step with the loop around it: its operations
            # stay those of one step per call, and so do its numbers.
            state, batch = jax.lax.optimization_barrier((state, batch))
            return jax.lax.optimization_barrier(step(state, arrays, batch)), None

        return jax.lax.scan(advance, state, batches)[0]

    return steps


def stack_batches(batches: Sequence[Any]) -> Any:
    """Returns batches of equal form, trees of arrays [B, ...], as one tree of [steps, B, ...]."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
