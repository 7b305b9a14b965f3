"""Python files of users, such as a study of their own: loaded by path, errors named by line."""

import contextlib
import importlib.util
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_jax.errors import UserError


def call(path: Path, function: str, *args: Any) -> Any:
    """Runs a Python file and calls a function of it.

    Args:
      path: The file.
      function: The function's name.
      *args: Its arguments.

    Returns:
      What the function returns.

    Raises:
      UserError: If there is no such file or function, or the user's code raises.
    """
    if not path.is_file():
        raise UserError(f"experiment={path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader, path
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            raise UserError(f"{path}: defines no function {function}(preset) that returns a Study")
        return getattr(module, function)(*args)
    except UserError:
        raise
    except Exception as error:  # The user's own code.
        line = _find_line(error, path) or getattr(error, "lineno", None)
        raise _explain(error, path, line) from None


@contextlib.contextmanager
def explain_errors(file: str) -> Iterator[None]:
    """Raises a UserError, which names the line, for an error in functions of a user's file.

    Args:
      file: The file of a study whose functions the block calls; empty: it has none.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        line = _find_line(error, Path(file)) if file else None
        if line is None:
            raise  # It is not the user's.
        raise _explain(error, Path(file), line) from None


def _find_line(error: Exception, path: Path) -> int | None:
    """Returns the last line of a file that an error came through; None: it did not."""
    whole = os.path.realpath(path)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.lineno for frame in frames if os.path.realpath(frame.filename) == whole]
    return own[-1] if own else None


def _explain(error: Exception, path: Path, line: int | None) -> UserError:
    where = f"{path}, line {line}" if line else str(path)
    return UserError(f"{where}: {type(error).__name__}: {error}")
