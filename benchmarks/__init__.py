"""Benchmarks: our speed, as a ratio to what else does the same work on the same machine."""

from cnn_jax import interrupts

interrupts.catch_if_run(__name__)
