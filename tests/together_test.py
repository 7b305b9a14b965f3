"""Seeds trained together: each has the numbers and the files of its run alone, however it was cut or others ended."""

import functools

import jax
import numpy as np
import pytest

from cnn_jax import data, models, together, train
from cnn_jax.config import Data, Experiment, Model, Optim
from cnn_jax.models import resnet

SEEDS = (0, 1, 2)
FORMS = {"unrolled": together.unrolled, "stacked": together.stacked}


def use(form, monkeypatch):
    monkeypatch.setattr(together, "form", lambda make, keys, platform: FORMS[form](make, keys))


def trained(run, source, seeds, steps):
    """The states of the seeds after some steps on two devices."""
    parts = train.build(run, source, jax.devices()[:2], seeds)
    state, items = parts.state, parts.items(0)
    for _ in range(steps):
        state = parts.train_step(state, parts.arrays, next(items))
        state = parts.join(parts.split(state))  # as the loop does when it logs
    assert parts.train_step._cache_size() == 1
    return jax.device_get(parts.split(state))


def alike(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), a, b)


@pytest.fixture(scope="module")
def digits():
    """Digits of 16x16, as LeNet-5 wants more than 8x8."""
    source = data.load("digits")
    double = lambda split: split._replace(images=split.images.repeat(2, 1).repeat(2, 2))
    return source._replace(train=double(source.train), test=double(source.test))


NETS = {
    "perceptron": {},
    "mlp": {"hidden": (16,), "dropout": 0.5},  # the masks are the same too
    "lenet5_modern": {},
    "resnet8": {"bn_group": 4},
}


@pytest.fixture(scope="module")
def alone(digits):
    """Each net's seeds, trained one by one."""

    @functools.cache
    def states(name):
        return [trained(experiment(name), digits, [seed], 3)[0] for seed in SEEDS]

    return states


def experiment(name):
    rule = Optim(learning_rate=0.02, schedule="plateau", warmup_error=0.5)
    return Experiment(data=Data(batch_size=8, pad=1), model=Model(name=name, **NETS[name]), optim=rule)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("form", FORMS)
def test_each_seed_has_the_numbers_of_its_run_alone(form, name, digits, alone, monkeypatch):
    monkeypatch.setitem(models.MODELS, "resnet8", functools.partial(resnet.cifar, 8))  # compiles fast
    use(form, monkeypatch)
    states = trained(experiment(name), digits, SEEDS, 3)
    alike(states, alone(name))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), states[0].params, states[1].params)
    assert max(jax.tree.leaves(moved)) > 1e-2  # what the comparison would miss if all seeds were one
