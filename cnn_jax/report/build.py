"""Builds a report: finds the study that wrote a folder, composes its page and writes it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cnn_jax import file_names, user_file
from cnn_jax.errors import UserError, explain_os_error
from cnn_jax.files import write_whole
from cnn_jax.registered_studies import import_studies
from cnn_jax.report import parts, render, sweep
from cnn_jax.report.claims import Claim
from cnn_jax.report.elements import Claims, Figure, Page, Report
from cnn_jax.report.reading.folder import read
from cnn_jax.report.reading.study_file import read_study_file
from cnn_jax.report.render_text import render_text
from cnn_jax.report.results import Results, StudyFile
from cnn_jax.report.rows import Row
from cnn_jax.report.verdicts import RULE, Verdict
from cnn_jax.tuning import Tuning


class ReportedStudy(Protocol):
    """The attributes of a study that a report needs, such as those of `cnn_jax.study.Study`."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the paper's table."""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The paper's claims."""

    @property
    def tuning(self) -> Tuning | None:
        """How its runs are tuned; None: they are not."""

    @property
    def report(self) -> Callable[[Results], Page] | None:
        """Composes the page; None: the standard page."""


def build(
    workdir: str | os.PathLike, study: ReportedStudy | None = None, html: bool = True
) -> Report:
    """Writes report.md, report.html, the figures and claims.json into a study's folder.

    The same folder gives the same files, byte for byte. The report lists missing and unfinished
    runs and damaged files.

    Args:
      workdir: The study's folder.
      study: The study that composes the page; None: the one that study.json names, registered or
        in the user's file.
      html: Whether to write report.html too.

    Returns:
      The paths of the report. If it could not be written, its `problem` states why.

    Raises:
      UserError: If there is no study.json, or its study cannot be found.
    """
    folder = Path(workdir)
    study_file = read_study_file(folder)
    if study is None:
        study = find_study(folder, study_file)
    with user_file.explain_errors(study_file.file):
        results = read(folder, study.rows, study.claims, study.tuning)
        return write_page(compose(results, study), folder, file_names.REPORT, html, results.study)


def compose(results: Results, study: ReportedStudy) -> Page:
    """Returns the page of a study's results.

    Args:
      results: The study's results.
      study: The study that composes the page.
    """
    if results.study.swept:
        return sweep.make_page(results)
    return (study.report or parts.standard)(results)


def find_study(folder: Path, study_file: StudyFile) -> ReportedStudy:
    """Returns the study that wrote a folder.

    Args:
      folder: The study's folder.
      study_file: The content of its study.json.

    Raises:
      UserError: If the study is not registered, or its file no longer exists.
    """
    name, preset = study_file.name, study_file.preset
    if study_file.file:
        path = Path(study_file.file)
        if not path.is_file():
            raise UserError(
                f"{folder}: the study {name} was defined in {path}, which no longer exists: restore"
                " it, or correct the field file in study.json"
            )
        return user_file.call(path, "study", preset)
    studies, _ = import_studies()
    if name not in studies:
        raise UserError(
            f"{folder}: the study {name} is not registered: build its report from Python, with"
            " cnn_jax.report.build.build(workdir, study)"
        )
    return studies[name](preset)


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
      folder: Folder to write to.
      name: Name of the page's files, without suffix.
      html: Whether to write the HTML page too.
      study_file: Describes the study in claims.json; None: claims.json is not written.

    Returns:
      The paths of the files. If they could not be written, its `problem` states why.
    """
    parts.check_files(page)
    pictures = {part.file: part.png() for part in page.find(Figure)}
    files: dict[str, str | bytes] = {f"{name}.md": render.render_markdown(page)}
    if html:
        files[f"{name}.html"] = render.render_html(page, pictures)
    drawn = {file: png for file, png in pictures.items() if not _is_there(folder / file, png)}
    claims = [verdict for part in page.find(Claims) for verdict in part.verdicts]
    if claims and study_file:
        files[file_names.CLAIMS] = describe_claims(study_file, claims)
    problem = ""
    try:
        for file, content in (files | drawn).items():
            write_whole(folder / file, content)
    except OSError as error:
        problem = str(
            explain_os_error(f"the report was not saved: cannot write to {folder}", error)
        )
    return Report(
        markdown=folder / f"{name}.md",
        html=folder / f"{name}.html",
        figures=tuple(folder / file for file in pictures),
        claims=folder / file_names.CLAIMS if file_names.CLAIMS in files else None,
        text=render_text(page),
        problem=problem,
    )


def _is_there(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def describe_claims(study_file: StudyFile, verdicts: list[Verdict]) -> str:
    """Returns the text of claims.json.

    Args:
      study_file: Describes the study.
      verdicts: The verdicts on its claims.
    """
    words = {
        "study": study_file.name,
        "title": study_file.title,
        "paper": study_file.paper,
        "preset": study_file.preset,
        "data": study_file.data,
        "rule": RULE,
        "claims": [parts.describe_verdict(verdict) for verdict in verdicts],
    }
    return json.dumps(words, indent=1) + "\n"
