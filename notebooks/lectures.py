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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn-jax/cnn_jax/blob/main/notebooks/lectures.ipynb)
#
# # The lectures' topics
#
# What courses on convolutional networks teach, one topic after another, each with the few lines that show it.
# Commands in the table run whole studies; `python launch.py --list` says what they cost.
#
# | topic | section | command | picture |
# |---|---|---|---|
# | convolution, cross-correlation, fixed kernels | 1 | | filtered digit |
# | output size, padding, stride, dilation | 2 | `--experiment=conv_arithmetic` | |
# | transposed convolution, unpooling | 3 | | |
# | separable convolution, 1x1, stacked 3x3 | 4 | `--experiment=conv_arithmetic`, `=kernel_size` | bars of costs |
# | pooling, shift invariance | 5 | `--experiment=pooling` | pooled maps |
# | gradients of convolution and pooling | 6 | | |
# | local response and batch normalization | 7 | `--experiment=batch_norm`, `=lrn` | |
# | activations | 8 | `--experiment=activations` | curves |
# | initialization | 9 | `--experiment=initialization` | standard deviations by depth |
# | loss, weight decay, dropout | 10 | `--experiment=regularization` | |
# | optimizers and schedules | 11 | `--experiment=optimizers`, `=learning_rate` | rates |
# | early stopping | 12 | `--set train.stop_after=5` | |
# | augmentation | 13 | `--experiment=augmentation` | augmented digits |
# | the models of the papers | 14 | `--summary=all` | |
# | residual learning | 15 | `--experiment=resnet_degradation` | error curves |
# | evaluation protocols | 16 | `--experiment=ten_crop` | |
# | looking inside | 17 | `--visualize=RUN`, `--experiment=feature_visualization` | filters and maps |
# | retrieval | 18 | `--experiment=image_retrieval` | nearest images |

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
import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from cnn_jax import Data, choose, data

plt.rcParams.update({"figure.dpi": 60, "image.cmap": "gray", "font.size": 8})
digits = data.load_dataset(Data(dataset=choose("digits")))
image = jnp.asarray(digits.train.images[:1], jnp.float32) / 255  # [1, 8, 8, 1]


def show(pictures, titles=None, columns=8):
    _, axes = plt.subplots(1, len(pictures), figsize=(1.4 * len(pictures), 1.6), squeeze=False)
    for number, (axis, picture) in enumerate(zip(axes[0], pictures)):
        axis.imshow(np.asarray(picture).squeeze())
        axis.set_title(titles[number] if titles else "")
        axis.axis("off")
    plt.show()


# %% [markdown]
# ## 1 Convolution and cross-correlation
#
# What networks call a convolution is a cross-correlation: the kernel is not turned. Turning it by 180 degrees
# gives the convolution of signal processing. For trained kernels the difference is one of names.

# %%
from scipy import signal

from cnn_jax.layers.conv import NHWC

kernels = {
    "edges": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "sharper": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "blurred": (np.outer([1, 2, 1], [1, 2, 1]) / 16).tolist(),
    "vertical": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
}


def correlate(x, kernel, stride=1, padding="SAME"):
    kernel = jnp.asarray(kernel, jnp.float32)[:, :, None, None]
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC)


asymmetric = np.array(kernels["vertical"], np.float32)
ours = correlate(image, asymmetric, padding="VALID")[0, ..., 0]
np.testing.assert_allclose(ours, signal.correlate(image[0, ..., 0], asymmetric, "valid"), atol=1e-6)
turned = correlate(image, asymmetric[::-1, ::-1], padding="VALID")[0, ..., 0]
np.testing.assert_allclose(
    turned, signal.convolve(image[0, ..., 0], asymmetric, "valid"), atol=1e-6
)
show([image, *(correlate(image, k) for k in kernels.values())], ["digit", *kernels])

# %% [markdown]
# ## 2 Output size
#
# (n - k + 2p) / s + 1, rounded down; a kernel with dilation d spans k + (k - 1)(d - 1) pixels.

# %%
from cnn_jax.layers.sizes import compute_effective_size, compute_output_size

print("11x11, stride 4 on 227:", compute_output_size(227, 11, stride=4))
print("7x7, stride 2, padding 3 on 224:", compute_output_size(224, 7, stride=2, padding=3))
print("3x3 with dilation 2 spans", compute_effective_size(3, 2), "pixels")

# %% [markdown]
# ## 3 Transposed convolution and unpooling
#
# A convolution is a product with a matrix C; the transposed convolution is the product with its transpose. It
# is the same as inserting zeros and convolving: a fractionally strided convolution.

# %%
from cnn_jax.layers import spatial

kernel = jax.random.normal(jax.random.key(0), (3, 3, 1, 1))
matrix = spatial.make_convolution_matrix(kernel, (8, 8), stride=2, padding=1)  # [4 * 4, 8 * 8]
small = matrix @ image.reshape(-1)
back = spatial.apply_transposed_convolution(small.reshape(1, 4, 4, 1), kernel, (8, 8), 2, 1)
np.testing.assert_allclose(back.reshape(-1), matrix.T @ small, atol=1e-5)
pooled, switches = spatial.max_pool_with_switches(image, 2, 2)
show(
    [image, small.reshape(4, 4), back, pooled, spatial.max_unpool(pooled, switches, (8, 8))],
    ["digit", "convolved", "transposed", "max pooled", "unpooled"],
)

# %% [markdown]
# ## 4 What a choice of kernels costs
#
# Two 3x3 convolutions see what a 5x5 sees, with fewer weights and one nonlinearity more; a 1x1 before a 5x5
# saves most of it; a spatially separable 3x3 is 3x1 and then 1x3.

# %%
weights = {
    "5x5": 25 * 128 * 128,
    "two 3x3": 2 * 9 * 128 * 128,
    "1x1 to 32, then 5x5": 128 * 32 + 25 * 32 * 128,
    "3x1, then 1x3": 2 * 3 * 128 * 128,
}
figure, axis = plt.subplots(figsize=(5, 1.8))
axis.barh(list(weights), list(weights.values()))
axis.set_xlabel("weights, 128 maps to 128 maps")
plt.show()

# %% [markdown]
# ## 5 Pooling
#
# A maximum keeps the strongest response, an average the mean; windows that overlap are larger than their
# stride. Below, how much of the map changes when the image moves by one pixel.

# %%
from cnn_jax.layers.pooling import avg_pool, max_pool

maps = jax.nn.relu(correlate(image, kernels["edges"]))
moved = jax.nn.relu(correlate(jnp.roll(image, 1, axis=2), kernels["edges"]))
poolings = {
    "none": lambda x: x,
    "max 2/2": lambda x: max_pool(x, 2, 2),
    "max 3/2": lambda x: max_pool(x, 3, 2),
    "average 2/2": lambda x: avg_pool(x, 2, 2),
}
for name, pool in poolings.items():
    change = jnp.linalg.norm(pool(moved) - pool(maps)) / jnp.linalg.norm(pool(maps))
    print(f"{name:12} changes by {float(change):.2f} of its length")
show([pool(maps) for pool in poolings.values()], list(poolings))

# %% [markdown]
# ## 6 Gradients
#
# The gradient of a convolution with respect to its input is the full correlation of the output's gradient with
# the turned kernel; with respect to the kernel it is the correlation of the input with that gradient. Max pooling
# sends each gradient to the pixel that was the maximum.

# %%
kernel = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
delta = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)


def weigh(x, k):
    return (correlate(x, k, padding="VALID")[0, ..., 0] * delta).sum()


to_image, to_kernel = jax.grad(weigh, (0, 1))(image, jnp.asarray(kernel))
full = signal.correlate(delta, kernel[::-1, ::-1], "full")
np.testing.assert_allclose(to_image[0, ..., 0], full, atol=1e-5)
np.testing.assert_allclose(to_kernel, signal.correlate(image[0, ..., 0], delta, "valid"), atol=1e-5)
routed = jax.grad(lambda x: max_pool(x, 2, 2).sum())(image)
show(
    [image, to_image, to_kernel, routed], ["digit", "to the input", "to the kernel", "max pooling"]
)

# %% [markdown]
# ## 7 Normalization
#
# Local response normalization divides by what neighboring maps answer at the same place. Batch normalization
# takes mean and variance of each map over the batch and all places: n h w values.

# %%
from cnn_jax.layers.batch_norm import normalize
from cnn_jax.layers.lrn import apply_local_response_norm

x = 3 + 2 * jax.random.normal(jax.random.key(0), (16, 8, 8, 4))
y, *_ = normalize(x, jnp.ones(4), jnp.zeros(4), 0, None, 1e-5)
print("batch norm, mean and deviation of each map:", y.mean((0, 1, 2)), y.std((0, 1, 2)))
loud = jnp.ones((1, 1, 1, 8)).at[..., 3].set(100.0)
print("beside a loud map:", np.round(np.asarray(apply_local_response_norm(loud))[0, 0, 0], 2))

# %% [markdown]
# ## 8 Activations

# %%
from cnn_jax.layers.activations import scaled_tanh

grid = jnp.linspace(-3, 3, 121)
functions = {"sigmoid": jax.nn.sigmoid, "1.7159 tanh(2x/3)": scaled_tanh, "ReLU": jax.nn.relu}
figure, axes = plt.subplots(1, 2, figsize=(6, 2))
for name, function in functions.items():
    axes[0].plot(grid, function(grid), label=name)
    axes[1].plot(grid, jax.vmap(jax.grad(function))(grid))
axes[0].legend()
axes[0].set_title("activation")
axes[1].set_title("its derivative")
plt.show()

# %% [markdown]
# ## 9 Initialization
#
# Xavier's variance 1 / n_in keeps a linear layer's variance, He's 2 / n_in that of a layer with ReLU. Thirty
# layers of ReLU show the difference.

# %%
from cnn_jax.layers.initializers import fan_in_normal

figure, axis = plt.subplots(figsize=(5, 2))
for name, gain in {"Xavier, 1 / n": 1.0, "He, 2 / n": 2.0}.items():
    x, deviations = jax.random.normal(jax.random.key(0), (256, 256)), []
    for number in range(5 if SMOKE else 30):
        w = fan_in_normal(gain)(jax.random.key(number + 1), (256, 256), jnp.float32)
        x = jax.nn.relu(x @ w)
        deviations.append(float(x.std()))
    axis.semilogy(deviations, label=name)
axis.set(xlabel="layer", ylabel="standard deviation")
axis.legend()
plt.show()

# %% [markdown]
# ## 10 Loss, weight decay, dropout
#
# The cross-entropy of a label is minus the logarithm of its probability; it is the Kullback-Leibler divergence
# from the label's distribution plus a constant. L2 adds lambda w to the gradient, L1 lambda sign(w). Dropout
# scales up what it keeps.

# %%
logits, label = jnp.array([2.0, 0.5, -1.0]), 0
loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
print(f"loss {float(loss):.4f} = -log p = {float(-jnp.log(jax.nn.softmax(logits)[label])):.4f}")
w = jnp.array([1.0, -2.0])
print(
    "L2:",
    jax.grad(lambda w: 0.5 * 0.1 * (w**2).sum())(w),
    "L1:",
    jax.grad(lambda w: 0.1 * abs(w).sum())(w),
)
dropped = nn.Dropout(0.5, deterministic=False).apply(
    {}, jnp.ones(8), rngs={"dropout": jax.random.key(0)}
)
print("dropout of ones:", dropped)

# %% [markdown]
# ## 11 Optimizers and schedules
#
# Names and arguments, as in `--set optimizer=adam --set schedule=cosine`.

# %%
from cnn_jax.optim import OPTIMIZERS, SCHEDULES, make_optimizer
from cnn_jax.optim.schedules import read_current_rate

print("optimizers:", ", ".join(OPTIMIZERS))
print("schedules:", ", ".join(SCHEDULES))
schedules = {
    "step": choose("step", base=0.1, boundaries=(40, 80)),
    "exponential": choose("exponential", base=0.1, rate=0.03),
    "1 / t": choose("inverse_time", base=0.1, rate=0.05),
    "cosine": choose("cosine", base=0.1),
}
figure, axis = plt.subplots(figsize=(5, 2))
for name, schedule in schedules.items():
    optimizer = make_optimizer(choose("sgd"), schedule, 120)
    state, rates = optimizer.init(jnp.zeros(1)), []
    for _ in range(5 if SMOKE else 120):
        rates.append(float(read_current_rate(state)))
        _, state = optimizer.update(jnp.zeros(1), state, jnp.zeros(1), value=1.0)
    axis.plot(rates, label=name)
axis.set(xlabel="step", ylabel="learning rate")
axis.legend()
plt.show()

# %% [markdown]
# ## 12 Early stopping
#
# `--set data.validation_images=200 --set train.stop_after=5` holds out training images and ends a run when
# their error has not fallen for five evaluations; the best state is kept. The test images choose nothing.

# %% [markdown]
# ## 13 Augmentation

# %%
from cnn_jax.data import augment

batch = jnp.asarray(digits.train.images[:1], jnp.float32).repeat(4, 0) / 255
keys = augment.make_row_keys(jax.random.key(0), jnp.arange(4))
changed = {
    "shift": augment.shift(keys, batch, 2),
    "rotate": augment.rotate(keys, batch, 30),
    "flip": augment.flip(keys, batch),
    "noise": augment.add_noise(keys, batch, 0.2),
}
for name, pictures in changed.items():
    show([batch[0], *pictures], ["digit", name, "", "", ""])

# %% [markdown]
# ## 14 The papers' models
#
# Parameters and multiply-adds are counted on the models and agree with the papers'.

# %%
from cnn_jax.cost.summary import summarize_model

for name in ("lenet5", "alexnet", "vgg_d", "googlenet", "resnet50"):
    total = summarize_model(name).total
    print(f"{name:10} {total.parameters:>12,} parameters {total.multiply_adds:>15,} multiply-adds")

# %% [markdown]
# ## 15 Residual learning
#
# A block adds its input to what its layers compute, so that its layers learn a difference. Plain and residual
# networks of the same layers, a few steps each; the study `resnet_degradation` compares them over seeds.

# %%
from pathlib import Path

from cnn_jax import Experiment, Train, train
from cnn_jax.training.metrics_log import read_events

figure, axis = plt.subplots(figsize=(5, 2.2))
for name in ("plain20", "resnet20"):
    experiment = Experiment(
        name=name,
        data=Data(dataset=choose("digits"), pad_and_crop=1, flip=False),
        model=choose(name, width=0.25),
        optimizer=choose("sgd", momentum=0.9),
        schedule=choose("constant", base=0.02),
        train=Train(steps=2 if SMOKE else 150, log_every=1 if SMOKE else 10, eval_every=150),
    )
    train.run(experiment, "runs/lectures")
    events = read_events(Path("runs/lectures") / name / "seed0")
    events = [event for event in events if event["event"] == "train"]
    axis.plot([e["step"] for e in events], [100 * e["top1_error"] for e in events], label=name)
axis.set(xlabel="step", ylabel="training error (%)")
axis.legend()
plt.show()

# %% [markdown]
# ## 16 Evaluation protocols

# %%
from cnn_jax.evaluation.protocols import describe_protocols

for name, words in describe_protocols():
    print(f"{name:12} {words}")

# %% [markdown]
# ## 17 Looking inside
#
# The filters of the first convolution, the strongest feature maps, and which pixels the answer depends on. Each
# function of `visualize` is one method of the lectures, for any model; `plot` draws what it returns. The page
# of `--visualize` has all of them, each beside the same map of a network with random weights.

# %%
from IPython.display import display

from cnn_jax import trained, visualize
from cnn_jax.visualize import plot

loaded = trained.load("runs/lectures/resnet20")
pixels, labels = digits.test.images[:5], digits.test.labels[:5]
weights = (loaded.model, loaded.params, loaded.stats)
images = loaded.prepare(pixels)


def draw(figure):
    figure.set_dpi(80)
    display(figure)


draw(plot.plot_filters(visualize.find_first_filters(*weights, loaded.image_shape)))
features = loaded.model.features(loaded.params, loaded.stats, images)
draw(plot.plot_feature_maps({name: features[name] for name in ("stem", "stage1", "stage2")}))

# %%
given = (*weights, images, labels)
maps = {
    "saliency": visualize.compute_saliency(*given),
    "guided\nbackpropagation": visualize.compute_guided_backprop(*given),
    "integrated\ngradients": visualize.integrate_gradients(*given).attributions,
    "Grad-CAM of\nstage 1": visualize.compute_grad_cam(*given, "stage1").maps,
}
draw(plot.plot_maps(pixels, maps, [f"a {label}" for label in labels]))

# %% [markdown]
# Does the answer survive a gray square? ZFNet's occlusion maps, and an image that each class likes best:

# %%
occlusion = visualize.occlude(*given, "stage1", side=2, stride=1)
draw(plot.plot_occlusion(pixels, occlusion, [f"a {label}" for label in labels]))
classes = jnp.arange(10)
found = visualize.maximize_class(*weights, classes, loaded.image_shape, jax.random.key(0))
draw(plot.plot_images({"": loaded.restore(found.images)}, [f"a {label}" for label in classes]))

# %% [markdown]
# ## 18 Retrieval
#
# The activations before the logits are a code of the image; the nearest codes are images that look alike to the
# model.

# %%
from cnn_jax.evaluation.retrieval import codes, search

encode = codes.make_trained_encoder(loaded, codes.find_layer(loaded))
gallery = codes.encode_images(encode, digits.train.images)
query = codes.encode_images(encode, digits.test.images[:1])
nearest = search.search(gallery, query, k=6).index[0]
show(
    [digits.test.images[0], *digits.train.images[nearest]],
    ["query", *map(str, digits.train.labels[nearest])],
)
