"""Are two towers better than one of half the kernels?

Paper     Krizhevsky, Sutskever, Hinton 2012, Sec. 3.2: the model on two GPUs errs by 1.7 and 1.2
          points (top-1, top-5) less than one with half as many kernels in each convolution, on one
          GPU. Its footnote: conv5 and the dense layers of that model are not halved, so that both
          have about as many parameters.
Commands  python launch.py --experiment=alexnet_towers --seeds=3                     (digits)
          python launch.py --experiment=alexnet_towers --preset=paper                (ImageNet)
Results   docs/results/alexnet_towers_digits, with hardware and commit. The paper's preset
          needs an accelerator.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.config import Experiment, choose, name_protocol
from cnn_jax.report.claims import BELOW_ZERO, Claim, Score, subtract
from cnn_jax.study import Row, Study

from . import ten_crop

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = {
    "laptop": "2 narrow AlexNets on scikit-learn's digits drawn large, a minute on 2 CPU cores",
    "paper": "2 AlexNets for 90 epochs of ImageNet: for an accelerator",
    "smoke": "2 AlexNets of two steps on fake data, for tests",
}

MODELS = {
    "two-towers": ("two towers", "alexnet"),
    "half": ("one tower, half the kernels", "alexnet_half"),
}
PRINTED = {"top1_error": -1.7, "top5_error": -1.2}  # Sec. 3.2, in points.


def study(preset: str) -> Study:
    """Returns both models with the recipe of ten_crop."""
    base = ten_crop.study(preset)
    run, paper = base.runs["alexnet"], base.paper_runs["alexnet"]

    def rename(name: str, experiment: Experiment) -> Experiment:
        model = choose(MODELS[name][1], **experiment.model.args)
        return replace(experiment, study="alexnet_towers", name=name, model=model)

    one, ten = map(name_protocol, run.protocols)
    return replace(
        base,
        name="alexnet_towers",
        title="Two towers against one of half the kernels",
        paper="Krizhevsky, Sutskever, Hinton 2012, Sec. 3.2",
        runs={name: rename(name, run) for name in MODELS},
        paper_runs={name: rename(name, paper) for name in MODELS},
        rows=tuple(
            Row(name, f"{label}, {words}", label, "", {}, "", protocol)
            for name, (label, _) in MODELS.items()
            for words, protocol in (("1 crop", one), ("10 crops", ten))
        ),
        claims=tuple(
            Claim(
                f"Two towers err less than half the kernels in one, {name} error",
                subtract(Score("two-towers", ten, metric), Score("half", ten, metric)),
                expected=BELOW_ZERO,
                paper=PRINTED[metric],
                source="Sec. 3.2",
            )
            for name, metric in (("top-1", "top1_error"), ("top-5", "top5_error"))
        ),
        notes=(
            "The paper prints the difference alone: 1.7 points of top-1 error and 1.2 of top-5.",
        ),
        report=_report,
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.evaluation_intervals(results, results.rows),
        report.error_curves(results, title="Training", file="curves.png"),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )
