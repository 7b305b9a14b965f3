"""Prints every goal with what was measured, as two Markdown tables.

    python -m benchmarks.table bench.jsonl gpu.jsonl

The files hold the lines of JSON that the benchmarks wrote with `--json`. If several lines measure
the same, the last one counts. A goal without a line is "not measured".
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cnn_jax.commands import run_command
from cnn_jax.errors import UserError, explain_os_errors

NOT_MEASURED = "not measured"
PEERS = ("flax", "torch", "keras")


class StepGoal(NamedTuple):
    """The goals of a training step.

    Attributes:
      model: A key of `benchmarks.peers.WORKLOADS`.
      batch: Images per step.
      side: Of the images, in pixels.
      precision: Of activations.
      hardware: As `name_hardware` returns it.
      ratios: The least ours/peer ratios of images/s.
      images_per_s: The least images/s of ours; 0: any.
      memory_of: The peer whose peak memory ours may not exceed; empty: none.
    """

    model: str
    batch: int
    side: int
    precision: str
    hardware: str
    ratios: dict[str, float]
    images_per_s: float = 0
    memory_of: str = ""


class Goal(NamedTuple):
    """A goal of another benchmark."""

    what: str
    hardware: str
    benchmark: str
    # read(result) -> (value, the value as text); None if the result measures something else.
    read: Callable[[dict[str, Any]], tuple[float, str] | None]
    goal: str
    least: float = float("-inf")
    most: float = float("inf")


STEP_GOALS = (
    StepGoal(
        *("resnet50", 16, 224, "float32", "CPU"),
        {"flax": 2, "torch": 1.1, "keras": 1.5},
        memory_of="torch",
    ),
    *(
        StepGoal(
            *(model, batch, side, "float32", "CPU"), {"flax": 2, "torch": 1}, memory_of="torch"
        )
        for model, batch, side in (
            ("resnet20", 128, 32),
            ("resnet56", 128, 32),
            ("plain56", 128, 32),
            ("vgg_d", 128, 32),
            ("alexnet", 32, 227),
            ("googlenet", 8, 224),
            ("inception_v3", 8, 299),
            ("small_cnn", 128, 28),
            ("lenet5", 128, 28),
            ("mlp_500_150", 64, 28),
        )
    ),
    StepGoal("lenet5_modern", 1, 28, "float32", "CPU", {"torch": 2.5}),
    StepGoal("resnet50", 256, 224, "bfloat16", "H100", {"flax": 1.25, "torch": 1}, 4_000),
    StepGoal("vgg_d", 64, 224, "bfloat16", "H100", {}, 1_800),
)

# Starts, and the most seconds that each may take.
START_GOALS = {
    "launch.py --list": 0.5,
    "launch.py --help": 0.5,
    "launch to first step, warm compile cache": 5,
    "launch to first step, warm compile cache, a long run": 5,
}


def main(paths: list[str]) -> None:
    """Prints both tables."""
    if not paths:
        raise UserError("name the files that benchmarks wrote with --json")
    results = [result for path in paths for result in read_results(path)]
    print(format_training_steps(results))
    print()
    print(format_other_goals(results))


def read_results(path: str) -> list[dict[str, Any]]:
    """Returns the results in a file that benchmarks wrote.

    Raises:
      UserError: If it cannot be read, or a line is no result.
    """
    with explain_os_errors(f"{path} cannot be read"):
        lines = Path(path).read_bytes().splitlines()
    results = []
    for number, line in enumerate(lines, 1):
        try:
            result = json.loads(line)
            assert isinstance(result["benchmark"], str) and isinstance(result["hardware"], str)
        except (AssertionError, KeyError, TypeError, ValueError, RecursionError):
            raise UserError(
                f"{path}, line {number}: is no result of a benchmark: delete the line, and measure"
                " again what it was to hold"
            ) from None
        results.append(result)
    return results


def format_training_steps(results: list[dict[str, Any]]) -> str:
    """Returns the table of training steps.

    It has our images/s, the ratios ours/peer of medians, and the peak memory of ours and PyTorch's.
    """
    head = (
        "model",
        "batch, images",
        "precision",
        "ours, images/s",
        *PEERS,
        "peak MiB, torch's",
        "goals",
        "met",
        "hardware, commit",
    )
    lines = []
    for goal in STEP_GOALS:
        images = f"{goal.batch}, {goal.side}x{goal.side}"
        goals = [f"{peer} {least:g}" for peer, least in goal.ratios.items()]
        goals += [f"{goal.images_per_s:,} images/s"] if goal.images_per_s else []
        goals += [f"memory of {goal.memory_of}"] if goal.memory_of else []
        result = next((r for r in reversed(results) if measures_step(r, goal)), None)
        cells, met, origin = [NOT_MEASURED] * 5, NOT_MEASURED, goal.hardware
        if result:
            peers, origin = result["peers"], describe_origin(result)
            ours = peers["ours"]["images_per_s"]["median"]
            ratios = {p: ours / peers[p]["images_per_s"]["median"] for p in PEERS if p in peers}
            cells = [f"{ours:,.1f}", *(format_ratio(p, ratios, peers) for p in PEERS)]
            peaks = {p: peers[p]["peak_mib"] for p in ("ours", "torch") if p in peers}
            cells.append(", ".join(f"{mib:,.0f}" for mib in peaks.values()))
            verdicts = {
                p: format_verdict(ratios[p] >= goal.ratios[p]) for p in goal.ratios if p in ratios
            }
            verdicts |= {p: NOT_MEASURED for p in goal.ratios if p not in ratios}
            if goal.images_per_s:
                verdicts["images/s"] = format_verdict(ours >= goal.images_per_s)
            if goal.memory_of:
                bound = peaks.get(goal.memory_of)
                verdicts["memory"] = (
                    NOT_MEASURED if bound is None else format_verdict(peaks["ours"] <= bound)
                )
            met = ", ".join(f"{what} {verdict}" for what, verdict in verdicts.items())
        lines.append((goal.model, images, goal.precision, *cells, ", ".join(goals), met, origin))
    return format_markdown(head, lines)


def measures_step(result: dict[str, Any], goal: StepGoal) -> bool:
    """Returns whether the result measures the step of the goal, on the goal's hardware."""
    return (
        result["benchmark"] == "train_step"
        and (result["model"], result["batch"], result["image"][0], result["precision"]) == goal[:4]
        and name_hardware(result) == goal.hardware
    )


def format_ratio(peer: str, ratios: dict[str, float], peers: dict[str, Any]) -> str:
    """Returns the ratio ours/peer with the peer's variant."""
    if peer not in ratios:
        return NOT_MEASURED
    variant = peers[peer]["variant"]
    return f"{ratios[peer]:.2f}" + (f" ({variant})" if variant else "")


def format_other_goals(results: list[dict[str, Any]]) -> str:
    """Returns the table of the goals that are no training steps."""
    lines = []
    for goal in iterate_other_goals():
        candidates = [
            r
            for r in results
            if r["benchmark"] == goal.benchmark and name_hardware(r) == goal.hardware
        ]
        found = [(read, r) for r in candidates if (read := goal.read(r)) is not None]
        measured, met, origin = NOT_MEASURED, NOT_MEASURED, goal.hardware
        if found:
            (value, measured), result = found[-1]
            met, origin = format_verdict(goal.least <= value <= goal.most), describe_origin(result)
        lines.append((goal.what, measured, goal.goal, met, origin))
    return format_markdown(("what", "measured", "goal", "met", "hardware, commit"), lines)


def iterate_other_goals() -> Iterator[Goal]:
    """Yields the goals that are no training steps."""
    for hardware in ("CPU", "H100"):
        for model in ("resnet20", "lenet5_modern"):
            what = f"{model}, batch 128: images/s of an epoch / of the bare step"
            read = functools.partial(read_epoch_ratio, model=model)
            yield Goal(what, hardware, "epoch", read, "0.98", least=0.98)
    what = "resnet20, batch 128, data and augmentation on the device"
    yield Goal(what, "H100", "epoch", read_epoch_speed, "100,000 images/s", least=100_000)
    what = "batches from memory, shuffled and restorable, on one core"
    yield Goal(what, "CPU", "batches", read_batches_speed, "400,000 images/s", least=400_000)
    for model in ("resnet50", "vgg_d"):
        what = f"{model}: evaluation of 50,000 images at 224 by the protocol single"
        read = functools.partial(read_evaluation_seconds, model=model)
        yield Goal(what, "H100", "evaluate", read, "8 s", most=8)
    for protocol in ("ten_crop", "dense"):
        what = f"vgg_d, 256x320: images/s by the protocol {protocol} / of the same in PyTorch"
        read = functools.partial(read_views_ratio, protocol=protocol)
        yield Goal(what, "CPU", "views", read, "1", least=1)
    for what, most in START_GOALS.items():
        read = functools.partial(read_start_seconds, what=what)
        yield Goal(what, "CPU", "startup", read, f"{most:g} s", most=most)


def read_epoch_ratio(result: dict[str, Any], model: str) -> tuple[float, str] | None:
    """Reads an epoch's images/s as a ratio to the bare step's, the median of pairs."""
    if (result["model"], result["batch"]) != (model, 128):
        return None
    return result["ratio"], f"{result['ratio']:.3f}"


def read_epoch_speed(result: dict[str, Any]) -> tuple[float, str] | None:
    """Reads the images/s of ResNet-20's epoch."""
    if (result["model"], result["batch"]) != ("resnet20", 128):
        return None
    speed = result["images_per_s"]["median"]
    return speed, f"{speed:,.0f} images/s"


def read_batches_speed(result: dict[str, Any]) -> tuple[float, str]:
    """Reads the images/s of our loader, with its ratio to each other loader."""
    speeds = {name: way["images_per_s"]["median"] for name, way in result["ways"].items()}
    ratios = [
        f"{speeds['ours'] / speed:.2f} of {name}"
        for name, speed in speeds.items()
        if name != "ours"
    ]
    return speeds["ours"], "; ".join([f"{speeds['ours']:,.0f} images/s", *ratios])


def read_evaluation_seconds(result: dict[str, Any], model: str) -> tuple[float, str] | None:
    """Reads the seconds of a model's evaluation of 50,000 images of 224 pixels."""
    measured = (result["model"], result["view"], result["image"][0], result["images"])
    if measured != (model, "single", 224, 50_000):
        return None
    return result["seconds"], f"{result['seconds']:.1f} s, {result['precision']}"


def read_views_ratio(result: dict[str, Any], protocol: str) -> tuple[float, str] | None:
    """Reads a protocol's images/s as a ratio to PyTorch's, of medians."""
    peers = result["peers"]
    if result["protocol"] != protocol or "torch" not in peers:
        return None
    ours, theirs = (peers[peer]["images_per_s"]["median"] for peer in ("ours", "torch"))
    return ours / theirs, f"{ours / theirs:.2f} ({peers['torch']['variant']})"


def read_start_seconds(result: dict[str, Any], what: str) -> tuple[float, str] | None:
    """Reads the median seconds of a start."""
    if what not in result["seconds"]:
        return None
    median = result["seconds"][what]["median"]
    return median, f"{median:.2f} s"


def name_hardware(result: dict[str, Any]) -> str:
    """Returns "CPU", "H100" for one H100, or the result's own description of other hardware."""
    count, _, kind = result["hardware"].partition(" x ")
    if kind.startswith("CPU"):
        return "CPU"
    return "H100" if count == "1" and "H100" in kind else result["hardware"]


def describe_origin(result: dict[str, Any]) -> str:
    """Returns the hardware and the commit of a result."""
    return f"{result['hardware'].removeprefix('1 x ')}, {result['commit']}"


def format_verdict(met: bool) -> str:
    """Returns "met" or "not met"."""
    return "met" if met else "not met"


def format_markdown(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Returns a Markdown table."""
    text = ["| " + " | ".join(line) + " |" for line in (head, *lines)]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]])


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:]), "table.py"))
