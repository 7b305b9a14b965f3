"""Trained models: of runs, of files, untrained; and what is refused."""

import shutil

import jax
import numpy as np
import pytest

from cnn_jax import models, pretrained, trained
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.errors import UserError
from cnn_jax.training import saved_parameters, train
from cnn_jax.training.program import build_program
from cnn_jax.visualize.page import build_page

DATA = Data(dataset=choose("fake"), batch_size=8, eval_batch_size=40, pad_and_crop=0)
RUN = Experiment(
    name="dense",
    seed=3,
    data=DATA,
    model=choose("mlp", hidden=(8,)),
    train=Train(steps=2, log_every=1, eval_every=2, save_every=2, precision="bfloat16"),
)
RECIPE = pretrained.Preprocessing(16, (0.5,) * 3, (0.25,) * 3, 20, "bicubic")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train.run(RUN, folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights of a narrow LeNet for color images of 16 pixels and three classes."""
    path = tmp_path_factory.mktemp("weights") / "lenet.safetensors"
    model = models.create("lenet5_modern", 3, width=0.5)
    params, stats = model.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    pretrained.save(path, "lenet5_modern", params, stats, 3, RECIPE, {"width": 0.5})
    return path


def test_a_run_has_its_checkpoint_and_its_preprocessing(workdir):
    found = trained.load(str(workdir / "dense"))
    folder = workdir / "dense" / "seed3"
    assert (found.name, found.folder, found.step) == ("dense, seed 3, step 2", folder, 2)
    assert (found.weights, found.precision, found.choice) == (str(folder), "bfloat16", RUN.model)
    jax.tree.map(
        np.testing.assert_array_equal, found.params, saved_parameters.load_parameters(folder)[0]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, *found.image_shape), np.uint8)
    x = found.prepare(pixels)
    assert x.dtype == np.float32 and np.abs(x).max() < 1.5
    np.testing.assert_allclose(found.restore(x), pixels, atol=1e-3)
    assert found.model.apply(found.params, found.stats, x)[0].shape == (2, found.num_classes)


def test_a_run_is_found_by_its_path(workdir):
    assert trained.load(workdir).params.keys() == trained.load(str(workdir)).params.keys()


def test_an_untrained_run_is_what_training_starts_from():
    program = build_program(RUN, None, jax.local_devices()[:1])
    found = trained.initialize_run(RUN)
    jax.tree.map(np.testing.assert_array_equal, found.params, jax.device_get(program.state.params))


def test_weights_have_their_own_recipe_and_options(weights):
    found = trained.load(f"lenet5_modern:{weights}")
    assert found.name == "lenet5_modern with lenet.safetensors" and found.folder is None
    assert (found.image_shape, found.resize, found.num_classes) == ((16, 16, 3), 20, 3)
    assert found.choice.args["width"] == 0.5 and found.interpolation == "bicubic"
    white = np.full((1, 16, 16, 3), 255, np.uint8)
    np.testing.assert_allclose(found.prepare(white), (1 - 0.5) / 0.25, rtol=1e-6)
    np.testing.assert_allclose(found.restore(found.prepare(white)), white, rtol=1e-6)


def test_an_untrained_model_takes_settings():
    found = trained.load("mlp:untrained", "visualize", ["model.hidden=16"])
    assert found.name == "mlp, untrained" and found.weights == "initial weights of seed 0"
    assert found.num_classes == 10
    assert {leaf.shape[-1] for leaf in jax.tree.leaves(found.params)} == {16, 10}


def test_mistakes_are_one_line(workdir, weights, tmp_path):
    run = str(workdir / "dense")
    for target, settings, words in (
        (str(tmp_path), (), f"retrieve={tmp_path}: no run found; give a run's folder, or MOD"),
        ("vgg:untrained", (), "nearest: vgg"),
        (f"vgg_a:{weights}", (), "is of 'lenet5_modern', not of vgg_a"),
        (run, ("data.batch_size=9",), "of a run only data.on_bad_image can be set here"),
        (f"lenet5_modern:{weights}", ("model.width=2",), "of public weights only data.on_bad_im"),
        ("mlp:untrained", ("data.image_size=9",), "of an untrained model only .* and model.\\*"),
    ):
        with pytest.raises(UserError, match=words) as error:
            trained.load(target, "retrieve", settings)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"is not a run folder: it holds no config\.json"):
        trained.load_run(tmp_path)


def test_of_a_run_bad_images_may_be_skipped(workdir):
    found = trained.load(str(workdir / "dense"), settings=["data.on_bad_image=skip"])
    assert found.data.on_bad_image == "skip" and found.data.batch_size == 8


def test_a_run_is_loaded_where_its_data_lie_now(workdir, tmp_path):
    assert trained.load(str(workdir)).data.dir == ""
    assert trained.load(str(workdir), data_dir="elsewhere").data.dir == "elsewhere"
    moved, place = tmp_path / "net", str(tmp_path / "elsewhere")
    shutil.copytree(workdir / "dense/seed3", moved)
    config = (moved / "config.json").read_text()
    (moved / "config.json").write_text(config.replace('"fake"', '"mnist"'))
    for load in (trained.load, build_page):
        with pytest.raises(UserError, match=f"mnist is not prepared .looked in {place}"):
            load(str(moved), data_dir=place)
