"""Describes the environment of a program: time, commit, hardware and versions."""

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax


def describe_environment() -> dict[str, Any]:
    """Returns the time (UTC), the commit, the hardware and the versions of packages, by name."""
    devices = jax.devices()
    kind = _find_cpu() if devices[0].platform == "cpu" else devices[0].device_kind
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": find_commit(),
        "hardware": f"{len(devices)} x {kind}",
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("jax", "flax", "optax")},
    }


def _find_cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU ({line.partition(':')[2].strip()}, {os.cpu_count()} cores)"
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores)"


def find_commit() -> str:
    """Returns the commit of the code.

    Returns:
      The commit's hash, with '+changes' if tracked files differ from it; 'unknown' if the code is
      not in a checkout.
    """
    here = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        # Otherwise the surrounding checkout belongs to another project.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "--short=10", "HEAD").strip() + (
            "+changes" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
