"""The compiled functions of a run, which its other seeds and base rates reuse."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cnn_jax import data
from cnn_jax.config import Experiment, change
from cnn_jax.cpu import memory, settings
from cnn_jax.evaluation.during_training import (
    EvaluationStep,
    compile_evaluation,
    make_evaluation_step,
)
from cnn_jax.optim import trace_shared_program
from cnn_jax.training import multi_seed
from cnn_jax.training.components import Components, complete, count_steps_per_epoch
from cnn_jax.training.state import State
from cnn_jax.training.train_step import (
    Step,
    StepParts,
    compile_checked,
    compile_steps,
    compile_train,
    train_step,
)


class Functions(NamedTuple):
    """The compiled functions of a run, which are those of its other seeds too.

    Attributes:
      form: How the seeds' states are joined.
      step: The result of `compile_step`.
      steps: Several steps in one call, from `compile_step`; None: a call makes a single step.
      evaluation: The result of `compile_evaluation`.
    """

    form: multi_seed.Form
    step: Step
    steps: Step | None
    evaluation: EvaluationStep


class Reusable:
    """Caches the compiled functions of the last run, for a following run with the same program.

    A program is compiled when its function is first called. The seeds of a run have equal programs,
    and so have trials of several base rates: the second finds the first one's here. It lives as
    long as a launch: what a user changes in a model between two launches from Python takes effect.
    """

    def __init__(self) -> None:
        self._last: tuple[Any, Functions] | None = None

    def find(self, settings: Any, make: Callable[[], Functions]) -> Functions:
        """Returns the last run's functions if they have these settings, and makes them if not."""
        if self._last is None or self._last[0] != settings:
            self._last = None  # Frees its memory before the next one's is taken.
            self._last = (settings, make())
        return self._last[1]


class Base(NamedTuple):
    """A base rate that is an input of the step.

    Attributes:
      rate: The rate, [] float32.
      schedule: The schedule's program as text, which other rates may not have.
    """

    rate: jax.Array
    schedule: str


def find_base(experiment: Experiment, dataset: data.Dataset) -> Base | None:
    """Returns the base rate as an input of the step, or None if its program contains the rate.

    Args:
      experiment: The run.
      dataset: Its data set, whose size is the length of an epoch.
    """
    schedule = complete(experiment).schedule
    steps_per_epoch = count_steps_per_epoch(experiment.data, dataset)
    program = trace_shared_program(schedule, experiment.train.steps, steps_per_epoch)
    return Base(jnp.float32(schedule.args["base"]), program) if program else None


def leave_out_inputs(experiment: Experiment, base: Base | None) -> Experiment:
    """Returns the experiment without its names and inputs, on which its program does not depend.

    Args:
      experiment: The run.
      base: The result of `find_base`.

    Returns:
      An experiment, which is the same for all runs that share their program.
    """
    schedule = experiment.schedule if base is None else change(experiment.schedule, base=1.0)
    return replace(experiment, study="", name="", seed=0, deviations=(), schedule=schedule)


def compile_functions(
    experiment: Experiment,
    parts: Components,
    loader: data.Loader,
    seeds: int,
    over: Mesh,
    steps_per_call: int,
) -> Functions:
    """Returns the run's functions; each is compiled when it is first called.

    Args:
      experiment: The run.
      parts: The result of `make_components`.
      loader: Batches of one seed; the others' have the same functions.
      seeds: Their number.
      over: The devices.
      steps_per_call: The most steps that one call makes; 0: the loop chooses it.

    Returns:
      The functions. `steps` is None if a call makes a single step.
    """
    loader = loader._replace(arrays=None)  # They are arguments, and large.
    form, size = make_step(experiment, parts, loader, seeds, over), math.prod(loader.image_shape)
    step, several = compile_step(experiment, form.step, over, size, steps_per_call)
    values = round_batch(experiment, over) * size
    options = choose_options(experiment.train.steps, values, over)
    evaluation = compile_evaluation(make_evaluation_step(parts.model, loader), over, options)
    return Functions(form, step, several, evaluation)


def make_step(
    experiment: Experiment,
    parts: Components,
    loader: data.Loader,
    seeds: int,
    over: Mesh,
) -> multi_seed.Form:
    """Returns the training step of the seeds, before it is compiled, and how their states join.

    `cnn_jax.cost.plan` compiles this same step for devices that are not here.
    """
    train = experiment.train
    fixed = StepParts(
        model=parts.model,
        optimizer=parts.optimizer,
        loader=loader,
        key=jax.random.key(0),  # Each seed's own takes its place.
        axis=parts.axis,
        label_smoothing=train.label_smoothing,
        mixup=experiment.data.mixup,
        skip_not_finite=train.on_nan == "skip",
    )

    def one(key: jax.Array, state: State, inputs: multi_seed.Inputs, batch: Any) -> State:
        own = fixed._replace(key=jax.random.wrap_key_data(key), base=inputs.base)
        return train_step(own, state, inputs.arrays, batch)

    if seeds == 1:
        return multi_seed.make_single(one)
    image = jax.ShapeDtypeStruct((1, *loader.image_shape), "float32")
    params, _ = jax.eval_shape(parts.model.init, jax.random.key(0), image)
    return multi_seed.choose_form(one, over.devices.flat[0].platform, params)


def compile_step(
    experiment: Experiment, step: Step, over: Mesh, image_values: int, steps_per_call: int = 1
) -> tuple[Step, Step | None]:
    """Returns the step compiled as the run's is: as jit or pmap, with the platform's options.

    Args:
      experiment: The run.
      step: The result of `make_step`.
      over: The devices.
      image_values: Values of one image, H * W * C.
      steps_per_call: As in `compile_functions`.

    Returns:
      (step, several steps in one call); None in place of the second if a call makes a single step.
    """
    train, values = experiment.train, experiment.data.batch_size * image_values
    if over.devices.flat[0].platform == "cpu":
        memory.keep_memory(values)
    options = choose_options(train.steps, values, over)
    several = compile_steps(step, over, options) if steps_per_call != 1 else None
    if train.check_numerics:
        return compile_checked(step, over), several
    return compile_train(step, train.parallel, over, options), several


def choose_options(steps: int, values: int, over: Mesh) -> dict[str, bool] | None:
    """Returns XLA's compiler options of a run's training step, or of its evaluation.

    Args:
      steps: Number of steps of the run.
      values: Values of a batch, B * H * W * C.
      over: The devices.
    """
    if over.devices.flat[0].platform != "cpu":
        return None
    return settings.choose_compiler_options(steps, values)


def round_batch(experiment: Experiment, over: Mesh) -> int:
    """Returns an evaluation's batch, rounded up to the devices: rows that fill it are masked.

    Args:
      experiment: The run.
      over: The devices.

    Returns:
      The number of rows, a multiple of the number of devices.
    """
    return -(-experiment.data.eval_batch_size // over.size) * over.size
