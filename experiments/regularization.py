"""What regularization does on a small training set: the gap between training and test.

Paper     The lectures: L2 and L1 penalties, dropout, early stopping, augmentation. Preset paper:
          Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014 ("Dropout: a simple way to
          prevent neural networks from overfitting"), Table 2: dropout on MNIST.
Question  Each regularizer at its best strength against none: is the test error lower, and is the
          gap between training and test loss smaller? Which weights does an L1 penalty leave at 0?
Commands  python launch.py --experiment=regularization --seeds=6 --together                 (digits)
          python launch.py --experiment=regularization --preset=paper --seeds=3 --together  (MNIST)
Results   docs/results/regularization_digits and
          regularization_dropout_mnist, with hardware and commit.

Each regularizer takes the strength with the lowest validation error of three; the test set is not
used for the choice. All runs of a seed have the same training images, initial weights and batches.
The paper preset is another set of runs, in `regularization_dropout`.
"""

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cnn_jax.config import Choice, Data, Experiment, Log, Train, change, choose, name_protocol
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Measured, measure_seeds
from cnn_jax.study import Row, Study
from cnn_jax.study.presets import check_preset, keep_run

from . import regularization_dropout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnn_jax.report import Page, Results, Run, Table
    from cnn_jax.report.results import Layer

COST = {
    "laptop": "16 MLPs on 97 of scikit-learn's digits, 2 minutes on 2 CPU cores, 6 seeds",
    "paper": regularization_dropout.COST,
    "smoke": "6 MLPs of two steps on 97 digits, for tests",
}

TRAIN, TEST = choose("single", split="train"), choose("single", split="test")
LECTURES = "the lectures"
NONE = "none"


class Family(NamedTuple):
    """A regularizer.

    Attributes:
      label: In tables.
      strength: What its strengths are.
      strengths: The grid.
      apply: (run without it, strength) -> run.
    """

    label: str
    strength: str
    strengths: tuple[float, ...]
    apply: Callable[[Experiment, float], Experiment]


def _penalize_l2(run: Experiment, strength: float) -> Experiment:
    return replace(run, optimizer=change(run.optimizer, weight_decay=strength))


def _penalize_l1(run: Experiment, strength: float) -> Experiment:
    return replace(run, optimizer=change(run.optimizer, l1=strength))


def _drop(run: Experiment, share: float) -> Experiment:
    return replace(run, model=change(run.model, dropout=share))


def _stop_early(run: Experiment, patience: float) -> Experiment:
    return replace(
        run, train=replace(run.train, stop_after=int(patience), eval_every=STOPPING_EVERY)
    )


def _augment(run: Experiment, degrees: float) -> Experiment:
    return replace(run, data=replace(run.data, rotate=degrees))


STOPPING_EVERY = 10  # Steps between the evaluations that patience counts.
FAMILIES = {
    "l2": Family("L2 penalty", "lambda", (1e-3, 3e-3, 1e-2), _penalize_l2),
    "l1": Family("L1 penalty", "lambda", (1e-4, 3e-4, 1e-3), _penalize_l1),
    "dropout": Family("dropout", "share", (0.25, 0.5, 0.75), _drop),
    "early-stopping": Family("early stopping", "patience", (5, 10, 20), _stop_early),
    "augmentation": Family("augmentation", "degrees", (5.0, 15.0, 30.0), _augment),
}


def _unregularized(name: str) -> Experiment:
    """Returns the run without a regularizer, in its laptop size."""
    steps = 800
    return Experiment(
        study="regularization",
        name=name,
        data=Data(
            dataset=choose("digits"),
            validation_images=1_340,  # 1,437 images less these leave 97 to train on.
            batch_size=32,
            eval_batch_size=670,
            subtract_mean="pixel",
            pad_and_crop=0,
            flip=False,
        ),
        model=choose("mlp", hidden=(256,)),
        optimizer=choose("sgd", momentum=0.9, weight_decay=0.0, decay_biases=False),
        schedule=choose("constant", base=0.05),
        train=Train(steps=steps, log_every=20, eval_every=100, save_every=steps),
        log=Log(layer_statistics=(steps,)),
        protocols=(TRAIN, TEST),
    )


def _make_runs(
    change_run: Callable[[Experiment], Experiment], strengths: int = 3
) -> dict[str, Experiment]:
    """Returns the runs with the first `strengths` strengths of each family."""
    runs = {NONE: change_run(_unregularized(NONE))}
    for name, family in FAMILIES.items():
        for strength in family.strengths[:strengths]:
            run = f"{name}-{strength:g}"
            runs[run] = family.apply(change_run(_unregularized(run)), strength)
    return runs


def _smoke(run: Experiment) -> Experiment:
    return replace(
        run,
        data=replace(run.data, batch_size=8),
        train=replace(run.train, steps=2, log_every=1, eval_every=1, save_every=2),
        log=Log(layer_statistics=(2,)),
    )


PRESETS = {"laptop": keep_run, "smoke": _smoke}


def study(preset: str) -> Study:
    """Returns every regularizer at every strength; preset paper: dropout on MNIST."""
    if preset == "paper":
        return regularization_dropout.study()
    check_preset("regularization", preset, [*PRESETS, "paper"])
    runs = _make_runs(PRESETS[preset], strengths=1 if preset == "smoke" else 3)
    return Study(
        name="regularization",
        title="Regularization on a small training set",
        paper="the lectures on regularization",
        paper_data="",  # No figures are printed.
        preset=preset,
        runs=runs,
        rows=tuple(
            Row(name, _label(name), FAMILIES[_family(name)].label if name != NONE else NONE, "")
            for name in runs
        ),
        paper_runs=runs,  # The lectures name no recipe.
        claims=_claims(),
        notes=(
            "Ninety-seven images train, 1,340 validate, 360 test. Training error is that of the"
            " finished model on the training images as they are, without dropout or augmentation.",
            "Early stopping evaluates every 10 steps, and keeps the state of the lowest validation"
            " error; augmentation turns each image by up to so many degrees. Penalties are of"
            " kernels, not of biases.",
        ),
        report=_report,
    )


def _family(run: str) -> str:
    return run.rpartition("-")[0]


def _label(run: str) -> str:
    if run == NONE:
        return NONE
    family = FAMILIES[_family(run)]
    return f"{family.label}, {family.strength} {run.rpartition('-')[2]}"


def _claims() -> tuple[Claim, ...]:
    claims = []
    for name, family in FAMILIES.items():
        label = family.label[0].upper() + family.label[1:]
        claims += [
            Claim(
                f"{label} lowers the test error",
                _compare(name, _find_test_error, 100),
                expected=BELOW_ZERO,
                source=LECTURES,
            ),
            Claim(
                f"{label} narrows the gap between training and test loss",
                _compare(name, _find_gap),
                expected=BELOW_ZERO,
                source=LECTURES,
                unit="nats",
            ),
        ]
    claims.append(
        Claim(
            "An L1 penalty leaves more weights at 0 than none",
            _compare("l1", _find_zeros, 100),
            expected=ABOVE_ZERO,
            source=LECTURES,
        )
    )
    return tuple(claims)


def _find_test_error(run: "Run") -> float | None:
    found = run.protocols.get(name_protocol(TEST))
    return found.errors.get("top1_error") if found else None


def _find_training_error(run: "Run") -> float | None:
    found = run.protocols.get(name_protocol(TRAIN))
    return found.errors.get("top1_error") if found else None


def _find_loss(run: "Run", split: Choice) -> float | None:
    found = run.protocols.get(name_protocol(split))
    return found.loss if found else None


def _find_gap(run: "Run") -> float | None:
    """Returns the test loss minus the training loss, in nats."""
    test, training = _find_loss(run, TEST), _find_loss(run, TRAIN)
    return None if test is None or training is None else test - training


def _find_kernel(run: "Run") -> "Layer | None":
    """Returns the first layer with a kernel, at the last step that was measured."""
    last = run.layers[max(run.layers)] if run.layers else ()
    return next((layer for layer in last if layer.kernel), None)


def _find_zeros(run: "Run") -> float | None:
    layer = _find_kernel(run)
    return layer.zeros if layer else None


def _choose(results: "Results", family: str) -> str | None:
    """Returns the run of a family whose mean validation error is the lowest.

    Of equal ones it is the first; None: no run has finished.
    """
    means = {}
    for strength in FAMILIES[family].strengths:
        name = f"{family}-{strength:g}"
        errors = [e for run in results.runs.get(name, ()) if (e := run.final_error) is not None]
        if errors:
            means[name] = statistics.mean(errors)
    return min(means, key=lambda name: means[name]) if means else None


def _compare(
    family: str, find: "Callable[[Run], float | None]", scale: float = 1
) -> "Callable[[Results], Measured]":
    """Returns the check of a figure of a family's chosen run minus that without a regularizer."""

    def check(results: "Results") -> Measured:
        chosen = _choose(results, family)
        if chosen is None:
            return Measured(None, why=f"no run of {family} is finished")

        def compute(runs: "dict[str, Run]") -> float | None:
            ours, none = find(runs[chosen]), find(runs[NONE])
            return None if ours is None or none is None else scale * (ours - none)

        return measure_seeds(results, (chosen, NONE), compute)

    return check


BARS = (
    "Training error (light) and test error (dark) of each regularizer at the strength that the"
    " validation error chose: a bar to the mean over seeds, a point for each seed. Right: the gap"
    " between test and training loss."
)
WEIGHTS = (
    "The first layer's weights at the end of training, of all seeds, on a logarithmic axis of"
    " counts. A weight counts as 0 if it is smaller than 0.001."
)


def _report(results: "Results") -> "Page":
    from cnn_jax import report

    shown = [row for row in results.rows if row.run in (NONE, _choose(results, "early-stopping"))]
    return report.page(
        results,
        report.figure(lambda: _draw_gaps(results), BARS, "Training and test error"),
        _make_table(results),
        report.claims_table(results, results.claims),
        report.figure(lambda: _draw_weights(results), WEIGHTS, "Weights", "weights.png"),
        _make_grid(results),
        report.error_curves(
            results,
            [replace(row, group="validation error against steps") for row in shown],
            "Validation error (solid) and training error (dashed) against training steps, without a"
            " regularizer and with early stopping, which ends where its curve does.",
            "Early stopping",
            "stopping.png",
        ),
        report.notes(results),
        report.settings(results),
    )


def _list_chosen(results: "Results") -> dict[str, str]:
    """Returns {run: label} of none and of each family's chosen run."""
    chosen = (_choose(results, family) for family in FAMILIES)
    return {name: _label(name) for name in (NONE, *chosen) if name}


def _make_table(results: "Results") -> "Table":
    from cnn_jax import report
    from cnn_jax.report.parts import DASH, show_mean

    def cell(runs: "tuple[Run, ...]", find: "Callable[[Run], float | None]") -> str:
        found = [value for run in runs if (value := find(run)) is not None]
        return show_mean("top1_error", found) if found else DASH

    def plain(runs: "tuple[Run, ...]", find: "Callable[[Run], float | None]") -> str:
        found = [value for run in runs if (value := find(run)) is not None]
        spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
        return f"{statistics.mean(found):.3f}{spread}" if found else DASH

    rows = [
        (
            label,
            cell(results.runs[name], _find_training_error),
            cell(results.runs[name], _find_test_error),
            plain(results.runs[name], lambda run: _find_loss(run, TRAIN)),
            plain(results.runs[name], lambda run: _find_loss(run, TEST)),
            plain(results.runs[name], _find_gap),
            cell(results.runs[name], _find_zeros),
        )
        for name, label in _list_chosen(results).items()
    ]
    return report.Table(
        "Each at its best strength",
        (
            "regularizer",
            "training error (%)",
            "test error (%)",
            "training loss",
            "test loss",
            "gap of losses",
            "weights at 0 (%)",
        ),
        tuple(rows),
        "The mean ± sample standard deviation over seeds; losses are in nats. The strength is that"
        " of the lowest validation error. Weights at 0 are those of the first layer below"
        " 0.001; of a run that stopped early they are not measured (—).",
    )


def _make_grid(results: "Results") -> "Table":
    from cnn_jax import report
    from cnn_jax.report.parts import DASH, show_mean

    rows = []
    for name, family in FAMILIES.items():
        cells = []
        for strength in family.strengths:
            runs = results.runs.get(f"{name}-{strength:g}", ())
            errors = [e for run in runs if (e := run.final_error) is not None]
            text = show_mean("top1_error", errors) if errors else DASH
            cells.append(report.Cell(text, f"({family.strength} {strength:g})"))
        chosen = _choose(results, name)
        rows.append((family.label, *cells, chosen.rpartition("-")[2] if chosen else DASH))
    return report.Table(
        "The strengths, and what they gave",
        ("regularizer", "weak", "middle", "strong", "chosen"),
        tuple(rows),
        "Validation error in %: the mean ± sample standard deviation over seeds at the end, or at"
        " the best state of early stopping. Each regularizer has three trials. The test set was not"
        " looked at.",
    )


def _draw_gaps(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report import figures

    chosen = _list_chosen(results)
    drawing = Figure((11, 1.2 + 0.62 * len(chosen)), layout="constrained")
    left, right = drawing.subplots(1, 2, sharey=True)

    def draw(axes: "Axes", at: float, values: list[float], alpha: float, label: str) -> None:
        if values:
            mean, color = statistics.mean(values), figures.PALETTE[0]
            axes.barh(at, mean, 0.34, color=color, alpha=alpha, label=label)
            axes.plot(values, [at] * len(values), "o", ms=3.5, color=figures.INK, mfc="none")

    finds = ((_find_training_error, 0.45, "training error"), (_find_test_error, 1.0, "test error"))
    for place, name in enumerate(chosen):
        runs = results.runs[name]
        for number, (find, alpha, label) in enumerate(finds):
            errors = [100 * e for run in runs if (e := find(run)) is not None]
            draw(left, place + 0.36 * (number - 0.5), errors, alpha, "" if place else label)
        gaps = [gap for run in runs if (gap := _find_gap(run)) is not None]
        draw(right, place, gaps, 1.0, "" if place else "test loss minus training loss")
    left.set_yticks(range(len(chosen)), list(chosen.values()))
    left.invert_yaxis()
    for axes, label in ((left, "error (%)"), (right, "nats")):
        axes.set_xlabel(label)
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="y")
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2)
    return drawing


def _draw_weights(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report import figures

    names = [n for n in _list_chosen(results) if n == NONE or _family(n) in ("l2", "l1")]
    drawing = Figure((3.5 * len(names), 3.0), layout="constrained")
    grid = drawing.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name, color in zip(grid, names, figures.PALETTE, strict=False):
        layers = [layer for run in results.runs[name] if (layer := _find_kernel(run))]
        for layer in layers:
            spread = layer.kernel
            assert spread is not None  # `_find_kernel` has looked
            width = (spread.high - spread.low) / len(spread.counts)
            edges = [spread.low + i * width for i in range(len(spread.counts) + 1)]
            axes.stairs(spread.counts, edges, color=color, lw=1.4)
        zeros = [layer.zeros for layer in layers if layer.zeros is not None]
        share = f": {statistics.mean(zeros):.1%} at 0" if zeros else ""
        axes.set(title=f"{_label(name)}{share}", xlabel="weight", yscale="log")
        axes.title.set_fontsize(10)
        axes.tick_params(length=0, which="both")
        axes.yaxis.set_major_formatter(lambda count, _: f"{count:g}")
    grid[0].set_ylabel("weights")
    return drawing
