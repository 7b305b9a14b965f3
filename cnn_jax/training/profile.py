"""Traces some of a run's steps for TensorBoard and XProf, and lists its costliest operations."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from cnn_jax import file_names
from cnn_jax.cost import hlo
from cnn_jax.errors import UserError, summarize_error
from cnn_jax.terminal_tables import format_table
from cnn_jax.training.state import Step

SETTLED_STEPS = 10  # Steps before the first that is traced, if the run is long enough.
MAX_ROWS = 10  # Operations in the table.


@contextlib.contextmanager
def trace_steps(step: Step, folder: Path, steps: int, left: int) -> Iterator[Step]:
    """Wraps the step to trace some of its calls and to print their costs.

    If the run ends before or while they are traced, a line says so at the end of the block, and
    what has been traced is written.

    Args:
      step: (state, inputs, batch) -> state, compiled.
      folder: The trace goes to <folder>/profile.
      steps: How many calls are traced.
      left: How many calls there will be.

    Yields:
      The wrapped step.

    Raises:
      UserError: If fewer than `steps` calls remain after the first, which compiles.
    """
    if problem := explain_too_few(steps, left):
        raise UserError(problem)
    place = folder / file_names.PROFILE
    first = 1 + min(SETTLED_STEPS, left - steps)
    calls, running = 0, False

    def stop() -> bool:
        """Writes the trace; returns whether it could."""
        nonlocal running
        running = False
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError) as error:  # JAX's own of a full disk is a RuntimeError.
            why = summarize_error(error)
            print(f"{place}: the trace cannot be written ({why}); the run goes on", flush=True)
            return False
        return True

    def traced_step(state: Any, inputs: Any, batch: Any) -> Any:
        nonlocal calls, running
        calls += 1
        if calls == first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(place)
            running = True
        state = step(state, inputs, batch)
        if calls == first + steps - 1:
            jax.block_until_ready(state)
            if not stop():
                return state
            # pmap's step is a function around what is compiled.
            program = step if hasattr(step, "lower") else jax.jit(step)
            text = program.lower(state, inputs, batch).compile().as_text()
            table = format_costs(read_costs(place, steps), hlo.find_origins(text))
            print(f"\n{steps} steps are traced in {place}\n{table}", flush=True)
        return state

    try:
        yield traced_step
    finally:
        if running:  # Otherwise no other run of this process could be traced.
            stop()
        traced = max(0, calls - first + 1)
        if traced < steps:
            words = f"{traced} of its steps {'is' if traced == 1 else 'are'} traced"
            print(f"profile={steps}: {folder}: the run ended, and only {words}", flush=True)


def explain_too_few(steps: int, left: int) -> str:
    """Returns why `steps` calls cannot be traced if `left` remain; empty: they can."""
    if steps < left:
        return ""
    return f"profile={steps}: after the first, {max(0, left - 1)} steps are left; ask for fewer"


def read_costs(folder: Path, steps: int) -> Counter[str]:
    """Returns milliseconds a step of each operation of the newest trace in a folder.

    On several devices they are added up. Operations may run at the same time, and one may wait
    for another.

    Args:
      folder: Where the profiler has written.
      steps: How many steps were traced.

    Returns:
      {the operation's name in the program: milliseconds}.
    """
    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    costs: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of the reader's own types.
        for plane in jax.profiler.ProfileData.from_file(str(newest)).planes:
            for line in plane.lines:
                for event in line.events:
                    if operation := dict(event.stats).get("hlo_op"):
                        costs[str(operation)] += event.duration_ns / 1e6 / steps
    return costs


def format_costs(costs: Mapping[str, float], layers: Mapping[str, hlo.Origin]) -> str:
    """Returns the costliest operations as a table: milliseconds a step, share, name and layer.

    Args:
      costs: The result of `read_costs`.
      layers: The result of `hlo.find_origins`; operations that only run others are left out.
    """
    unknown = hlo.Origin("", "")
    origins = {name: layers.get(name.partition("__onednn$")[0], unknown) for name in costs}
    own = Counter({n: ms for n, ms in costs.items() if origins[n].opcode not in hlo.CONTROL_FLOW})
    total = sum(own.values())
    rows = [
        (f"{ms:9.3f}", f"{ms / total:6.1%}", name, origins[name].layer)
        for name, ms in own.most_common(MAX_ROWS)
    ]
    rows.append((f"{total:9.3f}", f"{1:6.1%}", f"all {len(own)} operations", ""))
    return format_table(("ms a step", " share", "operation", "layer"), rows)
