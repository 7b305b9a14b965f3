"""Plans of runs on this machine, their bounds by hand, and TPU slices if libtpu is installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from PIL import Image

from cnn_jax import models
from cnn_jax.config import Data, Experiment, Train, choose, parse_dataset
from cnn_jax.cost import chips, lower, measure_chip, plan
from cnn_jax.cost.format_plan import format_plan
from cnn_jax.errors import UserError
from cnn_jax.training.components import count_steps_per_epoch, make_components

ROOT = Path(__file__).parents[2]
here = Experiment(
    name="small",
    data=Data(dataset=choose("cifar10"), batch_size=16),
    model=choose("lenet5_modern"),
    train=Train(steps=100),
)


# The keys of a run's plan as JSON.
KEYS = {
    *("run", "model", "dtype", "batch", "form", "devices", "chips", "steps", "counted_flops"),
    *("chip_name", "chip_memory", "chip_bandwidth", "chip_flops", "chip_interconnect"),
    *("fits", "memory", "memory_parts", "compiler_flops", "compiler_flops_partly", "passes"),
    *("compiler_bytes", "memory_traffic", "collectives", "sent", "seconds", "bound", "step_s"),
    *("run_hours", "chip_hours"),
}


def use_chip(monkeypatch, memory):
    chip = chips.Chip("chip", memory, 1e9, 1e9, None)
    monkeypatch.setattr(measure_chip, "measure_chip", lambda dtype: chip)


def test_a_run_on_this_machine_is_planned_without_data_or_training(monkeypatch):
    monkeypatch.setattr(
        measure_chip, "measure_chip", lambda dtype: chips.Chip("chip", 1e9, 1e9, 1e9, None)
    )
    found = plan.plan_run(here)
    cost = found.cost
    assert found.fits and found.chips == 8 and found.steps == 100
    assert cost.collectives["all-reduce"].bytes > 0
    assert cost.step_s == max(cost.seconds.values()) == cost.seconds[cost.bound]
    assert cost.seconds["memory"] == cost.memory_traffic / 1e9
    assert cost.run_hours == cost.step_s * 100 / 3600 and cost.chip_hours == 8 * cost.run_hours
    assert found.counted_flops == 6 * 16 * lower.lower_step(here, jax.devices()).multiply_adds
    text = format_plan(found)
    seconds = 3600 * cost.run_hours
    for words in (
        "small (lenet5_modern, float32), batch 16, jit, on 8 x cpu",
        "fits on a chip (1 GB)",
        f"100 steps: {seconds:.0f} seconds, {cost.chip_hours:.2f} chip-hours at least",
    ):
        assert words in text
    assert "e-" not in text  # No powers of ten.
    result = json.loads(json.dumps(found.to_json()))
    assert set(result) == KEYS and None not in [result[key] for key in KEYS - {"chip_interconnect"}]
    assert result["collectives"]["all-reduce"]["bytes"] == cost.collectives["all-reduce"].bytes


def test_a_chip_too_small_does_not_fit(monkeypatch):
    monkeypatch.setattr(
        measure_chip, "measure_chip", lambda dtype: chips.Chip("chip", 1e5, 1e9, 1e9, None)
    )
    found = plan.plan_run(here)
    assert not found.fits and "does not fit" in format_plan(found)


def test_a_step_that_does_not_fit_has_no_cost(monkeypatch):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 20.00G of 15.75G hbm")

    monkeypatch.setattr(
        measure_chip, "measure_chip", lambda dtype: chips.Chip("chip", 1e9, 1e9, 1e9, None)
    )
    monkeypatch.setattr(plan, "lower_step", lambda *_: lower.LoweredStep(Lowered(), 7))
    found = plan.plan_run(here)
    assert not found.fits and found.cost is None and found.memory == 20 * 2**30
    assert "the compiler needs 21.47 GB on a chip (1 GB)" in format_plan(found)
    result = found.to_json()
    assert (
        set(result) == KEYS and result["step_s"] is None and result["counted_flops"] == 6 * 7 * 16
    )


def write_folder(folder):
    """Writes 16 training images of two classes, and one to test."""
    places = [f"train/{name}/{i}" for name in "ab" for i in range(8)] + ["val/a/0"]
    for place in places:
        path = folder / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return f"folder:{folder}"


@pytest.mark.parametrize(
    "name, held_out, images",
    [("imagenet2012", 0, 1_281_167), ("imagenet2012", 167, 1_281_000), ("folder", 4, 12)],
)
def test_an_epoch_has_as_many_steps_as_in_the_run(name, held_out, images, tmp_path, monkeypatch):
    dataset = write_folder(tmp_path / "images") if name == "folder" else name
    config = Data(
        dataset=parse_dataset(dataset),
        batch_size=4,
        validation_images=held_out,
        train_resize=(8,),
        image_size=8,
        pad_and_crop=0,
    )
    assert count_images_of_plan(config, monkeypatch) == (images, images)


def count_images_of_plan(config, monkeypatch):
    """Returns the training images of a run's plan, and those of its epoch."""
    run = Experiment(
        data=config,
        model=choose("mlp", hidden=(4,)),
        schedule=choose("step", every=1, unit="epochs"),
        train=Train(steps=600_000),
    )
    counted = []

    def count(experiment, source, devices):
        steps = count_steps_per_epoch(experiment.data, source)
        counted.append((source.train.count, steps * experiment.data.batch_size))
        return make_components(experiment, source, devices)

    monkeypatch.setattr(lower, "make_components", count)
    lower.lower_step(run, jax.devices()[:1])
    (found,) = counted
    return found


@pytest.mark.parametrize(
    "name, balanced, images, of_epoch",
    [
        ("cifar10", False, 12_406, 12_406),  # The sum of 5,000 x 100 ** (-k / 9), each cut off.
        ("cifar10", True, 12_406, 50_000),
        ("folder", False, 9, 9),
        ("folder", True, 9, 16),
    ],
)
def test_a_plan_has_the_images_of_a_long_tail(
    name, balanced, images, of_epoch, tmp_path, monkeypatch
):
    streamed = {"dataset": name}
    if name == "folder":
        sizes = {"train_resize": (8,), "image_size": 8, "pad_and_crop": 0}
        streamed = {"dataset": write_folder(tmp_path / "images"), **sizes}
    dataset = parse_dataset(streamed.pop("dataset"))
    config = Data(dataset, batch_size=4, long_tail=100, balance_classes=balanced, **streamed)
    assert count_images_of_plan(config, monkeypatch) == (images, of_epoch)


def test_this_machine_is_measured():
    chip = measure_chip.measure_chip("float32")
    assert 1e8 < chip.flops < 1e14 and 1e8 < chip.bandwidth < 1e13 and chip.memory > 1e8


@pytest.mark.parametrize("topology, count", [("v5e:4x4", 16), ("v4:2x2x1", 4), ("v6e:16x16", 256)])
def test_topologies_are_parsed(topology, count):
    assert chips.parse_topology(topology).count == count


@pytest.mark.parametrize(
    "topology",
    [
        "v5e",
        "v5e:",
        "v5e:4",
        "v5e:2x2x2",
        "v5e:0x4",
        "v5e:32x32",
        "h100:8x1",
        "v4:2x2",
        "v5e:" + "9" * 5000 + "x2",
    ],
)
def test_an_invalid_topology_is_refused(topology):
    with pytest.raises(UserError, match=r"^topology=.*slice"):
        chips.parse_topology(topology)


def launch(*words):
    command = [
        sys.executable,
        "launch.py",
        "--experiment=resnet_degradation_imagenet",
        "--preset=paper",
        *words,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "words, said",
    [
        (("--topology=v5e:4x4",), "only with --plan"),
        (("--plan", "--topology=v5e:2x2x2"), "a v5e slice has 2 sides"),
        (("--plan", "--topology=v9:4x4"), "no such slice; write v5e:AxB"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(words, said):
    done = launch(*words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(bool(importlib.util.find_spec("libtpu")), reason="libtpu is installed")
def test_without_libtpu_the_error_names_the_extra():
    done = launch("--plan", "--topology=v5e:4x4")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "pip install libtpu" in done.stderr


@pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="needs libtpu: pip install libtpu"
)
def test_resnet50_on_sixteen_chips():
    words = ("--run=resnet-34", "--set=model=resnet50", "--set=model.dtype=bfloat16")
    done = launch("--plan", "--topology=v5e:4x4", "--format=json", *words)
    (result,) = json.loads(done.stdout)
    assert result["fits"] and result["chips"] == 16
    assert result["compiler_flops"] == pytest.approx(result["counted_flops"], rel=0.1)
    assert result["chip_hours"] == pytest.approx(16 * result["run_hours"])


@pytest.mark.parametrize("name", ["perceptron", "mlp", "lenet5"])
def test_models_that_reshape_their_images_are_planned_too(name):
    """While they are traced, their images have only a shape."""
    model, (shape, _) = models.create(name), models.get_paper_input(name)
    image = jax.ShapeDtypeStruct((1, *shape), "float32")
    traced, _ = jax.eval_shape(lambda key: model.init(key, image), jax.random.key(0))
    assert jax.tree.leaves(traced)
