"""Freed memory stays with a process that keeps it, until it is trimmed."""

import math
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.cpu import memory, settings

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_freed_memory_stays_mapped():
    """Writing 64 MB that were freed before gives many page faults by default, and few when kept."""
    code = """if 1:
        import resource, sys
        import numpy as np
        from cnn_jax.cpu import memory, settings
        if {keep}: memory.keep_memory(settings.MIN_BATCH_VALUES)
        count_faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            before = count_faults()
            np.full(2**24, 1.0, np.float32)
        print(count_faults() - before)
    """
    (default,), (kept,) = run(code.format(keep=False)), run(code.format(keep=True))
    assert int(kept) < 100 < int(default)


# Calls of a step that takes and frees some memory. Prints the calls after which the process was
# trimmed.
CALLS = """if 1:
    import numpy as np
    from cnn_jax.cpu import memory, settings
    memory.SECONDS_BETWEEN_READINGS = 0
    memory.keep_memory(settings.MIN_BATCH_VALUES)
    trimmer, taken = memory.Trimmer(), 0
    for call, size in enumerate({sizes}):
        before = memory.read_resident_size()
        trimmer.prepare_call(np.zeros(1))
        if taken and memory.read_resident_size() < before - taken // 2:
            print(call)
        taken = np.ones(size << 20, np.uint8).nbytes  # Freed at once.
"""


def test_kept_memory_is_trimmed_after_the_first_calls():
    assert run(CALLS.format(sizes=[256] * 20)) == ["1", "2"]


def test_kept_memory_is_trimmed_when_the_process_has_doubled():
    """Call 5 needs four times the memory. After it, calls settle at the new size, untrimmed."""
    assert run(CALLS.format(sizes=[256] * 4 + [1024] * 4)) == ["1", "2", "5"]


@pytest.mark.parametrize("slow_s, waits", [(0, 9), (math.inf, 3)])
def test_a_slow_call_waits_for_the_memory_of_the_last_one(monkeypatch, slow_s, waits):
    """Ten calls; the first three waits are those in which the process is trimmed and timed."""
    slept = []
    monkeypatch.setattr(memory, "_is_kept", True)
    monkeypatch.setattr(memory, "_trim", lambda: None)
    monkeypatch.setattr(memory, "SECONDS_OF_SLOW_CALL", slow_s)
    monkeypatch.setattr(memory.time, "sleep", slept.append)
    trimmer = memory.Trimmer()
    for _ in range(10):
        trimmer.prepare_call(np.zeros(1))
    assert slept == [memory.SECONDS_TO_FREE] * waits


def test_a_function_is_prepared_before_each_call_with_its_last_result(monkeypatch):
    events = []
    monkeypatch.setattr(memory.Trimmer, "prepare_call", lambda self, state: events.append(state))
    call = memory.trim_before_calls(lambda *given: events.append(given) or sum(given))
    assert [call(1, 2), call(3, 4)] == [3, 7]
    assert events == [None, (1, 2), 3, (3, 4)]


def test_memory_is_not_kept_for_an_accelerator(monkeypatch):
    monkeypatch.setattr(memory, "_is_kept", False)
    monkeypatch.setattr(settings, "computes_on_cpu", lambda: False)
    memory.keep_memory(settings.MIN_BATCH_VALUES)
    assert not memory._is_kept


def test_a_process_that_does_not_keep_memory_is_not_trimmed(monkeypatch):
    trims = []
    monkeypatch.setattr(memory, "_is_kept", False)
    monkeypatch.setattr(memory, "_trim", lambda: trims.append(1))
    trimmer = memory.Trimmer()
    for _ in range(5):
        trimmer.prepare_call(np.zeros(1))
    assert not trims


class Jitted:
    """Stands for a jitted function, and records what is done with it."""

    def __init__(self, events):
        self.events = events

    def lower(self, *arguments):
        self.events.append(("lower", *arguments))
        return self

    def compile(self):
        self.events.append("compile")

    def __call__(self, *arguments):
        self.events.append(arguments)
        return sum(arguments)


def test_the_process_is_trimmed_between_compilation_and_first_call(monkeypatch):
    events = []
    monkeypatch.setattr(memory, "_is_kept", True)
    monkeypatch.setattr(memory, "_trim", lambda: events.append("trim"))
    function = memory.trim_after_compiling(Jitted(events))
    assert not events
    assert [function(1, 2), function(3, 4)] == [3, 7]
    assert events == [("lower", 1, 2), "compile", "trim", (1, 2), (3, 4)]


def test_a_function_that_is_trimmed_after_compiling_compiles_once(monkeypatch):
    """JAX keeps what `lower(...).compile()` made for the call of the function."""
    compiled = []

    def record(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    monkeypatch.setattr(memory, "_is_kept", True)
    x = jnp.arange(5.0)
    function = memory.trim_after_compiling(jax.jit(lambda x: jnp.sin(x) * 5, donate_argnums=0))
    jax.monitoring.register_event_duration_secs_listener(record)
    try:
        function(function(x))
    finally:
        jax.monitoring.unregister_event_duration_listener(record)
    assert len(compiled) == 1


def test_a_process_that_does_not_keep_memory_calls_the_jitted_function_itself(monkeypatch):
    monkeypatch.setattr(memory, "_is_kept", False)
    jitted = jax.jit(jnp.sin)
    assert memory.trim_after_compiling(jitted) is jitted
