"""Evaluates a finished run, or public weights, by the protocols of `protocols.py`.

A run's results are kept in its folder (`evaluation_file`).
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np

from cnn_jax import data, distributed, models, pretrained
from cnn_jax import mesh as meshes
from cnn_jax.config import Choice, Data, Experiment, change, name_protocol
from cnn_jax.config_file import read_run
from cnn_jax.cpu import memory, settings
from cnn_jax.data import crops, eval_views, preprocess
from cnn_jax.data.decode import Interpolation
from cnn_jax.errors import UserError
from cnn_jax.evaluation.evaluation_file import (
    Evaluation,
    make_evaluation_path,
    read_evaluation,
    write_evaluation,
)
from cnn_jax.evaluation.metrics import measure_scores
from cnn_jax.evaluation.protocols import Views, check_protocols, make_protocol
from cnn_jax.evaluation.scoring import (
    Average,
    Scorer,
    Scores,
    cut_views,
    fuse_scores,
    make_scorer,
    score_images,
)
from cnn_jax.training import checkpoint, run_folders, saved_parameters
from cnn_jax.training.components import make_model

# The fields of an experiment that an evaluation of public weights reads. The weights fix the rest.
WEIGHTS_TAKE = (
    "data.dataset.",
    "data.eval_batch_size",
    "data.on_bad_image",
    "data.workers",
    "train.precision",
)


class NotSavedError(UserError):
    """A run was evaluated, but the results cannot be written into its folder.

    Attributes:
      results: What was measured: {protocol: evaluation}.
    """

    def __init__(self, message: str, results: dict[str, Evaluation]) -> None:
        super().__init__(message)
        self.results = results


def evaluate_run(
    folder: str | Path,
    asked: Iterable[Choice],
    average: Average = "softmax",
    data_dir: str = "",
    experiment: Experiment | None = None,
) -> dict[str, Evaluation]:
    """Evaluates the run in <workdir>/<run>/seed<k>.

    Results of the same checkpoint are not computed again.

    Args:
      folder: The run's folder.
      asked: Protocols; one without scales takes the run's own evaluation size.
      average: What is averaged over views and scales: softmax or logits.
      data_dir: Where prepared TFDS folders lie, if not where they lay in training.
      experiment: The run as it was launched last, with what may change between launches, such as
        the size of a batch; None: as its folder has it.

    Returns:
      {protocol: what it measured}.

    Raises:
      NotFiniteError: If the model's scores are not finite.
      NotSavedError: If the results cannot be written; it holds them.
      UserError: If the run has no checkpoint, a protocol is wrong, or the data are not prepared.
    """
    folder = Path(folder)
    experiment = experiment or read_run(folder, data_dir)
    choices = {name_protocol(choice): choice for choice in asked}
    check_protocols(dataclasses.replace(experiment, protocols=tuple(choices.values())))
    config, step = experiment.data, checkpoint.find_latest_step(folder)
    known: dict[str, Evaluation] = {}
    for name in choices:
        found = read_evaluation(make_evaluation_path(folder, name, average))
        if found and (found.step, found.average) == (step, average):
            known[name] = found
    left = {name: choice for name, choice in choices.items() if name not in known}
    not_saved = ""
    if left:
        source = data.load_dataset(config)
        run_folders.check_data(data.describe_dataset(source), folder, finished=True)
        by_split = _group_by_split(left)
        images = {split: _find_images(config, source, split) for split in by_split}
        count = sum(map(len, images.values()))
        # Before the checkpoint is read, which starts JAX.
        memory.keep_memory(min(count, config.eval_batch_size) * _count_values(config, source))
        params, stats, step = saved_parameters.load_parameters(folder)
        loader = data.make_loader(config, source)
        model = make_model(experiment, source.num_classes)
        crop = config.image_size or loader.image_shape[0]
        eval_size = crops.choose_eval_side(config) if config.image_size else crop
        with jax.default_matmul_precision(experiment.train.precision):
            prepare = functools.partial(preprocess.preprocess_sized, loader.arrays["mean"])
            scorer = make_scorer(
                *(model, params, stats, prepare, crop, _make_local_mesh(), average, config.flip),
                count=count,
            )
            for split, own in by_split.items():
                for name, found in _evaluate(scorer, config, images[split], own, eval_size, step):
                    known[name] = found
                    if distributed.is_primary():
                        path = make_evaluation_path(folder, name, average)
                        not_saved = write_evaluation(path, found) or not_saved
    results = {name: known[name] for name in choices}
    if not_saved:
        raise NotSavedError(not_saved, results)
    return results


def evaluate_weights(
    experiment: Experiment, weights: str, protocol: Choice, average: Average = "softmax"
) -> Evaluation:
    """Evaluates public weights on the test images of experiment.data.

    Images are scaled and normalized by the publisher's recipe, with two differences. The longer
    side is rounded to the nearest pixel; torchvision and timm round it down. The corner of the
    center crop is rounded down; they round halves to even. A crop may therefore lie one pixel
    beside theirs.

    Args:
      experiment: Names the model and the data, and how their images are decoded.
      weights: A file or an address.
      protocol: One without scales takes the publisher's own evaluation size.
      average: What is averaged over views and scales: softmax or logits.

    Raises:
      NotFiniteError: If the model's scores are not finite.
      UserError: If the weights cannot be read, the protocol is wrong, or the images have other
        classes than the weights.
    """
    # Before the file is read, which starts JAX. The images of public weights are large.
    memory.keep_memory(settings.MIN_BATCH_VALUES)
    loaded = pretrained.load(experiment.model.name, weights)
    recipe = loaded.preprocessing
    model = models.create(experiment.model.name, loaded.num_classes, **loaded.options)
    side = max(recipe.resize, recipe.crop)
    config = dataclasses.replace(experiment.data, image_size=recipe.crop, train_resize=(side,))
    check_protocols(dataclasses.replace(experiment, data=config, protocols=(protocol,)))
    source = data.load_test_images(config, loaded.num_classes)
    for line in data.summarize_dataset(source):
        print(line, file=sys.stderr)
    if source.num_classes != loaded.num_classes:
        raise UserError(
            f"data set {config.name}: has {source.num_classes} classes, the weights"
            f" {loaded.num_classes}: give the data that they are for"
        )

    def prepare(images: jax.Array, size: jax.Array) -> jax.Array:
        return recipe.normalize(images)

    with jax.default_matmul_precision(experiment.train.precision):
        images, mesh = _as_images(config, source.test), _make_local_mesh()
        scorer = make_scorer(
            *(model, loaded.params, loaded.stats, prepare, recipe.crop, mesh, average),
            count=len(images),
        )
        asked = {name_protocol(protocol): protocol}
        ((_, found),) = _evaluate(scorer, config, images, asked, side, None, recipe.interpolation)
    return found


def _count_values(config: Data, source: data.Dataset) -> int:
    """Returns the number of values of an image as the model takes it, H * W * C."""
    if isinstance(source.train, data.Arrays):
        return math.prod(source.train.images.shape[1:])
    return config.image_size**2 * 3


def _group_by_split(choices: dict[str, Choice]) -> dict[str, dict[str, Choice]]:
    """Returns {split: {protocol: its choice}}."""
    groups: dict[str, dict[str, Choice]] = {}
    for name, choice in choices.items():
        groups.setdefault(str(choice.args.get("split", "")), {})[name] = choice
    return groups


def _find_images(config: Data, source: data.Dataset, split: str) -> data.ImageDataset:
    """Returns the images of a `protocols.Split`, `source` being the data set as the run sees it."""
    if split == "train":
        return _as_images(config, source.train)
    if split == "test" and config.validation_images:
        source = data.load_dataset(dataclasses.replace(config, validation_images=0))
    return _as_images(config, source.test)


def _as_images(config: Data, images: data.Arrays | data.ImageDataset) -> data.ImageDataset:
    if isinstance(images, data.Arrays):
        return data.ArrayDataset(f"{config.name} test", images)
    return images


def _make_local_mesh() -> jax.sharding.Mesh:
    # Each of several processes evaluates for itself, and the first one writes.
    return meshes.make_batch_mesh(jax.local_devices())


def _evaluate(
    scorer: Scorer,
    config: Data,
    images: data.ImageDataset,
    asked: dict[str, Choice],
    eval_size: int,
    step: int | None,
    interpolation: Interpolation = "bilinear",
) -> Iterator[tuple[str, Evaluation]]:
    """Yields (name, result) of each protocol.

    Kinds of views and scales that several protocols share are scored once.
    """
    protocols = {name: make_protocol(c, scorer.crop, eval_size) for name, c in asked.items()}
    devices = jax.local_device_count()

    @functools.cache
    def score(views: Views, scale: int) -> Scores:
        fitting = eval_views.MAX_PIXELS_PER_BATCH // scale**2
        wanted = max(1, min(config.eval_batch_size, fitting))
        batch = -(-wanted // devices) * devices
        if views.dense:
            batches = eval_views.iterate_resized(
                config, images, scale, batch, devices, interpolation
            )
        else:
            cut = functools.partial(cut_views, views, scorer.crop)
            batches = eval_views.iterate_views(config, images, scale, cut, batch, interpolation)
        return score_images(scorer, views, batches)

    for name, protocol in protocols.items():
        each = [score(views, scale) for views in protocol.views for scale in protocol.scales]
        each = _keep_shared(each)
        found = fuse_scores(each, scorer.average)
        changed = None
        if any(views.shift for views in protocol.views):
            still = [
                score(views._replace(shift=0), scale)
                for views in protocol.views
                for scale in protocol.scales
            ]
            answers = fuse_scores(_keep_shared(still), scorer.average).scores.argmax(1)
            changed = float((answers != found.scores.argmax(1)).mean())
        yield (
            name,
            Evaluation(
                **dataclasses.asdict(measure_scores(found)),
                protocol=name_protocol(change(asked[name], scales=protocol.scales)),
                average=scorer.average,
                mirrored=scorer.mirror,
                left_out=len(images) - len(found.index),
                step=step,
                changed_error=changed,
            ),
        )


def _keep_shared(each: list[Scores]) -> list[Scores]:
    """Returns the scores of those images that all of them have.

    Where bad images are left out, one may be too large at one scale and fit at another.
    """
    if all(np.array_equal(one.index, each[0].index) for one in each):
        return each  # The usual case; the scores are large.
    shared = functools.reduce(np.intersect1d, [one.index for one in each])
    kept = [np.isin(one.index, shared) for one in each]
    return [Scores(*(a[rows] for a in one)) for one, rows in zip(each, kept, strict=True)]
