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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn-jax/cnn_jax/blob/main/notebooks/your_own_data.ipynb)
#
# # Your own data
#
# A folder of images: look at it, train on it, fine-tune public weights, evaluate by the papers' protocols,
# and find images that look alike.

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

# %% [markdown]
# ## The folder
#
# A folder of class folders is all that is needed: `images/cat/1.jpg`, `images/dog/7.png`. This cell makes one
# from scikit-learn's two photographs, patches of them, so that the notebook needs no download. Put the path
# of your own folder in its place.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

FOLDER = Path("images")
draw = np.random.default_rng(0)
for name, photograph in zip(("temple", "flower"), load_sample_images().images):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)
    for number in range(20 if SMOKE else 120):
        side = int(draw.integers(80, 160))
        top = int(draw.integers(0, photograph.shape[0] - side))
        left = int(draw.integers(0, photograph.shape[1] - side))
        patch = Image.fromarray(photograph[top : top + side, left : left + side])
        patch.save(FOLDER / name / f"{number:03}.jpg")
print({folder.name: len(list(folder.iterdir())) for folder in sorted(FOLDER.iterdir())})

# %% [markdown]
# ## What a run will see
#
# `--data=folder:PATH` on the command line, `dataset=choose("folder", path=...)` here. Images are scaled to a
# random shorter side, and a square is cut out. Every fifth image of a class is a test image.

# %%
from IPython.display import display

from cnn_jax import Data, Experiment, Train, choose, train
from cnn_jax.data import inspect

settings = Data(
    dataset=choose("folder", path=str(FOLDER)),
    batch_size=32,
    train_resize=(40, 56),
    eval_resize=48,
    image_size=32,
    pad_and_crop=0,
    flip=True,
)
figure = inspect.draw_crops({"training images": settings})
figure.set_dpi(80)
display(figure)

# %% [markdown]
# ## Train from scratch

# %%
experiment = Experiment(
    name="small",
    data=settings,
    model=choose("resnet20", width=0.5),
    optimizer=choose("sgd", momentum=0.9, weight_decay=1e-4),
    schedule=choose("cosine", base=0.05),
    train=Train(
        steps=2 if SMOKE else 60, eval_every=2 if SMOKE else 20, log_every=2 if SMOKE else 10
    ),
)
result = train.run(experiment, "runs/your_own_data")
print(f"top-1 error {result['top1_error']:.2%} of {result['images']} test images")

# %% [markdown]
# ## Evaluation protocols
#
# The same weights, scored by one view, by ten crops (Krizhevsky et al. 2012) and densely (Simonyan, Zisserman
# 2014).

# %%
from cnn_jax.evaluation.evaluate import evaluate_run
from cnn_jax.evaluation.evaluation_file import format_evaluation

folder = Path("runs/your_own_data/small/seed0")
protocols = [choose("single"), choose("ten_crop")]
for evaluation in evaluate_run(folder, protocols).values():
    print(format_evaluation("small", evaluation))

# %% [markdown]
# ## Fine-tune public weights
#
# `pretrained.load` reads files of torchvision, timm and Keras. `WEIGHTS` may be an address; here the file has
# random values unless `DOWNLOAD` is set, so that the notebook runs without a network.

# %%
import dataclasses

import jax
import jax.numpy as jnp
import optax

from cnn_jax import models, pretrained

DOWNLOAD = False
WEIGHTS = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
if not DOWNLOAD:
    WEIGHTS = "random.safetensors"
    model = models.create("resnet18", num_classes=1000)
    params, stats = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    recipe = pretrained.preprocessing.TORCHVISION
    pretrained.save(WEIGHTS, "resnet18", params, stats, 1000, recipe)

loaded = pretrained.load("resnet18", WEIGHTS)
start = pretrained.replace_head("resnet18", loaded.params, jax.random.key(1), num_classes=2)
model = models.create("resnet18", num_classes=2, **loaded.options)
recipe = dataclasses.replace(loaded.preprocessing, resize=0, crop=32)

# %% [markdown]
# Only the head and the last stage are trained; `set_to_zero` freezes the rest.

# %%
mask = pretrained.make_trainable_mask(start, ["head/*", "stage4_block*/*"])
optimizer = optax.multi_transform(
    {True: optax.sgd(0.01, momentum=0.9), False: optax.set_to_zero()}, mask
)


@jax.jit
def step(params, stats, state, images, labels):
    def compute_loss(params):
        logits, moved = model.apply(params, stats, recipe.apply(images), train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved

    (loss, stats), gradients = jax.value_and_grad(compute_loss, has_aux=True)(params)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), stats, state, loss


images, labels = [], []
for label, name in enumerate(("flower", "temple")):
    for path in sorted((FOLDER / name).glob("*.jpg")):
        images.append(np.asarray(Image.open(path).convert("RGB").resize((32, 32))))
        labels.append(label)
images, labels = np.stack(images), np.array(labels)
params, stats, state, losses = start, loaded.stats, optimizer.init(start), []
for _ in range(2 if SMOKE else 20):
    chosen = draw.choice(len(labels), 32, replace=False)
    params, stats, state, loss = step(params, stats, state, images[chosen], labels[chosen])
    losses.append(float(loss))
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
figure, axis = plt.subplots(figsize=(4, 2), dpi=80)
axis.plot(losses)
axis.set(xlabel="step", ylabel="training loss", ylim=(0, None))
plt.show()

# %% [markdown]
# ## Retrieval
#
# The activations before the head are a code of the image; the nearest codes are the images that look alike.
# The measure is over all images as queries, each against all others.

# %%
from cnn_jax.evaluation.retrieval import codes, measures, search

layer = codes.choose_layer(model, params, stats, (32, 32, 3))
encode = codes.make_encoder(model, params, stats, layer, recipe.normalize)
vectors = codes.encode_images(encode, images)
rows = np.arange(len(images))
neighbors = search.search(vectors, vectors, k=5, own_rows=rows)
found = measures.measure_queries(vectors, labels, vectors, labels, own_rows=rows)
summary = measures.summarize(found, labels, num_classes=2)
print(f"layer {layer.name}, codes of {vectors.shape[1]} numbers")
print(f"mean average precision {summary.mean_average_precision:.3f}")
print(f"precision at 10 {summary.precision_at_10:.3f}")

# %% [markdown]
# Three queries and what they find. A full frame marks an image of the query's class.

# %%
from cnn_jax.report.figures.galleries import GalleryRow, Neighbor, draw_gallery

classes = ("flower", "temple")
gallery = []
for query in (0, len(images) // 2, len(images) - 1):
    nearest = [
        Neighbor(images[row], classes[labels[row]], bool(labels[row] == labels[query]))
        for row in neighbors.index[query]
    ]
    gallery.append(GalleryRow(images[query], classes[labels[query]], nearest))
figure = draw_gallery(gallery)
figure.set_dpi(80)
display(figure)

# %% [markdown]
# ## Give the weights away
#
# `pretrained.save(..., format="torchvision")` writes a file for PyTorch; `format="timm"` and `format="keras"`
# likewise. A finished run becomes a StableHLO program with a model card by
# `python -m cnn_jax.export RUN --out=DIR`.

# %%
if not SMOKE:
    pretrained.save(
        "mine.pth", "resnet18", params, stats, 2, recipe, loaded.options, format="torchvision"
    )
    print(f"mine.pth: {Path('mine.pth').stat().st_size:,} bytes")
