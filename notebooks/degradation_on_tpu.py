# ---
# jupyter:
#   accelerator: TPU
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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn-jax/cnn_jax/blob/main/notebooks/degradation_on_tpu.ipynb)
#
# # Degradation on a TPU
#
# He, Zhang, Ren, Sun 2015, Section 4.2: on CIFAR-10, plain networks get worse with depth, residual networks
# do not. This notebook trains the paper's recipe in full, 64,000 steps of 128 images, on one chip of a
# Colab runtime (TPU v5e-1 or v6e-1) or on one GPU.

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
# ## Where the runs are kept
#
# If Google Drive is mounted (the folder icon on the left), the runs are kept there, and a runtime that was
# disconnected loses nothing: open the notebook again, mount Drive, run the cells again. Without Drive they
# are kept on the runtime's own disk.

# %%
runs_folder = notebook.keep_on_drive("cnn_jax_runs") / "degradation"
print(f"runs are kept in {runs_folder}")

# %% [markdown]
# ## The data
#
# CIFAR-10 is downloaded from its authors and checked. No TensorFlow is needed.

# %%
if not SMOKE:
    command = [sys.executable, "-m", "cnn_jax.data.prepare", "cifar10", "--data_dir=tfds"]
    subprocess.run(command, check=True)

# %% [markdown]
# ## What it costs
#
# Choose the depths first: `*-20` is plain-20 and ResNet-20, the shortest. The table says what each run costs
# on this machine; it is an estimate from a timed matrix product.

# %%
from cnn_jax.experiments import STUDIES

from cnn_jax import study
from cnn_jax.cost.estimate import format_study

ONLY = "*-20"  # "*-56" for the pair of the paper's claim, "*" for all eleven
degradation = STUDIES["resnet_degradation"]("smoke" if SMOKE else "paper")
if not SMOKE:
    degradation = study.configure(degradation, ["train.save_every=500"], data_dir="tfds")
print(format_study(study.select(degradation, ONLY)))

# %% [markdown]
# ## Train
#
# Run this cell again after any interruption: finished runs are skipped, the others continue from their last
# checkpoint. On an accelerator `--set train.dtype=bfloat16` is not the paper's recipe, so it is not used.

# %%
report = study.run(degradation, runs_folder, only=ONLY)
print(report.text)

# %% [markdown]
# ## The report
#
# Training and test error against the step, as in the paper's Figure 6, and the paper's claims with their
# verdicts. `report.html` in the runs' folder is the whole page.

# %%
from IPython.display import Image, display

display(Image(filename=str(runs_folder / "report.png"), width=700))

# %% [markdown]
# Run `ONLY = "*-56"` next and call `study.run` with `seeds=3`: the claim compares 20 with 56 layers, and one
# seed leaves it undecided.
