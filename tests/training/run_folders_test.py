"""Finished runs whose data have changed: refused, unless only the test images are others."""

import numpy as np
import pytest
from PIL import Image

from cnn_jax import trained
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.data import datasets
from cnn_jax.errors import UserError
from cnn_jax.evaluation.evaluate import evaluate_run
from cnn_jax.export import export_run
from cnn_jax.training import train

USERS = {
    "evaluate": lambda folder, out: evaluate_run(folder, [choose("single")]),
    "look into": lambda folder, out: trained.load_run(folder),
    "export": lambda folder, out: export_run(folder, out),
}


def write_images(folder, names):
    for name in names:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(name)).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(path)
    datasets.open_dataset.cache_clear()  # As in another process.
    datasets._open_streamed.cache_clear()


def train_on(images, workdir):
    """Returns the folder of a finished run on a folder of images."""
    config = Data(
        dataset=choose("folder", path=str(images)),
        batch_size=8,
        eval_batch_size=8,
        pad_and_crop=0,
        train_resize=(8,),
        image_size=8,
        subtract_mean="channel",
    )
    steps = Train(steps=1, log_every=1, eval_every=1, save_every=1)
    model = choose("mlp", hidden=(4,))
    train.run(Experiment(name="net", data=config, model=model, train=steps), workdir)
    return workdir / "net/seed0"


@pytest.mark.parametrize("added", ["0", "99"])  # The first and the last of a class.
def test_a_shifted_split_is_refused(added, tmp_path):
    """Every fifth file of a class is a test image, which one more file makes a training image."""
    write_images(tmp_path / "images", [f"{name}/{i}" for name in "ab" for i in range(1, 10)])
    folder = train_on(tmp_path / "images", tmp_path)
    for use in USERS.values():
        use(folder, tmp_path / "out")
    for path in (folder / "evaluations").iterdir():
        path.unlink()
    write_images(tmp_path / "images", [f"{name}/{added}" for name in "ab"])
    for use in USERS.values():
        with pytest.raises(UserError, match=r"the data set is another one than .* was trained on"):
            use(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists() and not list((folder / "evaluations").iterdir())


def test_other_test_images_are_allowed_and_other_training_images_are_not(tmp_path):
    images = tmp_path / "images"
    write_images(
        images,
        [f"{part}/{name}/{i}" for part in ("train", "val") for name in "ab" for i in range(4)],
    )
    folder = train_on(images, tmp_path)
    write_images(images, ["val/a/more"])
    assert evaluate_run(folder, [choose("single")])["single"].images == 9
    assert trained.load_run(folder).num_classes == 2
    write_images(images, ["train/a/more"])
    with pytest.raises(UserError, match=r"\(train_images: 8 then, 9 now\)"):
        evaluate_run(folder, [choose("ten_crop")])
    (images / "train/a/3.png").unlink()
    write_images(images, [])
    with pytest.raises(UserError, match=r"\(checksum: "):
        trained.load_run(folder)
