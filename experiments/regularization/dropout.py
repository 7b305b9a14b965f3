"""The paper preset of `regularization`: dropout on MNIST.

Paper     Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, Table 2: a standard model
          of two layers of 800 logistic units errs by 1.60%, with dropout three layers of 1,024
          logistic units by 1.35% and of ReLU by 1.25%.
"""

from typing import TYPE_CHECKING

from cnn_jax.config import Choice, Data, Experiment, Train, choose
from cnn_jax.report.claims import BELOW_ZERO, Claim, Score, score, subtract
from cnn_jax.study import Row, Study

if TYPE_CHECKING:
    from cnn_jax.report import Page, Results

COST = "3 MLPs for 30 epochs of MNIST, an hour on 2 CPU cores, 3 seeds together"

# Table 2. Half of the hidden units and a fifth of the pixels are dropped (App. B.1).
TABLE_2 = {"standard": 1.60, "dropout-logistic": 1.35, "dropout-relu": 1.25}
DROPPED = {"dropout": 0.5, "input_dropout": 0.2}
MODELS: dict[str, Choice] = {
    "standard": choose("mlp", hidden=(800, 800), activation="sigmoid"),
    "dropout-logistic": choose("mlp", hidden=(1_024,) * 3, activation="sigmoid", **DROPPED),
    "dropout-relu": choose("mlp", hidden=(1_024,) * 3, activation="relu", **DROPPED),
}
LABELS = {
    "standard": "standard model, 2 x 800 logistic units",
    "dropout-logistic": "dropout, 3 x 1,024 logistic units",
    "dropout-relu": "dropout, 3 x 1,024 ReLU",
}
RATES = {"standard": 0.1, "dropout-logistic": 0.1, "dropout-relu": 0.05}


def _make_run(name: str) -> Experiment:
    return Experiment(
        study="regularization",
        name=name,
        data=Data(
            dataset=choose("mnist"),
            batch_size=100,
            subtract_mean="none",
            pad_and_crop=0,
            flip=False,
        ),
        model=MODELS[name],
        optimizer=choose("sgd", momentum=0.9, weight_decay=0.0),
        # 30 epochs of 600 steps. Differs: the paper made a million updates (App. B.1).
        schedule=choose("cosine", base=RATES[name]),
        train=Train(steps=18_000, log_every=200, eval_every=1_800, save_every=600, on_nan="record"),
        deviations=(
            "18,000 updates with a rate that falls by half a cosine; the paper made 1,000,000"
            " (App. B.1)",
        ),
    )


def study() -> Study:
    """Returns the rows of Table 2 without max-norm."""
    runs = {name: _make_run(name) for name in MODELS}
    return Study(
        name="regularization",
        title="Dropout on MNIST",
        paper="Srivastava et al. 2014 (JMLR 15), Table 2",
        paper_data="mnist",
        preset="paper",
        runs=runs,
        rows=tuple(
            Row(name, label, "MNIST", "Table 2", {"top1_error": TABLE_2[name]})
            for name, label in LABELS.items()
        ),
        paper_runs=runs,
        claims=_make_claims(),
        notes=("The error is that of the last step; the best one was not chosen by the test set.",),
        report=_report,
    )


def _make_claims() -> tuple[Claim, ...]:
    lower = (
        ("Dropout lowers the test error of logistic units", "dropout-logistic", "standard"),
        ("Dropout with ReLU errs less than the standard model", "dropout-relu", "standard"),
        ("With dropout ReLU errs less than logistic units", "dropout-relu", "dropout-logistic"),
    )
    return (
        *(
            Claim(
                statement,
                subtract(Score(first), Score(second)),
                expected=BELOW_ZERO,
                paper=round(TABLE_2[first] - TABLE_2[second], 2),
                source="Table 2",
            )
            for statement, first, second in lower
        ),
        *(
            Claim(
                f"The test error of {LABELS[name]}, within 0.2 points",
                score(Score(name)),
                expected=(error - 0.2, error + 0.2),
                paper=error,
                source="Table 2",
                is_figure=True,
            )
            for name, error in TABLE_2.items()
        ),
    )


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.error_bars(results),
        report.claims_table(results, results.claims),
        report.error_curves(results, title="Training", file="curves.png"),
        report.notes(results),
        report.settings(results),
    )
