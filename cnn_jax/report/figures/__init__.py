"""Draws the figures of reports with matplotlib, as PNG files and as SVG for HTML pages."""

from cnn_jax.report.figures.style import (  # isort: skip - it says which package is missing
    DASHES as DASHES,
    GRID as GRID,
    INK as INK,
    PALETTE as PALETTE,
    choose_colors as choose_colors,
    set_log_scale as set_log_scale,
    spread_colors as spread_colors,
    use_style as use_style,
    set_title as set_title,
    write_png as write_png,
    write_svg as write_svg,
)
from cnn_jax.report.figures.bars import Bar as Bar
from cnn_jax.report.figures.bars import Interval as Interval
from cnn_jax.report.figures.bars import draw_bars as draw_bars
from cnn_jax.report.figures.bars import draw_intervals as draw_intervals
from cnn_jax.report.figures.curves import Curve as Curve
from cnn_jax.report.figures.curves import Panel as Panel
from cnn_jax.report.figures.curves import Point as Point
from cnn_jax.report.figures.curves import draw_panel as draw_panel
from cnn_jax.report.figures.curves import draw_panels as draw_panels
from cnn_jax.report.figures.lines import LineChart as LineChart
from cnn_jax.report.figures.lines import Series as Series
from cnn_jax.report.figures.lines import draw_chart as draw_chart
from cnn_jax.report.figures.lines import draw_lines as draw_lines
