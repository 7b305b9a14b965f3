"""Tables as plain text."""

import io
import sys
from collections.abc import Sequence

import rich.console
import rich.table
import rich.text

Cell = str | int | float | tuple[int, ...] | None
GAP = 2  # Spaces between columns.


def format_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], width: int = 0) -> str:
    """Returns rows under a header, in columns that line up.

    Columns of numbers are aligned to the right and have commas; shapes are written as 28x28x6, and
    None is left empty.

    Args:
      header: The columns' names.
      rows: Cells in the header's order.
      width: Characters that a line may have. The widest columns of text are cut to fit; numbers
        are not cut. 0: as many as the table takes.

    Returns:
      Lines without trailing spaces or a newline at the end.
    """
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for index, name in enumerate(header):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        # Rich makes the columns that may wrap narrower; the cells of text are cut instead.
        table.add_column(_make_text(name), justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        table.add_row(*(_make_text(_format_cell(cell)) for cell in row))
    written = io.StringIO()
    console = rich.console.Console(
        file=written, width=sys.maxsize, color_system=None, force_jupyter=False
    )
    if width:
        least = console.measure(table).minimum
        console.width = max(width, least)
    console.print(table)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def _make_text(words: str) -> rich.text.Text:
    return rich.text.Text(words, no_wrap=True, overflow="ellipsis")


def _format_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, tuple):
        return "x".join(map(str, cell))
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.4g}" if isinstance(cell, float) else cell
