"""The switch of the CPU kernels: its effects, and when it is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import mesh, models
from cnn_jax.cpu import rewrites, settings, switch
from cnn_jax.errors import UserError
from cnn_jax.layers.initializers import he_normal
from cnn_jax.layers.lrn import apply_local_response_norm


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.delenv("CNN_JAX_ROUTES", raising=False)


def of_size(values):
    return jax.ShapeDtypeStruct((values,), jnp.float32)


def test_by_default_the_switch_depends_on_platform_and_size(unset):
    large, small = of_size(settings.MIN_BATCH_VALUES), of_size(settings.MIN_BATCH_VALUES - 1)
    assert switch.are_kernels_enabled(large) and not switch.are_kernels_enabled(small)
    assert switch.is_on_cpu() and switch.are_rewrites_enabled()
    with mesh.target_platform("tpu"):
        assert not switch.are_kernels_enabled(large) and not switch.is_on_cpu()
        assert switch.are_rewrites_enabled()


def test_the_environment_is_read_at_each_use(monkeypatch):
    monkeypatch.setenv("CNN_JAX_ROUTES", "xla")
    assert not switch.are_kernels_enabled(of_size(2**20)) and not switch.is_on_cpu()
    assert not switch.are_rewrites_enabled()
    monkeypatch.setenv("CNN_JAX_ROUTES", "cpu")
    with mesh.target_platform("gpu"):
        assert switch.are_kernels_enabled(of_size(1)) and switch.is_on_cpu()


def test_use_overrides_the_environment_only_inside_the_block(monkeypatch):
    monkeypatch.setenv("CNN_JAX_ROUTES", "cpu")
    with switch.use("xla"):
        assert switch.read_choice() == "xla"
        with switch.use(""):
            assert switch.read_choice() == ""
    assert switch.read_choice() == "cpu"


def test_another_value_is_an_error(monkeypatch):
    monkeypatch.setenv("CNN_JAX_ROUTES", "quick")
    with pytest.raises(UserError, match=r"CNN_JAX_ROUTES=quick: set it to xla .* or cpu"):
        switch.are_kernels_enabled(of_size(1))
    with pytest.raises(UserError, match="CNN_JAX_ROUTES=fast"), switch.use("fast"):
        pass


def test_chunks_are_used_on_one_device_only(monkeypatch):
    assert not switch.are_chunks_enabled()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert switch.are_chunks_enabled()


@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (10,), (1, 1, 1, 1)])
def test_flat_random_values_are_jax_s(shape):
    draws = []
    for choice in ("cpu", "xla"):
        with switch.use(choice):
            draws.append(he_normal(jax.random.key(5), shape))
    np.testing.assert_allclose(*draws, rtol=1e-6)


def test_a_power_computed_by_roots_is_the_power():
    x = jnp.linspace(0.5, 9.0, 100)
    exact = np.asarray(x, np.float64) ** -0.75
    for choice in ("cpu", "xla"):
        with switch.use(choice):
            np.testing.assert_allclose(rewrites.raise_to_power(x, -0.75), exact, rtol=1e-6)
            count = str(jax.make_jaxpr(lambda x: apply_local_response_norm(x))(x[None])).count(
                "rsqrt"
            )
            assert count == (choice == "cpu")


def test_blocks_run_in_a_scan_only_where_that_is_fast():
    assert rewrites.choose_min_scan_blocks() == 100
    with mesh.target_platform("gpu"):
        assert rewrites.choose_min_scan_blocks() == 17


@pytest.fixture
def compile_quickly():
    """Compiles without optimization, which takes a third of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def make_loss(name, side=32, **options):
    """Returns (params -> training loss, params) of a model with every kind of kernel."""
    model = models.create(name, 4, norm="bn", **options)
    images = jax.random.normal(
        jax.random.key(1), (4, side, side, models.get_paper_input(name)[0][2])
    )
    params, stats = model.init(jax.random.key(0), images)

    def loss(params):
        logits, _ = model.apply(params, stats, images, train=True, key=jax.random.key(2))
        return jnp.square(logits).mean()

    return loss, params


def test_forward_mode_needs_plain_xla_and_reverse_mode_does_not(compile_quickly):
    """As the docstring of cnn_jax.cpu says, in both directions."""
    loss, params = make_loss("lenet5_modern", 12)
    direction = jax.tree.map(
        lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params
    )

    def dot(a, b):
        return sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))

    def forward(p):
        return jax.jvp(loss, (p,), (direction,))[1]

    def reverse(p):
        return dot(jax.grad(loss)(p), direction)

    def twice(p):
        return dot(jax.grad(reverse)(p), direction)

    with pytest.raises(TypeError, match="forward-mode"):
        forward(params)
    with switch.use("xla"):
        slope = jax.jit(lambda p: forward(p))(params)
        curvature = jax.jit(lambda p: jax.jvp(forward, (p,), (direction,))[1])(params)
    np.testing.assert_allclose(jax.jit(reverse)(params), slope, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(twice)(params), curvature, rtol=1e-3)


def test_plain_xla_uses_none_of_our_kernels():
    loss, params = make_loss("lenet5_modern", 12)
    assert "custom_vjp" in str(jax.make_jaxpr(loss)(params))
    with switch.use("xla"):
        text = str(jax.make_jaxpr(jax.grad(lambda p: loss(p)))(params))
    assert "custom_vjp" not in text
