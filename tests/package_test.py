"""The wheel and the sdist: what they hold, and that an installation elsewhere works."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import cnn_jax

ROOT = Path(__file__).parent.parent
BUILD = (
    "from setuptools import build_meta as build\n"
    "print(build.build_wheel('dist'), build.build_sdist('dist'))"
)


def run(command, cwd, **environment):
    """Runs a command without this checkout on the path; returns what it printed."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    env |= {"JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def list_sources():
    """The checkout's files, without what is built or installed there."""
    if (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True)
        return [name for name in lines.stdout.splitlines() if (ROOT / name).is_file()]
    files = (path for path in ROOT.rglob("*") if path.is_file())
    return [str(path.relative_to(ROOT)) for path in files if ".venv" not in path.parts[-3:]]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(the wheel, the sdist), built from a copy of the checkout."""
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path_factory.mktemp("source")
    for name in list_sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    run([sys.executable, "-c", BUILD], copy)
    (wheel,), (sdist,) = (copy / "dist").glob("*.whl"), (copy / "dist").glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_one_package_with_the_studies_and_its_data(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        entries = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    info = metadata.partition("/")[0]
    assert {name.partition("/")[0] for name in names} == {"cnn_jax", info}
    modules = {f"cnn_jax/{path.relative_to(ROOT / 'cnn_jax')}" for path in find_modules("cnn_jax")}
    studies = {f"cnn_jax/{path.relative_to(ROOT)}" for path in find_modules("experiments")}
    data = {"cnn_jax/py.typed", "cnn_jax/report/templates/page.html"}
    assert modules | studies | data <= names
    assert not [name for name in names if "test" in name or "testdata" in name]
    assert f"\nVersion: {cnn_jax.__version__}\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text and f"{info}/licenses/LICENSE" in names
    assert "cnn-jax = cnn_jax.__main__:main" in entries
    extras = ("data", "tpu", "cuda12", "cuda13", "bench", "docs", "dev")
    assert all(f"\nProvides-Extra: {extra}\n" in text for extra in extras)


def find_modules(package):
    return [p for p in (ROOT / package).rglob("*.py") if "__pycache__" not in p.parts]


def test_the_sdist_builds_the_same_wheel(built, tmp_path):
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    run([sys.executable, "-c", BUILD], folder)
    (again,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


def test_the_wheel_works_in_another_folder(built, tmp_path):
    """Beside this environment's packages: the wheel alone is installed."""
    wheel, _ = built
    home, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)
    where = "import cnn_jax, cnn_jax.experiments as e; print(cnn_jax.__file__, e.__file__)"
    printed = run([sys.executable, "-c", where], elsewhere, PYTHONPATH=str(home))
    assert printed.split() == [
        str(home / "cnn_jax" / "__init__.py"),
        str(home / "cnn_jax" / "experiments" / "__init__.py"),
    ]
    command = [sys.executable, "-m", "cnn_jax"]
    assert "resnet_degradation" in run([*command, "--list"], elsewhere, PYTHONPATH=str(home))
    study = [*command, "--experiment=conv_arithmetic", "--workdir=out"]
    assert "204,800" in run(study, elsewhere, PYTHONPATH=str(home))
    assert (elsewhere / "out" / "report.html").exists()


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment(built, tmp_path):
    """With its dependencies, from a package index; a study is trained there."""
    wheel, _ = built
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", str(wheel)], tmp_path)
    run([python, "-m", "pip", "check"], tmp_path)
    command = tmp_path / "venv" / "bin" / "cnn-jax"
    assert "resnet_degradation" in run([command, "--list"], tmp_path)
    study = [command, "--experiment=resnet_degradation", "--preset=smoke", "--workdir=out"]
    assert "ResNet" in run(study, tmp_path)
    assert (tmp_path / "out" / "report.html").exists()
    streamed = [python, "-c", "from cnn_jax.data import decode; decode.cv2.imdecode"]
    done = subprocess.run(streamed, cwd=tmp_path, capture_output=True, text=True)
    assert "pip install 'cnn_jax[data]'" in done.stderr.splitlines()[-1]
