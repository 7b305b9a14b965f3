"""Renders a page as text for a terminal, in lines that fit it."""

import io
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import rich.box
import rich.console
import rich.table
import rich.text
from rich.cells import cell_len

from cnn_jax.report.elements import (
    Cell,
    Claims,
    Missing,
    Notes,
    Page,
    Prose,
    States,
    Table,
    join_cell,
)
from cnn_jax.report.parts.words import DASH
from cnn_jax.report.verdicts import ONE_SEED
from cnn_jax.text import escape_unprintable

ELSEWHERE = 100  # Characters of a line outside of terminals, such as in a notebook.
MIN_WIDTH = 40  # Least number of characters of a line.
WHOLE = 10_000  # Characters of a line that is wider than any table.
MAX_TEXT = 36  # Longer cells of text are folded.
BORDER, GAP = 2, 3  # Characters around a table, and between two of its columns.


def render_text(page: Page, width: int = 0) -> str:
    """Returns the states, tables, notes, prose and missing things of a page as text.

    If a table is too wide, its cells are folded to several lines, text that all rows share is
    written once below the table, and columns that still do not fit are put into another table.
    Claims are written as a list, without those that have no value yet.

    Args:
      page: The page.
      width: Characters of a line; 0: as many as the terminal has. Commands are never folded.
    """
    width = width or shutil.get_terminal_size((ELSEWHERE, 24)).columns
    console = _make_console(max(width, MIN_WIDTH))
    console.print(_make_text(page.title))
    for part in page.parts:
        if isinstance(part, Table | Notes | Prose | Missing):
            console.print()
        match part:
            case States():
                console.print(_make_text(part.progress))
            case Claims():
                console.print(_make_text(part.title), "", _list_claims(part), sep="\n")
            case Table():
                console.print(_make_text(part.title), "", sep="\n")
                for line in _format_table(part, console.width):
                    console.out(line, highlight=False)
            case Notes():
                for mark, text in part.items:
                    console.print(_make_text(f"{mark}: {text}" if mark else text))
            case Prose():
                for paragraph in part.paragraphs:
                    console.print(_make_text(paragraph))
            case Missing():
                console.print(_make_text(f"{part.title}:"))
                for text in part.lines:
                    console.print(_make_text(f"  {text}"))
                if part.command:
                    command = _make_text(f"To complete them: {part.command}")
                    console.print(command, soft_wrap=True)
    return "\n".join(line.rstrip() for line in _read(console).split("\n"))


def _make_console(width: int) -> rich.console.Console:
    return rich.console.Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        emoji=False,
    )


def _read(console: rich.console.Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _make_text(text: str) -> rich.text.Text:
    return rich.text.Text(escape_unprintable(text), overflow="fold")


def _list_claims(part: Claims) -> rich.console.Group:
    """Returns a block for each claim that has a value: verdict, statement, values and remark."""
    grid = rich.table.Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    ours, unknown = part.columns.index("ours"), 0
    for row in part.rows:
        if join_cell(row[ours]) == DASH:
            unknown += 1
            continue
        statement, verdict, *values = (c if isinstance(c, Cell) else Cell(c) for c in row)
        named = zip(part.columns[2:], values, strict=True)
        known = [f"{name} {value.text}" for name, value in named if value.text != DASH]
        grid.add_row(_make_text(verdict.text), _make_text(statement.text))
        for line in filter(None, (", ".join(known), verdict.remark)):
            grid.add_row("", _make_text(line))
    blocks: list[Any] = [grid] if grid.rows else []
    if unknown:
        more, claims = "more " * bool(grid.rows), "claim has" if unknown == 1 else "claims have"
        blocks.append(_make_text(f"{unknown} {more}{claims} no value; the report says why."))
    if any(verdict.why.startswith(ONE_SEED) for verdict in part.verdicts):
        words = "Undecided with one seed: --seeds=3 also shows how much seeds differ."
        blocks += ["", _make_text(words)]
    return rich.console.Group(*blocks)


class _Column(NamedTuple):
    name: str
    cells: list[str]
    left: bool

    def find_least_width(self) -> int:
        """Returns how narrow the column may be: words and numbers are not cut."""
        lines = [line for cell in self.cells for line in cell.split("\n")]
        words = [*self.name.split(), *(" ".join(lines).split() if self.left else lines)]
        longest = max(map(cell_len, words), default=0)
        if not self.left:
            return longest
        whole = max(map(cell_len, (self.name, *lines)))
        return whole if whole <= MAX_TEXT else max(MAX_TEXT, min(longest, MIN_WIDTH))


def _format_table(part: Table, width: int) -> list[str]:
    """Returns the lines of a table, unchanged if the table fits the width."""
    columns = [
        _Column(
            escape_unprintable(name),
            [escape_unprintable(join_cell(row[i])) for row in part.rows],
            i in part.left,
        )
        for i, name in enumerate(part.columns)
    ]
    lines = _draw(columns)
    if max(map(cell_len, lines)) <= width:
        return lines
    first, *others = columns
    shared: list[str] = []
    groups = [[first]]
    for column in others:
        common, column = _factor_out(column)
        if common:
            line = f"  {column.name}: {common}"
            shared += textwrap.wrap(line, width, subsequent_indent="    ")
        if column.cells and all(cell in ("", DASH) for cell in column.cells):
            continue
        if len(groups[-1]) > 1 and _measure([*groups[-1], column]) > width:
            groups.append([first])
        groups[-1].append(column)
    lines = [line for group in groups for line in (*_draw(group, width), "")]
    return [*lines, "All rows:", *shared] if shared else lines[:-1]


def _factor_out(column: _Column) -> tuple[str, _Column]:
    """Returns the parts that all cells of a column share, and the column without these parts.

    The parts of a cell are separated by "; ". A remark in parentheses begins a line of its own.
    """
    parts = [cell.split("; ") for cell in column.cells]
    common: list[str] = []
    if len(parts) > 1:
        common = [part for part in parts[0] if all(part in other for other in parts)]
    if common == [DASH]:
        common = []
    rest = ["; ".join(part for part in cell if part not in common) for cell in parts]
    return "; ".join(common), column._replace(cells=[cell.replace(" (", "\n(") for cell in rest])


def _measure(columns: Sequence[_Column]) -> int:
    widths = [column.find_least_width() for column in columns]
    return sum(widths) + GAP * (len(widths) - 1) + BORDER


def _draw(columns: Sequence[_Column], width: int = 0) -> list[str]:
    """Returns the lines of a table.

    Args:
      columns: The columns.
      width: Characters of a line, to which texts and names of columns are folded; 0: nothing is.
    """
    table = rich.table.Table(box=rich.box.MARKDOWN, pad_edge=False)
    for column in columns:
        fixed = column.find_least_width() if width and not column.left else None
        table.add_column(
            rich.text.Text(column.name),
            justify="left" if column.left else "right",
            width=fixed,
            min_width=column.find_least_width(),
            no_wrap=not width,
            overflow="fold",
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(rich.text.Text, row))
    console = _make_console(width or WHOLE)
    console.print(table)
    return [line.rstrip() for line in _read(console).split("\n") if line.strip()]
