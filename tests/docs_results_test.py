"""docs/results: what is committed there can be built again, and its prose has no other figures."""

import json
import re
from pathlib import Path

import pytest

from cnn_jax.report import all_claims, build, render
from cnn_jax.report.elements import Claims
from cnn_jax.report.reading.folder import read
from cnn_jax.report.reading.study_file import read_study_file

RESULTS = Path(__file__).parent.parent / "docs" / "results"
STUDIES = sorted(path.parent for path in RESULTS.glob("*/study.json"))
MAX_FILES = 10  # Of a report.


def compose(folder):
    study = build.find_study(folder, read_study_file(folder))
    results = read(folder, study.rows, study.claims, study.tuning)
    return results, build.compose(results, study)


# An interval's two ends in report.md and in claims.md.
ENDS = re.compile(r"(?<=\\\[)[−+\d.]+; [−+\d.]+(?=\\\])")


def assert_same(text, committed):
    """Compares two texts; intervals may differ by 0.1.

    Those over images are of random draws, and NumPy's generators may draw other numbers in another
    version.
    """
    assert ENDS.sub("", text) == ENDS.sub("", committed)
    for ends, other in zip(ENDS.findall(text), ENDS.findall(committed), strict=True):
        assert read_ends(ends) == pytest.approx(read_ends(other), abs=0.1)


def read_ends(text):
    return [float(end) for end in text.replace("−", "-").split(";")]


def assert_same_claims(text, committed):
    """Compares two claims.json; intervals over images may differ by 0.1, as in `assert_same`.

    The other values may differ in the last of their digits, which depend on the processor.
    """
    ours, theirs = json.loads(text), json.loads(committed)
    for claim, other in zip(ours.pop("claims"), theirs.pop("claims"), strict=True):
        for name, apart in (("over_images", 0.1), ("over_seeds", 1e-9), ("ours", 1e-9)):
            assert claim.pop(name) == pytest.approx(other.pop(name), abs=apart)
        assert claim == other
    assert ours == theirs


def test_intervals_are_compared_as_numbers():
    text = r"a | \[−11.82; +8.38\] | 3"
    assert_same(text, text.replace("11.82", "11.85"))
    for other in ("11.95", "1.82"):
        with pytest.raises(AssertionError):
            assert_same(text, text.replace("11.82", other))
    with pytest.raises(AssertionError):
        assert_same(text, text.replace("| 3", "| 4"))
    claim = {"why": "no", "ours": 1.0, "over_images": [-1.5, 2.0], "over_seeds": None}
    words = json.dumps({"study": "a", "claims": [claim]})
    assert_same_claims(words, words.replace("2.0", "2.03"))
    for old, new in (("2.0", "2.3"), ("1.0", "1.00001"), ("null", "[1.0, 2.0]"), ("no", "yes")):
        with pytest.raises(AssertionError):
            assert_same_claims(words, words.replace(old, new))


def test_a_report_is_few_files():
    assert len(STUDIES) >= 5
    for folder in RESULTS.iterdir():
        assert sum(path.is_file() for path in folder.rglob("*")) <= MAX_FILES, folder


@pytest.mark.parametrize("folder", STUDIES, ids=lambda path: path.name)
def test_the_report_and_its_claims_are_those_of_the_data(folder):
    results, page = compose(folder)
    assert not results.problems
    assert_same(render.render_markdown(page), (folder / "report.md").read_text(encoding="utf-8"))
    (claims,) = page.find(Claims)
    text = build.describe_claims(results.study, list(claims.verdicts))
    assert_same_claims(text, (folder / "claims.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_a_claim_measured_on_other_data_says_so(folder):
    description = json.loads((folder / "study.json").read_text())
    if description["preset"] == "paper":
        return  # The recipe's own data, also where the paper's are larger ones.
    data = description["data"].partition(",")[0]
    for claim in json.loads((folder / "claims.json").read_text())["claims"]:
        if description["paper_data"] not in ("", data) and claim["ours"] is not None:
            assert f"data {data}" in claim["setting"], claim["statement"]


def test_the_page_of_all_claims_is_that_of_the_studies():
    page = all_claims.make_page(RESULTS)
    assert_same(render.render_markdown(page), (RESULTS / "claims.md").read_text(encoding="utf-8"))


def find_numbers(text):
    """Returns the numbers of a text that measure something: with a point, a comma or a percent."""
    numbers = re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?%?(?![\w])", text)
    return {number.rstrip(",") for number in numbers if re.search(r"[.,%]", number.rstrip(","))}


def find_wrong_numbers(prose, folders):
    """Returns the numbers of the prose that the studies' reports and evaluations do not hold."""
    known = set()
    for folder in folders:
        report = (folder / "report.md").read_text(encoding="utf-8").replace("\\", "")
        known |= {number.rstrip("%") for number in find_numbers(report)}
        results, _ = compose(folder)
        known |= {f"{len(e.wrong):,}" for run in results.every_run for e in run.protocols.values()}
    return {number for number in find_numbers(prose) if number.rstrip("%") not in known}


def sections():
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        links = re.findall(r"\((\w+)/report\.md\)", section)
        assert links, "each section is of a study; others that it mentions follow"
        yield pytest.param(section, [RESULTS / link for link in links], id=links[0])


@pytest.mark.parametrize("prose, folders", list(sections()))
def test_every_figure_of_the_prose_is_in_a_committed_file(prose, folders):
    assert not find_wrong_numbers(prose, folders)


def test_a_wrong_figure_is_found():
    wrong = "1.63, 1.64, 6.02 and 9,999 of 64,000 steps, 12.3%"
    folder = RESULTS / "resnet_degradation_digits"
    assert find_wrong_numbers(wrong, [folder]) == {"1.64", "9,999", "12.3%"}


def test_every_study_has_its_section():
    assert {param.id for param in sections()} == {folder.name for folder in STUDIES}
