"""The benchmarks: their tables, what they read from compiled programs, the peers they refuse, and
short benchmarks from end to end.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import draw, epoch, profile_step, scaling, table, train_step, worker_process
from benchmarks.peers import WORKLOADS, Spec, nest
from benchmarks.peers import flax as flax_peer
from cnn_jax import models
from cnn_jax.training.program import TrainProgram

ROOT = Path(__file__).parent.parent
LENET = ("--model=lenet5_modern", "--batch=2")


def make_spec(model, batch=2):
    _, image, classes, *_ = WORKLOADS[model]
    return Spec("ours", "", model, batch, image, classes, "float32", "")


def make_flax_model(spec, weights=None):
    codes = {"codes": weights["codes"]} if weights and "codes" in weights else {}
    if spec.model == "lenet5" and not codes:
        codes = {"codes": np.zeros((spec.classes, 84), np.float32)}
    return flax_peer.MODELS[spec.model](classes=spec.classes, dtype=jnp.float32, **codes)


@contextlib.contextmanager
def promote_freely():
    """Promotes types and ranks as JAX does by default, and so in a peer's process."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("model", WORKLOADS)
def test_the_flax_peer_has_our_parameters(model):
    spec, workload = make_spec(model), WORKLOADS[model]
    images = jax.ShapeDtypeStruct((2, *spec.image), np.float32)
    ours = models.create(workload.model, spec.classes, **workload.options)
    params, stats = jax.eval_shape(ours.init, jax.random.key(0), images)
    with promote_freely():
        theirs = jax.eval_shape(make_flax_model(spec).init, jax.random.key(0), images)
    assert theirs["params"] == params and theirs.get("batch_stats", {}) == stats


@pytest.mark.parametrize("model", ["small_cnn", "lenet5", "mlp_500_150"])
def test_the_peers_compute_what_our_model_computes(model):
    spec, workload = make_spec(model), WORKLOADS[model]
    weights = draw.draw_arrays(spec)
    ours = models.create(workload.model, spec.classes, **workload.options)
    params = nest(weights, "params")
    logits, _ = ours.apply(params, {}, jnp.asarray(weights["images"]), train=True)
    assert np.ptp(logits) > 0.1
    with promote_freely():
        theirs = make_flax_model(spec, weights).apply({"params": params}, weights["images"])
    np.testing.assert_allclose(theirs, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", WORKLOADS)
def test_the_torch_peer_has_our_parameters(model):
    torch = pytest.importorskip("torch")
    from benchmarks.peers import torch as torch_peer

    spec = make_spec(model)
    weights = draw.draw_arrays(spec)
    net = torch_peer.MODELS[model](spec, weights).train()
    torch_peer.load_weights(net, weights)  # Raises if either has what the other lacks.
    if model in ("small_cnn", "lenet5", "mlp_500_150"):
        theirs = net(torch.from_numpy(weights["images"]).permute(0, 3, 1, 2)).detach()
        params = {"params": nest(weights, "params")}
        with promote_freely():
            ours = make_flax_model(spec, weights).apply(params, weights["images"])
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_operations_are_grouped_by_kind():
    kinds = {
        "jit(train_step)/jvp(alexnet)/conv2/conv_general_dilated": "convolution, forward",
        "jit(train_step)/transpose(jvp(googlenet))/inception3a/branch1_1/conv/dot_general": (
            "convolution, backward"
        ),
        "jit(train_step)/jvp(resnet20)/stage1_block1/norm1/mul": "batch norm",
        "jit(train_step)/jvp(alexnet)/lrn1/reduce_window": "LRN",
        "jit(train_step)/transpose(jvp(vgg_d))/fc6/dot_general": "dense layers",
        "jit(train_step)/jvp(lenet5)/s2/add": "pooling",
        "jit(train_step)/add": "all else",
        "": "all else",
    }
    assert {path: profile_step.find_our_kind("fusion.1", path) for path in kinds} == kinds
    # The path of a convolution with which another layer's operations are fused is that layer's.
    fused = "custom-call.2.clone__onednn$convolution", "jit(step)/jvp(lenet5)/Activation_0/mul"
    assert profile_step.find_our_kind(*fused) == "convolution, forward"
    operations = {
        "aten::convolution_backward": "convolution, backward",
        "aten::mkldnn_convolution": "convolution, forward",
        "aten::native_batch_norm_backward": "batch norm",
        "aten::avg_pool3d_backward": "LRN",
        "aten::max_pool2d_with_indices": "pooling",
        "aten::addmm": "dense layers",
        "aten::copy_": "all else",
    }
    assert {name: profile_step.find_torch_kind(name) for name in operations} == operations


def make_scaling_row(devices, count, size, later):
    collectives = {"all-reduce": {"count": count, "bytes": size}} if count else {}
    return {
        "model": "m",
        "parallel": "jit",
        "devices": devices,
        "collectives": collectives,
        "later_compilations": later,
    }


def test_a_summary_names_collectives_that_depend_on_the_devices():
    same = [
        make_scaling_row(1, 0, 0, 0),
        make_scaling_row(2, 3, 40, 0),
        make_scaling_row(8, 3, 40, 0),
    ]
    assert scaling.summarize_steps(same) == [
        "m jit: collectives are the same on 2, 8 devices; programs compiled after the first step: 0"
    ]
    assert scaling.summarize_steps(
        [make_scaling_row(2, 3, 40, 0), make_scaling_row(8, 3, 1000, 2)]
    ) == [
        "m jit: collectives differ on 2, 8 devices: all-reduce's bytes 40, 1,000; programs compiled"
        " after the first step: 2"
    ]


def test_a_step_on_two_devices_sends_its_gradients_once(monkeypatch):
    monkeypatch.setenv("CNN_JAX_ROUTES", "xla")
    row = scaling.measure_step("lenet5_modern", "jit", 2)
    assert row["params_bytes"] == 4 * 61_706
    # The 8 bytes more are the loss and the error.
    assert row["collectives"] == {"all-reduce": {"count": 1, "bytes": row["params_bytes"] + 8}}


class FakeWorker:
    def __init__(self, variant, blocks):
        self.variant, self.blocks, self.first_s, self.peak_mib, self.losses = (
            variant,
            blocks,
            1.25,
            300.0,
            [2.0, 1.0],
        )


def test_the_table_of_a_training_step_has_medians_and_their_ratio():
    rows = {
        "ours": train_step.summarize_worker(
            FakeWorker("", [0.1, 0.2, 0.4]), batch=8
        ),  # 80, 40 and 20 images/s
        "torch": train_step.summarize_worker(FakeWorker("channels_last", [0.5, 0.1, 0.5]), batch=8),
    }
    assert rows["torch"]["images_per_s"] == {"min": 16, "median": 16, "max": 80}
    ours, torch = train_step.format_table(rows).splitlines()[1:]
    assert ours.split() == ["ours", "40.0", "(20.0", "-", "80.0)", "1.00", "200.0", "1.2", "300"]
    assert torch.split() == [
        "torch",
        "(channels_last)",
        "16.0",
        "(16.0",
        "-",
        "80.0)",
        "2.50",
        "500.0",
        "1.2",
        "300",
    ]


@pytest.mark.parametrize(
    "theirs, message",
    [
        ([2.0, 1.9, 1.7], None),
        ([2.0001, 1.9, 1.7001], None),
        ([2.001, 1.9, 1.7], "loss on the same weights"),
        # The losses without momentum.
        ([2.0, 1.9, 1.8], "two updates change its loss by -0.2, ours by -0.3"),
        ([2.0, 2.0, 2.0], "two updates"),
        ([float("nan")] * 3, "loss on the same weights"),
    ],
)
def test_a_peer_with_other_losses_is_refused(theirs, message):
    if message is None:
        return train_step.check_losses(theirs, [2.0, 1.9, 1.7], 1e-4)
    with pytest.raises(worker_process.WorkerError, match=message):
        train_step.check_losses(theirs, [2.0, 1.9, 1.7], 1e-4)


def test_slow_steps_are_not_repeated_to_warm_up(monkeypatch):
    requests = []

    def make_worker(step_s):
        worker = object.__new__(worker_process.Worker)
        worker.step_s, worker.blocks = step_s, []
        worker._ask = lambda line: (
            requests.append(line) or {"seconds": int(line.split()[1]) * step_s, "peak_mib": 1}
        )
        return worker

    for step_s in (0.25, 4.0):
        worker = worker_process.keep_fastest([make_worker(step_s)], 1)
        worker.time_block(1)
    assert requests == ["1 4", "1 4", "1 4", "0 1"]
    assert worker.blocks == [4]


def test_an_epoch_and_the_bare_step_take_the_same_steps():
    """The instrumented program times both and does not change the state of the run."""
    taken = []

    def train_step(state, arrays, batch):
        taken.append(int(batch["index"][0]))
        return state + 1

    def batches(start):
        return ({"index": np.full(8, k)} for k in itertools.count(start))

    def evaluate(state):
        return {"top1_error": float(state)}

    program = TrainProgram(*[None] * len(TrainProgram._fields))
    program = program._replace(compiled_step=train_step, evaluate=evaluate, batches=batches)
    seconds = {name: [] for name in ("epoch", "bare", "evaluation")}
    build = epoch.instrument_build(lambda config, **_: program, 3, seconds)
    instrumented = build(None, seeds=[0])
    drawn = [int(batch["index"][0]) for batch in itertools.islice(instrumented.batches(0), 3)]
    assert drawn == [0, 1, 2] and not taken
    assert instrumented.evaluate(jnp.int32(7)) == {"top1_error": 7.0}
    assert taken == [0, 1, 2]
    assert len(seconds["epoch"]) == len(seconds["bare"]) == 1 and seconds["epoch"][0] > 0


def make_peer_result(speed, variant="", peak_mib=1000.0):
    speeds = {"min": 0.0, "median": speed, "max": 0.0}
    return {"variant": variant, "images_per_s": speeds, "peak_mib": peak_mib}


PEERS = {
    "ours": make_peer_result(300.0),
    "flax": make_peer_result(100.0),
    "torch": make_peer_result(400.0, "channels_last", 1234.0),
}
RESNET20 = {
    "benchmark": "train_step",
    "model": "resnet20",
    "batch": 128,
    "image": [32, 32, 3],
    "precision": "float32",
    "hardware": "1 x CPU (some, 2 cores)",
    "commit": "abc",
    "peers": PEERS,
}


def find_line(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_markdown_table_of_training_steps():
    slower = RESNET20 | {"peers": PEERS | {"ours": make_peer_result(1.0)}}
    text = table.format_training_steps([slower, RESNET20])  # The last result counts.
    assert find_line(text, "resnet20 ") == [
        "resnet20", "128, 32x32", "float32", "300.0", "3.00", "0.75 (channels_last)",
        "not measured", "1,000, 1,234", "flax 2, torch 1, memory of torch",
        "flax met, torch not met, memory met", "CPU (some, 2 cores), abc",
    ]  # fmt: skip
    assert find_line(text, "vgg_d | 128, 32x32")[3:8] == ["not measured"] * 5
    large = RESNET20 | {"peers": PEERS | {"ours": make_peer_result(1.0, "", 1235.0)}}
    assert "memory not met" in find_line(table.format_training_steps([large]), "resnet20 ")[-2]
    alone = RESNET20 | {"peers": {"ours": PEERS["ours"]}}
    assert "memory not measured" in find_line(table.format_training_steps([alone]), "resnet20 ")[-2]
    elsewhere = RESNET20 | {"hardware": "1 x NVIDIA H100 80GB HBM3"}
    assert "300.0" not in table.format_training_steps([elsewhere, RESNET20 | {"batch": 64}])


def test_the_markdown_table_of_other_goals():
    def make_speed(median):
        return {"images_per_s": {"min": 0.0, "median": median, "max": 0.0}}

    here = {"hardware": "1 x CPU (some, 2 cores)", "commit": "abc"}
    there = {"hardware": "1 x NVIDIA H100 80GB HBM3", "commit": "abc"}
    epoch_result = {
        "benchmark": "epoch",
        "model": "resnet20",
        "batch": 128,
        "ratio": 0.979,
    } | make_speed(120_000.0)
    evaluation_result = {
        "benchmark": "evaluate",
        "model": "resnet50",
        "view": "single",
        "image": [224, 224, 3],
        "seconds": 7.5,
        "precision": "bfloat16",
    }
    loaders = {"ours": make_speed(500_000.0), "grain": make_speed(250_000.0)}
    text = table.format_other_goals(
        [
            epoch_result | here,
            epoch_result | there | {"ratio": 0.99},
            evaluation_result | there | {"images": 50_000},
            evaluation_result | there | {"images": 500, "seconds": 0.1},  # Not of 50,000 images.
            {"benchmark": "batches", "ways": loaders} | here,
            {"benchmark": "views", "protocol": "dense", "peers": PEERS} | here,
        ]
    )
    epochs = [
        line
        for line in text.splitlines()
        if line.startswith("| resnet20, batch 128: images/s of an epoch")
    ]
    assert [line.split("|")[2].strip() for line in epochs] == ["0.979", "0.990"]
    assert [line.split("|")[4].strip() for line in epochs] == ["not met", "met"]
    assert find_line(text, "resnet20, batch 128, data")[1:4] == [
        "120,000 images/s",
        "100,000 images/s",
        "met",
    ]
    assert find_line(text, "resnet50: evaluation")[1:4] == ["7.5 s, bfloat16", "8 s", "met"]
    assert find_line(text, "batches")[1:4] == [
        "500,000 images/s; 2.00 of grain",
        "400,000 images/s",
        "met",
    ]
    assert find_line(text, "launch.py --list")[1] == "not measured"
    start = "vgg_d, 256x320: images/s by the protocol"
    assert find_line(text, f"{start} dense")[1:4] == ["0.75 (channels_last)", "1", "not met"]
    assert find_line(text, f"{start} ten_crop")[1] == "not measured"


def test_the_readme_has_every_row_of_the_printed_tables():
    def cells(line, goals):
        return [c.strip() for c in line.split("|")[1:-1]][goals]

    readme = (ROOT / "benchmarks/README.md").read_text().splitlines()
    for text, goals in (
        (table.format_training_steps([]), slice(0, 3)),
        (table.format_other_goals([]), slice(0, 1)),
    ):
        for line in text.splitlines()[2:]:
            assert any(
                cells(line, goals) == cells(there, goals)
                for there in readme
                if there.startswith("|")
            ), line


def run(module, *flags):
    command = [sys.executable, "-m", f"benchmarks.{module}", *flags]
    # Without eight virtual devices.
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def read_result(done, path):
    """Returns the last printed line, which --json has also written."""
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == path.read_text().splitlines()[-1]
    return json.loads(path.read_text())


def test_epoch_from_end_to_end(tmp_path):
    flags = (
        "--models=perceptron",
        "--images=100",
        "--batch=32",
        "--blocks=2",
        f"--json={tmp_path / 'r'}",
    )
    result = read_result(run("epoch", *flags), tmp_path / "r")
    # The fourth step goes on into the next epoch.
    assert (result["steps"], result["evaluation_images"]) == (4, 20)
    assert 0 < result["images_per_s"]["min"] <= result["bare_images_per_s"]["max"] * 100
    assert (
        result["ratio"] > 0
        and 0 < result["saving_s"] <= result["saved_s"]
        and result["evaluation_s"] > 0
    )


def test_evaluate_from_end_to_end(tmp_path):
    flags = (
        "--models=resnet20",
        "--images=20",
        "--batch=8",
        "--blocks=1",
        f"--json={tmp_path / 'r'}",
    )
    done = run("evaluate", *flags)
    result = read_result(done, tmp_path / "r")
    assert result["images"] == 20 and result["view"] == "single" and result["ratio"] > 0
    assert (
        done.stdout.splitlines()[-2].split()[-1] == "-"
    )  # Seconds are printed only for 50,000 images.


def test_batches_from_end_to_end(tmp_path):
    flags = ("--images=1000", "--seconds=0.02", "--blocks=1", f"--json={tmp_path / 'r'}")
    result = read_result(run("batches", *flags), tmp_path / "r")
    assert (
        result["ways"]["ours"]["images_per_s"]["median"] > 1000
        and result["ways"]["ours"]["restore_ms"] > 0
    )
    assert len(result["ways"]) == 3 or "grain" in result["left_out"]


def test_a_comparison_from_end_to_end():
    done = run("train_step", *LENET, "--seconds=0.2", "--blocks=3", "--peers=flax")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["batch"] == 2 and result["image"] == [28, 28, 1] and result["left_out"] == {}
    assert {"commit", "hardware", "versions", "time"} <= result.keys()
    for peer in ("ours", "flax"):
        speed = result["peers"][peer]["images_per_s"]
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
        assert result["peers"][peer]["peak_mib"] > 50 and result["peers"][peer]["first_step_s"] > 0
    ours, flax = (result["peers"][peer]["losses"] for peer in ("ours", "flax"))
    assert flax == pytest.approx(ours, rel=1e-5) and ours[0] != ours[2]


def test_an_unknown_peer_gives_one_line():
    done = run("train_step", *LENET, "--peers=mxnet")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "train_step.py: --peers=mxnet: no such name; known: flax, torch, keras"
    )


@pytest.mark.parametrize(
    "words, line",
    [
        (("startup", "now"), "startup.py: now: it takes flags only; --help shows them"),
        (("batches", "now"), "batches.py: now: it takes flags only; --help shows them"),
        (("views", "--protocol=x"), "views.py: flag --protocol=x: value should be one of <ten_"),
        (("checkpoints", "--x=1"), "checkpoints.py: Unknown command line flag 'x'; --help"),
        (("scaling", "--models=x"), "scaling.py: --models=x: no such name; known: resnet"),
        (
            ("epoch", "--models=resnet21"),
            "epoch.py: --models=resnet21: no such name; nearest: resn",
        ),
        (("input_pipeline",), "input_pipeline.py: name a folder of class folders with --data="),
        (("input_pipeline", "--data=folder:/x"), "input_pipeline.py: data set folder:/x: no such"),
    ],
)
def test_a_mistake_ends_a_benchmark_in_one_line_with_exit_code_2(words, line):
    done = run(*words)
    said = done.stderr.strip()
    assert done.returncode == 2 and said.startswith(line) and "\n" not in said, said


def test_a_benchmark_names_a_damaged_image(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for k in range(5):
            (tmp_path / "images" / label / f"{k}.jpg").write_bytes(b"no image")
    done = run("input_pipeline", f"--data=folder:{tmp_path / 'images'}")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "a/0.jpg: is no image" in done.stderr and "name a folder without" in done.stderr


def test_a_size_that_a_model_cannot_take_gives_one_line():
    done = run("train_step", "--model=lenet5_modern", "--image_size=2", "--peers=")
    assert done.returncode == 2
    assert done.stderr == "train_step.py: lenet5_modern: images of 2x2; the smallest are 12x12\n"


def test_seeds_from_end_to_end():
    command = [
        sys.executable,
        "-m",
        "benchmarks.seeds",
        "--models=perceptron",
        "--counts=1,2",
        "--seconds=0.01",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    ways = [(row["seeds"], row["way"]) for row in rows]
    assert ways[:4] == [(1, "sequential"), (1, "unrolled"), (1, "vmap"), (2, "sequential")]
    assert all(row["images_per_s"] > 0 for row in rows) and rows[0]["ratio"] == 1
    wrong = subprocess.run([*command[:3], "--models=vgg"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith(
        "seeds.py: --models=vgg: no such name; "
    )
    wrong = subprocess.run([*command[:3], "--counts=0"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr == "seeds.py: --counts=0: give numbers such as 1,2,4,8\n"


def test_the_peer_of_views_keeps_memory_from_before_jax_starts():
    code = """if 1:
        import sys
        from benchmarks.peers import Spec, ours_views
        from cnn_jax.cpu import memory, settings
        def note(values):
            sys.exit(f"{values} {settings._find_started_platform()}")
        memory.keep_memory = note
        ours_views.make_peer(Spec("", "", "vgg_d", 4, (224, 224, 3), 1000, "float32", ""), {})
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.split() == [str(4 * 224**2 * 3), "None"]
