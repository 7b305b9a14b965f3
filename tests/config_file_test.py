"""config.json is written and read; a file without an experiment gives one line."""

import dataclasses
import json

import pytest

from cnn_jax import config_file
from cnn_jax.config import Experiment, Train, choose
from cnn_jax.errors import UserError
from cnn_jax.training.components import check, complete

RUN = Experiment(
    name="x",
    schedule=choose("step", boundaries=(1, 2)),
    model=choose("resnet20", bn_group=64, shortcut="B"),
    train=Train(start_layers=("a", "b")),
    protocols=(choose("dense", scales=(224, 256)), choose("ten_crop")),
    deviations=("a", "b"),
)


def test_writing_and_reading_gives_an_equal_value():
    for run in (Experiment(), RUN, complete(RUN)):
        assert config_file.from_json(config_file.to_json(run)) == run


def edit_config(edit):
    items = json.loads(config_file.to_json(complete(RUN)))
    edit(items)
    return json.dumps(items)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda c: c["data"].update(lr=1.0), "no such field data.lr"),
        (lambda c: c["train"].pop("steps"), "train.steps is missing"),
        (lambda c: c["train"].update(steps="10"), "train.steps=10: must be an integer"),
        (lambda c: c["train"].update(steps=True), "must be an integer"),
        (lambda c: c["train"].update(start_layers=[1]), "must be text"),
        (lambda c: c["data"].update(flip=1), "must be true or false"),
        (lambda c: c["data"].update(subtract_mean=["pixel"]), "choose pixel or channel or none"),
        (lambda c: c.update(data=5), "data must be an object"),
        (lambda c: c.update(model=None), "model must be an object with a name"),
        (lambda c: c["model"].update(name=3), "model must be an object with a name"),
        (lambda c: c["model"].update(bn_group={}), "model.bn_group must be a number"),
        (lambda c: c.update(protocols={}), "protocols must be a list"),
        (lambda c: c.update(version=99), "another version of cnn_jax"),
        (lambda c: c.pop("version"), "another version of cnn_jax"),
    ],
)
def test_a_wrong_field_is_named(edit, words):
    with pytest.raises(UserError, match=words) as error:
        config_file.from_json(edit_config(edit))
    assert "\n" not in str(error.value)


def test_a_file_of_version_1_gives_the_remedy(tmp_path):
    """As written before 2026-11-26: no version, `optim`, a model of fixed fields."""
    old = {
        "study": "s",
        "name": "n",
        "seed": 0,
        "data": {"name": "digits"},
        "model": {"name": "mlp"},
        "optim": {},
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(
        UserError, match="another version of cnn_jax: continue the run with the commit that starts"
    ):
        config_file.read_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"5",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"version": 2, "model": ' + b"[" * 700 + b"]" * 700 + b"}",
        b"9" * 10_000,
        b'{"version": 2}',
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_without_an_experiment_gives_one_line(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json") as error:
        config_file.read_config(path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_an_unreadable_file_gives_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        config_file.read_config(tmp_path / "config.json")


def test_a_run_is_read_with_the_folder_of_its_data_as_it_is_now(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it holds no config\.json"):
        config_file.read_run(tmp_path)
    (tmp_path / "config.json").write_text(config_file.to_json(RUN))
    moved = dataclasses.replace(RUN, data=dataclasses.replace(RUN.data, dir="elsewhere"))
    assert config_file.read_run(tmp_path) == RUN != moved
    assert config_file.read_run(tmp_path, "elsewhere") == moved


def test_a_deeply_nested_argument_is_refused():
    deep = 0
    for _ in range(400):
        deep = [deep]
    text = config_file.to_json(dataclasses.replace(RUN)).replace(
        '"bn_group": 64', f'"bn_group": {json.dumps(deep)}'
    )
    assert str(deep) in text
    with pytest.raises(UserError):
        check(config_file.from_json(text))


def test_a_file_may_lack_fields_that_are_newer_than_it():
    """Committed results have such files; each field then has its default."""
    items = json.loads(config_file.to_json(complete(RUN)))
    for path in config_file.NEWER_FIELDS:
        *places, name = path.split(".")
        record = items
        for place in places:
            record = record[place]
        del record[name]
    assert config_file.from_json(json.dumps(items)) == complete(RUN)
