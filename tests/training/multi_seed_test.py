"""Seeds in one program: each has the numbers and files of a separate run, however runs end."""

import dataclasses
import functools
import json
import signal

import jax
import numpy as np
import pytest
from helpers import small_models
from helpers.compilations import count_compilations
from helpers.small_run import RUN, TIMES, CutError

from cnn_jax import data, models
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.training import metrics_log, multi_seed, train, watchdog
from cnn_jax.training.program import build_program

pytestmark = pytest.mark.usefixtures("shared_programs")

SEEDS = (0, 1)


def unrolled(one, platform, params):
    return multi_seed.unroll(one)


def stacked(one, platform, params):
    return multi_seed.vectorize(one)


FORMS = {"unrolled": unrolled, "stacked": stacked}


def use(form, monkeypatch):
    monkeypatch.setattr(multi_seed, "choose_form", FORMS[form])


def trained(run, source, seeds, steps):
    """Returns the seeds' states after some steps on one device."""
    program = build_program(run, source, jax.devices()[:1], seeds)
    state, batches = program.state, program.batches(0)
    for _ in range(steps):
        state = program.step(state, next(batches))
        state = program.join(program.split(state))  # As the loop does when it logs.
    assert count_compilations(program.compiled_step) == 1
    return jax.device_get(program.split(state))


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), a, b)


@pytest.fixture(scope="module")
def digits():
    """Returns digits of 16x16, because LeNet-5 needs more than 8x8."""
    source = data.open_dataset(choose("digits"))

    def double(split):
        return split._replace(images=split.images.repeat(2, 1).repeat(2, 2))

    return source._replace(train=double(source.train), test=double(source.test))


NETS = {
    "perceptron": {},
    "mlp": {"hidden": (16,), "dropout": 0.5},  # Dropout's masks are the same too.
    "lenet5_modern": {},
    "two_blocks": {"bn_group": 4},
}


@pytest.fixture(scope="module")
def alone(digits):
    """Returns the states of a model's seeds, trained separately."""

    @functools.cache
    def states(name):
        return [trained(experiment(name), digits, [seed], 3)[0] for seed in SEEDS]

    return states


def experiment(name):
    data = Data(batch_size=8, pad_and_crop=1)
    return Experiment(
        data=data, model=choose(name, **NETS[name]), schedule=choose("plateau", base=0.02)
    )


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("form", FORMS)
def test_each_seed_has_the_numbers_of_a_separate_run(form, name, digits, alone, monkeypatch):
    small_models.register(monkeypatch)
    use(form, monkeypatch)
    states = trained(experiment(name), digits, SEEDS, 3)
    assert_close(states, alone(name))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), states[0].params, states[1].params)
    # The comparison would miss it if all seeds were the same.
    assert max(jax.tree.leaves(moved)) > 1e-2


@pytest.mark.parametrize(
    ("name", "platform", "stacks"),
    [
        ("mlp", "cpu", True),
        ("perceptron", "cpu", True),
        ("lenet5", "cpu", False),
        ("lenet5_modern", "cpu", False),
        ("mlp", "gpu", True),
        ("lenet5_modern", "gpu", True),
    ],
)
def test_seeds_are_unrolled_only_with_convolutions_on_a_cpu(name, platform, stacks):
    image, classes = models.get_paper_input(name)
    init, key = models.create(name, classes).init, jax.random.key(0)
    shapes, _ = jax.eval_shape(init, key, jax.ShapeDtypeStruct((1, *image), "float32"))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    joint = multi_seed.choose_form(None, platform, params).join([params, params])
    assert isinstance(joint, tuple) != stacks


def events(workdir, seed):
    """Returns the lines of a seed's metrics.jsonl without times."""
    return [
        {k: v for k, v in e.items() if k not in TIMES}
        for e in metrics_log.read_events(workdir / f"net/seed{seed}")
    ]


def starts(workdir, seed):
    """Returns the steps at which a seed was started."""
    return [
        json.loads(line)["step"]
        for line in (workdir / f"net/seed{seed}/starts.jsonl").read_text().splitlines()
    ]


def files(folder):
    return {
        "/".join(p.relative_to(folder).parts[:2])
        for p in folder.rglob("*")
        if "tfevents" not in p.name
    }


def same(a, b):
    """Checks that two lists of events are equal up to rounding."""
    assert [e.keys() for e in a] == [e.keys() for e in b]
    for one, other in zip(a, b, strict=True):
        assert one["event"] == other["event"]
        numbers = [[v for k, v in e.items() if k != "event"] for e in (one, other)]
        np.testing.assert_allclose(*numbers, rtol=1e-5)


def run_of(seed):
    return dataclasses.replace(RUN, seed=seed)


@pytest.fixture(scope="module")
def separate_runs(tmp_path_factory):
    """Returns a folder in which three seeds were trained separately."""
    workdir = tmp_path_factory.mktemp("alone")
    for seed in range(3):
        train.run(run_of(seed), workdir)
    return workdir


@pytest.mark.parametrize("form", FORMS)
def test_each_seed_writes_the_files_of_a_separate_run(form, separate_runs, tmp_path, monkeypatch):
    use(form, monkeypatch)
    found = train.run_seeds(RUN, [0, 1, 2], tmp_path)
    for seed in range(3):
        folder, theirs = (workdir / f"net/seed{seed}" for workdir in (tmp_path, separate_runs))
        same(events(tmp_path, seed), events(separate_runs, seed))
        assert files(folder) == files(theirs)
        assert (folder / "config.json").read_text() == (theirs / "config.json").read_text()
        assert found[seed] == metrics_log.read_result(folder)
    assert found[0]["loss"] != found[1]["loss"]


def test_finished_seeds_are_not_trained_again(tmp_path, monkeypatch):
    alone = train.run(run_of(1), tmp_path)
    found = train.run_seeds(RUN, [0, 1, 2], tmp_path)
    assert found[1] == alone and list(found) == [0, 1, 2] and starts(tmp_path, 1) == [0]
    monkeypatch.setattr(train, "build_program", None)  # Training would raise.
    assert train.run_seeds(RUN, [0, 1, 2], tmp_path) == found


def broken(at, monkeypatch, change):
    """Applies `change` to the seeds' states after `at` steps."""
    build = train.build_program

    def poisoned(*args, **kwargs):
        program = build(*args, **kwargs)

        def step(state, arrays, batch):
            states = program.split(state)
            if int(states[0].step) == at:
                state = program.join(change(states))
            return program.compiled_step(state, arrays, batch)

        return program._replace(compiled_step=step)

    monkeypatch.setattr(train, "build_program", poisoned)
    return lambda: monkeypatch.setattr(train, "build_program", build)


@pytest.mark.parametrize("form", FORMS)
def test_a_diverged_seed_ends_and_does_not_change_the_others(
    form, separate_runs, tmp_path, monkeypatch
):
    use(form, monkeypatch)

    def diverge(states):
        states[1] = states[1].replace(
            params=jax.tree.map(lambda x: x * np.float32(np.inf), states[1].params)
        )
        return states

    broken(5, monkeypatch, diverge)
    found = train.run_seeds(RUN, [0, 1, 2], tmp_path)
    for seed in (0, 2):
        same(events(tmp_path, seed), events(separate_runs, seed))
    assert isinstance(
        found[1], UserError
    ) and "net: the loss is not finite at step 5; step 4 is saved" in str(found[1])
    # Nothing follows it.
    assert [e["event"] for e in events(tmp_path, 1) if e["step"] >= 5] == ["train", "nan"]
    again = train.run_seeds(RUN, [0, 1, 2], tmp_path)
    assert "would be again" in str(again[1]) and again[0] == found[0]
    assert [starts(tmp_path, seed) for seed in range(3)] == [[0]] * 3


def test_the_run_ends_when_all_seeds_have_diverged(tmp_path):
    run = dataclasses.replace(
        RUN, schedule=choose("constant", base=1e30), train=Train(steps=10**6, log_every=3)
    )
    found = train.run_seeds(run, [0, 1], tmp_path)
    assert all(isinstance(end, UserError) for end in found.values())


def interrupt(at, workdir, monkeypatch, seeds):
    def cut(states):
        raise CutError

    mend = broken(at, monkeypatch, cut)
    with pytest.raises(CutError):
        train.run_seeds(RUN, seeds, workdir)
    mend()


def test_interrupted_seeds_are_resumed_in_one_program(separate_runs, tmp_path, monkeypatch):
    interrupt(7, tmp_path, monkeypatch, [0, 1, 2])
    train.run_seeds(RUN, [0, 1, 2], tmp_path)
    for seed in range(3):
        same(events(tmp_path, seed), events(separate_runs, seed))
        assert starts(tmp_path, seed) == [0, 6]


def test_seeds_that_are_behind_catch_up(separate_runs, tmp_path, monkeypatch):
    interrupt(9, tmp_path, monkeypatch, [0])
    interrupt(5, tmp_path, monkeypatch, [1])
    train.run_seeds(RUN, [0, 1, 2], tmp_path)
    assert [starts(tmp_path, seed) for seed in range(3)] == [[0, 8], [0, 4, 8], [0, 4, 8]]
    for seed in range(3):
        same(events(tmp_path, seed), events(separate_runs, seed))


def test_seeds_catch_up_with_one_that_a_signal_has_stopped_inside_a_log_interval(
    separate_runs, tmp_path, monkeypatch
):
    def ask_to_stop(states):
        signal.raise_signal(signal.SIGTERM)
        return states

    monkeypatch.setattr(watchdog, "GRACE", 600.0)  # It would end pytest on a slow machine.
    mend = broken(6, monkeypatch, ask_to_stop)
    with pytest.raises(StoppedError, match="at step 7, which is saved"):
        train.run_seeds(RUN, [0], tmp_path)
    mend()
    train.run_seeds(RUN, [0, 1], tmp_path)
    for seed in (0, 1):  # Nothing is due after step 7.
        same(events(tmp_path, seed), events(separate_runs, seed))
    assert starts(tmp_path, 0) == [0, 7] and starts(tmp_path, 1) == [0, 7]


def test_a_signal_while_a_seed_is_evaluated_saves_all_seeds_at_this_step(
    separate_runs, tmp_path, monkeypatch
):
    build, evaluated = train.build_program, []

    def stopping(*args, **kwargs):
        program = build(*args, **kwargs)

        def evaluate(state):
            evaluated.append(int(state.step))
            if len(evaluated) == 2:  # That of seed 1.
                signal.raise_signal(signal.SIGTERM)
            return program.evaluate(state)

        return program._replace(evaluate=evaluate)

    monkeypatch.setattr(watchdog, "GRACE", 600.0)
    monkeypatch.setattr(train, "build_program", stopping)
    with pytest.raises(StoppedError, match=f"at step {RUN.train.eval_every}, which is saved"):
        train.run_seeds(RUN, [0, 1, 2], tmp_path)
    assert evaluated == [RUN.train.eval_every] * 2
    monkeypatch.setattr(train, "build_program", build)
    train.run_seeds(RUN, [0, 1, 2], tmp_path)
    for seed in range(3):
        same(events(tmp_path, seed), events(separate_runs, seed))
        assert starts(tmp_path, seed) == [0, RUN.train.eval_every]


# TensorStore prints it when a read fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_seed_with_an_unreadable_checkpoint_catches_up_from_the_previous_one(
    separate_runs, tmp_path, monkeypatch
):
    interrupt(9, tmp_path, monkeypatch, [0, 1])
    for path in (tmp_path / "net/seed1/checkpoints/8/state").rglob("d/*"):
        path.unlink()
    train.run_seeds(RUN, [0, 1], tmp_path)
    assert [starts(tmp_path, seed) for seed in range(2)] == [[0, 8], [0, 6, 8]]
    for seed in range(2):
        same(events(tmp_path, seed), events(separate_runs, seed))


def test_pmap_is_refused(tmp_path):
    run = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, parallel="pmap"))
    with pytest.raises(
        UserError,
        match=r"train\.parallel=pmap: seeds are trained together only with train\.parallel=jit",
    ):
        train.run_seeds(run, [0, 1], tmp_path)
    assert not list(tmp_path.iterdir())
