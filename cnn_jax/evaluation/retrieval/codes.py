"""Images to codes: what a layer of a model computes, pooled; L2 normalization; PCA.

Babenko et al. 2014 (arXiv:1404.1777) call the activations of a classifier's upper layers "neural
codes", scale them to length 1, and compress them by PCA (Sec. 3 and 5).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import mesh as meshes
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.models import Model
from cnn_jax.trained import TrainedModel

Pooling = Literal["flat", "average", "max"]
POOLINGS: tuple[Pooling, ...] = ("flat", "average", "max")
CODE = "code"  # The layer between an autoencoder's encoder and decoder.


class CodeLayer(NamedTuple):
    """A layer whose activations are codes.

    Attributes:
      name: As `Model.features` calls it.
      pooling: Pooling of feature maps: flat (every value), or the average or maximum of each
        channel.
    """

    name: str
    pooling: Pooling


class Pca(NamedTuple):
    """A projection onto principal components.

    Attributes:
      mean: [D].
      components: [size, D], the most important first.
      scale: [size], by which components are multiplied: 1, or with whitening 1 / deviation.
    """

    mean: np.ndarray
    components: np.ndarray
    scale: np.ndarray


def choose_layer(
    model: Model,
    params: Any,
    stats: Any,
    image_shape: tuple[int, ...],
    name: str = "",
    pooling: Pooling | None = None,
) -> CodeLayer:
    """Returns the layer of a name, or the one that suits the model.

    Args:
      model: The model.
      params: Its parameters.
      stats: Batch norm's running averages.
      image_shape: (H, W, C) of what the model takes.
      name: Name of the layer; empty: an autoencoder's code, or else the last one before the logits.
      pooling: None: maps are averaged, except an autoencoder's code, which is kept whole.

    Raises:
      UserError: If there is no such layer or pooling.
    """
    stages = list_layers(model, params, stats, image_shape)
    if not stages:
        raise UserError("layer: this model has no layers whose activations can be codes")
    if name and name not in stages:
        raise UserError(f"layer={name}: the model has no such layer; {suggest_names(name, stages)}")
    if pooling not in (None, *POOLINGS):
        raise UserError(
            f"pooling={pooling!r}: no such pooling; {suggest_names(str(pooling), POOLINGS)}"
        )
    name = name or (CODE if CODE in stages else stages[-1])
    return CodeLayer(name, pooling or ("flat" if name == CODE else "average"))


def find_layer(trained: TrainedModel, name: str = "") -> CodeLayer:
    """Returns the layer of a name, or the one that suits the model, as `choose_layer` does.

    Args:
      trained: The model.
      name: Name of the layer; empty: as in `choose_layer`.

    Raises:
      UserError: If there is no such layer.
    """
    return choose_layer(trained.model, trained.params, trained.stats, trained.image_shape, name)


def list_layers(
    model: Model, params: Any, stats: Any, image_shape: tuple[int, ...]
) -> tuple[str, ...]:
    """Returns the names of a model's layers, in the order of the forward pass.

    Args:
      model: The model.
      params: Its parameters.
      stats: Batch norm's running averages.
      image_shape: (H, W, C) of what the model takes.
    """
    names: list[str] = []

    def run(params: Any, stats: Any, images: jax.Array) -> None:
        names.extend(model.features(params, stats, images))  # What JAX returns is in another order.

    jax.eval_shape(run, params, stats, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return tuple(names)


def compute_code_length(trained: TrainedModel, layer: CodeLayer) -> int:
    """Returns the number of values of a layer's codes, without computing any code."""
    images = jax.ShapeDtypeStruct((1, *trained.image_shape), jnp.float32)

    def run(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        features = trained.model.features(params, stats, images)
        return pool(features[layer.name], layer.pooling)

    return jax.eval_shape(run, trained.params, trained.stats, images).shape[1]


def pool(x: jax.Array, pooling: Pooling) -> jax.Array:
    """Returns activations as codes [B, D] float32.

    Args:
      x: [B, H, W, C], or [B, ...] of a layer without feature maps, which are never pooled.
      pooling: As in `CodeLayer`.
    """
    x = x.astype(jnp.float32)
    if x.ndim == 4 and pooling != "flat":
        return x.mean((1, 2)) if pooling == "average" else x.max((1, 2))
    return x.reshape(len(x), -1)


def make_encoder(
    model: Model,
    params: Any,
    stats: Any,
    layer: CodeLayer,
    prepare: Callable[[jax.Array], jax.Array],
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from images to codes, compiled over the devices of this process.

    Args:
      model: The model.
      params: Its parameters.
      stats: Batch norm's running averages.
      layer: The result of `choose_layer`.
      prepare: Images [B, H, W, C] as they come -> what the model takes.

    Returns:
      (images [B, H, W, C]) -> codes [B, D] float32. Batches of one size are compiled once; any
      number of images is filled up so that the devices share them.
    """
    mesh = meshes.make_batch_mesh(jax.local_devices())
    whole, split = meshes.make_replicated_sharding(mesh), meshes.make_batch_sharding(mesh)
    params, stats = jax.device_put((params, stats), whole)

    def run(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        return pool(model.features(params, stats, prepare(images))[layer.name], layer.pooling)

    compiled = jax.jit(run, in_shardings=(whole, whole, split), out_shardings=whole)

    def encode(images: np.ndarray) -> np.ndarray:
        rows = -(-len(images) // mesh.size) * mesh.size
        filled = np.concatenate([images, np.repeat(images[-1:], rows - len(images), axis=0)])
        return np.asarray(compiled(params, stats, filled))[: len(images)]

    return encode


def make_trained_encoder(
    trained: TrainedModel, layer: CodeLayer
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from images [B, H, W, C], 0 to 255, to codes, as `make_encoder` does.

    Matrix products have the precision of the model's training.

    Args:
      trained: The model.
      layer: The layer whose activations are the codes.
    """
    encode = make_encoder(trained.model, trained.params, trained.stats, layer, trained.prepare)

    def encode_as_trained(images: np.ndarray) -> np.ndarray:
        with jax.default_matmul_precision(trained.precision):
            return encode(images)

    return encode_as_trained


def encode_images(
    encode: Callable[[np.ndarray], np.ndarray], images: np.ndarray, batch: int = 512
) -> np.ndarray:
    """Returns the codes of images, [N, D] float32, encoded batch by batch.

    Args:
      encode: The result of `make_encoder` or `make_trained_encoder`.
      images: [N, H, W, C].
      batch: Number of images of a batch.
    """
    return encode_batches(encode, (images[i : i + batch] for i in range(0, len(images), batch)))


def encode_batches(
    encode: Callable[[np.ndarray], np.ndarray], batches: Iterable[np.ndarray]
) -> np.ndarray:
    """Returns the codes of the images of all batches, [N, D] float32.

    The last batch is filled up to the size of the first, so that one program encodes all.

    Args:
      encode: The result of `make_encoder` or `make_trained_encoder`.
      batches: Batches of images [B, H, W, C], none of which is larger than the first.
    """
    codes: list[np.ndarray] = []
    size = 0
    for images in batches:
        size = size or len(images)
        missing = max(0, size - len(images))
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        codes.append(encode(filled)[: len(images)])
    return np.concatenate(codes)


def normalize_length(codes: np.ndarray) -> np.ndarray:
    """Returns codes [N, D] scaled to length 1, float32; a code of zeros stays as it is."""
    codes = np.asarray(codes, np.float32)
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    return codes / np.where(lengths > 0, lengths, 1)


def check_code_size(size: int, count: int, length: int) -> None:
    """Checks that codes have enough principal components.

    Args:
      size: Number of components to keep.
      count: Number of codes.
      length: Number of values of a code.

    Raises:
      UserError: If there are fewer than `size` components.
    """
    most = min(count - 1, length)
    if not 1 <= size <= most:
        raise UserError(
            f"code_size={size}: {count:,} codes of {length:,} numbers have at most {most:,}"
            f" principal components: choose 1 to {most:,}"
        )


def fit_pca(codes: np.ndarray, size: int, whiten: bool = False) -> Pca:
    """Returns the projection of codes onto their principal components.

    Args:
      codes: [N, D] of the gallery.
      size: Components to keep.
      whiten: Whether each component is divided by its standard deviation.

    Raises:
      UserError: If size exceeds the number of components.
    """
    count, length = codes.shape
    check_code_size(size, count, length)
    mean = codes.mean(0, dtype=np.float64)
    centered = codes - mean
    # Both matrices have the same eigenvalues, except for zeros. The smaller one is decomposed.
    if length <= count:
        values, vectors = np.linalg.eigh(centered.T @ centered / (count - 1))
        components = vectors[:, ::-1][:, :size].T
    else:
        values, vectors = np.linalg.eigh(centered @ centered.T / (count - 1))
        components = vectors[:, ::-1][:, :size].T @ centered
        components /= np.maximum(np.linalg.norm(components, axis=1, keepdims=True), 1e-300)
    variances = np.maximum(values[::-1][:size], 0)
    scale = np.ones(size)
    if whiten:
        # A component without variance holds only rounding errors, which whitening would enlarge.
        some = variances > 1e-10 * variances[0]
        scale = np.where(some, 1 / np.sqrt(np.where(some, variances, 1)), 0)
    return Pca(mean, components, scale)


def project(pca: Pca, codes: np.ndarray) -> np.ndarray:
    """Returns the projections of codes onto principal components, [N, size] float32.

    Args:
      pca: The result of `fit_pca`.
      codes: [N, D].
    """
    return (((codes - pca.mean) @ pca.components.T) * pca.scale).astype(np.float32)
