"""A wrong flag ends the command with one line that names the right one."""

import pytest

from cnn_jax.cli.flags import FLAGS, format_help, parse
from cnn_jax.errors import UserError

MISTAKES = [
    # A field of a configuration: by its path, the end of its path, or a former name.
    (("--schedule.base=0.1",), "--schedule.base: no such flag; write --set=schedule.base=0.1"),
    (("--train.steps", "200"), "--train.steps: no such flag; write --set=train.steps=200"),
    (("--train.steps", "--list"), "--train.steps: no such flag; write --set=train.steps=VALUE"),
    (("--batch-size=8",), "--batch-size: no such flag; write --set=data.batch_size=8"),
    (("--steps=9",), "--steps: no such flag; write --set=train.steps=9"),  # And not --seeds.
    (("--model=mlp",), "--model: no such flag; write --set=model=mlp"),
    (("--shortcut=A",), "--shortcut: no such flag; write --set=model.shortcut=A"),
    (("--lr=0.1",), "--lr: no such flag; write --set=schedule.base=0.1"),
    (("--hidden=(3, 4)",), "--hidden: no such flag; write '--set=model.hidden=(3, 4)'"),
    (("--dataset=mnist",), "--dataset: no such flag; write --data=mnist"),
    (("--data.batchsize=1",), "nearest: --set=data.batch_size=1, "),
    (("--batch=3",), "nearest: --set=data.batch_size=3, --set=data.eval_batch_size=3"),
    (("--train=3",), "--train: no such flag; write --set=train.FIELD=VALUE; docs/conf"),
    (("--no.such=3",), "a field is set with --set=FIELD=VALUE; docs/configuration.md lists every"),
    # Another flag, or none.
    (("--experimnt=x",), "--experimnt: no such flag; nearest: --experiment"),
    (("--dry-run",), "--dry-run: no such flag; write --dry_run"),
    (("--epochs=3",), "--epochs: no such flag; a run's length is given in steps: write --set=tr"),
    (("--zzzz",), "--zzzz: no such flag; --help shows every flag"),
    # Values.
    (("--seeds=three",), "--seeds=three: must be an integer, at least 1, at most 1,000"),
    (("--seeds=a: b",), "--seeds=a: b: must be an integer, at least 1, at most 1,000"),
    (("--process_id=-1",), "--process_id=-1: must be an integer, at least 0"),
    (("--dry_run=maybe",), "--dry_run=maybe: must be true or false"),
    (("--parallel=no",), "--parallel=no: must be jit or pmap"),
    (("--list", "--seeds"), "--seeds: its value is missing; write --seeds=VALUE"),
    (("--workdir", "--dry_run"), "--workdir: its value is missing; --dry_run is another flag"),
    (("--set", "--seeds=3"), "--set: its value is missing; --seeds=3 is another flag"),
    (("--nolist=1",), "--nolist=1 does not take an argument"),
]


@pytest.mark.parametrize("words, said", MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_names_what_to_type(words, said):
    with pytest.raises(UserError) as error:
        parse(["launch.py", *words])
    assert str(error.value).startswith(said) or said in str(error.value).partition("; ")[2]
    assert "\n" not in str(error.value)


def test_a_value_may_begin_with_dashes():
    parse(["launch.py", "--workdir=--x"])
    assert FLAGS.workdir == "--x"


def test_the_help_fits_a_terminal_and_has_a_short_name(monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    parse(["launch.py", "-h"])
    assert FLAGS["help"].value
    assert max(map(len, format_help("launch.py").splitlines())) <= 72
