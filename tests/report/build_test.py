"""Writing reports: the same bytes, escaping, self-contained pages, finding the study."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.report_folders import (
    COMMAND,
    FakeStudy,
    make_row,
    write_evaluation,
    write_run,
    write_study,
)

from cnn_jax import report
from cnn_jax.errors import UserError
from cnn_jax.report import build, parts
from cnn_jax.report.claims import BELOW_ZERO, Claim, Score, subtract
from cnn_jax.report.rows import Row
from experiments import STUDIES

EVIL = '"><script>alert(1)</script>&amp;|$\\x$'


class Reader(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def write_two(folder):
    write_study(folder, "plain-20", "resnet-20", seeds=2)
    for seed in (0, 1):
        write_run(folder, "plain-20", seed, errors=(0.9, 0.5), train=(0.9, 0.6))
        write_run(folder, "resnet-20", seed, errors=(0.9, 0.4 + 0.1 * seed), train=(0.9, 0.5))
    check = subtract(Score("resnet-20"), Score("plain-20"))
    claims = (Claim("shortcuts help", check, BELOW_ZERO),)
    return FakeStudy((make_row("plain-20", "plain"), make_row("resnet-20")), claims)


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    study = write_two(tmp_path)
    built = build.build(tmp_path, study)
    first = read_files(tmp_path)
    assert set(first) == {"study.json", "report.md", "report.html", "report.png", "claims.json"}
    assert build.build(tmp_path, study) == built and read_files(tmp_path) == first
    assert first["report.png"].startswith(b"\x89PNG")
    assert built.describe().endswith(f"report: {built.html}")


def test_claims_are_written_and_come_last_in_the_report(tmp_path):
    built = build.build(tmp_path, write_two(tmp_path))
    words = json.loads(built.claims.read_text())
    (claim,) = words["claims"]
    assert (words["study"], claim["statement"]) == ("some_study", "shortcuts help")
    assert (claim["seeds"], claim["verdict"]) == (2, "undecided")
    assert claim["ours"] == pytest.approx(-5.0)
    assert claim["expected"] == [None, 0.0]
    titles = re.findall(r"^## (.*)$", built.markdown.read_text(), re.M)
    assert titles[-1] == "What the paper says"


def test_text_is_escaped_and_the_page_needs_no_other_file(tmp_path):
    words = {name: EVIL for name in ("title", "paper", "preset", "data", "paper_data", "command")}
    write_study(tmp_path, "run", "none", notes=[EVIL], **words)
    place = write_run(tmp_path, "run", errors=(0.5, 0.4), train=(0.5, 0.4), deviations=[EVIL])
    start = {"time": EVIL, "commit": EVIL, "hardware": EVIL, "versions": {EVIL: EVIL}}
    (place / "starts.jsonl").write_text(json.dumps(start) + "\n")
    rows = Row("run", EVIL, EVIL, EVIL), make_row("none", paper={"top1_error": EVIL})
    claim = Claim(EVIL, subtract(Score("run"), Score("none")), BELOW_ZERO, source=EVIL)
    built = build.build(tmp_path, FakeStudy(rows, (claim,)))
    text = built.html.read_text()
    page = Reader(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(EVIL) > 12
    assert "text" in {tag for tag, _ in page.tags}, "the figure's words are words"
    outside = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href") and v]
    assert not [v for v in outside if not v.startswith(("#", "data:"))]
    assert "url(http" not in text and "@import" not in text
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)), "the panels share one page"
    assert {used for used in re.findall(r'(?:url\(#|href="#)([^)"]+)', text)} <= set(ids)
    lines = [line for line in built.markdown.read_text().split("\n") if line[:4] != " " * 4]
    assert not [line for line in lines if "<script" in line]
    assert "\n".join(lines).count("\\|$\\\\x") > 12


def test_escape_sequences_and_newlines_are_removed(tmp_path):
    evil = "a\x1b[31mred\x1b]0;title\x07\r\nb\x00\x85\u202e\u2028c"
    write_study(tmp_path, "run", title=evil, notes=[evil], command=evil)
    write_run(tmp_path, "run", errors=(0.5,), deviations=[evil, "x"])
    rows = (Row("run", evil, evil, evil),)
    claim = Claim(evil, subtract(Score("run"), Score("run", "training")), BELOW_ZERO, source=evil)
    built = build.build(tmp_path, FakeStudy(rows, (claim,)))
    for text in (built.text, built.markdown.read_text(), built.html.read_text()):
        assert not set("\x1b\x07\r\x00\x85\u202e\u2028") & set(text)
        assert "[31mred" in text, "what was there is still shown"


def test_the_page_lists_the_settings(tmp_path):
    write_study(tmp_path, "run", "never", seeds=2)
    places = [write_run(tmp_path, "run", seed, errors=(0.5,)) for seed in (0, 1)]
    study = FakeStudy((make_row("run"), make_row("never")))
    page = Reader(build.build(tmp_path, study).html.read_text())
    assert [tag for tag, _ in page.tags].count("details") == 2
    assert all((place / "config.json").read_text().strip() in page.text for place in places)


def test_every_format_lists_missing_and_damaged_files(tmp_path):
    write_study(tmp_path, "cut", "bad")
    write_run(tmp_path, "cut", errors=(0.5, 0.4), last=None)
    place = write_run(tmp_path, "bad", errors=(0.5,))
    (place / "config.json").write_text("{")
    built = build.build(tmp_path, FakeStudy((make_row("cut"), make_row("bad"))))
    for text in (built.text, built.markdown.read_text(), built.html.read_text()):
        assert "cut: cut off at step 200 of 300" in text and COMMAND in text
        assert "bad/seed0/config.json: is not JSON" in text
    assert "cut (to step 200)" in built.html.read_text(), "the legend marks it too"


def test_a_study_with_a_gallery_needs_no_change_in_build(tmp_path):
    """A study whose results are images and a histogram composes its own page."""
    from matplotlib.figure import Figure

    def draw():
        figure = Figure()
        figure.subplots().hist([1, 2, 2])
        return figure

    def report(results):
        return parts.page(
            results,
            parts.image_grid(results, "filters.png", "The first layer's filters.", "Filters"),
            parts.image_grid(results, "absent.png", "Never shown."),
            parts.figure(draw, "Activations.", "Histogram", "histogram.png"),
        )

    write_study(tmp_path, "run")
    png = build.build(tmp_path, FakeStudy((make_row("run"),))).figures[0].read_bytes()
    (tmp_path / "filters.png").write_bytes(png)
    built = build.build(tmp_path, FakeStudy(report=report))
    assert [path.name for path in built.figures] == ["filters.png", "histogram.png"]
    text, page = built.markdown.read_text(), built.html.read_text()
    assert "![Filters](filters.png)" in text and "![Histogram](histogram.png)" in text
    assert "Never shown" not in text and "data:image/png;base64," in page and "<svg" in page
    assert built.claims is None


def test_the_study_is_found_by_its_name(tmp_path):
    study = STUDIES["resnet_degradation"]("smoke")
    write_study(tmp_path, *study.runs, name="resnet_degradation", preset="smoke")
    built = build.build(tmp_path)
    assert "ResNet-1202" in built.text
    assert "Shortcuts remove the degradation" in built.markdown.read_text()


def test_the_study_is_found_in_a_users_file(tmp_path):
    path = tmp_path / "my_study.py"
    path.write_text(
        "from cnn_jax.report.rows import Row\n"
        "from cnn_jax.study import Study\n"
        "def report(results):\n"
        "    from cnn_jax import report\n"
        "    note = report.Notes('Mine', (('', 'my own words'),))\n"
        "    return report.page(results, note)\n"
        "def study(preset):\n"
        "    return Study('mine', 'Mine', '', '', preset, {}, report=report)\n"
    )
    write_study(tmp_path, "run", name="mine", file=str(path))
    assert "my own words" in build.build(tmp_path).text
    path.write_text(path.read_text().replace("'my own words'", "1 / 0"))
    with pytest.raises(UserError, match=r"my_study\.py, line 5: ZeroDivisionError"):
        build.build(tmp_path)
    path.write_text("1 / 0")
    with pytest.raises(UserError, match=r"my_study\.py, line 1: ZeroDivisionError"):
        build.build(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"defined in .*my_study\.py, which no longer exists"):
        build.build(tmp_path)


def test_an_unknown_study_gives_one_line(tmp_path):
    write_study(tmp_path, "run")
    with pytest.raises(
        UserError, match="some_study is not registered: build its report from Python"
    ):
        build.build(tmp_path)


def test_a_report_that_cannot_be_written_is_still_printed(tmp_path, monkeypatch):
    study = write_two(tmp_path)

    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(build, "write_whole", refuse)
    built = build.build(tmp_path, study)
    assert "resnet-20" in built.text
    assert re.search(
        r"was not saved: cannot write to .* \(.*report\.md: Permission denied\)$", built.describe()
    )


def test_a_report_imports_no_jax(tmp_path):
    write_evaluation_study(tmp_path)
    code = (
        f"import sys; from cnn_jax.report.build import build; build({str(tmp_path)!r});"
        " sys.exit('jax' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_importing_the_studies_imports_no_large_library():
    code = (
        "import sys; from experiments import STUDIES;"
        " [study('paper') for study in STUDIES.values()];"
        " sys.exit(bool({'jax', 'numpy', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def write_evaluation_study(folder):
    write_study(folder, "alexnet", name="ten_crop")
    place = write_run(folder, "alexnet", errors=(0.3,))
    write_evaluation(place, "ten_crop@76", "0000")
    write_evaluation(place, "single@76", "0001")


def test_the_documented_study_builds_its_report(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    path = tmp_path / "my_study.py"
    path.write_text(re.search(r"```python\n(.*?)```", text, re.S)[1])
    write_study(tmp_path, "mlp", "lenet5", name="mine", file=str(path))
    write_run(tmp_path, "mlp", errors=(0.3,))
    write_run(tmp_path, "lenet5", errors=(0.2,))
    built = build.build(tmp_path)
    assert "LeNet-5 errs at most a point more than an MLP" in built.text
    assert [figure.name for figure in built.figures] == ["report.png", "histogram.png"]
    documented = set(re.findall(r"`(\w+)`(?:, | \|)", text.partition("| Part |")[2]))
    assert {name for name in documented if not hasattr(report, name)} <= {"report"}
