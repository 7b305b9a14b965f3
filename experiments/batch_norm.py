"""Does batch norm train a sigmoid model sooner, and does the gain come from higher rates?

Paper     Ioffe, Szegedy 2015 (arXiv:1502.03167), Sec. 4.1 and Figure 1: MNIST, three hidden layers
          of 100 sigmoid units, small Gaussian weights, batches of 60, 50,000 steps.
          Bjorck, Gomes, Selman, Weinberger 2018 (arXiv:1806.02375), Sec. 2: ResNet-110 on CIFAR-10.
Question  With batch norm, is the test accuracy higher, and reached sooner? Do the inputs of a
          typical sigmoid of the last hidden layer stay where they are? Bjorck: is there a gain at
          the small rate with which both models train, or only at the larger ones?
Commands  python launch.py --experiment=batch_norm --seeds=3 --together                 (digits)
          python launch.py --experiment=batch_norm --preset=paper --seeds=3 --together  (MNIST)
Results   docs/results/batch_norm_digits and batch_norm_mnist, with hardware and commit.

The paper names neither the learning rate nor the weights' standard deviation. Each model has the
same grid of rates, tried on held-out training images with three seeds. The trials are also Bjorck's
comparison of rates, with Ioffe and Szegedy's model in place of ResNet-110.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.config import Data, Experiment, Log, Train, choose
from cnn_jax.report.claims import (
    ABOVE_ZERO,
    BELOW_ZERO,
    Claim,
    Measured,
    Score,
    describe_settings_of,
    measure_seeds,
    measure_values,
    subtract,
)
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run
from cnn_jax.tuning import Tuning, choose_value, find_scores, name_trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnn_jax.report import LineChart, Page, Results, Run
    from cnn_jax.report.results import Layer

COST = {
    "laptop": "3 models and 36 trials on scikit-learn's digits, a minute on 2 CPU cores",
    "paper": "3 models of 50,000 steps and 36 trials of 10,000 on MNIST, 20 minutes on 2 CPU cores",
    "smoke": "3 models and 6 trials of two steps on fake data, for tests",
}
PLAIN, NORMALIZED, LARGE = "without", "with", "without-large"
LABELS = {PLAIN: "without batch norm", NORMALIZED: "with batch norm"}
# Not the paper's: how much of the gain do better initial weights bring without batch norm?
ALL_LABELS = LABELS | {LARGE: "without batch norm, larger initial weights"}
RATES = (0.01, 0.1, 1.0, 10.0)
SAME = "ResNet-110 in the paper; here a net of three layers of 100 sigmoid units"
CHOSEN = f"{SAME}; the best rate of each seed's comparison is chosen by the other seeds"


def _paper(name: str) -> Experiment:
    """Returns the recipe of Sec. 4.1; the rate is chosen by trials."""
    return Experiment(
        study="batch_norm",
        name=name,
        data=Data(
            dataset=choose("mnist"),
            batch_size=60,
            eval_batch_size=1_000,
            subtract_mean="none",
            pad_and_crop=0,
            flip=False,
        ),
        # The paper: "small random Gaussian values"; it gives no number.
        model=choose(
            "mlp",
            hidden=(100, 100, 100),
            activation="sigmoid",
            initializer="normal_1" if name == LARGE else "normal_0.1",
            norm="bn" if name == NORMALIZED else "none",
        ),
        optimizer=choose("sgd", momentum=0.0, weight_decay=0.0),
        schedule=choose("constant", base=0.1),
        train=Train(
            steps=50_000, log_every=1_000, eval_every=1_000, save_every=5_000, on_nan="record"
        ),
        log=Log(
            layer_statistics=(
                *(0, 250, 500),
                *range(1_000, 10_000, 1_000),
                *range(10_000, 50_001, 5_000),
            )
        ),
        deviations=(
            "The paper gives neither the rate nor the weights' standard deviation: the rate is"
            " chosen by trials, the standard deviation is 0.1",
        ),
    )


def _laptop(paper: Experiment) -> Experiment:
    steps = 2_000
    return replace(
        paper,
        data=replace(paper.data, dataset=choose("digits"), eval_batch_size=360),
        train=replace(paper.train, steps=steps, log_every=50, eval_every=100, save_every=1_000),
        log=Log(layer_statistics=(0, 10, 20, 50, *range(100, steps + 1, 100))),
    )


def _smoke(paper: Experiment) -> Experiment:
    return replace(
        paper,
        data=replace(paper.data, dataset=choose("fake"), batch_size=16, eval_batch_size=40),
        train=replace(paper.train, steps=2, log_every=1, eval_every=1, save_every=2),
        log=Log(layer_statistics=(0, 1, 2)),
    )


PRESETS = {"laptop": _laptop, "paper": keep_run, "smoke": _smoke}
TUNING = {
    "laptop": Tuning(RATES, validation_images=360, seeds=3),
    "paper": Tuning(RATES, validation_images=5_000, seeds=3, steps=10_000),
    "smoke": Tuning(RATES[1:3], validation_images=32, seeds=1),
}


def study(preset: str) -> Study:
    """Returns the model of Sec. 4.1 with and without batch norm."""
    check_preset("batch_norm", preset, PRESETS)
    return Study(
        name="batch_norm",
        title="Batch normalization in a sigmoid net",
        paper="Ioffe, Szegedy 2015 (arXiv:1502.03167), Sec. 4.1, Figure 1; Bjorck et al. 2018"
        " (arXiv:1806.02375), Sec. 2",
        paper_data="mnist",
        preset=preset,
        runs={name: PRESETS[preset](_paper(name)) for name in ALL_LABELS},
        rows=tuple(
            Row(
                name,
                label,
                "test error",
                "not the paper's" if name == LARGE else "Figure 1(a): drawn, no figure printed",
            )
            for name, label in ALL_LABELS.items()
        ),
        paper_runs={name: _paper(name) for name in ALL_LABELS},
        tuning=TUNING[preset],
        claims=_make_claims(preset),
        report=_report,
        notes=(
            "A typical sigmoid is the first unit of the last hidden layer; the percentiles are"
            " those of its inputs over the first batch of training images.",
            "The third model has initial weights of standard deviation 1 in place of 0.1, and is"
            " ours: it shows how much of the gain comes from leaving the plateau on which small"
            " weights hold a model of sigmoids.",
        ),
    )


def _make_claims(preset: str) -> tuple[Claim, ...]:
    high = TUNING[preset].values[-1]
    return (
        Claim(
            "With batch norm the test error at the end is lower",
            subtract(Score(NORMALIZED), Score(PLAIN)),
            expected=BELOW_ZERO,
            source="Ioffe, Szegedy 2015, Sec. 4.1 and Figure 1(a)",
        ),
        Claim(
            "With batch norm the net reaches the other net's last error sooner (its steps as a"
            " share of the other's)",
            _measure_speed,
            expected=(-math.inf, 1.0),
            source="Ioffe, Szegedy 2015, Sec. 4.1 and Figure 1(a)",
            unit="share",
        ),
        Claim(
            "With batch norm the inputs of the last hidden layer's sigmoids move less: the path of"
            " their medians over training, in units of their spread, as a share of that without",
            _measure_stability,
            expected=(-math.inf, 1.0),
            source="Ioffe, Szegedy 2015, Sec. 4.1 and Figure 1(b, c)",
            unit="share",
        ),
        Claim(
            "At the same rate, that which suits the net without batch norm best, batch norm brings"
            " no gain: its validation error is at most a point lower",
            _compare_trials((NORMALIZED, PLAIN), (PLAIN, PLAIN)),
            expected=(-1.0, math.inf),
            source="Bjorck et al. 2018, Sec. 2: ResNet-110 on CIFAR-10",
        ),
        Claim(
            f"At the largest rate ({high:g}) the net without batch norm does not train: its"
            " validation error is above that with batch norm",
            _compare_trials((PLAIN, high), (NORMALIZED, high)),
            expected=ABOVE_ZERO,
            source="Bjorck et al. 2018, Sec. 2: ResNet-110 on CIFAR-10",
        ),
        Claim(
            "The gain of batch norm comes of another rate: its validation error is lower at its own"
            " best rate than at that of the net without it",
            _compare_trials((NORMALIZED, NORMALIZED), (NORMALIZED, PLAIN)),
            expected=BELOW_ZERO,
            source="Bjorck et al. 2018, Sec. 2: ResNet-110 on CIFAR-10",
        ),
        Claim(
            "The same with larger initial weights in the net without batch norm: at the rate that"
            " suits it best batch norm brings no gain of more than a point",
            _compare_trials((NORMALIZED, LARGE), (LARGE, LARGE)),
            expected=(-1.0, math.inf),
            source="Bjorck et al. 2018, Sec. 2: ResNet-110 on CIFAR-10",
        ),
    )


def _measure_speed(results: "Results") -> Measured:
    def compute(runs: "dict[str, Run]") -> float | None:
        goal = runs[PLAIN].final_error
        if goal is None or not runs[NORMALIZED].finished:
            return None
        reached = [
            step
            for step, line in runs[NORMALIZED].evaluations.items()
            if line.error is not None and line.error <= goal
        ]
        last = max(runs[PLAIN].evaluations)
        return min(reached, default=2 * last) / last

    return measure_seeds(results, (PLAIN, NORMALIZED), compute)


def _find_inputs(run: "Run") -> "dict[int, Layer]":
    """Returns what goes into the last hidden layer's sigmoids, by step."""
    found = {}
    for step, layers in run.layers.items():
        last = max(i for i, layer in enumerate(layers) if layer.saturated is not None)
        found[step] = layers[last - 1]
    return found


def _measure_path(run: "Run") -> float | None:
    """Returns how far units' medians have moved, in units of their 15-to-85% spread, on average."""
    layers = list(_find_inputs(run).values())
    if len(layers) < 2 or not run.finished:
        return None
    paths = []
    for unit in range(len(layers[0].units)):
        medians = [layer.units[unit][1] for layer in layers]
        spreads = [layer.units[unit][2] - layer.units[unit][0] for layer in layers]
        moved = sum(abs(b - a) for a, b in itertools.pairwise(medians))
        paths.append(moved / statistics.mean(spreads))
    return statistics.mean(paths)


def _measure_stability(results: "Results") -> Measured:
    def compute(runs: "dict[str, Run]") -> float | None:
        plain, normalized = _measure_path(runs[PLAIN]), _measure_path(runs[NORMALIZED])
        return normalized / plain if plain and normalized is not None else None

    return measure_seeds(results, (PLAIN, NORMALIZED), compute)


Trial = tuple[str, float | str]  # A run, and a rate or the run whose best rate it is.


def _find_trials(results: "Results", trial: Trial) -> "Sequence[Run]":
    """Returns a trial's seeds, each with the best rate of the other seeds if the rate is a run's.

    A rate that its own seeds had chosen would look better than it is.
    """
    name, rate = trial
    tuning, trials = results.tuning, results.trials
    if tuning is None:
        return ()
    if not isinstance(rate, str):
        return trials.get(name_trial(tuning, name, rate), ())
    chosen = []
    for k in range(tuning.seeds):
        others = {each: (*seeds[:k], *seeds[k + 1 :]) for each, seeds in trials.items()}
        best = choose_value(find_scores(tuning, rate, others))
        own = trials.get(name_trial(tuning, name, best), ()) if best else ()
        if len(own) <= k:
            return ()
        chosen.append(own[k])
    return chosen


def _find_error(run: "Run") -> float:
    """Returns a trial's validation error in %, 90 if it diverged."""
    return 90.0 if run.final_error is None else 100 * run.final_error


def _compare_trials(first: Trial, second: Trial) -> "Callable[[Results], Measured]":
    def check(results: "Results") -> Measured:
        ours, others = (_find_trials(results, trial) for trial in (first, second))
        pairs = zip(ours, others, strict=False)
        chosen = any(isinstance(rate, str) for _, rate in (first, second))
        measured = measure_values(
            [_find_error(a) - _find_error(b) for a, b in pairs], why=CHOSEN if chosen else SAME
        )
        setting = describe_settings_of(results, {first[0]: ours} | {second[0]: others})
        return replace(measured, runs=(first[0], second[0]), setting=setting)

    return check


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    return report.page(
        results,
        report.figure(lambda: _draw_figure_1(results), FIGURE_CAPTION, "Figure 1"),
        *report.paper_tables(results, results.rows),
        report.claims_table(results, results.claims),
        report.tuning_table(results, "The rates, and what they gave"),
        report.line_charts(
            results, _chart_rates(results), RATES_CAPTION, "Error against rate", "rates.png"
        ),
        report.layer_histograms(
            results,
            LABELS,
            max((step for run in results.every_run for step in run.layers), default=0),
            "Outputs of the three hidden layers' sigmoids, and gradients with respect to them, at"
            " the end of the first seed's training.",
            ("values", "gradients"),
        ),
        report.notes(results),
        report.settings(results),
    )


FIGURE_CAPTION = (
    "As the paper's Figure 1. Left: test accuracy over training, the mean of the seeds and the"
    " band from their least to their largest. Middle and right: the 15th, 50th and 85th percentile"
    " of the inputs of a typical sigmoid of the last hidden layer, of the first seed, without and"
    " with batch norm."
)
RATES_CAPTION = (
    "As Bjorck et al.'s comparison: validation error of the trials, with the same rates with and"
    " without batch norm; the mean of the seeds, the band from their least to their largest."
)


def _draw_figure_1(results: "Results") -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from cnn_jax.report import figures

    drawing = Figure((10, 3.4), layout="constrained")
    left, *others = drawing.subplots(1, 3)
    for (name, label), color in zip(LABELS.items(), figures.PALETTE, strict=False):
        points: dict[int, list[float]] = {}
        for run in results.runs.get(name, ()):
            for step, line in run.evaluations.items():
                if line.error is not None:
                    points.setdefault(step, []).append(100 - 100 * line.error)
        steps = sorted(points)
        mean = [statistics.mean(points[s]) for s in steps]
        left.plot(steps, mean, color=color, lw=2, label=label)
        least, largest = ([end(points[s]) for s in steps] for end in (min, max))
        left.fill_between(steps, least, largest, color=color, alpha=0.18, lw=0)
    left.set(title="(a)", xlabel="steps", ylabel="test accuracy (%)", ylim=(70, 100))
    left.legend(frameon=False, loc="lower right")
    for axes, (name, label), letter in zip(others, LABELS.items(), "bc", strict=True):
        inputs = {k: v for run in results.runs[name][:1] for k, v in _find_inputs(run).items()}
        for place, style in ((0, figures.DASHES), (1, "-"), (2, figures.DASHES)):
            line = [layer.units[0][place] for layer in inputs.values()]
            axes.plot(list(inputs), line, color=figures.PALETTE[0], ls=style, lw=1.6)
        axes.set(title=f"({letter}) {label}", xlabel="steps", ylabel="input of a sigmoid")
    if all(results.runs[name][0].layers for name in LABELS):
        low = min(axes.get_ylim()[0] for axes in others)
        high = max(axes.get_ylim()[1] for axes in others)
        for axes in others:
            axes.set_ylim(low, high)
    for axes in (left, *others):
        axes.tick_params(length=0)
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return drawing


def _chart_rates(results: "Results") -> "list[LineChart]":
    from cnn_jax import report
    from cnn_jax.report import figures
    from cnn_jax.report.parts import summarize_points

    rates = results.tuning.values if results.tuning else ()
    lines = []
    for (name, label), color in zip(ALL_LABELS.items(), figures.PALETTE, strict=False):
        points = {
            rate: [_find_error(run) for run in own]
            for rate in rates
            if (own := _find_trials(results, (name, rate)))
        }
        if points:
            lines.append(report.Series(label, summarize_points(points), color))
    y_label = "validation error (%)"
    return [report.LineChart("", tuple(lines), "learning rate", y_label, log_x=True)]
