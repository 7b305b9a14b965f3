"""What does each kind of data augmentation gain, alone and together?

Paper     The lectures on data augmentation; the kinds are those of Krizhevsky et al. 2012, Sec. 4.1
          (crops, mirror images, color noise), Howard 2013 (arXiv:1312.5402: contrast, brightness,
          color), LeCun et al. 1998, Sec. III-B (planar affine maps). Label shuffling draws all
          classes equally often.
Question  The same model with each kind alone, and with all that suit the data. Then a training set
          whose classes are of very different sizes, with and without label shuffling.
Commands  python launch.py --experiment=augmentation --seeds=3 --together             (digits)
          python launch.py --experiment=augmentation --preset=caltech                 (Caltech-101)
          python launch.py --experiment=augmentation --preset=paper                   (CIFAR-10)
Results   docs/results/augmentation_digits, with hardware and commit.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnn_jax import file_names
from cnn_jax.config import Choice, Data, Experiment, Train, choose
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Score, subtract
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, shorten_run

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "13 small CNNs on scikit-learn's digits, 1.5 minutes on 2 CPU cores, 3 seeds",
    "caltech": "14 narrow models on Caltech-101: for an accelerator, or a night on 2 CPU cores",
    "paper": "14 ResNet-20 of 64k steps on CIFAR-10: for an accelerator",
    "smoke": "13 small CNNs of two steps on digits, for tests",
}

NONE: dict[str, Any] = {"pad_and_crop": 0, "flip": False}
# The kinds by name: label, and fields of the data. Sizes in pixels are of 32x32 images.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "crop": ("random crops", {"pad_and_crop": 4}),
    "shift": ("shifts", {"shift": 4}),
    "flip": ("mirror images", {"flip": True}),
    "rotate": ("rotations", {"rotate": 15.0}),
    "scale": ("scaling", {"affine": (0.0, 0.15, 0.0, 0.0)}),
    "affine": ("affine maps", {"affine": (2.0, 0.15, 0.15, 0.2)}),
    "jitter": ("color jitter", {"color_jitter": (0.2, 0.4, 0.4, 0.05)}),
    "pca": ("PCA color noise", {"color_pca": True}),
    "noise": ("Gaussian noise", {"gaussian_noise": 0.05}),
    "mixup": ("mixup", {"mixup": 0.2}),
}
COLOR_KINDS = ("pca",)  # Kinds for color images alone.
ALL = ("crop", "flip", "affine", "jitter", "pca", "noise")  # Crops are shifts, maps scale.
TAIL = 50.0  # Times by which the first class is larger than the last, in the long-tailed runs.
# On 8x8 digits.
DIGITS: dict[str, dict[str, Any]] = {
    "crop": {"pad_and_crop": 1},
    "shift": {"shift": 1},
    "affine": {"affine": (0.5, 0.15, 0.15, 0.2)},
    "jitter": {"color_jitter": (0.2, 0.4, 0.0, 0.0)},  # Digits are gray.
    "noise": {"gaussian_noise": 0.1},
}
EVERY = (*KINDS, "all", "tail", "tail-shuffled")


def _choose_fields(name: str, digits: bool) -> dict[str, Any]:
    """Returns the data's fields of a run."""
    kinds = {kind: fields for kind, (_, fields) in KINDS.items()} | (DIGITS if digits else {})
    if name.startswith("tail"):
        return {"long_tail": TAIL, "balance_classes": name == "tail-shuffled"}
    if name == "all":
        # A mirrored digit is no digit.
        suitable = [kind for kind in ALL if not (digits and kind in ("flip", *COLOR_KINDS))]
        return {key: value for kind in suitable for key, value in kinds[kind].items()}
    return kinds[name]


def _make_run(name: str, data: Data, model: Choice, digits: bool) -> Experiment:
    return Experiment(
        study="augmentation",
        name=name,
        data=replace(data, **NONE | _choose_fields(name, digits)),
        model=model,
    )


def _paper(name: str) -> Experiment:
    """Returns ResNet-20 with the recipe of He et al. 2015, Sec. 4.2, but for the augmentation."""
    data = Data(dataset=choose("cifar10"), batch_size=128, subtract_mean="pixel")
    return replace(
        _make_run(name, data, choose("resnet20"), digits=False),
        optimizer=choose("sgd", momentum=0.9, weight_decay=1e-4),
        schedule=choose("step", base=0.1, boundaries=(32_000, 48_000), factor=0.1),
        train=Train(steps=64_000, log_every=100, eval_every=1_000, save_every=1_000),
    )


def _caltech(name: str) -> Experiment:
    """Returns a narrow ResNet-18 on 112x112 crops of Caltech-101."""
    data = Data(
        dataset=choose("caltech101"),
        batch_size=64,
        subtract_mean="channel",
        train_resize=(128,),
        eval_resize=128,
        image_size=112,
    )
    return replace(
        _make_run(name, data, choose("resnet18", width=0.25), digits=False),
        optimizer=choose("sgd", momentum=0.9, weight_decay=1e-4),
        schedule=choose("cosine", base=0.05),
        train=Train(steps=2_000, log_every=50, eval_every=500, save_every=500),
    )


def _laptop(name: str) -> Experiment:
    """Returns a small CNN on 8x8 digits, for 45 epochs of 22 steps."""
    data = Data(dataset=choose("digits"), batch_size=64, eval_batch_size=360, subtract_mean="pixel")
    model = choose("small_cnn", channels=(16, 32), kernel=3, hidden=(64,))
    return replace(
        _make_run(name, data, model, digits=True),
        optimizer=choose("sgd", momentum=0.9, weight_decay=0.0),
        schedule=choose("cosine", base=0.03),
        train=Train(steps=1_000, log_every=100, eval_every=200, save_every=500),
    )


def _smoke(name: str) -> Experiment:
    return shorten_run(_laptop(name))


PRESETS = {"paper": _paper, "caltech": _caltech, "laptop": _laptop, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns a run for each kind, one with all, and two on a long-tailed training set."""
    check_preset("augmentation", preset, PRESETS)
    make = PRESETS[preset]
    digits = preset in ("laptop", "smoke")
    names = [name for name in EVERY if not (digits and name in COLOR_KINDS)]
    return Study(
        name="augmentation",
        title="Data augmentation, each kind alone and together",
        paper="The lectures on data augmentation",
        paper_data="",  # No figures are printed.
        preset=preset,
        runs={name: make(name) for name in names},
        rows=tuple(_make_row(name) for name in names),
        # The lectures print no recipe, so that each preset is its own.
        paper_runs={name: make(name) for name in names},
        claims=_make_claims(digits),
        notes=(
            "The lectures print no figures. Every run has the same model and recipe; only how its"
            " training images are changed differs.",
            f"Long-tailed: the first class has {TAIL:g} times the training images of the last, and"
            " numbers fall exponentially between; test images are all of them.",
        ),
        contact_sheet=True,
        report=_report,
    )


def _make_row(name: str) -> Row:
    labels = {kind: label for kind, (label, _) in KINDS.items()} | {
        "all": "all that suit the data",
        "tail": "long-tailed classes",
        "tail-shuffled": "long-tailed classes, label shuffling",
    }
    group = "long-tailed training set" if name.startswith("tail") else "whole training set"
    return Row(name, labels[name], group, "")


def _make_claims(digits: bool) -> tuple[Claim, ...]:
    """Returns what the lectures say; of mirror images it depends on the data."""
    flip = (
        Claim(
            "An augmentation must keep the class: mirrored digits make the error higher",
            subtract(Score("flip"), Score("none")),
            expected=ABOVE_ZERO,
            source="the lectures",
        )
        if digits
        else Claim(
            "Mirror images help",
            subtract(Score("flip"), Score("none")),
            expected=BELOW_ZERO,
            source="the lectures",
        )
    )
    return (
        Claim(
            "Random crops help",
            subtract(Score("crop"), Score("none")),
            expected=BELOW_ZERO,
            source="the lectures",
        ),
        flip,
        Claim(
            "Affine maps help",
            subtract(Score("affine"), Score("none")),
            expected=BELOW_ZERO,
            source="LeCun et al. 1998, Sec. III-B",
        ),
        Claim(
            "All together help",
            subtract(Score("all"), Score("none")),
            expected=BELOW_ZERO,
            source="the lectures",
        ),
        Claim(
            "Augmentation is a regularizer: with all of it the training error is higher",
            subtract(Score("all", "training"), Score("none", "training")),
            expected=ABOVE_ZERO,
            source="the lectures",
        ),
        Claim(
            "Label shuffling helps where classes are of different sizes",
            subtract(Score("tail-shuffled"), Score("tail")),
            expected=BELOW_ZERO,
            source="the lectures",
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    sheet = (
        "The same training images as each run sees them. Label shuffling changes which images come,"
        " not how they look; mixup mixes them after what is shown."
    )
    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.error_bars(results),
        report.image_grid(results, file_names.SHEET, sheet, "Training images"),
        report.error_curves(results, title="Training", file="curves.png"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )
