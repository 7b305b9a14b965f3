"""A page: a title and its parts, as values. `render` turns it into Markdown, HTML and text.

Strings are plain text; the renderers escape them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cnn_jax.report.claims import Verdict


@dataclass(frozen=True)
class Cell:
    """A table's cell with a small remark under its text, and a link.

    Attributes:
      text: The text.
      remark: Below it.
      link: The path of another file, seen from the page.
    """

    text: str
    remark: str = ""
    link: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values, such as when and with what a study was run."""

    kind: ClassVar[str] = "facts"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class States:
    """How far each run came.

    Attributes:
      progress: In one line.
      items: (label, ok | part | bad | none, state).
    """

    kind: ClassVar[str] = "states"
    progress: str
    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table; the first column names its rows.

    Attributes:
      title: Above it.
      columns: The columns' heads.
      rows: As many cells each.
      footnote: Below it.
      left: Columns that are text, and stand left.
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
      title: Above it.
      caption: Below it.
      file: Its PNG file in the study's folder.
      png: Draws it.
      svgs: Draws it for the HTML page, one <svg> element a panel; None: the PNG is embedded.
    """

    kind: ClassVar[str] = "figure"
    title: str
    caption: str
    file: str
    png: Callable[[], bytes]
    svgs: Callable[[], list[str]] | None = None


@dataclass(frozen=True)
class Notes:
    """Remarks, each after its mark or a leading word.

    Attributes:
      title: Above them; empty: no head.
      items: (mark, text).
    """

    kind: ClassVar[str] = "notes"
    title: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Prose:
    """Paragraphs."""

    kind: ClassVar[str] = "prose"
    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Missing:
    """What is missing or damaged, and the command that completes it.

    Attributes:
      title: Above it.
      lines: One for each thing.
      command: What completes them; empty: nothing does.
    """

    kind: ClassVar[str] = "missing"
    title: str
    lines: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Settings:
    """The runs' config.json.

    Attributes:
      items: (label, ((file, its text), ...)).
      linked: Whether these files lie beside the page.
    """

    kind: ClassVar[str] = "settings"
    items: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    linked: bool = True


Part = Facts | States | Table | Figure | Notes | Prose | Missing | Settings


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
      title: Its head.
      parts: In order; None is left out.
    """

    title: str
    parts: tuple[Part | None, ...]

    def find(self, kind: type) -> list:
        """Returns the parts of a kind."""
        return [part for part in self.parts if isinstance(part, kind)]


@dataclass(frozen=True)
class Report:
    """Where a page was written.

    Attributes:
      markdown: The Markdown page.
      html: The HTML page.
      figures: The PNG files.
      claims: claims.json; None: the page makes no claims.
      text: The page's tables for a terminal.
      problem: Why it could not be written; empty: it was.
    """

    markdown: Path
    html: Path
    figures: tuple[Path, ...]
    claims: Path | None
    text: str
    problem: str = ""

    def describe(self) -> str:
        """Returns the tables, and where the report lies or why it is not kept."""
        return f"{self.text}\n{self.problem or f'report: {self.html}'}"
