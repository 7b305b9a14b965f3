"""Optional packages: the library imports without them, and their absence is one line."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cnn_jax.errors import UserError
from cnn_jax.optional_packages import PACKAGES, explain_missing, lazy_import, require

ROOT = Path(__file__).parent.parent
# Importing a module that sys.modules holds as None raises ModuleNotFoundError.
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({sorted(PACKAGES)!r}))\n"


def run_without(code):
    """Runs Python in which no optional package can be imported."""
    command = [sys.executable, "-c", BLOCK + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_library_imports_without_optional_packages():
    modules = "models, optim, layers, data, training.train, evaluation.evaluate, pretrained"
    imports = "".join(f"import cnn_jax.{name}\n" for name in modules.split(", "))
    use = """
import jax, jax.numpy as jnp, numpy as np
from cnn_jax import models
model = models.create("lenet5", num_classes=10)
images = jnp.zeros((2, 32, 32, 1))
params, stats = jax.eval_shape(model.init, jax.random.key(0), images)
print(jax.eval_shape(model.apply, params, stats, images)[0].shape)
from cnn_jax.data import datasets, headers, decode
from cnn_jax.errors import UserError
from cnn_jax.data.tfds_sets import open_builder
from cnn_jax.data.workers import prefetch_decoded
from cnn_jax.data.base import Encoded
uses = {
    "digits": lambda: datasets.load_digits(""),
    "tfds": lambda: open_builder("cifar10", ""),
    "workers": lambda: next(prefetch_decoded(dict, range(2), 0)),
    "cv2": lambda: decode.cv2.imdecode,
    "jpeg": lambda: headers.simplejpeg.decode_jpeg,
    "report": lambda: __import__("cnn_jax.report.build"),
}
for name, use in uses.items():
    try:
        use()
    except UserError as error:
        print(name, "->", error)
"""
    done = run_without(imports + use)
    assert done.returncode == 0, done.stderr
    shape, *lines = done.stdout.splitlines()
    assert shape == "(2, 10)"
    data = "pip install 'cnn_jax[data]', or pip install"
    expected = {
        "digits": "scikit-learn is not installed, and this needs it: pip install scikit-learn",
        "tfds": f"tensorflow-datasets is not installed, and this needs it: {data} ",
        "workers": f"grain is not installed, and this needs it: {data} grain",
        "cv2": f"opencv-python-headless is not installed, and this needs it: {data} ",
        "jpeg": f"simplejpeg is not installed, and this needs it: {data} simplejpeg",
        "report": "matplotlib is not installed, and this needs it: pip install matplotlib",
    }
    assert len(lines) == len(expected)
    for line, (name, words) in zip(lines, expected.items(), strict=True):
        assert line.startswith(f"{name} -> {words}"), line


def test_a_command_says_it_in_one_line(tmp_path):
    command = f"['launch.py', '--experiment=lrn', '--preset=smoke', '--workdir={tmp_path}']"
    done = run_without(f"from cnn_jax import cli\nsys.exit(cli.execute({command}))")
    assert done.returncode == 2
    assert done.stderr == f"launch.py: {explain_missing('matplotlib')}\n"
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_lazy_module_is_the_module_from_its_first_use_on():
    import numpy

    lazy = lazy_import("numpy")
    assert "array" not in vars(lazy)
    assert lazy.array is numpy.array and vars(lazy)["array"] is numpy.array


def test_another_missing_module_is_not_explained():
    """A missing dependency of an optional package is no reason to install that package."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        require("no_such_module")
    with pytest.raises(UserError, match="array-record is not installed"):
        sys.modules["array_record"], kept = None, sys.modules.get("array_record")
        try:
            require("array_record.python")
        finally:
            sys.modules["array_record"] = kept
            if kept is None:
                del sys.modules["array_record"]


def name_package(requirement):
    for sign in "<>=[ ":
        requirement = requirement.partition(sign)[0]
    return requirement.strip()


def test_requirements_are_the_dependencies_and_the_extra_data():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    extra = project["optional-dependencies"]["data"]
    assert sorted(listed) == sorted(project["dependencies"] + extra)
    for package, needed in PACKAGES.values():
        home = project["optional-dependencies"][needed] if needed else project["dependencies"]
        assert package in map(name_package, home)


IMPORT_COST = """
import resource
before = resource.getrusage(resource.RUSAGE_SELF)
import {module}
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime - before.ru_utime)
"""


@pytest.mark.parametrize("module, seconds", [("cnn_jax", 0.3), ("cnn_jax.models", 1.5)])
def test_imports_are_quick(module, seconds):
    """Processor time, the least of three: other work on the machine does not count."""
    code = IMPORT_COST.format(module=module)
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))
        if times[-1] < seconds:
            break
    assert min(times) < seconds
