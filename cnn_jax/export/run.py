"""A finished run as files for others, in a folder of their own."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data
from cnn_jax.config import Experiment
from cnn_jax.config_file import read_run
from cnn_jax.data import crops, preprocess
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.export.card import write_card
from cnn_jax.export.program import make_program, save_program
from cnn_jax.files import check_writable, write_whole
from cnn_jax.pretrained import Preprocessing, weights
from cnn_jax.training import run_folders, saved_parameters
from cnn_jax.training.components import make_model

# Format of `pretrained.save` -> its file.
FILES = {
    "native": "weights.safetensors",
    "torchvision": "torchvision.pth",
    "timm": "timm.safetensors",
    "keras": "keras.h5",
}


def export_run(
    folder: str | Path,
    out: str | Path,
    formats: Sequence[str] = ("native",),
    data_dir: str = "",
) -> dict[str, Path]:
    """Writes a run's newest checkpoint as a program and as weights, and a model card.

    Nothing is written before all of it is made.

    The program takes images [B, H, W, C] uint8 of the run's size, subtracts the run's mean image
    and returns logits [B, classes].

    Args:
      folder: The run's, <workdir>/<run>/seed<k>. Its data set must be at hand, because the mean
        image is measured from it.
      out: Where the files are written.
      formats: Formats of `pretrained.save`.
      data_dir: Where prepared TFDS folders lie, if not where they lay in training.

    Returns:
      {what it is: the file}: program, card, and one for each format.

    Raises:
      UserError: If the run has no checkpoint, its data are not at hand, have changed or have
        shuffled pixels, a format cannot hold its model, or the files cannot be written.
    """
    folder, out = Path(folder), Path(out)
    experiment = read_run(folder, data_dir)
    for format in formats:
        if format not in FILES:
            raise UserError(f"format={format!r}: choose {' | '.join(FILES)}")
    if experiment.data.shuffle_pixels:
        raise UserError(
            f"{folder}: data.shuffle_pixels=true: the data set shuffles the pixels, which the"
            " exported program would not do"
        )
    check_writable(out, f"cannot write to {out}", "choose another folder")
    params, stats, step = saved_parameters.load_parameters(folder)
    source = data.load_dataset(experiment.data)
    run_folders.check_data(data.describe_dataset(source), folder, finished=True)
    model = make_model(experiment, source.num_classes)
    mean = jnp.asarray(data.make_loader(experiment.data, source).arrays["mean"])
    recipe = make_preprocessing(experiment, np.asarray(mean))

    def forward(images: jax.Array) -> jax.Array:
        return model.apply(params, stats, preprocess.normalize(images, mean, 255))[0]

    name, options = experiment.model.name, experiment.model.args
    about = (name, params, stats, source.num_classes, recipe, options)
    contents = {
        format: weights.serialize(*about, format, Path(FILES[format]).suffix) for format in formats
    }
    with jax.default_matmul_precision(experiment.train.precision):
        program = make_program(forward, mean.shape[1:], jnp.uint8)
    written = {format: out / FILES[format] for format in formats}
    with explain_os_errors(f"cannot write to {out}"):
        out.mkdir(parents=True, exist_ok=True)
        for format, content in contents.items():
            write_whole(written[format], content)
    written["program"] = out / "model.stablehlo"
    save_program(written["program"], program)
    written["card"] = out / "README.md"
    write_card(written["card"], folder, experiment, step, source, recipe, written)
    return written


def make_preprocessing(experiment: Experiment, mean: np.ndarray) -> Preprocessing:
    """Returns a run's preprocessing as a value.

    A mean image becomes the mean of each channel, for `Preprocessing` has no other.

    Args:
      experiment: The run.
      mean: [1, H, W, C] on the scale 0 to 255.
    """
    side, channels = mean.shape[1], mean.shape[-1]
    means = tuple(float(m) / 255 for m in mean.mean((0, 1, 2), dtype=np.float64))
    resize = crops.choose_eval_side(experiment.data) if experiment.data.image_size else 0
    return Preprocessing(crop=side, mean=means, std=(1.0,) * channels, resize=resize)
