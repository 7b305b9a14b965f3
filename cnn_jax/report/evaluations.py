"""The report of a study of test protocols: the paper's tables cell by cell, its claims held against ours, and a figure.

What a run's tests found lies in <run>/seed<k>/evaluations/<protocol>.json (`cnn_jax/evaluation/evaluate.py`).
"""

import io
import re
import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn_jax.report.figures import INK, PALETTE, styled
from cnn_jax.report.read import Net
from cnn_jax.report.render import Table

DASH = "—"
METRICS = ("top1", "top5")
DENSE = r"dense@(\d+)"  # one scale
EXPLAINED = (
    "Errors in %; with one seed, the 95% interval of the test images by bootstrap stands beside ours, with several the "
    "sample standard deviation. The difference is ours minus the paper's in points, — where the paper prints no "
    "figure, the run has no such test yet, or the data are not the paper's."
)
CLAIMED = (
    "Differences of top-1 error in points, the same test images with both, averaged over seeds; the interval, of 95%, "
    "is that of the images (normal approximation of the paired difference)."
)
BY_ROW = "Top-1 error of each test, with the 95% interval of the test images."
CAPTION = (
    "Dense top-1 error against the test images' shorter side Q, a line for each training scale S; bands are 95% "
    "intervals of the test images."
)


def tables(study: dict, nets: Sequence[Net]) -> tuple[Table, ...]:
    """The paper's tables, ours beside it, and what becomes of its claims."""
    comparable = study.get("data", "") == (study.get("paper_data") or study.get("data", ""))
    names = list(dict.fromkeys(net.table for net in nets))
    found = [Table(name, _columns(), tuple(_cells(n, comparable) for n in nets if n.table == name)) for name in names]
    claims = tuple(_claim(claim, nets) for claim in study.get("claims", ()))
    head = ("claim", "paper (points)", "ours (points)", "95% interval", "verdict")
    return (*found, Table("What the paper says", head, claims)) if claims else tuple(found)


def _columns() -> tuple[str, ...]:
    each = [(f"top-{k[3:]}: paper (%)", "ours (%)", "difference (points)") for k in METRICS]
    return ("net", *(column for columns in each for column in columns), "seeds")


def _cells(net: Net, comparable: bool) -> tuple[str, ...]:
    done = [run.tests[net.test] for run in net.runs if net.test in run.tests]
    cells = [net.label]
    for metric in METRICS:
        printed, ours = net.paper.get(f"{metric}_error"), [d.get(f"{metric}_error") for d in done]
        ours = [100 * value for value in ours if value is not None]
        difference = ours and printed is not None and comparable
        cells += [DASH if printed is None else str(printed), _ours(ours, done, metric)]
        cells.append(_signed(statistics.mean(ours) - printed) if difference else DASH)
    return (*cells, f"{len(done)}" if len(done) == len(net.runs) else f"{len(done)} of {len(net.runs)}")


def _ours(errors: list[float], done: list[dict], metric: str) -> str:
    if not errors:
        return DASH
    if len(errors) > 1:
        return f"{statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f}"
    low, high = done[0][f"{metric}_interval"]
    return f"{errors[0]:.2f} [{100 * low:.1f}; {100 * high:.1f}]"


def _claim(claim: dict, nets: Sequence[Net]) -> tuple[str, ...]:
    """(words, paper, ours, interval, whether ours says the same)."""
    printed = claim["paper"]
    cells = [claim["statement"], DASH if printed is None else _signed(printed)]
    runs = {net.run: net.runs for net in nets}
    pairs = _paired(
        runs.get(claim["better"][0], ()), claim["better"][1], runs.get(claim["worse"][0], ()), claim["worse"][1]
    )
    if not pairs:
        return (*cells, DASH, DASH, "not tested yet")
    by_image = 100 * np.mean(pairs, axis=0)
    ours, spread = float(by_image.mean()), 1.96 * float(by_image.std(ddof=1)) / len(by_image) ** 0.5
    low, high = ours - spread, ours + spread
    return (*cells, _signed(ours), f"[{_signed(low)}; {_signed(high)}]", _verdict(printed, low, high))


def _verdict(printed: float | None, low: float, high: float) -> str:
    if low <= 0 <= high:
        return "cannot tell: the interval holds 0"
    says = "errs less" if high < 0 else "errs more"
    if printed is None:
        return says
    return f"agrees: {says}" if (printed < 0) == (high < 0) else f"disagrees: {says}"


def _paired(better: Sequence, test: str, worse: Sequence, other: str) -> list[np.ndarray]:
    """For each seed that has both tests, the difference of wrong (1) and right (0) of each test image."""
    theirs = {run.seed: run.tests[other]["wrong"] for run in worse if other in run.tests}
    ours = {run.seed: run.tests[test]["wrong"] for run in better if test in run.tests}
    seeds = [k for k in ours if k in theirs and len(ours[k]) == len(theirs[k])]
    return [_bits(ours[k]) - _bits(theirs[k]) for k in seeds]


def _bits(wrong: str) -> np.ndarray:
    return np.frombuffer(wrong.encode(), np.uint8).astype(np.float64) - ord("0")


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}".replace("-", "−")


def png(title: str, nets: Sequence[Net]) -> bytes:
    """The figure, as PNG at 200 dots an inch."""
    stream = io.BytesIO()
    with styled():
        _figure(title, nets).savefig(stream, format="png", dpi=200)
    return stream.getvalue()


def svg(title: str, nets: Sequence[Net]) -> str:
    """The figure as a <svg> element in the page's text colour."""
    stream = io.StringIO()
    with styled():
        _figure(title, nets).savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    return re.sub(re.escape(INK), "currentColor", text[text.index("<svg") :])


def by_side(nets: Sequence[Net]) -> bool:
    """Whether dense tests at single sides are there to be drawn against Q; else each row is drawn as a point."""
    return any(re.fullmatch(DENSE, protocol) for net in nets for run in net.runs for protocol in run.tests)


def _figure(title: str, nets: Sequence[Net]) -> Figure:
    return _against_sides(title, nets) if by_side(nets) else _rows(title, nets)


def _rows(title: str, nets: Sequence[Net]) -> Figure:
    figure = Figure((7, 1.4 + 0.4 * len(nets)), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    axes = figure.subplots()
    for place, net in enumerate(nets):
        for found in (run.tests[net.test] for run in net.runs if net.test in run.tests):
            low, high = (100 * end for end in found["top1_interval"])
            axes.plot([low, high], [place, place], color=PALETTE[0], lw=2)
            axes.plot([100 * found["top1_error"]], [place], color=PALETTE[0], marker="o")
    axes.set_yticks(range(len(nets)), [net.label for net in nets])
    axes.set(xlabel="top-1 error (%), with its 95% interval", ylim=(len(nets) - 0.5, -0.5))
    axes.tick_params(length=0)
    return figure


def _against_sides(title: str, nets: Sequence[Net]) -> Figure:
    groups: dict[str, dict[str, Net]] = {}
    for net in nets:
        groups.setdefault(net.group, {}).setdefault(net.run, net)
    shades = {words: PALETTE[i] for i, words in enumerate(dict.fromkeys(_trained(net) for net in nets))}
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure((max(6.5, 4.4 * columns), 3.4 * rows + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for axes, (group, members) in zip(panels, groups.items(), strict=False):
        for net in members.values():
            _draw(axes, net, shades[_trained(net)])
        axes.set_title(group)
        axes.set(xlabel="shorter side Q of test images (pixels)", ylabel="top-1 error (%)")
        axes.tick_params(length=0, labelleft=True, labelbottom=True)
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    for axes in list(panels)[len(groups) :]:
        axes.set_visible(False)
    return figure


def _trained(net: Net) -> str:
    """The training scale of a run in words, from its settings."""
    sides = next((run.settings["data"]["train_resize"] for run in net.runs if run.settings), [])
    return f"S {sides[0]}" if len(sides) == 1 else f"S in [{sides[0]}; {sides[1]}]" if sides else "not started"


def _draw(axes: Axes, net: Net, colour: str) -> None:
    points: dict[int, list[dict]] = {}
    for run in net.runs:
        for protocol, found in run.tests.items():
            if at := re.fullmatch(DENSE, protocol):
                points.setdefault(int(at[1]), []).append(found)
    if not points:
        return
    sides = sorted(points)
    mean = lambda read: [100 * statistics.mean(read(found) for found in points[q]) for q in sides]
    axes.plot(sides, mean(lambda f: f["top1_error"]), color=colour, marker="o", ms=4, lw=2, label=_trained(net))
    low, high = mean(lambda f: f["top1_interval"][0]), mean(lambda f: f["top1_interval"][1])
    axes.fill_between(sides, low, high, color=colour, alpha=0.15, lw=0)
