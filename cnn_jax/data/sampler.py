"""In which order images are seen: pure functions of (seed, epoch)."""

import numpy as np


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of `count` images in an epoch: a permutation fixed by (seed, epoch)."""
    return np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)


def balanced(seed: int, epoch: int, labels: np.ndarray) -> np.ndarray:
    """The order of an epoch in which every class comes as often as the largest has images: label shuffling.

    labels: [N] int; returns [classes that have images * the largest's count] int32, fixed by (seed, epoch). Of a class
    of n images each comes as often as any other, give or take one time. Shen et al. 2016 (arXiv:1512.05830), Sec. 4,
    has such lists, each class's own shuffled and gone through again and again.
    """
    rng = np.random.default_rng((seed, epoch))
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(map(len, by_class))
    lists = [np.concatenate([rng.permutation(rows) for _ in range(-(-most // len(rows)))])[:most] for rows in by_class]
    return rng.permutation(np.concatenate(lists)).astype(np.int32)
