"""Builds a report: finds the study that made a folder, composes its page and writes it."""

import importlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from cnn_jax import user_file
from cnn_jax.errors import UserError, explain_os_error
from cnn_jax.files import write_whole
from cnn_jax.report import parts, render, sweep
from cnn_jax.report.claims import RULE, Claim, Verdict
from cnn_jax.report.elements import Claims, Figure, Page, Report
from cnn_jax.report.reading.folder import read
from cnn_jax.report.reading.study_file import read_study_file
from cnn_jax.report.results import Results, StudyFile
from cnn_jax.report.rows import Row
from cnn_jax.tuning import Tuning

# Where the registered studies are: installed, and in a checkout.
STUDY_MODULES = ("cnn_jax.experiments", "experiments")


class ReportedStudy(Protocol):
    """What a report needs of a study; `cnn_jax.study.Study` has it."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The lines of the table."""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The paper's claims."""

    @property
    def tuning(self) -> Tuning | None:
        """How its runs are tuned."""

    @property
    def report(self) -> Callable[[Results], Page] | None:
        """Composes the page; None: the page that all studies have."""


def build(
    workdir: str | os.PathLike, study: ReportedStudy | None = None, html: bool = True
) -> Report:
    """Writes report.md, report.html, the figures and claims.json into a study's folder.

    The same folder gives the same files, byte for byte. Runs that are missing or unfinished, and
    damaged files, are named in the report.

    Args:
      workdir: The study's folder.
      study: Composes the page; None: the study that study.json names, among the registered ones
        or in the user's file.
      html: Whether report.html is written too.

    Returns:
      Where the report lies. Its `problem` says why it could not be written, if it could not.

    Raises:
      UserError: If the folder holds no study, or its study cannot be found.
    """
    folder = Path(workdir)
    study_file = read_study_file(folder)
    if study is None:
        study = find_study(folder, study_file)
    results = read(folder, study.rows, study.claims, study.tuning)
    return write_page(compose(results, study), folder, "report", html, results.study)


def compose(results: Results, study: ReportedStudy) -> Page:
    """Returns the page of a study's results."""
    if results.study.swept:
        return sweep.report(results)
    return (study.report or parts.standard)(results)


def find_study(folder: Path, study_file: StudyFile) -> ReportedStudy:
    """Returns the study that made a folder.

    Raises:
      UserError: If it is neither registered nor in a file that is still there.
    """
    name, preset = study_file.name, study_file.preset
    if study_file.file:
        path = Path(study_file.file)
        if not path.is_file():
            raise UserError(
                f"{folder}: the study {name} was defined in {path}, which is gone: restore it, or"
                " correct file in study.json"
            )
        return user_file.call(path, "study", preset)
    studies = import_studies()
    if name not in studies:
        raise UserError(
            f"{folder}: the study {name} is not registered: build its report from Python, with"
            " cnn_jax.report.build.build(workdir, study)"
        )
    return studies[name](preset)


def import_studies() -> dict[str, Callable[[str], Any]]:
    """Returns the registered studies by name; empty if none are installed."""
    for module in STUDY_MODULES:
        try:
            return importlib.import_module(module).STUDIES
        except ModuleNotFoundError as error:
            if error.name not in (module, module.partition(".")[0]):
                raise
    return {}


def write_page(
    page: Page,
    folder: Path,
    name: str,
    html: bool = True,
    study_file: StudyFile | None = None,
) -> Report:
    """Writes a page and its figures.

    Args:
      page: The page.
      folder: Where to.
      name: Of the page's files, without the suffix.
      html: Whether the HTML page is written too.
      study_file: Of the page's study, for claims.json.
    """
    parts.check_files(page)
    pictures = {part.file: part.png() for part in page.find(Figure)}
    files: dict[str, str | bytes] = {f"{name}.md": render.render_markdown(page)}
    if html:
        files[f"{name}.html"] = render.render_html(page, pictures)
    drawn = {file: png for file, png in pictures.items() if not _is_there(folder / file, png)}
    claims = [verdict for part in page.find(Claims) for verdict in part.verdicts]
    if claims and study_file:
        files["claims.json"] = describe_claims(study_file, claims)
    problem = ""
    try:
        for file, content in (files | drawn).items():
            write_whole(folder / file, content)
    except OSError as error:
        problem = str(explain_os_error(f"the report is not kept: cannot write to {folder}", error))
    return Report(
        markdown=folder / f"{name}.md",
        html=folder / f"{name}.html",
        figures=tuple(folder / file for file in pictures),
        claims=folder / "claims.json" if "claims.json" in files else None,
        text=render.render_text(page),
        problem=problem,
    )


def _is_there(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def describe_claims(study_file: StudyFile, verdicts: list[Verdict]) -> str:
    """Returns the text of claims.json."""
    words = {
        "study": study_file.name,
        "title": study_file.title,
        "paper": study_file.paper,
        "preset": study_file.preset,
        "data": study_file.data,
        "rule": RULE,
        "claims": [_describe_verdict(verdict) for verdict in verdicts],
    }
    return json.dumps(words, indent=1) + "\n"


def _describe_verdict(verdict: Verdict) -> dict[str, Any]:
    claim, ours = verdict.claim, verdict.ours

    def rounded(value: float | None) -> float | None:
        return None if value is None or math.isinf(value) else round(value, 4)

    def interval(ends: tuple[float, float] | None) -> list[float | None] | None:
        return None if ends is None else [rounded(end) for end in ends]

    return {
        "statement": claim.statement,
        "source": claim.source,
        "unit": claim.unit,
        "is_figure": claim.is_figure,
        "expected": interval(claim.expected),
        "paper": claim.paper,
        "ours": rounded(ours.value),
        "over_images": interval(ours.over_images),
        "over_seeds": interval(ours.over_seeds),
        "seeds": ours.seeds,
        "setting": ours.setting,
        "verdict": verdict.verdict,
        "why": verdict.why,
    }
