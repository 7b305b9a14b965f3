"""The nets: parameter counts of the papers, batch norm's groups, and stages in a scan."""

import jax
import jax.numpy as jnp
import numpy as np
import published_counts
import pytest

from cnn_jax import models
from cnn_jax.cost import summary
from cnn_jax.errors import UserError
from cnn_jax.models import lenet, resnet


@pytest.mark.parametrize("count", published_counts.PARAMETERS, ids=published_counts.label)
def test_nets_have_the_papers_parameters(count):
    image, classes = models.paper_input(count.net)
    model = models.create(count.net, classes, **count.options)
    assert summary.parameters(model, image) == count.parameters


@pytest.mark.parametrize("name", published_counts.MULTIPLY_ADDS)
def test_multiply_adds_are_the_papers(name):
    printed, share = published_counts.MULTIPLY_ADDS[name]
    image, classes = models.paper_input(name)
    assert summary.count_multiply_adds(models.create(name, classes), image) == pytest.approx(printed, rel=share)


def test_multiply_adds_by_hand():
    # conv 5x5 "SAME" 28x28x6 of 1 map, conv 5x5 10x10x16 of 6, dense 400-120-84-10
    by_hand = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 25 * 6 + 400 * 120 + 120 * 84 + 84 * 10
    assert summary.count_multiply_adds(models.create("lenet5_modern", 10), (28, 28, 1)) == by_hand
    assert summary.count_parameters(models.create("mlp", 10, hidden=(20,)), (8, 8, 1)) == 64 * 20 + 20 + 20 * 10 + 10


def images(count, size=8):
    return jax.random.normal(jax.random.key(1), (count, size, size, 3))


@pytest.mark.parametrize("name", ["mlp", "lenet5_modern", "resnet20", "plain20"])
def test_every_small_net_gives_logits_and_needs_no_batch_to_do_so(name):
    model = models.create(name, 7)
    params, stats = model.init(jax.random.key(0), images(1, 16))
    logits, same = model.apply(params, stats, images(3, 16))
    assert logits.shape == (3, 7) and same is stats
    alone, _ = model.apply(params, stats, images(3, 16)[:1])
    np.testing.assert_allclose(alone, logits[:1], rtol=1e-4, atol=1e-4)


def test_zero_padded_shortcut():
    x = images(2)
    y = resnet.zero_pad_shortcut(x, 5, 2)
    assert y.shape == (2, 4, 4, 5) and not y[..., 3:].any()
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])


def test_a_shortcut_carries_its_input_and_a_plain_net_has_none():
    """With the last convolution of each block at zero a residual net still sees its input; a plain one does not."""
    for name, sees in (("resnet20", True), ("plain20", False)):
        model = models.create(name, 5)
        params, stats = model.init(jax.random.key(0), images(1))
        params = {
            k: v | {"conv2": jax.tree.map(jnp.zeros_like, v["conv2"])} if "block" in k else v for k, v in params.items()
        }
        logits, _ = model.apply(params, stats, images(4))
        assert bool(np.ptp(np.asarray(logits), axis=0).max() > 1e-3) is sees


def test_a_scanned_stage_equals_the_loop():
    loop, scan = (models.create("resnet32", 10, scan_min_blocks=n) for n in (1000, 2))
    params, stats = loop.init(jax.random.key(0), images(1))
    assert jax.tree.structure(scan.init(jax.random.key(0), images(1))) == jax.tree.structure((params, stats))

    def value(model, params):
        logits, moved = model.apply(params, stats, images(4), train=True)
        return (logits**2).sum(), (logits, moved)

    (_, looped), grads = jax.jit(jax.value_and_grad(lambda p: value(loop, p), has_aux=True))(params)
    (_, scanned), scan_grads = jax.jit(jax.value_and_grad(lambda p: value(scan, p), has_aux=True))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), looped, scanned)
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / scale, b / scale, atol=1e-4), grads, scan_grads)


def test_remat_keeps_fewer_activations_and_changes_no_gradient(monkeypatch):
    """With batch norm, whose averages must come out of the recomputed blocks once, and dropout."""
    monkeypatch.setenv("CNN_JAX_ROUTES", "xla")  # as on an accelerator: ours keep little on a CPU as it is
    kept, again = (models.create("vgg_b", 10, width=1 / 16, norm="bn", remat=remat) for remat in (False, True))
    params, stats = kept.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    x = jnp.asarray(np.random.default_rng(0).random((16, 64, 64, 3), np.float32))

    def compiled(model):
        def value(params):
            logits, moved = model.apply(params, stats, x, train=True, key=jax.random.key(1))
            return (logits**2).mean(), moved

        return jax.jit(jax.value_and_grad(value, has_aux=True)).lower(params).compile()

    def kept_bytes(model):
        """Bytes handed to the backward pass, whatever the compiler."""
        forward = lambda params: model.apply(params, stats, x, train=True, key=jax.random.key(1))[0]
        handed = jax.eval_shape(lambda params: jax.vjp(forward, params)[1], params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(handed))

    assert kept_bytes(again) < 0.5 * kept_bytes(kept)
    plain, remat = compiled(kept), compiled(again)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain(params), remat(params))
    temporary = lambda program: program.memory_analysis().temp_size_in_bytes
    # The compiler for CPUs of JAX 0.10 keeps more all the same.
    if jax.__version_info__ >= (0, 12):
        assert temporary(remat) < 0.85 * temporary(plain)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("resnet21", {}, "no such model; nearest: .*resnet20"),
        ("mlp", {"shortcut": "A"}, "model.shortcut: mlp has no such option"),
        ("plain20", {"shortcut": "B"}, "plain20 has no such option"),
        ("resnet34", {"stride_in": "3x3"}, "resnet34 has no such option"),
        ("resnet50", {"stride_in": "2x2"}, "model.stride_in='2x2': choose 1x1 or 3x3"),
        ("resnet20", {"dtype": "float16"}, "choose float32 or bfloat16"),
        ("mlp", {"dropout": 1.5}, "model.dropout=1.5: must be at most 1"),
        ("mlp", {"hidden": (4, 0)}, "model.hidden=0: must be at least 1"),
        ("perceptron", {"bn_group": 4}, "perceptron has no such option"),
        ("resnet20", {"bn_epsilon": -1.0}, "model.bn_epsilon=-1.0: must be at least 0"),
        ("mlp", {"width": 0.0}, "model.width=0.0: must be more than 0"),
        ("resnet20", {"shortcut": "D"}, "model.shortcut='D': choose A or B or C or plain"),
        ("mlp", {"activation": "step"}, "model.activation='step': choose sigmoid or tanh or scaled_tanh or relu"),
    ],
)
def test_a_mistake_is_told(name, options, words):
    with pytest.raises(UserError, match=words):
        models.create(name, 10, **options).init(jax.random.key(0), images(1))


def test_too_small_an_image_names_the_smallest():
    with pytest.raises(UserError, match="the smallest are 12x12"):
        models.create("lenet5_modern", 10).init(jax.random.key(0), images(1, 8))


INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
GATES = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "not the first": [1, 1, 0, 0], "xor": [0, 1, 1, 0]}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", ["perceptron", "mlp"])
def test_a_perceptron_learns_and_or_not_and_never_xor_which_two_layers_do(name, gate):
    """Rosenblatt's is linear, and XOR's classes cannot be parted by a line."""
    model = models.create(name, 2, **({"hidden": (8,), "activation": "tanh"} if name == "mlp" else {}))
    images, labels = jnp.asarray(INPUTS).reshape(4, 1, 2, 1), jnp.asarray(GATES[gate])
    params, stats = model.init(jax.random.key(1), images)

    def loss(params):
        log = jax.nn.log_softmax(model.apply(params, stats, images)[0])
        return -jnp.take_along_axis(log, labels[:, None], 1).mean()

    descend = lambda params, _: (jax.tree.map(lambda p, g: p - 1.0 * g, params, jax.grad(loss)(params)), None)
    params = jax.jit(lambda p: jax.lax.scan(descend, p, length=500)[0])(params)
    right = int((jnp.argmax(model.apply(params, stats, images)[0], -1) == labels).sum())
    assert right == 4 if (name, gate) != ("perceptron", "xor") else right < 4


def test_no_classes_and_images_of_another_size_and_no_key_are_told():
    with pytest.raises(UserError, match="num_classes=0: must be at least 1"):
        models.create("mlp", 0)
    model = models.create("mlp", 3, dropout=0.5)
    params, stats = model.init(jax.random.key(0), images(1))
    with pytest.raises(UserError, match="mlp: images of 16x16x3 are not of the size"):
        model.apply(params, stats, images(1, 16))
    with pytest.raises(UserError, match="mlp: training draws random numbers: give apply a key"):
        model.apply(params, stats, images(1), train=True)


def test_bytes_are_numbers_to_a_net():
    model = models.create("mlp", 3)
    pixels = jnp.arange(192, dtype=jnp.uint8).reshape(1, 8, 8, 3)
    params, stats = model.init(jax.random.key(0), pixels)
    logits, _ = model.apply(params, stats, pixels)
    assert np.ptp(logits) > 1 and np.array_equal(logits, model.apply(params, stats, pixels.astype(jnp.float32))[0])


@pytest.mark.parametrize("name", ["resnet20", "lenet5", "autoencoder"])
def test_parameters_drawn_without_a_forward_pass_are_flax_s_own(name):
    x = images(1, 28)[..., :1]
    params, _ = models.create(name).init(jax.random.key(3), x)
    net = models.MODELS[name].build(10)
    jax.tree.map(np.testing.assert_array_equal, params, net.init(jax.random.key(3), x, train=False)["params"])


def test_width_is_of_every_layer_but_the_last():
    params = jax.eval_shape(models.create("vgg_a", 5, width=0.25).init, jax.random.key(0), images(1, 32))[0]
    assert params["conv1_1"]["kernel"].shape == (3, 3, 3, 16) and params["conv5_2"]["kernel"].shape[-1] == 128
    assert params["fc7"]["kernel"].shape == (1024, 1024) and params["fc8"]["kernel"].shape == (1024, 5)


def test_a_deviation_that_an_option_undoes_is_not_told():
    words = lambda name, **options: " ".join(models.deviations(name, **options))
    assert "biases" in words("alexnet") and "biases" in words("alexnet", initial_bias=0.1)
    assert "biases" not in words("alexnet", initial_bias=1.0)
    assert "He's" in words("googlenet", initializer="paper") and "He's" not in words("googlenet", initializer="xavier")
    assert "LRN's" not in words("googlenet", norm="none") and "0.001" not in words("inception_v3", norm="none")
    assert "whole batch" in words("resnet20") and "whole batch" not in words("resnet20", bn_group=64)
    assert "rubbish" in words("lenet5", rubbish=None) and "rubbish" not in words("lenet5", rubbish=100.0)


def test_lenet5_is_scored_by_the_map_criterion():
    logits, labels = -jnp.array([[1.0, 3.0], [40.0, 1.0]]), jnp.array([0, 0])
    for given, j in ((None, jnp.inf), (4.0, 4.0)):
        options = {} if given is None else {"rubbish": given}
        loss, error = models.create("lenet5", 2, **options).score(logits, None, labels)
        np.testing.assert_allclose(loss, lenet.map_loss(-logits, labels, j), rtol=1e-6)
        assert error.tolist() == [False, True]
