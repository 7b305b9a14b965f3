"""The report of a study that counts and does not train: kernels against weights, multiply-adds, receptive field."""

import io
import re

from matplotlib.figure import Figure

from cnn_jax.report.figures import INK, PALETTE, styled
from cnn_jax.report.render import Sheet, Table

CAPTION = (
    "Weights of each choice against those of the first of its group (the percentages); beside each bar what its "
    "output sees of the input."
)
EXPLAINED = (
    "Weights and multiply-adds an image, counted from the layers themselves; shares are of the group's first row; "
    "— where neither papers nor lectures print a figure."
)
COLUMNS = ("kernels", "alternatives", "weights: printed", "weights: ours", "difference", "share", "multiply-adds",
           "receptive field")  # fmt: skip


def sheet(study: dict) -> Sheet:
    """The table of study.json's counts."""
    rows = study["counts"]
    first = {row["group"]: row["weights"] for row in reversed(rows)}
    sources: dict[str, list[str]] = {}
    for row in rows:
        if row["source"]:
            sources.setdefault(row["source"], []).append(row["group"])
    told = "; ".join(f"{', '.join(dict.fromkeys(groups))}: {source}" for source, groups in sources.items())
    facts = (("paper", study.get("paper", "")), ("command", study["command"]), ("commit", study.get("commit", "")))
    return Sheet(
        title=study["title"],
        facts=facts,
        progress=f"{len(rows)} choices of kernels counted",
        states=(),
        tables=(Table("Table", COLUMNS, tuple(_cells(row, first[row["group"]]) for row in rows)),),
        notes=(("Sources", told), *(("Note", note) for note in study.get("notes", ()))),
        missing=(),
        command=study["command"],
        configs=(),
        explained=EXPLAINED,
        caption=CAPTION,
    )


def _cells(row: dict, first: int) -> tuple[str, ...]:
    weights, printed = row["weights"], row["paper"].get("weights")
    difference = "—" if printed is None else f"{weights - printed:+,}" if weights != printed else "0"
    seen = "x".join(map(str, row["receptive_field"]))
    share = f"{weights / first:.0%}"
    shown = "—" if printed is None else f"{printed:,}"
    return row["label"], row["group"], shown, f"{weights:,}", difference, share, f"{row['multiply_adds']:,}", seen


def png(study: dict) -> bytes:
    """The bars, as PNG at 200 dots an inch."""
    stream = io.BytesIO()
    with styled():
        _figure(study).savefig(stream, format="png", dpi=200)
    return stream.getvalue()


def svg(study: dict) -> str:
    """The bars as a <svg> element in the page's text colour."""
    stream = io.StringIO()
    with styled():
        _figure(study).savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    return re.sub(re.escape(INK), "currentColor", text[text.index("<svg") :])


def _figure(study: dict) -> Figure:
    rows = study["counts"]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    members = [[row for row in rows if row["group"] == group] for group in groups]
    figure = Figure((8.5, 0.42 * len(rows) + 0.5 * len(groups) + 0.9), layout="constrained")
    figure.suptitle(study["title"], fontsize=13, fontweight="bold")
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=[len(m) + 0.6 for m in members])
    for axes, group, of_group in zip(panels.flat, groups, members, strict=True):
        shares = [row["weights"] / of_group[0]["weights"] for row in of_group]
        colours = [PALETTE[6], *[PALETTE[0]] * (len(of_group) - 1)]
        axes.barh([row["label"] for row in of_group], shares, color=colours, height=0.7)
        for place, (row, share) in enumerate(zip(of_group, shares, strict=True)):
            seen = "x".join(map(str, row["receptive_field"]))
            words = f"{share:.0%}, {row['weights']:,} weights, sees {seen}"
            axes.text(share + 0.01, place, words, va="center", fontsize=9)
        axes.set_title(group, loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.5), xticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        axes.grid(visible=False)
    return figure
