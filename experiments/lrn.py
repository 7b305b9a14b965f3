"""Does local response normalisation help a VGG net?

Paper     Simonyan, Zisserman 2014 (arXiv:1409.1556): Sec. 4.1, Table 3: A-LRN is no better than A.
Question  Krizhevsky et al. 2012 gained 1.4 points with LRN in their net. Does it gain in a deeper one?
Command   python launch.py --experiment=lrn
Measured  docs/results holds what came of it, with hardware and commit.
"""

from dataclasses import replace

from cnn_jax.study import Study
from experiments import vgg_scale_jitter

COST = {
    "laptop": "2 narrow nets on scikit-learn's digits drawn large, 2 minutes on 2 CPU cores",
    "paper": "2 nets of 370k iterations on ImageNet: for a pod",
    "smoke": "2 nets of two steps on fake data, for tests",
}
NETS = ("a-256", "a-lrn-256")


def study(preset: str) -> Study:
    """Nets A and A-LRN of vgg_scale_jitter, at one training scale."""
    whole = vgg_scale_jitter.study(preset, COST)
    return replace(
        whole,
        name="lrn",
        title="Local response normalisation in VGG's net A",
        paper="Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 4.1 and Table 3",
        runs={name: replace(whole.runs[name], study="lrn") for name in NETS},
        rows=tuple(row for row in whole.rows if row.run in NETS),
        claims=tuple(claim for claim in whole.claims if claim.better[0] in NETS),
    )
