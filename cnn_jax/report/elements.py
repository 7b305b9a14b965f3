"""Types for the content of a page, which has a title and parts.

`render` and `render_text` convert a page to Markdown, HTML and text. Strings are plain text; the
renderers escape them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cnn_jax.report.verdicts import Verdict


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a remark or a link.

    Attributes:
      text: The text.
      remark: Small text below it.
      link: Path of another file, relative to the page.
    """

    text: str
    remark: str = ""
    link: str = ""


def join_cell(cell: Cell | str) -> str:
    """Returns the text of a cell, followed by its remark if it has one."""
    return f"{cell.text} {cell.remark}".strip() if isinstance(cell, Cell) else cell


@dataclass(frozen=True)
class Facts:
    """A list of names and values, such as a study's date and hardware."""

    kind: ClassVar[str] = "facts"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class States:
    """The states of all runs.

    Attributes:
      progress: One line, such as "3 of 4 runs finished".
      items: (label, ok | part | bad | none, state) of each run.
    """

    kind: ClassVar[str] = "states"
    progress: str
    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table; the first column names its rows.

    Attributes:
      title: Heading above the table.
      columns: Names of the columns.
      rows: Rows with one cell for each column.
      footnote: Text below the table.
      left: Numbers of the columns of text, which are aligned to the left.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    footnote: str = ""
    left: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Claims(Table):
    """A table of claims, which is also written to claims.json."""

    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
      title: Heading above the picture.
      caption: Text below the picture.
      file: Name of its PNG file in the study's folder.
      png: Draws the PNG file and returns its bytes.
      svgs: Draws one <svg> element for each panel of the HTML page; None: the page embeds the PNG.
    """

    kind: ClassVar[str] = "figure"
    title: str
    caption: str
    file: str
    png: Callable[[], bytes]
    svgs: Callable[[], list[str]] | None = None


@dataclass(frozen=True)
class Notes:
    """A list of remarks.

    Attributes:
      title: Heading above the list; empty: no heading.
      items: (footnote mark or leading word, text).
    """

    kind: ClassVar[str] = "notes"
    title: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Prose:
    """Paragraphs of text below a heading; an empty title: no heading."""

    kind: ClassVar[str] = "prose"
    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Missing:
    """A list of missing or damaged things, and the command that completes them.

    Attributes:
      title: Heading above the list.
      lines: One line for each thing.
      command: The command that runs the whole study; empty: none is shown.
    """

    kind: ClassVar[str] = "missing"
    title: str
    lines: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Settings:
    """The config.json files of all runs.

    Attributes:
      items: (label of a run, ((path, text of the file), ...)).
      linked: Whether these files exist in the page's folder.
    """

    kind: ClassVar[str] = "settings"
    items: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    linked: bool = True


Part = Facts | States | Table | Figure | Notes | Prose | Missing | Settings


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
      title: Heading of the page.
      parts: Parts in order; None is skipped.
    """

    title: str
    parts: tuple[Part | None, ...]

    def find(self, kind: type) -> list:
        """Returns the parts that are instances of a class."""
        return [part for part in self.parts if isinstance(part, kind)]


@dataclass(frozen=True)
class Report:
    """The files of a page.

    Attributes:
      markdown: Path of the Markdown page.
      html: Path of the HTML page.
      figures: Paths of the PNG files.
      claims: Path of claims.json; None: the page has no claims.
      text: The page's tables for a terminal.
      problem: Why the files could not be written; empty: they were written.
    """

    markdown: Path
    html: Path
    figures: tuple[Path, ...]
    claims: Path | None
    text: str
    problem: str = ""

    def describe(self) -> str:
        """Returns the tables, and the path of the report or why it was not saved."""
        return f"{self.text}\n{self.problem or f'report: {self.html}'}"
