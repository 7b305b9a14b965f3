"""Gradient descent, SGD, momentum, RMSProp and Adam: which lowers the training loss fastest?

Paper     The lectures on optimization; Kingma, Ba 2015 (arXiv:1412.6980), Sec. 6.2 and Figure 2:
          a model of two hidden layers of 1,000 ReLU units on MNIST in batches of 128, where Adam
          lowers the training cost fastest.
Question  How does the training loss fall against updates, and against processed examples? One
          update of gradient descent processes all of them.
Commands  python launch.py --experiment=optimizers --seeds=3 --together                 (digits)
          python launch.py --experiment=optimizers --preset=paper --seeds=3 --together  (MNIST)
Results   docs/results/optimizers_digits, with hardware and commit.

Each optimizer is tried at the same grid of rates and takes the one with the lowest final training
loss, because the question is how fast the training loss falls. There is no augmentation and no
penalty, so that the logged loss is the one that is lowered.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.config import Choice, Data, Experiment, Train, choose
from cnn_jax.report.claims import BELOW_ZERO, Claim, Measured, measure_seeds
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run
from cnn_jax.tuning import Tuning, name_trial

if TYPE_CHECKING:
    from cnn_jax.report import LineChart, Page, Results, Run

COST = {
    "laptop": "6 small MLPs and 162 trials on scikit-learn's digits, a minute on 2 CPU cores",
    "paper": "162 trials and 6 MLPs on MNIST, one with batches of 60,000: for an accelerator",
    "smoke": "18 trials and 6 small MLPs of two steps on digits, for tests",
}

WHOLE = "gradient-descent"
LABELS = {
    WHOLE: "gradient descent, all images",
    "sgd": "SGD",
    "momentum": "momentum",
    "nesterov": "Nesterov's momentum",
    "rmsprop": "RMSProp",
    "adam": "Adam",
}
NO_PENALTY = {"weight_decay": 0.0}
OPTIMIZERS: dict[str, Choice] = {
    WHOLE: choose("sgd", momentum=0.0, **NO_PENALTY),
    "sgd": choose("sgd", momentum=0.0, **NO_PENALTY),
    "momentum": choose("sgd", momentum=0.9, **NO_PENALTY),
    "nesterov": choose("sgd", momentum=0.9, nesterov=True, **NO_PENALTY),
    # Tieleman and Hinton's decay; the small epsilon is Adam's.
    "rmsprop": choose("rmsprop", decay=0.9, epsilon=1e-8, momentum=0.0, **NO_PENALTY),
    "adam": choose("adam", **NO_PENALTY),
}
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
LEAST = 1e-7  # Nats: of a smaller loss float32 knows nothing.
KINGMA = "Kingma, Ba 2015, Sec. 6.2 and Figure 2"
LECTURES = "the lectures"


def _paper(name: str) -> Experiment:
    """Returns Kingma and Ba's model. Differs: no L2 penalty, and 20 epochs."""
    whole = name == WHOLE
    return Experiment(
        study="optimizers",
        name=name,
        data=Data(
            dataset=choose("mnist"),
            batch_size=60_000 if whole else 128,
            subtract_mean="pixel",
            pad_and_crop=0,
            flip=False,
        ),
        model=choose("mlp", hidden=(1_000, 1_000)),
        optimizer=OPTIMIZERS[name],
        schedule=choose("constant", base=0.01),
        # 20 epochs of 469 batches; of gradient descent 402 epochs. Step 402, at which losses are
        # compared, ends a log interval of both.
        train=Train(
            steps=402 if whole else 9_380,
            log_every=6 if whole else 67,
            eval_every=201 if whole else 938,
            save_every=201 if whole else 938,
            on_nan="record",
        ),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns a smaller model on 1,200 digits, in batches of 30 for 10 epochs, or in one batch.

    Longer runs end at losses of 0, which cannot be compared.
    """
    whole = run.name == WHOLE
    return replace(
        run,
        data=replace(
            run.data,
            dataset=choose("digits"),
            validation_images=237,
            batch_size=1_200 if whole else 30,
            eval_batch_size=237,
        ),
        model=choose("mlp", hidden=(100,)),
        train=replace(
            run.train,
            steps=400,
            log_every=10,
            eval_every=200,
            save_every=400,
        ),
    )


def _smoke(run: Experiment) -> Experiment:
    return shorten_run(_laptop(run), batch_size=1_200 if run.name == WHOLE else 8)


def _find_final_loss(run: "Run") -> float:
    """Returns a trial's score: its last training loss, infinite if it diverged."""
    from cnn_jax import report

    loss = report.find_final_loss(run)
    return math.inf if loss is None else loss


def _make_tuning(rates: tuple[float, ...], validation_images: int) -> Tuning:
    return Tuning(
        rates,
        validation_images=validation_images,
        seeds=3,
        score=_find_final_loss,
        score_name="training loss at the end (nats)",
        scale=1.0,
    )


PRESETS = {"laptop": _laptop, "paper": keep_run, "smoke": _smoke}
TUNING = {
    "laptop": _make_tuning(RATES, 237),
    "paper": _make_tuning(RATES, 0),
    "smoke": _make_tuning(RATES[2:3], 237),
}


def study(preset: str) -> Study:
    """Returns six optimizers, each at its best rate."""
    check_preset("optimizers", preset, PRESETS)
    runs = {name: PRESETS[preset](_paper(name)) for name in LABELS}
    return Study(
        name="optimizers",
        title="Optimizers: training loss against updates and against examples",
        paper="the lectures on optimization; Kingma, Ba 2015 (arXiv:1412.6980), Sec. 6.2, Figure 2",
        paper_data="mnist",
        preset=preset,
        runs=runs,
        rows=tuple(
            Row(name, label, "", "Figure 2: drawn, no figure printed")
            for name, label in LABELS.items()
        ),
        paper_runs={name: _paper(name) for name in LABELS},
        tuning=TUNING[preset],
        claims=_make_claims(runs),
        notes=(
            "Each update of gradient descent looks at all training images, so that with as many"
            " updates it looks at many times the examples.",
            "Momentum is 0.9; RMSProp has a decay of 0.9 and no momentum; Adam's constants are the"
            " paper's. RMSProp's mean square starts at 1, as TensorFlow's does, so that its first"
            " steps are small.",
        ),
        report=_report,
    )


def _make_claims(runs: dict[str, Experiment]) -> tuple[Claim, ...]:
    updates = runs[WHOLE].train.steps
    small = runs["sgd"]
    examples = small.train.steps * small.data.batch_size
    epochs_of_whole = max(1, examples // runs[WHOLE].data.batch_size)
    end = small.train.steps
    by_adam = ("momentum", "nesterov", "rmsprop", "sgd")
    return (
        Claim(
            f"Per example batches win: after {examples:,} examples SGD's training loss is below"
            " gradient descent's",
            _compare(("sgd", end), (WHOLE, epochs_of_whole)),
            expected=BELOW_ZERO,
            source=LECTURES,
            unit="decades",
        ),
        Claim(
            f"Per update the whole set wins: after {updates:,} updates gradient descent's training"
            " loss is below SGD's",
            _compare((WHOLE, updates), ("sgd", updates)),
            expected=BELOW_ZERO,
            source=LECTURES,
            unit="decades",
        ),
        *(
            Claim(
                f"{LABELS[name][0].upper()}{LABELS[name][1:]} ends with a lower training loss than"
                f" {LABELS[other]}",
                _compare((name, end), (other, end)),
                expected=BELOW_ZERO,
                source=LECTURES,
                unit="decades",
            )
            for name, other in (("momentum", "sgd"), ("nesterov", "momentum"), ("rmsprop", "sgd"))
        ),
        *(
            Claim(
                f"Adam ends with a lower training loss than {LABELS[other]}",
                _compare(("adam", end), (other, end)),
                expected=BELOW_ZERO,
                source=KINGMA if other != "sgd" else f"{LECTURES}; {KINGMA}",
                unit="decades",
            )
            for other in by_adam
        ),
    )


def _compare(first: tuple[str, int], second: tuple[str, int]) -> "Callable[[Results], Measured]":
    """Returns the check of log10 of the first run's loss at a step over the second's at another."""

    def compute(runs: "dict[str, Run]") -> float | None:
        from cnn_jax import report

        (one, other) = (report.find_loss_at(runs[name], step) for name, step in (first, second))
        if one is None or other is None:
            return None
        if not (runs[first[0]].finished and runs[second[0]].finished):
            return None
        return math.log10(max(one, LEAST) / max(other, LEAST))

    def check(results: "Results") -> Measured:
        return measure_seeds(results, (first[0], second[0]), compute)

    return check


CAPTION = (
    "Training loss of each optimizer at its best rate, against updates (left) and against the"
    " examples that were looked at (right); the line is the mean over seeds, the band their least"
    " and largest, a point the mean of the batches since the point before. All axes are"
    " logarithmic."
)
RATES_CAPTION = (
    "Training loss at the end against the rate: the trials; the line is the mean over seeds, the"
    " band their least and largest. Where a line has no point, the trials have diverged."
)


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    return report.page(
        results,
        report.line_charts(results, _make_charts(results), CAPTION, "Updates and examples"),
        report.claims_table(results, results.claims),
        report.tuning_table(results, "The rates, and what they gave"),
        report.line_charts(
            results, [_chart_rates(results)], RATES_CAPTION, "Loss against rate", "rates.png"
        ),
        *report.paper_tables(results, results.rows),
        report.notes(
            results,
            None,
            "A claim's figure is the decimal logarithm of one training loss over the other:"
            " -1 is a loss ten times lower.",
        ),
        report.settings(results),
    )


def _make_charts(results: "Results") -> "list[LineChart]":
    from cnn_jax import report

    charts = []
    for label, counts in (("updates", False), ("examples", True)):
        lines = []
        for (name, words), color in zip(LABELS.items(), report.PALETTE, strict=False):
            runs = [run.experiment for run in results.runs.get(name, ()) if run.experiment]
            scale = runs[0].data.batch_size if runs and counts else 1
            if line := report.loss_line(results, name, words, color, scale):
                lines.append(line)
        charts.append(
            report.LineChart(
                f"against {label}",
                tuple(lines),
                label,
                "training loss (nats)",
                log_x=True,
                log_y=True,
            )
        )
    return charts


def _chart_rates(results: "Results") -> "LineChart":
    from cnn_jax import report

    lines = []
    tuning = results.tuning
    for (name, words), color in zip(LABELS.items(), report.PALETTE, strict=False):
        points = []
        for rate in tuning.values if tuning else ():
            runs = results.trials.get(name_trial(tuning, name, rate), ()) if tuning else ()
            losses = [loss for run in runs if (loss := _find_final_loss(run)) < math.inf]
            if losses:
                points.append((rate, sum(losses) / len(losses), min(losses), max(losses)))
        if points:
            lines.append(report.Series(words, tuple(points), color))
    return report.LineChart(
        "", tuple(lines), "learning rate", "training loss (nats)", log_x=True, log_y=True
    )
