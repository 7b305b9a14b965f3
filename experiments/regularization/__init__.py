"""What regularization does on a small training set: the gap between training and test.

Paper     The lectures: L2 and L1 penalties, dropout, early stopping, augmentation. Preset paper:
          Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014 ("Dropout: a simple way to
          prevent neural networks from overfitting"), Table 2: dropout on MNIST.
Question  Each regularizer at its best strength against none: is the test error lower, and is the
          gap between training and test loss smaller? Which weights does an L1 penalty leave at 0?
Commands  python launch.py --experiment=regularization --seeds=6 --together                 (digits)
          python launch.py --experiment=regularization --preset=paper --seeds=3 --together  (MNIST)
Results   docs/results/regularization_digits and regularization_dropout_mnist, with hardware and
          commit.

Each regularizer takes the strength with the lowest validation error of three; the test set is not
used for the choice. All runs of a seed have the same training images, initial weights and batches.
The paper preset is another set of runs, in `dropout`.
"""

from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset

from . import dropout
from .measure import compare_with_unregularized, find_gap, find_test_error, find_zeros
from .page import compose
from .runs import FAMILIES, NONE, PRESETS, find_family, label_run, make_runs

COST = {
    "laptop": "16 MLPs on 97 of scikit-learn's digits, 2 minutes on 2 CPU cores, 6 seeds",
    "paper": dropout.COST,
    "smoke": "6 MLPs of two steps on 97 digits, for tests",
}
LECTURES = "the lectures"


def study(preset: str) -> Study:
    """Returns every regularizer at every strength; preset paper: dropout on MNIST."""
    if preset == "paper":
        return dropout.study()
    check_preset("regularization", preset, [*PRESETS, "paper"])
    runs = make_runs(PRESETS[preset], strengths=1 if preset == "smoke" else 3)
    return Study(
        name="regularization",
        title="Regularization on a small training set",
        paper="the lectures on regularization",
        paper_data="",  # No figures are printed.
        preset=preset,
        runs=runs,
        rows=tuple(
            Row(
                name,
                label_run(name),
                FAMILIES[find_family(name)].label if name != NONE else NONE,
                "",
            )
            for name in runs
        ),
        paper_runs=runs,  # The lectures name no recipe.
        claims=_make_claims(),
        notes=(
            "Ninety-seven images train, 1,340 validate, 360 test. Training error is that of the"
            " finished model on the training images as they are, without dropout or augmentation.",
            "Early stopping evaluates every 10 steps, and keeps the state of the lowest validation"
            " error; augmentation turns each image by up to so many degrees. Penalties are of"
            " kernels, not of biases.",
        ),
        report=compose,
    )


def _make_claims() -> tuple[Claim, ...]:
    claims = []
    for name, family in FAMILIES.items():
        label = family.label[0].upper() + family.label[1:]
        claims += [
            Claim(
                f"{label} lowers the test error",
                compare_with_unregularized(name, find_test_error, 100),
                expected=BELOW_ZERO,
                source=LECTURES,
            ),
            Claim(
                f"{label} narrows the gap between training and test loss",
                compare_with_unregularized(name, find_gap),
                expected=BELOW_ZERO,
                source=LECTURES,
                unit="nats",
            ),
        ]
    claims.append(
        Claim(
            "An L1 penalty leaves more weights at 0 than none",
            compare_with_unregularized("l1", find_zeros, 100),
            expected=ABOVE_ZERO,
            source=LECTURES,
        )
    )
    return tuple(claims)
