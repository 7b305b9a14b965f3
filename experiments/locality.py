"""What are the two assumptions of convolution worth: local connections, and shared weights?

Paper     LeCun 1989, "Generalization and Network Design Strategies": networks of the same units
          that are fully connected, locally connected, and locally connected with shared weights.
          The lectures: an image's pixels mean something because of their neighbors.
Question  The same feature maps, computed by a convolution, by locally connected layers (a kernel
          for each place), and by fully connected layers; on images, and on the same images whose
          pixels are reordered by one fixed permutation. A fully connected layer is unaffected.
Commands  python launch.py --experiment=locality --seeds=3 --together                    (digits)
          python launch.py --experiment=locality --preset=paper --seeds=3 --together     (MNIST)
Recipe    Two layers of 5x5 kernels with stride 2 and ReLU, 8 and 16 maps, and a softmax; there is
          no pooling, as it would assume locality too. Differs: the paper has 320 training images
          and two or three layers of tanh units.
Tuning    Each model's learning rate has the lowest validation error of a grid, averaged over three
          seeds.
Results   docs/results/locality_digits and locality_mnist, with hardware and commit.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax import file_names
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Contrast, Score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run, shorten_run, tune_small_cnn

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "6 small models and 90 trials on scikit-learn's digits, 1.5 minutes on 2 CPU cores",
    "paper": "6 small models and 90 trials on MNIST, 5 epochs, 48 minutes with 6 seeds",
    "smoke": "6 small models of two steps on digits, for tests",
}

# Parameters on MNIST: 11,274; 206,202; 2,469,002.
LAYERS = {"conv": "convolution", "local": "locally connected", "dense": "fully connected"}
RUNS = [f"{layer}-{pixels}" for pixels in ("images", "shuffled") for layer in LAYERS]


def _paper(name: str) -> Experiment:
    layer, pixels = name.split("-")
    return Experiment(
        study="locality",
        name=name,
        data=Data(
            dataset=choose("mnist"),
            batch_size=128,
            subtract_mean="pixel",
            pad_and_crop=0,
            flip=False,
            shuffle_pixels=pixels == "shuffled",
        ),
        model=choose(
            "small_cnn", layer=layer, channels=(8, 16), kernel=5, pooling="strided", hidden=()
        ),
        optimizer=choose("sgd", momentum=0.9, weight_decay=0.0),
        schedule=choose("cosine", base=0.05),
        # 5 epochs of 469 steps.
        train=Train(steps=2_345, log_every=67, eval_every=335, save_every=335),
    )


def _laptop(run: Experiment) -> Experiment:
    """Returns the same model on digits anywhere in images of 16x16, for 27 epochs of 22 steps.

    In the middle of their images, which they fill, these digits are hardly moved, and what is
    learned of one place is of no use at another.
    """
    digits = choose("digits", margin=4, scatter=True)
    return replace(
        run,
        data=replace(run.data, dataset=digits, batch_size=64, eval_batch_size=360),
        train=Train(steps=600, log_every=60, eval_every=120, save_every=300),
    )


def _smoke(run: Experiment) -> Experiment:
    return shorten_run(_laptop(run))


PRESETS = {"paper": keep_run, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns three kinds of layers on images and on shuffled pixels."""
    check_preset("locality", preset, PRESETS)
    return Study(
        name="locality",
        title="What local connections and shared weights are worth",
        paper='LeCun 1989, "Generalization and Network Design Strategies"; the lectures on CNNs',
        paper_data="",  # No figures are printed.
        preset=preset,
        runs={name: PRESETS[preset](_paper(name)) for name in RUNS},
        rows=tuple(_make_row(name) for name in RUNS),
        paper_runs={name: _paper(name) for name in RUNS},
        tuning=tune_small_cnn(preset),
        claims=_make_claims(),
        notes=(
            "Every model has the same feature maps and the same recipe: SGD with momentum 0.9, a"
            " rate that falls by half a cosine, no weight decay, no augmentation. Each has its own"
            " best rate.",
            "Shuffled pixels: one fixed permutation of all places, the same in every training and"
            " test image.",
        ),
        contact_sheet=True,
        report=_report,
    )


def _make_row(name: str) -> Row:
    layer, pixels = name.split("-")
    group = "images" if pixels == "images" else "shuffled pixels"
    return Row(name, f"{LAYERS[layer]}, {group}", group, "")


def _make_claims() -> tuple[Claim, ...]:
    def test(layer: str, pixels: str = "images") -> Score:
        return Score(f"{layer}-{pixels}")

    return (
        Claim(
            "Local connections help: locally connected layers err less than fully connected ones",
            subtract(test("local"), test("dense")),
            expected=BELOW_ZERO,
            source="LeCun 1989",
        ),
        Claim(
            "Shared weights help: a convolution errs less than locally connected layers",
            subtract(test("conv"), test("local")),
            expected=BELOW_ZERO,
            source="LeCun 1989",
        ),
        Claim(
            "Without locality convolution loses: it errs more on shuffled pixels than on images",
            subtract(test("conv", "shuffled"), test("conv")),
            expected=ABOVE_ZERO,
            source="the lectures",
        ),
        Claim(
            "On shuffled pixels a convolution errs more than fully connected layers",
            subtract(test("conv", "shuffled"), test("dense", "shuffled")),
            expected=ABOVE_ZERO,
            source="the lectures",
        ),
        Claim(
            "Fully connected layers do not care: shuffling changes their error by at most half a"
            " point",
            subtract(test("dense", "shuffled"), test("dense")),
            expected=(-0.5, 0.5),
            source="a permutation of the inputs is one of the weights",
        ),
        Claim(
            "Shared weights depend on locality more than local connections do: shuffling costs a"
            " convolution more than locally connected layers",
            Contrast(
                (
                    (1, test("conv", "shuffled")),
                    (-1, test("conv")),
                    (-1, test("local", "shuffled")),
                    (1, test("local")),
                )
            ),
            expected=ABOVE_ZERO,
            source="the lectures",
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    sheet = "Training images as each model sees them: the lower rows show the fixed permutation."
    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.error_bars(results),
        report.image_grid(results, file_names.SHEET, sheet, "Training images"),
        report.tuning_table(results),
        report.error_curves(results, title="Training", file="curves.png"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )
