"""The classic CNN papers, true on your own machine: nets, recipes, protocols and studies in JAX."""

from cnn_jax import cpu

cpu.choose_flags()  # here, as JAX reads them once, when it starts
