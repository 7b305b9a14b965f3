"""Runs the papers' studies: `python launch.py --list`, then `launch.py --experiment=NAME`."""

import sys

REMEDY = "run `make setup` once, and start .venv/bin/python launch.py"

# The imports below need this version, and would fail with a traceback.
if sys.version_info < (3, 11):  # noqa: UP036
    print(f"launch.py: needs Python 3.11 to 3.13: {REMEDY}", file=sys.stderr)
    sys.exit(2)

from cnn_jax import interrupts  # noqa: E402 (it follows the check)

if __name__ == "__main__":
    interrupts.catch()

try:
    from cnn_jax import cli
    from experiments import COSTS, STUDIES
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing in ("cnn_jax", "experiments"):
        raise
    print(
        f"launch.py: {missing} is not installed for {sys.executable}: {REMEDY}; or install it all"
        " with pip install -e '.[data]'",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    cli.main(STUDIES, COSTS)
