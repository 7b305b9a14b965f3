"""Reads what a study has written: each kind of file has one reader."""

from cnn_jax.report.reading.folder import read as read
from cnn_jax.report.reading.folder import read_runs as read_runs
from cnn_jax.report.reading.study_file import read_study_file as read_study_file
