"""Makes the table of a study's tuning: the score of each value, and the choice."""

import math

from cnn_jax.report.elements import Table
from cnn_jax.report.parts.words import DASH
from cnn_jax.report.results import Results
from cnn_jax.tuning import choose_value, find_scores, find_seeds_of_trial, is_tuned
from cnn_jax.values import format_value


def tuning_table(results: Results, title: str = "Tuning") -> Table | None:
    """Makes the table of each run's scores and chosen value; None if the study is not tuned.

    A run has no choice until all of its trials have ended.

    Args:
      results: The study's results.
      title: Heading above the table.
    """
    tuning = results.tuning
    if tuning is None:
        return None
    rows, edges = [], []
    for name in results.runs:
        if not is_tuned(tuning, name):
            continue
        labels = {row.label for row in results.rows if row.run == name}
        scores = find_scores(tuning, name, results.trials)
        line = [labels.pop() if len(labels) == 1 else name]
        for value, score in scores.items():
            if score is not None and math.isfinite(score):
                line.append(f"{tuning.scale * score:.4g}")
            else:
                own = find_seeds_of_trial(tuning, name, value, results.trials)
                others = DASH if score is None else "not reached"
                line.append(next((run.state for run in own if not run.finished), others))
        chosen = choose_value(scores)
        rows.append((*line, DASH if chosen is None else format_value(chosen)))
        if len(tuning.values) > 1 and chosen in (tuning.values[0], tuning.values[-1]):
            edges.append(line[0])
    values = [format_value(value) for value in tuning.values]
    seeds = f"{tuning.seeds} seed{'s' * (tuning.seeds > 1)}"
    seeds += f" and {tuning.steps:,} steps" if tuning.steps else ""
    runs = [run.experiment for run in results.every_run if run.experiment]
    held_out = any(run.data.validation_images for run in runs)
    images = "the same images" if held_out else "all training images"
    footnote = (
        f"{tuning.score_name[0].upper()}{tuning.score_name[1:]} for each value of {tuning.field},"
        f" tried with {seeds} on the training images without {tuning.validation_images:,} that are"
        f" held out. Each run has the same {len(values)} trials, and is then trained with the best"
        f" value on {images}. The test set was not used."
    )
    if edges:
        footnote += (
            " At the edge of the grid, so that a value outside of it may be better:"
            f" {'; '.join(edges)}."
        )
    return Table(title, ("run", *values, "chosen"), tuple(rows), footnote)
