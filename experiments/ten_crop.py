"""What do ten views of a test image gain over one?

Paper     Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional
          Neural Networks": Sec. 4.1 (four corners, the center, and their mirror images; the
          softmax averaged) and Table 2.
Question  One crop of the center against ten, the same model.
Command   python launch.py --experiment=ten_crop
Results   docs/results/ten_crop_digits, with hardware and commit.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax import file_names
from cnn_jax.config import Choice, Data, Experiment, Train, change, choose, name_protocol
from cnn_jax.report.claims import BELOW_ZERO, Claim, Score, score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "a narrow AlexNet on scikit-learn's digits drawn large, half a minute",
    "paper": "AlexNet for 90 epochs of ImageNet: for an accelerator",
    "smoke": "two steps on fake data, for tests",
}

TABLE_2 = {"top1_error": 40.7, "top5_error": 18.2}  # One CNN, ten crops.


def _list_protocols(scale: int, central_square: bool | None = None) -> tuple[Choice, ...]:
    views = choose("ten_crop", scales=(scale,), central_square=central_square)
    return choose("single", scales=(scale,)), views


def _paper() -> Experiment:
    """Returns the recipe (Sec. 5), with the 227x227 images that the feature maps' sizes need."""
    return Experiment(
        study="ten_crop",
        name="alexnet",
        data=Data(
            dataset=choose("imagenet2012"),
            batch_size=128,
            subtract_mean="pixel",
            train_resize=(256,),
            eval_resize=256,
            image_size=227,
            pad_and_crop=0,
            flip=True,
            color_pca=True,
        ),
        model=choose("alexnet"),
        optimizer=choose("sgd", momentum=0.9, weight_decay=5e-4),
        schedule=choose("plateau", base=0.01, factor=0.1, max_cuts=3),
        # 90 epochs of 10,010 steps.
        train=Train(steps=900_000, log_every=100, eval_every=10_000, save_every=10_000),
        protocols=_list_protocols(256, central_square=True),  # Sec. 2.
        deviations=(
            "training crops come from anywhere in the image, not from its central 256x256 alone",
        ),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns a narrow model on small crops of digits drawn large."""
    return replace(
        run,
        data=replace(
            run.data,
            dataset=choose("digits"),
            batch_size=64,
            eval_batch_size=360,
            subtract_mean="channel",
            train_resize=(76,),
            eval_resize=76,
            image_size=67,
            flip=False,
            color_pca=False,
        ),
        model=change(run.model, width=0.125, initializer="he"),
        train=replace(run.train, steps=400, log_every=50, eval_every=50, save_every=200),
        protocols=_list_protocols(76),  # Digits are square.
    )


def _smoke(run: Experiment) -> Experiment:
    return shorten_run(_laptop(run), fake=True)


PRESETS = {"paper": keep_run, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns one run with its two evaluation protocols."""
    check_preset("ten_crop", preset, PRESETS)
    run = PRESETS[preset](_paper())
    one, ten = map(name_protocol, run.protocols)
    table = "Table 2"
    return Study(
        name="ten_crop",
        title="One view of a test image against ten",
        paper="Krizhevsky, Sutskever, Hinton 2012, Sec. 4.1 and Table 2",
        paper_data="imagenet2012",
        preset=preset,
        runs={"alexnet": run},
        rows=(
            Row("alexnet", "AlexNet, 1 crop", "AlexNet", "not in Table 2", {}, table, one),
            Row("alexnet", "AlexNet, 10 crops", "AlexNet", table, TABLE_2, table, ten),
        ),
        paper_runs={"alexnet": _paper()},
        claims=_make_claims(one, ten),
        report=_report,
    )


def _make_claims(one: str, ten: str) -> tuple[Claim, ...]:
    return (
        Claim(
            "Ten crops err less than one, with the same weights",
            subtract(Score("alexnet", ten), Score("alexnet", one)),
            expected=BELOW_ZERO,
            source="Sec. 4.1",
        ),
        *(
            Claim(
                f"The {name} error of ten crops, within a point",
                score(Score("alexnet", ten, metric)),
                expected=(TABLE_2[metric] - 1, TABLE_2[metric] + 1),
                paper=TABLE_2[metric],
                source="Table 2",
                is_figure=True,
            )
            for name, metric in (("top-1", "top1_error"), ("top-5", "top5_error"))
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    crops = "Training images as the model sees them, a row for each scale S."
    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.evaluation_intervals(results, results.rows),
        report.image_grid(results, file_names.CROPS, crops, "Training images"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )
