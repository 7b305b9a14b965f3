"""How large should the first weights be? Activations and gradients by depth, and what then trains.

Paper     Glorot, Bengio 2010, "Understanding the difficulty of training deep feedforward neural
          networks", Sec. 4.2, Figures 6 and 7; He, Zhang, Ren, Sun 2015 (arXiv:1502.01852),
          Sec. 2.2, Figures 2 and 3.
Question  Do the standard initial weights make gradients vanish towards the input of a tanh model,
          and do Glorot's keep them? Of ReLU models, do Xavier's weights, which suit tanh, train 22
          layers and stall with 30, where He's train both? What do weights of a fixed size do?
Commands  python launch.py --experiment=initialization --seeds=3 --together                 (digits)
          python launch.py --experiment=initialization --preset=paper --seeds=3 --together  (MNIST)
Results   docs/results/initialization_digits and initialization_mnist, with hardware and commit.

Glorot and Bengio draw their histograms for small images of shapes, He et al. train convolutional
models on ImageNet. Here both are fully connected models on digits: what the papers derive for a
layer depends on its fan-in alone.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.config import Data, Experiment, Log, Train, choose
from cnn_jax.report.claims import (
    ABOVE_ZERO,
    BELOW_ZERO,
    Claim,
    Measured,
    Score,
    measure_seeds,
    score,
    subtract,
)
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run
from cnn_jax.tuning import Tuning

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnn_jax.report import Page, Results, Run

COST = {
    "laptop": "8 models and 18 trials on scikit-learn's digits, 2 minutes on 2 CPU cores",
    "paper": "8 models and 18 trials on MNIST, 40 minutes on 2 CPU cores",
    "smoke": "8 models and 12 trials of two steps on fake data, for tests",
}
TANH_LAYERS = 5  # Glorot and Bengio: five hidden layers of 1,000 units.
STANDARD, NORMALIZED = "tanh-standard", "tanh-normalized"
TANH = {
    STANDARD: ("standard_uniform", "tanh, standard"),
    NORMALIZED: ("xavier_average_uniform", "tanh, normalized (Glorot)"),
}
RELU = {
    "22-xavier": (22, "xavier", "22 layers, Xavier"),
    "22-he": (22, "he", "22 layers, He"),
    "30-xavier": (30, "xavier", "30 layers, Xavier"),
    "30-he": (30, "he", "30 layers, He"),
    "22-small": (22, "normal_0.001", "22 layers, standard deviation 0.001"),
    "22-large": (22, "normal_1", "22 layers, standard deviation 1"),
}
LABELS = {name: label for name, (_, label) in TANH.items()} | {
    name: label for name, (_, _, label) in RELU.items()
}
# Training error in %; a model of ten classes above it counts as stalled.
MIN_STALLED_ERROR = 80.0
NOTE_HE = "Differs: an MLP on digits; the paper's is convolutional, on ImageNet"
NOTE_GLOROT = "Differs: the paper's histograms are of models on small images of shapes"


def _paper(name: str) -> Experiment:
    """Returns a model of the papers' depths; the rates of ReLU models are chosen by trials."""
    if name in TANH:
        hidden, kind, units = (1_000,) * TANH_LAYERS, "tanh", TANH[name][0]
    else:
        depth, units, _ = RELU[name]
        hidden, kind = (100,) * (depth - 1), "relu"
    steps = 300 if name in TANH else 10_000
    return Experiment(
        study="initialization",
        name=name,
        data=Data(
            dataset=choose("mnist"),
            batch_size=100,
            eval_batch_size=1_000,
            subtract_mean="pixel",
            pad_and_crop=0,
            flip=False,
        ),
        model=choose("mlp", hidden=hidden, activation=kind, initializer=units),
        optimizer=choose("sgd", momentum=0.0 if name in TANH else 0.9, weight_decay=0.0),
        schedule=choose("constant", base=0.01),
        train=Train(
            steps=steps,
            log_every=100,
            eval_every=steps // 10,
            save_every=steps // 2,
            on_nan="record",
        ),
        log=Log(layer_statistics=(0,)),
        deviations=(NOTE_GLOROT if name in TANH else NOTE_HE,),
    )


def _laptop(paper: Experiment) -> Experiment:
    steps = 100 if paper.name in TANH else 1_500
    width = 200 if paper.name in TANH else 60
    hidden = (width,) * (TANH_LAYERS if paper.name in TANH else RELU[paper.name][0] - 1)
    return replace(
        paper,
        data=replace(paper.data, dataset=choose("digits"), eval_batch_size=360),
        model=choose("mlp", **paper.model.args | {"hidden": hidden}),
        train=replace(
            paper.train, steps=steps, log_every=50, eval_every=steps // 10, save_every=steps
        ),
    )


def _smoke(paper: Experiment) -> Experiment:
    hidden = (8,) * (2 if paper.name in TANH else 3)
    return replace(
        shorten_run(paper, batch_size=16, fake=True, eval_every=1),
        model=choose("mlp", **paper.model.args | {"hidden": hidden}),
    )


PRESETS = {"laptop": _laptop, "paper": keep_run, "smoke": _smoke}
RATES = (0.001, 0.01, 0.1)
TUNING = {
    "laptop": Tuning(RATES, 360, runs="[23]*", steps=500),
    "paper": Tuning(RATES, 5_000, runs="[23]*", steps=2_000),
    "smoke": Tuning(RATES[:2], 32, runs="[23]*"),
}


def study(preset: str) -> Study:
    """Returns Glorot's tanh models and He's ReLU models with several initializers each."""
    check_preset("initialization", preset, PRESETS)
    runs = {name: PRESETS[preset](_paper(name)) for name in LABELS}
    return Study(
        name="initialization",
        title="Initial weights: activations and gradients by depth, and what trains",
        paper="Glorot, Bengio 2010, Figures 6 and 7; He, Zhang, Ren, Sun 2015 (arXiv:1502.01852),"
        " Figures 2 and 3",
        paper_data="mnist",
        preset=preset,
        runs=runs,
        rows=tuple(
            Row(
                name,
                label,
                "tanh models" if name in TANH else "ReLU models",
                "Figures 6 and 7" if name in TANH else "Figures 2 and 3",
            )
            for name, label in LABELS.items()
        ),
        paper_runs={name: _paper(name) for name in LABELS},
        tuning=TUNING[preset],
        claims=_make_claims(),
        report=_report,
        notes=(
            "Layers are numbered from the input; drawn are the outputs of the activation functions"
            " and the gradients of each image's loss with respect to them.",
            "Glorot's standard weights are uniform in +-1 / sqrt(fan-in), a third of the variance"
            " of Xavier's 1 / fan-in; He's is 2 / fan-in.",
        ),
    )


def _make_claims() -> tuple[Claim, ...]:
    glorot, he = "Glorot, Bengio 2010, Figure", "He et al. 2015, Figure"
    return (
        Claim(
            "Standard weights: gradients vanish towards the input. Their standard deviation in the"
            " first hidden layer is less than half of that in the last",
            _measure_ratio(STANDARD, "gradients"),
            expected=(-math.inf, 0.5),
            source=f"{glorot} 7, top",
            unit="ratio",
        ),
        Claim(
            "Normalized weights: gradients keep their size, within a factor of 1.5 between the"
            " first hidden layer and the last",
            _measure_ratio(NORMALIZED, "gradients"),
            expected=(1 / 1.5, 1.5),
            source=f"{glorot} 7, bottom",
            unit="ratio",
        ),
        Claim(
            "Standard weights: activations shrink with depth. Their standard deviation in the last"
            " hidden layer is less than half of that in the first",
            _measure_ratio(STANDARD, "values", from_first=True),
            expected=(-math.inf, 0.5),
            source=f"{glorot} 6, top",
            unit="ratio",
        ),
        Claim(
            "Normalized weights: activations keep more of their size than with standard ones: the"
            " last layer's standard deviation over the first's, as a multiple of that",
            _compare_ratios,
            expected=(1.0, math.inf),
            source=f"{glorot} 6",
            unit="ratio",
        ),
        *(
            Claim(
                f"22 layers converge with {words}'s weights: the training error at the end is below"
                " half of chance",
                score(Score(name, "training")),
                expected=(-math.inf, 45.0),
                source=f"{he} 2",
            )
            for name, words in (("22-xavier", "Xavier"), ("22-he", "He"))
        ),
        Claim(
            "He's weights start earlier: at 22 layers the mean training error over all of training"
            " is below that with Xavier's",
            _compare_areas,
            expected=BELOW_ZERO,
            source=f"{he} 2",
        ),
        Claim(
            "30 layers converge with He's weights: the training error at the end is below half of"
            " chance",
            score(Score("30-he", "training")),
            expected=(-math.inf, 45.0),
            source=f"{he} 3",
        ),
        Claim(
            "30 layers stall with Xavier's weights: the training error stays above"
            f" {MIN_STALLED_ERROR:g}%",
            score(Score("30-xavier", "training")),
            expected=(MIN_STALLED_ERROR, math.inf),
            source=f"{he} 3",
        ),
        Claim(
            "At 30 layers the training error with He's weights is below that with Xavier's",
            subtract(Score("30-he", "training"), Score("30-xavier", "training")),
            expected=BELOW_ZERO,
            source=f"{he} 3",
        ),
        Claim(
            "A standard deviation of 0.001 is too small: the training error is above that of He's"
            " weights",
            subtract(Score("22-small", "training"), Score("22-he", "training")),
            expected=ABOVE_ZERO,
            source="the lectures",
        ),
    )


def _find_ratio(run: "Run", which: str) -> float | None:
    """Returns the first hidden layer's standard deviation over the last's, before training."""
    from cnn_jax.report.parts import find_layers, is_activation

    layers = find_layers(run, 0, is_activation)
    stds = [getattr(layer, which).std for layer in layers]
    return stds[0] / stds[-1] if stds and stds[-1] else None


def _measure_ratio(
    name: str, which: str, from_first: bool = False
) -> "Callable[[Results], Measured]":
    def compute(runs: "dict[str, Run]") -> float | None:
        ratio = _find_ratio(runs[name], which)
        return 1 / ratio if ratio and from_first else ratio

    return lambda results: measure_seeds(results, (name,), compute)


def _compare_ratios(results: "Results") -> Measured:
    def compute(runs: "dict[str, Run]") -> float | None:
        standard, normalized = (_find_ratio(runs[name], "values") for name in TANH)
        return standard / normalized if standard and normalized else None

    return measure_seeds(results, tuple(TANH), compute)


def _compare_areas(results: "Results") -> Measured:
    def compute(runs: "dict[str, Run]") -> float | None:
        means = []
        for run in runs.values():
            errors = [line.error for line in run.train.values() if line.error is not None]
            if not run.finished or not errors:
                return None
            means.append(100 * sum(errors) / len(errors))
        return means[0] - means[1]

    return measure_seeds(results, ("22-he", "22-xavier"), compute)


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    tanh = {name: label for name, label in LABELS.items() if name in TANH}
    relu = {name: label for name, label in LABELS.items() if name in RELU}
    return report.page(
        results,
        report.layer_histograms(
            results, tanh, 0, HISTOGRAM_CAPTION, ("values", "gradients"), title="Figures 6 and 7"
        ),
        report.layer_stds(
            results, tanh, 0, "The same, as standard deviations.", title="tanh models by depth"
        ),
        report.error_curves(
            results,
            [row for row in results.rows if row.run in RELU],
            title="Figures 2 and 3",
        ),
        report.layer_stds(
            results,
            relu,
            0,
            "Standard deviation of each layer's activations and gradients before the first step;"
            " the mean of the seeds. Xavier's halve the variance in each layer of ReLUs.",
            title="ReLU models by depth",
            file="relu.png",
        ),
        *report.paper_tables(results, results.rows),
        report.claims_table(results, results.claims),
        report.tuning_table(results),
        report.notes(results),
        report.settings(results),
    )


HISTOGRAM_CAPTION = (
    "As Glorot and Bengio's Figures 6 (left) and 7 (right): activations of the hidden layers, and"
    " back-propagated gradients, before the first step, with standard weights above and normalized"
    " ones below. One seed; densities on a logarithmic axis."
)
