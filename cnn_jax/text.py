"""Text from outside made safe to print: file names, class names, values, messages of servers."""

import re
import unicodedata

# ESC [ ... letter (CSI), ESC ] ... BEL (OSC) and other escape sequences of terminals.
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]"
)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: object) -> str:
    """Returns the text on one line, without anything that a terminal would obey.

    White space of any kind becomes one space. Escape sequences, control and formatting characters,
    and halves of surrogate pairs become the replacement character.

    Args:
      text: Of any type; its `str` is printed.
    """
    clean = _ESCAPE_SEQUENCE.sub(_REPLACEMENT, str(text))
    clean = re.sub(r"[\s\u2028\u2029]+", " ", re.sub(r"[\x1c-\x1f]", _REPLACEMENT, clean))
    return "".join(
        _REPLACEMENT if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in clean
    )


def markdown(text: object) -> str:
    """Returns the text as one line of Markdown that shows it literally, also in a table's cell."""
    escaped = re.sub(r"([\\`*\[\]|])", r"\\\1", printable(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")
