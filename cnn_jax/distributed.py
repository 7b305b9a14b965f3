"""Starts and ends several processes that train a run together, each on its own devices.

Each process executes the same program. Process 0 writes all files of a run except checkpoints,
which all processes write.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping

from cnn_jax.errors import STOPPED, UserError, summarize_error

# Seconds. A process without a heartbeat for this long counts as dead, and the others end.
HEARTBEAT = 30
CONNECT = 300  # Seconds. All processes must connect within this time.
# What launchers set for each process they start, which JAX reads too: Slurm's srun, Open MPI, TPU
# slices in Kubernetes.
COUNTS: dict[str, Callable[[str], int]] = {
    "SLURM_STEP_NUM_TASKS": int,
    "OMPI_COMM_WORLD_SIZE": int,
    "TPU_WORKER_HOSTNAMES": lambda s: len(s.split(",")),
}


def was_launched() -> bool:
    """Returns whether a launcher, such as Slurm, started this program as several processes."""
    with contextlib.suppress(ValueError):
        return any(
            count(os.environ[name]) > 1 for name, count in COUNTS.items() if name in os.environ
        )
    return False


def initialize(coordinator: str | None, process_id: int | None, num_processes: int | None) -> None:
    """Joins the other processes, if there are any. Call it before JAX looks for devices.

    Args:
      coordinator: host:port of process 0. 'auto': JAX asks its launcher or its TPU slice. None: JAX
        asks the launcher if one started several processes.
      process_id: Number of this process, from 0; None: the launcher or the slice knows it.
      num_processes: Number of processes; None: the launcher or the slice knows it.

    Raises:
      UserError: If the arguments do not go together, or one of them is invalid.
    """
    given = (coordinator, num_processes, process_id)  # in the order of JAX
    alone = (None, None, None)
    if num_processes == 1 or (given == alone and not was_launched()):
        return
    if given in (alone, ("auto", None, None)):
        given = alone
    elif coordinator in (None, "auto") or process_id is None or num_processes is None:
        raise UserError(
            "--coordinator, --process_id and --num_processes go together; --coordinator=auto goes"
            " alone"
        )
    elif not coordinator.rpartition(":")[2].isdigit():
        raise UserError(
            f"--coordinator={coordinator}: must be process 0's host:port, for example 10.0.0.2:1234"
        )
    elif not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id}: is not one of 0 to {num_processes - 1}")
    joined = _continue_in_child()
    import jax

    try:
        jax.distributed.initialize(
            *given, heartbeat_timeout_seconds=HEARTBEAT, initialization_timeout=CONNECT
        )
    except Exception as e:  # JAX raises the errors of its service, or aborts.
        print(summarize_error(e), file=sys.stderr, flush=True)
        os.abort()
    joined()


def _continue_in_child() -> Callable[[], object]:
    """Continues in a child process; the parent waits for its end and reports it in one line.

    JAX aborts a process whose peer has died, which Python cannot catch; hence the child. The parent
    passes a signal on, and a second one ends the child at once. A child whose parent was killed
    ends too.

    Returns:
      A function that records that all processes have joined.
    """
    reads, writes = os.pipe()
    noted, note = os.pipe()
    child = os.fork()
    if not child:
        os.close(writes)
        os.close(noted)
        os.setpgid(0, 0)  # or Ctrl-C would reach it twice
        threading.Thread(target=lambda: os.read(reads, 1) or os._exit(STOPPED), daemon=True).start()
        return lambda: os.write(note, b"1")
    os.close(reads)
    os.close(note)
    signals: list[int] = []

    def passed(number: int, _: object) -> None:
        os.kill(child, signal.SIGKILL if signals else number)
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # Under nohup SIGHUP is ignored.
            signal.signal(number, passed)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and len(signals) > 1:
        code = STOPPED
    if code == -signal.SIGABRT and not os.read(noted, 1):
        print(
            "launch.py: the processes of this run did not find one another: start each of them"
            f" within {CONNECT} s, with the same --coordinator, which all can reach",
            file=sys.stderr,
        )
        code = 2
    elif code == -signal.SIGABRT:
        print(
            "launch.py: another process of this run has ended, or this one was aborted as said"
            " above; the log of the one that ended first says why. Started again, all continue"
            " from the last checkpoint",
            file=sys.stderr,
        )
        code = STOPPED
    sys.stderr.flush()
    os._exit(code if code >= 0 else 128 - code)


def is_distributed() -> bool:
    """Returns whether this process is one of several.

    Raises:
      UserError: If the processes have not joined.
    """
    import jax

    if (many := jax.process_count()) > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"this host is one of {many} of a TPU slice: start this on all of them with"
            " --coordinator=auto"
        )
    return many > 1


def is_primary() -> bool:
    """Returns whether this is process 0, or the only one."""
    import jax

    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Waits until all processes have called it."""
    if is_distributed():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def all_agree(this: bool) -> bool:
    """Returns whether the value is true in all processes; all of them must call it."""
    if not is_distributed():
        return this
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(this)).all())


def check_agreement(fields: Mapping[str, str]) -> None:
    """Compares fields that must be equal in all processes; all of them must call it.

    Args:
      fields: The values of this process, {field: text}.

    Raises:
      UserError: In every process, if they differ; it names the first field and two processes'
      texts.
    """
    if not is_distributed():
        return
    import json

    import numpy as np
    from jax.experimental import multihost_utils

    mine = np.frombuffer(json.dumps(dict(fields)).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(mine), np.int32))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(mine)] = mine
    rows = np.asarray(multihost_utils.process_allgather(padded))
    every = [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
    first = every[0]
    for number, other in enumerate(every):
        for name in dict.fromkeys([*first, *other]):
            if first.get(name) != other.get(name):
                texts = [str(each.get(name, "not set"))[:100] for each in (first, other)]
                raise UserError(
                    f"processes 0 and {number} of this run differ in {name}: {texts[0]} and"
                    f" {texts[1]}: start all of them with the same code, flags and data"
                )


def exit_if_distributed(code: int) -> None:
    """Ends this process at once if it is one of several, because they would wait for each other."""
    jax = sys.modules.get("jax")
    if jax and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
