"""Does local response normalization help a VGG model?

Paper     Simonyan, Zisserman 2014 (arXiv:1409.1556): Sec. 4.1, Table 3: A-LRN is no better than A.
Question  Krizhevsky et al. 2012 gained 1.4 points with LRN in their model. Does it gain in a
          deeper one?
Command   python launch.py --experiment=lrn
Results   docs/results/lrn_digits, with hardware and commit.
"""

from dataclasses import replace

from cnn_jax.study import Study

from . import vgg_scale_jitter

COST = {
    "laptop": "2 narrow models on scikit-learn's digits drawn large, a minute on 2 CPU cores",
    "paper": "2 models of 370k steps on ImageNet: for a pod",
    "smoke": "2 models of two steps on fake data, for tests",
}
RUNS = ("a-256", "a-lrn-256")


def study(preset: str) -> Study:
    """Returns models A and A-LRN of vgg_scale_jitter, at one training scale."""
    whole = vgg_scale_jitter.study(preset, COST)
    return replace(
        whole,
        name="lrn",
        title="Local response normalization in VGG's model A",
        paper="Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 4.1 and Table 3",
        runs={name: replace(whole.runs[name], study="lrn") for name in RUNS},
        rows=tuple(row for row in whole.rows if row.run in RUNS),
        claims=(vgg_scale_jitter.claim_lrn(preset),),
        paper_runs={name: whole.paper_runs[name] for name in RUNS},
    )
