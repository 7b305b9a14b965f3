"""What a run will see of a data set: python -m cnn_jax.data.inspect --data=folder:PATH --out=DIR.

Writes sheet.png, augmented training images; classes.png and report.txt: images a class, their sizes, mean and standard
deviation of each channel, and files that cannot be read or may be damaged. Any field of the data is given as --set
data.flip=false.
"""

import argparse
import functools
import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import matplotlib.figure
import numpy as np
import tqdm

from cnn_jax import data
from cnn_jax.config import Data, Experiment, dataset
from cnn_jax.data import datasets, decode, headers
from cnn_jax.data.base import ArrayDataset, ImageDataset
from cnn_jax.data.folders import TEST_EVERY
from cnn_jax.data.workers import prefetch_decoded
from cnn_jax.errors import UserError
from cnn_jax.overrides import Kind, check_fields, override

COLUMNS = 8  # of the sheet


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cnn_jax.data.inspect", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder:PATH, a prepared TFDS set, or a set of this library")
    parser.add_argument("--data_dir", default="", help="where prepared TFDS folders lie")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="is made")
    parser.add_argument("--shorter_side", default="", help="S, or least,largest; default of files: 256")
    parser.add_argument("--crop", default="", help="default of files: 224")
    parser.add_argument("--images", type=int, default=48, metavar="N", help="on the sheet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="data.FIELD=VALUE", dest="changes")
    given = parser.parse_args(arguments)
    in_files = dataset(given.data).name not in data.DATASETS or given.data.startswith("folder:")
    fields = {
        "train_resize": given.shorter_side or "256" * in_files,
        "image_size": given.crop or "224" * in_files,
    }
    changes = [f"data.{name}={value}" for name, value in fields.items() if value]
    try:
        if wrong := [change for change in given.changes if not change.startswith("data.")]:
            raise UserError(f"--set {wrong[0]}: takes fields of data, for example data.flip=false")
        pad = 0 if in_files else Data.pad_and_crop
        chosen = Data(dataset=dataset(given.data), dir=given.data_dir, pad_and_crop=pad)
        kinds = {"data.dataset": Kind(None, datasets.option_types)}
        run = override(Experiment(data=chosen), changes + given.changes, kinds)
        check_fields(run)
        inspect(run.data, given.out, given.images, given.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def inspect(settings: Data, out: Path, count: int = 48, seed: int = 0) -> str:
    """Writes the folder, which it makes, prints its report and returns it; every image is read once.

    Raises UserError for data that is not there or cannot be as the settings say.
    """
    if count < 1:
        raise UserError(f"--images={count}: wants at least 1")
    settings = replace(settings, on_bad_image="skip")
    source = data.load_dataset(settings)
    names = source.class_names or tuple(map(str, range(source.num_classes)))
    parts = {"train": source.train, "test": source.test}
    if not source.streamed:
        parts = {name: ArrayDataset(f"{settings.name} {name}", part) for name, part in parts.items()}
    rows = {name: list(_looked_at(settings, part, name)) for name, part in parts.items()}
    if not any(not row["why"] for row in rows["train"]):
        raise UserError(f"data set {settings.name}: none of its training images can be decoded")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    sheet(settings, source, names, count, seed).savefig(out / "sheet.png", dpi=80)
    _bars(rows, names).savefig(out / "classes.png", dpi=80)
    text = "\n".join(_report(settings, rows, names)) + "\n"
    (out / "report.txt").write_text(text)
    print(text, end="")
    print(f"wrote {out / 'sheet.png'}, {out / 'classes.png'} and {out / 'report.txt'}")
    return text


def sheet(
    settings: Data, source: data.Dataset, names: tuple[str, ...], count: int, seed: int
) -> matplotlib.figure.Figure:
    """The first `count` training images as the run with this seed sees them, with their classes' names."""
    shown, labels = _seen(settings, source, count, seed)
    rows = math.ceil(count / COLUMNS)
    figure, axes = _grid(rows)
    for axis, image, label in zip(axes.ravel(), shown, labels, strict=False):
        _show(axis, image)
        axis.set_title(names[int(label)][:18], fontsize=8)
    return figure


def crops(each: dict[str, Data], seed: int = 0) -> matplotlib.figure.Figure:
    """A row of training images for each setting, under its words, as a run with this seed sees them."""
    figure, axes = _grid(len(each))
    for row, (words, settings) in zip(axes, each.items(), strict=True):
        shown, _ = _seen(settings, data.load_dataset(settings), COLUMNS, seed)
        for axis, image in zip(row, shown, strict=True):
            _show(axis, image)
        row[0].set_title(words, fontsize=9, loc="left")
    return figure


def _seen(settings: Data, source: data.Dataset, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(images [count, H, W, C] of pixels 0 to 1, labels) of the first batch of a run."""
    loader = data.make_loader(replace(settings, batch_size=count), source, seed)
    batches = loader.batches(0)
    batch = loader.fetch(loader.arrays, next(batches))
    batches.close()
    prepared = loader.preprocess(loader.arrays, np.asarray(batch["image"]), jax.random.key(seed), np.arange(count))
    return np.clip(np.asarray(prepared) + loader.arrays["mean"] / 255, 0, 1), np.asarray(batch["label"])


def _grid(rows: int) -> tuple[matplotlib.figure.Figure, np.ndarray]:
    figure = matplotlib.figure.Figure(figsize=(COLUMNS * 1.6, rows * 1.8), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    return figure, axes


def _show(axis: Any, image: np.ndarray) -> None:
    axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)


def _looked_at(settings: Data, part: ImageDataset, name: str) -> Iterator[dict[str, Any]]:
    found = prefetch_decoded(functools.partial(_look, part), range(len(part)), settings.workers)
    yield from tqdm.tqdm(found, f"{name} images", len(part), unit="", disable=None)


def _look(part: ImageDataset, i: int) -> dict[str, Any]:
    """Of one image: its label and size, its pixels' sums a channel on the scale 0 to 255; or why it is unreadable."""
    found = {"name": part.name(i), "why": ""}
    try:
        encoded, found["label"] = part[i]
        if isinstance(encoded, bytes):
            size = headers.read_size(encoded)
            pixels = decode.decode_resized(encoded, min(*size, 256))
            found["doubt"] = headers.find_decoder_warning(encoded)
        else:
            size, pixels = encoded.shape[:2], encoded
    except (headers.BadImage, OSError) as error:
        return {"label": -1} | found | {"why": str(error)}  # what cannot be opened may not tell its label
    pixels = pixels.reshape(-1, pixels.shape[-1]).astype(np.float64)
    return found | {"size": size, "mean": pixels.mean(0), "square": np.square(pixels).mean(0)}


def _report(settings: Data, rows: dict[str, list], names: tuple[str, ...]) -> Iterator[str]:
    good = {name: [row for row in part if not row["why"]] for name, part in rows.items()}
    train, test = (len(rows[name]) for name in ("train", "test"))
    yield f"{settings.name}: {train:,} training and {test:,} test images, {len(names)} classes"
    if not test:
        yield (
            f"no test images: no class has {TEST_EVERY}, of which one is taken; give them in val/ beside train/,"
            " or take training images with data.validation_images"
        )
    for name, part in good.items():
        if not part:
            continue
        sides = np.array([row["size"] for row in part])
        spread = lambda x: f"{x.min():,} / {int(np.median(x)):,} / {x.max():,}"
        yield ""
        yield f"{name}: sides in pixels, least / median / largest"
        yield f"  height {spread(sides[:, 0])}; width {spread(sides[:, 1])}; shorter {spread(sides.min(1))}"
    mean = np.mean([row["mean"] for row in good["train"]], 0)
    deviation = np.sqrt(np.mean([row["square"] for row in good["train"]], 0) - mean**2)
    spelt = lambda values: "  ".join(f"{value:.1f}" for value in values)
    yield ""
    yield "of the training images' pixels, 0 to 255, an image counting as one, by channel:"
    yield f"  mean {spelt(mean)}; standard deviation {spelt(deviation)}"
    bad = [row for part in rows.values() for row in part if row["why"]]
    yield ""
    yield f"files that cannot be read: {len(bad)}"
    yield from (f"  {row['name']}: {row['why']}" for row in bad)
    doubtful = [row for part in good.values() for row in part if row.get("doubt")]
    yield f"files that were read, but may be damaged inside: {len(doubtful)}"
    yield from (f"  {row['name']}: {row['doubt']}" for row in doubtful)
    yield ""
    yield f"{'class':<30} {'train':>8} {'test':>8}"
    counts = [_counts(part, len(names)) for part in rows.values()]
    yield from (f"{name:<30} {train:>8,} {test:>8,}" for name, train, test in zip(names, *counts, strict=True))


def _counts(rows: Iterable[dict[str, Any]], classes: int) -> np.ndarray:
    labels = np.array([row["label"] for row in rows], np.int64)
    return np.bincount(labels[labels >= 0], minlength=classes)


def _bars(rows: dict[str, list], names: tuple[str, ...]) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    axis = figure.subplots()
    for (name, part), edge in zip(rows.items(), itertools.count(), strict=False):
        axis.bar(np.arange(len(names)) + 0.4 * edge, _counts(part, len(names)), 0.4, label=name)
    if len(names) <= 30:
        axis.set_xticks(np.arange(len(names)) + 0.2, names, rotation=60, ha="right")
    axis.set(xlabel="class", ylabel="images")
    axis.legend()
    return figure


if __name__ == "__main__":
    sys.exit(main())
