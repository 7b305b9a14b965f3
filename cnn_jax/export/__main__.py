"""Exports a finished run: python -m cnn_jax.export RUN --out=DIR.

RUN is the folder of a run, <workdir>/<run>/seed<k>. DIR gets model.stablehlo, a program of the
model with its weights for jax.export; weights.safetensors; and README.md, a model card.
"""

import argparse
import sys

from cnn_jax.commands import run_command
from cnn_jax.files import expand_path
from cnn_jax.text import escape_unprintable


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_command(lambda: _export(arguments))


def _export(arguments: list[str] | None) -> None:
    from cnn_jax.pretrained.weights import FORMATS  # This imports JAX.

    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.export", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run's folder, such as runs/mine/resnet-20/seed0")
    add("--out", required=True, metavar="DIR", help="where the files are written")
    words = "of the weights: " + " | ".join(FORMATS) + "; may be given several times"
    add("--data_dir", default="", metavar="DIR", help="where the run's prepared TFDS set lies now")
    add("--format", action="append", default=[], help=words)
    given = parser.parse_args(arguments)
    from cnn_jax.export.run import export_run

    folder, out = expand_path("RUN", given.run), expand_path("--out", given.out)
    formats = given.format or ("native",)
    for kind, path in export_run(folder, out, formats, given.data_dir).items():
        print(f"{kind}: {escape_unprintable(path)}")


if __name__ == "__main__":
    sys.exit(main())
