"""The harness: what it reads from compiled programs, its table, its refusals, and one comparison from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import train_step
from benchmarks.scaling import collectives, findings_of, size_of

ROOT = Path(__file__).parent.parent

HLO = """
HloModule jit_step, is_scheduled=true

%region_0 (a: f32[], b: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %add.1 = f32[] add(%x, %x)
}

ENTRY %main (x: f32[8,16]) -> f32[8,16] {
  %x = f32[8,16]{1,0} parameter(0), metadata={op_name="all-reduce(%x)"}
  %y = bf16[10]{0} fusion(%x), kind=kLoop, calls=%fused
  %all-reduce.3 = (f32[8,16]{1,0}, /*index=1*/bf16[10]{0}) all-reduce(%x, %y), channel_id=1, to_apply=%region_0
  %get-tuple-element.7 = f32[8,16]{1,0} get-tuple-element(%all-reduce.3), index=0
  %gather = f32[4,8,16]{2,1,0:T(8,128)} all-gather(%get-tuple-element.7), dimensions={0}
  %start = f32[8,16]{1,0} all-reduce-start(%x), channel_id=2, to_apply=%region_0
  %done = f32[8,16]{1,0} all-reduce-done(%start)
  ROOT %scattered = f32[2,16]{1,0} reduce-scatter(f32[8,16]{1,0} %done), dimensions={0}, to_apply=%region_0
}
"""


def test_collectives_are_counted_with_the_bytes_of_their_operands():
    assert collectives(HLO) == {
        "all-reduce": {"count": 2, "bytes": 512 + 20 + 512},
        "all-gather": {"count": 1, "bytes": 512},
        "reduce-scatter": {"count": 1, "bytes": 512},
    }


@pytest.mark.parametrize(
    "shape, size", [("f32[]", 4), ("pred[3]", 3), ("(u8[2]{0}, s4[3]{0})", 4), ("f8e4m3fn[7]", 7), ("c64[2]", 16)]
)
def test_size_of_a_shape(shape, size):
    assert size_of(shape) == size


def step_row(devices, count, size, later):
    found = {"all-reduce": {"count": count, "bytes": size}} if count else {}
    return {"net": "n", "form": "jit", "devices": devices, "collectives": found, "later_compilations": later}


def test_findings_tell_what_depends_on_the_devices():
    same = [step_row(1, 0, 0, 0), step_row(2, 3, 40, 0), step_row(8, 3, 40, 0)]
    assert findings_of(same) == [
        "n jit: collectives are the same on 2, 8 devices; programs compiled after the first step: 0"
    ]
    assert findings_of([step_row(2, 3, 40, 0), step_row(8, 3, 1000, 2)]) == [
        "n jit: collectives differ on 2, 8 devices: all-reduce's bytes 40, 1,000; programs compiled after the first"
        " step: 2"
    ]


class Timed:
    def __init__(self, variant, blocks):
        self.variant, self.blocks, self.first_s, self.peak_mib, self.losses = variant, blocks, 1.25, 300.0, [2.0, 1.0]


def test_the_table_has_medians_and_their_ratio():
    rows = {
        "ours": train_step.row(Timed("", [0.1, 0.2, 0.4]), batch=8),  # 80, 40 and 20 images/s
        "torch": train_step.row(Timed("channels_last", [0.5, 0.1, 0.5]), batch=8),
    }
    assert rows["torch"]["images_per_s"] == {"min": 16, "median": 16, "max": 80}
    ours, torch = train_step.table(rows).splitlines()[1:]
    assert ours.split() == ["ours", "40.0", "(20.0", "-", "80.0)", "1.00", "200.0", "1.2", "300"]
    assert torch.split() == ["torch", "(channels_last)", "16.0", "(16.0", "-", "80.0)", "2.50", "500.0", "1.2", "300"]


@pytest.mark.parametrize(
    "theirs, words",
    [
        ([2.0, 1.9, 1.7], None),
        ([2.0001, 1.9, 1.7001], None),
        ([2.001, 1.9, 1.7], "loss on the same weights"),
        ([2.0, 1.9, 1.8], "two updates change its loss by -0.2, ours by -0.3"),  # as without momentum
        ([2.0, 2.0, 2.0], "two updates"),
        ([float("nan")] * 3, "loss on the same weights"),
    ],
)
def test_a_peer_with_other_losses_is_refused(theirs, words):
    if words is None:
        return train_step.check(theirs, [2.0, 1.9, 1.7], 1e-4)
    with pytest.raises(train_step.WorkerError, match=words):
        train_step.check(theirs, [2.0, 1.9, 1.7], 1e-4)


def run(*flags):
    command = [sys.executable, "-m", "benchmarks.train_step", "--net=lenet5_modern", "--batch=2", *flags]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}  # one device
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_comparison_from_end_to_end():
    done = run("--seconds=0.2", "--blocks=3", "--peers=flax")
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
    done = run("--peers=mxnet")
    assert done.returncode == 1
    assert done.stderr.strip() == "train_step.py: mxnet: choose --peers of flax, torch, keras"


def test_seeds_from_end_to_end():
    command = [sys.executable, "-m", "benchmarks.seeds", "--nets=perceptron", "--counts=1,2", "--seconds=0.01"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    ways = [(row["seeds"], row["way"]) for row in rows]
    assert ways[:4] == [(1, "in turn"), (1, "unrolled"), (1, "vmap"), (2, "in turn")]
    assert all(row["images_per_s"] > 0 for row in rows) and rows[0]["ratio"] == 1
    wrong = subprocess.run([*command[:3], "--nets=vgg"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.startswith("seeds.py: choose --nets of perceptron, mlp")
