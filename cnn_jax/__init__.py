"""The classic CNN papers, true on your own machine: nets, recipes, protocols and studies in JAX."""
