"""Evaluation: the papers' protocols, their scores, and metrics of the scores."""
