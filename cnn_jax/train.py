"""run(experiment, workdir): one training run from its configuration to its files, continued where it was cut off."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import orbax.checkpoint as ocp
import tqdm

from cnn_jax import checkpoint, cpu, data, log, mesh, models, optim, step
from cnn_jax.config import Experiment, UserError, check


def run(experiment: Experiment, workdir: str | Path) -> dict[str, Any]:
    """Trains to experiment.train.steps and returns the last evaluation: step, epoch, loss, error (0 to 1), images.

    The files are in <workdir>/<name>/seed<k>. A finished run is not repeated; one that was cut off continues
    from its last checkpoint, bit for bit as if it had not been. Raises UserError for a mistake in the
    configuration, a folder that holds another one, data that is not prepared, or a loss that is not finite.
    """
    folder = log.run_folder(experiment, workdir)
    log.check(experiment, folder)
    log.check_finite(experiment, folder)
    if done := log.finished(folder):
        return done
    cpu.keep_memory()
    with jax.default_matmul_precision(experiment.train.precision):
        parts = build(experiment)  # before anything is written: a mistake leaves nothing behind
        log.claim(experiment, folder)
        with checkpoint.manager(folder) as checkpoints:
            state = checkpoint.restore(checkpoints, parts.state) or parts.state
            with log.opened(experiment, folder, int(state.step)) as (write, bar):
                _loop(experiment, parts, state, checkpoints, write, bar)
    return log.finished(folder)


class Parts(NamedTuple):
    """A run put together: its first state, the compiled steps, and what they are fed."""

    state: step.State
    train_step: Callable  # (state, arrays, item) -> state
    evaluate: Callable[[step.State], dict[str, float]]
    arrays: Any
    items: Callable  # items(k): an iterator over those of step k and on
    images_per_epoch: int


def ingredients(config: Experiment, source: data.Source | None = None, devices: int | None = None) -> tuple:
    """(source, model, transformation, pmapped axis) that a run is made of, on its own data or that given.

    Compiles nothing; raises UserError for a mistake in the configuration, or data that is not prepared.
    """
    check(config)
    mesh.check_divides(config.data.batch_size, devices or jax.device_count(), "data.batch_size")
    source = source or data.splits(config.data)
    options = asdict(config.model)
    axis = mesh.BATCH if config.train.parallel == "pmap" else None
    model = models.create(options.pop("name"), source.num_classes, axis=axis, **options)
    return source, model, optim.transformation(config.optim), axis


def build(config: Experiment, source: data.Source | None = None, devices: list[jax.Device] | None = None) -> Parts:
    """Puts a run together, on other data or fewer devices than its own if given; raises what `ingredients` does."""
    mesh_of = mesh.batch_mesh(devices)
    source, model, tx, axis = ingredients(config, source, mesh_of.size)
    # Rows that fill up an evaluation's last batch are masked: its size may be rounded up to suit the devices.
    rounded = -(-config.data.eval_batch_size // mesh_of.size) * mesh_of.size
    feed = data.batches(config.data, source, config.seed)
    test_feed = data.batches(replace(config.data, eval_batch_size=rounded), source)

    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    image = jax.ShapeDtypeStruct((1, *source.train.images.shape[1:]), "float32")
    state = jax.device_put(step.init_state(model, tx, init_key, image), mesh.replicated(mesh_of))
    train_step = step.compile_train(
        step.train_step(model, tx, feed, step_key, axis, config.train.label_smoothing), config.train.parallel, mesh_of
    )
    test_step = step.compile_evaluate(step.evaluate_step(model, test_feed), mesh_of)
    arrays, test_arrays = jax.device_put((feed.arrays, test_feed.arrays), mesh.replicated(mesh_of))
    evaluate = lambda state: step.evaluate(test_step, state, test_feed, test_arrays)  # noqa: E731
    return Parts(state, train_step, evaluate, arrays, feed.items, feed.images)


def _loop(
    experiment: Experiment,
    parts: Parts,
    state: step.State,
    checkpoints: ocp.CheckpointManager,
    write: log.Write,
    bar: tqdm.tqdm,
) -> None:
    train, batch, now = experiment.train, experiment.data.batch_size, time.perf_counter
    done = int(state.step)
    items = parts.items(done)
    since, waited, counted, drawn = now(), 0.0, done, now()  # of the log interval
    for k in range(done + 1, train.steps + 1):
        start = now()
        item = next(items)
        waited += now() - start
        state = parts.train_step(state, parts.arrays, item)

        evaluates = k % train.eval_every == 0 or k == train.steps
        saves = k % train.save_every == 0 or evaluates
        logs = k % train.log_every == 0 or saves  # so that an interval holds training and nothing else
        if logs or k == done + 1 or now() - drawn > 0.5:
            jax.block_until_ready(state.step)  # seldom enough to keep the device busy
            bar.update(k - bar.n)
            drawn = now()
        if logs:
            here = {"step": k, "epoch": round(k * batch / parts.images_per_epoch, 4)}
            if (bad := int(state.nan_step)) >= 0:
                _stop(experiment, bad, checkpoints, write)
            state = _log(here, state, batch, k - counted, now() - since, waited, write, bar)
            error = None
            if evaluates:
                found = parts.evaluate(state)
                # Batch norm's averages may be far off after few steps: the run goes on, though JSON has no infinity.
                found["loss"] = found["loss"] if math.isfinite(found["loss"]) else None
                write("eval", **here, **found)
                error = found["error"]
                state = state.replace(opt=optim.observe(state.opt, error))
            if saves:
                checkpoint.save(checkpoints, state, error)
        if logs or k == done + 1:  # the first step compiles: it does not count, unless it is all there is
            since, waited, counted = now(), 0.0, k
    checkpoints.wait_until_finished()
    write("end", step=train.steps)


def _log(
    here: dict[str, float],
    state: step.State,
    batch: int,
    steps: int,
    seconds: float,
    waited: float,
    write: log.Write,
    bar: tqdm.tqdm,
) -> step.State:
    """Writes the means since the last line, of which `steps` took `seconds`, `waited` of them for data."""
    count = int(state.sums["steps"])
    means = {name: float(state.sums[name]) / count for name in ("loss", "error")}
    speed = {"images_per_s": steps * batch / seconds, "data_time": waited / steps, "step_time": seconds / steps}
    write("train", **here, **means, lr=float(optim.current_rate(state.opt)), **speed)
    bar.set_postfix_str(
        f"error {means['error']:.1%}, {speed['images_per_s']:.0f} images/s, data wait {waited / seconds:.0%}"
    )
    # zeros_like leaves them where they lie: with arrays laid out anew the step would be compiled again.
    return state.replace(sums=jax.tree.map(jax.numpy.zeros_like, state.sums))


def _stop(experiment: Experiment, bad: int, checkpoints: ocp.CheckpointManager, write: log.Write) -> NoReturn:
    """Ends a run whose loss is not finite after `bad` updates; the last checkpoint from before that is kept."""
    write("nan", step=bad)
    checkpoints.wait_until_finished()
    for saved in [s for s in checkpoints.all_steps() if s >= bad]:
        checkpoints.delete(saved)  # the state that gave such a loss, saved before it did
    good = checkpoints.latest_step()
    kept = f"step {good} is saved in {checkpoints.directory}" if good else "nothing was saved before it"
    raise UserError(
        f"{experiment.name or experiment.model.name}: the loss is not finite at step {bad}; {kept}. Start in another"
        f" --workdir with a lower rate than --set optim.learning_rate={experiment.optim.learning_rate:g}"
    )
