"""Which pooling, and what does it buy: overlapping or not, maxima or averages, strides, none?

Paper     Krizhevsky, Sutskever, Hinton 2012, Sec. 3.4: overlapping pooling, 3x3 windows every 2
          pixels, errs by 0.4 and 0.3 points (top-1, top-5) less than 2x2 windows; on ImageNet.
          The lectures: pooling makes the answer invariant to small shifts, "but may fail". Measure
          of that: Zhang 2019 (arXiv:1904.11486), classification consistency.
Question  Five ways to reduce a feature map, in the same CNN: test error, and how often the answer
          stays the same when the test image moves by 1 to 8 pixels.
Tuning    Each model's learning rate has the lowest validation error of a grid, averaged over three
          seeds.
Commands  python launch.py --experiment=pooling --seeds=3 --together                     (digits)
          python launch.py --experiment=pooling --preset=mnist --seeds=3 --together      (MNIST)
          python launch.py --experiment=pooling --preset=paper --seeds=3 --together      (CIFAR-10)
Recipe    Differs: a small CNN in place of AlexNet, on smaller images.
Results   docs/results/pooling_digits, with hardware and commit.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cnn_jax.config import Choice, Data, Experiment, Train, change, choose, name_protocol
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import (
    LAPTOP_WARMUP_STEPS,
    check_preset,
    keep_run,
    shorten_run,
    tune_small_cnn,
)

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "5 small CNNs and 75 trials on scikit-learn's enlarged digits, 2.5 minutes",
    "mnist": "5 small CNNs and 75 trials on MNIST, 5 epochs, half an hour on 2 CPU cores",
    "paper": "5 small CNNs for 60 epochs of CIFAR-10 and 75 trials: for an accelerator",
    "smoke": "5 small CNNs of two steps on digits, for tests",
}


class Pooling(NamedTuple):
    """A way to reduce feature maps: its label, and the options of the model."""

    label: str
    options: dict


POOLINGS = {
    "max": Pooling("max, 2x2 every 2", {"pooling": "max"}),
    "overlapping": Pooling("max, 3x3 every 2", {"pooling": "max", "pool_size": 3}),
    "average": Pooling("average, 2x2 every 2", {"pooling": "average"}),
    "strided": Pooling("convolution with stride 2", {"pooling": "strided"}),
    "none": Pooling("none", {"pooling": "none"}),
}
AS_PRINTED = -0.4  # Sec. 3.4, top-1, in points.


def _list_shifts(most: int) -> tuple[Choice, ...]:
    return tuple(choose("shift", pixels=pixels) for pixels in range(1, most + 1))


def _paper(name: str) -> Experiment:
    return Experiment(
        study="pooling",
        name=name,
        data=Data(
            dataset=choose("cifar10"),
            batch_size=128,
            subtract_mean="pixel",
            pad_and_crop=4,
            flip=True,
        ),
        model=choose("small_cnn", channels=(32, 64), hidden=(), **POOLINGS[name].options),
        optimizer=choose("sgd", momentum=0.9, weight_decay=5e-4),
        # 60 epochs of 391 steps.
        schedule=choose("cosine", base=0.02),
        train=Train(steps=23_460, log_every=391, eval_every=1_955, save_every=1_955),
        protocols=_list_shifts(8),
    )


def _mnist(run: Experiment) -> Experiment:
    """Returns a narrower model on MNIST, for 5 epochs of 469 steps."""
    return replace(
        run,
        data=replace(run.data, dataset=choose("mnist"), pad_and_crop=0, flip=False),
        model=change(run.model, channels=(8, 16)),
        optimizer=change(run.optimizer, weight_decay=0.0),
        schedule=change(run.schedule, base=0.05),
        train=Train(steps=2_345, log_every=67, eval_every=335, save_every=335),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns 3x3 kernels on digits of 16 pixels in images of 24, for 27 epochs of 22 steps."""
    run = _mnist(run)
    return replace(
        run,
        data=replace(
            run.data,
            dataset=choose("digits", side=16, margin=4),
            batch_size=64,
            eval_batch_size=360,
        ),
        model=change(run.model, kernel=3),
        schedule=change(run.schedule, warmup_steps=LAPTOP_WARMUP_STEPS),
        train=Train(steps=600, log_every=60, eval_every=120, save_every=300),
    )


def _smoke(run: Experiment) -> Experiment:
    small = shorten_run(_laptop(run))
    schedule = change(small.schedule, warmup_steps=0)
    return replace(small, schedule=schedule, protocols=_list_shifts(2))


PRESETS = {"paper": keep_run, "mnist": _mnist, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns a run for each way to reduce feature maps."""
    check_preset("pooling", preset, PRESETS)
    runs = {name: PRESETS[preset](_paper(name)) for name in POOLINGS}
    first, *_, last = next(iter(runs.values())).protocols
    return Study(
        name="pooling",
        title="Pooling, and what a shift of the image changes",
        paper="Krizhevsky, Sutskever, Hinton 2012, Sec. 3.4; the lectures on pooling",
        paper_data="",  # No figures are printed.
        preset=preset,
        runs=runs,
        rows=tuple(Row(name, one.label, "poolings", "") for name, one in POOLINGS.items()),
        paper_runs={name: _paper(name) for name in POOLINGS},
        tuning=tune_small_cnn(preset),
        claims=_make_claims(name_protocol(first), name_protocol(last), last.args["pixels"]),
        notes=(
            "The paper's figure is of AlexNet on ImageNet: windows of 3x3 every 2 pixels err by"
            " 0.4 points less in top-1 and by 0.3 less in top-5 than windows of 2x2.",
            "Every model has the same recipe and its own best rate. Windows are padded, so that"
            " feature maps behind them have the same size. Without pooling the last layer sees"
            " whole maps, with 16 times the weights.",
        ),
        report=_report,
    )


def _make_claims(first: str, last: str, most: object) -> tuple[Claim, ...]:
    def changed(run: str, protocol: str) -> Score:
        return Score(run, protocol, "changed_error")

    return (
        Claim(
            "Overlapping max pooling errs less than windows that do not overlap",
            subtract(Score("overlapping"), Score("max")),
            expected=BELOW_ZERO,
            paper=AS_PRINTED,
            source="Sec. 3.4, AlexNet on ImageNet",
        ),
        Claim(
            "Max pooling errs less than a convolution with stride 2",
            subtract(Score("max"), Score("strided")),
            expected=BELOW_ZERO,
            source="the lectures",
        ),
        Claim(
            "Pooling buys invariance: a shift of one pixel changes fewer answers with max pooling"
            " than with strides",
            subtract(changed("max", first), changed("strided", first)),
            expected=BELOW_ZERO,
            source="the lectures",
        ),
        Claim(
            "Overlapping windows buy more of it: a shift of one pixel changes fewer answers than"
            " with 2x2 windows",
            subtract(changed("overlapping", first), changed("max", first)),
            expected=BELOW_ZERO,
            source="the lectures",
        ),
        Claim(
            f"But it may fail: with max pooling a shift of {most} pixels changes more answers than"
            " a shift of one",
            subtract(changed("max", last), changed("max", first)),
            expected=ABOVE_ZERO,
            source="the lectures",
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    lines = [
        report.Series(row.label, _find_points(results, row.run), color)
        for row, color in zip(results.rows, report.PALETTE, strict=False)
    ]
    chart = report.LineChart(
        "", tuple(line for line in lines if line.points), "shift (pixels)", "same answer (%)"
    )
    caption = (
        "Test images whose answer stays the same when the image moves to the right; the line is the"
        " mean over seeds, the band their least and largest. Pixels that come in are background."
    )
    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.error_bars(results),
        report.line_charts(results, [chart], caption, "Invariance to shifts", "shifts.png"),
        report.tuning_table(results),
        report.error_curves(results, title="Training", file="curves.png"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )


def _find_points(results: "Results", run: str) -> tuple[tuple[float, float, float, float], ...]:
    """Returns (pixels, mean, least, largest share of same answers in %) of each shift."""
    found: dict[int, list[float]] = {}
    for one in results.runs[run]:
        for name, evaluation in one.protocols.items():
            if "changed_error" in evaluation.errors:
                pixels = int(name.rpartition("=")[2])
                same = 100 * (1 - evaluation.errors["changed_error"])
                found.setdefault(pixels, []).append(same)
    points = [(float(p), sum(v) / len(v), min(v), max(v)) for p, v in sorted(found.items())]
    return ((0.0, 100.0, 100.0, 100.0), *points) if points else ()
