"""A run's training program: its state, its compiled step and evaluation, and its batches."""

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from cnn_jax import data, distributed, mesh
from cnn_jax.config import Experiment, change
from cnn_jax.cpu import settings
from cnn_jax.errors import UserError
from cnn_jax.evaluation.during_training import (
    EvaluationStep,
    compile_evaluation,
    evaluate_single,
    make_evaluation_step,
)
from cnn_jax.optim import takes_base
from cnn_jax.training import layer_statistics, multi_seed
from cnn_jax.training.components import (
    Components,
    advise,
    complete,
    count_steps_per_epoch,
    explain_single_steps,
    make_components,
)
from cnn_jax.training.state import State, init_state
from cnn_jax.training.steps_per_call import SINGLE_STEP_PLATFORMS, stack_batches
from cnn_jax.training.train_step import (
    Step,
    StepParts,
    compile_checked,
    compile_steps,
    compile_train,
    train_step,
)

Batches = Callable[[int], Iterator[Any]]


class TrainProgram(NamedTuple):
    """A run put together.

    Attributes:
      state: Before the first step; of several seeds what `join` makes.
      compiled_step: (state, inputs, batch) -> state.
      inputs: The loader's arrays and the seeds' keys, on the devices.
      batches: batches(k) yields those of step k and later.
      evaluate: (state of one seed) -> metrics of the single view.
      error_name: What the model calls its error, such as top1_error.
      images_per_epoch: Training images.
      join: The seeds' states -> state; that of one seed is its own.
      split: Undoes join.
      description: What the run's data.json says of its data set.
      steps_per_call: The most steps that one call makes; 0: the loop chooses it.
      compiled_steps: (state, inputs, stacked batches) -> state after several updates.
      measure_layers: (state of one seed, the seed) -> the layers of a line of layers.jsonl; None:
        the run measures none.
    """

    state: Any
    compiled_step: Step
    inputs: multi_seed.Inputs
    batches: Batches
    evaluate: Callable[[State], dict[str, float]]
    error_name: str
    images_per_epoch: int
    join: Callable[[Sequence[State]], Any]
    split: Callable[[Any], Sequence[State]]
    description: dict[str, Any]
    steps_per_call: int = 1
    compiled_steps: Step | None = None
    measure_layers: Callable[[State, int], list[dict[str, Any]]] | None = None

    def step(self, state: Any, batch: Any) -> Any:
        """Returns the state after one update with the batch."""
        return self.compiled_step(state, self.inputs, batch)

    def advance(self, state: Any, batches: Sequence[Any]) -> Any:
        """Returns the state after one update with each of the batches, made in one call."""
        if len(batches) == 1:
            return self.step(state, batches[0])
        assert self.compiled_steps is not None  # The loop asks for no more than steps_per_call.
        return self.compiled_steps(state, self.inputs, stack_batches(batches))


class Functions(NamedTuple):
    """The compiled functions of a run, which are those of its other seeds too.

    Attributes:
      form: How the seeds' states join.
      step: Of `compile_step`.
      steps: Of `compile_steps`, or None.
      evaluation: Of `compile_evaluation`.
    """

    form: multi_seed.Form
    step: Step
    steps: Step | None
    evaluation: EvaluationStep


class Reusable:
    """The functions of the run that was built last, for the next one if it is like it.

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


def build_program(
    experiment: Experiment,
    dataset: data.Dataset | None = None,
    devices: list[jax.Device] | None = None,
    seeds: Sequence[int] = (),
    reusable: Reusable | None = None,
) -> TrainProgram:
    """Puts a run together.

    Args:
      experiment: The run.
      dataset: Used in place of the experiment's own.
      devices: Used in place of all.
      seeds: Trained in one program in place of experiment.seed.
      reusable: Holds the compiled functions of the last run, and keeps those of this one.

    Raises:
      UserError: As `make_components` does.
    """
    over, seeds = mesh.batch_mesh(devices), seeds or (experiment.seed,)
    shard = _find_shard(experiment, over)
    parts = make_components(experiment, dataset, over.size, len(seeds))
    if distributed.is_primary():
        for line in (*data.summarize_dataset(parts.dataset), *advise(experiment)):
            print(line, file=sys.stderr)
    loaders = [data.make_loader(experiment.data, parts.dataset, seed, shard) for seed in seeds]
    init_keys, step_keys = split_seed_keys(seeds)

    image = jax.ShapeDtypeStruct((1, *loaders[0].image_shape), "float32")
    states = [init_state(parts.model, parts.optimizer, key, image) for key in init_keys]
    states = mesh.put(states, mesh.replicated(over))
    size = _find_steps_per_call(experiment, over, shard)
    compile_all = functools.partial(_compile, experiment, parts, loaders[0], len(seeds), over, size)
    base = find_base(experiment, parts.dataset)
    # All that programs are made of, besides the shapes of what they are called with.
    facts = (parts.dataset.num_classes, parts.dataset.streamed, loaders[0].images_per_epoch)
    settings_of_all = _leave_out_inputs(experiment, base)
    whole = (settings_of_all, *facts, loaders[0].image_shape, len(seeds), over, size)
    functions = (reusable or Reusable()).find(whole, compile_all)
    form = functions.form
    keys = tuple(map(jax.random.key_data, step_keys))
    inputs = mesh.put(multi_seed.Inputs(loaders[0].arrays, keys, base), mesh.replicated(over))
    of_seeds = dict(zip(seeds, loaders, strict=True))
    return TrainProgram(
        state=form.join(states),
        compiled_step=functions.step,
        inputs=inputs,
        batches=_choose_batches(experiment, parts, loaders, over, shard),
        evaluate=_make_evaluation(functions.evaluation, experiment, parts, over, shard),
        error_name=parts.model.error_name,
        images_per_epoch=loaders[0].images_per_epoch,
        join=form.join,
        split=form.split,
        description=data.describe_dataset(parts.dataset),
        steps_per_call=size,
        compiled_steps=functions.steps,
        measure_layers=_make_measurement(experiment, parts, of_seeds, inputs.arrays),
    )


def find_base(experiment: Experiment, dataset: data.Dataset) -> jax.Array | None:
    """Returns the base rate as an input of the step, or None if its program contains the rate."""
    schedule = complete(experiment).schedule
    steps_per_epoch = count_steps_per_epoch(experiment.data, dataset)
    if not takes_base(schedule, experiment.train.steps, steps_per_epoch):
        return None
    return jnp.float32(schedule.args["base"])


def _leave_out_inputs(experiment: Experiment, base: jax.Array | None) -> Experiment:
    """Returns the experiment without what its program does not depend on: its names and inputs."""
    schedule = experiment.schedule if base is None else change(experiment.schedule, base=1.0)
    return replace(experiment, study="", name="", seed=0, deviations=(), schedule=schedule)


def _compile(
    experiment: Experiment,
    parts: Components,
    loader: data.Loader,
    seeds: int,
    over: Mesh,
    steps_per_call: int,
) -> Functions:
    """Returns the run's functions; each is compiled when it is first called."""
    loader = loader._replace(arrays=None)  # They are arguments, and large.
    form, size = make_step(experiment, parts, loader, seeds, over), math.prod(loader.image_shape)
    step = compile_step(experiment, form.step, over, size)
    several = None
    if steps_per_call != 1:
        values = experiment.data.batch_size * size
        options = choose_options(experiment.train.steps, values, over)
        several = compile_steps(form.step, over, options)
    values = _round_batch(experiment, over) * size
    options = choose_options(experiment.train.steps, values, over)
    evaluation = compile_evaluation(make_evaluation_step(parts.model, loader), over, options)
    return Functions(form, step, several, evaluation)


def split_seed_keys(seeds: Sequence[int]) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns the keys of the initial parameters, and those of the steps, a key per seed."""
    pairs = [jax.random.split(jax.random.key(seed)) for seed in seeds]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


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
        return multi_seed.alone(one)
    image = jax.ShapeDtypeStruct((1, *loader.image_shape), "float32")
    params, _ = jax.eval_shape(parts.model.init, jax.random.key(0), image)
    return multi_seed.form(one, over.devices.flat[0].platform, params)


def compile_step(experiment: Experiment, step: Step, over: Mesh, image_values: int) -> Step:
    """Returns the step compiled as the run's is: as jit or pmap, with the platform's options.

    Args:
      experiment: The run.
      step: Of `make_step`.
      over: The devices.
      image_values: Values of one image, H * W * C.
    """
    train, values = experiment.train, experiment.data.batch_size * image_values
    if over.devices.flat[0].platform == "cpu":
        settings.keep_memory(values)
    if train.check_numerics:
        return compile_checked(step, over)
    return compile_train(step, train.parallel, over, choose_options(train.steps, values, over))


def choose_options(steps: int, values: int, over: Mesh) -> dict[str, bool] | None:
    """Returns XLA's compiler options of a run's training step, or of its evaluation.

    Args:
      steps: Of the run.
      values: Values of a batch, B * H * W * C.
      over: The devices.
    """
    if over.devices.flat[0].platform != "cpu":
        return None
    return settings.choose_compiler_options(steps, values)


def _find_shard(experiment: Experiment, over: Mesh) -> tuple[int, int]:
    """Returns (i, n): this process draws the i-th of n parts of each batch."""
    if len({device.process_index for device in over.devices.flat}) == 1:
        return (0, 1)
    if experiment.train.parallel == "pmap":
        raise UserError(
            "train.parallel=pmap: JAX maps over the devices of one process; several processes take"
            " train.parallel=jit"
        )
    return jax.process_index(), jax.process_count()


def _find_steps_per_call(experiment: Experiment, over: Mesh, shard: tuple[int, int]) -> int:
    """Returns the run's steps per call; 0: the loop chooses them."""
    size = experiment.train.steps_per_call
    if size > 1 and shard[1] > 1:
        raise UserError(f"train.steps_per_call={size}: of one process only, not of several")
    single = (
        over.devices.flat[0].platform in SINGLE_STEP_PLATFORMS
        or shard[1] > 1
        or explain_single_steps(experiment)
    )
    return 1 if single and not size else size


def _choose_batches(
    experiment: Experiment,
    parts: Components,
    loaders: list[data.Loader],
    over: Mesh,
    shard: tuple[int, int],
) -> Batches:
    """Returns where the step's batches come from, put on the devices ahead where that helps."""

    def zip_batches(start: int) -> Iterator[Any]:
        return zip(*(loader.batches(start) for loader in loaders), strict=True)

    batches: Batches = loaders[0].batches if len(loaders) == 1 else zip_batches
    alone = len(loaders) == 1 and experiment.train.parallel == "jit"
    if shard[1] > 1 or (parts.dataset.streamed and alone):
        return functools.partial(_prefetch, mesh.sharded(over), batches)
    return batches


def _round_batch(experiment: Experiment, over: Mesh) -> int:
    """Returns an evaluation's batch, rounded up to the devices: rows that fill it are masked."""
    return -(-experiment.data.eval_batch_size // over.size) * over.size


def _make_evaluation(
    step: EvaluationStep,
    experiment: Experiment,
    parts: Components,
    over: Mesh,
    shard: tuple[int, int],
) -> Callable[[State], dict[str, float]]:
    config = replace(experiment.data, eval_batch_size=_round_batch(experiment, over))
    loader = data.make_loader(config, parts.dataset, shard=shard)
    if shard[1] > 1:
        ahead = functools.partial(_prefetch, mesh.sharded(over), loader.batches)
        loader = loader._replace(batches=ahead)
    arrays = mesh.put(loader.arrays, mesh.replicated(over))

    def evaluate(state: State) -> dict[str, float]:
        return evaluate_single(step, parts.model, state.params, state.stats, loader, arrays)

    return evaluate


def _make_measurement(
    experiment: Experiment, parts: Components, loaders: dict[int, data.Loader], arrays: Any
) -> Callable[[State, int], list[dict[str, Any]]] | None:
    """Returns what measures a seed's layers, on its first batch without augmentation."""
    if not experiment.log.layer_statistics:
        return None
    if jax.process_count() > 1:
        raise UserError("log.layer_statistics: measured by one process only, not by several")
    model = layer_statistics.make_measured_model(experiment, parts.dataset.num_classes)
    loader, *_ = loaders.values()

    def measure(params: Any, stats: Any, arrays: Any, item: Any, key: jax.Array) -> Any:
        batch = loader.fetch(arrays, item)
        images = loader.preprocess(arrays, batch["image"])
        return layer_statistics.measure(model, params, stats, images, batch["label"], key)

    compiled = jax.jit(measure)
    image = jax.ShapeDtypeStruct((experiment.data.batch_size, *loader.image_shape), "float32")

    @functools.cache
    def first_batch(seed: int) -> Any:
        with contextlib.closing(loaders[seed].batches(0)) as batches:
            return next(batches)

    def measure_seed(state: State, seed: int) -> list[dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(seed), int(state.step))
        found = compiled(state.params, state.stats, arrays, first_batch(seed), key)
        kinds = layer_statistics.list_layers(model, state.params, state.stats, image)
        return layer_statistics.to_json(found, kinds)

    return measure_seed


def _prefetch(sharding: NamedSharding, batches: Batches, start: int) -> Generator[Any, None, None]:
    return data.prefetch_to_device(batches(start), sharding)
