"""Does local response normalization help a small CNN on CIFAR-10?

Paper     Krizhevsky, Sutskever, Hinton 2012, Sec. 3.3: a four-layer CNN errs by 13% on CIFAR-10
          without LRN, and by 11% with it. Model and recipe are those of cuda-convnet's definition
          files layers-conv-local-13pct and layers-conv-local-11pct, to which the paper refers.
Commands  python launch.py --experiment=lrn_cifar10 --seeds=3 --together             (digits)
          python launch.py --experiment=lrn_cifar10 --preset=paper --seeds=3         (CIFAR-10)
Recipe    Batches of 128, momentum 0.9, 450 epochs at a rate of 0.001, then 10 at a tenth of it and
          10 at a hundredth; random crops of 24x24 and their mirror images; ten crops at test.
          Differs: the rate of biases is that of weights, not twice as large, and the weight decay
          of 0.004 is that of all layers, not of the last three alone.
Results   docs/results/lrn_cifar10_digits, with hardware and commit. The paper's preset
          takes a night or an accelerator.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.config import Data, Experiment, Train, change, choose, name_protocol
from cnn_jax.report.claims import BELOW_ZERO, Claim, Score, score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "2 small CNNs on scikit-learn's digits, half a minute on 2 CPU cores",
    "paper": "2 small CNNs for 470 epochs of CIFAR-10: a night on 2 CPU cores, or an accelerator",
    "smoke": "2 small CNNs of two steps on digits, for tests",
}

EPOCH = 391  # Steps, of 128 images.
PRINTED = {"none": 13.0, "lrn": 11.0}  # Sec. 3.3
LABELS = {"none": "without LRN", "lrn": "with LRN"}


def _paper(norm: str) -> Experiment:
    return Experiment(
        study="lrn_cifar10",
        name=norm,
        data=Data(
            dataset=choose("cifar10"),
            batch_size=128,
            subtract_mean="pixel",
            train_resize=(32,),
            eval_resize=32,
            image_size=24,
            pad_and_crop=0,
            flip=True,
        ),
        model=choose("cuda_convnet", norm=norm),
        optimizer=choose("sgd", momentum=0.9, weight_decay=0.004, decay_biases=False),
        schedule=choose("step", base=0.001, boundaries=(450 * EPOCH, 460 * EPOCH), factor=0.1),
        train=Train(
            steps=470 * EPOCH, log_every=EPOCH, eval_every=10 * EPOCH, save_every=10 * EPOCH
        ),
        protocols=(choose("ten_crop", scales=(32,)),),
        deviations=(
            "biases have the weights' rate, not twice that rate",
            "the weight decay of 0.004 is that of all weights, not of the last three layers' alone",
        ),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns a model a quarter as wide, with He's initial weights, on digits of 16 pixels."""
    return replace(
        run,
        data=replace(
            run.data,
            dataset=choose("digits", side=16),
            batch_size=64,
            eval_batch_size=360,
            train_resize=(),
            eval_resize=0,
            image_size=0,
            flip=False,
        ),
        model=change(run.model, width=0.25, initializer="he"),
        schedule=choose("cosine", base=0.01),
        train=Train(steps=600, log_every=60, eval_every=120, save_every=300),
        protocols=(choose("single"),),
    )


def _smoke(run: Experiment) -> Experiment:
    return shorten_run(_laptop(run))


PRESETS = {"paper": keep_run, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns the model with LRN and without it."""
    check_preset("lrn_cifar10", preset, PRESETS)
    runs = {norm: PRESETS[preset](_paper(norm)) for norm in PRINTED}
    protocol = name_protocol(runs["lrn"].protocols[0])
    return Study(
        name="lrn_cifar10",
        title="Local response normalization in a small CNN",
        paper="Krizhevsky, Sutskever, Hinton 2012, Sec. 3.3",
        paper_data="cifar10",
        preset=preset,
        runs=runs,
        rows=tuple(
            Row(
                norm,
                LABELS[norm],
                "four-layer CNN",
                "Sec. 3.3",
                {"top1_error": error},
                "",
                protocol,
            )
            for norm, error in PRINTED.items()
        ),
        paper_runs={norm: _paper(norm) for norm in PRINTED},
        claims=(
            Claim(
                "LRN helps: the error with it is below that without",
                subtract(Score("lrn", protocol), Score("none", protocol)),
                expected=BELOW_ZERO,
                paper=PRINTED["lrn"] - PRINTED["none"],
                source="Sec. 3.3",
            ),
            *(
                Claim(
                    f"The test error {LABELS[norm]}, within a point",
                    score(Score(norm, protocol)),
                    expected=(error - 1, error + 1),
                    paper=error,
                    source="Sec. 3.3",
                    is_figure=True,
                )
                for norm, error in PRINTED.items()
            ),
        ),
        report=_report,
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
