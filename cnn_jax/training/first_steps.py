"""Makes the first steps of a long run on a CPU with a program from the compile cache.

The training step of a long run uses oneDNN, and JAX cannot write such a program to the compile
cache: every launch compiles it again, which takes seconds. Without oneDNN the step is slower, but
after the first launch its program is in the cache. This plain program makes the run's first
`FIRST_STEPS` steps while a thread compiles the fast one.

The two programs differ by rounding. The number of a step decides which of them makes it, and so a
run that is stopped and continued has the same numbers as one that was never stopped.
"""

import contextlib
import threading
from typing import Any, NamedTuple

from cnn_jax.training.state import Step

# About as many as the plain program makes while the fast one of ResNet-20 is compiled on two cores.
FIRST_STEPS = 10


class FirstProgram(NamedTuple):
    """The program of the first steps, and the one that follows it. Both make the same step.

    Attributes:
      plain: (state, inputs, batch) -> state, which `jax.jit` compiles without oneDNN.
      fast: The same with oneDNN.
    """

    plain: Step
    fast: Any


class FirstSteps:
    """Makes the first steps of a run, and compiles the program of the others in a thread."""

    def __init__(self, program: FirstProgram | None, until: int) -> None:
        """Prepares the first steps. Nothing is compiled yet.

        Args:
          program: The programs; None: `TrainProgram.compiled_step` makes the first steps too.
          until: The last step of this launch.
        """
        self._program, self._until = program, until
        self._thread: threading.Thread | None = None

    def include(self, step: int) -> bool:
        """Returns whether the plain program makes the next step, after `step` steps."""
        return self._program is not None and step < FIRST_STEPS

    def make(self, state: Any, inputs: Any, batch: Any) -> Any:
        """Makes one step with the plain program. The first call starts the thread.

        Args:
          state: The state, which is donated.
          inputs: `TrainProgram.inputs`.
          batch: The batch.

        Returns:
          The next state.
        """
        assert self._program is not None
        lowered = None
        if self._thread is None and self._until > FIRST_STEPS:
            # Traced here, because JAX's settings, such as the precision, are those of a thread.
            # Both programs share the trace.
            lowered = self._program.fast.lower(state, inputs, batch)
        state = self._program.plain(state, inputs, batch)  # Loaded or compiled before the other.
        if lowered is not None:
            self._thread = threading.Thread(target=_compile, args=(lowered,), name="compile")
            self._thread.start()
        return state

    def wait(self) -> bool:
        """Waits until the thread has ended; returns whether there was one."""
        if self._thread is None:
            return False
        self._thread.join()
        self._thread = None
        return True


def _compile(lowered: Any) -> None:
    # JAX keeps the program for the next call of the function. If it cannot be compiled, that call
    # raises the error.
    with contextlib.suppress(Exception):
        lowered.compile()
