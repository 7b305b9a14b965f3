"""What image_retrieval keeps in <workdir>/measured, so that it is measured and drawn once.

Rows and pictures are used again only for the models that they were made from: the same
configuration and data, and a checkpoint with the same numbers. A run that was started again has
other numbers after as many steps.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import file_names
from cnn_jax.files import write_whole
from cnn_jax.training import checkpoint, checksum_file

VERSION = 3  # Version of the files.

Models = Mapping[str, str]  # {run: fingerprint of its model}
Measurements = tuple[list[dict[str, Any]], dict[str, np.ndarray]]


def identify_models(folders: Mapping[str, Path]) -> Models | None:
    """Returns a fingerprint of each run's newest model; None: a file that tells it is missing.

    Args:
      folders: The runs' folders by their names.
    """
    found = {}
    for name, folder in folders.items():
        sums = checksum_file.read_checksums(folder, checkpoint.find_latest_step(folder))
        if sums is None:
            return None
        digest = hashlib.sha256(json.dumps(sums, sort_keys=True).encode())
        try:
            # The images and how they are prepared.
            for file in (file_names.CONFIG, file_names.DATA):
                digest.update((folder / file).read_bytes())
        except OSError:
            return None
        found[name] = digest.hexdigest()[:16]
    return found


def read_measured(workdir: Path, seed: int, models: Models | None) -> Measurements | None:
    """Returns a seed's rows and arrays; None: they are missing, damaged or of other models.

    Args:
      workdir: The study's folder.
      seed: Seed of the runs.
      models: The result of `identify_models`.
    """
    rows, arrays = _name_files(workdir, seed)
    try:
        words = json.loads(rows.read_bytes())
        if not _is_of(words, models):
            return None
        with np.load(arrays) as found:
            return words["rows"], dict(found)
    except (OSError, ValueError, LookupError, TypeError, EOFError):
        return None


def write_measured(workdir: Path, seed: int, models: Models | None, kept: Measurements) -> None:
    """Writes a seed's rows and arrays.

    Args:
      workdir: The study's folder.
      seed: Seed of the runs.
      models: The result of `identify_models`.
      kept: The rows and the arrays.
    """
    rows, arrays = _name_files(workdir, seed)
    rows.parent.mkdir(exist_ok=True)
    stream = io.BytesIO()
    np.savez(stream, **kept[1])  # type: ignore[arg-type]
    write_whole(arrays, stream.getvalue())
    words = {"version": VERSION, "models": models, "rows": kept[0]}
    write_whole(rows, json.dumps(words) + "\n")


def are_drawn(workdir: Path, files: Sequence[str], seed: int, models: Models | None) -> bool:
    """Returns whether all pictures are there, and are of a seed's models."""
    try:
        words = json.loads(_name_pictures(workdir).read_bytes())
        same = words["seed"] == seed and _is_of(words, models)
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return same and all((workdir / name).exists() for name in files)


def write_drawn(workdir: Path, seed: int, models: Models | None) -> None:
    """Writes which models the pictures are of."""
    words = {"version": VERSION, "seed": seed, "models": models}
    write_whole(_name_pictures(workdir), json.dumps(words) + "\n")


def _is_of(words: Mapping[str, Any], models: Models | None) -> bool:
    return models is not None and (words["version"], words["models"]) == (VERSION, dict(models))


def _name_files(workdir: Path, seed: int) -> tuple[Path, Path]:
    folder = workdir / "measured"
    return folder / f"seed{seed}.json", folder / f"seed{seed}.npz"


def _name_pictures(workdir: Path) -> Path:
    return workdir / "measured" / "pictures.json"
