"""What several test files ask of samples."""

import numpy as np


def evenly(values: np.ndarray, lo: float, hi: float) -> bool:
    """Whether the values may be uniform on [lo, hi].

    The distance of Kolmogorov and Smirnov from the uniform distribution must be below its critical
    value at 0.1%.
    """
    ranks = np.arange(len(values)) / len(values)
    distance = np.abs(np.sort((np.asarray(values) - lo) / (hi - lo)) - ranks).max()
    return bool(distance < 1.95 / np.sqrt(len(values)))
