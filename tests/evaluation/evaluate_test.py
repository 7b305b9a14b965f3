"""Evaluations of finished runs and of weights: results written, reused and refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import data, models, pretrained
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.cpu import memory, settings
from cnn_jax.errors import NotFiniteError, UserError
from cnn_jax.evaluation import evaluate, evaluation_file
from cnn_jax.evaluation.evaluation_file import format_evaluation, read_evaluation
from cnn_jax.evaluation.scoring import Scores, fuse_scores
from cnn_jax.training import saved_parameters, train

ROOT = Path(__file__).parents[2]
RUN = Experiment(
    name="narrow",
    data=Data(
        dataset=choose("fake"),
        batch_size=8,
        eval_batch_size=40,
        pad_and_crop=0,
        train_resize=(36,),
        image_size=32,
        subtract_mean="pixel",
    ),
    model=choose("vgg_a", width=1 / 32),
    schedule=choose("constant", base=0.01),
    train=Train(steps=2, log_every=1, eval_every=2, save_every=2),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    return workdir, train.run(RUN, workdir)


def test_single_at_its_own_scale_equals_the_evaluation_during_training(finished):
    workdir, ended = finished
    (found,) = evaluate.evaluate_run(workdir / "narrow/seed0", [choose("single")]).values()
    assert (found.protocol, found.images, found.left_out) == ("single@36", 40, 0)
    assert found.top1_error == ended["top1_error"] and found.loss == pytest.approx(
        ended["loss"], rel=1e-5
    )


def test_shifts_are_measured_against_the_answers_without_them(finished):
    folder = finished[0] / "narrow/seed0"
    asked = [choose("single"), choose("shift", pixels=5), choose("shift", pixels=40)]
    single, near, gone = evaluate.evaluate_run(folder, asked).values()
    assert single.changed_error is None
    assert near.top1_error >= 0 and 0 <= near.changed_error <= 1
    # The layers reduce 32 pixels to none: every output is that of an empty image.
    (column,) = np.flatnonzero(np.sum(gone.confusion, axis=0))
    still = np.sum(single.confusion, axis=0)[column] / 40
    assert gone.changed_error == pytest.approx(1 - still)
    line = format_evaluation("narrow seed0:", gone)
    assert f"changed answers {gone.changed_error:.2%}" in line
    assert "changed" not in format_evaluation("narrow seed0:", single)


def test_a_result_is_written_and_not_computed_again(finished, monkeypatch):
    folder, asked = finished[0] / "narrow/seed0", [choose("dense", scales=(36, 40))]
    found = evaluate.evaluate_run(folder, asked)["dense@36,40"]
    path = folder / "evaluations/dense@36,40.json"
    assert read_evaluation(path) == found and found.step == 2
    keys = {
        "changed_error",
        "images",
        "top1_error",
        "top1_interval",
        "top5_error",
        "loss",
        "confusion",
        "wrong",
        "mirrored",
    }
    assert keys <= json.loads(path.read_text()).keys()
    assert np.sum(found.confusion) == 40 and len(found.error_by_class) == 10
    low, high = found.top1_interval
    assert low <= found.top1_error <= high and found.mirrored
    # Another evaluation would raise.
    monkeypatch.setattr(saved_parameters, "load_parameters", None)
    assert evaluate.evaluate_run(folder, asked) == {"dense@36,40": found}


def test_an_average_of_logits_has_a_file_of_its_own(finished):
    folder, asked = finished[0] / "narrow/seed0", [choose("ten_crop", scales=(37,))]
    ((name, softmax),) = evaluate.evaluate_run(folder, asked).items()
    ((_, logits),) = evaluate.evaluate_run(folder, asked, "logits").items()
    assert (softmax.average, logits.average) == ("softmax", "logits")
    assert softmax.loss != logits.loss
    assert read_evaluation(folder / f"evaluations/{name}.json") == softmax
    assert read_evaluation(folder / f"evaluations/{name},average=logits.json") == logits
    assert "ten_crop@37, logits averaged: top-1" in format_evaluation("narrow seed0:", logits)


def test_held_out_images_are_named_so(finished):
    (found,) = evaluate.evaluate_run(finished[0] / "narrow/seed0", [choose("single")]).values()
    assert format_evaluation("", found, held_out=True).endswith("(40 held-out training images)")
    named = replace(found, protocol="single@36,split=test")
    assert format_evaluation("", named, held_out=True).endswith("(40 images)")


def test_the_scorer_is_told_how_many_images_there_are(finished, monkeypatch):
    def stop(*given, count):
        assert count == 40
        raise InterruptedError

    monkeypatch.setattr(evaluate, "make_scorer", stop)
    with pytest.raises(InterruptedError):
        evaluate.evaluate_run(finished[0] / "narrow/seed0", [choose("single", scales=(37,))])


@pytest.mark.parametrize("batch, images", [(16, 16), (500, 40)])
@pytest.mark.parametrize("run, image", [("finished", 32**2 * 3), ("resident", 8**2 * 3)])
def test_a_large_batch_keeps_its_memory_not_many_small_ones(
    batch, images, run, image, request, monkeypatch
):
    """There are 40 images. What is kept is decided by the values of a batch."""
    found = request.getfixturevalue(run)
    folder = found[0] / "narrow/seed0" if run == "finished" else found[0]

    def stop(values):
        assert values == images * image
        raise InterruptedError

    monkeypatch.setattr(memory, "keep_memory", stop)
    launched = RUN if run == "finished" else RESIDENT
    launched = replace(launched, data=replace(launched.data, eval_batch_size=batch))
    with pytest.raises(InterruptedError):
        evaluate.evaluate_run(folder, [choose("grid", scales=(39,))], experiment=launched)


def test_the_command_keeps_memory_from_before_jax_starts(finished):
    code = """if 1:
        import sys
        from cnn_jax import cli
        from cnn_jax.cpu import memory, settings
        def note(values):
            sys.exit(f"{values} {settings._find_started_platform()}")
        memory.keep_memory = note
        cli.execute(["launch.py", *sys.argv[1:]])
    """
    run, weights = (
        [f"--evaluate={finished[0]}", "--scales=38"],
        ["--evaluate=vgg_a:no", "--data=fake"],
    )
    for flags, values in ((run, 40 * 32**2 * 3), (weights, settings.MIN_BATCH_VALUES)):
        command = [sys.executable, "-c", code, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stderr.split() == [str(values), "None"]


def test_a_damaged_result_is_computed_again(finished):
    path = finished[0] / "narrow/seed0/evaluations/single.json"
    evaluate.evaluate_run(finished[0] / "narrow/seed0", [choose("single")])
    good = json.loads(path.read_text())
    assert read_evaluation(path)
    damages = [
        {"top1_error": "0.5"},
        {"top1_error": None},
        {"images": 39},
        {"confusion": [[1]]},
        {"confusion": 3},
        {"wrong": "01"},
        {"loss": float("nan")},
        {"more": 1},
    ]
    texts = [json.dumps(good | damage) for damage in damages]
    for text in [*texts, "", "null", "[]", "[" * 10**5, json.dumps({"images": 40})]:
        path.with_name("damaged.json").write_text(text)
        assert read_evaluation(path.with_name("damaged.json")) is None, text[:80]
    path.with_name("damaged.json").write_bytes(b"\xff\xfe")
    assert read_evaluation(path.with_name("damaged.json")) is None


def test_a_result_that_cannot_be_written_is_not_lost(finished, monkeypatch):
    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(evaluation_file, "write_whole", refuse)
    with pytest.raises(evaluate.NotSavedError, match=r"not kept.*Permission denied") as caught:
        evaluate.evaluate_run(finished[0] / "narrow/seed0", [choose("grid")])
    assert caught.value.results["grid"].images == 40


def test_scales_are_averaged(finished, monkeypatch):
    """The scores of two scales, by hand."""
    seen, score_images = [], evaluate.score_images

    def record(scorer, views, batches):
        seen.append(score_images(scorer, views, batches))
        return seen[-1]

    monkeypatch.setattr(evaluate, "score_images", record)
    asked = [choose("ten_crop", scales=(34, 38))]
    found = evaluate.evaluate_run(finished[0] / "narrow/seed0", asked)["ten_crop@34,38"]
    assert len(seen) == 2 and np.ptp([each.scores for each in seen], axis=0).max() > 0
    probability = np.mean([np.exp(each.scores) for each in seen], axis=0)
    own = probability[np.arange(40), seen[0].labels]
    assert found.loss == pytest.approx(-np.mean(np.log(own)), rel=1e-6)


def test_protocols_share_the_scores_of_views_that_they_have_in_common(finished, monkeypatch):
    calls, score_images = [], evaluate.score_images

    def record(scorer, views, batches):
        calls.append(views)
        return score_images(scorer, views, batches)

    monkeypatch.setattr(evaluate, "score_images", record)
    asked = [
        choose("dense+grid", scales=(37,)),
        choose("dense", scales=(37,)),
        choose("grid", scales=(37,)),
    ]
    found = evaluate.evaluate_run(finished[0] / "narrow/seed0", asked)
    assert list(found) == ["dense+grid@37", "dense@37", "grid@37"] and len(calls) == 2
    line = format_evaluation("narrow seed0:", found["grid@37"])
    assert line.startswith("narrow seed0: grid@37: top-1 error ") and line.endswith("(40 images)")
    assert "top-5 error" in line


RESIDENT = replace(
    RUN,
    name="resident",
    data=Data(
        dataset=choose("fake"),
        batch_size=8,
        eval_batch_size=40,
        pad_and_crop=1,
        flip=True,
        subtract_mean="pixel",
    ),
    model=choose("resnet20", width=0.5, bn_group=None),
)


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    return workdir / "resident/seed0", train.run(RESIDENT, workdir)


def test_every_protocol_preprocesses_images_as_training_does(resident):
    """The mean image is subtracted, and views are mirrored after it: by hand, for a model with a
    global average.
    """
    folder, ended = resident
    found = evaluate.evaluate_run(folder, [choose("dense"), choose("single")])
    assert found["single"].loss == pytest.approx(ended["loss"], rel=1e-5)
    assert found["single"].top1_error == ended["top1_error"]
    params, stats, _ = saved_parameters.load_parameters(folder)
    model, source = models.create("resnet20", 10, width=0.5), data.load_dataset(RESIDENT.data)
    feed = data.make_loader(RESIDENT.data, source)
    images = feed.preprocess(feed.arrays, jnp.asarray(source.test.images))
    logits = [model.apply(params, stats, view)[0] for view in (images, images[:, :, ::-1])]
    own = np.mean(jax.nn.softmax(jnp.array(logits)), axis=0)[np.arange(40), source.test.labels]
    assert found["dense"].mirrored and found["dense"].loss == pytest.approx(
        -np.log(own).mean(), rel=1e-5
    )


def test_images_that_one_scale_leaves_out_are_left_out_of_the_average():
    near, far = (
        Scores(np.array(index), np.array(index) % 3, np.array(index)[:, None] * np.ones(3))
        for index in ([0, 1, 2, 4], [0, 2, 3, 4])
    )
    found = fuse_scores(evaluate._keep_shared([near, far]), "logits")
    assert found.index.tolist() == [0, 2, 4] and found.labels.tolist() == [0, 2, 1]
    assert found.scores[:, 0].tolist() == [0, 2, 4]


def test_a_run_is_evaluated_as_it_was_launched_last(resident, monkeypatch):
    folder, _ = resident
    batches, iterate = [], evaluate.eval_views.iterate_views

    def note(config, images, scale, cut, batch, *rest):
        batches.append(batch)
        return iterate(config, images, scale, cut, batch, *rest)

    monkeypatch.setattr(evaluate.eval_views, "iterate_views", note)
    smaller = replace(RESIDENT, data=replace(RESIDENT.data, eval_batch_size=16))
    for launched in (None, smaller):
        (folder / "evaluations/single.json").unlink(missing_ok=True)
        evaluate.evaluate_run(folder, [choose("single")], experiment=launched)
    assert batches == [40, 16]


def test_weights_that_give_nan_are_refused(finished, tmp_path, monkeypatch):
    params, stats, step = saved_parameters.load_parameters(finished[0] / "narrow/seed0")
    params["fc8"]["bias"] = params["fc8"]["bias"] * np.nan
    monkeypatch.setattr(saved_parameters, "load_parameters", lambda folder: (params, stats, step))
    with pytest.raises(NotFiniteError, match="40 of 40 images"):
        evaluate.evaluate_run(finished[0] / "narrow/seed0", [choose("single", scales=(36,))])
    assert not (finished[0] / "narrow/seed0/evaluations/single@36.json").exists()


def other():
    """Parameters for seven classes."""
    return models.create("vgg_a", 7, width=1 / 32).init(
        jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )


def test_weights_are_evaluated_as_a_run_is(finished, tmp_path):
    params, stats, _ = saved_parameters.load_parameters(finished[0] / "narrow/seed0")
    recipe = pretrained.Preprocessing(crop=32, resize=36, mean=(0.0,) * 3, std=(1.0,) * 3)
    pretrained.save(
        tmp_path / "a.safetensors", "vgg_a", params, stats, 10, recipe, {"width": 1 / 32}
    )
    given = replace(RUN, data=Data(dataset=choose("fake"), pad_and_crop=0))
    found = evaluate.evaluate_weights(given, str(tmp_path / "a.safetensors"), choose("single"))
    assert found.protocol == "single@36" and found.images == 40
    pretrained.save(tmp_path / "b.safetensors", "vgg_a", *other(), 7, recipe, {"width": 1 / 32})
    with pytest.raises(UserError, match="has 10 classes, the weights 7"):
        evaluate.evaluate_weights(given, str(tmp_path / "b.safetensors"), choose("single"))


def test_images_are_scaled_as_the_weights_recipe_says(tmp_path):
    """Scored are the images that the recipe itself prepares."""
    model = models.create("mlp", 10, hidden=(8,))
    params, stats = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    images, labels = data.load_dataset(Data(dataset=choose("fake"))).test
    given = Experiment(model=choose("mlp"), data=Data(dataset=choose("fake")))
    found, expected = {}, {}
    for method in ("bilinear", "bicubic"):
        recipe = pretrained.Preprocessing(
            16, (0.0,) * 3, (0.1,) * 3, resize=18, interpolation=method
        )
        path = tmp_path / f"{method}.safetensors"
        pretrained.save(path, "mlp", params, stats, 10, recipe, {"hidden": (8,)})
        found[method] = evaluate.evaluate_weights(given, str(path), choose("single")).loss
        scores = jax.nn.log_softmax(model.apply(params, stats, recipe.apply(images))[0])
        expected[method] = -float(np.mean(np.asarray(scores)[np.arange(40), labels]))
    tolerance = abs(expected["bicubic"] - expected["bilinear"]) / 10
    assert tolerance > 0 and found == pytest.approx(expected, abs=tolerance)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        evaluate.evaluate_run(tmp_path, [choose("single")])


def test_the_command_evaluates_every_run_of_a_folder(finished):
    command = [
        sys.executable,
        "launch.py",
        f"--evaluate={finished[0]}",
        "--views=grid",
        "--scales=36",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "narrow seed0: grid@36: top-1 error" in done.stdout and "(40 images)" in done.stdout
    wrong = subprocess.run([*command[:3], "--views=grit"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "nearest: grid" in wrong.stderr
    nowhere = subprocess.run(
        [*command[:2], "--evaluate=/nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    assert nowhere.returncode == 2 and "no run found" in nowhere.stderr
