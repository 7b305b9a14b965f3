"""The page of `launch.py --visualize`: one self-contained HTML file, and its figures as PNG."""

from cnn_jax.visualize.page.build import METHODS, build_page, choose_methods

__all__ = ["METHODS", "build_page", "choose_methods"]
