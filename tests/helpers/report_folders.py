"""Folders of studies, written by hand for the tests of reports."""

import json
from dataclasses import dataclass

from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.config_file import to_json
from cnn_jax.report.reading.folder import read
from cnn_jax.report.rows import Row

COMMAND = "python launch.py --experiment=some_study --seeds=3"
DIGITS = 1_437  # Training images of digits.


@dataclass
class FakeStudy:
    """The attributes of a study that `build` reads."""

    rows: tuple = ()
    claims: tuple = ()
    tuning: object = None
    report: object = None


def make_row(run, group="residual", paper=None, **more):
    return Row(run, run, group, "Figure 6", paper or {}, **more)


def write_study(folder, *runs, **more):
    words = {
        "name": "some_study",
        "title": "A study",
        "paper": "He 2015",
        "paper_data": "digits",
        "preset": "laptop",
        "data": "digits",
        "command": COMMAND,
        "seeds": 1,
        "notes": ["a free note"],
        "runs": list(runs),
        "swept": [],
        "paper_runs": {},
    }
    (folder / "study.json").write_text(json.dumps(words | more))


def make_experiment(
    run="run", seed=0, steps=300, deviations=(), model="resnet20", data="digits", **fields
):
    return Experiment(
        study="some_study",
        name=run,
        seed=seed,
        data=Data(dataset=choose(data), train_resize=fields.pop("train_resize", ())),
        model=choose(model, **fields.pop("options", {})),
        train=Train(steps=steps, **fields.pop("train_fields", {})),
        deviations=tuple(deviations),
        **fields,
    )


def write_run(
    folder,
    run,
    seed=0,
    errors=(),
    train=(),
    last="end",
    error_name="top1_error",
    **fields,
):
    """Writes a run that was evaluated every 100 steps and logged every 50. Errors are fractions."""
    place = folder / run / f"seed{seed}"
    place.mkdir(parents=True)
    experiment = make_experiment(run, seed, **fields)
    (place / "config.json").write_text(to_json(experiment))
    start = {"step": 0, "time": "2026-11-22T15:00:00+00:00", "commit": "abc1234"}
    start |= {"hardware": "2 x cpu", "versions": {"jax": "0.12.0"}}
    (place / "starts.jsonl").write_text(json.dumps(start) + "\n")
    events = [
        {"event": "train", "step": step, "epoch": epoch, error_name: e, "loss": 1.0}
        for i, e in enumerate(train, 1)
        for step, epoch in [(50 * i, 50 * i * experiment.data.batch_size / DIGITS)]
    ]
    events += [
        {"event": "eval", "step": 100 * i, "images": 360, error_name: e}
        for i, e in enumerate(errors, 1)
    ]
    if last:
        events.append({"event": last, "step": experiment.train.steps if last == "end" else 250})
    (place / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return place


def write_evaluation(place, protocol, wrong, top5=0.01, interval=(0.1, 0.3)):
    """Writes what a protocol measured; wrong: 0 or 1 an image."""
    (place / "evaluations").mkdir(exist_ok=True)
    words = {
        "images": len(wrong),
        "top1_error": wrong.count("1") / len(wrong),
        "top5_error": top5,
        "top1_interval": interval,
        "top5_interval": (0.0, 0.02),
        "wrong": wrong,
    }
    (place / "evaluations" / f"{protocol}.json").write_text(json.dumps(words))


def write_answers(folder, answers, seeds=1):
    """Writes a study's evaluations. answers: {(run, protocol): wrong of each seed}."""
    write_study(folder, *dict.fromkeys(run for run, _ in answers), seeds=seeds)
    for (run, protocol), each in answers.items():
        for seed, wrong in enumerate(each):
            place = folder / run / f"seed{seed}"
            if not place.exists():
                write_run(folder, run, seed, errors=(0.2,))
            write_evaluation(place, protocol, wrong)


def write_training(folder, errors, **fields):
    """Writes a study's training. errors: {run: final training error of each seed}."""
    seeds = max(map(len, errors.values()))
    write_study(folder, *errors, seeds=seeds, **fields)
    for run, each in errors.items():
        for seed, error in enumerate(each):
            write_run(folder, run, seed, errors=(0.5,), train=(0.9, error))


def read_folder(folder, *rows, claims=()):
    return read(folder, rows, claims)


def cells(table):
    """Returns {label: {column: text}} of a table."""

    def text(cell):
        return cell if isinstance(cell, str) else f"{cell.text} {cell.remark}".strip()

    return {
        text(row[0]): dict(zip(table.columns, map(text, row), strict=True)) for row in table.rows
    }
