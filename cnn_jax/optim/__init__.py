"""Optimizers and learning-rate schedules, as the papers write them."""

from cnn_jax.optim.optimizers import OPTIMIZERS, make_optimizer
from cnn_jax.optim.schedules import (
    SCHEDULES,
    current_rate,
    make_schedule,
    schedule_depends_on_steps,
)
from cnn_jax.optim.transformations import observe_error

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "current_rate",
    "make_optimizer",
    "make_schedule",
    "observe_error",
    "schedule_depends_on_steps",
]
