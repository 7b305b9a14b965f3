"""What a learning rate does that is too low, good, high or too high, and what decay is worth.

Paper     None: the lectures' figure of the loss at four learning rates, and their three decays:
          cut by a factor every T steps, lr0 exp(-k t), and lr0 / (1 + k t). The cosine is that of
          Loshchilov, Hutter 2017 (arXiv:1608.03983), eq. 5, without restarts.
Question  How does the training loss show that a rate is wrong? What does a falling rate gain, from
          the same start and with the same number of steps?
Commands  python launch.py --experiment=learning_rate --seeds=3 --together                 (digits)
          python launch.py --experiment=learning_rate --preset=paper --seeds=3 --together  (MNIST)
Results   docs/results/learning_rate_digits, with hardware and commit.

Plain SGD, so that only the rate decides the length of a step. Training images are shifted and
rotated, so that the loss does not fall to 0 and a batch's gradient stays noisy.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.config import Choice, Data, Experiment, Train, change, choose
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Measured, measure_seeds
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run

if TYPE_CHECKING:
    from cnn_jax.report import LineChart, Page, Results, Run

COST = {
    "laptop": "9 small MLPs on scikit-learn's digits, half a minute on 2 CPU cores",
    "paper": "9 small MLPs for 10 epochs of MNIST, 10 minutes on 2 CPU cores, 3 seeds together",
    "smoke": "9 small MLPs of two steps on digits, for tests",
}

RATES = {"too-low": "too low", "good": "good", "high": "high", "too-high": "too high"}
DECAYS = {
    "constant": "constant",
    "step": "cut by 10 twice",
    "exponential": "exponential",
    "inverse-time": "1/t",
    "cosine": "half a cosine",
}
# Picked by how the training loss falls on digits. Those of the paper preset have not been tried.
BASES = {
    "laptop": {"too-low": 0.01, "good": 2.0, "high": 8.0, "too-high": 32.0, "decays": 4.0},
    "paper": {"too-low": 0.001, "good": 0.25, "high": 1.0, "too-high": 8.0, "decays": 0.5},
}
END = 0.01  # What is left of the rate at the end of the exponential's decay.
GUESSING = math.log(10)  # The loss of ten equally likely classes, in nats.


def _choose_schedule(name: str, bases: dict[str, float], steps: int) -> Choice:
    if name in RATES:
        return choose("constant", base=bases[name])
    base = bases["decays"]
    decays = {
        "constant": choose("constant"),
        "step": choose("step", every=-(-steps // 3), factor=0.1),
        "exponential": choose("exponential", rate=-math.log(END) / steps),
        # 20 / steps: after half of the steps a twelfth is left, at the end a twenty-first.
        "inverse-time": choose("inverse_time", rate=20 / steps),
        "cosine": choose("cosine"),
    }
    return change(decays[name], base=base)


def _paper(name: str) -> Experiment:
    steps = 6_000  # 10 epochs of 600 steps.
    return Experiment(
        study="learning_rate",
        name=name,
        data=Data(
            dataset=choose("mnist"),
            batch_size=100,
            subtract_mean="pixel",
            pad_and_crop=2,
            rotate=15.0,
            flip=False,
        ),
        model=choose("mlp", hidden=(100,)),
        optimizer=choose("sgd", momentum=0.0, weight_decay=0.0),
        schedule=_choose_schedule(name, BASES["paper"], steps),
        train=Train(steps=steps, log_every=60, eval_every=600, save_every=3_000, on_nan="record"),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns the same model on 8x8 digits, for 44 epochs of 45 steps."""
    steps = 2_000
    return replace(
        run,
        data=replace(
            run.data, dataset=choose("digits"), batch_size=32, pad_and_crop=1, eval_batch_size=360
        ),
        schedule=_choose_schedule(run.name, BASES["laptop"], steps),
        train=replace(run.train, steps=steps, log_every=40, eval_every=500, save_every=1_000),
    )


def _smoke(run: Experiment) -> Experiment:
    small = shorten_run(_laptop(run))
    return replace(small, schedule=_choose_schedule(run.name, BASES["laptop"], small.train.steps))


PRESETS = {"laptop": _laptop, "paper": keep_run, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns four constant rates, and four decays of a rate that is high."""
    check_preset("learning_rate", preset, PRESETS)
    runs = {name: PRESETS[preset](_paper(name)) for name in (*RATES, *DECAYS)}
    bases = BASES["paper" if preset == "paper" else "laptop"]
    return Study(
        name="learning_rate",
        title="Learning rates, and their decay",
        paper="the lectures on training; Loshchilov, Hutter 2017 (arXiv:1608.03983), eq. 5",
        paper_data="",  # No figures are printed.
        preset=preset,
        runs=runs,
        rows=tuple(
            Row(name, label, "constant rates" if name in RATES else "decays", "")
            for name, label in _label_runs(bases).items()
        ),
        paper_runs=runs,  # The lectures name no recipe.
        claims=_make_claims(),
        notes=(
            "The rates were picked by how the training loss falls. The decays start from the same"
            " rate, and have as many steps.",
            "The step schedule cuts the rate by 10 after each third of the steps, the exponential"
            f" ends at {END:.0%} of the rate, 1/t at a twenty-first of it, the cosine at 0.",
        ),
        report=_report,
    )


def _label_runs(bases: dict[str, float]) -> dict[str, str]:
    rates = {name: f"{label}: {bases[name]:g}" for name, label in RATES.items()}
    return rates | {name: f"{bases['decays']:g}, {label}" for name, label in DECAYS.items()}


def _make_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            "Too low a rate: after the same steps the training loss is above that of the good rate",
            _compare("too-low", "good"),
            expected=ABOVE_ZERO,
            source="the lectures",
            unit="nats",
        ),
        Claim(
            "A high rate: the training loss stops falling above that of the good rate",
            _compare("high", "good"),
            expected=ABOVE_ZERO,
            source="the lectures",
            unit="nats",
        ),
        Claim(
            "Too high a rate: the loss ends above that of guessing (ln 10), or is not finite, for"
            " every seed",
            _measure_failures,
            expected=(1.0, 1.0),
            source="the lectures",
            unit="share of seeds",
        ),
        *(
            Claim(
                f"Decay, {DECAYS[name]}: the training loss ends below that of the constant rate",
                _compare(name, "constant"),
                expected=BELOW_ZERO,
                source="the lectures",
                unit="nats",
            )
            for name in DECAYS
            if name != "constant"
        ),
    )


def _compare(first: str, second: str) -> "Callable[[Results], Measured]":
    """Returns the check that the first run's last training loss is larger, or smaller."""

    def compute(runs: "dict[str, Run]") -> float | None:
        from cnn_jax import report

        losses = [report.find_final_loss(runs[name]) for name in (first, second)]
        if None in losses or math.inf in losses:
            return None
        return losses[0] - losses[1]

    def check(results: "Results") -> Measured:
        return measure_seeds(results, (first, second), compute)

    return check


def _measure_failures(results: "Results") -> Measured:
    """Returns the share of the seeds of too high a rate that have learned nothing: a count."""

    def compute(runs: "dict[str, Run]") -> float | None:
        from cnn_jax import report

        loss = report.find_final_loss(runs["too-high"])
        return None if loss is None else float(loss > GUESSING)

    counted = measure_seeds(results, ("too-high",), compute)
    return dataclasses.replace(counted, over_seeds=None, exact=True)


CAPTION = (
    "Training loss against steps, of batches of moved and turned images; the line is the mean over"
    " seeds, the band their least and largest. Left: constant rates; the gray line is the loss of"
    " guessing, ln 10. Right: the same high rate at the start, and what becomes of it."
)


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    return report.page(
        results,
        report.line_charts(results, _make_charts(results), CAPTION, "The loss tells the rate"),
        *report.paper_tables(results, results.rows),
        report.claims_table(results, results.claims),
        report.error_curves(results, title="Error against steps", file="errors.png"),
        report.notes(results),
        report.settings(results),
    )


def _make_charts(results: "Results") -> "list[LineChart]":
    from cnn_jax import report

    charts = []
    for group in ("constant rates", "decays"):
        rows = [row for row in results.rows if row.group == group]
        lines = [
            report.loss_line(results, row.run, row.label, color)
            for row, color in zip(rows, report.PALETTE, strict=False)
        ]
        last = max((run.reached for run in results.every_run), default=1)
        guess = ((0.0, *[GUESSING] * 3), (float(last), *[GUESSING] * 3))
        if group == "constant rates":
            lines.append(report.Series("guessing", guess, report.PALETTE[6]))
        shown = tuple(line for line in lines if line)
        charts.append(
            report.LineChart(
                group, shown, "steps", "training loss (nats)", log_y=True, share_y=False
            )
        )
    return charts
