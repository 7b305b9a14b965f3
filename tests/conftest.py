"""Strict JAX for every test: 8 virtual CPU devices, no silent promotion, warnings are errors."""

import os
import signal

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["CNN_JAX_ROUTES"] = "cpu"  # For small inputs too.

import jax
import pytest

# Under nohup or in the background these are ignored, which runs that tests start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_our_own(tmp_path_factory):
    """Replaces the user's cache folder by one of the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def shared_programs():
    """Runs of a module take their compiled programs from one another."""
    from helpers import shared_programs as shared

    from cnn_jax.training import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "build_program", shared.build_program)
        yield
