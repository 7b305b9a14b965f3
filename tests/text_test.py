"""Text from outside, printed on terminals and in Markdown."""

import pytest

from cnn_jax.text import markdown, printable


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain, 20 ± 1 µm 猫", "plain, 20 ± 1 µm 猫"),
        ("two\nlines\tand\r\n more", "two lines and more"),
        ("\x1b[31mred\x1b[0m", "�red�"),
        ("\x1b]0;a title\x07rest", "�rest"),
        ("\x1b]8;;http://x\x1b\\link", "�link"),
        ("\x9b31mred", "�red"),
        ("a\x00b\x08c\x7fd", "a�b�c�d"),
        ("right\u202eleft", "right�left"),
        ("half\udce9", "half�"),
        (Exception("a\nb"), "a b"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_left(text, shown):
    assert printable(text) == shown
    printable(text).encode()


def test_markdown_shows_text_as_it_is():
    assert markdown("a|b\n<script>&amp; *x* `y` [z](w)\\") == (
        "a\\|b &lt;script>&amp;amp; \\*x\\* \\`y\\` \\[z\\](w)\\\\"
    )
