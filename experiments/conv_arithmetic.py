"""What a choice of kernels costs and sees: weights, multiply-adds, receptive field.

Nothing is trained.

Paper     Szegedy et al. 2014 (arXiv:1409.4842), Sec. 3 (1x1 before 5x5); Simonyan, Zisserman 2014
          (arXiv:1409.1556), Sec. 2.3 (3x3s for 5x5 and 7x7); Szegedy et al. 2015
          (arXiv:1512.00567), Sec. 3 (n x 1 and 1 x n).
Question  Which convolutions see as many pixels as one large kernel, for fewer weights and
          multiply-adds?
Command   python launch.py --experiment=conv_arithmetic
Results   docs/results/conv_arithmetic, counted from the layers themselves.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnn_jax.cost.chains import ConvChain
from cnn_jax.errors import UserError
from cnn_jax.report.claims import Claim, Measured
from cnn_jax.study import Study

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results, Table

COST = {"laptop": "seconds: kernels are counted, nothing is trained"}

LECTURES = "the lectures' example of the 1x1 reduction of Szegedy et al. 2014"
VGG = "Simonyan, Zisserman 2014, Sec. 2.3"
C = 128  # The savings of VGG and Inception v2 hold for any number of channels.


def _make_chain(
    group: str, label: str, *kernels: tuple[int, int], dilation: int = 1, vgg: int = 0
) -> ConvChain:
    """Returns kernels of C channels in and out, on maps of 28x28.

    Args:
      group: The kernel that they replace.
      label: Name of the kernels.
      *kernels: Height and width of each kernel.
      dilation: Dilation of all kernels.
      vgg: The weights that VGG's paper prints, in C^2; 0: it prints none.
    """
    convs = tuple((height, width, C) for height, width in kernels)
    paper: dict[str, float] = {"weights": vgg * C * C} if vgg else {}
    return ConvChain(label, group, 28, C, convs, dilation, VGG if vgg else "", paper)


ONE = "a 1x1 before a 5x5, 128 to 256 maps"
PLAIN, REDUCED = "5x5", "1x1 to 32 maps, 5x5"
REDUCED_5X5 = 204_800  # What the lectures print: it leaves out the 4,096 weights of the 1x1.
CHAINS = (
    ConvChain(PLAIN, ONE, 28, 128, ((5, 5, 256),), 1, LECTURES, {"weights": 819_200}),
    ConvChain(
        REDUCED, ONE, 28, 128, ((1, 1, 32), (5, 5, 256)), 1, LECTURES, {"weights": REDUCED_5X5}
    ),
    _make_chain("for a 3x3", "3x3", (3, 3)),
    _make_chain("for a 3x3", "3x1, 1x3", (3, 1), (1, 3)),
    _make_chain("for a 3x3", "2x2, 2x2", (2, 2), (2, 2)),
    _make_chain("for a 5x5", "5x5", (5, 5), vgg=25),
    _make_chain("for a 5x5", "3x3, 3x3", *[(3, 3)] * 2, vgg=18),
    _make_chain("for a 5x5", "5x1, 1x5", (5, 1), (1, 5)),
    _make_chain("for a 5x5", "3x3 dilated by 2", (3, 3), dilation=2),
    _make_chain("for a 7x7", "7x7", (7, 7), vgg=49),
    _make_chain("for a 7x7", "3x3, 3x3, 3x3", *[(3, 3)] * 3, vgg=27),
    _make_chain("for a 7x7", "7x1, 1x7", (7, 1), (1, 7)),
    _make_chain("for a 7x7", "3x3 dilated by 3", (3, 3), dilation=3),
    _make_chain("for an 11x11", "11x11", (11, 11)),
    _make_chain("for an 11x11", "3x3 five times", *[(3, 3)] * 5),
    _make_chain("for an 11x11", "11x1, 1x11", (11, 1), (1, 11)),
)


def _count_costs() -> list[dict[str, Any]]:
    """Returns what each choice of kernels costs, counted from the layers themselves."""
    from cnn_jax.cost.chain_costs import count_convolutions

    return [dataclasses.asdict(chain) | count_convolutions(chain)._asdict() for chain in CHAINS]


def _make_claim(chain: ConvChain) -> Claim:
    """Returns the claim that a printed count is the layers' own."""
    printed = chain.paper["weights"]
    return Claim(
        f"{chain.label} ({chain.group}): {printed:,} weights",
        _find_weights(chain),
        expected=(printed, printed),
        paper=printed,
        source=chain.source,
        unit="weights",
    )


def _find_weights(chain: ConvChain) -> "Callable[[Results], Measured]":
    def check(results: "Results") -> Measured:
        for row in results.study.measured:
            if (row.get("label"), row.get("group")) == (chain.label, chain.group):
                left_out = "the printed figure leaves out the 4,096 weights of the 1x1"
                why = left_out if chain.label == REDUCED else ""
                return Measured(row["weights"], exact=True, why=why)
        return Measured(None, why="not counted yet")

    return check


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    first: dict[str, int] = {}
    for row in results.study.measured:
        first.setdefault(row["group"], row["weights"])
    bars = []
    for row in results.study.measured:
        share = row["weights"] / first[row["group"]]
        words = f"{share:.0%}, {row['weights']:,} weights, sees {_format_receptive_field(row)}"
        bars.append(report.Bar(row["group"], row["label"], share, words))
    return report.page(
        results,
        _table(results, first),
        report.bars(
            results,
            bars,
            "Weights of each choice as a share of the first of its group; beside each bar what its"
            " output sees of the input.",
        ),
        report.notes(results),
        report.claims_table(results, results.claims),
    )


def _table(results: "Results", first: dict[str, int]) -> "Table":
    from cnn_jax import report

    rows = []
    for row in results.study.measured:
        printed = row["paper"].get("weights")
        difference = "—" if printed is None else f"{row['weights'] - printed:+,}"
        rows.append(
            (
                row["label"],
                row["group"],
                "—" if printed is None else f"{printed:,}",
                f"{row['weights']:,}",
                "0" if difference == "+0" else difference,
                f"{row['weights'] / first[row['group']]:.0%}",
                f"{row['multiply_adds']:,}",
                _format_receptive_field(row),
            )
        )
    columns = (
        "kernels",
        "alternatives",
        "weights: printed",
        "weights: ours",
        "difference",
        "share",
        "multiply-adds",
        "receptive field",
    )
    footnote = (
        "Weights and multiply-adds of one image, counted from the layers themselves; shares are of"
        " the group's first row; — where neither papers nor lectures print a figure."
    )
    return report.Table("Table", columns, tuple(rows), footnote, left=(0, 1))


def _format_receptive_field(row: dict[str, Any]) -> str:
    return "x".join(map(str, row["receptive_field"]))


def study(preset: str) -> Study:
    """Returns the study; the counts are the same for every preset."""
    if preset not in ("laptop", "paper"):
        raise UserError("conv_arithmetic has only --preset=laptop: nothing is trained")
    return Study(
        name="conv_arithmetic",
        title="What a choice of kernels costs and what it sees",
        paper="Szegedy et al. 2014 and 2015; Simonyan, Zisserman 2014",
        paper_data="",
        preset=preset,
        runs={},
        measure=_count_costs,
        claims=tuple(_make_claim(chain) for chain in CHAINS if chain.paper),
        report=_report,
        notes=(
            "Stride 1, zero padding, no biases, maps of 28x28; but for the first group 128 channels"
            " in, between and out.",
            "VGG's paper prints its counts in C^2 for C channels; here C = 128: 18, 25, 27 and"
            " 49 C^2.",
            "The lectures print 204,800 weights for the 1x1 and the 5x5; that is the 5x5 alone, and"
            " the 1x1 has another 4,096.",
            "A nonlinearity between two of a row's convolutions, of which the papers make much,"
            " costs no weight.",
        ),
    )
