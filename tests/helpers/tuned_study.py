"""A small study that tunes one of its two runs."""

import dataclasses

from cnn_jax.config import Data, Experiment, Log, Train, choose
from cnn_jax.study import Row, Study
from cnn_jax.tuning import Tuning

RATES = (1e-4, 0.05, 1e12)  # Too low, right, and so high that the loss overflows.


def report(results):
    from cnn_jax import report

    return report.page(results, report.tuning_table(results))


def replace_rate(run, base):
    return dataclasses.replace(run, schedule=choose("constant", base=base))


def make_study(**changes):
    runs = {
        name: Experiment(
            study="tuned",
            name=name,
            data=Data(
                dataset=choose("fake"),
                batch_size=16,
                eval_batch_size=40,
                pad_and_crop=0,
                flip=False,
            ),
            model=choose("mlp", hidden=(8,), activation=name),
            schedule=choose("constant", base=0.3),
            train=Train(steps=30, log_every=10, eval_every=30, save_every=30),
            log=Log(layer_statistics=(30,)),
        )
        for name in ("tanh", "relu")
    }
    made = Study(
        name="tuned",
        title="Tuned",
        paper="",
        paper_data="",
        preset="smoke",
        runs=runs,
        rows=tuple(Row(name, name.upper(), "", "") for name in runs),
        tuning=Tuning(values=RATES, validation_images=32, runs="tanh"),
        paper_runs={name: replace_rate(run, 0.1) for name, run in runs.items()},
        report=report,
    )
    return dataclasses.replace(made, **changes)
