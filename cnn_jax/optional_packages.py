"""Packages that only some users need: imported when they are first used.

A module that uses one writes

    if TYPE_CHECKING:
        import cv2
    else:
        cv2 = lazy_import("cv2")

and may then be imported without the package. Only the first use fails, with one line that says what
to install.
"""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn_jax.errors import UserError

# Module -> (what to install it by, the extra that brings it; empty: every installation has it).
PACKAGES = {
    "array_record": ("array-record", "data"),
    "cv2": ("opencv-python-headless", "data"),
    "grain": ("grain", "data"),
    "simplejpeg": ("simplejpeg", "data"),
    "tensorflow_datasets": ("tensorflow-datasets", "data"),
    "matplotlib": ("matplotlib", ""),
    "sklearn": ("scikit-learn", ""),
    "tensorboardX": ("tensorboardX", ""),
}


def require(module: str) -> Any:
    """Imports and returns a module of an optional package.

    Args:
      module: Its dotted name, such as "sklearn.datasets". The first part is a key of `PACKAGES`.

    Raises:
      UserError: If the package is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in PACKAGES:
            raise
        raise UserError(explain_missing(missing)) from None


def find_folder(module: str) -> Path:
    """Returns the folder of an optional package, which is not imported.

    Args:
      module: A key of `PACKAGES`.

    Raises:
      UserError: If the package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin:
        raise UserError(explain_missing(module))
    return Path(spec.origin).parent


def explain_missing(module: str) -> str:
    """Returns the line that says how to install a package of `PACKAGES`.

    Example:
      >>> explain_missing("matplotlib")
      'matplotlib is not installed, and this needs it: pip install matplotlib'
    """
    package, extra = PACKAGES[module]
    if extra:
        return (
            f"{package} is not installed, and this needs it: pip install 'cnn_jax[{extra}]', or"
            f" pip install {package}"
        )
    return f"{package} is not installed, and this needs it: pip install {package}"


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # What inspection asks every module for.
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} yet")
        module = require(self.__name__)
        self.__dict__.update(vars(module))  # Later uses find the names here.
        return getattr(module, name)


def lazy_import(module: str) -> ModuleType:
    """Returns a module that is imported when one of its names is first used.

    Args:
      module: A key of `PACKAGES`.
    """
    return _LazyModule(module)
