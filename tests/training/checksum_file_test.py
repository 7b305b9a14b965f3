"""Checkpoints are compared with the checksums of what was saved."""

import shutil

import jax
import numpy as np
import pytest
from helpers import shared_programs
from helpers.small_run import RUN

from cnn_jax.training import checkpoint, checksum, checksum_file


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns a folder with the checkpoints of steps 1 and 2, and the state of step 2."""
    folder, state = tmp_path_factory.mktemp("saved"), shared_programs.build_program(RUN).state
    with checkpoint.open_checkpoints(folder) as checkpoints:
        for _ in range(2):
            state = state.replace(step=state.step + 1)
            checkpoint.save(checkpoints, state, None)
    return folder, state


def test_a_flipped_bit_is_detected_and_the_previous_checkpoint_is_used(saved, tmp_path, capsys):
    """In the largest file, which holds the parameters.

    Orbax notices few bits, such as those of its index, and restores the others without an error.
    """
    whole, state = saved
    said = []
    for quarter in (1, 2, 3):
        folder = tmp_path / str(quarter)
        shutil.copytree(whole, folder)
        newest = folder / "checkpoints/2"
        file = max((f for f in newest.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) * quarter // 4] ^= 1
        file.write_bytes(content)
        with checkpoint.open_checkpoints(folder) as checkpoints:
            found = checkpoint.restore(checkpoints, state)
        assert int(found.step) == 1
        jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
        said.append(capsys.readouterr().err)
        assert "checkpoint 2" in said[-1]
    assert any("is not what was saved: the file is damaged" in words for words in said)


def test_the_checksums_of_a_step_are_those_of_its_state(saved, tmp_path):
    folder, state = saved
    assert checksum_file.read_checksums(folder, 2) == checksum.compute(state)()
    assert checksum_file.read_checksums(folder, 3) is None
    assert checksum_file.read_checksums(tmp_path, 2) is None
    (tmp_path / "digests.json").write_text('{"2": ')
    assert checksum_file.read_checksums(tmp_path, 2) is None
