"""The classic CNN papers, true on your own machine: nets, recipes, protocols and studies in JAX."""

from cnn_jax.cpu import settings

settings.choose_flags()  # here, as JAX reads them once, when it starts
