"""An index: a gallery's codes in a folder, so that they are computed once.

The folder holds codes.npy ([N, D] float32), names.json (what each row is), pca.npz if the codes are
compressed, and index.json, which records the model, layer and gallery of the codes, with checksums.
An index of anything else is refused.
"""

import dataclasses
import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_jax import data as datasets
from cnn_jax.config import Data, choose
from cnn_jax.errors import UserError
from cnn_jax.evaluation.retrieval import codes, images
from cnn_jax.evaluation.retrieval.codes import CodeLayer, Pca
from cnn_jax.files import check_writable, write_whole
from cnn_jax.trained import TrainedModel

# Version of the index's format. Version 1 did not record options, precision and normalization.
VERSION = 2
INDEX, CODES, NAMES, PCA = "index.json", "codes.npy", "names.json", "pca.npz"
REMEDY = "choose another index folder, or delete this one"


@dataclass(frozen=True)
class IndexDescription:
    """What the codes of an index were computed from: the content of index.json.

    Attributes:
      version: Version of the index's format.
      weights: Checksum of the model's parameters and statistics.
      model: The model in words.
      options: Its name and its options, which may change no parameters: an activation, for one.
      precision: Precision of matrix products.
      normalization: Mean and standard deviation over the image of each channel of a black and a
        white image, after the model's preprocessing; from `describe_normalization`.
      layer: Whose activations the codes are.
      pooling: How its maps are pooled.
      images: Shorter side to which images are scaled, and the side that is cut out, in pixels.
      code_size: Size of the codes after whitened PCA; 0: no PCA.
      gallery: The folder or data set.
      fingerprint: Checksum of the names, sizes and times of the gallery's files, or of a data set's
        images.
    """

    version: int
    weights: str
    model: str
    options: str
    precision: str
    normalization: tuple[float, ...]
    layer: str
    pooling: str
    images: tuple[int, int]
    code_size: int
    gallery: str
    fingerprint: str


@dataclass(frozen=True)
class Index:
    """A gallery that can be searched.

    Attributes:
      codes: [N, D] float32.
      names: Name of each row: a file below the gallery's folder, or an image's name in a data set.
      rows: [N], the numbers of the images in the gallery, of which some may not be decodable.
      labels: [N], the class or folder of each.
      pca: The projection that compresses codes; None: they are not compressed.
      was_read: Whether the index was read from its folder, and not computed.
    """

    codes: np.ndarray
    names: tuple[str, ...]
    rows: np.ndarray
    labels: np.ndarray
    pca: Pca | None
    was_read: bool


def open_gallery(
    what: str, place: str, data_dir: str = "", own: Data | None = None
) -> datasets.ImageDataset:
    """Returns the images of a folder, or the training images of a data set that is not streamed.

    Args:
      what: What messages call it.
      place: The folder's path, or the data set's name.
      data_dir: Where prepared TFDS sets lie.
      own: What the model was trained on. A data set of the same name has its options.
    """
    if os.path.exists(place) or place not in datasets.DATASETS:
        return images.open_images(what, place)
    config = Data(dataset=choose(place), dir=data_dir)
    if own is not None and own.dataset.name == place != "folder":
        config = dataclasses.replace(config, dataset=own.dataset, dir=data_dir or own.dir)
    dataset = datasets.load_dataset(config)
    assert isinstance(dataset.train, datasets.Arrays)  # All sets of DATASETS but folders are.
    return datasets.ArrayDataset(f"{place} train", dataset.train)


def compute_checksum(model: TrainedModel) -> str:
    """Returns a checksum of a model's parameters and statistics, 16 hexadecimal digits.

    It also depends on the interpolation by which the model's images are scaled, unless that is
    bilinear.
    """
    digest = hashlib.sha256()
    if model.interpolation != "bilinear":
        digest.update(model.interpolation.encode())
    tree = {"params": model.params, "stats": model.stats}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def describe_normalization(model: TrainedModel) -> tuple[float, ...]:
    """Returns the `IndexDescription.normalization` of a model."""
    black = np.zeros((1, *model.image_shape), np.uint8)
    found = np.asarray(model.prepare(np.concatenate([black, 255 - black])), np.float64)
    each = np.stack([found.mean((1, 2)), found.std((1, 2))], 1)
    return tuple(round(float(value), 6) for value in each.ravel())


def compute_fingerprint(gallery: datasets.ImageDataset) -> str:
    """Returns a checksum of a gallery's content, 16 hexadecimal digits.

    For files it depends on their names, sizes and modification times, not on their bytes.
    """
    digest = hashlib.sha256()
    if isinstance(gallery, datasets.ArrayDataset):
        digest.update(np.ascontiguousarray(gallery.images).tobytes())
        return digest.hexdigest()[:16]
    for i in range(len(gallery)):
        try:
            found = os.stat(gallery.name(i))
            line = f"{gallery.name(i)}\0{found.st_size}\0{found.st_mtime_ns}\n"
        except OSError:  # A link to nowhere: it is a bad image.
            line = f"{gallery.name(i)}\0\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def open_index(
    folder: Path,
    model: TrainedModel,
    layer: CodeLayer,
    gallery: datasets.ImageDataset,
    gallery_name: str,
    code_size: int = 0,
) -> Index:
    """Returns the index in a folder, or computes it and writes it there.

    Args:
      folder: The index folder, which is made.
      model: Whose codes are searched.
      layer: The result of `codes.find_layer`.
      gallery: What is searched.
      gallery_name: What messages call it.
      code_size: Numbers to which whitened PCA compresses the codes; 0: all that the layer has.

    Raises:
      UserError: If the folder holds an index of something else or a damaged one, an image cannot be
        decoded (as model.data.on_bad_image says), there are not so many numbers, or the folder
        cannot be written to.
    """
    wanted = IndexDescription(
        version=VERSION,
        weights=compute_checksum(model),
        model=f"{model.name} ({model.weights})",
        options=str(model.choice),
        precision=model.precision,
        normalization=describe_normalization(model),
        layer=layer.name,
        pooling=layer.pooling,
        images=(model.resize, model.image_shape[0]),
        code_size=code_size,
        gallery=gallery_name,
        fingerprint=compute_fingerprint(gallery),
    )
    if (folder / INDEX).exists():
        return _read(folder, wanted)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"index={folder}: the folder holds other files and no {INDEX}: choose another, or an"
            " empty one"
        )
    check_writable(folder, f"index={folder}: cannot be written", "choose another folder")
    if code_size:
        codes.check_code_size(code_size, len(gallery), codes.compute_code_length(model, layer))
    found, labels, rows = images.encode_dataset(model, layer, gallery)
    pca = None
    if code_size:
        found = codes.normalize_length(found)
        pca = codes.fit_pca(found, code_size, whiten=True)
        found = codes.project(pca, found)
    names = tuple(shorten_name(gallery, int(row)) for row in rows)
    index = Index(found, names, rows, labels, pca, was_read=False)
    _write(folder, wanted, index)
    return index


def shorten_name(gallery: datasets.ImageDataset, row: int) -> str:
    """Returns an image's path below its folder, or its name in a data set."""
    if isinstance(gallery, datasets.FolderDataset):
        return gallery.paths[row]
    return gallery.name(row)


def compress(index: Index, found: np.ndarray) -> np.ndarray:
    """Returns codes of queries, compressed as those of the index: [Q, D] float32.

    Args:
      index: The index, whose codes have D values.
      found: [Q, D'], the layer's own codes.
    """
    if index.pca is None:
        return found
    return codes.project(index.pca, codes.normalize_length(found))


def _write(folder: Path, description: IndexDescription, index: Index) -> None:
    files: dict[str, bytes] = {CODES: _save(np.save, index.codes)}
    if index.pca is not None:
        files[PCA] = _save(np.savez, **index.pca._asdict())
    rows = [
        [int(row), int(label), name]
        for row, label, name in zip(index.rows, index.labels, index.names, strict=True)
    ]
    files[NAMES] = json.dumps(rows).encode()
    sums = {name: _hash(content) for name, content in files.items()}
    words = dataclasses.asdict(description) | {"files": sums}
    files[INDEX] = (json.dumps(words, indent=1) + "\n").encode()  # Last: it says that all is there.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise UserError(
            f"index={folder}: cannot be written ({error.strerror}): choose another folder"
        ) from None


def _save(save: Any, *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read(folder: Path, wanted: IndexDescription) -> Index:
    damaged = UserError(f"index={folder}: is damaged: delete the folder to rebuild it")
    try:
        words = json.loads((folder / INDEX).read_bytes())
        version, sums = words["version"], words.pop("files")
        if version == VERSION:
            normalization = tuple(float(value) for value in words["normalization"])
            lists = {"images": tuple(words["images"]), "normalization": normalization}
            found = IndexDescription(**words | lists)
            contents = {name: (folder / name).read_bytes() for name in sums}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise damaged from None
    if version != VERSION:
        raise UserError(f"index={folder}: was written by another version of cnn_jax: {REMEDY}")
    _check_same(folder, found, wanted)
    if any(_hash(contents[name]) != value for name, value in sums.items()):
        raise damaged
    pca = None
    if PCA in contents:
        with np.load(io.BytesIO(contents[PCA])) as arrays:
            pca = Pca(**arrays)
    rows, labels, names = zip(*json.loads(contents[NAMES]), strict=True)
    array = np.load(io.BytesIO(contents[CODES]))
    return Index(array, names, np.array(rows), np.array(labels), pca, was_read=True)


def _check_same(folder: Path, found: IndexDescription, wanted: IndexDescription) -> None:
    """Raises UserError if an index is not of what is wanted."""
    if found.weights != wanted.weights:
        raise UserError(
            f"index={folder}: its codes are of other weights ({found.model}, and not"
            f" {wanted.model}): {REMEDY}"
        )
    if found.fingerprint != wanted.fingerprint:
        changed = found.gallery == wanted.gallery
        other = f"is not {found.gallery}, which the index was built from"
        why = "has changed since" if changed else other
        raise UserError(f"index={folder}: the gallery {wanted.gallery} {why}: {REMEDY}")
    each = (found.normalization, wanted.normalization)
    # Accelerators round differently.
    if len(each[0]) != len(each[1]) or not np.allclose(*each, rtol=1e-4, atol=1e-4):
        raise UserError(f"index={folder}: its images were normalized in another way: {REMEDY}")
    for what in ("options", "precision", "layer", "pooling", "images", "code_size"):
        ours, theirs = getattr(wanted, what), getattr(found, what)
        if ours != theirs:
            raise UserError(
                f"index={folder}: its codes are of {what} {theirs}, not {ours}: {REMEDY}"
            )
