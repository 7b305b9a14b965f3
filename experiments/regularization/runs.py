"""The runs of `regularization`: a model without a regularizer, and with each at each strength."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from cnn_jax.config import Data, Experiment, Log, Train, change, choose
from cnn_jax.study.presets import keep_run, shorten_run

TRAIN, TEST = choose("single", split="train"), choose("single", split="test")
NONE = "none"


class Family(NamedTuple):
    """A regularizer.

    Attributes:
      label: Its name in tables.
      strength: Name of the quantity that is its strength, such as lambda.
      strengths: The strengths that are tried.
      apply: (run without a regularizer, strength) -> the run with this regularizer.
    """

    label: str
    strength: str
    strengths: tuple[float, ...]
    apply: Callable[[Experiment, float], Experiment]


def _penalize_l2(run: Experiment, strength: float) -> Experiment:
    return replace(run, optimizer=change(run.optimizer, weight_decay=strength))


def _penalize_l1(run: Experiment, strength: float) -> Experiment:
    return replace(run, optimizer=change(run.optimizer, l1=strength))


def _drop(run: Experiment, share: float) -> Experiment:
    return replace(run, model=change(run.model, dropout=share))


def _stop_early(run: Experiment, patience: float) -> Experiment:
    return replace(
        run, train=replace(run.train, stop_after=int(patience), eval_every=STOPPING_EVERY)
    )


def _augment(run: Experiment, degrees: float) -> Experiment:
    return replace(run, data=replace(run.data, rotate=degrees))


STOPPING_EVERY = 10  # Steps between the evaluations that patience counts.
FAMILIES = {
    "l2": Family("L2 penalty", "lambda", (1e-3, 3e-3, 1e-2), _penalize_l2),
    "l1": Family("L1 penalty", "lambda", (1e-4, 3e-4, 1e-3), _penalize_l1),
    "dropout": Family("dropout", "share", (0.25, 0.5, 0.75), _drop),
    "early-stopping": Family("early stopping", "patience", (5, 10, 20), _stop_early),
    "augmentation": Family("augmentation", "degrees", (5.0, 15.0, 30.0), _augment),
}


def _unregularized(name: str) -> Experiment:
    """Returns the run without a regularizer, in its laptop size."""
    steps = 800
    return Experiment(
        study="regularization",
        name=name,
        data=Data(
            dataset=choose("digits"),
            validation_images=1_340,  # 1,437 images less these leave 97 to train on.
            batch_size=32,
            eval_batch_size=670,
            subtract_mean="pixel",
            pad_and_crop=0,
            flip=False,
        ),
        model=choose("mlp", hidden=(256,)),
        optimizer=choose("sgd", momentum=0.9, weight_decay=0.0, decay_biases=False),
        schedule=choose("constant", base=0.05),
        train=Train(steps=steps, log_every=20, eval_every=100, save_every=steps),
        log=Log(layer_statistics=(steps,)),
        protocols=(TRAIN, TEST),
    )


def make_runs(
    change_run: Callable[[Experiment], Experiment], strengths: int = 3
) -> dict[str, Experiment]:
    """Returns the runs by their names: without a regularizer, and with each at each strength.

    Args:
      change_run: Changes the size of a run, as the values of PRESETS do.
      strengths: How many strengths of each family's grid.
    """
    runs = {NONE: change_run(_unregularized(NONE))}
    for name, family in FAMILIES.items():
        for strength in family.strengths[:strengths]:
            run = f"{name}-{strength:g}"
            runs[run] = family.apply(change_run(_unregularized(run)), strength)
    return runs


def _smoke(run: Experiment) -> Experiment:
    return replace(shorten_run(run, eval_every=1), log=Log(layer_statistics=(2,)))


PRESETS = {"laptop": keep_run, "smoke": _smoke}


def find_family(run: str) -> str:
    """Returns the key in FAMILIES of a run's regularizer."""
    return run.rpartition("-")[0]


def label_run(run: str) -> str:
    """Returns what tables call a run: its regularizer and its strength."""
    if run == NONE:
        return NONE
    family = FAMILIES[find_family(run)]
    return f"{family.label}, {family.strength} {run.rpartition('-')[2]}"
