"""image_retrieval: what is measured of a seed, what is kept, and how the claims follow from it."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from helpers.traced_precision import watch_precision

from cnn_jax import trained
from cnn_jax.config_file import to_json
from cnn_jax.evaluation.retrieval.images import LoadedImages
from cnn_jax.report import build
from cnn_jax.report.reading.folder import read
from cnn_jax.report.verdicts import judge
from cnn_jax.study import configure, write_study
from cnn_jax.training import run_folders
from experiments.image_retrieval import keep, measure, page, pictures, study

STUDY = configure(study("smoke"))


def make_rows(seed, code, clean, noisy):
    about = {"measure": "retrieval", "seed": seed, "code": code, "distance": "cosine"}
    return [about | {"kind": "clean", "mean_average_precision": clean},
            about | {"kind": "noisy", "mean_average_precision": noisy}]  # fmt: skip


def judge_rows(folder, rows):
    """{statement: verdict} of a folder whose study.json holds these rows."""
    write_study(STUDY, folder, 2, "", rows)
    results = read(folder, STUDY.rows, STUDY.claims)
    return {claim.statement: judge(results, claim) for claim in STUDY.claims}


def test_claims_are_differences_of_the_same_seeds_by_hand(tmp_path):
    rows = []
    for seed, change in enumerate((0.0, 0.02, 0.01)):
        rows += make_rows(seed, "autoencoder", 0.50 + change, 0.45)
        rows += make_rows(seed, "pixels", 0.40, 0.30)
    names = ["autoencoder/clean", "autoencoder/noisy", "pixels/clean", "pixels/noisy"]
    covariance = 1e-4 * np.array([[4, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    rows.append({"measure": "covariance", "codes": names, "covariance": covariance.tolist()})
    found = judge_rows(tmp_path, rows)
    beats = found["The autoencoder's code beats pixels"]
    assert beats.ours.value == pytest.approx(11.0) and beats.ours.seeds == 3
    # The variance of the difference is 4 - 2 * 1 + 1 = 3, in (0.01)^2, that is in points^2.
    low, high = beats.ours.over_images
    assert (low, high) == pytest.approx((11 - 1.96 * 3**0.5, 11 + 1.96 * 3**0.5))
    low, high = beats.ours.over_seeds  # Student's t of 10, 12, 11: 4.303 / sqrt(3)
    assert (low, high) == pytest.approx((11 - 2.484, 11 + 2.484), abs=1e-3)
    assert beats.verdict == "agrees"
    cost = found["Noise on the queries costs the autoencoder's code less than it costs pixels"]
    assert cost.ours.value == pytest.approx(100 * ((0.40 - 0.30) - (0.51 - 0.45)))
    trained_better = found["Training makes the autoencoder's code better"]
    assert (trained_better.verdict, trained_better.why) == ("undecided", "not measured yet")


def test_a_seed_without_all_codes_does_not_count(tmp_path):
    rows = [*make_rows(0, "autoencoder", 0.5, 0.4), *make_rows(0, "pixels", 0.6, 0.4)]
    found = judge_rows(tmp_path, [*rows, *make_rows(1, "autoencoder", 0.9, 0.9)])
    beats = found["The autoencoder's code beats pixels"]
    assert beats.ours.value == pytest.approx(-10) and beats.ours.seeds == 1


def test_denoising_is_judged_against_the_best_other_way(tmp_path):
    psnr = {"noisy input": 9.0, "median filter": 16.0, "total variation": 17.0, "autoencoder": 18.5}
    rows = [
        {"measure": "denoising", "seed": seed, "method": name, "psnr": value, "ssim": 0.1}
        for seed in (0, 1)
        for name, value in psnr.items()
    ]
    (claim,) = (v for k, v in judge_rows(tmp_path, rows).items() if "restores" in k)
    assert claim.ours.value == pytest.approx(1.5) and claim.verdict == "undecided"


@pytest.fixture(scope="module")
def measured():
    """A seed's rows with models that have not been trained, on few images."""
    runs = {name: dataclasses.replace(run, seed=0) for name, run in STUDY.runs.items()}
    whole = measure.collect_images(runs)
    few = [
        LoadedImages(*(part[:40] for part in images)) for images in (whole.gallery, whole.queries)
    ]
    collection = whole._replace(gallery=few[0], queries=few[1])
    models = {name: trained.initialize_run(run) for name, run in runs.items()}
    rows, precisions = measure.measure_seed(0, collection, models, models["autoencoder"], {})
    return collection, rows, precisions


def test_every_code_is_measured_on_clean_and_noisy_queries(measured):
    collection, rows, precisions = measured
    assert collection.noise_std == 0.5 and collection.gallery.images.shape == (40, 16, 16, 3)
    found = {(r["code"], r["kind"], r["distance"]) for r in rows if r["measure"] == "retrieval"}
    kinds = (("clean", "cosine"), ("noisy", "cosine"), ("clean", "euclidean"))
    assert found == {(code, *kind) for code in measure.CODES for kind in kinds}
    sizes = {r["code"]: r["size"] for r in rows if r["measure"] == "retrieval"}
    assert sizes["autoencoder"] == sizes["pixels, PCA"] == 2 * 2 * 8
    assert (sizes["pixels"], sizes["classifier"]) == (768, 84)
    assert {r["method"] for r in rows if r["measure"] == "denoising"} == {
        *("noisy input", "median filter", "total variation", "autoencoder", "autoencoder-small")
    }
    assert precisions.keys() == {
        f"{code}/{kind}" for code in measure.CODES for kind in ("clean", "noisy")
    }
    own = next(r for r in rows if (r.get("code"), r.get("kind")) == ("pixels", "noisy"))
    assert own["mean_average_precision"] == pytest.approx(
        precisions["pixels/noisy"].mean(), abs=1e-5
    )


def test_the_noise_is_clipped_and_repeats_with_the_seed(measured):
    collection, *_ = measured
    pictures = collection.queries.images
    one, again, other = (collection.add_noise(seed, pictures) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert one.min() == 0 and one.max() == 255
    middle = (one > 0) & (one < 255) & (pictures > 100) & (pictures < 155)
    assert 60 < np.std((one - pictures)[middle]) < 127.5  # 127.5, and less where it is clipped.


def test_an_autoencoder_rebuilds_in_the_precision_of_its_training():
    made = trained.initialize_run(STUDY.runs["autoencoder-small"])
    watched, seen = watch_precision(made._replace(precision="tensorfloat32"))
    measure.rebuild(watched, np.zeros((1, *made.image_shape), np.uint8))
    assert seen and set(seen) == {"HIGH"}


def test_a_page_is_made_of_what_was_measured_and_is_kept(measured, tmp_path):
    _, rows, precisions = measured
    keep.write_measured(tmp_path, 0, {"autoencoder": "2f"}, (rows, precisions))
    kept = keep.read_measured(tmp_path, 0, {"autoencoder": "2f"})
    assert kept[0] == json.loads(json.dumps(rows)) and kept[1].keys() == precisions.keys()
    assert keep.read_measured(tmp_path, 0, {"autoencoder": "3f"}) is None
    assert keep.read_measured(tmp_path, 0, None) is None
    write_study(STUDY, tmp_path, 1, "", [*rows, measure._compute_covariance([precisions])])
    results = read(tmp_path, STUDY.rows, STUDY.claims)
    made = build.compose(results, STUDY)
    tables = {table.title: table for table in made.find(page.Table)}
    assert tables.keys() >= {"Retrieval", "By class", "Denoising"}
    assert [row[0] for row in tables["Retrieval"].rows] == list(measure.CODES)
    (tmp_path / "measured/seed0.npz").write_bytes(b"damaged")
    assert keep.read_measured(tmp_path, 0, {"autoencoder": "2f"}) is None


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Folders that look like those of finished runs, and what is measured and drawn of them."""
    calls, values = [], itertools.count()
    monkeypatch.setattr(measure, "_load_seed", lambda workdir, own: (None, {}, None))

    def measure_seed(seed, *_):
        calls.append(f"measured {seed}")
        return [{"measure": "retrieval", "value": next(values)}], {"pixels/clean": np.arange(4.0)}

    def draw_pictures(workdir, seed, *_):
        calls.append(f"drawn {seed}")
        for name in pictures.FILES:
            (workdir / name).write_bytes(b"PNG")

    monkeypatch.setattr(measure, "measure_seed", measure_seed)
    monkeypatch.setattr(pictures, "draw_pictures", draw_pictures)
    for name in STUDY.runs:
        write_finished(tmp_path / name / "seed0", STUDY.runs[name])

    def look():
        calls.clear()
        runs = [dataclasses.replace(run, seed=0) for run in STUDY.runs.values()]
        rows = measure.measure_runs(tmp_path, runs, str)
        return list(calls), rows

    return tmp_path, look


def write_finished(folder, run, checksum=7, steps=2):
    """Writes what a finished run leaves, except its checkpoint's arrays."""
    (folder / f"checkpoints/{steps}").mkdir(parents=True)
    (folder / "config.json").write_text(to_json(run))
    (folder / "data.json").write_text("{}")
    sums = {"params/a": checksum, "step": steps}
    (folder / "digests.json").write_text(json.dumps({str(steps): sums}))
    events = [{"event": event, "step": steps, "top1_error": 0.5} for event in ("eval", "end")]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_what_is_measured_and_drawn_is_kept_for_the_same_models(finished):
    workdir, look = finished
    assert look()[0] == ["measured 0", "drawn 0"]
    assert look()[0] == []
    (workdir / pictures.PLANE).unlink()
    assert look()[0] == ["drawn 0"]


def test_other_models_after_as_many_steps_are_measured_and_drawn_anew(finished):
    workdir, look = finished
    before = look()[1]
    folder = workdir / "classifier/seed0"
    run_folders.erase_runs([folder])
    write_finished(folder, STUDY.runs["classifier"], checksum=8)
    calls, rows = look()
    assert calls == ["measured 0", "drawn 0"] and rows[0] != before[0]
    (folder / "digests.json").unlink()  # It is not known which numbers they have.
    assert look()[0] == look()[0] == ["measured 0", "drawn 0"]


def test_models_of_more_steps_or_other_test_images_are_measured_and_drawn_anew(finished):
    workdir, look = finished
    look()
    folder = workdir / "autoencoder/seed0"
    run_folders.erase_runs([folder])
    write_finished(folder, STUDY.runs["autoencoder"], steps=4)
    assert look()[0] == ["measured 0", "drawn 0"]
    (folder / "data.json").write_text('{"checksum": "1"}')
    assert look()[0] == ["measured 0", "drawn 0"]


def test_pictures_of_runs_that_are_no_longer_finished_are_removed(finished):
    workdir, look = finished
    look()
    (workdir / "autoencoder/seed0/metrics.jsonl").unlink()
    assert look() == ([], [])
    assert not [name for name in pictures.FILES if (workdir / name).exists()]


def test_the_recipe_is_the_lectures():
    run = study("paper").runs["autoencoder"]
    assert (run.data.batch_size, run.train.steps) == (128, 20 * 60_000 // 128)
    assert (run.optimizer.name, run.schedule.args["base"]) == ("adadelta", 1.0)
    assert run.model.name == "autoencoder_lectures" and run.data.subtract_mean == "none"
