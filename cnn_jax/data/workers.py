"""Decodes images ahead of the step that needs them, in Grain's threads or worker processes."""

import atexit
import errno
import functools
import gc
import itertools
import multiprocessing
import os
import re
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator

# util's exit function runs after `_close`, as it is imported before.
from multiprocessing import parent_process, resource_tracker, util  # noqa: F401
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.errors import UserError, explain_os_error
from cnn_jax.optional_packages import lazy_import, require

if TYPE_CHECKING:
    import cv2
else:
    cv2 = lazy_import("cv2")

MIN_SHM_BYTES = 2**16  # A worker's array of this size or more comes in shared memory.
BATCHES_PER_WORKER = 2  # Batches that wait in each worker.
MAX_RESTARTS = 3
MAIN_RUN_AGAIN = 79  # Exit code of a worker that found itself running the program.
SHARED_MEMORY = "/dev/shm"
ENDLESS = 2**40


def prefetch_decoded(
    function: Callable[[int], dict[str, Any]], numbers: range, workers: int
) -> Generator[dict[str, Any], None, None]:
    """Yields function(n) of each number in order, computed before it is needed.

    Processes that are killed are replaced.

    Args:
      function: Returns a dictionary of arrays for a number; with workers it is pickled.
      numbers: Consecutive numbers.
      workers: Number of worker processes; 0: a thread per core.

    Raises:
      UserError: If worker processes cannot start or hand over their batches, or are killed
        MAX_RESTARTS times without a result in between.
    """
    if workers:
        _check_main()
    running = (_restart_killed if workers else _prefetch)(function, numbers, workers)
    _running.add(running)
    return running


def _restart_killed(
    function: Callable[[int], dict[str, Any]], numbers: range, workers: int
) -> Generator[dict[str, Any], None, None]:
    deaths = 0
    while True:
        running = _prefetch(function, numbers, workers)
        try:
            for result in running:
                yield result
                numbers, deaths = numbers[1:], 0
            return
        except OSError as error:
            raise _explain_system_error(error, workers) from None
        except RuntimeError as error:
            if (code := _find_exit_code(error)) is None:
                raise
            deaths += 1
            _check_death(code, deaths, workers)
            words = "a process that decodes was killed: all are restarted"
            print(words, file=sys.stderr, flush=True)
            gc.collect()  # Their remains, before they are collected while others start.
        finally:
            running.close()


def _check_main() -> None:
    """Ends a worker that runs the program itself; raises UserError if workers cannot import it.

    A worker imports the program's main module first. Without a main guard that runs the program
    again, and it comes here.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.stderr.flush()
        os._exit(MAIN_RUN_AGAIN)
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file and getattr(main, "__spec__", None) is None and not os.path.exists(file):
        raise UserError(
            f"data.workers: worker processes import the program, which comes from {file}: put it in"
            " a file, or set data.workers=0"
        )


def _find_exit_code(error: RuntimeError) -> int | None:
    """Returns the exit code of the worker that Grain's error names; None: it names none."""
    found = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
    return int(found[1]) if found else None


def _check_death(code: int, deaths: int, workers: int) -> None:
    """Raises UserError if restarting a worker that ended with this code will not help."""
    if code == -signal.SIGBUS:  # The memory that it was given is not there.
        raise UserError(_explain_shared_memory(workers)) from None
    if code > 0:  # By itself, before any of our code: its errors come as such.
        guard = 'put what it does under `if __name__ == "__main__":`'
        if code != MAIN_RUN_AGAIN:
            guard = f"if it is a script, {guard}; its own error stands above"
        raise UserError(
            f"data.workers={workers}: each worker process imports the program, and so ran it"
            f" again: {guard}; or set data.workers=0"
        ) from None
    if deaths == MAX_RESTARTS:
        raise UserError(
            f"the processes that decode were killed {MAX_RESTARTS} times: if memory is short, use"
            f" fewer: --set data.workers={workers // 2}"
        ) from None


def _explain_system_error(error: OSError, workers: int) -> UserError:
    if error.errno == errno.ENOSPC:  # Of semaphores and arrays, all of which lie there.
        return UserError(_explain_shared_memory(workers))
    what = f"data.workers={workers}: worker processes cannot be started"
    return explain_os_error(what, error, "use fewer, or set data.workers=0")


def _explain_shared_memory(workers: int) -> str:
    size = ""
    if os.path.isdir(SHARED_MEMORY):
        room = os.statvfs(SHARED_MEMORY)
        total, free = (room.f_frsize * blocks / 2**20 for blocks in (room.f_blocks, room.f_bavail))
        size = f" ({total:,.0f} MB, {free:,.0f} MB free)"
    return (
        f"data.workers={workers}: shared memory {SHARED_MEMORY}{size} is full, through which"
        " workers hand over their batches: give it more (Docker: --shm-size=4g or --ipc=host),"
        " use fewer workers or a smaller data.batch_size, or set data.workers=0"
    )


_running: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _close() -> None:
    # Pools that a program leaves open must be closed before Python unloads its modules.
    for running in list(_running):
        running.close()


def _prefetch(
    function: Callable[[int], dict[str, Any]], numbers: range, workers: int
) -> Generator[dict[str, Any], None, None]:
    grain = require("grain")
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which a notebook has not parsed.
        flags.FLAGS.mark_as_parsed()
    cv2.setNumThreads(0)  # One image is too little to share.
    threads = 0 if workers else _count_cores()
    buffer = threads + BATCHES_PER_WORKER if threads else 0
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
    bounded = functools.partial(_call_until, numbers.stop, function)
    dataset = grain.MapDataset.range(numbers.start, ENDLESS).map(bounded)
    dataset = dataset.to_iter_dataset(reading)
    if workers:
        options = grain.experimental.DatasetOptions(min_shm_size=MIN_SHM_BYTES)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
        processes = grain.MultiprocessingOptions(workers, BATCHES_PER_WORKER)
        dataset = dataset.mp_prefetch(processes, worker_init_fn=_begin_worker)
    iterator = iter(dataset)
    # Workers inherit this: Ctrl-C, which reaches them too, is for this process, which ends them.
    resource_tracker.ensure_running()  # Its start would undo the blocking.
    allowed = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        first = next(iterator)  # Starts them.
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, allowed)
    try:
        for result in itertools.islice(itertools.chain([first], iterator), len(numbers)):
            # Out of shared memory, which JAX on CPU would hold for as long as its own array lives.
            yield {name: np.array(x) for name, x in result.items()} if workers else result
    finally:
        iterator.close()


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _call_until(stop: int, function: Callable[[int], dict], number: int) -> dict[str, Any]:
    # Grain's processes leave the last item in shared memory if they end by themselves.
    return function(number) if number < stop else {}


def _begin_worker(worker: int, workers: int) -> None:
    """Initializes a worker process."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # The accelerator is the parent's.
    cv2.setNumThreads(0)
    threading.Thread(target=_exit_with_parent, args=(parent_process(),), daemon=True).start()


def _exit_with_parent(parent: Any) -> None:
    parent.join()  # A parent that was killed has not ended its workers.
    os._exit(1)
