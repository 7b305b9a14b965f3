"""Studies. A `Study` is a paper's comparison of runs; `run` trains it and builds its report."""

from cnn_jax.report.claims import Claim as Claim
from cnn_jax.report.rows import Row as Row
from cnn_jax.study.definition import Study as Study
from cnn_jax.study.runner import RunsFailedError as RunsFailedError
from cnn_jax.study.runner import run as run
from cnn_jax.study.selection import configure as configure
from cnn_jax.study.selection import list_trials as list_trials
from cnn_jax.study.selection import load as load
from cnn_jax.study.selection import select as select
from cnn_jax.study.write_files import write_study as write_study
