"""Evaluation: the papers' protocols, their scores, and what is measured of them."""
