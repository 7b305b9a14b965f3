"""The last table as Markdown: every goal, and what the benchmarks' JSON lines say of it.

    python -m benchmarks.table results.jsonl gpu.jsonl

Of several lines about the same, the last counts. What no line tells is "not measured".
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

NOT_MEASURED = "not measured"
PEERS = ("flax", "torch", "keras")


class Steps(NamedTuple):
    """A training step that has goals: the least of ours/peer, and of our images/s."""

    net: str
    batch: int
    side: int
    precision: str
    hardware: str  # as `about` names it
    ratios: dict[str, float]
    images_per_s: float = 0


class Goal(NamedTuple):
    """A goal of another benchmark. found(result) -> (value, its words); None: the result does not tell."""

    what: str
    hardware: str
    benchmark: str
    found: Callable[[dict[str, Any]], tuple[float, str] | None]
    goal: str
    least: float = float("-inf")
    most: float = float("inf")


STEPS = (
    Steps("resnet50", 16, 224, "float32", "CPU", {"flax": 2, "torch": 1.1, "keras": 1.5}),
    Steps("resnet20", 128, 32, "float32", "CPU", {"flax": 2, "torch": 1}),
    Steps("vgg_d", 64, 32, "float32", "CPU", {"flax": 4, "torch": 0.9}),
    Steps("lenet5_modern", 1, 28, "float32", "CPU", {"torch": 2.5}),
    Steps("resnet50", 256, 224, "bfloat16", "H100", {"flax": 1.25, "torch": 1}, 4_000),
    Steps("vgg_d", 64, 224, "bfloat16", "H100", {}, 1_800),
)

# Seconds.
STARTS = {
    "launch.py --list": 0.5,
    "launch.py --help": 0.5,
    "launch to first step, warm compile cache": 6,
}


def main(paths: list[str]) -> None:
    """Prints both tables."""
    if not paths:
        sys.exit("table.py: name the files that benchmarks wrote with --json")
    try:
        results = [
            json.loads(line) for path in paths for line in Path(path).read_text().splitlines()
        ]
    except (OSError, ValueError) as e:
        sys.exit(f"table.py: {e}")
    print(of_steps(results))
    print()
    print(of_goals(results))


def of_steps(results: list[dict[str, Any]]) -> str:
    """A line a training step: ours/peer, medians."""
    head = (
        "net",
        "batch, images",
        "precision",
        "ours, images/s",
        *PEERS,
        "goals",
        "met",
        "hardware, commit",
    )
    lines = []
    for row in STEPS:
        images = f"{row.batch}, {row.side}x{row.side}"
        goals = [f"{peer} {least:g}" for peer, least in row.ratios.items()]
        goals += [f"{row.images_per_s:,} images/s"] if row.images_per_s else []
        result = next((r for r in reversed(results) if is_of(row, r)), None)
        cells, met, where = [NOT_MEASURED] * 4, NOT_MEASURED, row.hardware
        if result:
            peers, where = result["peers"], place(result)
            ours = peers["ours"]["images_per_s"]["median"]
            ratios = {p: ours / peers[p]["images_per_s"]["median"] for p in PEERS if p in peers}
            cells = [f"{ours:,.1f}", *(ratio_of(p, ratios, peers) for p in PEERS)]
            verdicts = {p: verdict(ratios[p] >= row.ratios[p]) for p in row.ratios if p in ratios}
            verdicts |= {p: NOT_MEASURED for p in row.ratios if p not in ratios}
            if row.images_per_s:
                verdicts["images/s"] = verdict(ours >= row.images_per_s)
            met = ", ".join(f"{what} {said}" for what, said in verdicts.items())
        lines.append((row.net, images, row.precision, *cells, ", ".join(goals), met, where))
    return markdown(head, lines)


def is_of(row: Steps, result: dict[str, Any]) -> bool:
    """Whether the result is of that step, there."""
    return (
        result["benchmark"] == "train_step"
        and (result["net"], result["batch"], result["image"][0], result["precision"]) == row[:4]
        and about(result) == row.hardware
    )


def ratio_of(peer: str, ratios: dict[str, float], peers: dict[str, Any]) -> str:
    """ours/peer, with the peer's variant."""
    if peer not in ratios:
        return NOT_MEASURED
    variant = peers[peer]["variant"]
    return f"{ratios[peer]:.2f}" + (f" ({variant})" if variant else "")


def of_goals(results: list[dict[str, Any]]) -> str:
    """A line each of the other goals."""
    lines = []
    for goal in goals():
        there = [
            r for r in results if r["benchmark"] == goal.benchmark and about(r) == goal.hardware
        ]
        found = [(value, result) for result in there if (value := goal.found(result)) is not None]
        measured, met, where = NOT_MEASURED, NOT_MEASURED, goal.hardware
        if found:
            (value, measured), result = found[-1]
            met, where = verdict(goal.least <= value <= goal.most), place(result)
        lines.append((goal.what, measured, goal.goal, met, where))
    return markdown(("what", "measured", "goal", "met", "hardware, commit"), lines)


def goals() -> Iterator[Goal]:
    """All goals but those of training steps."""
    for hardware in ("CPU", "H100"):
        for net in ("resnet20", "lenet5_modern"):
            what = f"{net}, batch 128: an epoch's rate against the bare step's"
            yield Goal(what, hardware, "epoch", epoch_ratio(net), "0.98 of it", least=0.98)
    what = "resnet20, batch 128, data and augmentation on the device"
    yield Goal(what, "H100", "epoch", epoch_speed, "100,000 images/s", least=100_000)
    what = "batches from memory, shuffled and restorable, on one core"
    yield Goal(what, "CPU", "batches", batches_speed, "400,000 images/s", least=400_000)
    for net in ("resnet50", "vgg_d"):
        what = f"{net}: evaluation of 50,000 images at 224, the single view"
        yield Goal(what, "H100", "evaluate", evaluation_seconds(net), "8 s", most=8)
    for what, most in STARTS.items():
        yield Goal(what, "CPU", "startup", start_seconds(what), f"{most:g} s", most=most)


def epoch_ratio(net: str) -> Callable[[dict[str, Any]], tuple[float, str] | None]:
    """What the epoch reaches of the bare step's images/s, as the median of pairs."""
    return lambda r: (
        (r["ratio"], f"{r['ratio']:.3f}") if (r["net"], r["batch"]) == (net, 128) else None
    )


def epoch_speed(result: dict[str, Any]) -> tuple[float, str] | None:
    """Images/s of ResNet-20's epoch."""
    speed = result["images_per_s"]["median"]
    return (
        (speed, f"{speed:,.0f} images/s")
        if (result["net"], result["batch"]) == ("resnet20", 128)
        else None
    )


def batches_speed(result: dict[str, Any]) -> tuple[float, str]:
    """Images/s of our feed, with the ratios to the others."""
    ways = {name: way["images_per_s"]["median"] for name, way in result["ways"].items()}
    ratios = [
        f"{ways['ours'] / speed:.2f} of {name}" for name, speed in ways.items() if name != "ours"
    ]
    return ways["ours"], "; ".join([f"{ways['ours']:,.0f} images/s", *ratios])


def evaluation_seconds(net: str) -> Callable[[dict[str, Any]], tuple[float, str] | None]:
    """Seconds of the net's evaluation, if it was of 50,000 images of 224."""

    def found(r: dict[str, Any]) -> tuple[float, str] | None:
        if (r["net"], r["view"], r["image"][0], r["images"]) != (net, "single", 224, 50_000):
            return None
        return r["seconds"], f"{r['seconds']:.1f} s, {r['precision']}"

    return found


def start_seconds(what: str) -> Callable[[dict[str, Any]], tuple[float, str] | None]:
    """Median seconds of a start."""
    median = lambda r: r["seconds"][what]["median"]
    return lambda r: (median(r), f"{median(r):.2f} s")


def about(result: dict[str, Any]) -> str:
    """CPU, H100, or what else the hardware is called; several devices are not one."""
    count, _, kind = result["hardware"].partition(" x ")
    if kind.startswith("CPU"):
        return "CPU"
    return "H100" if count == "1" and "H100" in kind else result["hardware"]


def place(result: dict[str, Any]) -> str:
    """Where and with what."""
    return f"{result['hardware'].removeprefix('1 x ')}, {result['commit']}"


def verdict(met: bool) -> str:
    """In words."""
    return "met" if met else "not met"


def markdown(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """A table."""
    text = ["| " + " | ".join(line) + " |" for line in (head, *lines)]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]])


if __name__ == "__main__":
    main(sys.argv[1:])
