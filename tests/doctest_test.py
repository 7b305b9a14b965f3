"""The examples of the docstrings print what they say."""

import doctest
import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

ROOT = Path(__file__).parent.parent
PATHS = [path for path in (ROOT / "cnn_jax").rglob("*.py") if ">>>" in path.read_text()]


def name_module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_modules_with_examples_are_found():
    assert len(PATHS) >= 20


@pytest.mark.parametrize("path", PATHS, ids=name_module)
def test_examples_print_what_they_say(path):
    importlib.import_module(name_module(path))
    module = sys.modules[name_module(path)]
    results = doctest.testmod(module, extraglobs={"jax": jax, "jnp": jnp})
    assert results.attempted and not results.failed
