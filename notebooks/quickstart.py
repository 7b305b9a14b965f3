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
from cnn_jax.evaluation.evaluate import evaluate_run
from cnn_jax.evaluation.evaluation_file import format_evaluation

for evaluation in evaluate_run(folder, [choose("single")]).values():
    print(format_evaluation("resnet-20", evaluation))

# %% [markdown]
# ## Look inside
#
# `trained.load` reads a run's newest checkpoint. The methods of `visualize` are pure functions of the model, its
# parameters, its statistics and a batch of images, and `plot` draws what they return. `launch.py
# --visualize=RUN` puts all of them on one page.

# %%
from IPython.display import display

from cnn_jax import data, trained, visualize
from cnn_jax.visualize import plot

loaded = trained.load(str(folder))
digits = data.load_dataset(experiment.data).test
pixels, labels = digits.images[:6], digits.labels[:6]
images = loaded.prepare(pixels)
given = (loaded.model, loaded.params, loaded.stats, images, labels)
answers = visualize.compute_probabilities(*given[:4]).argmax(1)
cam = visualize.compute_grad_cam(*given, "stage1")
maps = {
    "saliency": visualize.compute_saliency(*given),
    "guided\nbackpropagation": visualize.compute_guided_backprop(*given),
    f"Grad-CAM of\n{cam.layer}": cam.maps,
}
titles = [f"is {label}, says {answer}" for label, answer in zip(labels, answers)]
figure = plot.plot_maps(pixels, maps, titles)
figure.set_dpi(80)
display(figure)

# %% [markdown]
# The strongest feature maps of each stage, for the first image:

# %%
figure = plot.plot_feature_maps(loaded.model.features(loaded.params, loaded.stats, images))
figure.set_dpi(80)
display(figure)

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
