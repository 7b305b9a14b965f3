"""Finds the packages. All other metadata is in pyproject.toml.

The studies lie in the top-level folder `experiments` and are installed as `cnn_jax.experiments`, so
that an installation adds a single top-level package. pyproject.toml can find packages or rename
them, but not both.
"""

from setuptools import find_packages, setup

library = find_packages(include=["cnn_jax", "cnn_jax.*"])
studies = find_packages(include=["experiments", "experiments.*"])

setup(
    packages=library + [f"cnn_jax.{name}" for name in studies],
    package_dir={"cnn_jax.experiments": "experiments"},
)
