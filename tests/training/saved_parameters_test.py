"""Parameters of another run: of all its layers or of some, and clear errors."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from helpers.small_run import RUN

from cnn_jax.config import Train
from cnn_jax.errors import UserError
from cnn_jax.training import checkpoint, saved_parameters, train

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns the workdir of a finished run."""
    workdir = tmp_path_factory.mktemp("finished")
    train.run(RUN, workdir)
    return workdir


def test_a_run_starts_from_layers_of_another_run(finished, tmp_path, monkeypatch):
    """Its initial parameters are theirs in the named layers, and its own in the others."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    new = train.build_program(RUN).state
    with checkpoint.make_manager(tmp_path / "net/seed0") as checkpoints:
        theirs, own = jax.device_get(checkpoint.restore(checkpoints, new)).params, new.params
    started, real = [], saved_parameters.take_parameters
    monkeypatch.setattr(
        saved_parameters,
        "take_parameters",
        lambda *a: started.append(jax.device_get((s := real(*a)).params)) or s,
    )
    for name, layers in (("all", ()), ("one", ("Dense_0",))):
        start = Train(steps=1, start_from="net", start_layers=layers)
        train.run(dataclasses.replace(RUN, name=name, train=start), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, started[0], theirs)
    jax.tree.map(np.testing.assert_array_equal, started[1], own | {"Dense_0": theirs["Dense_0"]})
    assert not np.array_equal(own["Dense_1"]["kernel"], theirs["Dense_1"]["kernel"])


@pytest.mark.parametrize(
    "start, layers, said",
    [("nowhere", (), "run that first"), ("net", ("dense7",), "layer dense7 is not in both models")],
)
def test_an_impossible_start_is_refused(start, layers, said, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    run = dataclasses.replace(
        RUN, name="next", train=Train(steps=1, start_from=start, start_layers=layers)
    )
    with pytest.raises(UserError, match=said):
        train.run(run, tmp_path)


def test_a_missing_device_is_no_damage_of_a_checkpoint(finished, monkeypatch):
    def find_none():
        raise RuntimeError("Unable to initialize backend 'tpu': no such device")

    monkeypatch.setattr(jax, "local_devices", find_none)
    with pytest.raises(RuntimeError, match="Unable to initialize backend"):
        saved_parameters.load_parameters(finished / "net/seed0")
