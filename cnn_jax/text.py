"""Text that comes from elsewhere - file names, values, messages - made fit to be shown."""

import unicodedata


def printable(text: str) -> str:
    r"""Returns text that a terminal shows as it is: on one line, without escape sequences.

    Control and format characters, line and paragraph separators, and bytes of file names that are
    not UTF-8 are written as \x1b, \u202e and the like.
    """
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return "".join(_escape(c) if unicodedata.category(c) in hidden else c for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # A byte that could not be decoded: see os.fsdecode.
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
