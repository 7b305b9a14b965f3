"""MODELS, which lists all models, and `create`, which makes one of them."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import flax.errors
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError, suggest_names
from cnn_jax.models import (
    alexnet,
    autoencoder,
    cuda_convnet,
    googlenet,
    inception,
    lazy_init,
    lenet,
    mlp,
    resnet,
    small_cnn,
    vgg,
    zfnet,
)
from cnn_jax.models.base import BaseModel, Score
from cnn_jax.models.spec import ModelSpec, Shape
from cnn_jax.values import convert

Params: TypeAlias = Any
Stats: TypeAlias = Any

MODELS: dict[str, ModelSpec] = {
    **mlp.MODELS,
    **small_cnn.MODELS,
    **cuda_convnet.MODELS,
    **lenet.MODELS,
    **alexnet.MODELS,
    **zfnet.MODELS,
    **vgg.MODELS,
    **googlenet.MODELS,
    **inception.MODELS,
    **autoencoder.MODELS,
    **resnet.MODELS,
}
# {name in other libraries: name here}, for error messages.
OTHER_NAMES: dict[str, str] = {**vgg.OTHER_NAMES}

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Model(NamedTuple):
    """A model as pure functions.

    Attributes:
      init: (key, images [B, H, W, C]) -> (params, stats). stats are batch norm's averages.
      apply: (params, stats, images [B, H, W, C], train, key) -> (logits [B, classes], stats). In
        training, a model with auxiliary heads returns a tuple of logits, its own first.
      features: (params, stats, images) -> {name: activations [B, ...]} in test mode, in the
        order of the forward pass.
      module: The flax module.
      aux_weight: Weight of each auxiliary loss in training, relative to the main loss.
      score: (outputs, images, labels) -> (loss [B], error [B]); None: softmax cross-entropy, and
        top-1 error.
      error_name: Name of the error of `score` in metrics.
    """

    init: Callable[[jax.Array, jax.Array | jax.ShapeDtypeStruct], tuple[Params, Stats]]
    apply: Callable[..., tuple[Any, Stats]]
    features: Callable[[Params, Stats, jax.Array], dict[str, jax.Array]]
    module: BaseModel
    aux_weight: float = 0.0
    score: Score | None = None
    error_name: str = "top1_error"


def create(
    name: str,
    num_classes: int | None = None,
    axis: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> Model:
    """Creates a model by its name.

    Options that are missing or None are as in the model's paper, with the exceptions that
    `describe_deviations` lists.

    Args:
      name: One of MODELS.
      num_classes: Number of classes; None: the paper's.
      axis: Name of the pmapped axis over which the batch is split, for batch norm; None: it is not
        split.
      dtype: Dtype of the activations, to which images are cast: float32 (default) | bfloat16.
        Parameters, statistics and logits are float32.
      **options: Options of the model, which `list_options(name)` lists.

    Returns:
      The model as pure functions.

    Raises:
      UserError: If the name is unknown, the model does not have an option, or a value is invalid.

    Example:
      >>> model = create("resnet20", num_classes=10)
      >>> images = jax.ShapeDtypeStruct((8, 32, 32, 3), "float32")
      >>> params, stats = jax.eval_shape(model.init, jax.random.key(0), images)
      >>> logits, _ = jax.eval_shape(model.apply, params, stats, images)
      >>> logits.shape
      (8, 10)
    """
    dtype = convert("model.dtype", "float32" if dtype is None else dtype, Literal[*DTYPES])
    module = _build(name, num_classes, options, axis)

    def cast(images: jax.Array) -> jax.Array:
        return images.astype(DTYPES[dtype])

    def init(key: jax.Array, images: jax.Array | jax.ShapeDtypeStruct) -> tuple[Params, Stats]:
        run = functools.partial(module.init, train=False, mutable=["params", "batch_stats"])
        with _explain_errors(name, module, images):
            # Pixels of uint8 are cast in `apply`.
            shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
            variables = lazy_init.init(run, key, shape)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Params,
        stats: Stats,
        images: jax.Array,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[Any, Stats]:
        variables = {"params": params, "batch_stats": stats}
        run = functools.partial(module.apply, variables, cast(images), train=train)
        with _explain_errors(name, module, images):
            if not train:
                return _to_float32(run()), stats
            rngs = None if key is None else {"dropout": key}
            logits, updates = run(mutable=["batch_stats"], rngs=rngs)
        return _to_float32(logits), updates.get("batch_stats", {})

    def features(params: Params, stats: Stats, images: jax.Array) -> dict[str, jax.Array]:
        variables = {"params": params, "batch_stats": stats}
        with _explain_errors(name, module, images):
            _, captured = module.apply(variables, cast(images), train=False, mutable=["features"])
        return captured.get("features", {}).get("stages", {})

    aux_weight = getattr(module, "aux_weight", 0.0)
    return Model(init, apply, features, module, aux_weight, module.score, module.error_name)


@contextlib.contextmanager
def _explain_errors(name: str, module: BaseModel, images: Any) -> Iterator[None]:
    """Raises UserError if the block's images, parameters or key do not suit the model."""
    shape = images.shape
    # The perceptrons flatten their images, whatever the number of axes.
    if 0 in shape or not (len(shape) == 4 or (len(shape) > 1 and isinstance(module, mlp.Mlp))):
        raise UserError(
            f"{name}: images of shape {tuple(shape)}; give [B, H, W, C], at least one image of one"
            " pixel and one channel"
        )
    try:
        yield
    except flax.errors.ScopeParamShapeError:
        size = "x".join(map(str, shape[1:]))
        raise UserError(
            f"{name}: images of {size} do not have the size that its parameters are for"
        ) from None
    except (flax.errors.ScopeParamNotFoundError, flax.errors.ScopeCollectionNotFound) as error:
        missing = str(error).partition(" (http")[0]
        raise UserError(
            f"{name}: params or stats are not those of this model, as init returns them: {missing}"
        ) from None
    except flax.errors.InvalidRngError:
        raise UserError(
            f"{name}: training needs random numbers: pass a key to apply, and to init one such as"
            " jax.random.key(0)"
        ) from None


def _to_float32(logits: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), logits)


def _build(
    name: str, num_classes: int | None, options: dict[str, Any], axis: str | None = None
) -> BaseModel:
    """Constructs the flax module of a model; options that are None are ignored."""
    known = list_options(name)
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in known:
            raise UserError(
                f"model.{option}: {name} has no such option; {suggest_names(option, known)}"
            )
    return find_spec(name).build(num_classes, axis=axis, name=name, **given)


def find_spec(name: str) -> ModelSpec:
    """Returns the spec of a model.

    Raises:
      UserError: If there is no such model. The message names the nearest one, or our name of a
        model that has another name in other libraries.
    """
    if name in MODELS:
        return MODELS[name]
    hint = f"it is {OTHER_NAMES[name]} here" if name in OTHER_NAMES else suggest_names(name, MODELS)
    raise UserError(f"model {name!r}: no such model; {hint}")


def get_paper_input(name: str) -> tuple[Shape, int]:
    """Returns the image shape (H, W, C) and the number of classes of a model's paper.

    Raises:
      UserError: If there is no such model.

    Example:
      >>> get_paper_input("alexnet")
      ((227, 227, 3), 1000)
    """
    spec = find_spec(name)
    return spec.input_shape, spec.num_classes


def list_options(name: str) -> list[str]:
    """Returns the names of a model's options, without num_classes and dtype.

    Raises:
      UserError: If there is no such model.

    Example:
      >>> "shortcut" in list_options("resnet56")
      True
    """
    return list(find_spec(name).options())


def get_option_types(name: str) -> dict[str, Any]:
    """Returns {option: type} of a model, including dtype; `cnn_jax.values` explains the types.

    Raises:
      UserError: If there is no such model.
    """
    return {"dtype": Literal[*DTYPES], **find_spec(name).options()}


def get_defaults(name: str) -> dict[str, Any]:
    """Returns {option: default} of a model, including dtype; {}: there is no such model.

    Example:
      >>> get_defaults("alexnet")["dropout"]
      0.5
    """
    if name not in MODELS:
        return {}
    module = find_spec(name).build()
    own = {option: getattr(module, option) for option in list_options(name)}
    return {"dtype": "float32", **own}


def describe_deviations(name: str, **options: Any) -> tuple[str, ...]:
    """Describes how a model with these options differs from its paper.

    Args:
      name: One of MODELS.
      **options: Options of `create`; None: the default.

    Returns:
      One sentence for each deviation.

    Raises:
      UserError: If `create` raises it.

    Example:
      >>> print(describe_deviations("resnet20")[1])
      batch statistics are of the whole batch; the paper's are of each GPU's half, 64 images
    """
    options = {option: value for option, value in options.items() if option != "dtype"}
    module = _build(name, None, options)
    found = find_spec(name).deviations
    return tuple(deviation.describe(module) for deviation in found if deviation.applies(module))
