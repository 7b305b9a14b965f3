"""Reports, built from the files in run folders.

A study composes its report from the functions of `cnn_jax.report.parts`; `build` writes it. The
names below are imported when they are first used, so that importing a study does not import
matplotlib.
"""

import importlib
from typing import Any

_MODULES = {
    "parts": (
        "bars",
        "claims_table",
        "deviations",
        "error_bars",
        "error_curves",
        "errors_by_scale",
        "evaluation_figure",
        "evaluation_intervals",
        "facts",
        "figure",
        "find_final_loss",
        "image_grid",
        "layer_histograms",
        "layer_stds",
        "line_charts",
        "find_loss_at",
        "loss_line",
        "missing",
        "notes",
        "page",
        "paper_table",
        "paper_tables",
        "problems",
        "run_states",
        "settings",
        "shares_over_training",
        "standard",
        "tuning_table",
    ),
    "elements": ("Cell", "Notes", "Page", "Prose", "Report", "Table"),
    "figures": ("PALETTE", "Bar", "LineChart", "Series"),
    "results": ("Results", "Run"),
    "rows": ("Row",),
    "claims": (
        "ABOVE_ZERO",
        "BELOW_ZERO",
        "Claim",
        "Contrast",
        "Measured",
        "Score",
        "measure_seeds",
        "measure_values",
        "score",
        "subtract",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
