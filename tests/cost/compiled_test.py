"""The compiler's report of a program for a slice is kept, and compiled anew where it must be."""

import jax
import jax.numpy as jnp
import pytest

from cnn_jax.cost import compiled
from cnn_jax.cost.compiled import compile_for_report


class Lowered:
    """A program that counts how often it is compiled."""

    def __init__(self, compute):
        self.lowered = jax.jit(compute).lower(jnp.zeros((4, 8)))
        self.compilations = 0

    def as_text(self):
        return self.lowered.as_text()

    def compile(self):
        self.compilations += 1
        return self.lowered.compile()


@pytest.fixture(scope="module")
def program():
    return Lowered(lambda x: x @ x.T)


@pytest.fixture
def count(program):
    """Returns a function; it returns the number of compilations since its last call."""
    before = program.compilations

    def count_new():
        nonlocal before
        new, before = program.compilations - before, program.compilations
        return new

    return count_new


def test_a_program_for_a_slice_is_compiled_once(program, count, tmp_path):
    folder = tmp_path / "new"
    first = compile_for_report(program, "v5e:4x4", folder)
    assert count() == 1
    assert compile_for_report(program, "v5e:4x4", folder) == first
    assert count() == 0
    assert first == compile_for_report(program)  # What the compiler says itself.
    assert first.flops > 0 and first.memory_parts["arguments"] == 4 * 4 * 8


def test_another_slice_program_or_compiler_is_compiled(program, count, tmp_path, monkeypatch):
    compile_for_report(program, "v5e:4x4", tmp_path)
    compile_for_report(program, "v5e:2x2", tmp_path)
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_jf_conv_full_precision=true")
    compile_for_report(program, "v5e:4x4", tmp_path)
    monkeypatch.setattr(compiled, "_find_version", lambda package: "99")
    compile_for_report(program, "v5e:4x4", tmp_path)
    assert count() == 4
    other = Lowered(lambda x: x @ x.T + 1)
    compile_for_report(other, "v5e:4x4", tmp_path)
    assert other.compilations == 1


def test_programs_for_this_machine_are_not_kept(program, count, tmp_path):
    for _ in range(2):
        compile_for_report(program, None, tmp_path)
        compile_for_report(program, "v5e:4x4", None)
    assert count() == 4 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no gzip", None])
def test_a_damaged_report_is_replaced(program, count, tmp_path, content):
    first = compile_for_report(program, "v5e:4x4", tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] if content is None else content)
    for _ in range(2):
        assert compile_for_report(program, "v5e:4x4", tmp_path) == first
    assert count() == 2


def test_a_folder_that_cannot_be_written_does_not_matter(program, tmp_path):
    (tmp_path / "file").touch()
    assert compile_for_report(program, "v5e:4x4", tmp_path / "file").flops > 0
