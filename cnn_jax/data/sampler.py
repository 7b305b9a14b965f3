"""The order in which images are drawn: pure functions of (seed, epoch)."""

import numpy as np


def shuffle_epoch(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the order of an epoch, a permutation [count] int32 fixed by (seed, epoch).

    Args:
      seed: The run's seed.
      epoch: Number of the epoch, from 0.
      count: Number of images.
    """
    return np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)


def balance_epoch(seed: int, epoch: int, labels: np.ndarray) -> np.ndarray:
    """Returns the order of an epoch in which all classes come equally often: label shuffling.

    Every class occurs as often as the largest class has images. How often two images of a class
    occur differs by at most one. Source: Shen et al. 2016 (arXiv:1512.05830), Sec. 4, in which the
    list of each class is shuffled and repeated.

    Args:
      seed: The run's seed.
      epoch: Number of the epoch, from 0.
      labels: [N] int, the label of each image.

    Returns:
      [classes that have images * images of the largest class] int32, fixed by (seed, epoch).
    """
    rng = np.random.default_rng((seed, epoch))
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(map(len, by_class))
    lists = [
        np.concatenate([rng.permutation(rows) for _ in range(-(-most // len(rows)))])[:most]
        for rows in by_class
    ]
    return rng.permutation(np.concatenate(lists)).astype(np.int32)
