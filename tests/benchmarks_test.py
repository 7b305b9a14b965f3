"""The harness: what it reads from compiled programs, its table, its refusals, and one comparison
from end to end.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import epoch, scaling, table, train_step
from benchmarks.scaling import findings_of
from cnn_jax.training.program import TrainProgram

ROOT = Path(__file__).parent.parent
LENET = ("--net=lenet5_modern", "--batch=2")


def step_row(devices, count, size, later):
    found = {"all-reduce": {"count": count, "bytes": size}} if count else {}
    return {
        "net": "n",
        "form": "jit",
        "devices": devices,
        "collectives": found,
        "later_compilations": later,
    }


def test_findings_tell_what_depends_on_the_devices():
    same = [step_row(1, 0, 0, 0), step_row(2, 3, 40, 0), step_row(8, 3, 40, 0)]
    assert findings_of(same) == [
        "n jit: collectives are the same on 2, 8 devices; programs compiled after the first step: 0"
    ]
    assert findings_of([step_row(2, 3, 40, 0), step_row(8, 3, 1000, 2)]) == [
        "n jit: collectives differ on 2, 8 devices: all-reduce's bytes 40, 1,000; programs compiled"
        " after the first step: 2"
    ]


def test_a_step_over_two_devices_sends_its_gradients_once(monkeypatch):
    monkeypatch.setenv("CNN_JAX_ROUTES", "xla")
    found = scaling.of_step("lenet5_modern", "jit", 2)
    assert found["params_bytes"] == 4 * 61_706
    # Loss and error.
    assert found["collectives"] == {"all-reduce": {"count": 1, "bytes": found["params_bytes"] + 8}}


class Timed:
    def __init__(self, variant, blocks):
        self.variant, self.blocks, self.first_s, self.peak_mib, self.losses = (
            variant,
            blocks,
            1.25,
            300.0,
            [2.0, 1.0],
        )


def test_the_table_has_medians_and_their_ratio():
    rows = {
        "ours": train_step.row(Timed("", [0.1, 0.2, 0.4]), batch=8),  # 80, 40 and 20 images/s
        "torch": train_step.row(Timed("channels_last", [0.5, 0.1, 0.5]), batch=8),
    }
    assert rows["torch"]["images_per_s"] == {"min": 16, "median": 16, "max": 80}
    ours, torch = train_step.table(rows).splitlines()[1:]
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
    "theirs, words",
    [
        ([2.0, 1.9, 1.7], None),
        ([2.0001, 1.9, 1.7001], None),
        ([2.001, 1.9, 1.7], "loss on the same weights"),
        # As without momentum.
        ([2.0, 1.9, 1.8], "two updates change its loss by -0.2, ours by -0.3"),
        ([2.0, 2.0, 2.0], "two updates"),
        ([float("nan")] * 3, "loss on the same weights"),
    ],
)
def test_a_peer_with_other_losses_is_refused(theirs, words):
    if words is None:
        return train_step.check(theirs, [2.0, 1.9, 1.7], 1e-4)
    with pytest.raises(train_step.WorkerError, match=words):
        train_step.check(theirs, [2.0, 1.9, 1.7], 1e-4)


def test_slow_steps_are_not_repeated_to_warm_up(monkeypatch):
    asked = []

    def worker(step_s):
        one = object.__new__(train_step.Worker)
        one.step_s, one.blocks = step_s, []
        one._ask = lambda line: (
            asked.append(line) or {"seconds": int(line.split()[1]) * step_s, "peak_mib": 1}
        )
        return one

    for step_s in (0.25, 4.0):
        one = train_step.fastest([worker(step_s)], 1)
        one.block(1)
    assert asked == ["1 4", "1 4", "1 4", "0 1"]
    assert one.blocks == [4]


def test_an_epoch_and_the_bare_step_take_the_same_steps():
    """A watched build times both from what the run asks of it, and leaves the run's state alone."""
    taken = []

    def train_step(state, arrays, item):
        taken.append(int(item["index"][0]))
        return state + 1

    def items(start):
        return ({"index": np.full(8, k)} for k in itertools.count(start))

    def evaluate(state):
        return {"top1_error": float(state)}

    built = TrainProgram(*[None] * len(TrainProgram._fields))
    built = built._replace(compiled_step=train_step, evaluate=evaluate, batches=items)
    found = {name: [] for name in ("epoch", "bare", "evaluation")}
    watched = epoch.watched(lambda config, **_: built, 3, found)(None, seeds=[0])
    drawn = [int(item["index"][0]) for item in itertools.islice(watched.batches(0), 3)]
    assert drawn == [0, 1, 2] and not taken
    assert watched.evaluate(jnp.int32(7)) == {"top1_error": 7.0}
    assert taken == [0, 1, 2]
    assert len(found["epoch"]) == len(found["bare"]) == 1 and found["epoch"][0] > 0


def peers_row(speed, variant=""):
    return {"variant": variant, "images_per_s": {"min": 0.0, "median": speed, "max": 0.0}}


PEERS = {
    "ours": peers_row(300.0),
    "flax": peers_row(100.0),
    "torch": peers_row(400.0, "channels_last"),
}
RESNET20 = {
    "benchmark": "train_step",
    "net": "resnet20",
    "batch": 128,
    "image": [32, 32, 3],
    "precision": "float32",
    "hardware": "1 x CPU (some, 2 cores)",
    "commit": "abc",
    "peers": PEERS,
}


def line_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_markdown_of_training_steps():
    slower = RESNET20 | {"peers": PEERS | {"ours": peers_row(1.0)}}
    text = table.of_steps([slower, RESNET20])  # the last counts
    assert line_of(text, "resnet20 ") == [
        "resnet20", "128, 32x32", "float32", "300.0", "3.00", "0.75 (channels_last)",
        "not measured", "flax 2, torch 1", "flax met, torch not met", "CPU (some, 2 cores), abc",
    ]  # fmt: skip
    assert line_of(text, "vgg_d | 64, 32x32")[3:7] == ["not measured"] * 4
    elsewhere = RESNET20 | {"hardware": "1 x NVIDIA H100 80GB HBM3"}
    assert "300.0" not in table.of_steps([elsewhere, RESNET20 | {"batch": 64}])


def test_the_markdown_of_other_goals():
    def speed(median):
        return {"images_per_s": {"min": 0.0, "median": median, "max": 0.0}}

    here = {"hardware": "1 x CPU (some, 2 cores)", "commit": "abc"}
    there = {"hardware": "1 x NVIDIA H100 80GB HBM3", "commit": "abc"}
    of_epoch = {"benchmark": "epoch", "net": "resnet20", "batch": 128, "ratio": 0.979} | speed(
        120_000.0
    )
    of_view = {
        "benchmark": "evaluate",
        "net": "resnet50",
        "view": "single",
        "image": [224, 224, 3],
        "seconds": 7.5,
        "precision": "bfloat16",
    }
    ways = {"ours": speed(500_000.0), "grain": speed(250_000.0)}
    text = table.of_goals(
        [
            of_epoch | here,
            of_epoch | there | {"ratio": 0.99},
            of_view | there | {"images": 50_000},
            of_view | there | {"images": 500, "seconds": 0.1},  # says nothing of 50,000
            {"benchmark": "batches", "ways": ways} | here,
        ]
    )
    epochs = [
        line for line in text.splitlines() if line.startswith("| resnet20, batch 128: an epoch")
    ]
    assert [line.split("|")[2].strip() for line in epochs] == ["0.979", "0.990"]
    assert [line.split("|")[4].strip() for line in epochs] == ["not met", "met"]
    assert line_of(text, "resnet20, batch 128, data")[1:4] == [
        "120,000 images/s",
        "100,000 images/s",
        "met",
    ]
    assert line_of(text, "resnet50: evaluation")[1:4] == ["7.5 s, bfloat16", "8 s", "met"]
    assert line_of(text, "batches")[1:4] == [
        "500,000 images/s; 2.00 of grain",
        "400,000 images/s",
        "met",
    ]
    assert line_of(text, "launch.py --list")[1] == "not measured"


def test_the_readme_holds_the_tables_that_are_printed():
    def cells(line, goals):
        return [c.strip() for c in line.split("|")[1:-1]][goals]

    readme = (ROOT / "benchmarks/README.md").read_text().splitlines()
    for text, goals in ((table.of_steps([]), slice(0, 3)), (table.of_goals([]), slice(0, 1))):
        for line in text.splitlines()[2:]:
            assert any(
                cells(line, goals) == cells(there, goals)
                for there in readme
                if there.startswith("|")
            ), line


def run(module, *flags):
    command = [sys.executable, "-m", f"benchmarks.{module}", *flags]
    # One device.
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def result_of(done, path):
    """The last line, which --json has kept too."""
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == path.read_text().splitlines()[-1]
    return json.loads(path.read_text())


def test_epoch_from_end_to_end(tmp_path):
    flags = (
        "--nets=perceptron",
        "--images=100",
        "--batch=32",
        "--blocks=2",
        f"--json={tmp_path / 'r'}",
    )
    told = result_of(run("epoch", *flags), tmp_path / "r")
    # The fourth step goes on into the next epoch.
    assert (told["steps"], told["evaluation_images"]) == (4, 20)
    assert 0 < told["images_per_s"]["min"] <= told["bare_images_per_s"]["max"] * 100
    assert (
        told["ratio"] > 0 and 0 < told["saving_s"] <= told["saved_s"] and told["evaluation_s"] > 0
    )


def test_evaluate_from_end_to_end(tmp_path):
    flags = (
        "--nets=resnet20",
        "--images=20",
        "--batch=8",
        "--blocks=1",
        f"--json={tmp_path / 'r'}",
    )
    done = run("evaluate", *flags)
    told = result_of(done, tmp_path / "r")
    assert told["images"] == 20 and told["view"] == "single" and told["ratio"] > 0
    assert done.stdout.splitlines()[-2].split()[-1] == "-"  # seconds are those of 50,000


def test_batches_from_end_to_end(tmp_path):
    flags = ("--images=1000", "--seconds=0.02", "--blocks=1", f"--json={tmp_path / 'r'}")
    told = result_of(run("batches", *flags), tmp_path / "r")
    assert (
        told["ways"]["ours"]["images_per_s"]["median"] > 1000
        and told["ways"]["ours"]["restore_ms"] > 0
    )
    assert len(told["ways"]) == 3 or "grain" in told["left_out"]


def test_a_comparison_from_end_to_end():
    done = run("train_step", *LENET, "--seconds=0.2", "--blocks=3", "--peers=flax")
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["batch"] == 2 and told["image"] == [28, 28, 1] and told["left_out"] == {}
    assert {"commit", "hardware", "versions", "time"} <= told.keys()
    for peer in ("ours", "flax"):
        speed = told["peers"][peer]["images_per_s"]
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
        assert told["peers"][peer]["peak_mib"] > 50 and told["peers"][peer]["first_step_s"] > 0
    ours, flax = (told["peers"][peer]["losses"] for peer in ("ours", "flax"))
    assert flax == pytest.approx(ours, rel=1e-5) and ours[0] != ours[2]


def test_an_unknown_peer_is_told_in_one_line():
    done = run("train_step", *LENET, "--peers=mxnet")
    assert done.returncode == 1
    assert done.stderr.strip() == "train_step.py: mxnet: choose --peers of flax, torch, keras"


def test_seeds_from_end_to_end():
    command = [
        sys.executable,
        "-m",
        "benchmarks.seeds",
        "--nets=perceptron",
        "--counts=1,2",
        "--seconds=0.01",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    ways = [(row["seeds"], row["way"]) for row in rows]
    assert ways[:4] == [(1, "in turn"), (1, "unrolled"), (1, "vmap"), (2, "in turn")]
    assert all(row["images_per_s"] > 0 for row in rows) and rows[0]["ratio"] == 1
    wrong = subprocess.run([*command[:3], "--nets=vgg"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.startswith(
        "seeds.py: choose --nets of perceptron, mlp"
    )
