"""How much the tests under tests/faults try: little in make test, much in make test-faults."""

import os

LONG = os.environ.get("CNN_JAX_FAULTS") == "long"


def choose(quick, long):
    """What fits the time."""
    return long if LONG else quick
