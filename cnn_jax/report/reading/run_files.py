"""Reads the files of runs as JSON values, from a folder for each seed or from one compact file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_jax import file_names
from cnn_jax.errors import UserError, describe_os_error

COMPACT_VERSION = 1


@dataclass
class RunFiles:
    """The unchecked content of the files of one seed.

    Attributes:
      folder: The seed's folder, relative to the study's.
      config: Text of config.json; empty: it cannot be read.
      starts: Lines of starts.jsonl; None for a damaged one.
      metrics: Lines of metrics.jsonl; None for a damaged one.
      evaluations: {protocol: content of evaluations/<protocol>.json, None if it is damaged}.
      layers: Lines of layers.jsonl; None for a damaged one.
    """

    folder: str
    config: str = ""
    starts: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    evaluations: dict[str, Any] = field(default_factory=dict)
    layers: list[Any] = field(default_factory=list)


def read_run_files(workdir: Path, folder: str, problems: list[str]) -> RunFiles:
    """Reads the files of one seed from its folder.

    Args:
      workdir: The study's folder.
      folder: The seed's folder, relative to the study's.
      problems: A message is appended for each file that cannot be read.
    """
    place = workdir / folder
    files = RunFiles(folder)
    files.config = _read_text(place / file_names.CONFIG, problems)
    files.starts = _read_lines(place / file_names.STARTS, problems)
    files.metrics = _read_lines(place / file_names.METRICS, problems)
    files.layers = _read_lines(place / file_names.LAYERS, problems)
    for path in sorted((place / file_names.EVALUATIONS).glob("*.json")):
        try:
            files.evaluations[path.stem] = json.loads(path.read_bytes())
        except OSError as error:
            problems.append(f"{path}: cannot be read ({describe_os_error(error, str(path))})")
        except (ValueError, RecursionError):
            files.evaluations[path.stem] = None
    return files


def read_compact(workdir: Path, problems: list[str]) -> dict[tuple[str, int], RunFiles]:
    """Reads the files of every run and seed from runs.json.

    Args:
      workdir: The study's folder.
      problems: A message is appended if the file is damaged.

    Returns:
      {(run, seed): its files}; empty if there is no runs.json.
    """
    path = workdir / file_names.COMPACT_RUNS
    try:
        words = json.loads(path.read_bytes())
        if words["version"] != COMPACT_VERSION:
            raise UserError(f"{path}: written by another version of cnn_jax")
        return {
            (entry["run"], entry["seed"]): RunFiles(
                f"{entry['run']}/seed{entry['seed']}",
                json.dumps(entry["config"], indent=2) + "\n",
                list(entry["starts"]),
                list(entry["metrics"]),
                dict(entry["evaluations"]),
                list(entry.get("layers", ())),
            )
            for entry in words["runs"]
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = str(error) if isinstance(error, UserError) else "is damaged and was ignored"
        problems.append(f"{path}: {why}; restore it")
        return {}


def _read_text(path: Path, problems: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8") or "\n"  # Damaged, and not absent.
    except FileNotFoundError:
        return ""
    except OSError as error:
        problems.append(f"{path}: cannot be read ({describe_os_error(error, str(path))})")
    except UnicodeDecodeError:
        return "not UTF-8"  # Any text that is not JSON, so that the caller reports it.
    return ""


def _read_lines(path: Path, problems: list[str]) -> list[Any]:
    """Returns the JSON values of a log's lines, with None for damaged lines.

    A damaged last line is ignored without a message: a crash may have interrupted its writing.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path}: cannot be read ({describe_os_error(error, str(path))})")
        return []
    values: list[Any] = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                values.append(json.loads(line))
        except (ValueError, RecursionError):
            if number < len(lines):
                values.append(None)
    return values
