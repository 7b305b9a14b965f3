"""Tables as plain text."""

from collections.abc import Sequence

Cell = str | int | float | tuple[int, ...] | None
GAP = "  "  # Between columns.
CUT = "..."  # In place of what a column has no room for.


def format_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], width: int = 0) -> str:
    """Returns rows under a header, in columns that line up.

    Columns of numbers are aligned to the right and have commas; shapes are written as 28x28x6, and
    None is left empty.

    Args:
      header: The columns' names.
      rows: Cells in the header's order.
      width: Characters a line may have; the widest columns of text are cut to fit. 0: as many as
        it takes.

    Returns:
      Lines without trailing spaces or a newline at the end.
    """
    texts = [list(header), *([_format_cell(cell) for cell in row] for row in rows)]
    numeric = [
        any(isinstance(cell, int | float) for cell in column) for column in zip(*rows, strict=True)
    ]
    numeric = numeric or [False] * len(header)
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    if width:
        widths = _fit(widths, [not number for number in numeric], width)
    lines = []
    for row in texts:
        cells = [_cut(text, room) for text, room in zip(row, widths, strict=True)]
        aligned = [
            cell.rjust(room) if number else cell.ljust(room)
            for cell, room, number in zip(cells, widths, numeric, strict=True)
        ]
        lines.append(GAP.join(aligned).rstrip())
    return "\n".join(lines)


def _format_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, tuple):
        return "x".join(map(str, cell))
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.4g}" if isinstance(cell, float) else cell


def _fit(widths: list[int], may_shrink: list[bool], width: int) -> list[int]:
    """Returns the widths with the widest text columns made narrower, as far as that helps."""
    widths = list(widths)
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        widest = max(range(len(widths)), key=lambda i: widths[i] if may_shrink[i] else 0)
        if not may_shrink[widest] or widths[widest] <= len(CUT) + 1:
            break
        widths[widest] -= 1
    return widths


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - len(CUT)] + CUT
