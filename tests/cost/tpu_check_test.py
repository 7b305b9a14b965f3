"""Every model's training step compiles in bfloat16 for TPUs that are not attached."""

import importlib.util

import pytest

from cnn_jax import data, models
from cnn_jax.config import Data, Experiment, Train, choose, parse_dataset
from cnn_jax.cost import plan

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(
        not importlib.util.find_spec("libtpu"), reason="needs libtpu: make tpu-check installs it"
    ),
]


def plan_model(monkeypatch, name, topology, batch, parallel="jit"):
    """Returns the plan of a model on images of its paper's size."""
    monkeypatch.setenv("CNN_JAX_ROUTES", "")  # as in a run
    shape, classes = models.get_paper_input(name)
    kind = {1: "mnist", 3: "cifar10"}[shape[2]] if classes == 10 else "imagenet2012"
    info = data.DATASET_INFO[kind]._replace(image_shape=shape, num_classes=classes)
    monkeypatch.setitem(data.DATASET_INFO, kind, info)
    crop = shape[0] if kind == "imagenet2012" else 0
    return plan.plan_run(
        Experiment(
            data=Data(
                dataset=parse_dataset(kind),
                batch_size=batch,
                pad_and_crop=0,
                image_size=crop,
                validation_images=0,
            ),
            model=choose(name, dtype="bfloat16"),
            train=Train(parallel=parallel),
        ),
        topology,
    )


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_compiles_for_four_chips(name, monkeypatch):
    found = plan_model(monkeypatch, name, "v5e:2x2", 32)
    assert found.fits and found.chips == 4 and found.cost.step_s > 0
    assert (
        sum(c.bytes for kind, c in found.cost.collectives.items() if kind.startswith("all-reduce"))
        > 0
    )


@pytest.mark.parametrize("name", ["resnet50", "vgg_d"])
def test_large_models_compile_for_256_chips(name, monkeypatch):
    found = plan_model(monkeypatch, name, "v5e:16x16", 2048)
    assert found.fits and found.chips == 256
    assert found.cost.compiler_flops == pytest.approx(found.counted_flops, rel=0.1)


@pytest.mark.parametrize("name", ["lenet5_modern", "resnet20", "resnet50", "vgg_a"])
def test_pmap_compiles_too(name, monkeypatch):
    assert plan_model(monkeypatch, name, "v5e:2x2", 32, "pmap").fits
