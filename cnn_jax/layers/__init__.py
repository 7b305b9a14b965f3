"""Layers, each usable alone as a flax module or a function: one file for each subject."""
