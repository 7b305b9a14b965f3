"""Builds the page: runs the requested methods one by one and writes their figures."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import tqdm

from cnn_jax import trained
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.files import check_writable, make_folder_name
from cnn_jax.report.build import write_page
from cnn_jax.report.elements import Facts, Notes, Page, Part, Report
from cnn_jax.training.environment import describe_environment
from cnn_jax.visualize.images import Source, load_images
from cnn_jax.visualize.page import behavior, inside, made, maps, statistics
from cnn_jax.visualize.page.context import Context, make_context
from cnn_jax.visualize.scores import ScoreName

ALL = "all"
SECTIONS: dict[str, Callable[[Context], list[Part]]] = {
    "occlusion": behavior.draw_occlusion,
    "invariance": behavior.draw_invariance,
    "statistics": statistics.draw_statistics,
    "filters": inside.draw_filters,
    "maps": inside.draw_feature_maps,
    "top": inside.draw_top_images,
    "deconvnet": inside.draw_projections,
    "evolution": inside.draw_evolution,
    "maximize": made.draw_classes,
    "dream": made.draw_dreams,
    "invert": made.draw_inversions,
}
METHODS: tuple[str, ...] = (*maps.METHODS, *SECTIONS)


def choose_methods(asked: Sequence[str]) -> tuple[str, ...]:
    """Returns the methods of --methods in the order of the page.

    Raises:
      UserError: If one is unknown.
    """
    for name in asked:
        if name not in (ALL, *METHODS):
            raise UserError(
                f"methods={name}: no such method; {suggest_names(name, METHODS)}, or {ALL} for each"
            )
    chosen = METHODS if ALL in asked else tuple(name for name in METHODS if name in asked)
    if not chosen:
        raise UserError(f"methods: name one, or {ALL}: {', '.join(METHODS)}")
    return chosen


def build_page(
    target: str,
    images: str = "",
    data_dir: str = "",
    methods: Sequence[str] = (ALL,),
    folder: Path | None = None,
    layer: str | None = None,
    score: ScoreName = "logit",
    seed: int = 0,
    settings: Sequence[str] = (),
    command: str = "",
) -> Report:
    """Looks into a trained model and writes visualize.html, visualize.md and the figures.

    With all methods, those that the model or the images do not allow are left out and named.

    Args:
      target: A run's folder, MODEL:WEIGHTS or MODEL:untrained.
      images: FOLDER or DATASET:N; empty: eight of the run's own test images.
      data_dir: Where prepared TFDS folders lie, of a run or for DATASET:N.
      methods: Names of METHODS, or all.
      folder: Where the page is written; None: runs/visualize/NAME.
      layer: For Grad-CAM, occlusion, top images and dreams; None: they choose.
      score: The class score whose gradient is taken: logit | log_probability | probability.
      seed: Seed of all random numbers: the same seed gives the same page.
      settings: As `trained.load` takes them.
      command: The command that makes the page; the page shows it.

    Raises:
      UserError: If something cannot be read or does not fit, or a method that is named is not
        possible.
    """
    chosen, began = choose_methods(methods), time.perf_counter()
    subject = trained.load(target, "visualize", settings, data_dir)
    folder = folder or Path("runs") / "visualize" / make_folder_name(subject.name)
    check_writable(folder, f"cannot write to {folder}", "choose another workdir")
    with jax.default_matmul_precision(subject.precision):
        source = Source(images, data_dir)
        context = make_context(subject, load_images(subject, source), layer, score, seed, source)
        parts, left_out, times = _run(context, chosen, ALL in methods)
    start = describe_environment()
    took = time.perf_counter() - began
    head = Facts(
        (
            ("model", subject.name),
            ("weights", subject.weights),
            ("images", context.images.source),
            ("explained class", _explain_labels(context)),
            ("score", score.replace("_", " ")),
            ("seed", str(seed)),
            ("command", command),
            ("date", start["time"][:10]),
            ("hardware", start["hardware"]),
            ("commit", start["commit"]),
            ("time", f"{took:.0f} s: " + ", ".join(f"{n} {t:.0f}" for n, t in times.items())),
        )
    )
    notes = Notes("Left out", tuple(left_out.items())) if left_out else None
    page = Page(f"Inside {subject.name}", (head, *parts, notes))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}): choose another workdir"
        ) from None
    return write_page(page, folder, "visualize")


def _run(
    context: Context, chosen: Sequence[str], tolerant: bool
) -> tuple[list[Part], dict[str, str], dict[str, float]]:
    """Runs methods with a progress bar; returns the parts, what was left out, and the seconds."""
    parts: list[Part] = []
    measured: dict[str, maps.MeasuredMaps] = {}
    left_out: dict[str, str] = {}
    times: dict[str, float] = {}
    with tqdm.tqdm(chosen, unit="method", file=sys.stderr, disable=None) as bar:
        for name in bar:
            bar.set_description(name)
            began = time.perf_counter()
            try:
                if name in maps.METHODS:
                    measured[name] = maps.measure_maps(context, name)
                    parts.append(maps.draw_part(context, name, measured[name]))
                else:
                    parts += SECTIONS[name](context)
            except UserError as error:
                if not tolerant:
                    raise UserError(f"methods={name}: {error}") from None
                left_out[name] = str(error)
            times[name] = time.perf_counter() - began
    if measured:
        parts = [*maps.make_summary(context, measured), *parts]
    return parts, left_out, times


def _explain_labels(context: Context) -> str:
    if context.probabilities is None:
        return "none: the model rebuilds images, and its score is minus the loss"
    known = (context.images.labels >= 0).sum()
    if known == len(context.images.labels):
        return "each image's own"
    return (
        "the likeliest" if not known else "each image's own where it is known, else the likeliest"
    )
