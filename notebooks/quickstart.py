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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn-jax/cnn_jax/blob/main/notebooks/quickstart.ipynb)
#
# # Quickstart
#
# Train a small residual network on real digits, watch its curves, evaluate it and look inside. It
# takes about two minutes on a CPU.

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
# ## Train
#
# An experiment is a value: a model, a data set, an optimizer, a schedule and the training settings. This
# one is ResNet-20 of He et al. 2015 with a quarter of its channels, on scikit-learn's handwritten digits.

# %%
from pathlib import Path

from cnn_jax import Data, Experiment, Train, choose, train

experiment = Experiment(
    name="resnet-20",
    data=Data(dataset=choose("digits"), batch_size=128, pad_and_crop=1, flip=False),
    model=choose("resnet20", width=0.25),
    optimizer=choose("sgd", momentum=0.9, weight_decay=1e-4),
    schedule=choose("step", base=0.1, boundaries=(200,)),
    train=Train(
        steps=4 if SMOKE else 300, log_every=2 if SMOKE else 10, eval_every=2 if SMOKE else 50
    ),
)
result = train.run(experiment, "runs/quickstart")
print(f"top-1 error {result['top1_error']:.2%} of {result['images']} test images")

# %% [markdown]
# If you stop the cell and run it again, the run continues from its last checkpoint. A finished run is
# not trained again.

# %% [markdown]
# ## Curves
#
# The run's folder holds `config.json`, `metrics.jsonl`, checkpoints and TensorBoard's files.

# %%
import matplotlib.pyplot as plt

from cnn_jax.training.metrics_log import read_events

folder = Path("runs/quickstart/resnet-20/seed0")
events = read_events(folder)
figure, axis = plt.subplots(figsize=(5, 3), dpi=72)
for kind, label in (("train", "training"), ("eval", "test")):
    points = [
        (event["step"], 100 * event["top1_error"]) for event in events if event["event"] == kind
    ]
    axis.plot(*zip(*points), label=label)
axis.set(xlabel="step", ylabel="top-1 error (%)")
axis.legend()
plt.show()

# %% [markdown]
# ## Evaluate
#
# A protocol says which views of an image are scored. `single` scores the image once; `ten_crop`,
# `dense` and others are those of the papers. Errors come with their 95% interval over test images.

# %%
from cnn_jax.evaluation.evaluate import evaluate_run, format_evaluation

for evaluation in evaluate_run(folder, [choose("single")]).values():
    print(format_evaluation("resnet-20", evaluation))

# %% [markdown]
# ## Look inside
#
# Models are pure functions, and `features` returns each stage's activations.

# %%
import numpy as np

from cnn_jax import data, models
from cnn_jax.training.checkpoint import load_parameters

params, stats, step = load_parameters(folder)
model = models.create("resnet20", num_classes=10, width=0.25)
digits = data.load_dataset(experiment.data)
mean = data.make_loader(experiment.data, digits).arrays["mean"]
images = (digits.test.images[:8] - np.asarray(mean)) / 255
logits, _ = model.apply(params, stats, images)
maps = model.features(params, stats, images)

figure, rows = plt.subplots(3, 8, figsize=(8, 3.2), dpi=72)
for column in range(8):
    rows[0, column].imshow(digits.test.images[column, ..., 0], cmap="gray")
    rows[0, column].set_title(f"{int(logits[column].argmax())}")
    rows[1, column].imshow(np.asarray(maps["stage1"])[column].max(-1))
    rows[2, column].imshow(np.asarray(maps["stage2"])[column].max(-1))
for axis in rows.ravel():
    axis.axis("off")
figure.suptitle("test images with the predicted class; strongest response of stages 1 and 2")
plt.show()

# %% [markdown]
# ## Next
#
# A study runs several experiments and compares them with the paper. This one takes minutes:
#
# ```python
# from cnn_jax import study
# from cnn_jax.experiments import STUDIES
#
# report = study.run(STUDIES["resnet_degradation"]("laptop"), "runs/degradation")
# print(report.text)
# ```
#
# Other notebooks: your own data, your own training loop, the lectures' topics, and two of the papers'
# studies on an accelerator.
