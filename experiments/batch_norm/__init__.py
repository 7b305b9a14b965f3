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

import math
from dataclasses import replace

from cnn_jax.config import Data, Experiment, Log, Train, choose
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run
from cnn_jax.tuning import Tuning

from .measure import (
    ALL_LABELS,
    LARGE,
    NORMALIZED,
    PLAIN,
    compare_trials,
    measure_speed,
    measure_stability,
)
from .page import compose

COST = {
    "laptop": "3 models and 36 trials on scikit-learn's digits, a minute on 2 CPU cores",
    "paper": "3 models of 50,000 steps and 36 trials of 10,000 on MNIST, 20 minutes on 2 CPU cores",
    "smoke": "3 models and 6 trials of two steps on fake data, for tests",
}
RATES = (0.01, 0.1, 1.0, 10.0)


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
    small = shorten_run(paper, batch_size=16, fake=True, eval_every=1)
    return replace(small, log=Log(layer_statistics=(0, 1, 2)))


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
        title="Batch normalization in a sigmoid MLP",
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
        report=compose,
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
            "With batch norm the model reaches the other's last error sooner (its steps as a"
            " share of the other's)",
            measure_speed,
            expected=(-math.inf, 1.0),
            source="Ioffe, Szegedy 2015, Sec. 4.1 and Figure 1(a)",
            unit="share",
        ),
        Claim(
            "With batch norm the inputs of the last hidden layer's sigmoids move less: the path of"
            " their medians over training, in units of their spread, as a share of that without",
            measure_stability,
            expected=(-math.inf, 1.0),
            source="Ioffe, Szegedy 2015, Sec. 4.1 and Figure 1(b, c)",
            unit="share",
        ),
        Claim(
            "At the same rate, that which suits the model without batch norm best, batch norm"
            " brings no gain: its validation error is at most a point lower",
            compare_trials((NORMALIZED, PLAIN), (PLAIN, PLAIN)),
            expected=(-1.0, math.inf),
            source="Bjorck et al. 2018, Sec. 2: ResNet-110 on CIFAR-10",
        ),
        Claim(
            f"At the largest rate ({high:g}) the model without batch norm does not train: its"
            " validation error is above that with batch norm",
            compare_trials((PLAIN, high), (NORMALIZED, high)),
            expected=ABOVE_ZERO,
            source="Bjorck et al. 2018, Sec. 2: ResNet-110 on CIFAR-10",
        ),
        Claim(
            "The gain of batch norm comes of another rate: its validation error is lower at its own"
            " best rate than at that of the model without it",
            compare_trials((NORMALIZED, NORMALIZED), (NORMALIZED, PLAIN)),
            expected=BELOW_ZERO,
            source="Bjorck et al. 2018, Sec. 2: ResNet-110 on CIFAR-10",
        ),
        Claim(
            "The same with larger initial weights in the model without batch norm: at the rate that"
            " suits it best batch norm brings no gain of more than a point",
            compare_trials((NORMALIZED, LARGE), (LARGE, LARGE)),
            expected=(-1.0, math.inf),
            source="Bjorck et al. 2018, Sec. 2: ResNet-110 on CIFAR-10",
        ),
    )
