"""Tables as plain text."""

import pytest

from cnn_jax.terminal_tables import format_table

ROWS = [("a", 1_234_567, (28, 28, 6), 0.5), ("longer", 8, (84,), None)]


def test_numbers_are_right_aligned_with_commas_and_shapes_have_an_x():
    assert format_table(("name", "n", "shape", "share"), ROWS).splitlines() == [
        "name            n  shape    share",
        "a       1,234,567  28x28x6    0.5",
        "longer          8  84",
    ]


def test_a_notebook_gets_the_same_text(monkeypatch):
    """In Jupyter rich would show the table as HTML and return nothing."""
    text = format_table(("name", "n", "shape", "share"), ROWS)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert text and format_table(("name", "n", "shape", "share"), ROWS) == text


def test_a_table_without_rows_is_its_header():
    assert format_table(("a", "b"), []) == "a  b"


@pytest.mark.parametrize("width", [20, 26, 40])
def test_long_texts_are_shortened_to_the_width(width):
    text = format_table(("words", "n"), [("word " * 10, 5), ("x", 12_345)], width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" in text and "12,345" in text


def test_numbers_are_never_cut():
    assert "1,000,000,000" in format_table(("n",), [(10**9,)], width=5)
