"""Parts of a report, and helpers to format them.

A study composes its page from parts:

def report(results):
    from cnn_jax import report

    return report.page(
        results,
        *report.paper_tables(results, results.rows),
        report.error_curves(results),
        report.notes(results),
        report.settings(results),
        report.claims_table(results, results.claims),
    )
"""

from cnn_jax.report.parts.charts import bars, figure, image_grid, line_charts
from cnn_jax.report.parts.claims import (
    CLAIM_COLUMNS,
    TEXT_COLUMNS,
    claims_table,
    describe_verdict,
    make_claim_row,
)
from cnn_jax.report.parts.curves import CURVES_CAPTION, error_curves, make_panels
from cnn_jax.report.parts.error_bars import BARS_CAPTION, error_bars
from cnn_jax.report.parts.evaluations import (
    DENSE,
    INTERVALS_CAPTION,
    SCALES_CAPTION,
    errors_by_scale,
    evaluation_figure,
    evaluation_intervals,
)
from cnn_jax.report.parts.footnotes import deviations, list_deviations, mark_deviations, notes
from cnn_jax.report.parts.layers import (
    find_layers,
    is_activation,
    layer_histograms,
    layer_stds,
    shares_over_training,
    summarize_points,
)
from cnn_jax.report.parts.losses import find_final_loss, find_loss_at, loss_line
from cnn_jax.report.parts.overview import facts, missing, problems, run_states, settings
from cnn_jax.report.parts.pages import check_files, make_rows, page, standard
from cnn_jax.report.parts.tables import (
    find_differing,
    find_error_names,
    format_final_error,
    format_training_error,
    has_evaluations,
    paper_table,
    paper_tables,
)
from cnn_jax.report.parts.tuning import tuning_table
from cnn_jax.report.parts.words import (
    DASH,
    MINUS,
    describe_range,
    describe_states,
    explain_verdict,
    format_error,
    format_mean,
    format_points,
    format_quantity,
    format_range,
    format_unit,
    is_percent,
    join_distinct,
    name_metric,
)

__all__ = [
    "BARS_CAPTION",
    "CLAIM_COLUMNS",
    "CURVES_CAPTION",
    "DASH",
    "DENSE",
    "INTERVALS_CAPTION",
    "MINUS",
    "SCALES_CAPTION",
    "TEXT_COLUMNS",
    "bars",
    "check_files",
    "claims_table",
    "describe_range",
    "describe_states",
    "describe_verdict",
    "deviations",
    "error_bars",
    "error_curves",
    "errors_by_scale",
    "evaluation_figure",
    "evaluation_intervals",
    "explain_verdict",
    "facts",
    "figure",
    "find_differing",
    "find_error_names",
    "find_final_loss",
    "find_layers",
    "find_loss_at",
    "format_error",
    "format_final_error",
    "format_mean",
    "format_points",
    "format_quantity",
    "format_range",
    "format_training_error",
    "format_unit",
    "has_evaluations",
    "image_grid",
    "is_activation",
    "is_percent",
    "join_distinct",
    "layer_histograms",
    "layer_stds",
    "line_charts",
    "list_deviations",
    "loss_line",
    "make_claim_row",
    "make_panels",
    "make_rows",
    "mark_deviations",
    "missing",
    "name_metric",
    "notes",
    "page",
    "paper_table",
    "paper_tables",
    "problems",
    "run_states",
    "settings",
    "shares_over_training",
    "standard",
    "summarize_points",
    "tuning_table",
]
