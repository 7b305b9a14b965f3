"""Which layers of AlexNet and ZFNet matter, and how wide must they be?

Paper     Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 5.1 and Table 3: AlexNet without some of its
          layers, and both models with other widths; training and validation error on ImageNet.
Commands  python launch.py --experiment=zfnet_ablation --seeds=3                     (digits)
          python launch.py --experiment=zfnet_ablation --preset=paper                (ImageNet)
Results   docs/results/zfnet_ablation_digits, with hardware and commit. The paper's preset
          needs an accelerator.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cnn_jax.config import Data, Experiment, Train, change, choose, name_protocol
from cnn_jax.report.claims import ABOVE_ZERO, Claim, Contrast, Score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "12 narrow models on scikit-learn's digits drawn large, 5 minutes on 2 CPU cores",
    "paper": "12 models for 70 epochs of ImageNet: for an accelerator",
    "smoke": "12 models of two steps on fake data, for tests",
}


class Change(NamedTuple):
    """A line of Table 3.

    Attributes:
      label: What the table calls it.
      model: The model that is changed.
      options: Its options.
      errors: The paper's training top-1, validation top-1 and validation top-5 error in %.
    """

    label: str
    model: str
    options: dict[str, Any]
    errors: tuple[float, float, float]


MIDDLE, OUTER = ("conv3", "conv4"), ("fc6", "fc7")
WIDE = (96, 256, 512, 1024, 512)
TABLE_3 = {
    "alexnet": Change("AlexNet", "alexnet", {}, (35.1, 40.5, 18.1)),
    "alexnet-no-3-4": Change(
        "without layers 3, 4", "alexnet", {"left_out": MIDDLE}, (41.8, 45.4, 22.1)
    ),
    "alexnet-no-7": Change(
        "without layer 7", "alexnet", {"left_out": ("fc7",)}, (27.4, 40.0, 18.4)
    ),
    "alexnet-no-6-7": Change(
        "without layers 6, 7", "alexnet", {"left_out": OUTER}, (27.4, 44.8, 22.4)
    ),
    "alexnet-no-3-4-6-7": Change(
        "without layers 3, 4, 6, 7", "alexnet", {"left_out": MIDDLE + OUTER}, (71.1, 71.3, 50.1)
    ),
    "alexnet-2048": Change(
        "layers 6, 7: 2,048 units", "alexnet", {"dense_units": 2048}, (40.3, 41.7, 18.8)
    ),
    "alexnet-8192": Change(
        "layers 6, 7: 8,192 units", "alexnet", {"dense_units": 8192}, (26.8, 40.0, 18.1)
    ),
    "zfnet": Change("ZFNet", "zfnet", {}, (33.1, 38.4, 16.5)),
    "zfnet-2048": Change(
        "ZFNet, layers 6, 7: 2,048 units", "zfnet", {"dense_units": 2048}, (38.2, 40.2, 17.6)
    ),
    "zfnet-8192": Change(
        "ZFNet, layers 6, 7: 8,192 units", "zfnet", {"dense_units": 8192}, (22.0, 38.8, 17.0)
    ),
    "zfnet-wide": Change(
        "ZFNet, layers 3, 4, 5: 512, 1,024, 512 maps",
        "zfnet",
        {"channels": WIDE},
        (18.8, 37.5, 16.0),
    ),
    "zfnet-wide-8192": Change(
        "ZFNet, both", "zfnet", {"channels": WIDE, "dense_units": 8192}, (10.0, 38.3, 16.9)
    ),
}


def _paper(name: str) -> Experiment:
    """Returns the recipe (Sec. 3), which is AlexNet's but for the initial biases and filters."""
    changed = TABLE_3[name]
    alexnet = changed.model == "alexnet"
    return Experiment(
        study="zfnet_ablation",
        name=name,
        data=Data(
            dataset=choose("imagenet2012"),
            batch_size=128,
            subtract_mean="pixel",
            train_resize=(256,),
            eval_resize=256,
            image_size=227 if alexnet else 224,
            pad_and_crop=0,
            flip=True,
        ),
        model=choose(changed.model, **changed.options),
        optimizer=choose("sgd", momentum=0.9, weight_decay=5e-4, max_filter_rms=0.1),
        schedule=choose("plateau", base=0.01, factor=0.1, max_cuts=3),
        # 70 epochs of 10,010 steps.
        train=Train(steps=700_700, log_every=100, eval_every=10_010, save_every=10_010),
        # The central 256x256 as in AlexNet (Sec. 3).
        protocols=(choose("ten_crop", scales=(256,), central_square=True),),
        deviations=("weight decay 0.0005 is AlexNet's; the paper does not say",),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns a narrow model on small crops of digits drawn large."""
    return replace(
        run,
        data=replace(
            run.data,
            dataset=choose("digits"),
            batch_size=32,
            eval_batch_size=360,
            subtract_mean="channel",
            train_resize=(76,),
            eval_resize=76,
            image_size=67,
            flip=False,
        ),
        model=change(run.model, width=0.125, initializer="he"),
        optimizer=change(run.optimizer, max_filter_rms=0.0),
        train=replace(run.train, steps=300, log_every=30, eval_every=100, save_every=150),
        protocols=(choose("ten_crop", scales=(76,)),),
    )


def _smoke(run: Experiment) -> Experiment:
    small = shorten_run(_laptop(run), fake=True)
    return replace(small, model=change(small.model, width=1 / 32))


PRESETS = {"paper": keep_run, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns a run for each line of Table 3."""
    check_preset("zfnet_ablation", preset, PRESETS)
    runs = {name: PRESETS[preset](_paper(name)) for name in TABLE_3}
    protocol = name_protocol(runs["zfnet"].protocols[0])
    return Study(
        name="zfnet_ablation",
        title="AlexNet and ZFNet with layers left out and of other widths",
        paper="Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 5.1 and Table 3",
        paper_data="imagenet2012",
        preset=preset,
        runs=runs,
        rows=tuple(_make_row(name, line, protocol) for name, line in TABLE_3.items()),
        paper_runs={name: _paper(name) for name in TABLE_3},
        claims=_make_claims(protocol),
        report=_report,
    )


def _make_row(name: str, line: Change, protocol: str) -> Row:
    _, top1, top5 = line.errors
    group = "AlexNet" if line.model == "alexnet" else "ZFNet"
    paper = {"top1_error": top1, "top5_error": top5}
    return Row(name, line.label, group, "Table 3", paper, "Table 3", protocol)


def _make_claims(protocol: str) -> tuple[Claim, ...]:
    def compare_printed(name: str) -> float:
        return round(TABLE_3[name].errors[1] - TABLE_3["alexnet"].errors[1], 2)

    def error(name: str) -> Score:
        return Score(name, protocol)

    dense, middle, both = "alexnet-no-6-7", "alexnet-no-3-4", "alexnet-no-3-4-6-7"
    return (
        Claim(
            "Without the two dense layers AlexNet errs more",
            subtract(error(dense), error("alexnet")),
            expected=ABOVE_ZERO,
            paper=compare_printed(dense),
            source="Table 3",
        ),
        Claim(
            "Without two of the middle convolutions AlexNet errs more",
            subtract(error(middle), error("alexnet")),
            expected=ABOVE_ZERO,
            paper=compare_printed(middle),
            source="Table 3",
        ),
        Claim(
            "Depth matters: without both it loses more than the two losses together",
            Contrast(
                (
                    (1, error(both)),
                    (1, error("alexnet")),
                    (-1, error(dense)),
                    (-1, error(middle)),
                )
            ),
            expected=ABOVE_ZERO,
            paper=round(
                compare_printed(both) - compare_printed(dense) - compare_printed(middle), 2
            ),
            source="Sec. 5.1, Table 3",
        ),
        Claim(
            "Without layer 7 alone AlexNet errs at most half a point more",
            subtract(error("alexnet-no-7"), error("alexnet")),
            expected=(float("-inf"), 0.5),
            paper=compare_printed("alexnet-no-7"),
            source="Table 3",
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.evaluation_intervals(results, results.rows),
        report.error_curves(results, title="Training", file="curves.png"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )
