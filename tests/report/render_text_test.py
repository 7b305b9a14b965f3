"""Pages as text: every line fits the terminal, and nothing of a table is lost."""

import dataclasses

import pytest
from rich.cells import cell_len

from cnn_jax.report import claims
from cnn_jax.report.elements import Cell, Claims, Missing, Page, Prose, Table
from cnn_jax.report.render_text import render_text
from cnn_jax.report.verdicts import Verdict

NOT_THE_PAPERS = "initializer he, width 0.125; data digits"
COLUMNS = ("model", "top-1 error: paper, imagenet2012 (%)", "top-1 error: ours, digits (%)")
TABLE = Table(
    "Table 3",
    (*COLUMNS, "difference (points)", "seeds", "not the paper's"),
    (
        ("A, S 74, Q 74", "29.6", "11.67 [8.7; 15.4]", "—", "1", f"{NOT_THE_PAPERS}; 300 steps"),
        ("B", "28.7", Cell("10.83", "(at step 9)"), "—", "1", f"{NOT_THE_PAPERS}; 1,500 steps"),
    ),
    left=(0, 5),
)
CLAIMS = Claims(
    "What the paper says",
    ("claim", "verdict", "paper", "ours", "over images", "over seeds", "agrees if"),
    (
        (
            "Plain models " * 10,
            Cell("agrees", "(3 seeds)"),
            "—",
            "+6.58",
            "—",
            "[+4; +9]",
            "above 0",
        ),
        ("Depth helps", Cell("undecided", "(A is not finished)"), "−1.2", "—", "—", "—", "below 0"),
        ("Width helps", Cell("undecided", "(A is not finished)"), "—", "—", "—", "—", "below 0"),
    ),
)
UNDECIDED = Verdict(
    claims.Claim("", claims.Score("a"), (0, 1)),
    claims.Measured(0.5, seeds=1),
    "undecided",
    "one seed: the interval over seeds is unknown",
)
COMMAND = (
    "python launch.py --experiment=resnet_degradation --preset=laptop --workdir=runs/a/long/path"
)


def render(*parts, width):
    text = render_text(Page("title", parts), width)
    return text, text.splitlines()


def test_a_notebook_gets_the_same_text(monkeypatch):
    """In Jupyter rich would show the page as HTML and return nothing."""
    text, _ = render(TABLE, width=80)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert render(TABLE, width=80)[0] == text


def test_a_table_that_fits_is_markdown():
    text, lines = render(TABLE, width=400)
    assert lines[2:4] == ["Table 3", ""]
    rows = [line.strip("|").split("|") for line in lines[4:8]]
    assert {len(cells) for cells in rows} == {6}
    assert len({cell_len(line) for line in lines[4:8]}) == 1
    assert [cell.strip() for cell in rows[3]][2:4] == ["10.83 (at step 9)", "—"]
    assert "All rows" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_table_that_is_too_wide_is_folded_and_loses_nothing(width):
    text, lines = render(TABLE, width=width)
    assert max(map(cell_len, lines)) <= width
    for words in (
        "A, S 74, Q 74",
        "imagenet2012",
        "11.67 [8.7; 15.4]",
        "(at step 9)",
        "1,500 steps",
    ):
        assert any(words in line for line in lines), words
    assert "difference" not in text, "a column without values"
    common = text[text.index("All rows:") :]
    assert "seeds: 1" in common and NOT_THE_PAPERS in " ".join(common.split())
    assert text.count("initializer") == 1


def test_a_table_of_one_row_has_nothing_that_all_rows_share():
    text, _ = render(dataclasses.replace(TABLE, rows=TABLE.rows[:1]), width=60)
    assert "All rows" not in text and "width 0.125" in text


def test_a_folded_table_has_as_many_columns_beside_one_another_as_fit():
    table = Table("", ("model", "b" * 20, "c" * 20, "d" * 20), (("A", "1", "2", "3"),))
    three = dataclasses.replace(table, columns=table.columns[:3], rows=(("A", "1", "2"),))
    width = max(map(cell_len, render(three, width=400)[1]))
    for taken, beside in ((width, True), (width - 1, False)):
        lines = render(table, width=taken)[1]
        assert any("b" * 20 in line and "c" * 20 in line for line in lines) == beside
        assert max(map(cell_len, lines)) <= taken


@pytest.mark.parametrize("width", [40, 80, 400])
def test_a_table_without_rows_shows_its_columns(width):
    text, lines = render(dataclasses.replace(TABLE, rows=()), width=width)
    assert max(map(cell_len, lines)) <= width
    for name in TABLE.columns:
        assert all(word in text for word in name.split()), name


def test_claims_that_one_seed_leaves_undecided_name_the_remedy():
    undecided = dataclasses.replace(CLAIMS, verdicts=(UNDECIDED,))
    assert "\nUndecided with one seed: --seeds=3 " in render(undecided, width=80)[0]


def test_a_claim_with_a_value_is_a_block_and_the_others_are_counted():
    text, lines = render(CLAIMS, width=60)
    assert max(map(cell_len, lines)) <= 60
    assert lines[4].startswith("agrees  Plain models Plain")
    assert "        ours +6.58, over seeds [+4; +9], agrees if above 0" in lines
    assert "        (3 seeds)" in lines
    assert "Depth" not in text and "\n2 more claims have no value; " in text
    assert "--seeds" not in text
    none = Claims(CLAIMS.title, CLAIMS.columns, CLAIMS.rows[1:2])
    assert "\n1 claim has no value; " in render(none, width=60)[0]


def test_prose_is_wrapped_and_a_command_is_not():
    text, lines = render(
        Prose("", ("word " * 40,)), Missing("Missing", ("a: no",), COMMAND), width=50
    )
    assert [line for line in lines if cell_len(line) > 50] == [f"To complete them: {COMMAND}"]
    assert text.count("word") == 40


def test_the_terminal_s_width_is_taken(monkeypatch):
    for columns in (70, 90):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert (
            columns - 5 < max(map(len, render(Prose("", ("word " * 40,)), width=0)[1])) <= columns
        )
