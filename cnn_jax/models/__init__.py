"""MODELS, every net by its name, and create(name, num_classes, **options) -> Model(init, apply, features)."""

import functools
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError, nearest
from cnn_jax.models import alexnet, dense_maps, googlenet, inception, lazy_init, resnet
from cnn_jax.models.autoencoder import Autoencoder
from cnn_jax.models.lenet import Lenet5, LenetModern
from cnn_jax.models.mlp import Mlp
from cnn_jax.models.vgg import Vgg
from cnn_jax.models.zfnet import ZfNet

Params, Stats = Any, Any


class Model(NamedTuple):
    """A net as pure functions; batch norm, dropout and the like are hidden behind them."""

    init: Callable[[jax.Array, jax.Array], tuple[Params, Stats]]  # (key, images) -> (params, stats)
    # (params, stats, images [B, H, W, C], train, key) -> (logits [B, classes], stats); of a net with auxiliary heads
    # in training: (a tuple of logits, the net's own first, stats)
    apply: Callable[..., tuple[Any, Stats]]
    # (params, stats, images) -> {stage: activations [B, ...]} in test mode, in the order of the forward pass
    features: Callable[[Params, Stats, jax.Array], dict[str, jax.Array]]
    # (params, stats, images [B, H, W, C], reach) -> logits of every place [B, h, w, classes] (`extent.maps`)
    maps: Callable[..., jax.Array] | None = None
    # (params, stats, sizes [B, 2], channels) -> how far such images reach at each layer (`extent.reaches`)
    reaches: Callable[..., np.ndarray] | None = None
    aux_weight: float = 0.0  # of each auxiliary loss against the main one, in training
    # (outputs, images, labels) -> (loss [B], error [B]); None: softmax cross-entropy, and top-1 error
    score: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None
    error_name: str = "top1_error"  # what `score` calls its error, or the top-1 error


_cifar, _imagenet = resnet.cifar, resnet.imagenet
_basic, _bottleneck = resnet.Basic, resnet.Bottleneck

MODELS: dict[str, Callable[..., nn.Module]] = {
    "perceptron": functools.partial(Mlp, hidden=()),
    "mlp": Mlp,
    "lenet5": Lenet5,
    "lenet5_modern": LenetModern,
    "alexnet": alexnet.AlexNet,
    "alexnet_one_tower": alexnet.one_tower,
    "alexnet_half": alexnet.half,
    "alexnet_owt": alexnet.owt,
    "zfnet": ZfNet,
    "vgg_a": functools.partial(Vgg, column="A"),
    "vgg_a_lrn": functools.partial(Vgg, column="A", norm="lrn"),
    "vgg_b": functools.partial(Vgg, column="B"),
    "vgg_c": functools.partial(Vgg, column="C"),
    "vgg_d": functools.partial(Vgg, column="D"),
    "vgg_e": functools.partial(Vgg, column="E"),
    "googlenet": googlenet.GoogLeNet,
    "googlenet_bn": googlenet.Port,
    "bn_inception": inception.BnInception,
    "inception_v2": inception.InceptionV2,
    "inception_v3": inception.InceptionV3,
    "autoencoder": Autoencoder,
    # CIFAR nets: He et al. 2015, Sec. 4.2
    "resnet20": functools.partial(_cifar, 20),
    "resnet32": functools.partial(_cifar, 32),
    "resnet44": functools.partial(_cifar, 44),
    "resnet56": functools.partial(_cifar, 56),
    "resnet110": functools.partial(_cifar, 110),
    "resnet1202": functools.partial(_cifar, 1202),
    "plain20": functools.partial(_cifar, 20, shortcut=resnet.PLAIN),
    "plain32": functools.partial(_cifar, 32, shortcut=resnet.PLAIN),
    "plain44": functools.partial(_cifar, 44, shortcut=resnet.PLAIN),
    "plain56": functools.partial(_cifar, 56, shortcut=resnet.PLAIN),
    "plain110": functools.partial(_cifar, 110, shortcut=resnet.PLAIN),
    # ImageNet nets: He et al. 2015, Table 1
    "resnet18": functools.partial(_imagenet, (2, 2, 2, 2), _basic),
    "resnet34": functools.partial(_imagenet, (3, 4, 6, 3), _basic),
    "resnet50": functools.partial(_imagenet, (3, 4, 6, 3), _bottleneck),
    "resnet101": functools.partial(_imagenet, (3, 4, 23, 3), _bottleneck),
    "resnet152": functools.partial(_imagenet, (3, 8, 36, 3), _bottleneck),
    "plain18": functools.partial(_imagenet, (2, 2, 2, 2), _basic, shortcut=resnet.PLAIN),
    "plain34": functools.partial(_imagenet, (3, 4, 6, 3), _basic, shortcut=resnet.PLAIN),
}

# Images and classes of nets that are not ImageNet's at 224x224 or CIFAR's.
INPUTS = {
    "perceptron": ((28, 28, 1), 10),
    "mlp": ((28, 28, 1), 10),
    "lenet5": ((32, 32, 1), 10),
    "lenet5_modern": ((28, 28, 1), 10),
    "autoencoder": ((28, 28, 1), 10),
    "alexnet": ((227, 227, 3), 1000),
    "alexnet_one_tower": ((227, 227, 3), 1000),
    "alexnet_half": ((227, 227, 3), 1000),
    "inception_v2": ((299, 299, 3), 1000),
    "inception_v3": ((299, 299, 3), 1000),
}

_biases = "initial biases of conv2, conv4, conv5, fc6 and fc7 are 0.1; the paper has 1"
_dropout = "dropout doubles what it keeps in training; the paper halves all outputs at test"
_rubbish = "trained on the MAP criterion without its rubbish class (softmax cross-entropy of minus the distances)"
_227 = "images are 227x227, from which the paper's maps of 55x55 follow; it prints 224x224"
_numbers = "batch norm adds 0.00001 to the variance and its averages have momentum 0.9; the paper gives neither number"
_whole = "batch statistics are of the whole batch; the paper's are of each GPU's half, 64 images"
_he = "initial weights are He's; the paper gives none"
_lrn = "LRN's constants are AlexNet's; the paper gives none"
_epsilon = "batch norm adds 0.001 to the variance, as TensorFlow's nets do; the paper gives no number"
_stem = (
    "the convolutions before the modules, and the 35x35 modules with their 5x5, are those of Google's published net,"
    " not of the paper's Table 1 and Figure 5"
)
_inverted = "dropout 0.2 and the auxiliary weight 0.4 are TensorFlow's; the paper gives neither"
_glorot = (
    "initial weights are N(0, 1 / inputs), Xavier's, which Sec. 3.1 allows; the paper's nets started from N(0, 0.1^2),"
    " the deeper ones from a trained A"
)

# In what a net, as created without options, is not its paper's: a line of words each.
DEVIATIONS: dict[str, tuple[str, ...]] = {
    "lenet5": (
        "the ten bitmaps of the output are our drawings, not the paper's",
        _rubbish,
        "subsampling's initial coefficients are 1/4, which makes it an average",
    ),
    "lenet5_modern": (
        "C3 sees all six maps",
        "max pooling, with nothing to train",
        "ReLU in place of the scaled tanh",
        "a dense softmax in place of the RBF output",
    ),
    "alexnet": (_227, _biases, _dropout),
    "alexnet_one_tower": ("one tower of the two towers' widths, which the paper has not", _227, _biases, _dropout),
    "alexnet_half": (_227, _biases, _dropout),
    "alexnet_owt": ("widths of the 2014 variant as torchvision has them, no LRN, conv1 padded by 2", _biases, _dropout),
    "zfnet": (
        "contrast normalisation is AlexNet's LRN with AlexNet's constants",
        "filters are renormalised only if the optimiser is told to: optimizer.max_filter_rms=0.1",
    ),
    "autoencoder": ("its widths are ours",),
    "googlenet": (_he, _lrn),
    "googlenet_bn": (
        "torchvision's net: batch norm, no LRN, 3x3 for 5x5, last pooling 2x2, dropout 0.2",
        _he,
    ),
    "bn_inception": (
        "its first convolution is an ordinary one; the paper's is separable",
        "edges are padded as TensorFlow's SAME does, which the paper does not say",
        "4c, 4d and 4e put out 608, 608 and 1056 maps, as their widths add up; Figure 5 prints 576, 576 and 1024",
        _epsilon,
        _he,
    ),
    "inception_v2": (
        "widths inside the modules are v3's; the paper prints those between modules only",
        _stem,
        _epsilon,
        _he,
        _inverted,
    ),
    "inception_v3": (_stem, _epsilon, _he, _inverted),
    "vgg_a": (_glorot,),
    "vgg_a_lrn": (_glorot,),
    "vgg_b": (_glorot,),
    "vgg_c": (_glorot,),
    "vgg_d": (_glorot,),
    "vgg_e": (_glorot,),
    **{name: (_numbers, _whole) for name, made in MODELS.items() if getattr(made, "func", None) is _cifar},
    **{name: (_numbers,) for name, made in MODELS.items() if getattr(made, "func", None) is _imagenet},
}


# Deviations that hold with some values of an option only.
_HOLDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    _biases: lambda given: given.get("initial_bias", 0.1) == 0.1,
    _dropout: lambda given: given.get("dropout", 0.5) > 0,
    _epsilon: lambda given: given.get("bn_epsilon", 0.001) == 0.001 and given.get("norm", "bn") == "bn",
    _glorot: lambda given: given.get("initialiser", "xavier") == "xavier",
    _he: lambda given: given.get("initialiser", "paper") in ("paper", "he"),
    _lrn: lambda given: given.get("norm", "lrn") == "lrn",
    _numbers: lambda given: given.get("bn_epsilon", 1e-5) == 1e-5 and given.get("norm", "bn") == "bn",
    _rubbish: lambda given: "rubbish" not in given,
    _whole: lambda given: not given.get("bn_group") and given.get("norm", "bn") == "bn",
}


def deviations(name: str, **options: Any) -> tuple[str, ...]:
    """In what the net is not its paper's when created with these options; None: not given."""
    given = {option: value for option, value in options.items() if value is not None}
    return tuple(w for w in DEVIATIONS.get(name, ()) if w not in _HOLDS or _HOLDS[w](given))


DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def paper_input(name: str) -> tuple[tuple[int, int, int], int]:
    """The images (H, W, C) that a net's paper gives it, and the number of their classes; raises UserError."""
    _check(name)
    if name in INPUTS:
        return INPUTS[name]
    if getattr(MODELS[name], "func", None) is _cifar:
        return (32, 32, 3), 10
    return (224, 224, 3), 1000


def _check(name: str) -> None:
    if name not in MODELS:
        raise UserError(f"model {name!r}: no such net; {nearest(name, MODELS)}")


def create(
    name: str, num_classes: int | None = None, axis: str | None = None, dtype: str | None = None, **options: Any
) -> Model:
    """The named net. Options left out or None are as the net's paper has them, but for DEVIATIONS.

    num_classes: None: the paper's.

    axis: the pmapped axis over which the batch is split, if it is (batch norm needs to know).
    dtype: float32 (default) | bfloat16, of the activations, to which images are cast; parameters, statistics and
      logits are float32.
    Raises UserError for an unknown name, or an option that the net does not have.
    """
    _check(name)
    if dtype not in (None, *DTYPES):
        raise UserError(f"model.dtype={dtype!r}: choose {' or '.join(DTYPES)}")
    options = {option: value for option, value in options.items() if value is not None}
    if unknown := [option for option in options if option not in known_options(name)]:
        raise UserError(f"model.{unknown[0]}: {name} has no such option; {nearest(unknown[0], known_options(name))}")
    num_classes = paper_input(name)[1] if num_classes is None else num_classes
    if num_classes < 1:
        raise UserError(f"num_classes={num_classes}: wants at least 1")
    net = MODELS[name](num_classes=num_classes, axis=axis, name=name, **options)
    cast = lambda images: images.astype(DTYPES[dtype or "float32"])

    def init(key: jax.Array, images: jax.Array) -> tuple[Params, Stats]:
        made = functools.partial(net.init, train=False, mutable=["params", "batch_stats"])
        variables = lazy_init.init(made, key, images)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Params, stats: Stats, images: jax.Array, train: bool = False, key: jax.Array | None = None
    ) -> tuple[Any, Stats]:
        run = functools.partial(net.apply, {"params": params, "batch_stats": stats}, cast(images), train=train)
        try:
            if not train:
                return _float32(run()), stats
            logits, moved = run(mutable=["batch_stats"], rngs=None if key is None else {"dropout": key})
        except flax.errors.ScopeParamShapeError:
            shape = "x".join(map(str, images.shape[1:]))
            raise UserError(f"{name}: images of {shape} are not of the size that its parameters are for") from None
        except flax.errors.InvalidRngError:
            raise UserError(f"{name}: training draws at random: give apply a key") from None
        return _float32(logits), moved.get("batch_stats", {})

    def features(params: Params, stats: Stats, images: jax.Array) -> dict[str, jax.Array]:
        variables = {"params": params, "batch_stats": stats}
        _, kept = net.apply(variables, cast(images), train=False, mutable=["features"])
        return kept.get("features", {}).get("stages", {})

    dense = functools.partial(dense_maps.maps, net), functools.partial(dense_maps.reaches, net)
    return Model(
        init,
        apply,
        features,
        *dense,
        getattr(net, "aux_weight", 0.0),
        getattr(net, "score", None),
        getattr(net, "error_name", "top1_error"),
    )


def _float32(logits: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), logits)


def option_types(name: str) -> dict[str, Any]:
    """Returns {option: type} of the options of a model, dtype among them."""
    made = MODELS[name]
    family = getattr(made, "func", made)
    hints = typing.get_type_hints(resnet.ResNet if family in (_cifar, _imagenet) else family, include_extras=True)
    types = {option: hints[option] for option in known_options(name)}
    return {"dtype": typing.Literal["float32", "bfloat16"]} | types


def known_options(name: str) -> list[str]:
    """The options of a net beside num_classes and dtype."""
    made = MODELS[name]
    family = getattr(made, "func", made)
    fields = resnet.ResNet.__dataclass_fields__ if family in (_cifar, _imagenet) else family.__dataclass_fields__
    fixed = {"num_classes", "parent", "name", "axis", "blocks", "channels", "block", "imagenet_stem", "towers"}
    fixed |= {"padding", "column", "as_maps"}
    if _bottleneck not in getattr(made, "args", ()):
        fixed.add("stride_in")
    if name.startswith("plain"):
        fixed.add("shortcut")
    if name == "perceptron":
        fixed |= {"hidden", "activation", "norm", "dropout", "width", "bn_group", "bn_epsilon"}
    if name == "lenet5":  # whose table fixes its maps
        fixed.add("width")
    return [field for field in fields if field not in fixed]
