"""Entries of MODELS: parameters, options and their bounds, deviations, invalid options."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, values
from cnn_jax.cost import summary, traced_counts
from cnn_jax.errors import UserError
from cnn_jax.layers.activations import ACTIVATION_NAMES
from cnn_jax.models import alexnet, vgg
from cnn_jax.models.base import BaseModel


@pytest.mark.parametrize("name", models.MODELS)
def test_models_have_the_parameter_counts_that_their_files_state(name):
    spec = models.MODELS[name]
    counted = traced_counts.count_parameters(models.create(name), spec.input_shape)
    assert counted == spec.parameters


def test_deviations_follow_the_class_s_defaults(monkeypatch):
    """Defaults are not repeated: changing one changes or removes the reported deviation."""

    def biases():
        return [d for d in models.describe_deviations("alexnet") if "biases" in d]

    assert "fc7 are 0.1; the paper has 1" in biases()[0]
    for default, expected in ((0.5, "fc7 are 0.5; the paper has 1"), (1.0, "")):
        changed = dataclasses.make_dataclass(
            "Changed",
            [("initial_bias", alexnet.AlexNet.__annotations__["initial_bias"], default)],
            bases=(alexnet.AlexNet,),
        )
        spec = dataclasses.replace(models.MODELS["alexnet"], module=changed)
        monkeypatch.setitem(models.MODELS, "alexnet", spec)
        assert "".join(biases())[-len(expected) :] == expected


def test_an_option_that_removes_a_deviation_removes_it_from_the_report():
    def words(name, **options):
        return " ".join(models.describe_deviations(name, **options))

    assert "0.00001" in words("resnet20") and "0.001" in words("resnet20", bn_epsilon=1e-3)
    assert "dropout" not in words("alexnet", dropout=0.0)
    assert "constants" not in words("zfnet", norm="none")
    assert words("resnet20", dtype="bfloat16", shortcut=None) == words("resnet20")


@pytest.mark.parametrize("name", models.MODELS)
def test_options_have_bounds(name):
    """Every number has bounds and every text has choices, so invalid values are refused."""
    for option, wanted in models.get_option_types(name).items():
        kind = values.describe(wanted)
        assert "text" not in kind, option
        assert ("number" not in kind and "integer" not in kind) or values.describe_bounds(wanted), (
            option
        )
    assert list(models.get_option_types(name)) == ["dtype", *models.list_options(name)]


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("resnet20", {"bn_group": -1}, "model.bn_group=-1: must be at least 0"),
        ("mlp", {"hidden": (99_999_999_999,)}, "model.hidden=99999999999: must be at most 1048576"),
        ("resnet20", {"scan_min_blocks": 0}, "model.scan_min_blocks=0: must be at least 1"),
        ("autoencoder", {"input_noise_std": -0.1}, "input_noise_std=-0.1: must be at least 0"),
        ("lenet5", {"rubbish": 0.0}, "model.rubbish=0.0: must be more than 0"),
        ("googlenet", {"aux_weight": float("nan")}, "aux_weight=nan: must be a finite number"),
        ("vgg_a", {"width": 65.0}, "model.width=65.0: must be at most 64"),
        ("alexnet", {"initial_bias": "1"}, "model.initial_bias=1: must be a number, not '1'"),
        ("resnet20", {"depth": 20}, "model.depth: resnet20 has no such option"),
    ],
)
def test_every_caller_refuses_invalid_options(name, options, words):
    for call in (models.create, models.describe_deviations, summary.summarize_model):
        with pytest.raises(UserError, match=words):
            call(name, **options)


def test_the_number_of_classes_is_bounded():
    for count, words in ((0, "at least 1"), (2**21, "at most 1048576")):
        with pytest.raises(UserError, match=f"num_classes={count}: must be {words}"):
            models.create("mlp", count)


@pytest.mark.parametrize("theirs", vgg.OTHER_NAMES)
def test_names_of_other_libraries_suggest_ours(theirs):
    with pytest.raises(UserError, match=f"model '{theirs}': no such model; it is vgg_. ") as error:
        models.create(theirs)
    assert ("model.norm=bn" in str(error.value)) == theirs.endswith("_bn")
    for call in (models.get_paper_input, models.list_options, models.describe_deviations):
        with pytest.raises(UserError, match="no such model; it is vgg_"):
            call(theirs)


def test_vgg_names_are_those_of_their_depth():
    for theirs, ours in {"vgg11": "vgg_a", "vgg13": "vgg_b", "vgg16": "vgg_d"}.items():
        assert vgg.OTHER_NAMES[theirs] == ours
        convolutions = sum(map(len, vgg.TABLE[models.MODELS[ours].defaults["column"]]))
        assert convolutions + 3 == int(theirs.removeprefix("vgg"))


def test_a_model_hands_out_its_module():
    model = models.create("resnet20", 7, bn_group=4, axis="batch")
    assert isinstance(model.module, BaseModel) and model.module.bn_group == 4
    assert (model.module.num_classes, model.module.axis, model.module.name) == (
        7,
        "batch",
        "resnet20",
    )
    assert inspect.isfunction(model.apply) and model.score is None
    assert models.create("autoencoder").error_name == "reconstruction_error"


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_mlp_has_every_activation(activation):
    model = models.create("mlp", 3, hidden=(6, 5), activation=activation)
    images = jax.random.normal(jax.random.key(1), (4, 2, 3, 1))
    params, stats = model.init(jax.random.key(0), images)
    logits, _ = model.apply(params, stats, images)
    assert np.isfinite(logits).all() and ("activation1" in params) == (activation == "prelu")
    relu = models.create("mlp", 3, hidden=(6, 5))
    dense = {name: layer for name, layer in params.items() if name.startswith("Dense")}
    same = np.array_equal(logits, relu.apply(dense, stats, jnp.asarray(images))[0])
    assert same == (activation == "relu")
