"""Data sets made ready to be read: python -m cnn_jax.data.prepare."""
