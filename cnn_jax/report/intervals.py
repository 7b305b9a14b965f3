"""Computes 95% intervals of measured values: over test images, and over seeds."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000  # Of the bootstrap.


def compute_bootstrap_interval(answers: "Sequence[np.ndarray]") -> tuple[float, float] | None:
    """Returns the 95% bootstrap interval of the mean over images, in percentage points.

    The values of the images are few different numbers. A resample therefore draws how many images
    have each of them, from a multinomial distribution, and not the images themselves.

    Args:
      answers: The value of each test image, [N] for each seed. Values are averaged over seeds.

    Returns:
      (low, high); None if there are no answers, or the seeds have different numbers of images.
    """
    import numpy as np

    if not answers or len({len(difference) for difference in answers}) > 1:
        return None
    mean = 100 * np.mean(answers, axis=0)
    kinds, counts = np.unique(mean, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(mean), counts / len(mean), RESAMPLES)
    low, high = np.percentile(drawn @ kinds / len(mean), (2.5, 97.5))
    return float(low), float(high)


def compute_student_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95% interval of the mean of independent values, by Student's t.

    Args:
      values: One value for each seed.

    Returns:
      (low, high); None if there are fewer than two values, or if all are equal.
    """
    import statistics

    if len(set(values)) < 2:
        return None
    from scipy import stats

    mean, n = statistics.mean(values), len(values)
    spread = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return mean - spread, mean + spread
