"""What a choice of kernels costs, and what it sees: parameters, multiply-adds, receptive field. Nothing is trained.

Paper     Szegedy et al. 2014 (arXiv:1409.4842), Sec. 3 (1x1 before 5x5); Simonyan, Zisserman 2014 (arXiv:1409.1556),
          Sec. 2.3 (3x3s for 5x5 and 7x7); Szegedy et al. 2015 (arXiv:1512.00567), Sec. 3 (n x 1 and 1 x n).
Question  Which convolutions see as many pixels as one large kernel, for fewer weights and multiply-adds?
Command   python launch.py --experiment=conv_arithmetic
Measured  docs/results/conv_arithmetic, counted from the layers themselves.
"""

import dataclasses
from typing import Any

from cnn_jax.cost.chains import ConvChain
from cnn_jax.errors import UserError
from cnn_jax.study import Study

COST = {"laptop": "seconds: kernels are counted, nothing is trained"}

GOOGLENET = "the lectures' example of the 1x1 reduction of Szegedy et al. 2014"
VGG = "the argument of Simonyan, Zisserman 2014, Sec. 2.3"
C = 128  # VGG's and Inception v2's savings hold for any number of maps


def _stack(group: str, label: str, *kernels: tuple[int, int], dilation: int = 1, **printed: object) -> ConvChain:
    """Kernels of C maps in and out, on maps of 28x28."""
    convs = tuple((height, width, C) for height, width in kernels)
    return ConvChain(label, group, 28, C, convs, dilation, **printed)


def _vgg(squares: int) -> dict:
    return {"source": VGG, "paper": {"weights": squares * C * C}}


ONE = "a 1x1 before a 5x5, 128 to 256 maps"
STACKS = (
    ConvChain("5x5", ONE, 28, 128, ((5, 5, 256),), source=GOOGLENET, paper={"weights": 819_200}),
    ConvChain("1x1 to 32 maps, 5x5", ONE, 28, 128, ((1, 1, 32), (5, 5, 256)), source=GOOGLENET,
          paper={"weights": 4_096 + 204_800}),
    _stack("for a 3x3", "3x3", (3, 3)),
    _stack("for a 3x3", "3x1, 1x3", (3, 1), (1, 3)),
    _stack("for a 3x3", "2x2, 2x2", (2, 2), (2, 2)),
    _stack("for a 5x5", "5x5", (5, 5), **_vgg(25)),
    _stack("for a 5x5", "3x3, 3x3", *[(3, 3)] * 2, **_vgg(18)),
    _stack("for a 5x5", "5x1, 1x5", (5, 1), (1, 5)),
    _stack("for a 5x5", "3x3 dilated by 2", (3, 3), dilation=2),
    _stack("for a 7x7", "7x7", (7, 7), **_vgg(49)),
    _stack("for a 7x7", "3x3, 3x3, 3x3", *[(3, 3)] * 3, **_vgg(27)),
    _stack("for a 7x7", "7x1, 1x7", (7, 1), (1, 7)),
    _stack("for a 7x7", "3x3 dilated by 3", (3, 3), dilation=3),
    _stack("for an 11x11", "11x11", (11, 11)),
    _stack("for an 11x11", "3x3 five times", *[(3, 3)] * 5),
    _stack("for an 11x11", "11x1, 1x11", (11, 1), (1, 11)),
)  # fmt: skip


def _count() -> list[dict[str, Any]]:
    """Returns what each choice of kernels costs, counted from the layers themselves."""
    from cnn_jax.cost import summary

    return [dataclasses.asdict(chain) | summary.count_convolutions(chain) for chain in STACKS]


def study(preset: str) -> Study:
    """The same counts for every preset; "paper" is what the other studies compare theirs with."""
    if preset not in ("laptop", "paper"):
        raise UserError("conv_arithmetic has only --preset=laptop: nothing is trained")
    return Study(
        name="conv_arithmetic",
        title="What a choice of kernels costs and what it sees",
        paper="Szegedy et al. 2014 and 2015; Simonyan, Zisserman 2014",
        paper_data="",
        preset=preset,
        runs={},
        measure=_count,
        notes=(
            "stride 1, zero padding, no biases, maps of 28x28; but for the first group 128 maps in, between and out",
            "VGG's paper prints its counts in C^2, C maps; here C = 128: 18, 25, 27 and 49 C^2",
            "a nonlinearity between two of a row's convolutions, of which the papers make much, costs no weight",
        ),
    )
