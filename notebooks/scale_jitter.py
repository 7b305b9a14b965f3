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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn-jax/cnn_jax/blob/main/notebooks/scale_jitter.ipynb)
#
# # Scale jitter
#
# Simonyan, Zisserman 2014, Sections 3.1, 4.1 and 4.2: images scaled at random in training, and tested at
# several scales, give lower errors. This notebook trains narrow versions of the paper's models on Caltech-101.
# What it costs on your runtime is printed before it starts.

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
runs_folder = notebook.keep_on_drive("cnn_jax_runs") / "scale_jitter"
print(f"runs are kept in {runs_folder}")

# %% [markdown]
# ## The data
#
# Caltech-101 as its authors publish it (137 MB): a folder of class folders. Every fifth image of a class is a
# test image.

# %%
import tarfile
import urllib.request
import zipfile
from pathlib import Path

ADDRESS = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip?download=1"
images = Path("caltech-101/101_ObjectCategories")
if not SMOKE and not images.exists():
    urllib.request.urlretrieve(ADDRESS, "caltech-101.zip")
    with zipfile.ZipFile("caltech-101.zip") as archive:
        archive.extractall(".")
    with tarfile.open("caltech-101/101_ObjectCategories.tar.gz") as archive:
        archive.extractall("caltech-101", filter="data")

# %% [markdown]
# ## What it costs
#
# The preset `caltech` has models an eighth as wide, crops of 64 pixels, and the paper's scales in
# proportion. `ONLY` chooses runs: the names are the model and its training scale, such as `d-jitter`.

# %%
from cnn_jax.experiments import STUDIES

from cnn_jax import study
from cnn_jax.cost.estimate import format_study

ONLY = "a-256" if SMOKE else "*"
scales = STUDIES["vgg_scale_jitter"]("smoke" if SMOKE else "caltech")
if not SMOKE:
    scales = study.configure(scales, ["train.save_every=200"], data=f"folder:{images}")
print(format_study(study.select(scales, ONLY)))

# %% [markdown]
# ## Train and report
#
# Run this cell again after any interruption. Models that start from another one are trained after it.

# %%
report = study.run(scales, runs_folder, only=ONLY)
print(report.text)

# %%
from IPython.display import Image, display

display(Image(filename=str(runs_folder / "report.png"), width=700))

# %% [markdown]
# The figure is top-1 error against the test scale, a line for each training scale; `report.html` in the runs'
# folder holds the paper's Tables 3, 4 and 5 with ours beside them.
