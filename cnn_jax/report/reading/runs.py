"""Checks the files of a run and converts them to a `Run`."""

from collections.abc import Iterable
from typing import Any

from cnn_jax import file_names
from cnn_jax.config_file import from_json
from cnn_jax.errors import UserError
from cnn_jax.report.reading.json_values import is_count, is_list_of, is_number
from cnn_jax.report.reading.layers import make_layers
from cnn_jax.report.reading.run_files import RunFiles
from cnn_jax.report.results import EvaluationFile, Logged, Run, Start


def make_run(name: str, seed: int, files: RunFiles, problems: list[str]) -> Run:
    """Returns a seed of a run from the content of its files. Damaged lines are ignored.

    Args:
      name: The run's name in its study.
      seed: The seed.
      files: The content of the seed's files.
      problems: A message is appended for each damaged file.
    """
    experiment = None
    if files.config:
        try:
            experiment = from_json(files.config)
        except UserError as error:
            message = str(error).removeprefix("config.json ").removeprefix("config.json: ")
            problems.append(f"{files.folder}/{file_names.CONFIG}: {message}")
    starts = [start for line in files.starts if (start := _make_start(line))]
    if damaged := len(files.starts) - len(starts):
        problems.append(f"{files.folder}/{file_names.STARTS}: {_count_lines(damaged)} ignored")
    error_name = _find_error_name(files.metrics)
    events = [
        (line["event"], _make_logged(line, error_name)) for line in files.metrics if _is_event(line)
    ]
    damaged = len(files.metrics) - len(events)
    if damaged:
        problems.append(
            f"{files.folder}/{file_names.METRICS}: {_count_lines(damaged)} ignored; to restore"
            " them, delete the run's folder and launch the study again"
        )
    train, evaluations = (
        {line.step: line for event, line in events if event == kind} for kind in ("train", "eval")
    )
    steps = experiment.train.steps if experiment else None
    best_step = _find_best_step(files.metrics)
    diverged = None
    if experiment and experiment.train.on_nan == "record":
        diverged = next((line.step for event, line in events if event == "nan"), None)
    failed_at = diverged
    if events and events[-1][0] == "nan":
        failed_at = events[-1][1].step
    reached = max((line.step for _, line in events), default=0)
    if files.config and not experiment:
        state = "unreadable: its config.json is damaged or of another version"
    elif not starts and not events:
        state = "not started"
    elif diverged is not None:
        state = f"diverged at step {diverged:,}"
    elif best_step is not None:
        state = _describe_best(events, evaluations, steps, best_step)
    else:
        state = _describe_state(events, evaluations, reached, steps, bool(damaged))
    return Run(
        name=name,
        seed=seed,
        folder=files.folder,
        config=files.config if experiment else "",
        experiment=experiment,
        starts=tuple(starts),
        error_name=error_name,
        train=train,
        evaluations=evaluations,
        protocols=_make_protocols(files, steps if best_step is None else best_step, problems),
        reached=reached,
        state=state,
        layers=make_layers(files.layers, files.folder, problems),
        best_step=best_step,
        diverged=diverged,
        failed_at=failed_at,
    )


def _find_best_step(lines: Iterable[Any]) -> int | None:
    """Returns the best step that the run's last event names; None if it names none."""
    ends = [line for line in lines if _is_event(line) and line["event"] in ("stop", "end")]
    best = ends[-1].get("best_step") if ends else None
    return best if is_count(best) else None


def _count_lines(number: int) -> str:
    return f"{number} damaged line{'s' if number > 1 else ''}"


def _make_start(line: Any) -> Start | None:
    if not isinstance(line, dict):
        return None
    versions = line.get("versions", {})
    time, commit, hardware = (line.get(key, "") for key in ("time", "commit", "hardware"))
    if not isinstance(versions, dict):
        return None
    if not is_list_of([time, commit, hardware, *versions.values()], str):
        return None
    return Start(time, commit, hardware, versions)


def _is_event(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("event"), str):
        return False
    if not is_count(line.get("step")):
        return False
    numbers = [value for key, value in line.items() if key not in ("event", "step")]
    return all(value is None or is_number(value) for value in numbers)


def _find_error_name(lines: Iterable[Any]) -> str:
    for line in lines:
        if _is_event(line):
            for key in line:
                if key.endswith("_error"):
                    return key
    return "top1_error"


def _make_logged(line: dict[str, Any], error_name: str) -> Logged:
    images = line.get("images")
    return Logged(
        line["step"],
        line.get(error_name),
        line.get("loss"),
        int(images) if images is not None else None,
        line.get("epoch"),
    )


def _describe_state(
    events: list[tuple[str, Logged]],
    evaluations: dict[int, Logged],
    reached: int,
    steps: int | None,
    damaged: bool,
) -> str:
    end = max((line.step for event, line in events if event == "end"), default=-1)
    if end >= (steps or 0):
        # If lines are damaged, the last evaluation may be one of them. An earlier evaluation must
        # not be used instead.
        last = max(evaluations, default=-1)
        whole = last == end if damaged else last >= 0
        return "finished" if whole else "damaged: its last evaluation is lost"
    if stopped := [line.step for event, line in events if event == "nan"]:
        return f"stopped by NaN at step {stopped[-1]:,}"
    return f"cut off at step {reached:,}" + (f" of {steps:,}" if steps else "")


def _describe_best(
    events: list[tuple[str, Logged]],
    evaluations: dict[int, Logged],
    steps: int | None,
    best_step: int,
) -> str:
    """Returns the state of a run that keeps its best checkpoint."""
    if best_step not in evaluations:
        return "damaged: the evaluation of its best state is lost"
    early = [line.step for event, line in events if event == "stop"]
    end = max((line.step for event, line in events if event == "end"), default=-1)
    of = f" of {steps:,}" if steps else ""
    if not early and end < (steps or 0):
        return f"cut off at step {end:,}{of}"
    ended = f"finished early at step {early[-1]:,}" if early else "finished"
    return f"{ended}, best at step {best_step:,}"


def _make_protocols(
    files: RunFiles, last_step: int | None, problems: list[str]
) -> dict[str, EvaluationFile]:
    """Returns the evaluations by protocol, without those of an earlier state than the run's last.

    A finished run that is continued to more steps still has the evaluations of its earlier end.
    Those of averaged logits (`--average=logits`) are left out too, because papers and studies
    average softmax outputs. Their files have names of their own; earlier versions gave them the
    protocol's.
    """
    made = {}
    for protocol, words in files.evaluations.items():
        evaluation = _make_evaluation(words)
        if evaluation is None:
            why = "damaged"
        elif words.get("average", "softmax") != "softmax":
            if protocol.endswith("average=logits"):
                continue
            why = "of averaged logits, not softmax outputs,"
        elif words.get("step") in (None, last_step):
            made[protocol] = evaluation
            continue
        else:
            why = f"of step {words['step']}, which is not the run's last,"
        problems.append(
            f"{files.folder}/evaluations/{protocol}.json: {why} and ignored; launch the study again"
            " to repeat the evaluation"
        )
    return made


def _make_evaluation(words: Any) -> EvaluationFile | None:
    if not isinstance(words, dict):
        return None
    errors, intervals = {}, {}
    for key, value in words.items():
        if key.endswith("_error") and value is not None:
            if not is_number(value):
                return None
            errors[key] = value
        if key.endswith("_interval") and value is not None:
            if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
                return None
            intervals[key.removesuffix("_interval") + "_error"] = (value[0], value[1])
    wrong = words.get("wrong", "")
    if not errors or not isinstance(wrong, str) or set(wrong) - {"0", "1"}:
        return None
    images = words.get("images", len(wrong))
    if wrong and (images != len(wrong) or not _agrees(errors, wrong)):
        return None
    loss = words.get("loss")
    return EvaluationFile(errors, intervals, wrong, loss if is_number(loss) else None)


def _agrees(errors: dict[str, float], wrong: str) -> bool:
    """Returns whether the top-1 error equals the share of wrong answers."""
    top1 = errors.get("top1_error")
    return top1 is None or abs(wrong.count("1") / len(wrong) - top1) < 1e-6
