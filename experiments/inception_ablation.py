"""What does each step from GoogLeNet to Inception v3 gain?

Paper     Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015 (arXiv:1512.00567), Sec. 8 and Table 3:
          single-crop errors on ImageNet, each line with all changes of those above it.
Commands  python launch.py --experiment=inception_ablation --seeds=3                 (digits)
          python launch.py --experiment=inception_ablation --preset=paper            (ImageNet)
Recipe    100 epochs, RMSProp with decay 0.9 and epsilon 1.0, or momentum 0.9 before that step; a
          rate of 0.045 that falls by 6% every two epochs, gradients clipped to a norm of 2.0
          (Sec. 8). Differs: one batch of 1,600 images in place of 50 asynchronous batches of 32;
          no average of the weights is kept; every line is trained by this recipe, also those of
          earlier papers.
Tuning    On digits each line's learning rate has the lower validation error of two: GoogLeNet,
          which has no batch norm, stays at chance with a rate that suits the others. On ImageNet
          the rate is the paper's.
Results   docs/results/inception_ablation_digits, with hardware and commit. The paper's preset
          needs a pod.
"""

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cnn_jax.config import Choice, Data, Experiment, Train, change, choose, name_protocol
from cnn_jax.report.claims import BELOW_ZERO, Claim, Score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run
from cnn_jax.tuning import Tuning

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "8 narrow models, 16 trials on scikit-learn's digits drawn large, 17 minutes",
    "paper": "8 models for 100 epochs of ImageNet: for a pod",
    "smoke": "8 models of two steps on fake data, for tests",
}

MOMENTUM = choose("sgd", momentum=0.9, weight_decay=4e-5, clip_norm=2.0)
RMSPROP = choose("rmsprop", decay=0.9, epsilon=1.0, momentum=0.9, weight_decay=4e-5, clip_norm=2.0)


class Step(NamedTuple):
    """A line of Table 3.

    Attributes:
      label: What the table calls it.
      model: The model.
      optimizer: The optimizer.
      smoothing: Label smoothing.
      errors: The paper's single-crop top-1 and top-5 error in %; None: not printed.
    """

    label: str
    model: Choice
    optimizer: Choice
    smoothing: float
    errors: tuple[float, float | None]


def _choose_v2(**options: Any) -> Choice:
    return choose("inception_v3", **{"factorized_7x7": False, "aux_norm": False} | options)


STEPS = {
    "googlenet": Step("GoogLeNet", choose("googlenet"), MOMENTUM, 0.0, (29.0, 9.2)),
    "bn-googlenet": Step("BN-GoogLeNet", choose("googlenet_bn"), MOMENTUM, 0.0, (26.8, None)),
    "bn-inception": Step("BN-Inception", choose("bn_inception"), MOMENTUM, 0.0, (25.2, 7.8)),
    "v2": Step("Inception v2", _choose_v2(), MOMENTUM, 0.0, (23.4, None)),
    "v2-rmsprop": Step("Inception v2, RMSProp", _choose_v2(), RMSPROP, 0.0, (23.1, 6.3)),
    "v2-smoothing": Step("and label smoothing", _choose_v2(), RMSPROP, 0.1, (22.8, 6.1)),
    "v2-factorized": Step(
        "and a factorized 7x7", _choose_v2(factorized_7x7=True), RMSPROP, 0.1, (21.6, 5.8)
    ),
    "v3": Step(
        "and BN-auxiliary: Inception v3",
        _choose_v2(factorized_7x7=True, aux_norm=True),
        RMSPROP,
        0.1,
        (21.2, 5.6),
    ),
}
STEPS_PER_EPOCH = 801  # With batches of 1,600 images.


def _paper(name: str) -> Experiment:
    step = STEPS[name]
    steps = 100 * STEPS_PER_EPOCH
    earlier = step.model.name in ("googlenet", "googlenet_bn", "bn_inception")
    side = 224 if earlier else 299
    resize = 256 if side == 224 else 342
    return Experiment(
        study="inception_ablation",
        name=name,
        data=Data(
            dataset=choose("imagenet2012"),
            batch_size=1_600,
            subtract_mean="channel",
            train_resize=(resize,),
            eval_resize=resize,
            image_size=side,
            train_crop="inception",
            pad_and_crop=0,
            flip=True,
        ),
        model=step.model,
        optimizer=step.optimizer,
        schedule=choose(
            "step",
            base=0.045,
            boundaries=tuple(range(2 * STEPS_PER_EPOCH, steps, 2 * STEPS_PER_EPOCH)),
            factor=0.94,
        ),
        train=Train(
            steps=steps,
            log_every=100,
            eval_every=STEPS_PER_EPOCH,
            save_every=STEPS_PER_EPOCH,
            label_smoothing=step.smoothing,
        ),
        protocols=(choose("single", scales=(resize,)),),
        deviations=(
            *(
                ("trained by the recipe of Inception v3, not by its own paper's",)
                if earlier
                else ()
            ),
            "weight decay 0.00004 is that of TensorFlow's training script; the paper gives none",
            "one batch of 1,600 images in place of 50 asynchronous batches of 32",
            "no average of the weights is kept for evaluation",
        ),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns a narrow model on digits drawn large."""
    return replace(
        run,
        data=replace(
            run.data,
            dataset=choose("digits"),
            batch_size=32,
            eval_batch_size=180,
            train_resize=(107,),
            eval_resize=107,
            image_size=107,
            train_crop="random",
            flip=False,
        ),
        model=change(run.model, width=1 / 16),
        schedule=choose("cosine", base=0.02),  # Until it is tuned.
        train=replace(run.train, steps=300, log_every=30, eval_every=150, save_every=150),
        protocols=(choose("single", scales=(107,)),),
    )


def _smoke(run: Experiment) -> Experiment:
    return shorten_run(_laptop(run), fake=True)


TUNING = Tuning((0.02, 0.1), validation_images=180, steps=150)
PRESETS = {"paper": keep_run, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns a run for each line of Table 3."""
    check_preset("inception_ablation", preset, PRESETS)
    runs = {name: PRESETS[preset](_paper(name)) for name in STEPS}
    protocols = {name: name_protocol(run.protocols[0]) for name, run in runs.items()}
    names = list(STEPS)
    return Study(
        name="inception_ablation",
        title="From GoogLeNet to Inception v3, step by step",
        paper="Szegedy et al. 2015 (arXiv:1512.00567), Sec. 8 and Table 3",
        paper_data="imagenet2012",
        preset=preset,
        runs=runs,
        rows=tuple(_make_row(name, step, protocols[name]) for name, step in STEPS.items()),
        paper_runs={name: _paper(name) for name in STEPS},
        tuning=TUNING if preset == "laptop" else None,
        claims=tuple(
            Claim(
                f"{STEPS[later].label}: errs less than the line before",
                subtract(Score(later, protocols[later]), Score(earlier, protocols[earlier])),
                expected=BELOW_ZERO,
                paper=round(STEPS[later].errors[0] - STEPS[earlier].errors[0], 2),
                source="Table 3",
            )
            for earlier, later in itertools.pairwise(names)
        ),
        report=_report,
    )


def _make_row(name: str, step: Step, protocol: str) -> Row:
    pairs = zip(("top1_error", "top5_error"), step.errors, strict=True)
    paper = {metric: error for metric, error in pairs if error is not None}
    return Row(name, step.label, "Inception", "Table 3", paper, "Table 3", protocol)


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.evaluation_intervals(results, results.rows),
        report.tuning_table(results),
        report.error_curves(results, title="Training", file="curves.png"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )
