"""What a study's folder holds, read back as values: the study, its nets, and how far each seed's run came."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_jax.errors import UserError

NEEDED = {"study.json": ("name", "title", "rows", "command", "seeds"), "row": ("run", "label", "group")}


@dataclass(frozen=True)
class Run:
    """One seed's run: its settings as written, its launches, and what it logged."""

    seed: int
    path: str  # of its folder, in the study's
    config: str  # config.json's text, or empty
    settings: dict[str, Any]
    starts: tuple[dict, ...]
    train: dict[int, dict]  # iteration -> event
    evals: dict[int, dict]
    tests: dict[str, dict]  # of the finished run: protocol, such as dense@256 -> what was found
    reached: int  # the last iteration that left an event
    state: str  # finished | cut off at step k of n | stopped by NaN at step k | not started

    @property
    def steps(self) -> int | None:
        """The iterations it was to make, None where it has no config.json."""
        return self.settings.get("train", {}).get("steps")

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.state == "finished"


@dataclass(frozen=True)
class Net:
    """A row of the paper's table, and the runs that stand for it."""

    run: str
    label: str
    group: str
    paper: dict[str, float]  # metric -> the paper's figure in %
    source: str
    runs: tuple[Run, ...]
    table: str = ""
    test: str = ""


def read(workdir: Path) -> tuple[dict[str, Any], list[Net]]:
    """study.json and its nets; raises UserError for a missing or broken file, naming it and the remedy."""
    path = workdir / "study.json"
    if not path.is_file():
        remedy = f"run the study first: python launch.py --experiment=NAME --workdir={workdir}"
        raise UserError(f"{workdir} holds no study.json, so it is no study's folder; {remedy}")
    study = _checked(path, _object(path, path.read_bytes()), NEEDED["study.json"])
    nets, of_run = [], functools.cache(functools.partial(_runs, workdir, study["seeds"]))
    for row in study["rows"]:
        _checked(path, row, NEEDED["row"])
        runs = of_run(row["run"])
        paper, source = row.get("paper", {}), row.get("source", "")
        place = row.get("table", ""), row.get("protocol", "")
        nets.append(Net(row["run"], row["label"], row["group"], paper, source, runs, *place))
    if not nets and not study.get("counts"):
        raise UserError(f"{path}: no rows, so there is nothing to report; launch the study again")
    return study, nets


def _runs(workdir: Path, seeds: int, run: str) -> tuple[Run, ...]:
    found = {p.name[4:] for p in (workdir / run).glob("seed*")}
    every = sorted({int(k) for k in found if k.isdigit()} | set(range(seeds)))
    return tuple(_run(workdir, f"{run}/seed{k}", k) for k in every)


def _checked(path: Path, items: dict[str, Any], needed: tuple[str, ...]) -> dict[str, Any]:
    if missing := [name for name in needed if name not in items]:
        raise UserError(f"{path}: {missing[0]} is missing; launch the study again, which rewrites the file")
    return items


def _object(path: Path, text: bytes, where: str = "") -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:  # not JSON, or not UTF-8
        value = None
    if not isinstance(value, dict):
        remedy = "delete it" if path.name == "study.json" else "restore it, or delete its folder"
        raise UserError(f"{path}{where} is not a JSON object; {remedy}, and launch the study again")
    return value


def _run(workdir: Path, path: str, seed: int) -> Run:
    config = workdir / path / "config.json"
    text = config.read_bytes() if config.is_file() else b""
    settings = _object(config, text) if text else {}
    starts = _lines(workdir / path / "starts.jsonl", {})
    events = _lines(workdir / path / "metrics.jsonl", {"event": str, "step": int})
    train, evals = ({e["step"]: e for e in events if e["event"] == kind} for kind in ("train", "eval"))
    reached = max((e["step"] for e in events), default=0)
    state = _state(events, reached, settings.get("train", {}).get("steps")) if starts or events else "not started"
    tests = {p.stem: _object(p, p.read_bytes()) for p in sorted((workdir / path / "evaluations").glob("*.json"))}
    return Run(seed, path, text.decode(), settings, tuple(starts), train, evals, tests, reached, state)


def _lines(path: Path, wanted: dict[str, type]) -> list[dict[str, Any]]:
    """A log's objects. Its last line may be torn, by a crash while it was written; any other must be whole."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    if lines[-1]:
        try:
            json.loads(lines[-1])
        except ValueError:
            lines.pop()
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f", line {number},"
            found.append(_object(path, line, where))
            if wrong := [name for name, kind in wanted.items() if not isinstance(found[-1].get(name), kind)]:
                raise UserError(f"{path}{where} has no {wrong[0]}; delete the line, or its folder and run it again")
    return found


def _state(events: list[dict[str, Any]], reached: int, steps: int | None) -> str:
    if any(e["event"] == "end" and e["step"] >= (steps or 0) for e in events):
        return "finished"
    if nan := [e["step"] for e in events if e["event"] == "nan"]:
        return f"stopped by NaN at step {nan[-1]:,}"
    return f"cut off at step {reached:,}" + (f" of {steps:,}" if steps else "")
