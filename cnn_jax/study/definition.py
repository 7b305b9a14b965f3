"""The type of a study: its runs, its table, its claims and its report."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_jax.config import Experiment
from cnn_jax.report.claims import Claim
from cnn_jax.report.rows import Row
from cnn_jax.tuning import Tuning

if TYPE_CHECKING:
    from cnn_jax.report.elements import Page
    from cnn_jax.report.results import Results

MeasureRuns = Callable[[Path, list[Experiment], Callable[[str], None]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Study:
    """A paper's comparison of runs, with its table, its claims and its notes.

    Attributes:
      name: Name of the study on the command line.
      title: Title of the report.
      paper: The paper's authors, year and section.
      paper_data: The data set of the paper's figures. Results on other data are not compared.
      preset: Size of the study, such as laptop or paper.
      runs: The experiments by name, in the order of training.
      rows: The lines of the table.
      notes: Notes for the reader of the report.
      claims: The paper's statements, and how to check them.
      report: Function from the results to the report's page, composed of the parts of
        `cnn_jax.report`; None: the page has tables of the rows, a figure, notes and claims.
      paper_runs: The paper's own recipe of each run, from which deviations are listed.
      measure: For a study that trains nothing: () -> a list of rows with its measurements.
      tuning: How a field of the runs is chosen before they are trained; None: no field is tuned.
      measure_runs: Measures trained runs beyond the evaluation protocols: (workdir, every seed of
        every run, those of earlier launches included, a function that prints a line) -> a list of
        rows, which study.json keeps. A seed may be unfinished.
      swept: The fields that a sweep varies.
      contact_sheet: Whether to draw sheet.png: training images of each run as its model sees them.
      file: The Python file that defines the study, if it is a user's; `load` sets it.
    """

    name: str
    title: str
    paper: str
    paper_data: str
    preset: str
    runs: dict[str, Experiment]
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    report: "Callable[[Results], Page] | None" = None
    paper_runs: dict[str, Experiment] = field(default_factory=dict)
    measure: Callable[[], list[dict[str, Any]]] | None = None
    tuning: Tuning | None = None
    measure_runs: MeasureRuns | None = None
    swept: tuple[str, ...] = ()
    contact_sheet: bool = False
    file: str = ""
