"""Checkpoints of 8 devices are continued by 1, 2 and 4, under jit and pmap."""

import itertools
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers import faults_child

from cnn_jax.config import change
from cnn_jax.errors import UserError
from cnn_jax.training import checkpoint, saved_parameters
from cnn_jax.training.program import build_program

ROOT = Path(__file__).parents[2]
# Statistics over groups, which do not depend on the hardware. No dropout, whose masks differ
# between pmap and jit.
RUN = faults_child.STREAMED
RUN = replace(RUN, data=replace(RUN.data, workers=0), model=change(RUN.model, bn_group=4))


def built(devices, parallel):
    run = replace(RUN, train=replace(RUN.train, parallel=parallel))
    return build_program(run, devices=jax.devices()[:devices])


def trained(parts, state, steps):
    for item in itertools.islice(parts.batches(int(state.step)), steps):
        state = parts.step(state, item)
    return state


@pytest.fixture(scope="module", params=["jit", "pmap"])
def eight_device_run(request, tmp_path_factory):
    """Returns the folder of a checkpoint of 8 devices at step 3, and their state at step 6."""
    folder, parts = tmp_path_factory.mktemp(request.param), built(8, request.param)
    state = trained(parts, parts.state, 3)
    with checkpoint.open_checkpoints(folder) as saved:
        checkpoint.save(saved, state, None)
    return folder, jax.device_get(trained(parts, state, 3))


@pytest.mark.parametrize(
    "devices, parallel", [(1, "jit"), (2, "jit"), (4, "jit"), (4, "pmap"), (8, "jit"), (8, "pmap")]
)
def test_a_run_continues_on_another_number_of_devices(eight_device_run, devices, parallel):
    folder, expected = eight_device_run
    parts = built(devices, parallel)
    with checkpoint.open_checkpoints(folder) as saved:
        state = checkpoint.restore(saved, parts.state)
    assert int(state.step) == 3 and len(jax.tree.leaves(state.params)[0].devices()) == devices
    found = jax.device_get(trained(parts, state, 3))
    assert found.step == expected.step == 6

    def close(a, b):
        return np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)

    jax.tree.map(close, found, expected)


def test_a_checkpoint_of_eight_devices_is_read_on_one(eight_device_run):
    folder, _ = eight_device_run
    code = (
        "import sys, pathlib, jax; from cnn_jax.training import saved_parameters; assert"
        " jax.device_count() == 1;"
    )
    code += "params, _, step = saved_parameters.load_parameters(pathlib.Path(sys.argv[1]));"
    code += "print(step, float(sum(leaf.sum() for leaf in jax.tree.leaves(params))))"
    one = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, env=one, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    here, _, _ = saved_parameters.load_parameters(folder)
    step, total = done.stdout.split()
    assert step == "3" and float(total) == float(sum(leaf.sum() for leaf in jax.tree.leaves(here)))


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    """Orbax's threads would wait for five minutes, and the process could not end before."""
    parts, before = built(1, "jit"), set(threading.enumerate())
    with (
        pytest.raises(UserError, match=r"cannot save to .*checkpoints \(File exists\): check the"),
        checkpoint.open_checkpoints(tmp_path) as saved,
    ):
        # Even root can make no folder there, as on a read-only disk.
        (tmp_path / "checkpoints/.writable").write_text("")
        checkpoint.save(saved, parts.state, None)
    for thread in set(threading.enumerate()) - before:
        if thread.is_alive():  # It may not have started yet.
            thread.join(10)
        assert thread.daemon or not thread.is_alive(), thread.name


def test_a_limit_of_the_shell_gives_its_remedy(tmp_path, monkeypatch):
    parts = built(1, "jit")

    def fail(*args, **kwargs):
        raise ValueError("OUT_OF_RANGE: a: [OS error 27: EFBIG File too large]")

    monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
    with (
        pytest.raises(UserError, match=r"\(File too large\): allow larger files \(ulimit -f\);"),
        checkpoint.open_checkpoints(tmp_path) as saved,
    ):
        checkpoint.save(saved, parts.state, None)
