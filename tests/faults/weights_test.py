"""Hostile and damaged files of weights: refused in one line or read; no code in them is run."""

import sys
import time
from pathlib import Path

import pytest
from helpers import budget, damage
from helpers.torch_pickles import opcodes, write_pickle
from helpers.weight_files import WRITERS, read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_jax import pretrained
from cnn_jax.errors import UserError

EXAMPLES = budget.choose(150, 2_500)  # Of each of the two kinds.
SECONDS = 5  # Of this process.
# What Python tells an audit hook when code gets out.
FORBIDDEN = (
    *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.mkdir"),
    *("os.remove", "os.rename", "shutil.rmtree", "socket.connect", "pickle.find_class"),
)
_seen: list[str] | None = None

NAMES = st.sampled_from(
    (
        *("os.system", "posix.system", "os.mkdir", "subprocess.Popen", "runpy.run_path", "a.b"),
        *("builtins.eval", "builtins.exec", "builtins.getattr", "builtins.open", "pickle.loads"),
        *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.nn.Module"),
        *("torch.FloatStorage", "torch.storage._load_from_bytes", "collections.OrderedDict"),
        *("numpy.core.multiarray._reconstruct", "argparse.Namespace", "codecs.encode"),
        *("functools.partial", "operator.attrgetter", "cnn_jax.cli.main"),
    )
)
COMMANDS = st.sampled_from(
    ("mkdir hostile", "__import__('os').mkdir('hostile')", "hostile", "storage")
)
VALUES = st.recursive(
    COMMANDS | st.integers(-(2**70), 2**70) | st.none() | st.booleans() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def name_global(name):
    module, _, leaf = name.rpartition(".")
    return f"c{module}\n{leaf}\n".encode()


def name_by_stack(name):
    module, _, leaf = name.rpartition(".")
    return opcodes(module) + opcodes(leaf) + b"\x93"


def instantiate(name):
    module, _, leaf = name.rpartition(".")
    return f"(Vmkdir hostile\ni{module}\n{leaf}\n".encode()


PARTS = b"(.0125NRQoabdeliqrtuj}])\x81\x85\x86\x87\x88\x93\x94"
# Opcodes of the pickle machine: whole calls, and parts in any order.
INSTRUCTIONS = st.one_of(
    st.tuples(NAMES, COMMANDS).map(lambda x: name_global(x[0]) + opcodes((x[1],)) + b"R"),
    st.tuples(NAMES, COMMANDS).map(lambda x: name_by_stack(x[0]) + opcodes((x[1],)) + b"\x81"),
    NAMES.map(instantiate),
    NAMES.map(name_global),
    VALUES.map(opcodes),
    st.sampled_from([bytes([code]) for code in PARTS]),
    st.sampled_from((b"q\x00", b"h\x00", b"\x82\x01", b"\x95" + b"\xff" * 8, b"B\xff\xff\xff\x7f")),
    st.binary(max_size=4),
)
PROGRAMS = st.lists(INSTRUCTIONS, max_size=12).map(
    lambda parts: b"\x80\x02" + b"".join(parts) + b"."
)


@pytest.fixture(scope="module", autouse=True)
def _watched():
    """Whatever gets out is written down; a hook cannot be taken away, so it is turned off."""
    global _seen

    def hook(event, arguments):
        if _seen is not None and event.startswith(FORBIDDEN):
            _seen.append(f"{event} {arguments!r:.80}")

    sys.addaudithook(hook)
    yield
    _seen = None


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {kind: write(folder / kind).read_bytes() for kind, write in WRITERS.items()}


def try_file(path, *readers):
    """Every reader reads the file or refuses it in one line, soon, and runs nothing."""
    global _seen
    for read in readers:
        _seen, began = [], time.process_time()
        try:
            read(path)
        except UserError as error:
            text = str(error)
            assert text and "\n" not in text and len(text) < 2_000
        finally:
            seen, _seen = _seen, None
        assert not seen, seen
        assert time.process_time() - began < SECONDS
        assert not Path("hostile").exists()


def in_budget(test):
    return settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not budget.LONG,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(test)


def load_public(path):
    pretrained.load("resnet18", path)


def load_ours(path):
    pretrained.load("mlp", path)


@in_budget
@given(content=PROGRAMS, form=st.sampled_from(("zip", "stream")))
def test_a_hostile_pickle_runs_nothing(content, form, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "hostile.pth"
    if form == "zip":
        write_pickle(path, content)
    else:
        path.write_bytes(content)
    try_file(path, read_all, load_public)


@in_budget
@given(data=st.data())
def test_a_damaged_file_of_weights_is_refused_or_read(data, contents, tmp_path_factory):
    _, content = data.draw(damage.damaged(contents))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try_file(path, read_all, load_ours, load_public)
