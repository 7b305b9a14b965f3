"""Makes text from outside, such as file names, class names, values and messages, safe to show."""

import io
import re
import sys
import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def escape_unprintable(text: object) -> str:
    r"""Returns text on one line that a terminal shows as it is, without escape sequences.

    Control and format characters, line and paragraph separators, and bytes of file names that are
    not UTF-8 are written as \x1b, \u202e and the like, so that names stay distinct.

    Args:
      text: A value of any type; its `str` is shown.
    """
    return "".join(_escape(c) if unicodedata.category(c) in _HIDDEN else c for c in str(text))


def escape_markdown(text: object) -> str:
    """Returns text as one line of Markdown that shows it literally, also in a table's cell."""
    escaped = re.sub(r"([\\`*\[\]|])", r"\\\1", escape_unprintable(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def replace_unprintable() -> None:
    """Makes stdout and stderr print ? instead of failing for characters they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # A byte that could not be decoded: see os.fsdecode.
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
