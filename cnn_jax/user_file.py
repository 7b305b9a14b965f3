"""Python files of users, such as a study of their own: loaded by path, errors named by line."""

import importlib.util
import traceback
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
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = own[-1] if own else getattr(error, "lineno", None)
        where = f"{path}, line {line}" if line else str(path)
        raise UserError(f"{where}: {type(error).__name__}: {error}") from None
