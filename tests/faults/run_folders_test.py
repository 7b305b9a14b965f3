"""Damaged files of run folders: no traceback and no lost folder; a line names the file."""

import contextlib
import gc
import io
import os
import shutil
import warnings

import jax
import pytest
from helpers import budget, damage, shared_programs, study_folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_jax import cli
from cnn_jax.training import train
from experiments import COSTS

EXAMPLES = budget.choose(24, 2_000)
COMMANDS = (
    ("--experiment=small", "--workdir=here"),
    ("--report", "--workdir=here"),
    ("--evaluate=here",),
    ("--compare=here", "--workdir=there"),
    ("--claims=here",),
)
OTHER_JSON = st.sampled_from(
    (
        *(b"", b"null", b"5", b"[]", b"{}", b'"text"', b"[1, 2]", b"[[[[", b'{"1": 2}'),
        *(b'{"event": "eval"}', b'{"event": "end", "step": 12}\n', b"[" * 100_000, b"9" * 5_000),
    )
)
VALUES = st.tuples(
    st.sampled_from((b"0", b"1", b'"', b"e", b",", b"true", b"12")),
    st.sampled_from((b"null", b"-1", b"[]", b"{}", b"\xff", b"1e999", b"NaN", b'""', b"9" * 30)),
    st.integers(-1, 3),
)
DAMAGES = st.one_of(
    st.lists(damage.STEPS, min_size=1, max_size=2).map(lambda x: lambda c: damage.apply(c, x)),
    OTHER_JSON.map(lambda other: lambda content: other),
    VALUES.map(lambda v: lambda content: content.replace(*v)),
)


def find_text_files(folder):
    """The files that hold JSON, ours and Orbax's."""
    names = ("config.json", "study.json", "metrics.jsonl", "starts.jsonl", "digests.json")
    names += ("data.json", "claims.json", "_CHECKPOINT_METADATA", "_METADATA", "_sharding", "lock")
    found = [
        path
        for path in folder.rglob("*")
        if path.name in names or path.parent.name == "evaluations"
    ]
    return sorted([*found, *folder.rglob("metrics/metrics")])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    jax.devices()  # Otherwise the first run sets XLA_FLAGS.
    before = {name: os.environ.get(name) for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")}
    here = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "build_program", shared_programs.build_program)
        patch.setattr("cnn_jax.cli.command.prepare_jax", lambda compile_cache: None)
        made = study_folders.make(tmp_path_factory)
        os.chdir(tmp_path_factory.mktemp("damaged"))
        yield made
    os.chdir(here)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # What Orbax left unfinished complains when it is collected.
    assert before == {name: os.environ.get(name) for name in before}


def execute(words):
    """(exit code, stderr) of a command."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = cli.execute(["launch.py", *words], {"small": study_folders.make_study}, COSTS)
    return code, said.getvalue()


@pytest.mark.filterwarnings("ignore")  # Of Orbax and TensorStore, about what they cannot read.
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not budget.LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    state=st.sampled_from(("finished", "unfinished")),
    place=st.integers(0, 10**6),
    change=DAMAGES,
    words=st.sampled_from(COMMANDS),
)
def test_a_damaged_file_never_ends_in_a_traceback(folders, state, place, change, words):
    for name in ("here", "there"):
        shutil.rmtree(name, ignore_errors=True)
    shutil.copytree(folders[state], "here")
    files = find_text_files(folders[state])
    path = "here" / files[place % len(files)].relative_to(folders[state])
    path.write_bytes(content := change(path.read_bytes()))
    code, said = execute(words)
    what = f"{words} after damage of {path}: {content[:80]!r}\n{said}"
    assert code in (0, 2) and "Traceback" not in said, what
    assert code == 0 or len(said.splitlines()[-1]) < 2_000, what
