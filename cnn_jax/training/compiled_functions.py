"""The compiled functions of a run. Its other seeds and trials of other base rates reuse them."""

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
from cnn_jax.training.first_steps import FirstProgram
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
    """The compiled functions of a run.

    Attributes:
      form: How the states of seeds that train together are joined and split.
      step: The training step, from `compile_step`.
      steps: Several training steps in one call, from `compile_step`; None if each call makes a
        single step.
      first: The programs of the run's first steps, from `compile_step`; None: `step` makes them.
      evaluation: The evaluation step, from `compile_evaluation`.
    """

    form: multi_seed.Form
    step: Step
    steps: Step | None
    first: FirstProgram | None
    evaluation: EvaluationStep


class FunctionCache:
    """Caches the compiled functions of the last run, for a following run with the same program.

    JAX compiles a program when its function is first called. The seeds of a run have equal
    programs, and so have its trials of several base rates: the second of them takes the first
    one's functions from this cache. Each launch makes a cache of its own, so that a model that
    is changed between two launches from one Python process takes effect.
    """

    def __init__(self) -> None:
        self._last: tuple[Any, Functions] | None = None

    def find_or_make(self, depends_on: Any, make: Callable[[], Functions]) -> Functions:
        """Returns the last run's functions, or makes new ones if `depends_on` has changed.

        Args:
          depends_on: All that the program depends on; compared with `==`.
          make: Makes the functions.
        """
        if self._last is None or self._last[0] != depends_on:
            self._last = None  # Frees the memory of the old functions before new ones are made.
            self._last = (depends_on, make())
        return self._last[1]


class BaseRate(NamedTuple):
    """A base learning rate that is an input of the step.

    Attributes:
      rate: The rate, [] float32.
      schedule: The schedule's program as text. Runs share their compiled functions only if these
        texts are equal; a schedule that branches on the rate has another text for another rate.
    """

    rate: jax.Array
    schedule: str


def find_base_rate(experiment: Experiment, dataset: data.Dataset) -> BaseRate | None:
    """Returns the base rate as an input of the step, or None if it is a constant of the program.

    Args:
      experiment: The run.
      dataset: The run's data set. Its size gives the number of steps of an epoch.
    """
    schedule = complete(experiment).schedule
    steps_per_epoch = count_steps_per_epoch(experiment.data, dataset)
    program = trace_shared_program(schedule, experiment.train.steps, steps_per_epoch)
    return BaseRate(jnp.float32(schedule.args["base"]), program) if program else None


def leave_out_inputs(experiment: Experiment, base: BaseRate | None) -> Experiment:
    """Returns the experiment with default values where its program does not depend on them.

    Args:
      experiment: The run.
      base: The result of `find_base_rate`. If it is not None, the base rate is such a value too.

    Returns:
      An experiment without names, seed and deviations. It is equal for all runs that share a
      program.
    """
    schedule = experiment.schedule if base is None else change(experiment.schedule, base=1.0)
    return replace(experiment, study="", name="", seed=0, deviations=(), schedule=schedule)


def compile_functions(
    experiment: Experiment,
    parts: Components,
    loader: data.Loader,
    seeds: int,
    mesh: Mesh,
    steps_per_call: int,
) -> Functions:
    """Returns the run's compiled functions. JAX compiles each when it is first called.

    Args:
      experiment: The run.
      parts: The result of `make_components`.
      loader: The loader of one seed. The loaders of all seeds fetch and preprocess in the same way.
      seeds: Number of seeds that train together.
      mesh: The devices that share a batch.
      steps_per_call: The largest number of steps that one call makes; 0: the loop chooses it.

    Returns:
      The functions. `steps` is None if steps_per_call is 1.
    """
    loader = loader._replace(arrays=None)  # The arrays are large, and arguments of the functions.
    form, size = make_step(experiment, parts, loader, seeds, mesh), math.prod(loader.image_shape)
    step, several, first = compile_step(experiment, form.step, mesh, size, steps_per_call)
    values = round_batch(experiment, mesh) * size
    options = choose_compiler_options(experiment.train.steps, values, mesh)
    evaluation = compile_evaluation(make_evaluation_step(parts.model, loader), mesh, options)
    return Functions(form, step, several, first, evaluation)


def make_step(
    experiment: Experiment,
    parts: Components,
    loader: data.Loader,
    seeds: int,
    mesh: Mesh,
) -> multi_seed.Form:
    """Returns the training step of all seeds, not yet compiled, and how their states are joined.

    `cnn_jax.cost.plan` compiles the same step for devices that are not attached.

    Args:
      experiment: The run.
      parts: The result of `make_components`.
      loader: The loader of one seed.
      seeds: Number of seeds that train together.
      mesh: The devices that share a batch.
    """
    train = experiment.train
    fixed = StepParts(
        model=parts.model,
        optimizer=parts.optimizer,
        loader=loader,
        key=jax.random.key(0),  # Replaced by each seed's own key.
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
    return multi_seed.choose_form(one, mesh.devices.flat[0].platform, params)


def compile_step(
    experiment: Experiment, step: Step, mesh: Mesh, image_values: int, steps_per_call: int = 1
) -> tuple[Step, Step | None, FirstProgram | None]:
    """Compiles a training step by jit or pmap, with the compiler options for its platform.

    Args:
      experiment: The run. train.parallel chooses jit or pmap, and train.check_numerics a step that
        checks every operation.
      step: `Form.step` of the result of `make_step`.
      mesh: The devices that share a batch.
      image_values: Number of values of one image, H * W * C.
      steps_per_call: As in `compile_functions`.

    Returns:
      (step, steps, first): the compiled step; a function that makes several steps in one call, or
      None if steps_per_call is 1; and the programs of the run's first steps, or None if the
      compile cache holds the compiled step, which then makes them.
    """
    train, values = experiment.train, experiment.data.batch_size * image_values
    if mesh.devices.flat[0].platform == "cpu":
        memory.keep_memory(values)
    options = choose_compiler_options(train.steps, values, mesh)
    several = compile_steps(step, mesh, options) if steps_per_call != 1 else None
    if train.check_numerics:
        return compile_checked(step, mesh), several, None
    compiled = compile_train(step, train.parallel, mesh, options)
    if not options or train.parallel != "jit":
        return compiled, several, None
    return compiled, several, FirstProgram(compile_train(step, "jit", mesh), compiled)


def choose_compiler_options(steps: int, values: int, mesh: Mesh) -> dict[str, bool] | None:
    """Chooses XLA's compiler options for the training step or the evaluation step of a run.

    Args:
      steps: Number of training steps of the run.
      values: Number of values of a batch of images, B * H * W * C.
      mesh: The devices.

    Returns:
      The argument `compiler_options` of `jax.jit`; None on other platforms than CPUs.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return None
    return settings.choose_onednn_for_run(steps, values)


def round_batch(experiment: Experiment, mesh: Mesh) -> int:
    """Returns data.eval_batch_size, rounded up to a multiple of the number of devices.

    An evaluation masks the rows of a batch that hold no image.

    Args:
      experiment: The run.
      mesh: The devices that share a batch.
    """
    return -(-experiment.data.eval_batch_size // mesh.size) * mesh.size
