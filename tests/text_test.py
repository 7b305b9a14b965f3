"""Text from files, printed safely on terminals and in Markdown."""

import io
import sys

import pytest

from cnn_jax.data import inspect
from cnn_jax.data.prepare import __main__ as prepare
from cnn_jax.export import __main__ as export
from cnn_jax.text import escape_markdown, escape_unprintable


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain, 20 ± 1 µm 猫", "plain, 20 ± 1 µm 猫"),
        ("two\nlines\tand\r", r"two\nlines\tand\r"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;a title\x07rest", r"\x1b]0;a title\x07rest"),
        ("\x9b31mred", r"\x9b31mred"),
        ("a\x00b\x08c\x7fd", r"a\x00b\x08c\x7fd"),
        ("right\u202eleft", r"right\u202eleft"),
        ("two\u2028lines", r"two\u2028lines"),
        ("half\udce9", r"half\xe9"),
        (Exception("a\nb"), r"a\nb"),
    ],
)
def test_control_sequences_are_removed(text, shown):
    assert escape_unprintable(text) == shown
    escape_unprintable(text).encode()


def test_markdown_is_escaped():
    assert escape_markdown("a|b\n<script>&amp; *x* `y` [z](w)\\") == (
        r"a\|b\\n&lt;script>&amp;amp; \*x\* \`y\` \[z\](w)" + "\\\\"
    )


@pytest.mark.parametrize("command", [inspect, prepare, export], ids=lambda module: module.__name__)
def test_commands_print_on_terminals_that_lack_a_character(command, monkeypatch):
    """As with PYTHONIOENCODING=ascii."""
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit):
        command.main(["--help"])
    print("caf\xe9")
    stream.flush()
    assert stream.buffer.getvalue().endswith(b"caf?\n")
