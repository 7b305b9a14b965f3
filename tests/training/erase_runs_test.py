"""How the folder of a run is emptied."""

import dataclasses
import shutil

import pytest

from cnn_jax.config import Experiment, choose
from cnn_jax.config_file import to_json
from cnn_jax.errors import UserError
from cnn_jax.training import checkpoint, run_folders, run_lock

RUN = Experiment(name="net", schedule=choose("constant", base=0.1))
OTHER = dataclasses.replace(RUN, schedule=choose("constant", base=0.2))


def make_folder(workdir, seed=0):
    folder = workdir / f"net/seed{seed}"
    (folder / "checkpoints/12/state").mkdir(parents=True)
    (folder / "config.json").write_text(to_json(RUN))
    (folder / "metrics.jsonl").write_text("")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.mark.parametrize("times", [1, 2])
def test_a_deletion_that_is_cut_off_leaves_nothing_that_another_run_takes_over(
    times, tmp_path, monkeypatch
):
    """It is cut off while it deletes checkpoints, which takes longest."""
    folder = make_folder(tmp_path)

    def die(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        for _ in range(times):
            with pytest.raises(KeyboardInterrupt):
                run_folders.erase_runs([folder])
    assert checkpoint.find_latest_step(folder) == 0
    with pytest.raises(UserError, match="holds another configuration"):
        run_folders.check_folder(OTHER, folder)
    run_folders.erase_runs([folder])
    assert {path.name for path in folder.iterdir()} == {"lock", "notes.txt"}


def test_no_run_is_deleted_if_another_launch_trains_one_of_them(tmp_path):
    folders = [make_folder(tmp_path, seed) for seed in range(2)]
    with run_lock.hold(folders[1]), pytest.raises(run_lock.HeldError, match="seed1 is in use by"):
        run_folders.erase_runs(folders)
    assert checkpoint.find_latest_step(folders[0]) == 12
    run_folders.erase_runs([*folders, tmp_path / "nowhere"])
    assert not any((folder / "config.json").exists() for folder in folders)
