"""Presets of studies."""

import pytest

from cnn_jax.errors import UserError
from cnn_jax.study.presets import check_preset
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
