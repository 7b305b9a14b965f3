"""Plain models degrade with depth on ImageNet too, residual models do not.

Paper     He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition"
          (arXiv:1512.03385): Sec. 3.4 (the recipe), Sec. 4.1, Table 2 and Figure 4.
Question  Does a plain model of 34 layers err more than one of 18, in training and in testing? Does
          a residual model of 34 layers err less than one of 18, and less than the plain one?
Command   python launch.py --experiment=resnet_degradation_imagenet --preset=paper
Results   None yet: the runs need a pod.
"""

from typing import TYPE_CHECKING

from cnn_jax import file_names
from cnn_jax.config import Data, Experiment, Train, choose, name_protocol
from cnn_jax.errors import UserError
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Score, subtract
from cnn_jax.study import Row, Study

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "paper": "4 runs of 600k steps on ImageNet: for a pod",
}

# Table 2: top-1 error, 10-crop testing, option A.
TABLE_2 = {"plain-18": 27.94, "plain-34": 28.54, "resnet-18": 27.88, "resnet-34": 25.03}
TEN_CROP = choose("ten_crop", scales=(256,))  # AlexNet's scale: Sec. 3.4 names none.


def _paper(name: str) -> Experiment:
    """Returns the recipe of the ImageNet models (Sec. 3.4)."""
    return Experiment(
        study="resnet_degradation_imagenet",
        name=name,
        data=Data(
            dataset=choose("imagenet2012"),
            batch_size=256,
            subtract_mean="pixel",
            pad_and_crop=0,
            train_resize=(256, 480),
            image_size=224,
            flip=True,
            color_pca=True,
        ),
        # Option A, as Table 2 says. Statistics are of the whole batch: the paper does not say of
        # how many images they are.
        model=choose(name.replace("-", ""), shortcut=None if "plain" in name else "A"),
        optimizer=choose("sgd", momentum=0.9, weight_decay=1e-4),
        schedule=choose("plateau", base=0.1, factor=0.1),
        train=Train(steps=600_000, log_every=100, eval_every=5_000, save_every=5_000),
        protocols=(TEN_CROP,),
    )


def study(preset: str) -> Study:
    """Returns plain-18 and -34 beside ResNet-18 and -34 with option A on ImageNet (Sec. 4.1)."""
    if preset != "paper":
        raise UserError(f"preset={preset}: resnet_degradation_imagenet has only preset=paper")
    return Study(
        name="resnet_degradation_imagenet",
        title="Degradation of plain models on ImageNet, and residual models without it",
        paper="He, Zhang, Ren, Sun 2015 (arXiv:1512.03385), Sec. 4.1, Table 2 and Figure 4",
        paper_data="imagenet2012",
        preset=preset,
        runs={name: _paper(name) for name in TABLE_2},
        rows=tuple(_make_row(name, error) for name, error in TABLE_2.items()),
        paper_runs={name: _paper(name) for name in TABLE_2},
        claims=_make_claims(),
        report=_report,
    )


def _make_row(name: str, error: float) -> Row:
    return Row(
        name,
        name.replace("resnet", "ResNet"),
        "plain models" if "plain" in name else "residual models",
        "Table 2, 10 crops",
        {"top1_error": error},
        "Table 2",
        name_protocol(TEN_CROP),
    )


def _make_claims() -> tuple[Claim, ...]:
    ten = name_protocol(TEN_CROP)
    return (
        Claim(
            "Plain models degrade: the training error of plain-34 is above that of plain-18",
            subtract(Score("plain-34", "training"), Score("plain-18", "training")),
            expected=ABOVE_ZERO,
            source="Sec. 4.1 and Figure 4, left",
        ),
        Claim(
            "Plain models degrade: the error of plain-34 is above that of plain-18",
            subtract(Score("plain-34", ten), Score("plain-18", ten)),
            expected=ABOVE_ZERO,
            paper=round(TABLE_2["plain-34"] - TABLE_2["plain-18"], 2),
            source="Table 2",
        ),
        Claim(
            "Residual models do not degrade: the error of ResNet-34 is below that of ResNet-18",
            subtract(Score("resnet-34", ten), Score("resnet-18", ten)),
            expected=BELOW_ZERO,
            paper=round(TABLE_2["resnet-34"] - TABLE_2["resnet-18"], 2),
            source="Table 2",
        ),
        Claim(
            "At 34 layers shortcuts help: the error of ResNet-34 is below that of plain-34",
            subtract(Score("resnet-34", ten), Score("plain-34", ten)),
            expected=BELOW_ZERO,
            paper=round(TABLE_2["resnet-34"] - TABLE_2["plain-34"], 2),
            source="Table 2",
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    crops = "Training images as the models see them, a row for each scale S."
    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.error_curves(results),
        report.image_grid(results, file_names.CROPS, crops, "Training images"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )
