"""The report of image_retrieval, and how its claims are checked against the measurements."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from cnn_jax import report
from cnn_jax.evaluation.retrieval.measures import DEFINITIONS
from cnn_jax.report import Page, Results, Table, figures
from cnn_jax.report.claims import Measured, describe_settings
from cnn_jax.report.elements import Figure
from cnn_jax.report.intervals import compute_student_interval

from .measure import CODES, SIZES
from .pictures import DENOISING, GALLERY, PLANE

DASH, MINUS = "\N{EM DASH}", "\N{MINUS SIGN}"
# (weight, code, clean or noisy queries)
Term = tuple[float, str, str]
Row = dict[str, Any]


def find_rows(results: Results, **wanted: Any) -> list[Row]:
    """Returns the measured rows that have these values."""
    rows = results.study.measured
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def compare_codes(*terms: Term) -> Callable[[Results], Measured]:
    """Returns the check of a claim: a weighted sum of mean average precisions, in points."""

    def check(results: Results) -> Measured:
        runs = tuple(dict.fromkeys(code.partition(",")[0] for _, code, _ in terms if code in CODES))
        runs = tuple(run for run in runs if run in results.runs)
        setting = describe_settings(results, runs)
        values = sum_by_seed(results, terms)
        if not values:
            return Measured(None, runs=runs, setting=setting, why="not measured yet")
        return Measured(
            value=statistics.mean(values),
            over_images=_find_query_interval(results, terms, statistics.mean(values)),
            over_seeds=compute_student_interval(values),
            seeds=len(values),
            runs=runs,
            setting=setting,
        )

    return check


def sum_by_seed(results: Results, terms: Sequence[Term]) -> list[float]:
    """Returns the weighted sum of mean average precisions of each seed, in points."""
    sums: dict[int, list[float]] = {}
    for weight, code, kind in terms:
        for row in find_rows(results, measure="retrieval", code=code, kind=kind, distance="cosine"):
            term = 100 * weight * row["mean_average_precision"]
            sums.setdefault(row["seed"], []).append(term)
    return [sum(parts) for _, parts in sorted(sums.items()) if len(parts) == len(terms)]


def _find_query_interval(
    results: Results, terms: Sequence[Term], value: float
) -> tuple[float, float] | None:
    """Returns the 95% interval over queries: they are many, so that the mean is nearly normal."""
    for row in find_rows(results, measure="covariance"):
        places = [row["codes"].index(f"{code}/{kind}") for _, code, kind in terms]
        weights = [100 * weight for weight, _, _ in terms]
        variance = sum(
            a * b * row["covariance"][i][j]
            for a, i in zip(weights, places, strict=True)
            for b, j in zip(weights, places, strict=True)
        )
        return value - 1.96 * max(variance, 0) ** 0.5, value + 1.96 * max(variance, 0) ** 0.5
    return None


def compare_denoising(method: str, others: Sequence[str]) -> Callable[[Results], Measured]:
    """Returns the check of a claim: the PSNR of a method minus the best of the others, in dB.

    Args:
      method: Name of the method.
      others: Names of the methods that it is compared with.
    """

    def check(results: Results) -> Measured:
        psnr: dict[int, dict[str, float]] = {}
        for row in find_rows(results, measure="denoising"):
            psnr.setdefault(row["seed"], {})[row["method"]] = row["psnr"]
        values = [
            own[method] - max(own[other] for other in others)
            for _, own in sorted(psnr.items())
            if {method, *others} <= own.keys()
        ]
        setting = describe_settings(results, (method,))
        if not values:
            return Measured(None, runs=(method,), setting=setting, why="not measured yet")
        return Measured(
            value=statistics.mean(values),
            over_seeds=compute_student_interval(values),
            seeds=len(values),
            runs=(method,),
            setting=setting,
        )

    return check


def compose(results: Results) -> Page:
    """Returns the page of the study's results."""
    gallery = (
        "By the lectures' code and cosine: the first test image of each class with its ten nearest"
        " training images, then the worst queries of all. Full frames: the query's class; crossed:"
        " another. Below each image its class."
    )
    plane = (
        "Codes of test images in a plane (t-SNE), a color a class. Distances between clusters mean"
        " nothing."
    )
    restored = "The first test image of each class: noisy, restored, and clean."
    return report.page(
        results,
        retrieval_table(results),
        class_table(results),
        size_figure(results),
        denoising_table(results),
        report.image_grid(results, DENOISING, restored, "Denoised images"),
        report.image_grid(results, GALLERY, gallery, "Queries and what they find"),
        report.image_grid(results, PLANE, plane, "Codes in a plane"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )


def format_mean(values: Sequence[float], digits: int = 2, scale: float = 100) -> str:
    """Returns the mean and the sample standard deviation over seeds, such as '41.07 ± 0.25'.

    Args:
      values: One value for each seed.
      digits: Number of decimals.
      scale: Factor by which the values are multiplied.
    """
    if not values:
        return DASH
    mean = f"{scale * statistics.mean(values):.{digits}f}".replace("-", MINUS)
    if len(values) < 2:
        return mean
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


def retrieval_table(results: Results) -> Table | None:
    """Returns what each code finds, of clean and of noisy queries."""
    columns = ("P@1", "P@10", "mAP", "MAP@R")
    fields = ("precision_at_1", "precision_at_10", "mean_average_precision", "map_at_r")
    lines, without = [], set()
    for code in CODES:
        clean = find_rows(results, measure="retrieval", code=code, kind="clean", distance="cosine")
        if not clean:
            continue
        noisy = find_rows(results, measure="retrieval", code=code, kind="noisy", distance="cosine")
        euclidean = find_rows(results, measure="retrieval", code=code, distance="euclidean")
        without |= {len(row["without_relevant"]) for row in clean}
        cost = sum_by_seed(results, ((1, code, "noisy"), (-1, code, "clean")))
        lines.append(
            (
                code,
                f"{clean[0]['size']}",
                *(format_mean([row[field] for row in clean]) for field in fields),
                format_mean([row["mean_average_precision"] for row in euclidean]),
                format_mean([row["precision_at_1"] for row in noisy]),
                format_mean([row["mean_average_precision"] for row in noisy]),
                format_mean(cost, scale=1),
            )
        )
    if not lines:
        return None
    definitions = "; ".join(f"{name}: {words}" for name, words in DEFINITIONS.items())
    counted = " or ".join(map(str, sorted(without)))
    footnote = (
        "In %, mean ± sample standard deviation over seeds. The gallery is the training set, the"
        " queries are the test set. Codes are scaled to length 1 and compared by cosine, but for"
        " the column that says Euclidean, where they are as they come; maps are flat in an"
        " autoencoder's code, and averaged elsewhere. Cost: mAP of noisy queries less that of clean"
        f" ones, in points. Queries without an image of their class: {counted}. {definitions}."
    )
    heads = ("code", "numbers", *columns, "mAP, Euclidean", "P@1, noisy", "mAP, noisy", "cost")
    return report.Table("Retrieval", heads, tuple(lines), footnote)


def class_table(results: Results) -> Table | None:
    """Returns the mean average precision of each class's queries."""
    lines, classes = [], 0
    for code in CODES:
        rows = find_rows(results, measure="retrieval", code=code, kind="clean", distance="cosine")
        if not rows:
            continue
        classes = len(rows[0]["by_class"])
        each = [[row["by_class"][label] for row in rows] for label in range(classes)]
        cells = (format_mean([v for v in values if v is not None], digits=1) for values in each)
        lines.append((code, *(cell.partition(" ")[0] for cell in cells)))
    if not lines:
        return None
    heads = ("code", *map(str, range(classes)))
    footnote = "mAP of clean queries by their class, in %, mean over seeds; by cosine."
    return report.Table("By class", heads, tuple(lines), footnote)


def size_figure(results: Results) -> Figure | None:
    """Returns mAP against the size of a code that PCA compresses, whitened and not."""
    charts = []
    names = [code for code in CODES if find_rows(results, measure="size", code=code)]
    colors = dict(zip(names, figures.spread_colors(len(names)), strict=True))
    for whitened, title in ((False, "PCA"), (True, "whitened PCA")):
        lines = []
        for code in names:
            points = []
            for size in SIZES:
                rows = find_rows(results, measure="size", code=code, size=size, whitened=whitened)
                values = [100 * row["mean_average_precision"] for row in rows]
                if values:
                    points.append((size, statistics.mean(values), min(values), max(values)))
            lines.append(report.Series(code, tuple(points), colors[code]))
        axis = "numbers of the code"
        charts.append(report.LineChart(title, tuple(lines), axis, "mAP (%)", log_x=True))
    if not names:
        return None
    caption = (
        "mAP of clean queries against the size of the code, which PCA of the gallery's codes (of"
        " length 1) compresses; lines are means over seeds, bands their least and largest. At most"
        " 2,000 queries."
    )
    return report.line_charts(results, charts, caption, "mAP against code size")


def denoising_table(results: Results) -> Table | None:
    """Returns PSNR and SSIM of each way of restoring noisy test images."""
    rows = find_rows(results, measure="denoising")
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        strengths = ", ".join(dict.fromkeys(row["strength"] for row in own if row["strength"]))
        lines.append(
            (
                f"{method} ({strengths})" if strengths else method,
                format_mean([row["psnr"] for row in own], scale=1),
                format_mean([row["ssim"] for row in own], digits=3, scale=1),
            )
        )
    if not lines:
        return None
    footnote = (
        "Test images with the autoencoder's noise, clipped; mean ± sample standard deviation over"
        " seeds. The filters' strength is the one with the highest PSNR on training images."
    )
    return report.Table("Denoising", ("method", "PSNR (dB)", "SSIM"), tuple(lines), footnote)
