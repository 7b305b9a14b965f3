"""The documentation site's own code: links, the gallery, the reference, and the check of links."""

import json
import re
from pathlib import Path

import pytest

from cnn_jax import cli

ROOT = Path(__file__).parent.parent
SITE = ROOT / "docs" / "site"


@pytest.fixture(autouse=True)
def _site_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(SITE))


def test_links_out_of_the_site_lead_to_the_repository():
    import build

    pages = {Path("docs/data.md"), Path("benchmarks/README.md")}
    text = "[a](data.md#x) [b](../LICENSE) [c](../benchmarks/) [d](https://e.org) ![f](absent.png)"
    changed = build.redirect_links(text, Path("docs/scale.md"), pages)
    assert changed == (
        "[a](data.md#x) [b](https://github.com/cnn-jax/cnn_jax/blob/main/LICENSE)"
        " [c](../benchmarks/README.md) [d](https://e.org) ![f](absent.png)"
    )
    badge = "[![Open in Colab](https://colab.org/b.svg)](https://colab.org/n.ipynb)"
    changed = build.redirect_links(badge, Path("docs/scale.md"), pages)
    assert changed == "[Open in Colab](https://colab.org/n.ipynb)"


def test_there_is_a_card_for_each_result():
    import gallery

    page = gallery.make_page()
    for path in (ROOT / "docs" / "results").glob("*/study.json"):
        title = json.loads(path.read_text())["title"]
        assert f"## {title}" in page and f"docs/results/{path.parent.name}/report.md" in page
        claims = json.loads((path.parent / "claims.json").read_text())["claims"]
        assert all(claim["statement"].replace("|", "\\|") in page for claim in claims)
    for name in ("command", "hardware", "commit"):
        assert f"- {name}: " in page


def test_a_card_has_the_figures_of_the_report():
    import gallery

    for path in (ROOT / "docs" / "results").glob("*/study.json"):
        report = (path.parent / "report.md").read_text(encoding="utf-8")
        card = gallery.make_card(path.parent)
        assert read_figures(card) == read_figures(report), path.parent.name


def read_figures(text):
    """Returns the cells of the columns "unit", "paper" and "ours" of a page's table of claims."""
    table = re.search(r"^\| (the paper's )?claim \|.*\n(\|.*\n)+", text, re.MULTILINE)[0]
    names, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return [[row[names.index(name)] for name in ("unit", "paper", "ours")] for row in rows]


def test_the_reference_has_every_public_module():
    import reference

    listed = "\n".join(reference.make_pages().values())
    for path in (ROOT / "cnn_jax").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        leaf = name.removeprefix("cnn_jax.")
        if (
            leaf.split(".")[0] in reference.INTERNAL
            or name == "cnn_jax"
            or "._" in name
            or "__main__" in name
        ):
            continue
        assert f"automodule:: {name}\n" in listed, name


def test_each_module_is_on_one_page_of_the_reference():
    import reference

    text = "\n".join(reference.make_pages().values())
    listed = [line for line in text.splitlines() if line.startswith(".. automodule::")]
    assert len(listed) == len(set(listed))
    assert "evaluation.retrieval.search" in reference.make_pages()["retrieval.md"]


def test_the_check_finds_broken_links_and_the_network(tmp_path, monkeypatch):
    import check

    monkeypatch.setattr(check, "SITE", tmp_path)
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#there">2</a><a href="c.html">3</a>'
        '<script src="https://cdn.org/x.js"></script><a href="https://fine.org">4</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here">')
    assert sorted(check.find_faults(check.read_pages())) == [
        "a.html loads https://cdn.org/x.js",
        "a.html: b.html#there has no such anchor",
        "a.html: c.html leads nowhere",
    ]


def test_the_check_finds_values_of_the_build_in_signatures(tmp_path, monkeypatch):
    import check

    monkeypatch.setattr(check, "SITE", tmp_path)
    values = ("environ({&#39;HOME&#39;:", "&lt;function", "&lt;factory&gt;", "os.environ", "None")
    spans = [f'<span class="default_value"><span class="pre">{v}</span></span>' for v in values]
    (tmp_path / "a.html").write_text("".join(spans) + "<p>environ({ &lt;function</p>")
    faults = check.find_faults(check.read_pages())
    assert faults == ["a.html: 3 signatures hold values of the build"]


def test_signatures_hold_no_values_of_the_build():
    import conf

    assert conf.autodoc_preserve_defaults  # Without it os.environ is printed in full.
    for given, expected in {
        "(x, parent=<flax.linen.module._Sentinel object>, name=None, blocks)": "(x, blocks)",
        "(parent=<flax.linen.module._Sentinel object>, name=None)": "()",
        "(init=<function zeros>, k=1)": "(init=zeros, k=1)",
        "(init=<function fan_in_normal.<locals>.init>)": "(init=fan_in_normal(...))",
        "(block=<class 'cnn_jax.models.resnet.BasicBlock'>)": "(block=BasicBlock)",
        "(say=<built-in function print>, to=<factory>)": "(say=print, to=...)",
        "(x, y=1)": "(x, y=1)",
        None: None,
    }.items():
        assert conf.shorten_signature(None, "", "", None, None, given, None) == (expected, None)


def test_functions_of_libraries_are_no_members():
    import conf
    from jax.nn.initializers import zeros

    from cnn_jax.config import choose

    assert conf.skip_members(None, "class", "bias_init", zeros, False, None)
    assert not conf.skip_members(None, "module", "choose", choose, False, None)


def test_the_front_page_has_a_place_for_each_notebook():
    index = (SITE / "index.md").read_text()
    for path in (ROOT / "notebooks").glob("*.py"):
        assert f"notebooks/{path.stem}" in index


def test_the_example_of_an_own_study_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (SITE / "own_study.md").read_text(), re.DOTALL)
    file = tmp_path / "depth.py"
    file.write_text(example.replace("steps=200, eval_every=100", "steps=2, eval_every=1"))
    command = ["launch.py", f"--experiment={file}", "--run=resnet-20", f"--workdir={tmp_path}/w"]
    assert cli.execute(command) == 0
    assert (tmp_path / "w" / "report.md").exists()
