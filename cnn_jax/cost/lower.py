"""Lowers the training step of an experiment for devices that may not be attached."""

import functools
import importlib.util
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_jax import data
from cnn_jax import mesh as meshes
from cnn_jax.config import Experiment
from cnn_jax.cost import chips
from cnn_jax.cost.traced_counts import count_multiply_adds
from cnn_jax.data.alter import choose_tail
from cnn_jax.data.base import as_arrays
from cnn_jax.errors import UserError
from cnn_jax.training.compiled_functions import compile_step, find_base_rate, make_step
from cnn_jax.training.components import make_components, make_model
from cnn_jax.training.multi_seed import Inputs
from cnn_jax.training.program import split_seed_keys
from cnn_jax.training.state import init_state

# Without these settings libtpu looks for a TPU and prints many warnings, and only one process at a
# time may use it, which is unnecessary for compiling.
LIBTPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


class LoweredStep(NamedTuple):
    """A run's training step, lowered for devices.

    Attributes:
      lowered: `compile` turns it into the program that the run executes.
      multiply_adds: Multiply-adds of one image's forward pass.
    """

    lowered: jax.stages.Lowered
    multiply_adds: int


def lower_step(experiment: Experiment, devices: list[jax.Device]) -> LoweredStep:
    """Lowers the run's own training step for the devices, without data and without allocating.

    Args:
      experiment: The run.
      devices: May not be attached.
    """
    hosts = {device.process_index for device in devices}
    if experiment.train.parallel == "pmap" and len(hosts) > 1:
        raise UserError(
            "train.parallel=pmap: JAX maps over the chips of one host: plan it for v5e:2x2, or set"
            " train.parallel=jit"
        )
    source, streamed = _make_dataset(experiment)
    parts = make_components(experiment, source, len(devices))
    mesh = meshes.make_batch_mesh(devices)
    loaded = _keep_one_image(source) if streamed else source
    loader = data.make_loader(experiment.data, loaded, experiment.seed)
    arrays, batch = loader.arrays, next(loader.batches(0))
    shape = as_arrays(source.train).images.shape[1:]
    if streamed:
        rows = experiment.data.batch_size
        pixels = np.broadcast_to(np.uint8(0), (rows, *shape))
        batch |= {"image": pixels, "label": np.zeros(rows, np.int32), "bad": np.zeros(rows, bool)}
        loader = loader._replace(fetch=lambda arrays, batch: batch)
        arrays = {name: arrays[name] for name in arrays.keys() - {"image", "label"}}
    (init_key,), keys = split_seed_keys([experiment.seed])
    image = jax.ShapeDtypeStruct((1, *shape), "float32")
    init = functools.partial(init_state, parts.model, parts.optimizer, images=image)
    state = jax.eval_shape(init, init_key)
    step = make_step(experiment, parts, loader, 1, mesh).step
    compiled: Any = compile_step(experiment, step, mesh, image.size)[0]
    if not hasattr(compiled, "lower"):
        # With pmap, the step is a plain function around the compiled one.
        compiled = jax.jit(compiled)
    plain = make_model(experiment, source.num_classes)
    base = find_base_rate(experiment, source)
    inputs = Inputs(arrays, tuple(map(jax.random.key_data, keys)), base and base.rate)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, inputs, batch))
    return LoweredStep(compiled.lower(*shapes), count_multiply_adds(plain, shape))


def _make_dataset(experiment: Experiment) -> tuple[data.Dataset, bool]:
    """Returns a data set of the run's shapes that takes no memory, and whether it is streamed.

    It has as many images as the run's, which may lie on the device, and whose epochs schedules may
    count. The classes of a data set that is not opened have equally many. Full-size images are
    streamed, because they do not fit on a device. The host crops them before the step.
    """
    (height, width, channels), classes = data.find_image_shape(experiment.data)
    if info := data.DATASET_INFO.get(experiment.data.dataset.name):
        images = info.train_images - experiment.data.validation_images
        labels, test = np.arange(images, dtype=np.int32) % classes, info.test_images
        if experiment.data.long_tail > 1:
            labels = labels[choose_tail(labels, classes, experiment.data.long_tail)]
    else:  # `find_image_shape` has opened it.
        dataset = data.load_dataset(experiment.data)
        labels, test = dataset.train.labels, dataset.test.count

    def make_split(labels: np.ndarray) -> data.Arrays:
        pixels = np.broadcast_to(np.uint8(0), (len(labels), height, width, channels))
        return data.Arrays(pixels, labels)

    streamed = data.is_streamed(experiment.data)
    no_labels = np.broadcast_to(np.int32(0), (test,))
    return data.Dataset(make_split(labels), make_split(no_labels), classes), streamed


def _keep_one_image(dataset: data.Dataset) -> data.Dataset:
    """Returns the first training image of a data set in memory; all of them would be averaged."""
    train = as_arrays(dataset.train)
    return dataset._replace(train=data.Arrays(train.images[:1], train.labels[:1]))


def make_slice(topology: str) -> list[jax.Device]:
    """Returns the devices of a TPU slice that is not here, one a chip."""
    _, count = chips.parse_topology(topology)
    if not importlib.util.find_spec("libtpu"):
        raise UserError(
            f"topology={topology}: needs libtpu, which compiles for TPUs: pip install libtpu"
        )
    from jax.experimental import topologies

    for name, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    generation = topology.partition(":")[0]
    # A v4 or v5p chip has two cores, which work as one device where they are joined.
    joined = {"chip_config_name": "megacore"} if generation in ("v4", "v5p") else {}
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology, **joined)
    except jax.errors.JaxRuntimeError as error:
        words = str(error).splitlines()[0]
        raise UserError(
            f"topology={topology}: libtpu does not make such a slice ({words}); {chips.HELP}"
        ) from None
    devices = list(description.devices)
    assert len(devices) == count, (topology, len(devices))
    return devices
