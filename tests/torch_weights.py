"""Random weights for our nets, and the same weights in nets of torch.nn."""

import math

import flax.traverse_util
import jax
import numpy as np
import torch

torch.set_num_threads(1)  # Its threads wait busily, in the way of XLA's and of the other test process.
NAMES = {"kernel": "weight", "scale": "weight", "coefficient": "weight", "mean": "running_mean", "var": "running_var"}
# XLA at its least: one run of each net is not worth an optimised one.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def images(shape, count, scale=1.0):
    """[count, H, W, C] images about as large as scale; those of one channel are of 0 to 1."""
    rng = np.random.default_rng(1)
    if shape[-1] == 1:
        return rng.uniform(0, 1, (count, *shape)).astype(np.float32)
    return rng.standard_normal((count, *shape), np.float32) * np.float32(scale)


def to_torch(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def drawn(model, shape, scale=1.0, shift=0.0):
    """Parameters and statistics for images [H, W, C] about as large as scale; none of them is 0 or 1.

    shift: of batch norm; 1 keeps most units alive, and with them rounding errors from growing with depth.
    """
    trees = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        uniform = rng.random(leaf.shape, np.float32) - np.float32(0.5)
        name = path[-1].key
        if name == "kernel":  # of He's variance, so that activations keep their size
            return uniform * np.float32(math.sqrt(12 * 2 / math.prod(leaf.shape[:-1])))
        if name in ("scale", "var", "coefficient"):
            return uniform + 1
        return uniform * np.float32(0.3 * scale) + np.float32(shift if "norm" in path[-2].key else 0)

    return jax.tree_util.tree_map_with_path(draw, trees)


def flat(*trees):
    """Ours as torch has them, {module.weight: tensor}; kernels become [out, in, h, w], [out, in] or [number, h, w]."""
    tensors = {}
    for tree in trees:
        for (*path, name), leaf in flax.traverse_util.flatten_dict(tree).items():
            leaf, key = np.asarray(leaf), ".".join([*path, NAMES.get(name, name)])
            if name == "kernel":
                leaf = np.moveaxis(leaf, (-1, -2), (0, 1)) if leaf.ndim in (2, 4) else np.moveaxis(leaf, -1, 0)
            assert key not in tensors
            tensors[key] = torch.from_numpy(np.array(leaf))
    return tensors


def loaded(make, params, stats):
    """The net that make() builds, in test mode, with our weights: each in one place, no place without."""
    with torch.device("meta"):  # which saves drawing its own
        net = make()
    missing, unexpected = net.load_state_dict(flat(params, stats), strict=False, assign=True)  # raises for a shape
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return net.eval()


def settle(net, stats, x):
    """Our stats near what the net's batch norms see of x; it gets them too. Else activations of a deep net explode."""
    rng, norms = np.random.default_rng(2), [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    def near(norm, inputs):
        size, maps = float(inputs[0].square().mean()), norm.num_features
        off = torch.from_numpy(rng.standard_normal(maps, np.float32) * 0.3 * size**0.5)
        norm.running_mean = 0.25 * inputs[0].mean((0, 2, 3)) + off
        norm.running_var = torch.from_numpy((rng.random(maps, np.float32) + 0.5) * size)

    hooks = [norm.register_forward_pre_hook(near) for norm in norms]
    with torch.no_grad():
        net(to_torch(x))
    for hook in hooks:
        hook.remove()
    seen = net.state_dict()
    name = lambda path: ".".join([*(key.key for key in path[:-1]), NAMES[path[-1].key]])
    return jax.tree_util.tree_map_with_path(lambda path, _: seen[name(path)].numpy().copy(), stats)


def difference(ours, theirs):
    """The largest difference, in parts of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()
