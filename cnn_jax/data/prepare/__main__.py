"""Prepares MNIST or CIFAR-10 for TFDS without TensorFlow, or resizes full-size images.

python -m cnn_jax.data.prepare cifar10, or python -m cnn_jax.data.prepare resize --help.
"""

import argparse
import os
import shlex
import sys

from cnn_jax.commands import run_command
from cnn_jax.data.prepare import resize
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.optional_packages import require


def main(arguments: list[str] | None = None) -> int:
    """Prepares the data set, prints the next command, and returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["resize"]:
        return resize.main(arguments[1:])
    return run_command(
        lambda: _prepare(arguments), describe_interrupt=lambda: "interrupted: nothing was written"
    )


def _prepare(arguments: list[str]) -> None:
    tfds = require("tensorflow_datasets")
    from cnn_jax.data.prepare.official import OFFICIAL, prepare  # This imports TFDS.

    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.data.prepare", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("name", help=" | ".join((*OFFICIAL, "resize")) + " (resize --help)")
    add("--archive", default="", metavar="PATH", help="the official files; default: download them")
    folder = tfds.core.constants.DATA_DIR
    add("--data_dir", default="", metavar="DIR", help=f"default: {folder}")
    given = parser.parse_args(arguments)
    if given.name not in OFFICIAL:
        raise UserError(
            f"data set {given.name!r}: no such set; {suggest_names(given.name, OFFICIAL)}"
        )
    try:
        folder = prepare(OFFICIAL[given.name], given.archive, given.data_dir)
    except UserError as error:  # TFDS's own words have several lines.
        raise UserError(" ".join(str(error).split())) from None
    place = f" --data_dir={shlex.quote(str(folder.parents[1]))}"
    command = "python launch.py --experiment=resnet_degradation --preset=paper"
    print(f"next: {command} --data={given.name}{place}")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # sys.exit would wait for TFDS's download threads, which Ctrl-C does not stop.
