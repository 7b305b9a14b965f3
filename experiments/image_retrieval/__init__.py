"""Which code finds images of the same class: pixels, an autoencoder's, or a classifier's?

Paper     The lectures on content-based image retrieval: a convolutional denoising autoencoder on
          MNIST (Sicara 2017), after Vincent et al. 2008; against it a classifier's activations,
          Babenko, Slesarev, Chigorin, Lempitsky 2014, "Neural Codes for Image Retrieval"
          (arXiv:1404.1777). The lectures print no mean average precision.
Question  The gallery is the training set, the queries are the test set. Does the autoencoder's code
          find more images of the query's class than pixels, than a PCA of the same size, than the
          untrained autoencoder? What does noise on the queries cost? What does a classifier find?
Commands  python launch.py --experiment=image_retrieval --seeds=3                  (digits)
          python launch.py --experiment=image_retrieval --seeds=3 --preset=paper   (MNIST)
          python launch.py --experiment=image_retrieval --preset=cifar10
Results   docs/results/image_retrieval_digits and image_retrieval_mnist, with hardware and commit.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_jax.config import Choice, Data, Experiment, Train, change, choose
from cnn_jax.report.claims import ABOVE_ZERO, Claim, Measured
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "3 small models on scikit-learn's digits drawn at 28x28, 2 minutes on 2 CPU cores",
    "paper": "3 small models on MNIST, 20 epochs: about an hour on 2 CPU cores",
    "cifar10": "a deeper autoencoder, a small one and ResNet-20 on CIFAR-10: for an accelerator",
    "smoke": "3 models of two steps on fake data, for tests",
}

EPOCH = 60_000 / 128  # Steps on MNIST.
LABELS = {
    "autoencoder": "the lectures' autoencoder",
    "autoencoder-small": "an autoencoder of two poolings",
    "classifier": "a classifier",
}


def _mnist() -> dict[str, Experiment]:
    """Returns the lectures' recipe on MNIST, and beside it a smaller autoencoder and a LeNet."""
    data = Data(
        dataset=choose("mnist"), batch_size=128, subtract_mean="none", pad_and_crop=0, flip=False
    )

    def train(epochs: int) -> Train:
        steps = round(epochs * EPOCH)
        return Train(steps=steps, log_every=100, eval_every=2_500, save_every=2_500)

    return {
        "autoencoder": Experiment(
            data=data,
            model=choose("autoencoder_lectures"),
            # The lectures name Adadelta; rate and epsilon are the defaults of their Keras, 2.0.
            optimizer=choose("adadelta", decay=0.95, epsilon=1e-8),
            schedule=choose("constant", base=1.0),
            train=train(20),
        ),
        "autoencoder-small": Experiment(
            data=data,
            model=choose("autoencoder"),
            optimizer=choose("adamw", weight_decay=0.0),
            schedule=choose("constant", base=1e-3),
            train=train(20),
        ),
        "classifier": Experiment(
            data=data,
            model=choose("lenet5_modern"),
            optimizer=choose("adamw"),
            schedule=choose("constant", base=1e-3),
            train=train(5),
        ),
    }


def _change_all(
    runs: dict[str, Experiment], steps: dict[str, int], every: int, **data: Any
) -> dict[str, Experiment]:
    """Returns the runs on other data, with other numbers of steps."""
    return {
        name: replace(
            run,
            data=replace(run.data, **data),
            train=Train(steps=steps[name], log_every=every, eval_every=steps[name]),
        )
        for name, run in runs.items()
    }


def _digits() -> dict[str, Experiment]:
    """Returns the same models on scikit-learn's digits, drawn as large as MNIST's."""
    steps = {"autoencoder": 600, "autoencoder-small": 400, "classifier": 200}
    drawn = {"dataset": choose("digits"), "train_resize": (28,), "image_size": 28}
    return _change_all(_mnist(), steps, 50, **drawn, batch_size=64)


def _smoke() -> dict[str, Experiment]:
    drawn = {"dataset": choose("fake"), "train_resize": (16,), "image_size": 16}
    return _change_all(
        _mnist(), dict.fromkeys(LABELS, 2), 1, **drawn, batch_size=8, eval_batch_size=40
    )


def _cifar10() -> dict[str, Experiment]:
    """Returns a deeper autoencoder, a small one and ResNet-20, 40 epochs each."""
    runs = _change_all(_mnist(), dict.fromkeys(LABELS, 15_600), 100, dataset=choose("cifar10"))
    adam, cosine = choose("adamw", weight_decay=0.0), choose("cosine", base=1e-3)
    other: dict[str, tuple[Choice, Choice, Choice]] = {
        "autoencoder": (choose("autoencoder_deep"), adam, cosine),
        "autoencoder-small": (choose("autoencoder", input_noise_std=0.1), adam, cosine),
        "classifier": (choose("resnet20"), choose("sgd"), change(cosine, base=0.1)),
    }
    return {
        name: replace(run, model=other[name][0], optimizer=other[name][1], schedule=other[name][2])
        for name, run in runs.items()
    }


PRESETS: dict[str, Callable[[], dict[str, Experiment]]] = {
    "laptop": _digits,
    "paper": _mnist,
    "cifar10": _cifar10,
    "smoke": _smoke,
}


def study(preset: str) -> Study:
    """Returns the study: two autoencoders and a classifier, whose codes are then compared."""
    check_preset("image_retrieval", preset, PRESETS)

    def name_runs(runs: dict[str, Experiment]) -> dict[str, Experiment]:
        return {
            name: replace(run, study="image_retrieval", name=name) for name, run in runs.items()
        }

    paper = _cifar10() if preset == "cifar10" else _mnist()
    return Study(
        name="image_retrieval",
        title="Content-based image retrieval: codes of autoencoders, of a classifier, and of none",
        paper="the lectures' autoencoder (Sicara 2017); Babenko et al. 2014 (arXiv:1404.1777)",
        paper_data="cifar10" if preset == "cifar10" else "mnist",
        preset=preset,
        runs=name_runs(PRESETS[preset]()),
        rows=tuple(
            Row(name, label, "classifier" if name == "classifier" else "autoencoders", "")
            for name, label in LABELS.items()
        ),
        paper_runs=name_runs(paper),
        claims=_make_claims(),
        report=_report,
        measure_runs=_measure,
        notes=(
            "A mean average precision of 10% is what chance gives for ten classes of equal size.",
            "The intervals over test images are those of a mean over queries that is nearly normal,"
            " with the covariance of the codes' average precisions.",
            "The small autoencoder is trained with noise that is not clipped, and sees clipped"
            " noise here.",
            "The lectures' code was trained on noisy images and sees clean ones here, unless the"
            " queries are noisy; the gallery is always clean.",
        ),
    )


# What is compared: (weight, code, clean or noisy queries).
COMPARED: tuple[tuple[str, tuple[tuple[float, str, str], ...], str], ...] = (
    (
        "The autoencoder's code beats pixels",
        ((1, "autoencoder", "clean"), (-1, "pixels", "clean")),
        "the lectures",
    ),
    (
        "The autoencoder's code beats a PCA of pixels to as many numbers",
        ((1, "autoencoder", "clean"), (-1, "pixels, PCA", "clean")),
        "a control of ours",
    ),
    (
        "Training makes the autoencoder's code better",
        ((1, "autoencoder", "clean"), (-1, "autoencoder, untrained", "clean")),
        "a control of ours",
    ),
    (
        "A classifier's code beats the autoencoder's",
        ((1, "classifier", "clean"), (-1, "autoencoder", "clean")),
        "the lectures, after Babenko et al. 2014",
    ),
    (
        "Noise on the queries costs the autoencoder's code less than it costs pixels",
        (
            (1, "pixels", "clean"),
            (-1, "pixels", "noisy"),
            (-1, "autoencoder", "clean"),
            (1, "autoencoder", "noisy"),
        ),
        "the lectures",
    ),
    (
        "Of noisy queries the autoencoder's code finds more than pixels do",
        ((1, "autoencoder", "noisy"), (-1, "pixels", "noisy")),
        "the lectures",
    ),
)


def _make_claims() -> tuple[Claim, ...]:
    """Returns what the lectures say, as differences of mean average precision in points."""
    compared = (
        Claim(statement, _compare(terms), expected=ABOVE_ZERO, source=source)
        for statement, terms, source in COMPARED
    )
    filters = ("noisy input", "median filter", "total variation")
    return (
        *compared,
        Claim(
            "The autoencoder restores noisy images better than a median filter and total variation",
            _compare_denoising("autoencoder", filters),
            expected=ABOVE_ZERO,
            source="the lectures",
            unit="dB (PSNR)",
        ),
    )


# What follows imports NumPy, JAX and matplotlib, which listing the studies does not need.


def _compare(terms: tuple[tuple[float, str, str], ...]) -> "Callable[[Results], Measured]":
    def check(results: "Results") -> Measured:
        from .page import compare_codes

        return compare_codes(*terms)(results)

    return check


def _compare_denoising(method: str, others: tuple[str, ...]) -> "Callable[[Results], Measured]":
    def check(results: "Results") -> Measured:
        from .page import compare_denoising

        return compare_denoising(method, others)(results)

    return check


def _measure(
    workdir: Path, runs: list[Experiment], tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    from .measure import measure_runs

    return measure_runs(workdir, runs, tell)


def _report(results: "Results") -> "Page":
    from .page import compose

    return compose(results)
