"""Prepares data sets for reading: python -m cnn_jax.data.prepare."""
