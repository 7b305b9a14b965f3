"""--plan: what is told of a run on this machine; the bounds by hand; TPU slices, where libtpu is installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cnn_jax import models
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.cost import chips, plan
from cnn_jax.errors import UserError

ROOT = Path(__file__).parent.parent
here = Experiment(
    name="small",
    data=Data(dataset=choose("cifar10"), batch_size=16),
    model=choose("lenet5_modern"),
    train=Train(steps=100),
)


def test_a_run_here_is_told_without_data_or_training(monkeypatch):
    monkeypatch.setattr(plan, "measured", lambda dtype: chips.Chip("a chip", 1e9, 1e9, 1e9, None))
    told = plan.plan_run(here)
    assert told["fits"] and told["chips"] == 8 and told["steps"] == 100
    assert told["collectives"]["all-reduce"]["bytes"] > 0
    assert told["step_s"] == max(told["seconds"].values()) == told["seconds"][told["bound"]]
    assert told["seconds"]["memory"] == told["memory_traffic"] / 1e9
    assert told["run_hours"] == told["step_s"] * 100 / 3600 and told["chip_hours"] == 8 * told["run_hours"]
    text = "\n".join(plan.describe(told))
    for words in ("small (lenet5_modern, float32), batch 16, jit, on 8 x cpu", "fits on a a chip (1 GB)", "at least"):
        assert words in text


def test_a_chip_too_small_does_not_fit(monkeypatch):
    monkeypatch.setattr(plan, "measured", lambda dtype: chips.Chip("a chip", 1e5, 1e9, 1e9, None))
    told = plan.plan_run(here)
    assert not told["fits"] and "does not fit" in "\n".join(plan.describe(told))


def test_this_machine_is_measured():
    chip = plan.measured("float32")
    assert 1e8 < chip.flops < 1e14 and 1e8 < chip.bandwidth < 1e13 and chip.memory > 1e8


@pytest.mark.parametrize("topology, count", [("v5e:4x4", 16), ("v4:2x2x1", 4), ("v6e:16x16", 256)])
def test_slices(topology, count):
    assert chips.of_topology(topology)[1] == count


@pytest.mark.parametrize(
    "topology", ["v5e", "v5e:", "v5e:4", "v5e:2x2x2", "v5e:0x4", "v5e:32x32", "h100:8x1", "v4:2x2"]
)
def test_what_is_no_slice_is_told_in_a_line(topology):
    with pytest.raises(UserError, match="slice"):
        chips.of_topology(topology)


def launched(*words):
    command = [sys.executable, "launch.py", "--experiment=resnet_degradation_imagenet", "--preset=paper", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "words, said",
    [
        (("--topology=v5e:4x4",), "only with --plan"),
        (("--plan", "--topology=v5e:2x2x2"), "a v5e slice has 2 sides"),
        (("--plan", "--topology=v9:4x4"), "no such slice; write v5e:AxB"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, said):
    done = launched(*words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(bool(importlib.util.find_spec("libtpu")), reason="libtpu is installed")
def test_without_libtpu_a_line_says_what_to_install():
    done = launched("--plan", "--topology=v5e:4x4")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "pip install -r requirements-tpu.txt" in done.stderr


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu: pip install -r requirements-tpu.txt")
def test_resnet50_on_sixteen_chips():
    words = ("--run=resnet-34", "--set=model=resnet50", "--set=model.dtype=bfloat16")
    done = launched("--plan", "--topology=v5e:4x4", "--format=json", *words)
    (told,) = json.loads(done.stdout)
    assert told["fits"] and told["chips"] == 16
    assert told["compiler_flops"] == pytest.approx(told["counted_flops"], rel=0.1)
    assert told["chip_hours"] == pytest.approx(16 * told["run_hours"])


@pytest.mark.parametrize("name", ["perceptron", "mlp", "lenet5"])
def test_nets_that_reshape_their_images_are_planned_too(name):
    """Under a trace they are given images that only tell their shape."""
    model, (shape, _) = models.create(name), models.paper_input(name)
    image = jax.ShapeDtypeStruct((1, *shape), "float32")
    traced, _ = jax.eval_shape(lambda key: model.init(key, image), jax.random.key(0))
    assert jax.tree.leaves(traced)
