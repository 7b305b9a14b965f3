"""What image_retrieval measures of its finished runs: each code's retrieval, and denoising.

The rows of a seed are kept, and measured again only if its models are others (`keep`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn_jax import data, trained
from cnn_jax.config import Experiment
from cnn_jax.evaluation import denoising
from cnn_jax.evaluation.retrieval import codes, images, measures
from cnn_jax.evaluation.retrieval.search import Distance
from cnn_jax.training import metrics_log, run_folders

from . import keep

AUTOENCODER = "autoencoder"
SMALL = "autoencoder-small"
CLASSIFIER = "classifier"
UNTRAINED = "autoencoder, untrained"
PIXELS = "pixels"
PCA_PIXELS = "pixels, PCA"
# From what is trained to what is not; the order of tables.
CODES = (CLASSIFIER, AUTOENCODER, SMALL, UNTRAINED, PCA_PIXELS, PIXELS)
SIZES = (2, 4, 8, 16, 32, 64, 128)  # Sizes of codes that PCA compresses.
MAX_SIZE_QUERIES = 2_000  # Of the test images, for each size: the measure is a mean over them.
DENOISED, CHOSEN_ON = 1_000, 200  # Test images that are restored; training images to choose on.
MEDIANS, WEIGHTS = (3, 5), (0.1, 0.2, 0.3, 0.5, 0.8)
NOISY, MEDIAN, TOTAL_VARIATION = "noisy input", "median filter", "total variation"


class Restorer(NamedTuple):
    """A way of restoring images.

    Attributes:
      restore: Noisy images [N, H, W, C], 0 to 255 -> restored images, 0 to 1.
      strength: Strength of a filter in words; empty: the restorer is no filter.
    """

    restore: Callable[[np.ndarray], np.ndarray]
    strength: str = ""


class CodedImages(NamedTuple):
    """The codes of all images by one kind of code, [N, D] each.

    Attributes:
      name: Name of the kind of code, from `CODES`.
      gallery: Codes of the gallery.
      clean: Codes of the queries.
      noisy: Codes of the queries with noise.
    """

    name: str
    gallery: np.ndarray
    clean: np.ndarray
    noisy: np.ndarray


class Collection(NamedTuple):
    """The images of a study: the gallery is what is trained on, the queries are the test images.

    Attributes:
      gallery: The images that are searched.
      queries: The images for which the nearest ones are found.
      noise_std: Standard deviation of the Gaussian noise on the queries, for pixels from 0 to 1.
      num_classes: Number of classes.
    """

    gallery: images.LoadedImages
    queries: images.LoadedImages
    noise_std: float
    num_classes: int

    def add_noise(self, seed: int, pictures: np.ndarray) -> np.ndarray:
        """Returns images [N, H, W, C] with noise, clipped to 0 to 255, float32."""
        rng = np.random.default_rng(seed)
        noise = 255 * self.noise_std * rng.standard_normal(pictures.shape, np.float32)
        return np.clip(pictures + noise, 0, 255)


def measure_runs(
    workdir: Path, runs: Sequence[Experiment], tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Returns the rows of all seeds whose runs are finished, and draws the first one's pictures.

    Args:
      workdir: The study's folder.
      runs: Every seed of every run.
      tell: Takes a line for each seed.
    """
    seeds: dict[int, dict[str, Experiment]] = {}
    for run in runs:
        if metrics_log.read_result(run_folders.find_run_folder(run, workdir)):
            seeds.setdefault(run.seed, {})[run.name] = run
    names = {run.name for run in runs}
    complete = {seed: own for seed, own in sorted(seeds.items()) if own.keys() == names}
    rows: list[dict[str, Any]] = []
    precisions: list[dict[str, np.ndarray]] = []
    shared: dict[tuple[str, ...], Any] = {}
    models = {seed: _identify_models(workdir, own) for seed, own in complete.items()}
    for seed, own in complete.items():
        kept = keep.read_measured(workdir, seed, models[seed])
        if kept is None:
            kept = measure_seed(seed, *_load_seed(workdir, own), shared)
            keep.write_measured(workdir, seed, models[seed], kept)
            tell(f"seed {seed}: codes and denoising are measured")
        rows += kept[0]
        precisions.append(kept[1])
    from . import pictures

    if not complete:
        for name in pictures.FILES:  # Those of earlier runs, which were deleted or go on.
            (workdir / name).unlink(missing_ok=True)
        return rows
    seed, own = next(iter(complete.items()))
    if not keep.are_drawn(workdir, pictures.FILES, seed, models[seed]):
        pictures.draw_pictures(workdir, seed, *_load_seed(workdir, own))
        keep.write_drawn(workdir, seed, models[seed])
        tell(f"seed {seed}: pictures are drawn")
    return [*rows, _compute_covariance(precisions)]


def _identify_models(workdir: Path, own: Mapping[str, Experiment]) -> keep.Models | None:
    return keep.identify_models(
        {name: run_folders.find_run_folder(run, workdir) for name, run in own.items()}
    )


def _load_seed(
    workdir: Path, own: Mapping[str, Experiment]
) -> tuple[Collection, dict[str, trained.TrainedModel], trained.TrainedModel]:
    """Returns a seed's images, its models by the run's name, and the untrained autoencoder."""
    models = {
        name: trained.load_run(run_folders.find_run_folder(run, workdir))
        for name, run in own.items()
    }
    return collect_images(own), models, trained.initialize_run(own[AUTOENCODER])


def collect_images(own: Mapping[str, Experiment]) -> Collection:
    """Reads the images of a seed's runs, which all have the same data."""
    run = own[AUTOENCODER]
    dataset = data.load_dataset(run.data)
    made = trained.initialize_run(run, dataset)
    crop = made.image_shape[0]
    gallery, queries = (
        images.read_images(run.data, part, made.resize, crop)
        for part in (dataset.train, dataset.test)
    )
    noise_std = made.model.module.input_noise_std
    return Collection(gallery, queries, noise_std, dataset.num_classes)


def measure_seed(
    seed: int,
    collection: Collection,
    models: Mapping[str, trained.TrainedModel],
    untrained: trained.TrainedModel,
    shared: dict[tuple[str, ...], Any],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns a seed's rows, and the average precision of each query by code and kind of query.

    Args:
      seed: Seed of the runs and of the noise.
      collection: The images.
      models: The trained models by the run's name.
      untrained: The autoencoder as its training starts.
      shared: Cache of results that are the same for every seed, such as those of clean pixels.
    """
    rows: list[dict[str, Any]] = []
    precisions: dict[str, np.ndarray] = {}
    for code, gallery, clean, noisy in iterate_codes(seed, collection, models, untrained):
        asked: list[tuple[str, np.ndarray, Distance]] = [
            ("clean", clean, "cosine"),
            ("noisy", noisy, "cosine"),
            ("clean", clean, "euclidean"),
        ]
        for kind, queries, distance in asked:
            key = (code, kind, distance)
            found = shared.get(key) or measures.measure_queries(
                gallery, collection.gallery.labels, queries, collection.queries.labels, distance
            )
            if code in (PIXELS, PCA_PIXELS) and kind == "clean":
                shared[key] = found
            means = measures.summarize(found, collection.queries.labels, collection.num_classes)
            about = {"seed": seed, "code": code, "kind": kind, "distance": distance}
            row = {"measure": "retrieval", **about, "size": gallery.shape[1]}
            rows.append(row | _round(dataclasses.asdict(means)))
            if distance == "cosine":
                precisions[f"{code}/{kind}"] = found.average_precision.astype(np.float32)
        sizes = shared.get((code,)) or _measure_sizes(
            code, gallery, clean[:MAX_SIZE_QUERIES], collection
        )
        if code == PIXELS:
            shared[(code,)] = sizes
        rows += [row | {"seed": seed} for row in sizes]
    rows += measure_denoising(seed, collection, models)
    return rows, precisions


def iterate_codes(
    seed: int,
    collection: Collection,
    models: Mapping[str, trained.TrainedModel],
    untrained: trained.TrainedModel,
) -> Iterator[CodedImages]:
    """Yields the images' codes by each kind of code.

    Args:
      seed: Seed of the noise.
      collection: The images.
      models: The trained models by the run's name.
      untrained: The autoencoder as its training starts.
    """
    pictures = collection.gallery.images, collection.queries.images
    every = (*pictures, collection.add_noise(seed, collection.queries.images))
    pixels = [(x.reshape(len(x), -1) / np.float32(255)).astype(np.float32) for x in every]
    size = 0
    for code, model in (*models.items(), (UNTRAINED, untrained)):
        encode = codes.make_trained_encoder(model, codes.find_layer(model))
        found = [codes.encode_images(encode, x) for x in every]
        size = found[0].shape[1] if code == AUTOENCODER else size
        yield CodedImages(code, *found)
    yield CodedImages(PIXELS, *pixels)
    size = min(size, pixels[0].shape[1] - 1, len(pixels[0]) - 1)
    pca = codes.fit_pca(pixels[0], size)
    yield CodedImages(PCA_PIXELS, *(codes.project(pca, x) for x in pixels))


def _measure_sizes(
    code: str, gallery: np.ndarray, queries: np.ndarray, collection: Collection
) -> list[dict[str, Any]]:
    """Returns rows of a code that PCA compresses to fewer numbers, whitened and not."""
    if code == PCA_PIXELS:
        return []  # It is the pixels' own.
    rows = []
    labels = collection.queries.labels[: len(queries)]
    gallery, queries = codes.normalize_length(gallery), codes.normalize_length(queries)
    whole = codes.fit_pca(gallery, min(max(SIZES), *gallery.shape, len(gallery) - 1), whiten=True)
    parts = [codes.project(whole, x) for x in (gallery, queries)]
    for size in (size for size in SIZES if size <= parts[0].shape[1]):
        for whiten in (False, True):
            scale = np.float32(1) if whiten else (1 / np.maximum(whole.scale, 1e-30))[:size]
            small = [part[:, :size] * np.asarray(scale, np.float32) for part in parts]
            found = measures.measure_queries(
                small[0], collection.gallery.labels, small[1], labels, "cosine"
            )
            means = measures.summarize(found, labels, collection.num_classes)
            about = {"code": code, "size": size, "whitened": whiten}
            value = round(means.mean_average_precision, 6)
            rows.append({"measure": "size", **about, "mean_average_precision": value})
    return rows


def rebuild(model: trained.TrainedModel, pictures: np.ndarray) -> np.ndarray:
    """Returns an autoencoder's reconstructions, [N, H, W, C], clipped to 0 to 1.

    Args:
      model: The autoencoder.
      pictures: [N, H, W, C], 0 to 255.
    """
    import jax

    run = jax.jit(lambda x: model.model.apply(model.params, model.stats, model.prepare(x))[0])
    with jax.default_matmul_precision(model.precision):
        return np.clip(np.asarray(run(pictures)), 0, 1)


def make_restorers(
    seed: int, collection: Collection, models: Mapping[str, trained.TrainedModel]
) -> dict[str, Restorer]:
    """Returns the ways of restoring images by their names.

    The filters' strength is the one with the highest PSNR on training images.
    """
    clean = collection.gallery.images[:CHOSEN_ON] / np.float32(255)
    noisy = collection.add_noise(seed + 1_000, collection.gallery.images[:CHOSEN_ON]) / 255

    def choose_best(restore: Callable[[np.ndarray, Any], np.ndarray], strengths: Sequence) -> Any:
        found = [denoising.measure_quality(clean, restore(noisy, s)).psnr for s in strengths]
        return strengths[int(np.argmax(found))]

    size = choose_best(denoising.filter_median, MEDIANS)
    weight = choose_best(denoising.denoise_total_variation, WEIGHTS)
    return {
        NOISY: Restorer(lambda x: x / 255),
        MEDIAN: Restorer(lambda x: denoising.filter_median(x / 255, size), f"{size}x{size}"),
        TOTAL_VARIATION: Restorer(
            lambda x: denoising.denoise_total_variation(x / 255, weight), str(weight)
        ),
        SMALL: Restorer(lambda x: rebuild(models[SMALL], x)),
        AUTOENCODER: Restorer(lambda x: rebuild(models[AUTOENCODER], x)),
    }


def measure_denoising(
    seed: int, collection: Collection, models: Mapping[str, trained.TrainedModel]
) -> list[dict[str, Any]]:
    """Returns a row for each way of restoring noisy test images."""
    pictures = collection.queries.images[:DENOISED]
    noisy = collection.add_noise(seed, pictures)
    rows = []
    for name, way in make_restorers(seed, collection, models).items():
        found = denoising.measure_quality(pictures / np.float32(255), way.restore(noisy))
        about = {"measure": "denoising", "seed": seed, "method": name, "strength": way.strength}
        rows.append(about | _round(found._asdict()))
    return rows


def _compute_covariance(precisions: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Returns the covariance over queries of each code's mean average precision.

    Average precisions are averaged over seeds first. The variance of a difference of two codes,
    whose queries are the same, follows from it.
    """
    names = list(precisions[0])
    each = np.mean([[own[name] for name in names] for own in precisions], axis=0, dtype=np.float64)
    each = each[:, np.isfinite(each).all(0)]
    covariance = np.atleast_2d(np.cov(each)) / each.shape[1]
    values = [[float(f"{value:.6g}") for value in line] for line in covariance]
    return {"measure": "covariance", "codes": names, "covariance": values}


def _round(values: Mapping[str, Any]) -> dict[str, Any]:
    def shorten(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 6)
        return [shorten(one) for one in value] if isinstance(value, tuple) else value

    return {name: shorten(value) for name, value in values.items()}
