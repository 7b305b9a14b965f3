"""Reads files of labels: a line for each image."""

import os
from pathlib import Path

from cnn_jax.errors import UserError
from cnn_jax.text import escape_unprintable

LABEL_FORM = (
    'lines of "FILE CLASS", the class by its folder\'s name or its number from 0 among the sorted'
    " names"
)


def read_labels(file: Path, images: set[str], classes: list[str]) -> dict[str, int]:
    """Returns {image: label} of a file of labels.

    Args:
      file: Lines of a file name and a class; names may hold spaces.
      images: The names of the images that there are.
      classes: The classes' names by label.
    """
    number = {str(label): label for label in range(len(classes))}
    number |= {name: label for label, name in enumerate(classes)}
    labels: dict[str, int] = {}
    for i, line in enumerate(_read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        name, label = _split_line(line.strip(), images, number)
        if not name or label not in number:
            raise UserError(
                escape_unprintable(
                    f"{file}, line {i}: {line.strip()!r:.200}; expected are {LABEL_FORM}"
                )
            )
        if labels.setdefault(name, number[label]) != number[label]:
            raise UserError(
                escape_unprintable(f"{file}, line {i}: another class for {name} than before")
            )
    return labels


def _split_line(line: str, images: set[str], number: dict[str, int]) -> tuple[str, str]:
    """Returns (file name without its folder, class) of a line, at the tab or space that fits."""
    if "\t" in line:
        name, _, label = line.partition("\t")
        return os.path.basename(name.strip()), label.strip()
    spaces = [i for i, character in enumerate(line) if character == " "]
    pairs = [(os.path.basename(line[:i].strip()), line[i:].strip()) for i in reversed(spaces)]
    fitting = [pair for pair in pairs if pair[0] in images and pair[1] in number]
    return next(iter(fitting or pairs), ("", ""))


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        marks = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
        found = marks.get(content[:2], "")
        found = "UTF-32" if content[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff") else found
        found = found or ("UTF-16" if b"\0" in content[:200] else "ISO-8859-1")
        perhaps = "is" if found.startswith("UTF") else "is perhaps"
        raise UserError(
            f"{file} {perhaps} {found}, not UTF-8 (byte {error.start}): convert it, for example"
            f" with iconv -f {found} -t UTF-8"
        ) from None
