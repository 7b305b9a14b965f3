"""The flags that XLA gets, and their effect."""

import importlib.util
import os
import platform
import subprocess
import sys
import warnings
from importlib import metadata

import jax
import pytest

from cnn_jax.cpu import settings

x86 = platform.machine().lower() in ("x86_64", "amd64")
STEPS, VALUES = settings.MIN_ONEDNN_STEPS, settings.MIN_BATCH_VALUES
OURS = " ".join(f"--{name}={value}" for name, value in settings.FLAGS.items())


@pytest.fixture
def machine(monkeypatch):
    """Imitates an x86 machine with a tested version of JAX, or another machine."""

    def is_(kind="x86_64", jaxlib="0.12.0.1"):
        monkeypatch.setattr(platform, "machine", lambda: kind)
        monkeypatch.setattr(metadata, "version", lambda name: jaxlib)

    is_()
    return is_


def chosen(**environ):
    settings.configure(environ)
    return environ.get("XLA_FLAGS")


def test_flags_are_added_to_what_the_user_set(machine):
    assert chosen() == OURS
    assert chosen(XLA_FLAGS="--xla_dump_to=/tmp/x") == f"--xla_dump_to=/tmp/x {OURS}"
    assert chosen(XLA_FLAGS=OURS) == OURS


def test_a_file_of_flags_stays(machine):
    """XLA reads flags from a file if XLA_FLAGS does not begin with a dash."""
    assert chosen(XLA_FLAGS="/home/me/flags") == "/home/me/flags"


def test_a_flag_that_the_user_set_stays(machine):
    for said in (
        "--xla_cpu_experimental_ynn_fusion_type=",
        "--a=b --xla_cpu_experimental_ynn_fusion_type= --c=d",
    ):
        assert chosen(XLA_FLAGS=said) == said


@pytest.mark.parametrize(
    "kind, jaxlib", [("arm64", "0.12.0"), ("x86_64", "0.9.2"), ("x86_64", "0.13.0")]
)
def test_no_flags_are_added_on_other_platforms(machine, kind, jaxlib):
    machine(kind, jaxlib)
    assert chosen() is None
    assert chosen(XLA_FLAGS="--a=b") == "--a=b"
    assert settings.choose_onednn_for_run(10**6, VALUES, {}) == {}


def test_long_runs_of_large_batches_use_onednn_unless_the_user_disables_it(machine):
    assert settings.choose_onednn_for_run(STEPS - 1, VALUES, {}) == {}
    assert settings.choose_onednn_for_run(STEPS, VALUES, {}) == settings.ONEDNN
    assert settings.choose_onednn_for_run(STEPS, VALUES, {"XLA_FLAGS": OURS}) == settings.ONEDNN
    assert settings.choose_onednn_for_run(STEPS, VALUES - 1, {}) == {}
    assert (
        settings.choose_onednn_for_run(STEPS, VALUES, {"XLA_FLAGS": "--xla_cpu_use_onednn=false"})
        == {}
    )
    machine(jaxlib="0.10.2")
    assert settings.choose_onednn_for_run(STEPS, VALUES, {}) == {}
    assert chosen() == OURS


def test_a_program_that_the_compile_cache_cannot_take_is_not_warned_of(machine):
    """JAX's words, of any program; another reason, such as a full disk, is warned of."""
    words = "Error writing persistent compilation cache entry for 'jit_any': "
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings.choose_onednn_for_run(STEPS, VALUES, {})
        warnings.warn(words + "MemoryError: std::bad_alloc", stacklevel=1)
        warnings.warn(words + "OSError: [Errno 28]", stacklevel=1)
    assert [str(one.message) for one in caught] == [words + "OSError: [Errno 28]"]


def test_evaluations_of_many_images_use_onednn(machine):
    pixels = settings.MIN_ONEDNN_PIXELS
    assert settings.choose_onednn_for_views(pixels - 1, {}) == {}
    assert settings.choose_onednn_for_views(pixels, {}) == settings.ONEDNN
    disabled = {"XLA_FLAGS": "--xla_cpu_use_onednn=false"}
    assert settings.choose_onednn_for_views(pixels, disabled) == {}


def test_that_it_is_too_late_is_said_once(monkeypatch, caplog):
    jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(settings, "_is_x86_with", lambda versions: True)
    settings.configure_once.cache_clear()
    for _ in range(2):
        settings.configure_once()
    assert caplog.text.count("JAX has already started without the flags") == 1


def run(code):
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not x86, reason="the flags are for x86")
def test_the_flags_and_options_reach_convolutions_and_both_gradients():
    """By default YNNPACK computes them; with our flags none, and with our options oneDNN does."""
    code = """if 1:
        import platform
        if not {ours}: platform.machine = lambda: "another, for which there are no flags"
        from cnn_jax.cpu import settings, configure
        configure()
        import cnn_jax.cpu.convolution as c, jax
        layout = ("NHWC", "HWIO", "NHWC")
        f = lambda x, k: c.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=layout)
        x = jax.ShapeDtypeStruct((8, 14, 14, 32), "float32")
        k = jax.ShapeDtypeStruct((3, 3, 32, 32), "float32")
        both = lambda x, k: jax.vjp(f, x, k)[1](f(x, k))
        for steps in (1, settings.MIN_ONEDNN_STEPS):
            options = settings.choose_onednn_for_run(steps, settings.MIN_BATCH_VALUES)
            text = jax.jit(both, compiler_options=options).lower(x, k).compile().as_text()
            onednn = text.count('custom_call_target="__onednn$convolution"')
            print(text.count("__ynn_fusion"), onednn)
    """
    version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    onednn = "3" if settings.ONEDNN_JAXLIB[0] <= version < settings.ONEDNN_JAXLIB[1] else "0"
    assert run(code.format(ours=True)) == ["0", "0", "0", onednn]
    short_ynn, short_onednn, *long_run = run(code.format(ours=False))
    assert int(short_ynn) > 0 and short_onednn == "0" and long_run == [short_ynn, short_onednn]


@pytest.mark.skipif(not x86, reason="the flags are for x86")
def test_setting_flags_too_late_gives_one_line_and_changes_nothing():
    """Before JAX starts the flags are set; afterwards a line says why not, once."""
    code = """if 1:
        import os
        from cnn_jax.cpu import configure
        {before}
        import jax; jax.devices()
        given = os.environ.get("XLA_FLAGS")
        print(bool(given), repr(configure()).count("call cnn_jax.cpu.configure() first"))
        print(os.environ.get("XLA_FLAGS") == given)
    """
    assert run(code.format(before="assert configure() is None")) == ["True", "0", "True"]
    assert run(code.format(before="")) == ["False", "1", "True"]


@pytest.mark.parametrize(
    "started, may_find, backend, on_cpu, asks",
    [
        ("cpu", True, None, True, False),
        ("gpu", True, None, False, False),
        (None, False, None, True, False),
        (None, True, "gpu", False, True),
        (None, True, "cpu", True, True),
    ],
)
def test_jax_is_started_to_find_its_platform_only_where_it_may_find_an_accelerator(
    started, may_find, backend, on_cpu, asks, monkeypatch
):
    asked = []
    monkeypatch.setattr(jax, "default_backend", lambda: asked.append(backend) or backend)
    monkeypatch.setattr(settings, "_find_started_platform", lambda: started)
    monkeypatch.setattr(settings, "_may_find_accelerator", lambda platforms: may_find)
    assert settings.computes_on_cpu() == on_cpu and bool(asked) == asks


@pytest.mark.parametrize(
    "platforms, plugins, package, may_find",
    [
        ("", [], "", False),
        ("", ["cuda"], "", True),
        ("", [], "jax_plugins", True),
        ("", [], "libtpu", True),
        ("cpu", ["cuda"], "libtpu", False),
        ("cuda,cpu", [], "", True),
    ],
)
def test_an_accelerator_may_be_found_where_its_package_is_installed(
    platforms, plugins, package, may_find, monkeypatch
):
    monkeypatch.setattr(metadata, "entry_points", lambda group: plugins)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == package or None)
    assert settings._may_find_accelerator(platforms) == may_find


def test_that_there_is_no_accelerator_is_found_without_starting_jax():
    code = """if 1:
        from cnn_jax.cpu import settings
        print(settings.computes_on_cpu(), settings._find_started_platform())
    """
    assert run(code) == ["True", "None"]


def test_importing_the_package_changes_no_environment_variable():
    code = """if 1:
        import os
        before = dict(os.environ)
        import cnn_jax, cnn_jax.cpu, cnn_jax.models, cnn_jax.layers.conv
        print(before == dict(os.environ))
    """
    assert run(code) == ["True"]
