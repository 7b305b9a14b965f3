"""Random commands: flags, fields and values of every kind. One line or none, and never exit 1.

A command that would train is taken as far as its traced step: nothing is compiled.
"""

import contextlib
import io
import os
import shutil
import typing
from typing import Literal

import jax
import pytest
from helpers import budget
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_jax import cli, data, mesh, models
from cnn_jax.config import iterate_fields
from cnn_jax.data import datasets
from cnn_jax.errors import UserError
from cnn_jax.evaluation.protocols import PROTOCOLS
from cnn_jax.optim import OPTIMIZERS, SCHEDULES
from cnn_jax.registry import get_option_types
from cnn_jax.training import compiled_functions, multi_seed, train
from cnn_jax.training.components import make_components
from cnn_jax.training.state import init_state
from experiments import COSTS, STUDIES

EXAMPLES = budget.choose(60, 2_000)
AS_FAR_AS_IT_GOES = "as far as it goes"
SMOKE = ("--experiment=resnet_degradation", "--preset=smoke", "--run=plain-20")
NAMES = {
    "model": tuple(models.MODELS),
    "optimizer": tuple(OPTIMIZERS),
    "schedule": tuple(SCHEDULES),
    "data.dataset": (*datasets.DATASETS, "imagenet2012", "no_such_set", "a/b/c", "a:x", "a/b=c"),
}


def list_fields(model, optimizer, schedule):
    """The fields of a run, and the options of what it names, with their types."""
    found = {path: wanted for path, wanted, _ in iterate_fields() if path not in NAMES}
    found |= {f"model.{k}": t for k, t in models.get_option_types(model).items()}
    found |= {f"optimizer.{k}": t for k, t in get_option_types(OPTIMIZERS[optimizer]).items()}
    found |= {f"schedule.{k}": t for k, t in get_option_types(SCHEDULES[schedule]).items()}
    found |= {"data.dataset": Literal[NAMES["data.dataset"]]}
    return {
        k: t
        for k, t in found.items()
        if k not in ("protocols", "deviations", "study", "name", "seed")
    }


JUNK = st.one_of(
    st.sampled_from(("", " ", "none", "true", "0", "-1", "nan", "inf", "1e300", "9" * 30, "x")),
    st.sampled_from(
        ("(1,2", "1,2,3", "1;2", "[]", "\x1b[31m", "a\nb", "ä", "\u202e", "a=b", "../x")
    ),
    st.text(max_size=12),
)
SMALL_INTEGERS = st.integers(0, 16)
INTEGERS = st.one_of(
    SMALL_INTEGERS, SMALL_INTEGERS, st.sampled_from((31, 64, 1000, -1, 2**31 - 1, 2**31, 2**63))
)
NUMBERS = st.one_of(
    st.sampled_from((0.0, 0.1, 0.5, 0.9, 1.0)),
    st.sampled_from((1.5, -0.1, 1e-8, 1e8, 1e30, 1e31, 1e39)),
    st.floats(0, 1),
    st.floats(),
).map(str)
KEY = jax.random.key(0)
PATHS = st.one_of(
    st.sampled_from(("nowhere", "/proc/x", "/dev/null", "a" * 300, "~no_such_user", "gs://a/b")),
    st.sampled_from((".", "", "x y", "a\x00b", "bad.json", "https://localhost:1/w.pth")),
)


def make_texts(wanted):
    """Texts that --set may be given for a field of this type, most of them sensible."""
    if hasattr(wanted, "__metadata__"):
        bounds = [b for b in wanted.__metadata__ if not isinstance(b, str)]
        edges = [e for bound in bounds for e in bound if e is not None]
        near = [round(e) + d if abs(e) < 2**40 else e for e in edges for d in (-1, 0, 1)]
        inner = make_texts(wanted.__origin__)
        return inner | st.sampled_from(near).map(str) if near else inner
    if typing.get_origin(wanted) is Literal:
        return st.sampled_from(typing.get_args(wanted)).map(str)
    if typing.get_origin(wanted) is tuple:
        inner = make_texts(typing.get_args(wanted)[0])
        return st.lists(inner, max_size=4).map(",".join)
    if len(typing.get_args(wanted)) == 2:  # Optional.
        return make_texts(typing.get_args(wanted)[0]) | st.just("none")
    if wanted is int:
        return INTEGERS.map(str)
    if wanted is float:
        return NUMBERS
    return st.sampled_from(("true", "false")) if wanted is bool else JUNK | PATHS


def make_inside(wanted):
    """Texts of values within the bounds of a type, most of them small."""
    bounds = getattr(wanted, "__metadata__", ())
    bare = getattr(wanted, "__origin__", wanted) if bounds else wanted
    numbers = [b for b in bounds if not isinstance(b, str)]
    least = max((b.least or 0 for b in numbers), default=0)
    least += 0.05 * any(b.above is not None for b in numbers)
    options = typing.get_args(bare)
    if typing.get_origin(bare) is Literal:
        return st.sampled_from(options).map(str)
    if typing.get_origin(bare) is tuple:
        return st.lists(make_inside(options[0]), min_size=1, max_size=4).map(",".join)
    if len(options) == 2:  # Optional.
        return make_inside(options[0])
    if bare is int:
        return st.integers(int(least), int(least) + 8).map(str)
    if bare is float:
        return st.sampled_from((least, least + 0.1, least + 0.5, least + 0.9)).map(str)
    return make_texts(bare)


@st.composite
def make_sets(draw):
    """--set of a few fields that there are; half of the commands have values of any kind."""
    names = [draw(st.sampled_from(NAMES[kind])) for kind in ("model", "optimizer", "schedule")]
    words = [f"--set=optimizer={names[1]}", f"--set=schedule={names[2]}"]
    if draw(st.booleans()):
        words.append(f"--set=model={names[0]}")
        words += draw(st.sampled_from(((), STREAMED)))
    else:
        names[0] = "mlp"
    fields = list_fields(*names)
    make = draw(st.sampled_from((make_inside, make_inside, make_texts)))
    for path in draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=4)):
        if "start_" not in path or make is make_texts:
            words.append(f"--set={path}={draw(make(fields[path]))}")
    if draw(st.integers(0, 5)) == 0:
        words.append(f"--set={draw(st.sampled_from(sorted(fields)))}={draw(JUNK)}")
    return tuple(words)


# Images of a size that every model takes.
STREAMED = tuple(
    f"--set=data.{words}" for words in ("train_resize=240", "image_size=224", "pad_and_crop=0")
)
FIELDS = sorted(list_fields("resnet20", "sgd", "step"))
STUDY = st.sampled_from(sorted(STUDIES)).flatmap(
    lambda name: st.sampled_from((*COSTS[name], "smoke")).map(
        lambda preset: (f"--experiment={name}", f"--preset={preset}")
    )
)
SMALL = st.just((*SMOKE, "--set=model=mlp", "--set=model.hidden=8"))
EXTRA = st.lists(
    st.one_of(
        st.sampled_from(
            ("--together", "--overwrite", "--share", "--report", "--dry_run", "--list")
        ),
        st.sampled_from(("--seeds=2", "--seeds=0", "--seeds=1000", "--profile=1", "--profile=x")),
        st.sampled_from(("--parallel=pmap", "--parallel=", "--format=json", "--image_size=32")),
        st.sampled_from(("--num_processes=2", "--process_id=1", "--topology=v5e:4x4", "--x", "y")),
        PATHS.map(lambda path: f"--workdir={path}"),
        PATHS.map(lambda path: f"--data_dir={path}"),
        PATHS.map(lambda path: f"--data=folder:{path}"),
        st.sampled_from(("digits", "fake", "cifar10", "")).map(lambda name: f"--data={name}"),
        JUNK.map(lambda text: f"--run={text}"),
        JUNK.map(lambda text: f"--preset={text}"),
        JUNK.map(lambda text: f"--data={text}"),
        st.tuples(st.sampled_from(FIELDS), JUNK, JUNK).map(
            lambda words: f"--sweep={words[0]}={words[1]},{words[2]}"
        ),
    ),
    max_size=2,
).map(tuple)


def join(parts):
    return sum(parts, ())


VIEWS = st.sampled_from((*PROTOCOLS, "x")).map(lambda name: f"--views={name}")
SCALES = st.lists(INTEGERS.map(str) | JUNK, max_size=2).map(lambda x: f"--scales={','.join(x)}")
MODES = st.one_of(
    st.sampled_from((*models.MODELS, "all?", "")).map(lambda name: (f"--summary={name}",)),
    st.tuples(PATHS, VIEWS, SCALES).map(lambda x: (f"--evaluate={x[0]}", *x[1:])),
    st.tuples(st.sampled_from(NAMES["model"]), PATHS).map(
        lambda x: (f"--evaluate={x[0]}:{x[1]}", "--data=digits")
    ),
    PATHS.map(lambda path: ("--report", f"--workdir={path}")),
    st.lists(PATHS, max_size=2).map(lambda paths: (f"--compare={','.join(paths)}",)),
    PATHS.map(lambda path: (f"--claims={path}",)),
    JUNK.map(lambda text: (f"--experiment={text}",)),
)
COMMANDS = st.one_of(
    st.tuples(SMALL, make_sets(), st.sampled_from(((), ("--dry_run",)))).map(join),
    st.tuples(SMALL, make_sets(), EXTRA).map(join),
    st.tuples(STUDY, make_sets(), st.just(("--dry_run", "--run=*-1*"))).map(join),
    st.tuples(MODES, make_sets() | st.just(()), EXTRA).map(join),
)


def trace(experiment, seeds, workdir, profile_steps=0, cache=None):
    """Stands where training would begin: the model, the optimizer and the step are traced."""
    del workdir, profile_steps
    parts = make_components(experiment, seeds=len(seeds))
    loader = data.make_loader(experiment.data, parts.dataset, 0, (0, 1))
    image = jax.ShapeDtypeStruct((1, *loader.image_shape), "float32")
    state = jax.eval_shape(lambda key: init_state(parts.model, parts.optimizer, key, image), KEY)
    over = mesh.make_batch_mesh()
    if len(seeds) == 1 and parts.axis is None:
        form = compiled_functions.make_step(experiment, parts, loader, 1, over)
        batch = next(iter(loader.batches(0)))
        inputs = multi_seed.Inputs(loader.arrays, (jax.random.key_data(KEY),))
        jax.eval_shape(form.step, form.join([state]), inputs, batch)
    raise UserError(AS_FAR_AS_IT_GOES)


@pytest.fixture(scope="module", autouse=True)
def _as_far_as_it_goes(tmp_path_factory):
    one = mesh.make_batch_mesh(jax.devices()[:1])
    before, place = os.getcwd(), tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "make_batch_mesh", lambda devices=None: one)
        patch.setattr(train, "run_seeds", trace)
        patch.setattr("cnn_jax.cli.command.prepare_jax", lambda compile_cache: None)
        patch.setattr("cnn_jax.distributed.initialize", lambda *words: None)
        os.chdir(place)
        (place / "bad.json").write_text("[[[")
        yield
        os.chdir(before)


def execute(words):
    """(exit code, stdout, stderr) of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.execute(["launch.py", *words], STUDIES, COSTS)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not budget.LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(COMMANDS)
def test_any_command_ends_in_its_answer_or_in_one_line(words):
    code, _, said = execute(words)
    shutil.rmtree("runs", ignore_errors=True)
    assert code in (0, 2) and "Traceback" not in said, f"{words}: {said}"
    lines = [line for line in said.splitlines() if not line.startswith(("left out:", "fake"))]
    if code == 2:
        assert len(lines) == 1, f"{words}: {said}"
        assert len(said) < 4000 and "\x1b" not in said, f"{words}: {said}"
