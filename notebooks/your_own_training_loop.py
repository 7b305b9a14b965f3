# ---
# jupyter:
#   accelerator: None
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn-jax/cnn_jax/blob/main/notebooks/your_own_training_loop.ipynb)
#
# # Your own training loop
#
# The library's parts in a plain JAX loop: a model as pure functions, an optax optimizer, augmentation,
# evaluation protocols, and several devices by `jit` and by `pmap`.

# %%
# Installs the project, and leaves JAX and its plugin as the runtime has them.
import importlib.metadata
import importlib.util
import os
import subprocess
import sys

found = importlib.util.find_spec("jax")
jax_before = importlib.metadata.version("jax") if found else None
if importlib.util.find_spec("cnn_jax") is None:
    packages = ["cnn_jax[data] @ git+https://github.com/cnn-jax/cnn_jax"]
    packages += [f"jax=={jax_before}"] if found else []
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], check=True)

from cnn_jax import cpu, notebook

cpu.configure()  # Before JAX starts: it makes convolutions fast on a CPU.
notebook.check_runtime(jax_before)
SMOKE = os.environ.get("CNN_JAX_SMOKE") == "1"  # Tests run a short form of each notebook.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from cnn_jax import Data, choose, data, models
from cnn_jax.data import augment

# %% [markdown]
# ## Data and model
#
# `load_dataset` returns arrays in memory. `models.create` returns three functions: `init`, `apply` and
# `features`. Parameters and batch norm's statistics are ordinary trees of arrays.

# %%
digits = data.load_dataset(Data(dataset=choose("digits")))
train_images, train_labels = (jnp.asarray(x) for x in digits.train)  # [N, 8, 8, 1] uint8, [N]
test_images, test_labels = (jnp.asarray(x) for x in digits.test)
mean = train_images.astype(jnp.float32).mean(0, keepdims=True)

model = models.create("resnet20", num_classes=10, width=0.25)
params, stats = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
print(f"{sum(x.size for x in jax.tree.leaves(params)):,} parameters")

# %% [markdown]
# ## The step
#
# Augmentations take a key for each image. `make_row_keys` makes them from the step's key and the image's row
# in the whole batch, so that the images do not depend on how the batch is split over devices.

# %%
rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, 20, 40 if SMOKE else 200)
optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(rate, momentum=0.9))


def prepare(images):
    return (images.astype(jnp.float32) - mean) / 255


def compute_loss(params, stats, images, labels):
    logits, stats = model.apply(params, stats, images, train=True)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, stats


def train_step(state, key, rows, images, labels):
    """One step; rows: each image's place in the whole batch."""
    params, stats, optimizer_state = state
    images = augment.pad_and_crop(augment.make_row_keys(key, rows), prepare(images), 1)
    gradient = jax.value_and_grad(compute_loss, has_aux=True)
    (loss, stats), gradients = gradient(params, stats, images, labels)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
    return (optax.apply_updates(params, updates), stats, optimizer_state), loss


# %% [markdown]
# ## Train
#
# `jit` compiles the step for all devices: the batch is sharded over them, the state is replicated, and the
# compiler adds the communication. On one device nothing changes.

# %%
from jax.sharding import Mesh, NamedSharding, PartitionSpec

mesh = Mesh(np.array(jax.devices()), ("batch",))
split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
compiled_step = jax.jit(train_step, donate_argnums=0)

state = jax.device_put((params, stats, optimizer.init(params)), whole)
rows = jax.device_put(jnp.arange(128), split)
draw, losses = np.random.default_rng(0), []
for number in range(4 if SMOKE else 200):
    chosen = draw.choice(len(train_labels), 128, replace=False)
    batch = jax.device_put((train_images[chosen], train_labels[chosen]), split)
    key = jax.random.fold_in(jax.random.key(1), number)
    state, loss = compiled_step(state, key, rows, *batch)
    losses.append(loss)  # Stays on the device: the loop does not wait for it.
losses = np.array([float(loss) for loss in losses])
print(f"loss {losses[0]:.3f} -> {losses[-5:].mean():.3f} on {len(jax.devices())} device(s)")

figure, axis = plt.subplots(figsize=(5, 2.5), dpi=72)
axis.semilogy(losses)
axis.set(xlabel="step", ylabel="training loss")
plt.show()

# %% [markdown]
# ## Evaluate
#
# Every image counts once. Here the test images fit into one batch.

# %%
params, stats, _ = state
logits, _ = jax.jit(model.apply)(params, stats, prepare(test_images))
error = float((logits.argmax(-1) != test_labels).mean())
print(f"top-1 error {error:.2%} of {len(test_labels)} test images")

# %% [markdown]
# A protocol of several views by hand: nine shifts of one pixel, averaged after the softmax. The
# protocols of the papers are in `cnn_jax.evaluation.protocols`.

# %%
padded = jnp.pad(prepare(test_images), ((0, 0), (1, 1), (1, 1), (0, 0)))
views = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
apply = jax.jit(model.apply)
scores = sum(jax.nn.softmax(apply(params, stats, view)[0]) for view in views)
error = float((scores.argmax(-1) != test_labels).mean())
print(f"top-1 error {error:.2%} with nine views")

# %% [markdown]
# ## Several devices by pmap
#
# `pmap` is the older form: each device runs the program on its own part, and the means over devices are
# written down. Since JAX 0.8 it is a wrapper around `jit`; use it to understand, and `jit` to work. A
# model that is told the axis takes batch norm's statistics over the whole batch.

# %%
count = len(jax.devices())
parallel_model = models.create("resnet20", num_classes=10, width=0.25, axis="devices")


def compute_parallel_loss(params, stats, images, labels):
    logits, stats = parallel_model.apply(params, stats, images, train=True)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, stats


def parallel_step(params, stats, images, labels):
    gradient = jax.value_and_grad(compute_parallel_loss, has_aux=True)
    (loss, stats), gradients = gradient(params, stats, images, labels)
    return jax.lax.pmean((loss, gradients), "devices")


images, labels = train_images[:128], train_labels[:128]
parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), (prepare(images), labels))
loss, gradients = jax.pmap(parallel_step, "devices", in_axes=(None, None, 0, 0))(
    params, stats, *parts
)
(expected, _), wanted = jax.jit(jax.value_and_grad(compute_loss, has_aux=True))(
    params, stats, prepare(images), labels
)
difference = max(
    float(abs(a[0] - b).max()) for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted))
)
print(f"loss {float(loss[0]):.6f} by pmap, {float(expected):.6f} by jit")
print(f"largest difference of a gradient: {difference:.1e}")
assert difference < 1e-3
