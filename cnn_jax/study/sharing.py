"""Divides a study's runs among several launches of one command.

Each launch takes the next run that no other launch holds and that does not wait for another run. A
claim is a lock on a file in the run's folder. The system itself releases the lock when its holder
dies, so that another launch takes the run over and continues it from its last checkpoint. With
launches on several machines the file system must support locks between them, such as NFS 4 or
Lustre mounted with flock.
"""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from cnn_jax import file_names
from cnn_jax.config import Experiment
from cnn_jax.errors import explain_os_errors
from cnn_jax.training import metrics_log, run_folders, run_lock

POLL_SECONDS = 2.0  # Between two looks at runs that other launches hold.

Group = Sequence[Experiment]


def claim_groups(
    groups: Sequence[Group],
    folder: Path,
    tell: Callable[[str], None],
    poll_seconds: float = POLL_SECONDS,
) -> Iterator[tuple[int, Group]]:
    """Yields each group of runs once, while this process holds it.

    A group that another launch has trained meanwhile is yielded too. It is finished, so nothing is
    left to do for it.

    All seeds of a run have the same program, which each launch must compile. A launch therefore
    goes on with the run that it has begun, then takes runs of which no seed has been begun, and
    only then seeds of the runs that other launches have begun.

    Args:
      groups: Groups of runs that train together, in the order of training.
      folder: The study's folder.
      tell: Prints a line; called when this process begins to wait for other launches.
      poll_seconds: Seconds between two looks at runs that other launches hold.

    Yields:
      (the group's number from 0, the group).
    """
    left = dict(enumerate(groups))
    waiting_for: set[str] = set()
    compiled = ""
    begun: set[str] = set()  # Only grows, so that each run makes this process sort again once.
    while left:
        held: dict[int, str] = {}
        begun |= {
            group[0].name
            for group in groups
            if run_folders.find_run_folder(group[0], folder).exists()
        }
        order = sorted(
            left, key=lambda n: (left[n][0].name != compiled, left[n][0].name in begun, n)
        )
        for number in order:
            group = left[number]
            if _waits_for_another(group, left, folder):
                continue
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(_claim(group, folder))
                except run_lock.HeldError as error:
                    held[number] = error.holder
                    if group[0].name not in begun:
                        begun.add(group[0].name)
                        break  # Another launch has just begun it: its other seeds come last.
                    continue
                del left[number]
                compiled = group[0].name
                yield number, group
                break  # An earlier run may have become free, or ready.
        else:
            names = {f"{left[n][0].name} seed {left[n][0].seed} ({by})" for n, by in held.items()}
            if names != waiting_for:
                waiting_for = names
                tell(f"waiting for {', '.join(sorted(names))}")
            time.sleep(poll_seconds)


@contextlib.contextmanager
def _claim(group: Group, folder: Path) -> Iterator[None]:
    place = run_folders.find_run_folder(group[0], folder)
    place.mkdir(parents=True, exist_ok=True)
    with run_lock.hold(place, file_names.CLAIM):
        yield


def _waits_for_another(group: Group, left: dict[int, Group], folder: Path) -> bool:
    """Returns whether a run of the group starts from a run that is still to be trained."""
    others = {(run.name, run.seed) for other in left.values() for run in other}
    return any(
        (run.train.start_from, run.seed) in others
        and not metrics_log.read_result(
            run_folders.find_start_folder(run, run_folders.find_run_folder(run, folder))
        )
        for run in group
    )


@contextlib.contextmanager
def join_launches(folder: Path) -> Iterator[Callable[[], bool]]:
    """Counts this process among the launches that share a study.

    Args:
      folder: The study's folder, which exists.

    Yields:
      A function that ends the membership of this launch and returns whether it was the last one. Of
      launches that leave at the same time, exactly one is the last. A launch that joins later waits
      until the last one has ended.

    Raises:
      UserError: If the file of the lock cannot be opened, or its file system has no locks.
    """
    path = folder / file_names.LAUNCHES
    with contextlib.ExitStack() as stack:
        with explain_os_errors(f"{path} cannot be locked", "choose another workdir"):
            # NFS grants a shared lock only on a file that is open for reading, and an exclusive
            # lock only on a file that is open for writing. The mode "a+" opens it for both.
            file = stack.enter_context(open(path, "a+"))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield lambda: _leave(file)


def _leave(file: IO[str]) -> bool:
    fcntl.flock(file, fcntl.LOCK_UN)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
