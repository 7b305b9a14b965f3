"""--profile: a trace of some of a run's steps for TensorBoard and XProf, and its costliest operations in a table."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from cnn_jax.cost import hlo
from cnn_jax.errors import UserError

SETTLED = 10  # steps before the first that is traced, if the run has so many
ROWS = 10


def trace_steps(train_step: Callable, folder: Path, steps: int, left: int) -> Callable:
    """The same train_step(state, arrays, item) -> state, which traces `steps` of its calls and prints their cost.

    left: how often it will be called. The trace goes to <folder>/profile. Raises UserError if `steps` are too many.
    """
    if steps >= left:  # the first one compiles
        raise UserError(f"--profile={steps}: after the first, {max(0, left - 1)} steps are left; ask for fewer")
    first = 1 + min(SETTLED, left - steps)
    calls = 0

    def step(state: Any, arrays: Any, item: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(folder / "profile")
        state = train_step(state, arrays, item)
        if calls == first + steps - 1:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            program = train_step if hasattr(train_step, "lower") else jax.jit(train_step)  # pmap's is a function
            text = program.lower(state, arrays, item).compile().as_text()
            print(f"\n{steps} steps are traced in {folder / 'profile'}")
            print(table(costs(folder / "profile", steps), hlo.layers(text)), flush=True)
        return state

    return step


def costs(folder: Path, steps: int) -> Counter[str]:
    """Milliseconds a step of each operation, by its name in the program, from the newest trace in the folder.

    On several devices they are added up; operations may run at the same time, and one may wait for another.
    """
    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    found: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the reader's own types
        for plane in jax.profiler.ProfileData.from_file(str(newest)).planes:
            for line in plane.lines:
                for event in line.events:
                    if operation := dict(event.stats).get("hlo_op"):
                        found[str(operation)] += event.duration_ns / 1e6 / steps
    return found


def table(found: Counter[str], of: dict[str, tuple[str, str]]) -> str:
    """The costliest operations: milliseconds a step, share of all, name, and what layer they are of.

    of: as `hlo.layers` gives it; operations that only run others are left out.
    """
    name_in = lambda operation: operation.partition("__onednn$")[0]
    found = Counter({o: ms for o, ms in found.items() if of.get(name_in(o), ("",))[0] not in hlo.HOLDS})
    total = sum(found.values())
    lines = [f"{'ms a step':>9}  {'share':>6}  operation, layer"]
    for name, ms in found.most_common(ROWS):
        _, layer = of.get(name_in(name), ("", ""))
        lines.append(f"{ms:9.3f}  {ms / total:6.1%}  {name}  {layer}".rstrip())
    return "\n".join([*lines, f"{total:9.3f}  {1:6.1%}  all {len(found)} operations"])
