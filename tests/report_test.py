"""The report against figures worked out by hand, on studies that are whole, partial, broken or hostile."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from cnn_jax.errors import UserError
from cnn_jax.report import build, figures, render

COMMAND = "python launch.py --experiment=some_study --seeds=3"


def row(run, group="residual", paper=None, **more):
    return {"run": run, "label": run, "group": group, "paper": paper or {}, "source": "Table 6"} | more


def study(folder, *rows, **more):
    words = {"name": "some_study", "title": "A study", "paper": "He 2015", "paper_data": "digits", "preset": "laptop"}
    words |= {"data": "digits", "command": COMMAND, "seeds": 1, "notes": ["a free note"], "rows": rows} | more
    (folder / "study.json").write_text(json.dumps(words))


def write_run(folder, run, seed=0, errors=(), train=(), steps=300, last="end", deviations=(), **more):
    """A run with an evaluation every 100 steps; errors are fractions, or dicts of metrics."""
    place = folder / run / f"seed{seed}"
    place.mkdir(parents=True)
    config = {"study": "some_study", "name": run, "seed": seed, "train": {"steps": steps}, "deviations": deviations}
    (place / "config.json").write_text(json.dumps(config | more))
    start = {"step": 0, "time": "2026-11-22T15:00:00+00:00", "commit": "abc1234", "hardware": "2 x cpu"}
    (place / "starts.jsonl").write_text(json.dumps(start | {"versions": {"jax": "0.12.0"}}) + "\n")
    events = [{"event": "train", "step": 50 * i, "top1_error": e, "loss": 1.0} for i, e in enumerate(train, 1)]
    for i, e in enumerate(errors, 1):
        events.append({"event": "eval", "step": 100 * i, "images": 360} | (e if isinstance(e, dict) else {"top1_error": e}))
    if last:
        events.append({"event": last, "step": steps if last == "end" else 250})
    (place / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return place


def table(folder):
    """{net: {column: cell}} and the whole of report.md, without the time that drawing takes."""
    text = render.markdown(build._sheet(*build.read(folder)))
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.split("\n") if line[:1] == "|"]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}, text


class Page(HTMLParser):
    """The tags that a browser would see, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_mean_std_and_difference_of_three_seeds(tmp_path):
    study(tmp_path, row("resnet-20", paper={"top1_error": 8.75}), seeds=3)
    for seed, error in enumerate((0.08, 0.09, 0.13)):
        write_run(tmp_path, "resnet-20", seed, errors=(0.9, 0.5, error), train=(0.7, 0.01 * (seed + 1)))
    cells, text = table(tmp_path)
    found = cells["resnet-20"]
    # mean 10; deviations -2, -1, 3: variance 14 / 2 = 7, sqrt(7) = 2.6458. Training 1, 2, 3: 2 and 1.
    assert found["ours (%)"] == "10.00 ± 2.65"
    assert (found["paper (%)"], found["difference (points)"]) == ("8.75", "+1.25")
    assert found["training error (%)"] == "2.00 ± 1.00"
    assert (found["seeds"], found["iterations"], found["deviations"]) == ("3", "300", "—")
    assert "**3 of 3 runs finished**" in text and "Missing" not in text
    for fact in ("He 2015", "laptop", COMMAND, "2026-11-22", "2 x cpu", "abc1234", "jax 0.12.0", "a free note"):
        assert fact in text


def test_one_seed_has_no_std_and_no_difference_without_a_printed_figure(tmp_path):
    study(tmp_path, row("plain-20"), row("resnet-20", paper={"top1_error": 8.75}))
    write_run(tmp_path, "plain-20", errors=(0.0912,))
    write_run(tmp_path, "resnet-20", errors=(0.08,))
    cells, _ = table(tmp_path)
    assert cells["plain-20"]["ours (%)"] == "9.12"
    assert (cells["plain-20"]["paper (%)"], cells["plain-20"]["difference (points)"]) == ("—", "—")
    assert cells["resnet-20"]["difference (points)"] == "−0.75"
    assert cells["resnet-20"]["training error (%)"] == "—"


def test_several_metrics_repeat_the_three_columns(tmp_path):
    study(tmp_path, row("vgg-a", paper={"top1_error": 29.6, "top5_error": 10.4}), row("vgg-d", paper={"top1_error": 27.0}))
    write_run(tmp_path, "vgg-a", errors=({"top1_error": 0.3, "top5_error": 0.1},))
    write_run(tmp_path, "vgg-d", errors=({"top1_error": 0.28, "top5_error": 0.09},))
    cells, _ = table(tmp_path)
    assert cells["vgg-a"]["top-1 error: difference (points)"] == "+0.40"
    assert cells["vgg-a"]["top-5 error: ours (%)"] == "10.00"
    assert cells["vgg-a"]["top-5 error: difference (points)"] == "−0.40"
    assert (cells["vgg-d"]["top-1 error: paper (%)"], cells["vgg-d"]["top-5 error: paper (%)"]) == ("27.0", "—")


def test_other_data_than_the_papers_has_no_difference(tmp_path):
    study(tmp_path, row("resnet-20", paper={"top1_error": 8.75}), paper_data="cifar10")
    write_run(tmp_path, "resnet-20", errors=(0.08,))
    cells, text = table(tmp_path)
    assert cells["resnet-20"]["paper, cifar10 (%)"] == "8.75" and cells["resnet-20"]["ours, digits (%)"] == "8.00"
    assert cells["resnet-20"]["difference (points)"] == "—"
    assert "the paper's figures are of cifar10, ours of digits" in text


def test_a_partial_study_says_what_is_missing(tmp_path):
    paper = {"top1_error": 5.0}
    study(tmp_path, *(row(run, paper=paper) for run in ("done", "cut", "nan", "never", "some")), seeds=2)
    for seed in (0, 1):
        write_run(tmp_path, "done", seed, errors=(0.04 + 0.02 * seed,))
        write_run(tmp_path, "cut", seed, errors=(0.5, 0.4)[: seed + 1], train=(0.6,) * (3 + 2 * seed), last=None)
        write_run(tmp_path, "nan", seed, errors=(0.3,), last="nan")
    write_run(tmp_path, "some", 1, errors=(0.07,))
    cells, text = table(tmp_path)
    assert cells["cut"]["ours (%)"] == "40.00 (at step 200 of 300)"
    assert cells["cut"]["training error (%)"] == "60.00 (at step 250 of 300)"
    assert cells["nan"]["ours (%)"] == "30.00 (at step 100 of 300)"
    assert all(cells[net]["difference (points)"] == "—" for net in ("cut", "nan", "never"))
    assert cells["never"]["ours (%)"] == cells["never"]["iterations"] == "—"
    assert (cells["some"]["ours (%)"], cells["some"]["seeds"]) == ("7.00", "1 of 2")
    missing = text.partition("## Missing")[2].partition("## Settings")[0].split("\n")
    assert [line for line in missing if line[:1] == "-"] == [
        "- cut: seed 0: cut off at step 150 of 300; seed 1: cut off at step 250 of 300",
        "- nan: seeds 0, 1: stopped by NaN at step 250",
        "- never: seeds 0, 1: not started",
        "- some: seed 0: not started",
    ]
    assert f"    {COMMAND}" in missing
    assert "**3 of 10 runs finished**" in text
    built = build.build(tmp_path)
    assert built.markdown.read_text() == text
    assert "some: seed 0: not started" in built.text and COMMAND in built.text
    assert "cut off at step 250 of 300" in built.html.read_text() and "<h2>Missing</h2>" in built.html.read_text()
    assert "cut (to step 250)" in built.html.read_text(), "the legend marks it too"


def test_nothing_has_run_yet(tmp_path):
    study(tmp_path, row("resnet-20", paper={"top1_error": 8.75}))
    cells, text = table(tmp_path)
    assert set(list(cells["resnet-20"].values())[2:]) == {"—", "0 of 1"}
    assert "- resnet-20: not started" in text


def test_an_end_before_the_last_iteration_is_no_finish(tmp_path):
    study(tmp_path, row("net"))
    place = write_run(tmp_path, "net", errors=(0.5,), steps=300)
    config = (place / "config.json").read_text()
    (place / "config.json").write_text(config.replace('"steps": 300', '"steps": 600'))
    assert "- net: cut off at step 300 of 600" in table(tmp_path)[1]


def test_deviations_of_all_runs_once_and_the_others_by_footnote(tmp_path):
    study(tmp_path, row("first"), row("second"), row("third"), row("never"))
    write_run(tmp_path, "first", errors=(0.1,), deviations=["train.steps: 64000 -> 300"])
    write_run(tmp_path, "second", errors=(0.1,), deviations=["train.steps: 64000 -> 300", "rate", "warm-up"])
    write_run(tmp_path, "third", errors=(0.1,), deviations=["warm-up", "train.steps: 64000 -> 300"])
    cells, text = table(tmp_path)
    assert [cells[net]["deviations"] for net in ("first", "second", "third", "never")] == ["—", "a, b", "b", "—"]
    assert "- **All runs**: train.steps: 64000 -> 300\n- **a**: rate\n- **b**: warm-up\n" in text


def test_a_torn_last_line_is_ignored(tmp_path):
    study(tmp_path, row("net"))
    place = write_run(tmp_path, "net", errors=(0.5, 0.4), last=None)
    with open(place / "metrics.jsonl", "ab") as log:
        log.write('{"event": "eval", "step": 300, "top1_error": 0.1, "why": "é'.encode()[:-1])  # half a character
    assert table(tmp_path)[0]["net"]["ours (%)"] == "40.00 (at step 200 of 300)"


@pytest.mark.parametrize("line", ['{"event": "eval", "st', "[1]", '{"step": 3}', '{"event": "eval"}'])
def test_a_broken_line_elsewhere_is_named(tmp_path, line):
    study(tmp_path, row("net"))
    place = write_run(tmp_path, "net", errors=(0.5, 0.4))
    first, *rest = (place / "metrics.jsonl").read_text().split("\n")
    (place / "metrics.jsonl").write_text("\n".join([first, line, *rest]))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2,"):
        build.build(tmp_path)


def test_missing_and_broken_files_are_named_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path} .*python launch.py --experiment=NAME --workdir={tmp_path}"):
        build.build(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UserError, match="study.json is not a JSON object"):
        build.build(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UserError, match="study.json: name is missing"):
        build.build(tmp_path)
    study(tmp_path, row("net"))
    place = write_run(tmp_path, "net")
    (place / "config.json").write_text('{"train"')
    with pytest.raises(UserError, match="config.json is not a JSON object"):
        build.build(tmp_path)
    assert not list(tmp_path.glob("*report*")), "nothing is written of a broken study"


def test_everything_is_escaped_and_the_page_needs_no_other_file(tmp_path):
    evil = '"><script>alert(1)</script>&amp;|$\\x$'
    more = {name: evil for name in ("title", "paper", "preset", "data", "paper_data", "command")}
    study(
        tmp_path,
        row("net", group=evil, label=evil, source=evil),
        row("none", paper={"top1_error": evil}),
        notes=[evil],
        **more,
    )
    place = write_run(tmp_path, "net", errors=(0.5, 0.4), train=(0.5, 0.4), deviations=[evil], name=evil)
    start = {"time": evil, "commit": evil, "hardware": evil, "versions": {evil: evil}}
    (place / "starts.jsonl").write_text(json.dumps(start) + "\n")
    built = build.build(tmp_path)
    text = built.html.read_text()
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) > 12
    assert "text" in {tag for tag, _ in page.tags}, "the figure's words are words"
    assert json.dumps(evil) in page.text, "the whole of config.json"
    outside = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href") and v]
    assert not outside and "url(http" not in text and "@import" not in text
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)), "the panels share one page"
    assert {used for used in re.findall(r'(?:url\(#|href="#)([^)"]+)', text)} <= set(ids)
    lines = [line for line in built.markdown.read_text().split("\n") if line[:4] != " " * 4]  # code is literal
    assert not [line for line in lines if "<script" in line]
    assert "\n".join(lines).count("\\|$\\\\x") > 12


def test_settings_in_the_page(tmp_path):
    study(tmp_path, row("net"), row("never"), seeds=2)
    places = [write_run(tmp_path, "net", seed, errors=(0.5,), note=f"only in seed {seed}") for seed in (0, 1)]
    page = Page(build.build(tmp_path).html.read_text())
    assert [tag for tag, _ in page.tags].count("details") == 2
    assert all((place / "config.json").read_text() in page.text for place in places)


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    study(tmp_path, row("plain-20", "plain"), row("resnet-20"), seeds=2)
    for seed in (0, 1):
        write_run(tmp_path, "plain-20", seed, errors=(0.9, 0.5), train=(0.9, 0.6))
        write_run(tmp_path, "resnet-20", seed, errors=(0.9, 0.4 + 0.1 * seed), train=(0.9, 0.5))
    read = lambda built: [p.read_bytes() for p in (built.markdown, built.png, built.html)] + [built.text]  # noqa: E731
    first = read(build.build(tmp_path))
    assert read(build.build(tmp_path)) == first
    assert first[1].startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*"))


def test_the_figure_draws_mean_and_range_over_seeds(tmp_path):
    study(tmp_path, row("plain-20", "plain"), row("resnet-20"), seeds=2)
    write_run(tmp_path, "plain-20", 0, errors=(0.5, 0.2))
    write_run(tmp_path, "plain-20", 1, errors=(0.7,), train=(0.8,), last=None)
    plain, residual = build._panels(build.read(tmp_path)[1])
    assert (plain.title, residual.title) == ("plain", "residual")
    assert plain.curves[0].test == ((100, pytest.approx(60), 50, 70), (200, 20, 20, 20))
    assert plain.curves[0].train == ((50, 80, 80, 80),)
    assert plain.curves[0].remark == "" and residual.curves[0].remark == "(not started)"


def test_the_axis_shows_every_end_and_leaves_out_the_first_steps():
    done = figures.Curve("a", (), ((100, 90, 90, 90), (200, 10, 10, 10)))
    assert figures._limits([figures.Panel("p", (done,))]) == (200, pytest.approx(1.04 * 25))
    cut = figures.Curve("b", ((100, 60, 60, 60),), (), remark="(to step 100)")
    assert figures._limits([figures.Panel("p", (done, cut))]) == (200, pytest.approx(1.04 * 66))
    assert figures._limits([figures.Panel("p", ())]) == (1, 100)


def test_nets_of_one_depth_share_a_colour():
    by_depth = figures.colours({"plain": ["plain-20", "plain-56"], "residual": ["56", "20", "110"]})
    assert by_depth["residual"] == [by_depth["plain"][1], by_depth["plain"][0], figures.PALETTE[2]]
    by_place = figures.colours({"a": ["34 A", "34 B"], "b": ["sigmoid"]})
    assert by_place == {"a": list(figures.PALETTE[:2]), "b": [figures.PALETTE[0]]}
    many = figures.colours({"a": [f"net {i}" for i in range(12)]})["a"]
    assert len(set(many)) == 12


def test_the_report_needs_no_jax():
    code = "import sys, cnn_jax.report.build; sys.exit('jax' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
