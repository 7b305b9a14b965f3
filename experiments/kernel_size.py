"""How large should a kernel be, and are two small kernels better than a large one?

Paper     Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 2.3 and 4.1: a 5x5 in place of each pair
          of 3x3 in model B errs by 7 points more, on ImageNet. The lectures' experiment: kernels of
          several sizes in a small CNN on MNIST.
Question  Kernels of 1x1 to 11x11 in the same CNN. Then one 5x5 against two 3x3, which see as much,
          with the same channels and with as many parameters; one 7x7 against three 3x3, which then
          have as many parameters anyway.
Tuning    Each model's learning rate has the lowest validation error of a grid, averaged over three
          seeds.
Commands  python launch.py --experiment=kernel_size --seeds=3 --together                 (digits)
          python launch.py --experiment=kernel_size --preset=paper --seeds=3 --together  (MNIST)
Results   docs/results/kernel_size_digits and kernel_size_mnist, with hardware and commit.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.config import Choice, Data, Experiment, Train, change, choose
from cnn_jax.report.claims import ABOVE_ZERO, Claim, Score, subtract
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
    "laptop": "7 small CNNs and 105 trials on scikit-learn's digits, 3 minutes on 2 CPU cores",
    "paper": "9 small CNNs and 135 trials on MNIST, 5 epochs, 1.5 to 2 hours on 2 CPU cores",
    "smoke": "7 small CNNs of two steps on digits, for tests",
}

SIDES = (1, 3, 5, 7, 9, 11)
SMALL_SIDES = (1, 3, 5, 7)  # On small images, whose feature maps have 16 and 8 pixels.
CHANNELS = (8, 16)  # Channels of the two stages, each followed by max pooling.
VGG = "VGG, Sec. 4.1, configuration B on ImageNet"


def _choose_model(
    kernel: int, convolutions: int = 1, channels: tuple[int, ...] = CHANNELS
) -> Choice:
    return choose(
        "small_cnn", kernel=kernel, convolutions=convolutions, channels=channels, hidden=()
    )


# Parameters on 28x28: one 5x5 11,274; two 3x3 12,002, with 15 channels 11,159; one 7x7 14,538,
# three 3x3 14,906.
MODELS = {
    **{f"kernel-{side}": _choose_model(side) for side in SIDES},
    "two-3": _choose_model(3, 2),
    "two-3-narrow": _choose_model(3, 2, (8, 15)),
    "three-3": _choose_model(3, 3),
}
LABELS = {
    **{f"kernel-{side}": f"{side}x{side}" for side in SIDES},
    "two-3": "two 3x3, the same channels",
    "two-3-narrow": "two 3x3, as many parameters as a 5x5",
    "three-3": "three 3x3, the same channels",
}


def _paper(name: str) -> Experiment:
    return Experiment(
        study="kernel_size",
        name=name,
        data=Data(
            dataset=choose("mnist"),
            batch_size=128,
            subtract_mean="pixel",
            pad_and_crop=0,
            flip=False,
        ),
        model=MODELS[name],
        optimizer=choose("sgd", momentum=0.9, weight_decay=0.0),
        schedule=choose("cosine", base=0.05),  # Until it is tuned.
        # 5 epochs of 469 steps.
        train=Train(steps=2_345, log_every=67, eval_every=335, save_every=335),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns the same model on digits enlarged to 16 pixels, for 27 epochs of 22 steps."""
    digits = choose("digits", side=16)
    return replace(
        run,
        data=replace(run.data, dataset=digits, batch_size=64, eval_batch_size=360),
        schedule=change(run.schedule, warmup_steps=LAPTOP_WARMUP_STEPS),
        train=Train(steps=600, log_every=60, eval_every=120, save_every=300),
    )


def _smoke(run: Experiment) -> Experiment:
    small = shorten_run(_laptop(run))
    return replace(small, schedule=change(small.schedule, warmup_steps=0))


PRESETS = {"paper": keep_run, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns a run for each kernel size, and for each stack of kernels."""
    check_preset("kernel_size", preset, PRESETS)
    sides = SIDES if preset == "paper" else SMALL_SIDES
    names = [
        name for name in MODELS if name not in {f"kernel-{side}" for side in {*SIDES} - {*sides}}
    ]
    return Study(
        name="kernel_size",
        title="Kernel sizes, and stacks of small kernels",
        paper="Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 2.3 and 4.1; the lectures on CNNs",
        paper_data="",  # No figures are printed.
        preset=preset,
        runs={name: PRESETS[preset](_paper(name)) for name in names},
        rows=tuple(_make_row(name) for name in names),
        paper_runs={name: _paper(name) for name in names},
        tuning=tune_small_cnn(preset),
        claims=_make_claims(*sides[-2:]),
        notes=(
            "Every model has the same recipe: SGD with momentum 0.9, a rate that falls by half a"
            " cosine, no weight decay, no augmentation. Each has its own best rate.",
            "VGG's figure is of ImageNet: one 5x5 in place of each two 3x3 of its configuration B"
            " errs by 7 points more in top-1 error, on one center crop.",
        ),
        report=_report,
    )


def _make_row(name: str) -> Row:
    group = "one kernel" if name.startswith("kernel") else "stacks of 3x3"
    return Row(name, LABELS[name], group, "")


def _make_claims(large: int, largest: int) -> tuple[Claim, ...]:
    return (
        Claim(
            "A neighborhood helps: 1x1 kernels err more than 3x3",
            subtract(Score("kernel-1"), Score("kernel-3")),
            expected=ABOVE_ZERO,
            source="the lectures",
        ),
        Claim(
            "A larger neighborhood helps up to a point: 3x3 kernels err more than 5x5",
            subtract(Score("kernel-3"), Score("kernel-5")),
            expected=ABOVE_ZERO,
            source="the lectures",
        ),
        Claim(
            f"Beyond that point it does not: {largest}x{largest} kernels err at most 0.2 points"
            f" less than {large}x{large}",
            subtract(Score(f"kernel-{largest}"), Score(f"kernel-{large}")),
            expected=(-0.2, math.inf),
            source="the lectures",
        ),
        Claim(
            "One 5x5 errs more than two 3x3 with the same channels",
            subtract(Score("kernel-5"), Score("two-3")),
            expected=ABOVE_ZERO,
            paper=7.0,
            source=VGG,
        ),
        Claim(
            "One 5x5 errs more than two 3x3 with as many parameters",
            subtract(Score("kernel-5"), Score("two-3-narrow")),
            expected=ABOVE_ZERO,
            source="VGG, Sec. 2.3, which gives the reasons and no figure",
        ),
        Claim(
            "One 7x7 errs more than three 3x3 with the same channels and as many parameters",
            subtract(Score("kernel-7"), Score("three-3")),
            expected=ABOVE_ZERO,
            source="VGG, Sec. 2.3, which gives the reasons and no figure",
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    line = report.Series("one kernel", _find_points(results), report.PALETTE[0])
    chart = report.LineChart("", (line,), "side of the kernels (pixels)", "test error (%)")
    caption = (
        "Test error against the side of the kernels; the line is the mean over seeds, the band"
        " their least and largest."
    )
    stacks = [row for row in results.rows if row.run in ("kernel-5", "kernel-7")]
    stacks += [row for row in results.rows if row.group == "stacks of 3x3"]
    stacks.sort(key=lambda row: row.run in ("kernel-7", "three-3"))
    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.line_charts(results, [chart], caption, "Kernel sizes"),
        report.error_bars(results, stacks, title="One kernel or several", file="stacks.png"),
        report.tuning_table(results),
        report.error_curves(results, title="Training", file="curves.png"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )


def _find_points(results: "Results") -> tuple[tuple[float, float, float, float], ...]:
    """Returns (side, mean, least, largest error in %) of each finished kernel size."""
    points = []
    for side in SIDES:
        runs = results.runs.get(f"kernel-{side}", ())
        errors = [100 * e for run in runs if (e := run.final_error) is not None]
        if errors:
            points.append((side, sum(errors) / len(errors), min(errors), max(errors)))
    return tuple(points)
