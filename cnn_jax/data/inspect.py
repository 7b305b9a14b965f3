"""Inspects a data set: python -m cnn_jax.data.inspect --data=folder:PATH --out=DIR.

It writes report.txt with the content of the folder, images per class, their sizes, mean and
standard deviation of each channel, and files that cannot be read or may be damaged. It also draws
classes.png and sheet.png, which shows augmented training images. Fields of the data are set by
flags such as --set data.flip=false.
"""

import argparse
import functools
import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import tqdm

from cnn_jax import data
from cnn_jax.commands import run_command
from cnn_jax.config import Data, Experiment, parse_dataset
from cnn_jax.data import datasets, decode, headers
from cnn_jax.data.folder_scan import TEST_EVERY
from cnn_jax.data.scan_report import describe_remarks
from cnn_jax.data.workers import prefetch_decoded
from cnn_jax.errors import UserError, describe_os_error, explain_os_errors
from cnn_jax.files import expand_path, write_whole
from cnn_jax.optional_packages import require
from cnn_jax.overrides import Kind, convert_fields, override
from cnn_jax.text import escape_unprintable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 8  # Columns of the sheet.
MAX_IMAGES = 400  # On the sheet.
MAX_SIDE = 256  # To which images are scaled before their pixels are measured.
MAX_NAMED_CLASSES = 30  # Under the bars.

Row = dict[str, Any]  # The result of `_look`.


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_command(lambda: _inspect(arguments))


def _inspect(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.data.inspect", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", required=True, help="folder:PATH, a prepared TFDS set, or a set of this library")
    add("--data_dir", default="", help="where prepared TFDS folders lie")
    add("--out", required=True, metavar="DIR", help="is made")
    add("--shorter_side", default="", help="S, or least,largest; default of files: 256")
    add("--crop", default="", help="default of files: 224")
    add("--images", type=int, default=48, metavar="N", help=f"on the sheet, 1 to {MAX_IMAGES}")
    add("--seed", type=int, default=0, help="of the run that is shown")
    add("--set", action="append", default=[], metavar="data.FIELD=VALUE", dest="changes")
    given = parser.parse_args(arguments)
    inspect(_make_settings(given), expand_path("--out", given.out), given.images, given.seed)


def _make_settings(given: argparse.Namespace) -> Data:
    chosen = parse_dataset(given.data)
    full_size = datasets.is_streamed(Data(dataset=chosen))
    fields = {
        "train_resize": given.shorter_side or ("256" if full_size else ""),
        "image_size": given.crop or ("224" if full_size else ""),
    }
    changes = [f"data.{name}={value}" for name, value in fields.items() if value]
    if wrong := [change for change in given.changes if not change.startswith("data.")]:
        raise UserError(f"--set {wrong[0]}: takes fields of data, for example data.flip=false")
    if not 0 <= given.seed < 2**31:
        raise UserError(f"--seed={given.seed}: must be 0 to 2147483647")
    pad = 0 if full_size else Data.pad_and_crop
    base = Experiment(data=Data(dataset=chosen, dir=given.data_dir, pad_and_crop=pad))
    kinds = {"data.dataset": Kind(None, datasets.get_option_types)}
    run = override(base, changes + given.changes, kinds)
    return convert_fields(run).data


def inspect(settings: Data, out: Path, count: int = 48, seed: int = 0) -> str:
    """Reads every image once, writes the report and the figures, and prints the report.

    Args:
      settings: The data, and how a run would prepare them.
      out: A folder; it is made.
      count: Images on the sheet.
      seed: Seed of the run that the sheet shows.

    Returns:
      The report.

    Raises:
      UserError: If the data are not there or cannot be as the settings say, or nothing can be
        written.
    """
    if not 1 <= count <= MAX_IMAGES:
        raise UserError(f"--images={count}: must be 1 to {MAX_IMAGES}")
    settings = replace(settings, on_bad_image="skip")
    source = data.load_dataset(settings)
    names = source.class_names or tuple(map(str, range(source.num_classes)))
    names = tuple(map(escape_unprintable, names))
    parts = {
        name: data.ArrayDataset(f"{settings.name} {name}", part)
        if isinstance(part, data.Arrays)
        else part
        for name, part in (("train", source.train), ("test", source.test))
    }
    _make_folder(out)
    rows = {name: list(_look_at_all(settings, part, name)) for name, part in parts.items()}
    found = [] if source.scan is None else describe_remarks(source.scan)
    text = "\n".join(_write_report(settings, found, rows, names)) + "\n"
    _write(out / "report.txt", text)
    print(text, end="")
    if all(row["why"] for row in rows["train"]):
        raise UserError(f"data set {settings.name}: none of its training images can be decoded")
    _save(draw_class_counts(rows, names), out / "classes.png")
    _save(draw_sheet(settings, source, names, count, seed), out / "sheet.png")
    print(
        escape_unprintable(
            f"wrote {out / 'report.txt'}, {out / 'classes.png'} and {out / 'sheet.png'}"
        )
    )
    return text


def draw_sheet(
    settings: Data, source: data.Dataset, names: tuple[str, ...], count: int, seed: int
) -> "Figure":
    """Draws the first training images as a run sees them, each with the name of its class.

    Args:
      settings: How the run prepares the images.
      source: The data set.
      names: Names of the classes, by label.
      count: Number of images.
      seed: The run's seed.
    """
    shown, labels = _draw_batch(settings, source, count, seed)
    figure, axes = _make_grid(math.ceil(count / COLUMNS))
    for axis, image, label in zip(axes.ravel(), shown, labels, strict=False):
        _show(axis, image)
        axis.set_title(escape_unprintable(names[int(label)])[:18], fontsize=8, parse_math=False)
    return figure


def draw_crops(settings: dict[str, Data], seed: int = 0) -> "Figure":
    """Draws training images as runs see them, one row for each setting.

    Args:
      settings: {title of the row: how its run prepares the images}.
      seed: The runs' seed.
    """
    figure, axes = _make_grid(len(settings))
    for row, (title, each) in zip(axes, settings.items(), strict=True):
        shown, _ = _draw_batch(each, data.load_dataset(each), COLUMNS, seed)
        for axis, image in zip(row, shown, strict=True):
            _show(axis, image)
        row[0].set_title(title, fontsize=9, loc="left", parse_math=False)
    return figure


def draw_class_counts(rows: dict[str, list[Row]], names: tuple[str, ...]) -> "Figure":
    """Draws the images per class of each split: bars, or outlines if there are many classes."""
    figure = require("matplotlib.figure").Figure(figsize=(10, 4), layout="constrained")
    axis = figure.subplots()
    for (name, part), edge in zip(rows.items(), itertools.count(), strict=False):
        counts = _count_labels(part, len(names))
        if len(names) <= MAX_NAMED_CLASSES:
            axis.bar(np.arange(len(names)) + 0.4 * edge, counts, 0.4, label=name)
        else:  # Bars narrower than a pixel would make a pattern.
            axis.stairs(counts, np.arange(len(names) + 1) - 0.5, label=name, lw=1.5)
    if len(names) <= MAX_NAMED_CLASSES:
        shown = [name[:MAX_NAMED_CLASSES] for name in names]
        places = np.arange(len(names)) + 0.2
        axis.set_xticks(places, shown, rotation=60, ha="right", parse_math=False)
    axis.set(xlabel="class", ylabel="images")
    figure.legend(loc="outside right upper")
    return figure


def _draw_batch(
    settings: Data, source: data.Dataset, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (images [count, H, W, C] of pixels 0 to 1, labels) of the first batch of a run."""
    loader = data.make_loader(replace(settings, batch_size=count), source, seed)
    batches = loader.batches(0)
    batch = loader.fetch(loader.arrays, next(batches))
    batches.close()
    pixels, rows = np.asarray(batch["image"]), np.arange(count)
    images = loader.preprocess(loader.arrays, pixels, jax.random.key(seed), rows)
    shown = np.clip(np.asarray(images) + loader.arrays["mean"] / 255, 0, 1)
    return shown, np.asarray(batch["label"])


def _make_grid(rows: int) -> tuple["Figure", np.ndarray]:
    figure = require("matplotlib.figure").Figure(
        figsize=(COLUMNS * 1.6, rows * 1.8), layout="constrained"
    )
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    return figure, axes


def _show(axis: "Axes", image: np.ndarray) -> None:
    axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)


def _make_folder(out: Path) -> None:
    with explain_os_errors(f"cannot write to {out}", "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)


def _write(path: Path, text: str) -> None:
    with explain_os_errors(f"cannot write {path}", "choose another --out"):
        write_whole(path, text)


def _save(figure: "Figure", path: Path) -> None:
    with explain_os_errors(f"cannot write {path}", "choose another --out"):
        figure.savefig(path, dpi=80)


def _look_at_all(settings: Data, part: data.ImageDataset, name: str) -> Iterator[Row]:
    look = functools.partial(_look, part)
    found = prefetch_decoded(look, range(len(part)), settings.workers)
    yield from tqdm.tqdm(found, f"{name} images", len(part), unit="", disable=None)


def _look(part: data.ImageDataset, i: int) -> Row:
    """Reads an image and returns its properties.

    Returns:
      {name, why: the reason why it cannot be read, or empty; label; and if it can be read size:
      (H, W), mean and square: [C], the means of its pixels 0 to 255 and of their squares, warning:
      what the decoder objects to}.
    """
    found = {"name": part.name(i), "why": "", "label": -1}
    try:
        encoded, found["label"] = part[i]
        if isinstance(encoded, bytes):
            size = headers.read_size(encoded)
            pixels = decode.decode_resized(encoded, min(*size, MAX_SIDE))
            found["warning"] = headers.find_decoder_warning(encoded)
        else:
            size, pixels = encoded.shape[:2], encoded
    except (headers.BadImage, OSError) as error:
        # The label of an image that cannot be opened may be unknown.
        name = part.name(i)
        why = describe_os_error(error, name) if isinstance(error, OSError) else str(error)
        return found | {"why": why}
    pixels = pixels.reshape(-1, pixels.shape[-1]).astype(np.float64)
    return found | {"size": size, "mean": pixels.mean(0), "square": np.square(pixels).mean(0)}


def _write_report(
    settings: Data, found: list[str], rows: dict[str, list[Row]], names: tuple[str, ...]
) -> Iterator[str]:
    good = {name: [row for row in part if not row["why"]] for name, part in rows.items()}
    train, test = (len(rows[name]) for name in ("train", "test"))
    name = escape_unprintable(settings.name)
    yield f"{name}: {train:,} training and {test:,} test images, {len(names)} classes"
    yield from found
    if not test:
        yield (
            f"no test images: every {TEST_EVERY}th image of a class is a test image, and no class"
            f" has {TEST_EVERY}; give them in val/ beside train/, or take training images with"
            " data.validation_images"
        )
    for split, part in good.items():
        if part:
            yield from _report_sizes(split, np.array([row["size"] for row in part]))
    if good["train"]:
        yield from _report_colors(good["train"])
    bad = [row for part in rows.values() for row in part if row["why"]]
    yield from ("", f"files that cannot be read: {len(bad)}")
    yield from (escape_unprintable(f"  {row['name']}: {row['why']}") for row in bad)
    doubtful = [row for part in good.values() for row in part if row.get("warning")]
    yield f"files that were read, but may be damaged inside: {len(doubtful)}"
    yield from (escape_unprintable(f"  {row['name']}: {row['warning']}") for row in doubtful)
    yield from ("", f"{'class':<30} {'train':>8} {'test':>8}")
    counts = [_count_labels(part, len(names)) for part in rows.values()]
    for name, train, test in zip(names, *counts, strict=True):
        yield f"{name:<30} {train:>8,} {test:>8,}"


def _report_sizes(split: str, sides: np.ndarray) -> Iterator[str]:
    def spell(x: np.ndarray) -> str:
        return f"{x.min():,} / {int(np.median(x)):,} / {x.max():,}"

    height, width, shorter = spell(sides[:, 0]), spell(sides[:, 1]), spell(sides.min(1))
    yield from ("", f"{split}: sides in pixels, least / median / largest")
    yield f"  height {height}; width {width}; shorter {shorter}"


def _report_colors(rows: list[Row]) -> Iterator[str]:
    mean = np.mean([row["mean"] for row in rows], 0)
    deviation = np.sqrt(np.mean([row["square"] for row in rows], 0) - mean**2)

    def spell(values: np.ndarray) -> str:
        return "  ".join(f"{value:.1f}" for value in values)

    yield ""
    yield "of the training images' pixels, 0 to 255, an image counting as one, by channel:"
    yield f"  mean {spell(mean)}; standard deviation {spell(deviation)}"


def _count_labels(rows: Iterable[Row], classes: int) -> np.ndarray:
    labels = np.array([row["label"] for row in rows], np.int64)
    return np.bincount(labels[labels >= 0], minlength=classes)


if __name__ == "__main__":
    sys.exit(main())
