"""A run's training program: its state, its compiled step and evaluation, and its batches."""

import functools
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from cnn_jax import data, distributed
from cnn_jax import mesh as meshes
from cnn_jax.config import Experiment
from cnn_jax.errors import UserError
from cnn_jax.evaluation.during_training import EvaluationStep, evaluate_single
from cnn_jax.training import layer_statistics, multi_seed
from cnn_jax.training.compiled_functions import (
    FunctionCache,
    compile_functions,
    find_base_rate,
    leave_out_inputs,
    round_batch,
)
from cnn_jax.training.components import Components, advise, explain_single_steps, make_components
from cnn_jax.training.first_steps import FirstProgram
from cnn_jax.training.state import State, Step, init_state
from cnn_jax.training.steps_per_call import SINGLE_STEP_PLATFORMS, stack_batches

Batches = Callable[[int], Iterator[Any]]


class TrainProgram(NamedTuple):
    """The compiled functions, initial state and batches of a run.

    Attributes:
      state: The state before the first step; for several seeds the result of `join`.
      compiled_step: (state, inputs, batch) -> state.
      inputs: The loader's arrays, the seeds' keys and the base rate, on the devices.
      batches: batches(k) yields the batches of step k and of later steps.
      evaluate: (state of one seed) -> metrics of the single view.
      error_name: Name of the model's error, such as top1_error.
      images_per_epoch: Number of training images of an epoch.
      join: Function from the states of the seeds to the joint state. A single seed's joint state is
        its own.
      split: The inverse of `join`.
      description: Description of the data set, for the run's data.json.
      steps_per_call: The largest number of steps that one call makes; 0: the loop chooses it.
      compiled_steps: (state, inputs, stacked batches) -> state after several updates; None if each
        call makes a single step.
      first: The programs of the run's first steps; None: `compiled_step` makes them.
      measure_layers: (state of one seed, the seed) -> the layers of a line of layers.jsonl; None if
        the run measures no layers.
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
    first: FirstProgram | None = None
    measure_layers: Callable[[State, int], list[dict[str, Any]]] | None = None

    def step(self, state: Any, batch: Any) -> Any:
        """Returns the state after one update with the batch."""
        return self.compiled_step(state, self.inputs, batch)

    def advance(self, state: Any, batches: Sequence[Any]) -> Any:
        """Returns the state after one update with each of the batches. All are made in one call."""
        if len(batches) == 1:
            return self.step(state, batches[0])
        assert self.compiled_steps is not None  # The loop asks for no more than steps_per_call.
        return self.compiled_steps(state, self.inputs, stack_batches(batches))


def build_program(
    experiment: Experiment,
    dataset: data.Dataset | None = None,
    devices: list[jax.Device] | None = None,
    seeds: Sequence[int] = (),
    cache: FunctionCache | None = None,
) -> TrainProgram:
    """Builds the training program of a run. JAX compiles its functions when they are first called.

    Args:
      experiment: The run.
      dataset: The data set, if it is loaded already; None: the experiment's is loaded.
      devices: The devices that share a batch; None: all devices.
      seeds: The seeds that train in one program; empty: experiment.seed alone.
      cache: Cache of the last run's compiled functions. If the run's program is the same, they
        are used; otherwise those of this run replace them. None: no cache.

    Raises:
      UserError: As `make_components` does.
    """
    mesh, seeds = meshes.make_batch_mesh(devices), seeds or (experiment.seed,)
    shard = _find_shard(experiment, mesh)
    parts = make_components(experiment, dataset, mesh.size, len(seeds))
    if distributed.is_primary():
        for line in (*data.summarize_dataset(parts.dataset), *advise(experiment)):
            print(line, file=sys.stderr)
    loaders = [data.make_loader(experiment.data, parts.dataset, seed, shard) for seed in seeds]
    init_keys, step_keys = split_seed_keys(seeds)

    image = jax.ShapeDtypeStruct((1, *loaders[0].image_shape), "float32")
    states = [init_state(parts.model, parts.optimizer, key, image) for key in init_keys]
    states = meshes.put(states, meshes.make_replicated_sharding(mesh))
    size = _find_steps_per_call(experiment, mesh, shard)
    compile_all = functools.partial(
        compile_functions, experiment, parts, loaders[0], len(seeds), mesh, size
    )
    base = find_base_rate(experiment, parts.dataset)
    depends_on = (  # All that decides which functions are compiled.
        leave_out_inputs(experiment, base),
        base and base.schedule,
        parts.dataset.num_classes,
        parts.dataset.streamed,
        loaders[0].images_per_epoch,
        loaders[0].image_shape,
        len(seeds),
        mesh,
        size,
    )
    functions = (cache or FunctionCache()).find_or_make(depends_on, compile_all)
    form = functions.form
    keys = tuple(map(jax.random.key_data, step_keys))
    inputs = meshes.put(
        multi_seed.Inputs(loaders[0].arrays, keys, base and base.rate),
        meshes.make_replicated_sharding(mesh),
    )
    of_seeds = dict(zip(seeds, loaders, strict=True))
    return TrainProgram(
        state=form.join(states),
        compiled_step=functions.step,
        inputs=inputs,
        batches=_choose_batches(experiment, parts, loaders, mesh, shard),
        evaluate=_make_evaluation(functions.evaluation, experiment, parts, mesh, shard),
        error_name=parts.model.error_name,
        images_per_epoch=loaders[0].images_per_epoch,
        join=form.join,
        split=form.split,
        description=data.describe_dataset(parts.dataset),
        steps_per_call=size,
        compiled_steps=functions.steps,
        first=functions.first,
        measure_layers=layer_statistics.make_measurement(
            experiment, parts, of_seeds, inputs.arrays
        ),
    )


def split_seed_keys(seeds: Sequence[int]) -> tuple[list[jax.Array], list[jax.Array]]:
    """Derives the random keys of each seed.

    Args:
      seeds: The seeds.

    Returns:
      (keys of the initial parameters, keys of the steps), one key for each seed.
    """
    pairs = [jax.random.split(jax.random.key(seed)) for seed in seeds]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _find_shard(experiment: Experiment, mesh: Mesh) -> tuple[int, int]:
    """Returns (i, n): this process draws the i-th of n parts of each batch."""
    if len({device.process_index for device in mesh.devices.flat}) == 1:
        return (0, 1)
    if experiment.train.parallel == "pmap":
        raise UserError(
            "train.parallel=pmap: JAX maps over the devices of one process; several processes take"
            " train.parallel=jit"
        )
    return jax.process_index(), jax.process_count()


def _find_steps_per_call(experiment: Experiment, mesh: Mesh, shard: tuple[int, int]) -> int:
    """Returns the run's number of steps per call; 0: the loop chooses it."""
    size = experiment.train.steps_per_call
    if size > 1 and shard[1] > 1:
        raise UserError(f"train.steps_per_call={size}: of one process only, not of several")
    single = (
        mesh.devices.flat[0].platform in SINGLE_STEP_PLATFORMS
        or shard[1] > 1
        or explain_single_steps(experiment)
    )
    return 1 if single and not size else size


def _choose_batches(
    experiment: Experiment,
    parts: Components,
    loaders: list[data.Loader],
    mesh: Mesh,
    shard: tuple[int, int],
) -> Batches:
    """Returns the function that yields the batches from a step on.

    Streamed batches, and those of several processes, are copied to the devices ahead of the step.
    """

    def zip_batches(start: int) -> Iterator[Any]:
        return zip(*(loader.batches(start) for loader in loaders), strict=True)

    batches: Batches = loaders[0].batches if len(loaders) == 1 else zip_batches
    alone = len(loaders) == 1 and experiment.train.parallel == "jit"
    if shard[1] > 1 or (parts.dataset.streamed and alone):
        return functools.partial(_prefetch, meshes.make_batch_sharding(mesh), batches)
    return batches


def _make_evaluation(
    step: EvaluationStep,
    experiment: Experiment,
    parts: Components,
    mesh: Mesh,
    shard: tuple[int, int],
) -> Callable[[State], dict[str, float]]:
    """Returns the function that evaluates the state of one seed, on all devices."""
    config = replace(experiment.data, eval_batch_size=round_batch(experiment, mesh))
    loader = data.make_loader(config, parts.dataset, shard=shard)
    if shard[1] > 1:
        ahead = functools.partial(_prefetch, meshes.make_batch_sharding(mesh), loader.batches)
        loader = loader._replace(batches=ahead)
    arrays = meshes.put(loader.arrays, meshes.make_replicated_sharding(mesh))

    def evaluate(state: State) -> dict[str, float]:
        return evaluate_single(step, parts.model, state.params, state.stats, loader, arrays)

    return evaluate


def _prefetch(sharding: NamedSharding, batches: Batches, start: int) -> Generator[Any, None, None]:
    """Yields the batches from a step on, copied to the devices ahead of their use."""
    return data.prefetch_to_device(batches(start), sharding)
