"""Exported runs: the program at several batch sizes, the weights, the card, what is refused."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from helpers.small_run import RUN

from cnn_jax import data, models, pretrained
from cnn_jax.config import Data, choose
from cnn_jax.data import preprocess
from cnn_jax.errors import UserError
from cnn_jax.evaluation.evaluate import evaluate_run
from cnn_jax.export import export_run, load_program, make_program, save_program
from cnn_jax.export.__main__ import main
from cnn_jax.export.card import write_card
from cnn_jax.training import saved_parameters, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run, and what was exported of it."""
    workdir = tmp_path_factory.mktemp("exported")
    train.run(RUN, workdir)
    folder = workdir / RUN.name / "seed0"
    return folder, export_run(folder, workdir / "out")


# What the exported program runs in: JAX alone.
PROGRAM = """
import sys, jax.export, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.concatenate([program.call(images[:3]), program.call(images[3:])]))
assert not [name for name in sys.modules if name.startswith("cnn_jax")]
"""


def test_the_program_gives_the_run_s_logits_at_two_batch_sizes(run, tmp_path):
    folder, files = run
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    params, stats, _ = saved_parameters.load_parameters(folder)
    mean = data.make_loader(RUN.data, data.load_dataset(RUN.data)).arrays["mean"]
    model = models.create(RUN.model.name, 10, **RUN.model.args)
    ours = model.apply(params, stats, preprocess.normalize(jnp.asarray(images), mean, 255))[0]
    np.save(tmp_path / "images.npy", images)
    paths = [files["program"], tmp_path / "images.npy", tmp_path / "logits.npy"]
    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = np.load(tmp_path / "logits.npy")
    assert theirs.shape == (8, 10) and np.ptp(theirs, axis=0).min() > 0.1
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


MODELS = {
    "lenet5_modern": (28, 28, 1),
    "vgg_a": (32, 32, 3),
    "googlenet_bn": (79, 79, 3),
    "resnet20": (32, 32, 3),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_any_size_can_be_traced(name):
    """Shapes alone: for three platforms."""
    model = models.create(name, 10)
    image = jax.ShapeDtypeStruct((1, *MODELS[name]), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    params, stats = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    program = make_program(lambda x: model.apply(params, stats, x)[0], MODELS[name])
    (logits,) = program.out_avals
    assert str(logits.shape) == "(batch, 10)" and program.platforms == ("cpu", "cuda", "tpu")
    assert "stablehlo.dot_general" in program.mlir_module()


def test_the_weights_load(run):
    folder, files = run
    params, stats, _ = saved_parameters.load_parameters(folder)
    loaded = pretrained.load(RUN.model.name, files["native"])
    jax.tree.map(np.testing.assert_array_equal, (params, stats), (loaded.params, loaded.stats))
    mean = data.make_loader(RUN.data, data.load_dataset(RUN.data)).arrays["mean"]
    np.testing.assert_allclose(
        np.array(loaded.preprocessing.mean) * 255, mean.mean((0, 1, 2)), rtol=1e-6
    )


def test_the_card_has_the_hub_s_metadata_and_an_example_that_runs(run, tmp_path):
    folder, files = run
    text = files["card"].read_text()
    _, head, body = text.split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["library_name"] == "cnn_jax" and metadata["datasets"] == ["fake"]
    (result,) = metadata["model-index"][0]["results"]
    result_error = train.run(RUN, folder.parents[1])["top1_error"]
    assert result["metrics"][0]["value"] == pytest.approx(1 - result_error, abs=1e-6)
    assert f"| during training | {result_error:.2%} |" in body
    assert "12 of 12 steps, batches of 32, seed 0" in body
    code = body.split("```python\n")[1].split("```")[0]
    code += "assert logits.shape == (8, 10), logits.shape\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=files["card"].parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_card_names_an_average_of_logits(run, tmp_path):
    folder, _ = run
    for average in ("softmax", "logits"):
        evaluate_run(folder, [choose("ten_crop")], average)
    card = export_run(folder, tmp_path)["card"].read_text()
    assert "| ten_crop@8 |" in card and "| ten_crop@8, logits averaged |" in card


def test_errors_of_held_out_images_are_named_so_and_not_in_the_hub_s_metadata(tmp_path):
    held_out = dataclasses.replace(
        RUN,
        data=dataclasses.replace(RUN.data, validation_images=32),
        protocols=(choose("single", split="train"), choose("single", split="test")),
    )
    train.run(held_out, tmp_path)
    files = export_run(tmp_path / RUN.name / "seed0", tmp_path / "out")
    card = files["card"].read_text()
    assert "| during training, on held-out training images (32) |" in card
    assert "| single@8,split=train |" in card and "| single@8,split=test |" in card
    (model,) = yaml.safe_load(card.split("---")[1])["model-index"]
    names = [metric["name"] for result in model["results"] for metric in result["metrics"]]
    assert names == ["top-1, single@8,split=test"]


def test_a_run_on_shuffled_pixels_is_not_exported(tmp_path):
    shuffled = dataclasses.replace(RUN.data, shuffle_pixels=True)
    train.run(dataclasses.replace(RUN, data=shuffled), tmp_path)
    with pytest.raises(UserError, match=r"data.shuffle_pixels=true: .*exported program"):
        export_run(tmp_path / RUN.name / "seed0", tmp_path / "out")


def test_a_data_set_whose_path_is_not_utf_8_is_on_the_card(tmp_path):
    path = os.fsdecode(b"/photos/caf\xe9")
    changed = dataclasses.replace(RUN, data=Data(dataset=choose("folder", path=path)))
    recipe = pretrained.Preprocessing(crop=16, mean=(0.5,) * 3, std=(1.0,) * 3)
    source = data.load_dataset(RUN.data)
    write_card(tmp_path / "README.md", tmp_path, changed, 12, source, recipe, {})
    _, head, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["datasets"] == ["folder"]
    assert "trained on the folder caf\\xe9 of images: 12" in body and "/photos" not in head + body


def test_the_card_names_the_last_launch_whose_line_is_whole(tmp_path):
    start = {"time": "2026-11-22", "commit": "abc1234", "hardware": "2 x cpu"}
    lines = (json.dumps(start | {"commit": "older"}), json.dumps(start), "3", '{"time": "20')
    (tmp_path / "starts.jsonl").write_text("\n".join(lines))
    recipe = pretrained.Preprocessing(crop=8, mean=(0.5,) * 3, std=(1.0,) * 3)
    source = data.load_dataset(RUN.data)
    write_card(tmp_path / "README.md", tmp_path, RUN, 12, source, recipe, {})
    card = (tmp_path / "README.md").read_text()
    assert "Hardware: 2 x cpu. Commit abc1234, 2026-11-22." in card


def test_a_model_that_tells_no_classes_is_no_classifier(tmp_path):
    changed = dataclasses.replace(RUN, model=choose("autoencoder"))
    event = {"event": "eval", "step": 12, "loss": 0.5, "reconstruction_error": 0.1234}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    recipe = pretrained.Preprocessing(crop=8, mean=(0.5,) * 3, std=(1.0,) * 3)
    files = {"program": tmp_path / "p", "native": tmp_path / "n"}
    source = data.load_dataset(RUN.data)
    write_card(tmp_path / "README.md", tmp_path, changed, 12, source, recipe, files)
    _, head, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["pipeline_tag"] == "image-to-image" and "model-index" not in metadata
    assert "classif" not in head and "classes, trained" not in body and "logits" not in body
    assert "| evaluation | reconstruction error |\n|---|---|\n| during training | 0.1234 |" in body


def test_the_command(run, tmp_path, capsys):
    folder, _ = run
    out = tmp_path / os.fsdecode(b"caf\xe9")
    assert main([str(folder), f"--out={out}"]) == 0
    assert f"program: {tmp_path / 'caf'}\\xe9/model.stablehlo" in capsys.readouterr().out
    assert main([str(tmp_path), f"--out={tmp_path}"]) == 2
    assert "holds no config.json" in capsys.readouterr().err
    assert main([str(folder), f"--out={tmp_path}", "--format=torchvision"]) == 2
    assert "format=torchvision: has no mlp" in capsys.readouterr().err
    assert main([str(folder), f"--out={tmp_path / 'x'}", "--format=native", "--format=keras"]) == 2
    assert "format=keras: has no mlp" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()  # Nor the file of the first format.
    assert main([str(folder), f"--out={tmp_path}", "--format=onnx"]) == 2
    assert "format='onnx': choose native" in capsys.readouterr().err


def test_the_data_are_read_where_they_are_said_to_lie(run, tmp_path, monkeypatch):
    asked = []

    def load(config, load=data.load_dataset):
        asked.append(config.dir)
        return load(config)

    monkeypatch.setattr(data, "load_dataset", load)
    assert main([str(run[0]), f"--out={tmp_path}", "--data_dir=elsewhere"]) == 0
    assert asked == ["elsewhere"]


def test_files_that_are_no_programs(run, tmp_path):
    _, files = run
    raw = files["program"].read_bytes()
    for content in (b"", b"no program", raw[: len(raw) // 2]):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(UserError, match="is no program of jax"):
            load_program(tmp_path / "x")
    with pytest.raises(UserError, match="cannot be read"):
        load_program(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot write"):
        save_program(tmp_path / "absent" / "x", load_program(files["program"]))
