"""Ends a program in the middle of a write: of a file that is moved to its place, or of a line."""

import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = ("half written", "not yet in its place", "in its place")
End = Callable[[], None]


class Writes:
    """Records the files that are moved to their place, and ends the program at one of them.

    Attributes:
      names: Of the files, in order.
    """

    def __init__(
        self,
        is_due: Callable[[int, Path], bool] = lambda number, place: False,
        moment: str = "",
        end: End = os.abort,
    ) -> None:
        """Takes (number of the write, place) -> whether to end there, when, and how."""
        self.is_due, self.moment, self.end = is_due, moment, end
        self.names: list[str] = []

    def replace(self, part: Path, place: Path) -> None:
        """As `os.replace`."""
        due = self.is_due(len(self.names), Path(place))
        self.names.append(Path(place).name)
        if due and self.moment == "half written":
            os.truncate(part, os.path.getsize(part) // 2)
        if due and self.moment != "in its place":
            self.end()
        os.replace(part, place)
        if due:
            self.end()

    def as_os(self) -> Any:
        """What stands for the module os in `cnn_jax.files`."""
        return types.SimpleNamespace(**(vars(os) | {"replace": self.replace}))


class CutFile:
    """A file of lines that ends the program in the middle of its n-th line."""

    def __init__(self, file: Any, number: int, end: End) -> None:
        self.file, self.left, self.end = file, number, end

    def write(self, text: str) -> None:
        """Writes a line, or half of it."""
        self.left -= 1
        if not self.left:
            self.file.write(text[: len(text) // 2])
            self.file.flush()
            self.end()
        self.file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "CutFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def cut_lines(module: Any, name: str, number: int, end: End) -> None:
    """Has a module's n-th line into files of this name end the program."""
    files: dict[str, CutFile] = {}

    def open_file(path: Any, mode: str = "r", **options: Any) -> Any:
        file = open(path, mode, **options)  # noqa: SIM115
        if mode != "a" or Path(path).name != name:
            return file
        known = files.get(name)
        files[name] = CutFile(file, known.left if known else number, end)
        return files[name]

    module.open = open_file


def cut_events(number: int, end: End) -> None:
    """Has the n-th write into TensorBoard's file end the program, in the middle of its records."""
    from tensorboardX.event_file_writer import EventsWriter

    flush, left = EventsWriter.flush, [number]

    def deadly(self: Any) -> None:
        flush(self)
        left[0] -= 1
        if not left[0]:
            path = self._file_name
            os.truncate(path, os.path.getsize(path) - 9)
            end()

    EventsWriter.flush = deadly
