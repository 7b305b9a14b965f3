"""The page of --visualize: every method of a run, public weights on files, and what is refused."""

import dataclasses
import json
import os
import re

import jax
import numpy as np
import pytest
from helpers import small_models
from helpers.traced_precision import watch_precision
from PIL import Image

from cnn_jax import data, models, pretrained, trained, visualize
from cnn_jax.cli.flags import FLAGS
from cnn_jax.config import Data, Experiment, Log, Train, choose
from cnn_jax.config_file import read_config
from cnn_jax.errors import UserError
from cnn_jax.training import train
from cnn_jax.visualize.draw import draw_maps
from cnn_jax.visualize.images import Source, load_images
from cnn_jax.visualize.images import load_gallery as gallery_of
from cnn_jax.visualize.page import METHODS, build_page, choose_methods, gallery
from cnn_jax.visualize.page.context import make_context, name_images

RECIPE = pretrained.Preprocessing(16, (120.0,) * 3, (60.0,) * 3, 20, maximum=255.0, channels="BGR")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A folder with a run of two residual blocks, and one of an MLP, of three steps."""
    folder = tmp_path_factory.mktemp("runs")
    data = Data(dataset=choose("fake"), batch_size=8, eval_batch_size=40, pad_and_crop=0)
    steps = Train(steps=3, log_every=1, eval_every=1, save_every=1)
    with pytest.MonkeyPatch.context() as patch:
        small_models.register(patch)
        for name, model in (("net", choose("two_blocks")), ("dense", choose("mlp", hidden=(8,)))):
            train.run(Experiment(name=name, data=data, model=model, train=steps), folder)
        yield folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights of a narrow LeNet for colored images of 16 pixels."""
    path = tmp_path_factory.mktemp("weights") / "lenet.safetensors"
    model = models.create("lenet5_modern", 3, width=0.5)
    shape = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    params, stats = model.init(jax.random.key(0), shape)
    pretrained.save(path, "lenet5_modern", params, stats, 3, RECIPE, {"width": 0.5})
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def test_every_method_of_a_run_is_on_the_page(workdir, tmp_path):
    built = build_page(str(workdir / "net"), "fake:3", folder=tmp_path)
    assert not built.problem
    text, html = built.markdown.read_text(), built.html.read_text()
    assert "Left out" not in text
    assert len(re.findall('<img src="data:image/png;base64', html)) == len(built.figures)
    assert "http" not in re.sub('data:image[^"]*', "", html)  # The page needs nothing else.
    sections = [name for name in METHODS if (tmp_path / f"{name}.png").exists()]
    renamed = {"maps": "feature_maps", "top": "top1"}
    for name in METHODS:
        assert name in sections or (tmp_path / f"{renamed[name]}.png").exists(), name
    assert "net, seed 0, step 3" in text and "Grad-CAM" in built.text
    (table,) = re.findall(r"## Do the maps depend.*?\n\n(.*?)\n\n", text, re.DOTALL)
    rows = [line.split("|")[1:-1] for line in table.splitlines()[2:]]
    assert len(rows) == 7 and rows[-1][0].strip() == "pixels in random order"
    for row in rows:
        assert all(0 <= float(area) <= 1 for area in row[3:]), row


def test_histograms_are_what_the_run_has_logged_or_else_measured(workdir, tmp_path):
    folder = next((workdir / "dense").glob("seed*"))
    built = build_page(str(folder), "fake:2", methods=("statistics",), folder=tmp_path / "here")
    assert "measured on these 2 images" in built.markdown.read_text()
    run = read_config(folder / "config.json")
    log = Log(layer_statistics=(0, 1, 2))
    train.run(dataclasses.replace(run, name="logged", log=log), tmp_path)
    built = build_page(
        str(tmp_path / "logged"), "fake:2", methods=("statistics",), folder=tmp_path / "logged"
    )
    text = built.markdown.read_text()
    assert "that the run has measured during training (log.layer_statistics)" in text
    assert (tmp_path / "logged" / "statistics.png").stat().st_size > 10_000


def test_class_names_that_are_not_utf_8_are_drawn():
    subject = trained.load("mlp:untrained")
    subject = subject._replace(class_names=(os.fsdecode(b"caf\xe9"),) * subject.num_classes)
    source = Source("digits:2")
    images = load_images(subject, source)._replace(labels=np.array([0, 0]))
    titles = name_images(make_context(subject, images, None, "logit", 0, source))
    assert titles[0].startswith("is caf\\xe9\nsays caf\\xe9 ")
    draw_maps(images.pixels, titles, []).canvas.draw()


def test_the_control_of_a_study_s_maps_has_the_precision_of_training():
    loaded = trained.load("mlp:untrained")._replace(precision="tensorfloat32")
    source = Source("digits:2")
    context = make_context(loaded, load_images(loaded, source), None, "logit", 0, source)
    watched, seen = watch_precision(loaded)
    (row,) = gallery.describe_rows(gallery.Gallery(context._replace(subject=watched), {}))
    assert row["map"] == "chance" and len(row["deletion"]) == 2
    assert seen and set(seen) == {"HIGH"}


def test_the_same_seed_makes_the_same_page(workdir, tmp_path):
    pages = []
    for name in ("once", "again"):
        chosen = ("saliency", "smoothgrad", "maximize")
        built = build_page(str(workdir / "net"), "fake:2", methods=chosen, folder=tmp_path / name)
        pages.append([figure.read_bytes() for figure in built.figures])
    assert len(pages[0]) == 4 and pages[0] == pages[1]  # The fourth draws the curves.


def test_public_weights_on_files(weights, photographs, tmp_path):
    """Images are cut out of files, and explained by what the model says of them."""
    target = f"lenet5_modern:{weights}"
    built = build_page(
        target, str(photographs), methods=("saliency", "gradcam"), folder=tmp_path, layer="conv2"
    )
    text = built.markdown.read_text()
    assert "Layer conv2" in text and "3 of 3 files of " in text and "the likeliest" in text


def test_images_of_linked_folders_are_looked_at_and_hidden_ones_are_not(photographs, tmp_path):
    (tmp_path / "linked").symlink_to(photographs)
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails/0.png").write_bytes(b"")
    found = load_images(trained.load("mlp:untrained"), Source(str(tmp_path)))
    assert found.names == ("linked/0.png", "linked/1.png", "linked/2.png")


@pytest.mark.parametrize("kind", ["run", "weights"])
def test_the_square_of_occlusion_is_gray(
    workdir, weights, photographs, tmp_path, monkeypatch, kind
):
    """It is gray as the user sees it, whatever is subtracted from images."""
    squares = []

    def occlude(*given, gray, occlude=visualize.occlude):
        squares.append(gray)
        return occlude(*given, gray=gray)

    monkeypatch.setattr(visualize, "occlude", occlude)
    target = str(workdir / "net") if kind == "run" else f"lenet5_modern:{weights}"
    images = "fake:2" if kind == "run" else str(photographs)
    build_page(target, images, methods=("occlusion",), folder=tmp_path)
    (square,) = squares
    if kind == "weights":
        np.testing.assert_allclose(RECIPE.undo(square[None]), 128, atol=1e-3)
    else:
        mean = data.load_dataset(Data(dataset=choose("fake"))).train.images.mean(0)
        np.testing.assert_allclose(square, (128 - mean) / 255, atol=1e-5)


def test_a_recipe_is_undone():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
    np.testing.assert_allclose(RECIPE.undo(RECIPE.normalize(pixels)), pixels, atol=1e-3)


def test_what_a_model_without_convolutions_lacks_is_left_out_or_refused(workdir, tmp_path):
    built = build_page(str(workdir / "dense"), "fake:2", folder=tmp_path)
    left_out = built.markdown.read_text().partition("## Left out")[2]
    for name in ("gradcam", "guided_gradcam", "occlusion", "filters", "maps", "top", "dream"):
        assert f"**{name}**: mlp" in left_out, name
    assert (tmp_path / "saliency.png").exists() and (tmp_path / "maximize.png").exists()
    with pytest.raises(UserError, match="methods=gradcam: mlp: no layer has a spatial map"):
        build_page(str(workdir / "dense"), "fake:2", methods=("gradcam",), folder=tmp_path)


def test_methods_are_chosen_in_the_order_of_the_page():
    assert choose_methods(["filters", "saliency"]) == ("saliency", "filters")
    assert choose_methods(["all"]) == METHODS
    with pytest.raises(UserError, match="methods=grad_cam: no such method; nearest: gradcam"):
        choose_methods(["grad_cam"])


def test_the_help_names_every_method():
    words = FLAGS["methods"].help
    assert all(re.search(rf"\b{name}\b", words) for name in METHODS)


def test_mistakes_are_one_line(workdir, weights, photographs, tmp_path):
    net, public = str(workdir / "net"), f"lenet5_modern:{weights}"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "a.png").write_bytes((photographs / "0.png").read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    for target, images, layer, words in (
        (str(workdir), "", None, "2 runs found; give one, such as dense/seed0, net/seed0"),
        (str(tmp_path), "", None, "no run found; give a run's folder, or MODEL:WEIGHTS"),
        (net, "fake:3", "stage9", "layer=stage9: two_blocks has no such layer; nearest: stage"),
        (net, "fake:3", "pool", "layer=pool: it has no spatial map in two_blocks; those with one"),
        (net, "fake:99", None, "images=fake:99: must be 1 to 64 images"),
        (net, "fakes:3", None, r"data set fakes is not prepared .*nearest: fake"),
        (net, "digits:3", None, "digits test image 0: a gray image, and the model takes color"),
        (net, str(tmp_path / "empty"), None, "no image files found"),
        (net, str(damaged), None, r"damaged/a.png: "),
        (public, "", None, "has no data of its own: give FOLDER or DATASET:N"),
        (f"vgg_a:{weights}", str(photographs), None, "is of 'lenet5_modern', not of vgg_a"),
        (f"lenet:{weights}", str(photographs), None, "no such model; nearest: lenet"),
    ):
        with pytest.raises(UserError, match=words) as error:
            build_page(target, images, methods=("saliency",), folder=tmp_path / "page", layer=layer)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "page").exists()


def test_bad_images_may_be_left_out(weights, photographs, tmp_path, capsys):
    for path in photographs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "1.png").write_bytes((photographs / "1.png").read_bytes()[:200])
    subject = trained.load(f"lenet5_modern:{weights}", settings=["data.on_bad_image=skip"])
    images = load_images(subject, Source(str(tmp_path)))
    assert images.names == ("0.png", "2.png") and len(images.pixels) == len(images.labels) == 2
    assert "left out: " in capsys.readouterr().err and images.source.startswith("2 of 3 files")
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 3 images can be decoded"):
        load_images(subject, Source(str(tmp_path)))


def test_labels_are_the_model_s_only_if_its_classes_are(tmp_path):
    def find_labels(model, source):
        return load_images(model, Source(source)).labels.tolist()

    subject = trained.load("mlp:untrained")
    assert find_labels(subject, "digits:2") == [-1, -1]  # As many classes, but perhaps others.
    run = subject._replace(folder=tmp_path, data=Data(dataset=choose("digits")))
    labels = data.load_dataset(run.data).test.labels
    assert find_labels(run, "digits:2") == find_labels(run, ":2") == [labels[0], labels[180]]
    other = run._replace(data=Data(dataset=choose("mnist")))
    assert find_labels(other, "digits:2") == [-1, -1]
    for name in "ab":
        (tmp_path / "val" / name).mkdir(parents=True)
        noise = np.random.default_rng(0).integers(0, 256, (30, 30), np.uint8)
        Image.fromarray(noise).save(tmp_path / "val" / name / "0.png")
    named = other._replace(num_classes=2, class_names=("a", "b"))
    assert find_labels(named, f"folder:{tmp_path}:2") == [0, 1]
    named = named._replace(class_names=("b", "c"))
    assert find_labels(named, f"folder:{tmp_path}:2") == [-1, -1]


def test_class_folders_that_are_numbers_are_sorted_as_in_evaluation(tmp_path):
    for label in range(12):
        (tmp_path / str(label)).mkdir()
        shade = np.full((30, 30), label, np.uint8)
        Image.fromarray(shade).save(tmp_path / str(label) / "0.png")
    subject = trained.load("mlp:untrained")._replace(num_classes=12)
    found = gallery_of(subject, Source(f"folder:{tmp_path}"), 12)
    assert found.labels.tolist() == found.pixels[:, 0, 0, 0].tolist() == list(range(12))


def test_a_folder_that_cannot_be_written_is_said_before_the_work(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr("cnn_jax.visualize.page.build.load_images", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/page \(.*Not a directory\)"):
        build_page(str(workdir / "net"), "fake:2", folder=tmp_path / "file/page")


def test_parameters_of_another_model_are_refused(workdir, tmp_path):
    """A config that was edited after training: the shapes do not fit."""
    folder = tmp_path / "net" / "seed0"
    (tmp_path / "net").mkdir()
    (workdir / "net" / "seed0").rename(folder)
    try:
        path = folder / "config.json"
        text = path.read_text()
        config = json.loads(text)
        config["model"]["width"] = 2.0
        path.write_text(json.dumps(config))
        with pytest.raises(UserError, match="its checkpoint is of another model: "):
            build_page(str(folder), "fake:2", methods=("saliency",), folder=tmp_path / "page")
        path.write_text(text)
    finally:
        folder.rename(workdir / "net" / "seed0")
