"""Runs and their files: resumed bit for bit, skipped when finished, never overwritten."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_models
from helpers.compilations import count_compilations
from helpers.faults import make_images
from helpers.small_run import RUN, TIMES, cut_at
from tensorboardX.proto import event_pb2

from cnn_jax import mesh
from cnn_jax.config import Data, Train, change, choose
from cnn_jax.config_file import from_json, read_config
from cnn_jax.errors import UserError
from cnn_jax.optim import schedules
from cnn_jax.training import (
    checkpoint,
    divergence,
    metrics_log,
    program,
    run_folders,
    run_lock,
    train,
)
from cnn_jax.training.components import complete

pytestmark = pytest.mark.usefixtures("shared_programs")

SINGLE = choose("single")


@pytest.fixture
def jump(monkeypatch):
    """Returns a run whose rate makes the loss overflow at step 4, after a checkpoint."""

    def make(length, *, base: float = 0.01):
        return schedules.scale_by_rate(lambda t, base: jnp.where(t < 4, base, 1e28), base)

    monkeypatch.setitem(schedules.SCHEDULES, "jump", make)
    return choose("jump")


def lines(workdir):
    return [
        {k: v for k, v in e.items() if k not in TIMES}
        for e in metrics_log.read_events(workdir / "net/seed0")
    ]


def final(workdir, run=RUN):
    like = train.build_program(run).state
    with checkpoint.make_manager(workdir / "net/seed0") as checkpoints:
        return jax.device_get(checkpoint.restore(checkpoints, like))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train.run(RUN, workdir)


def test_a_run_writes_its_files(whole):
    workdir, found = whole
    folder = workdir / "net/seed0"
    assert from_json((folder / "config.json").read_text()) == complete(RUN)
    events = metrics_log.read_events(folder)
    others = [(e["event"], e["step"]) for e in events if e["event"] != "train"]
    assert others == [("eval", 6), ("eval", 12), ("end", 12)]
    assert [e["step"] for e in events if e["event"] == "train"] == [2, 4, 5, 6, 8, 10, 12]
    train_keys = {"event", "step", "epoch", "loss", "top1_error", "lr", *TIMES}
    assert all(set(e) == train_keys for e in events if e["event"] == "train")
    assert (
        found == next(e for e in reversed(events) if e["event"] == "eval") and found["images"] == 40
    )
    start = json.loads((folder / "starts.jsonl").read_text())
    assert set(start) == {"step", "steps", "time", "commit", "hardware", "versions"}
    assert list((folder / "tensorboard").glob("events*"))
    assert events[-3]["epoch"] == pytest.approx(12 * 32 / 96)


def test_the_step_is_compiled_once(tmp_path, monkeypatch):
    made = []

    def note(run, **seeds):
        made.append(program.build_program(run, **seeds))
        return made[0]

    monkeypatch.setattr(train, "build_program", note)
    train.run(RUN, tmp_path)
    assert count_compilations(made[0].compiled_step) == 1


def curves(workdir):
    """Returns {tag: {step: value}} as TensorBoard shows it: later files replace earlier steps."""
    found = {}
    for path in sorted((workdir / "net/seed0/tensorboard").glob("events*")):
        content, at = path.read_bytes(), 0
        while at < len(content):  # A record is a length, its checksum, an event, its checksum.
            size = int.from_bytes(content[at : at + 8], "little")
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16
            if event.session_log.status == event_pb2.SessionLog.START:
                found = {
                    tag: {k: v for k, v in curve.items() if k < event.step}
                    for tag, curve in found.items()
                }
            for value in event.summary.value:
                curve = found.setdefault(value.tag, {})
                assert event.step not in curve, f"{value.tag} has step {event.step} twice"
                curve[event.step] = value.simple_value
    return found


@pytest.mark.parametrize(
    "cut", [1, 3, 5, 7, 11]
)  # At 5 the last line is later than the checkpoint.
def test_a_run_resumed_from_any_step_is_bit_identical(cut, whole, tmp_path, monkeypatch):
    workdir, _ = whole
    cut_at(cut, RUN, tmp_path, monkeypatch)
    train.run(RUN, tmp_path)
    assert lines(tmp_path) == lines(workdir)
    drawn, expected = curves(tmp_path), curves(workdir)
    assert drawn.keys() == expected.keys() and drawn["train/loss"] == expected["train/loss"]
    assert all(drawn[tag].keys() == expected[tag].keys() for tag in expected)
    continued, straight = final(tmp_path), final(workdir)
    assert jax.tree.structure(continued) == jax.tree.structure(straight)
    for a, b in zip(jax.tree.leaves(continued), jax.tree.leaves(straight), strict=True):
        assert a.tobytes() == b.tobytes()
    assert len((tmp_path / "net/seed0/starts.jsonl").read_text().splitlines()) == 2


def test_batch_norm_s_averages_are_resumed_also_under_pmap(tmp_path, monkeypatch):
    small_models.register(monkeypatch)
    two = mesh.make_batch_mesh(jax.devices()[:2])
    monkeypatch.setattr(mesh, "make_batch_mesh", lambda devices=None: two)
    data = dataclasses.replace(RUN.data, batch_size=16)
    short = Train(steps=4, log_every=4, eval_every=4, save_every=2)
    run = dataclasses.replace(RUN, data=data, model=choose("two_blocks", bn_group=2), train=short)
    train.run(run, tmp_path / "straight")
    for folder in ("jit", "pmap"):
        cut_at(3, run, tmp_path / folder, monkeypatch)
        train.run(
            dataclasses.replace(run, train=dataclasses.replace(short, parallel=folder)),
            tmp_path / folder,
        )
    straight, jit, pmap = (
        jax.tree.leaves(final(tmp_path / name, run)) for name in ("straight", "jit", "pmap")
    )
    assert [leaf.tobytes() for leaf in jit] == [leaf.tobytes() for leaf in straight]
    for a, b in zip(pmap, straight, strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4)


@pytest.mark.slow  # a minute and a half
def test_auxiliary_heads_are_resumed(tmp_path, monkeypatch):
    data = Data(
        dataset=choose("fake"),
        batch_size=8,
        eval_batch_size=40,
        pad_and_crop=0,
        train_resize=(224,),
        image_size=224,
    )
    model = choose("googlenet", width=1 / 16, aux_heads=True)  # Both heads have dropout.
    short = Train(steps=3, log_every=2, eval_every=3, save_every=1)
    run = dataclasses.replace(RUN, data=data, model=model, train=short)
    train.run(run, tmp_path / "straight")
    cut_at(2, run, tmp_path / "cut", monkeypatch)
    train.run(run, tmp_path / "cut")
    assert lines(tmp_path / "cut") == lines(tmp_path / "straight")
    one, other = (jax.tree.leaves(final(tmp_path / name, run)) for name in ("straight", "cut"))
    assert [leaf.tobytes() for leaf in one] == [leaf.tobytes() for leaf in other]


# TensorStore prints it when a read fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_unreadable_checkpoint_is_named_and_the_previous_one_is_used(whole, tmp_path, capsys):
    workdir, _ = whole
    shutil.copytree(workdir / "net", tmp_path / "net")
    folder = tmp_path / "net/seed0"
    for path in (folder / "checkpoints/12/state").rglob("d/*"):
        path.unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(
        "".join(lines[:-1])
    )  # The line of its end was incomplete.
    train.run(RUN, tmp_path)
    assert "checkpoint 12 in" in capsys.readouterr().err
    assert (folder / "damaged_checkpoints/12/state").is_dir()
    for a, b in zip(jax.tree.leaves(final(tmp_path)), jax.tree.leaves(final(workdir)), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_finished_run_is_not_trained_again(whole, monkeypatch):
    workdir, found = whole
    monkeypatch.setattr(train, "build_program", None)  # would raise
    assert train.run(RUN, workdir) == found


def test_an_incomplete_last_line_is_dropped(whole, tmp_path):
    folder = tmp_path / "net/seed0"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"event": "train", "step": 1}\n{"event": "tra')
    assert metrics_log.read_events(folder) == [{"event": "train", "step": 1}]


def test_the_best_and_the_last_checkpoints_are_kept(whole):
    workdir, _ = whole
    errors = {
        e["step"]: e["top1_error"]
        for e in metrics_log.read_events(workdir / "net/seed0")
        if e["event"] == "eval"
    }
    with checkpoint.make_manager(workdir / "net/seed0") as checkpoints:
        assert checkpoints.latest_step() == 12
        assert errors[checkpoints.best_step()] == min(errors.values())
        assert set(checkpoints.all_steps()) == {10, 12, checkpoints.best_step()}


def test_a_folder_with_another_configuration_is_refused_and_unchanged(whole):
    workdir, _ = whole
    before = (workdir / "net/seed0/config.json").read_bytes()
    other = dataclasses.replace(RUN, schedule=change(RUN.schedule, base=0.01))
    with pytest.raises(UserError, match=r"another configuration \(schedule.base: 0.05 -> 0.01\)"):
        train.run(other, workdir)
    assert (workdir / "net/seed0/config.json").read_bytes() == before


def test_a_run_from_before_there_were_some_options_goes_on(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "net/seed0/config.json"
    words = json.loads(path.read_text())
    del words["optimizer"]["l1"], words["optimizer"]["nesterov"], words["train"]["stop_after"]
    path.write_text(json.dumps(words))
    assert train.run(RUN, tmp_path) == whole[1]
    other = dataclasses.replace(RUN, optimizer=choose("sgd", l1=0.1))
    with pytest.raises(UserError, match=r"another configuration \(optimizer.l1: 0.0 -> 0.1\)"):
        train.run(other, tmp_path)


def test_an_option_that_is_set_to_its_default_is_the_same_run(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "net/seed0/config.json").read_bytes()
    same = dataclasses.replace(RUN, model=change(RUN.model, dropout=0.0, dtype="float32"))
    assert train.run(same, tmp_path) == whole[1]
    assert (tmp_path / "net/seed0/config.json").read_bytes() == before
    other = dataclasses.replace(RUN, model=change(RUN.model, dropout=0.1))
    with pytest.raises(UserError, match=r"configuration \(model.dropout: default -> 0.1\)"):
        train.run(other, tmp_path)


def test_runtime_fields_do_not_identify_a_run(whole):
    workdir, found = whole
    elsewhere = dataclasses.replace(
        RUN,
        data=dataclasses.replace(RUN.data, dir="/x"),
        train=dataclasses.replace(RUN.train, parallel="pmap"),
    )
    assert train.run(elsewhere, workdir) == found


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_earlier_checkpoints(jump, tmp_path):
    train_20 = dataclasses.replace(RUN.train, steps=20)
    exploding = dataclasses.replace(RUN, schedule=jump, train=train_20)
    with pytest.raises(
        UserError, match=r"net: the loss is not finite at step \d+; step 4 is saved in"
    ):
        train.run(exploding, tmp_path)
    last = metrics_log.read_events(tmp_path / "net/seed0")[-1]
    assert last["event"] == "nan" and 4 < last["step"] < 8
    assert "NaN" not in (tmp_path / "net/seed0/metrics.jsonl").read_text()  # It is not JSON.
    good = final(tmp_path, exploding)
    with pytest.raises(UserError, match="would be again"):
        train.run(exploding, tmp_path)
    assert int(good.step) == 4 and all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(good.params)
    )


def test_a_divergence_is_a_result_where_it_is_to_be_recorded(jump, tmp_path):
    recording = dataclasses.replace(RUN.train, steps=20, on_nan="record")
    exploding = dataclasses.replace(RUN, schedule=jump, train=recording, protocols=(SINGLE,))
    found = train.run(exploding, tmp_path)
    last = metrics_log.read_events(tmp_path / "net/seed0")[-1]
    assert last["event"] == "nan" and found == {"diverged": last["step"]}
    assert int(final(tmp_path, exploding).step) == 4
    assert train.run(exploding, tmp_path) == found  # It is not trained again.
    assert not (tmp_path / "net/seed0/evaluations").exists()


def test_a_run_ends_after_too_many_skipped_updates(jump, tmp_path):
    skipping = dataclasses.replace(RUN.train, steps=40, on_nan="skip")
    with pytest.raises(UserError, match=r"net: the loss or gradient is not finite at step \d+"):
        train.run(dataclasses.replace(RUN, schedule=jump, train=skipping), tmp_path)
    events = metrics_log.read_events(tmp_path / "net/seed0")
    # The line of the last ones is not written.
    assert 10 < sum(e.get("skipped", 0) for e in events) < divergence.MAX_CONSECUTIVE_SKIPS
    assert events[-1]["event"] == "nan" and 4 < events[-1]["step"] < 8


def test_check_numerics_names_the_operation(tmp_path):
    debugging = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, check_numerics=True))
    train.run(debugging, tmp_path / "fine")
    wild = dataclasses.replace(debugging, schedule=choose("constant", base=1e30))
    with pytest.raises(
        UserError, match=r"step 1: nan generated by primitive: \w+, at .*cnn_jax/[\w/]+.py:\d+"
    ):
        train.run(wild, tmp_path / "wild")


def test_a_name_that_leaves_the_workdir_is_refused(tmp_path):
    with pytest.raises(UserError, match="must not have slashes"):
        train.run(dataclasses.replace(RUN, name="../net"), tmp_path / "here")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_workdir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .* choose another workdir"):
        train.run(RUN, tmp_path / "file")


def longer(steps, run=RUN, **changes):
    return dataclasses.replace(run, train=dataclasses.replace(run.train, steps=steps), **changes)


STEADY = longer(12, schedule=choose("constant", base=0.05))


def test_a_finished_run_continued_by_more_steps_equals_a_run_of_that_length(tmp_path):
    """Both evaluate at step 12, and the schedule does not depend on the number of steps."""
    train.run(STEADY, tmp_path / "cut")
    found = train.run(longer(18, STEADY), tmp_path / "cut")
    straight = train.run(longer(18, STEADY), tmp_path / "straight")
    assert found["step"] == straight["step"] == 18 and lines(tmp_path / "cut") == lines(
        tmp_path / "straight"
    )
    one, other = (
        jax.tree.leaves(final(tmp_path / name, longer(18, STEADY))) for name in ("cut", "straight")
    )
    assert [leaf.tobytes() for leaf in one] == [leaf.tobytes() for leaf in other]
    folder = tmp_path / "cut/net/seed0"
    starts = [json.loads(line) for line in (folder / "starts.jsonl").read_text().splitlines()]
    assert [(start["step"], start["steps"]) for start in starts] == [(0, 12), (12, 18)]
    run = read_config(folder / "config.json")
    assert run.train.steps == 18 and not run.deviations
    assert train.run(longer(18, STEADY), tmp_path / "cut") == found


def test_a_continued_run_is_evaluated_with_the_settings_of_this_launch(tmp_path, monkeypatch):
    cut_at(9, STEADY, tmp_path, monkeypatch)
    sizes = []
    monkeypatch.setattr(
        train,
        "evaluate_run",
        lambda folder, asked, experiment: sizes.append(experiment.data.eval_batch_size),
    )
    smaller = dataclasses.replace(STEADY.data, eval_batch_size=8)
    assert smaller != STEADY.data
    train.run(dataclasses.replace(STEADY, data=smaller), tmp_path)
    assert sizes == [8]


def test_more_steps_continue_an_unfinished_run(tmp_path, monkeypatch):
    cut_at(9, STEADY, tmp_path, monkeypatch)
    assert train.run(longer(18, STEADY), tmp_path)["step"] == 18


def test_more_steps_are_a_deviation_where_the_schedule_depends_on_them(tmp_path, monkeypatch):
    def linear(length, *, base: float = 0.05):
        total = length.total_steps
        return schedules.scale_by_rate(
            lambda t, base: base * (1 - jnp.asarray(t, jnp.float32) / total), base
        )

    monkeypatch.setitem(schedules.SCHEDULES, "linear", linear)
    run = dataclasses.replace(STEADY, schedule=choose("linear"))
    train.run(run, tmp_path)
    train.run(longer(18, run), tmp_path)
    (words,) = read_config(tmp_path / "net/seed0/config.json").deviations
    assert words.startswith("Continued from 12 to 18 steps: its learning rates to step 12")


def test_with_plateau_an_evaluation_that_a_longer_run_lacks_is_a_deviation(tmp_path):
    run = longer(10)  # Evaluations at 6 and at its end, 10; a run of 18 steps has 6, 12 and 18.
    train.run(run, tmp_path)
    train.run(longer(18), tmp_path)
    (words,) = read_config(tmp_path / "net/seed0/config.json").deviations
    assert "plateau schedule has also seen an evaluation at step 10" in words


def test_fewer_steps_and_other_changes_are_refused(whole):
    for run in (longer(6), longer(18, optimizer=choose("sgd", momentum=0.5))):
        with pytest.raises(UserError, match=r"holds another configuration .*--overwrite"):
            train.run(run, whole[0])


def test_a_finished_run_is_evaluated_by_its_protocols(tmp_path):
    run = dataclasses.replace(RUN, protocols=(choose("single"), choose("ten_crop")))
    found = train.run(run, tmp_path)
    results = {
        p.stem: json.loads(p.read_text()) for p in (tmp_path / "net/seed0/evaluations").iterdir()
    }
    assert results.keys() == {"single", "ten_crop"} and all(
        r["step"] == 12 for r in results.values()
    )
    assert results["single"]["top1_error"] == pytest.approx(found["top1_error"])
    (tmp_path / "net/seed0/evaluations/ten_crop.json").unlink()
    assert train.run(run, tmp_path) == found  # Only missing evaluations are computed.
    assert (tmp_path / "net/seed0/evaluations/ten_crop.json").exists()


def test_a_launch_that_is_refused_changes_nothing(whole):
    folder = whole[0] / "net/seed0"
    before = {path: path.read_bytes() for path in folder.glob("*.json*")}
    with run_lock.hold(folder), pytest.raises(run_lock.HeldError):
        train.run(longer(18), whole[0])
    assert {path: path.read_bytes() for path in folder.glob("*.json*")} == before


def read_deviations(workdir):
    return read_config(workdir / "net/seed0/config.json").deviations


def test_steps_that_were_not_trained_are_no_deviation(tmp_path, monkeypatch):
    """The schedule needs no number of steps, but its run was to have an evaluation at step 10."""
    cut_at(9, longer(10), tmp_path / "late", monkeypatch)
    train.run(longer(18), tmp_path / "late")
    assert not read_deviations(tmp_path / "late")
    run = dataclasses.replace(STEADY, schedule=choose("cosine", base=0.05))
    for cut in (0, 9):
        cut_at(cut, run, tmp_path / str(cut), monkeypatch)
        train.run(longer(18, run), tmp_path / str(cut))
    assert not read_deviations(tmp_path / "0")
    (words,) = read_deviations(tmp_path / "9")
    rates = "its learning rates to step 8 are those of a run of 12 steps"
    assert words == f"Continued from 8 to 18 steps: {rates}"


def test_with_early_stopping_an_evaluation_that_a_longer_run_lacks_is_a_deviation():
    patient = dataclasses.replace(STEADY.train, stop_after=3)
    run = longer(10, dataclasses.replace(STEADY, train=patient))
    found = run_folders._add_deviation(run, longer(18, run), 10).deviations
    (words,) = found
    assert words.endswith("its early stopping has also seen an evaluation at step 10")
    assert not run_folders._add_deviation(run, longer(18, run), 6).deviations


def test_a_data_set_that_has_moved_is_followed_and_another_one_is_refused(tmp_path):
    def train_on(place):
        dataset = choose("folder", path=str(tmp_path / place))
        sizes = {"train_resize": (8,), "eval_resize": 8, "image_size": 8}
        config = Data(dataset=dataset, batch_size=8, eval_batch_size=8, **sizes)
        run = dataclasses.replace(RUN, data=config, train=Train(steps=2, eval_every=2))
        return train.run(run, tmp_path / "runs")

    make_images(tmp_path / "first")
    result = train_on("first")
    (tmp_path / "first").rename(tmp_path / "second")
    assert train_on("second") == result
    config = read_config(tmp_path / "runs/net/seed0/config.json")
    assert config.data.dataset.args["path"] == str(tmp_path / "second")

    shutil.copytree(tmp_path / "second", tmp_path / "third")
    (tmp_path / "third/train/a/0.png").unlink()
    with pytest.raises(UserError, match=r"the data set is another one than .* was trained on"):
        train_on("third")
