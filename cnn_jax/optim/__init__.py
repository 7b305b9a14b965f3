"""Optimizers and learning-rate schedules, as the papers write them."""

from cnn_jax.optim.optimizers import OPTIMIZERS, make_optimizer
from cnn_jax.optim.schedules import (
    SCHEDULES,
    make_schedule,
    read_current_rate,
    schedule_depends_on_steps,
    trace_shared_program,
)
from cnn_jax.optim.transformations import (
    count_evaluations,
    observe_error,
    ran_out_of_patience,
)

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "count_evaluations",
    "make_optimizer",
    "make_schedule",
    "observe_error",
    "ran_out_of_patience",
    "read_current_rate",
    "schedule_depends_on_steps",
    "trace_shared_program",
]
