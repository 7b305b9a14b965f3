"""What a run is told before it starts."""

import pytest

from cnn_jax.config import Experiment, choose
from cnn_jax.training.components import advise


@pytest.mark.parametrize(
    "model, base, told",
    [
        (choose("lenet5"), 0.03, True),
        (choose("lenet5"), 0.01, False),
        (choose("lenet5", norm="bn"), 0.1, False),
        (choose("lenet5_modern"), 0.1, False),
    ],
)
def test_a_rate_at_which_a_model_does_not_train_is_named(model, base, told):
    found = advise(Experiment(model=model, schedule=choose("constant", base=base)))
    assert bool(found) == told
    if told:
        assert found == [
            "note: lenet5 was seen to train at learning rates of at most 0.01, and not at larger"
            " ones; this run has schedule.base=0.03"
        ]


def test_the_default_rate_and_other_optimizers():
    assert advise(Experiment(model=choose("lenet5")))  # the schedule's default is 0.1
    assert not advise(Experiment(model=choose("lenet5"), optimizer=choose("adamw")))
