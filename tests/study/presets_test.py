"""Presets of studies."""

import pytest

from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.errors import UserError
from cnn_jax.study.presets import check_preset, shorten_run
from experiments import STUDIES


def test_a_preset_that_a_study_lacks_is_one_line_with_the_nearest():
    check_preset("lrn", "paper", ("laptop", "paper"))
    with pytest.raises(
        UserError, match=r"^preset=laptpo: lrn has no such preset; nearest: laptop$"
    ):
        check_preset("lrn", "laptpo", ("laptop", "paper"))


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_refuses_a_preset_that_it_lacks(name):
    with pytest.raises(UserError, match=r"preset"):
        STUDIES[name]("laptpo")


def test_a_short_run_keeps_what_is_not_its_length():
    run = Experiment(data=Data(dataset=choose("digits")), train=Train(steps=100, on_nan="record"))
    short = shorten_run(run)
    assert (short.train.steps, short.train.eval_every, short.train.on_nan) == (2, 2, "record")
    assert (short.data.dataset, short.data.batch_size) == (run.data.dataset, 8)
    fake = shorten_run(run, batch_size=16, fake=True, eval_every=1)
    assert (fake.data.dataset.name, fake.data.batch_size) == ("fake", 16)
    assert fake.train.eval_every == 1
