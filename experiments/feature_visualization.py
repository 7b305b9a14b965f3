"""What do the pictures of a trained model show: the model, or the image?

Paper     Zeiler, Fergus 2013 (arXiv:1311.2901): Figure 5 (invariance) and Figure 7 (occlusion);
          Adebayo et al. 2018 (arXiv:1810.03292): maps of models with random weights.
Question  Which maps change when the trained weights are replaced by random ones? Do the pixels that
          they mark carry the class's probability? How much do features change when an image is
          shifted, scaled or rotated, and which parts of an image may be covered?
Commands  python launch.py --experiment=feature_visualization                  (laptop: digits)
          python launch.py --experiment=feature_visualization --preset=paper   (MNIST, CIFAR-10,
          Caltech-101)
Results   docs/results/feature_visualization_digits and
          feature_visualization_paper, with hardware and commit.
"""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Measured, describe_settings
from cnn_jax.report.intervals import compute_student_interval
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, shorten_run

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results, Table

COST = {
    "laptop": "3 small models on scikit-learn's digits, 2 minutes on 2 CPU cores",
    "paper": "LeNet on MNIST, ResNet-20 on CIFAR-10, VGG on Caltech-101: half an hour",
    "smoke": "3 models of two steps on fake data, for tests",
}
LABELS = {
    "lenet": "LeNet-5, modern variant",
    "resnet-20": "ResNet-20",
    "vgg": "VGG-A, an eighth as wide",
}
GALLERY, OCCLUSION, INVARIANCE = "gallery-{}.png", "occlusion.png", "invariance.png"


def _paper() -> dict[str, Experiment]:
    """Returns three trainings that are long enough for their maps to say something."""
    small = Data(dataset=choose("mnist"), batch_size=128, subtract_mean="none", flip=False)
    sgd, steps = choose("sgd", momentum=0.9, weight_decay=1e-4), (1_600, 2_200)
    return {
        "lenet": Experiment(
            data=replace(small, pad_and_crop=0),
            model=choose("lenet5_modern"),
            optimizer=sgd,
            schedule=choose("constant", base=0.02),
            train=Train(steps=2_400, log_every=100, eval_every=800, save_every=800),
        ),
        "resnet-20": Experiment(
            data=replace(small, dataset=choose("cifar10"), subtract_mean="pixel", flip=True),
            model=choose("resnet20"),
            optimizer=sgd,
            schedule=choose("step", base=0.1, boundaries=steps, factor=0.1),
            train=Train(steps=2_400, log_every=100, eval_every=800, save_every=800),
        ),
        "vgg": Experiment(
            data=Data(
                dataset=choose("caltech101"),
                batch_size=64,
                eval_batch_size=100,
                subtract_mean="channel",
                train_resize=(74, 146),
                eval_resize=110,
                image_size=64,
                pad_and_crop=0,
                flip=True,
            ),
            model=choose("vgg_a", width=0.125, initializer="he", norm="bn", dropout=0.0),
            optimizer=choose("sgd", momentum=0.9, weight_decay=5e-4),
            schedule=choose("cosine", base=0.05),
            train=Train(steps=6_000, log_every=100, eval_every=2_000, save_every=2_000),
        ),
    }


def _laptop() -> dict[str, Experiment]:
    """Returns the same models on scikit-learn's digits, drawn large where a model needs it."""
    sides = {"lenet": 28, "resnet-20": 0, "vgg": 64}
    runs = {}
    for name, run in _paper().items():
        resize = (sides[name],) if sides[name] else ()
        data = replace(
            run.data,
            dataset=choose("digits"),
            batch_size=64,
            eval_batch_size=360,
            subtract_mean="pixel" if name == "resnet-20" else "none",
            pad_and_crop=1 if name == "resnet-20" else 0,
            flip=False,
            train_resize=resize,
            eval_resize=sides[name],
            image_size=sides[name],
        )
        runs[name] = replace(
            run,
            data=data,
            schedule=choose("constant", base=0.02),
            train=Train(steps=300, log_every=50, eval_every=100, save_every=100),
        )
    return runs


def _smoke() -> dict[str, Experiment]:
    """Returns two steps of everything, on tiny images."""
    sides = {"lenet": 12, "resnet-20": 0, "vgg": 64}
    widths = {"lenet": 1.0, "resnet-20": 0.25, "vgg": 1 / 32}
    small = {name: shorten_run(run, fake=True) for name, run in _laptop().items()}
    return {
        name: replace(
            run,
            data=replace(
                run.data,
                image_size=sides[name],
                train_resize=(sides[name],) if sides[name] else (),
                eval_resize=sides[name],
            ),
            model=choose(run.model.name, width=widths[name]),
        )
        for name, run in small.items()
    }


PRESETS = {"laptop": _laptop, "paper": _paper, "smoke": _smoke}


def _measure(
    workdir: Path, runs: list[Experiment], tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Looks into every finished run; draws those of the first seed.

    Returns:
      A row for each map of each run: its rank correlations with random weights, and its deletion
      and insertion areas, a number for each image.
    """
    from cnn_jax.training import metrics_log, run_folders
    from cnn_jax.visualize.page import gallery

    rows: list[dict[str, Any]] = []
    for run in runs:
        folder = run_folders.find_run_folder(run, workdir)
        files = [GALLERY.format(run.name), *((OCCLUSION, INVARIANCE) if run.name == "vgg" else ())]
        if not metrics_log.read_result(folder):
            for name in files if run.seed == runs[0].seed else ():
                (workdir / name).unlink(missing_ok=True)  # Of an earlier run, which was deleted.
            continue
        found = gallery.make_gallery(folder, seed=run.seed)
        seen = {"run": run.name, "seed": run.seed}
        rows += [seen | row for row in gallery.describe_rows(found)]
        if run.seed == runs[0].seed:
            drawn = [gallery.draw_map_gallery(found)]
            if run.name == "vgg":
                drawn += gallery.draw_behavior(found)
            gallery.write_pictures(workdir, dict(zip(files, drawn, strict=True)))
        tell(f"looked into {run.name} seed {run.seed}")
    return rows


def _compare_maps(first: tuple[str, str], second: tuple[str, str], runs: tuple[str, ...]) -> Any:
    """Returns the check of a claim: a measure of a map minus one of another, a mean over runs."""

    def check(results: "Results") -> Measured:
        setting = describe_settings(results, runs)
        seeds: dict[int, list[float]] = {}
        for run in runs:
            for seed in sorted({row["seed"] for row in results.study.measured}):
                values = [_find_mean(results, run, seed, *each) for each in (first, second)]
                if None not in values:
                    seeds.setdefault(seed, []).append(values[0] - values[1])  # type: ignore[operator]
        means = [statistics.mean(own) for own in seeds.values() if len(own) == len(runs)]
        if not means:
            return Measured(None, runs=runs, setting=setting, why="not measured yet")
        return Measured(
            statistics.mean(means),
            over_seeds=compute_student_interval(means),
            seeds=len(means),
            runs=runs,
            setting=setting,
        )

    return check


def _find_mean(results: "Results", run: str, seed: int, name: str, kind: str) -> float | None:
    """Returns the mean over images of a measure; None if no image has it."""
    for row in results.study.measured:
        if (row["run"], row["seed"], row["map"]) == (run, seed, name):
            values = [value for value in row[kind] if value is not None]
            return statistics.mean(values) if values else None
    return None


def _make_claims() -> tuple[Claim, ...]:
    runs = tuple(LABELS)
    size = "mean rank correlation with random weights"
    return (
        Claim(
            "Guided backpropagation's maps change less than the gradient's when the weights are"
            f" made random: the difference of the {size}",
            _compare_maps(("guided", "correlation"), ("saliency", "correlation"), runs),
            expected=ABOVE_ZERO,
            source="Adebayo et al. 2018, Sec. 3",
            unit="correlation",
        ),
        Claim(
            "Grad-CAM's maps change more than guided backpropagation's when the weights are made"
            f" random: the difference of the {size}",
            _compare_maps(("gradcam", "correlation"), ("guided", "correlation"), runs),
            expected=BELOW_ZERO,
            source="Adebayo et al. 2018, Sec. 3",
            unit="correlation",
        ),
        Claim(
            "Deleting pixels in the order of the gradient costs the class more than in random"
            " order: the difference of the deletion areas",
            _compare_maps(("saliency", "deletion"), ("chance", "deletion"), runs),
            expected=BELOW_ZERO,
            source="Petsiuk et al. 2018, Sec. 4.1, which measures other maps",
            unit="probability",
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    galleries = [
        report.image_grid(
            results,
            GALLERY.format(name),
            "Test images, and below them each map with the trained weights and with random ones."
            " Each row has its own color scale.",
            f"Maps of {label}",
        )
        for name, label in LABELS.items()
    ]
    occlusion = (
        "VGG while a gray square covers the image at each place: the activity of the strongest map,"
        " the probability of the image's class, and the likeliest class (Zeiler, Fergus 2013,"
        " Figure 7)."
    )
    invariance = (
        "VGG: distance of the first and the last features from those of the unchanged image, and"
        " the probability of the class (Zeiler, Fergus 2013, Figure 5)."
    )
    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        _table(results),
        *galleries,
        report.image_grid(results, OCCLUSION, occlusion, "Occlusion"),
        report.image_grid(results, INVARIANCE, invariance, "Invariance"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )


def _table(results: "Results") -> "Table":
    from cnn_jax import report

    kinds = ("correlation", "deletion", "insertion")
    lines = []
    for key in dict.fromkeys((row["run"], row["map"]) for row in results.study.measured):
        own = [row for row in results.study.measured if (row["run"], row["map"]) == key]
        cells = []
        for kind in kinds:
            means = [_find_mean(results, key[0], row["seed"], key[1], kind) for row in own]
            known = [mean for mean in means if mean is not None]
            cells.append(f"{statistics.mean(known):.3f}" if known else "—")
        lines.append((LABELS.get(key[0], key[0]), own[0]["title"], *cells))
    footnote = (
        "Means over eight test images and the seeds. The rank correlation is Spearman's, of the"
        " sizes of a map's values with the trained and with random weights. The areas lie under the"
        " probability of the image's class while pixels are deleted, or inserted, in the order of"
        " the map."
    )
    columns = (
        "model",
        "map",
        "rank correlation with random weights",
        "deletion area",
        "insertion area",
    )
    return report.Table("Maps", columns, tuple(lines), footnote, left=(0, 1))


def study(preset: str) -> Study:
    """Returns LeNet, ResNet-20 and a narrow VGG, and what is seen inside them."""
    check_preset("feature_visualization", preset, PRESETS)

    def name_runs(runs: dict[str, Experiment]) -> dict[str, Experiment]:
        return {k: replace(run, study="feature_visualization", name=k) for k, run in runs.items()}

    return Study(
        name="feature_visualization",
        title="Inside trained models: which maps show what was learned",
        paper="Zeiler, Fergus 2013 (arXiv:1311.2901), Figures 5 and 7; Adebayo et al. 2018"
        " (arXiv:1810.03292)",
        paper_data="imagenet2012",
        preset=preset,
        runs=name_runs(PRESETS[preset]()),
        rows=tuple(Row(name, label, "models", "") for name, label in LABELS.items()),
        paper_runs=name_runs(_paper()),
        measure_runs=_measure,
        claims=_make_claims(),
        report=_report,
        notes=(
            "The trainings are ours and short; they are recipes of no paper.",
            "LeNet is the modern variant with ReLU: LeNet-5 has none, and guided backpropagation"
            " needs one.",
            "No claim is made about localization: none of these data sets has boxes.",
        ),
    )
