"""Checks for notebooks that JAX sees the accelerator of the runtime."""

import importlib.util
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from cnn_jax.errors import UserError


class RuntimeProblem(UserError):  # noqa: N818  A runtime has a problem; the program has none.
    """Why a notebook cannot go on. IPython shows the sentence alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def check_runtime(jax_before: str | None = None) -> None:
    """Prints what JAX runs on, or says in one sentence what is wrong with it.

    Args:
      jax_before: The version of JAX before the project was installed; None: there was none.

    Raises:
      RuntimeProblem: If the installation replaced the runtime's JAX, whose plugin for its TPU or
        GPU then no longer fits, or if JAX does not see the accelerator of the machine.
    """
    now = version("jax")
    if jax_before not in (None, now):
        raise RuntimeProblem(
            f"The installation replaced jax {jax_before} by {now}: choose Runtime, Disconnect and"
            " delete runtime, and run this cell first."
        )
    import jax

    devices = jax.devices()
    expected = find_accelerator()
    if expected and devices[0].platform == "cpu":
        raise RuntimeProblem(
            f"This machine has a {expected}, but JAX {now} sees only its CPU: install the plugin"
            f" that matches, pip install 'cnn_jax[{EXTRAS[expected]}]', and restart the runtime."
        )
    kind = platform.machine() if devices[0].platform == "cpu" else devices[0].device_kind
    print(
        f"Python {platform.python_version()}, jax {now} on {len(devices)} x"
        f" {devices[0].platform.upper()} ({kind})"
    )


EXTRAS = {"TPU": "tpu", "GPU": "cuda12"}  # Accelerator -> the extra with its plugin.


def find_accelerator() -> str | None:
    """Returns what the machine has, TPU or GPU, whatever JAX sees; None: neither."""
    if os.environ.get("TPU_ACCELERATOR_TYPE") or any(Path("/dev").glob("accel[0-9]*")):
        return "TPU"
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return "GPU"
    return None


def shows_widgets() -> bool:
    """Returns whether this is a notebook that can show a progress bar."""
    return "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None


def keep_on_drive(folder: str) -> Path:
    """Returns where a notebook keeps its runs: on Google Drive if it is mounted, else here.

    Args:
      folder: The name of the folder.
    """
    drive = Path("/content/drive/MyDrive")
    return drive / folder if drive.is_dir() else Path(folder)
