"""Which activation function trains fastest?

Paper     Krizhevsky, Sutskever, Hinton 2012, Sec. 3.1 and Figure 1: a four-layer CNN on CIFAR-10
          reaches 25% training error six times faster with ReLU than with tanh. The rate of each was
          chosen to train as fast as possible; no regularization of any kind.
Question  How many epochs does each activation function take to 25% training error, each with a rate
          of its own? Do sigmoid and tanh saturate meanwhile, do units of ReLU die?
Commands  python launch.py --experiment=activations --seeds=3 --together                 (digits)
          python launch.py --experiment=activations --preset=paper --seeds=3 --together  (CIFAR-10)
Results   docs/results/activations_digits, with hardware and commit.

The paper does not describe its CNN. Ours has three 5x5 convolutions of 32, 32 and 64 channels, each
with overlapping max pooling (3x3, stride 2), and a dense layer, as in cuda-convnet's models for
CIFAR-10.
"""

import math
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.config import Data, Experiment, Log, Train, choose
from cnn_jax.report.claims import Claim, Measured, measure_seeds
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run
from cnn_jax.tuning import Tuning, compute_mean_training_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnn_jax.report import LineChart, Page, Results, Run, Table

COST = {
    "laptop": "7 small CNNs and 35 trials on scikit-learn's digits, 1.5 minutes on 2 CPU cores",
    "paper": "7 CNNs of 40 epochs and 35 trials of 3 on CIFAR-10: for an accelerator",
    "smoke": "7 small CNNs and 14 trials of two steps on fake data, for tests",
}
GOAL = 0.25  # Training error, Figure 1.
LABELS = {
    "relu": "ReLU",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "leaky_relu": "leaky ReLU",
    "prelu": "PReLU",
    "scaled_tanh": "scaled tanh",
    "softsign": "softsign",
}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
STEPS_PER_EPOCH = 391  # CIFAR-10's 50,000 images in batches of 128.


def _paper(name: str) -> Experiment:
    return Experiment(
        study="activations",
        name=name,
        data=Data(
            dataset=choose("cifar10"),
            batch_size=128,
            eval_batch_size=1_000,
            subtract_mean="pixel",
            pad_and_crop=0,
            flip=False,
        ),
        model=choose(
            "small_cnn",
            channels=(32, 32, 64),
            kernel=5,
            pool_size=3,
            pool_stride=2,
            hidden=(),
            activation=name,
        ),
        optimizer=choose("sgd", momentum=0.9, weight_decay=0.0),
        schedule=choose("constant", base=0.01),
        train=Train(
            steps=40 * STEPS_PER_EPOCH,
            log_every=STEPS_PER_EPOCH // 17,  # 23, which divides an epoch: equal intervals.
            eval_every=STEPS_PER_EPOCH,
            save_every=STEPS_PER_EPOCH,
            on_nan="record",
        ),
        log=Log(layer_statistics=tuple(STEPS_PER_EPOCH * e for e in (0, 1, 2, 5, 10, 20, 40))),
        deviations=("The paper does not describe its four-layer CNN; the layers are ours",),
    )


def _laptop(paper: Experiment) -> Experiment:
    return replace(
        paper,
        data=replace(paper.data, dataset=choose("digits"), eval_batch_size=360),
        model=choose("small_cnn", **paper.model.args | {"channels": (8, 8, 16), "kernel": 3}),
        train=replace(paper.train, steps=200, log_every=4, eval_every=40, save_every=200),
        log=Log(layer_statistics=(0, 12, 24, 48, 100, 200)),
    )


def _smoke(paper: Experiment) -> Experiment:
    return replace(
        shorten_run(paper, batch_size=16, fake=True),
        model=choose("small_cnn", **paper.model.args | {"channels": (2, 2, 4), "kernel": 3}),
        log=Log(layer_statistics=(0, 2)),
    )


PRESETS = {"laptop": _laptop, "paper": keep_run, "smoke": _smoke}
TUNING = Tuning(
    RATES,
    validation_images=5_000,
    steps=3 * STEPS_PER_EPOCH,
    score=compute_mean_training_error,
    score_name="mean training error over the trial (%), the lower the faster it falls,",
)
TUNINGS = {
    "laptop": replace(TUNING, validation_images=360, steps=100),
    "paper": TUNING,
    "smoke": replace(TUNING, values=RATES[:2], validation_images=32, steps=0),
}


def study(preset: str) -> Study:
    """Returns the four-layer CNN with each activation function."""
    check_preset("activations", preset, PRESETS)
    return Study(
        name="activations",
        title="Activation functions in a four-layer CNN",
        paper="Krizhevsky, Sutskever, Hinton 2012, Sec. 3.1 and Figure 1",
        paper_data="cifar10",
        preset=preset,
        runs={name: PRESETS[preset](_paper(name)) for name in LABELS},
        rows=tuple(
            Row(name, label, "training error", "Figure 1: drawn, no figure printed")
            for name, label in LABELS.items()
        ),
        paper_runs={name: _paper(name) for name in LABELS},
        tuning=TUNINGS[preset],
        claims=_make_claims(),
        report=_report,
        notes=(
            "An epoch's share is counted in log intervals: the training error is the mean over one."
            " A run that does not reach 25% counts as twice its epochs.",
        ),
    )


def _make_claims() -> tuple[Claim, ...]:
    source = "Sec. 3.1 and Figure 1"
    return (
        Claim(
            "ReLU reaches 25% training error in fewer epochs than tanh: how many times fewer",
            _compare_speed("tanh"),
            expected=(1.0, math.inf),
            paper=6.0,
            source=source,
            unit="times",
        ),
        Claim(
            "ReLU is six times faster than tanh, within a quarter",
            _compare_speed("tanh"),
            expected=(4.5, 7.5),
            paper=6.0,
            source=source,
            unit="times",
            is_figure=True,
        ),
        Claim(
            "ReLU reaches 25% training error in fewer epochs than sigmoid: how many times fewer",
            _compare_speed("sigmoid"),
            expected=(1.0, math.inf),
            source="the lectures",
            unit="times",
        ),
        Claim(
            "Sigmoid is slower than tanh: how many times",
            _compare_speed("sigmoid", "tanh"),
            expected=(1.0, math.inf),
            source="the lectures",
            unit="times",
        ),
    )


def count_epochs(run: "Run", step: int) -> float:
    """Converts a number of steps to epochs, by the run's last logged line."""
    last = run.train[max(run.train)]
    assert last.epoch is not None
    return step * last.epoch / last.step


def find_goal(run: "Run") -> float | None:
    """Returns the epochs until the training error is 25%; twice the run's epochs if it never is."""
    ended = run.finished or run.diverged is not None
    if run.experiment is None or not run.train or not ended:
        return None
    reached = [s for s, line in run.train.items() if line.error is not None and line.error <= GOAL]
    return count_epochs(run, min(reached, default=2 * run.experiment.train.steps))


def _compare_speed(slow: str, fast: str = "relu") -> "Callable[[Results], Measured]":
    def compute(runs: "dict[str, Run]") -> float | None:
        first, second = find_goal(runs[slow]), find_goal(runs[fast])
        return first / second if first and second else None

    return lambda results: measure_seeds(results, (slow, fast), compute)


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    main = {name: LABELS[name] for name in ("relu", "tanh", "sigmoid")}
    rows = [row for row in results.rows if row.run in main]
    return report.page(
        results,
        report.line_charts(results, _chart_training(results), FIGURE_CAPTION, "Figure 1"),
        _epochs_table(results),
        report.claims_table(results, results.claims),
        report.tuning_table(results),
        report.shares_over_training(
            results,
            main,
            "saturated",
            "Share of values at which the activation function is flat (its slope below 5% of that"
            " at 0), layer by layer from the input; of ReLU it is the share of zeros.",
        ),
        report.layer_histograms(
            results,
            main,
            max((step for run in results.every_run for step in run.layers), default=0),
            "Outputs of the activation functions at the end of training, and gradients with respect"
            " to them; the first seed.",
            ("values", "gradients"),
        ),
        *report.paper_tables(results, rows),
        report.notes(results),
        report.settings(results),
    )


FIGURE_CAPTION = (
    "As the paper's Figure 1: training error against epochs, the mean of the seeds and the band"
    " from their least to their largest. The paper's ReLU reaches 25% in a sixth of tanh's epochs."
)


def _chart_training(results: "Results") -> "list[LineChart]":
    from cnn_jax import report
    from cnn_jax.report import figures
    from cnn_jax.report.parts import summarize_points

    lines = []
    for (name, label), color in zip(LABELS.items(), figures.PALETTE, strict=True):
        points: dict[float, list[float]] = {}
        for run in results.runs.get(name, ()):
            for step, line in run.train.items():
                if line.error is not None:
                    points.setdefault(count_epochs(run, step), []).append(100 * line.error)
        if points:
            lines.append(report.Series(label, summarize_points(points), color))
    return [report.LineChart("", tuple(lines), "epochs", "training error (%)")]


def _epochs_table(results: "Results") -> "Table":
    from cnn_jax import report

    rows = []
    for name, label in LABELS.items():
        epochs = [e for run in results.runs.get(name, ()) if (e := find_goal(run)) is not None]
        spread = f" ± {statistics.stdev(epochs):.2f}" if len(epochs) > 1 else ""
        rows.append((label, f"{statistics.mean(epochs):.2f}{spread}" if epochs else "—"))
    footnote = "The mean ± sample standard deviation over the seeds."
    columns = ("activation", "epochs")
    return report.Table("Epochs to 25% training error", columns, tuple(rows), footnote)
