"""Memory on CPUs: the process keeps what a step frees for the next step, within a limit.

`keep_memory` sets glibc's malloc, and `Trimmer` limits what it keeps. benchmarks/README.md has the
measurements.
"""

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax

from cnn_jax.cpu.settings import MIN_BATCH_VALUES

# A process is trimmed when it holds more than this many times the memory that a step needs.
MAX_RATIO = 2.0
# The process's size is read at most this often, because a small step takes less time than that.
SECONDS_BETWEEN_READINGS = 0.05

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

_is_kept = False  # Whether this process keeps its memory.


def keep_memory(values: int) -> None:
    """Stops glibc's malloc from returning freed memory to the system, until the process ends.

    XLA allocates the temporary arrays of a step, hundreds of megabytes, again in each step. By
    default glibc returns them to the system each time, and the system must zero and map every page
    again. The price is that the process grows when a step's arrays do not fit where the last
    step's were; `Trimmer` limits that.
    There is also only one arena, for which threads wait. This makes small batches slower (LeNet-5
    at batch 1: half the speed) and others 10% faster.

    Args:
      values: Number of values of a batch, B * H * W * C. Nothing changes if it is less than
        `MIN_BATCH_VALUES`, or if the C library is not glibc on Linux.
    """
    if values < MIN_BATCH_VALUES or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # No limit.
        mallopt(M_ARENA_MAX, 1)
        global _is_kept
        _is_kept = True


class Trimmer:
    """Returns memory that a process keeps beyond its need to the system; see `keep_memory`.

    Each array must be aligned. The arrays of a step therefore often miss the place of the last
    step's arrays by a few bytes. malloc then takes as much memory again elsewhere, and the process
    keeps both blocks, or more. Trimming returns all free memory, which costs the next step up to a
    third of its time. The process is therefore trimmed only after the first call, when the
    compiler's memory is free too, and when its size has doubled.
    """

    def __init__(self) -> None:
        self._is_first = True
        self._read_at = 0.0  # When the process's size was last read, in seconds.
        self._settled: int | None = None  # Its size when a step had its memory, in bytes.

    def trim_if_due(self, state: Any) -> None:
        """Trims the process after the first step call, or if the process has doubled its size.

        Call this method after each call of the compiled step. When it trims, it waits for the
        call's arrays. After the next call it waits again and reads how much memory a step needs.

        Args:
          state: The arrays that the call of the step returned. JAX may still be computing them.
        """
        if not _is_kept:
            return
        is_first, self._is_first = self._is_first, False
        if is_first:
            _trim()  # What the compiler has freed, while the step is computed.
        if is_first or self._has_grown():
            jax.block_until_ready(state)
            _trim()
            self._settled = None
        elif self._settled is None:  # The call after trimming: it has taken its memory again.
            jax.block_until_ready(state)
            self._settled = read_resident_size()

    def _has_grown(self) -> bool:
        now = time.perf_counter()
        if self._settled is None or now - self._read_at < SECONDS_BETWEEN_READINGS:
            return False
        self._read_at = now
        return read_resident_size() > MAX_RATIO * self._settled


def _trim() -> None:
    ctypes.CDLL(None).malloc_trim(0)


def read_resident_size() -> int:
    """Returns the memory that this process holds, in bytes. It works on Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
