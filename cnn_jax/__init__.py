"""The classic CNN papers, true on your own machine: nets, recipes, protocols and studies in JAX."""

from cnn_jax import cpu

__version__ = "0.1.0"  # pyproject.toml reads this literal

cpu.choose_flags()  # here, as JAX reads them once, when it starts
