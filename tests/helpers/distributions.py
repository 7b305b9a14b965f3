"""Tests of samples against distributions."""

import numpy as np


def looks_uniform(values: np.ndarray, lo: float, hi: float) -> bool:
    """Returns whether a Kolmogorov-Smirnov test accepts values as uniform on [lo, hi].

    Their distance from the uniform distribution must be below the critical value at 0.1%.
    """
    ranks = np.arange(len(values)) / len(values)
    distance = np.abs(np.sort((np.asarray(values) - lo) / (hi - lo)) - ranks).max()
    return bool(distance < 1.95 / np.sqrt(len(values)))
