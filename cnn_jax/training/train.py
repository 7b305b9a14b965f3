"""run(experiment, workdir): one training run from its configuration to its files, continued where it was cut off."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import orbax.checkpoint as ocp
import tqdm

from cnn_jax import data, distributed, mesh, models
from cnn_jax.config import Experiment, check
from cnn_jax.cpu import settings
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.optim import optimizers
from cnn_jax.training import checkpoint, metrics_log, multi_seed, profile, run_lock, train_step, watchdog


def run(experiment: Experiment, workdir: str | Path) -> dict[str, Any]:
    """Trains to experiment.train.steps and returns the last evaluation: step, epoch, loss, error (0 to 1), images.

    The files are in <workdir>/<name>/seed<k>. A finished run is not repeated; one that was cut off continues
    from its last checkpoint, bit for bit as if it had not been. Raises UserError for a mistake in the
    configuration, a folder that holds another one, data that is not prepared, or a loss that is not finite.
    """
    found = run_seeds(experiment, [experiment.seed], workdir)[experiment.seed]
    if isinstance(found, UserError):
        raise found
    return found


def run_seeds(
    experiment: Experiment, seeds: Sequence[int], workdir: str | Path, profiled: int = 0
) -> dict[int, dict | UserError]:
    """Trains the run with each of the seeds, all in one program; returns by seed what `run` does, or would raise.

    Each seed's files and, but for rounding, numbers are those of its run alone. One whose loss is not finite ends, and
    the others go on. Those that stand at an earlier checkpoint than others first catch up. In metrics.jsonl step_time
    is that of all seeds' step, images_per_s counts the images of the one.

    profiled: so many steps are traced, once they take as long as they will (`profile.traced`).
    Raises UserError for whatever stops them all.
    """
    runs = {seed: replace(experiment, seed=seed) for seed in seeds}
    folders = {seed: metrics_log.run_folder(one, workdir) for seed, one in runs.items()}
    for seed, folder in folders.items():
        metrics_log.check(runs[seed], folder)
    failed = {seed: e for seed, folder in folders.items() if (e := metrics_log.stopped(runs[seed], folder))}
    left = lambda: [seed for seed in runs if seed not in failed and not metrics_log.finished(folders[seed])]  # noqa: E731
    while stands := {seed: checkpoint.newest(folders[seed]) for seed in left()}:
        least = min(stands.values())
        until = min((step for step in stands.values() if step > least), default=experiment.train.steps)
        failed |= _train({runs[seed]: folders[seed] for seed in stands if stands[seed] == least}, until, profiled)
        distributed.meet("the end of a run")  # else one might read its files before the first one has written them
    return {seed: failed.get(seed) or metrics_log.finished(folder) for seed, folder in folders.items()}


def _train(runs: dict[Experiment, Path], until: int, profiled: int) -> dict[int, UserError]:
    """Trains runs that differ in their seed alone to the step `until`; returns what ended some before."""
    first, *_ = runs
    with jax.default_matmul_precision(first.train.precision), contextlib.ExitStack() as stack:
        if first.train.debug:
            stack.enter_context(jax.numpy_rank_promotion("raise"))
            stack.enter_context(jax.numpy_dtype_promotion("strict"))
        parts = build(first, seeds=[run.seed for run in runs])  # before any writing: a mistake leaves nothing behind
        for run, folder in runs.items() if distributed.first() else ():
            metrics_log.claim(run, folder)
            stack.enter_context(run_lock.held(folder))
        saved = [stack.enter_context(checkpoint.opened(folder)) for folder in runs.values()]
        states = [_restored(*each) for each in zip(runs.items(), saved, parts.split(parts.state), strict=True)]
        done = int(states[0].step)
        if any(int(state.step) != done for state in states):  # one was not readable, and is deleted: begin again
            return {}
        if profiled and distributed.first():
            folder, left = next(iter(runs.values())), until - done
            parts = parts._replace(train_step=profile.traced(parts.train_step, folder, profiled, left))
        seen = [done and checkpoint.evaluated(each, done) for each in saved]
        opened = [
            stack.enter_context(
                metrics_log.opened(*run, done, evaluated) if distributed.first() else metrics_log.silent()
            )
            for run, evaluated in zip(runs.items(), seen, strict=True)
        ]
        writers = [Writer(run, s, *each) for run, s, each in zip(runs, saved, opened, strict=True)]
        try:
            with watchdog.over(first.train.watchdog) as watched:
                return _loop(first, parts, states, writers, until, watched)
        except OSError as e:  # of metrics.jsonl or TensorBoard
            raise UserError(f"cannot write to {folder} ({e.strerror}): make room; the same command continues") from None


def _restored(run: tuple[Experiment, Path], saved: ocp.CheckpointManager, new: train_step.State) -> train_step.State:
    """The state that a run goes on from: its own checkpoint's, or another run's parameters, or a new one."""
    (experiment, folder), start = run, run[0].train.start_from
    if found := checkpoint.restore(saved, new):
        return found
    if not start:
        return new
    other = folder.parent.with_name(start) / folder.name
    if not metrics_log.finished(other):
        raise UserError(f"{experiment.name}: starts from {start}, which is not finished in {other}: run that first")
    return checkpoint.start_from(new, other, experiment.train.start_layers)


SKIPPED = 20  # updates one after another that are skipped before a run ends: it would skip all that follow


class Parts(NamedTuple):
    """A run put together: its first state, the compiled steps, and what they are fed."""

    state: train_step.State
    train_step: Callable  # (state, arrays, item) -> state
    evaluate: Callable[[train_step.State], dict[str, float]]  # of one seed
    arrays: Any
    items: Callable  # items(k): an iterator over those of step k and on
    images_per_epoch: int
    join: Callable  # the seeds' states -> state; that of one seed is its own
    split: Callable  # undoes join


def ingredients(
    config: Experiment, source: data.Source | None = None, devices: int | None = None, seeds: int = 1
) -> tuple:
    """(source, model, transformation, pmapped axis) that a run is made of, on its own data or that given.

    Compiles nothing; raises UserError for a mistake in the configuration, or data that is not prepared.
    """
    check(config)
    if config.train.debug and (seeds > 1 or config.train.parallel != "jit"):
        raise UserError("train.debug=true: checks one seed at a time, with --parallel=jit")
    if seeds > 1 and config.train.parallel != "jit":
        raise UserError(f"train.parallel={config.train.parallel}: seeds are trained together only with --parallel=jit")
    mesh.check_divides(config.data.batch_size, devices or jax.device_count(), "data.batch_size")
    source = source or data.splits(config.data)
    options = asdict(config.model)
    axis = mesh.BATCH if config.train.parallel == "pmap" else None
    model = models.create(options.pop("name"), source.num_classes, axis=axis, **options)
    return source, model, optimizers.transformation(config.optim), axis


def build(
    config: Experiment,
    source: data.Source | None = None,
    devices: list[jax.Device] | None = None,
    seeds: Sequence[int] = (),
) -> Parts:
    """Puts a run together, on other data or fewer devices than its own if given; raises what `ingredients` does.

    seeds: trained together in place of config.seed; the state, if there are several, is then what `join` makes.
    """
    mesh_of, seeds = mesh.batch_mesh(devices), seeds or (config.seed,)
    several = len({device.process_index for device in mesh_of.devices.flat}) > 1
    if several and config.train.parallel == "pmap":
        raise UserError("--parallel=pmap: JAX maps over the devices of one process; several take --parallel=jit")
    platform = mesh_of.devices.flat[0].platform
    source, model, tx, axis = ingredients(config, source, mesh_of.size, len(seeds))
    # Rows that fill up an evaluation's last batch are masked: its size may be rounded up to suit the devices.
    rounded = -(-config.data.eval_batch_size // mesh_of.size) * mesh_of.size
    shard = (jax.process_index(), jax.process_count()) if several else (0, 1)
    feeds = [data.batches(config.data, source, seed, shard) for seed in seeds]
    feed, test_feed = feeds[0], data.batches(replace(config.data, eval_batch_size=rounded), source, shard=shard)

    init_keys, step_keys = zip(*(jax.random.split(jax.random.key(seed)) for seed in seeds), strict=True)
    image = jax.ShapeDtypeStruct((1, *feed.shape), "float32")
    states = [train_step.init_state(model, tx, key, image) for key in init_keys]
    states = mesh.put(states, mesh.replicated(mesh_of))
    softened = config.train.label_smoothing, config.data.mixup
    skip = config.train.on_nan == "skip"
    make = lambda key: train_step.train_step(model, tx, feed, key, axis, *softened, skip)  # noqa: E731
    if len(seeds) == 1:
        form, items = multi_seed.alone(make, step_keys), feed.items
    else:
        form = multi_seed.form(make, step_keys, platform)
        items = lambda k: zip(*(each.items(k) for each in feeds), strict=True)  # noqa: E731
    streamed = not isinstance(source.train, data.Split) and len(seeds) == 1 and config.train.parallel == "jit"
    placed = functools.partial(_placed, mesh.sharded(mesh_of))
    if several or streamed:  # on the devices before the step wants it
        items = functools.partial(placed, items)
    if several:
        test_feed = test_feed._replace(items=functools.partial(placed, test_feed.items))
    values = config.data.batch_size * image.size
    options = None
    if platform == "cpu":
        settings.keep_memory(values)
        options = settings.compiler_options(config.train.steps, values)
    if config.train.debug:
        compiled = train_step.compile_checked(form.step, mesh_of)
    else:
        compiled = train_step.compile_train(form.step, config.train.parallel, mesh_of, options)
    test_step = train_step.compile_evaluate(train_step.evaluate_step(model, test_feed), mesh_of)
    arrays, test_arrays = mesh.put((feed.arrays, test_feed.arrays), mesh.replicated(mesh_of))
    evaluate = lambda state: train_step.evaluate(test_step, state, test_feed, test_arrays)  # noqa: E731
    return Parts(form.join(states), compiled, evaluate, arrays, items, feed.images, form.join, form.split)


def _placed(sharding: jax.sharding.Sharding, items: Callable, start: int) -> Iterator:
    from cnn_jax.data import streaming  # brings OpenCV

    return streaming.ahead(items(start), sharding)


class Writer(NamedTuple):
    """Where what happens to one seed is written."""

    run: Experiment
    checkpoints: ocp.CheckpointManager
    write: metrics_log.Write
    bar: tqdm.tqdm


def _loop(
    experiment: Experiment,
    parts: Parts,
    states: list[train_step.State],
    writers: list[Writer],
    until: int,
    watched: watchdog.Watch,
) -> dict[int, UserError]:
    train, batch, now = experiment.train, experiment.data.batch_size, time.perf_counter
    done = int(states[0].step)
    failed: dict[int, UserError] = {}
    due = lambda k: k % train.eval_every == 0 or k == train.steps
    here = lambda k: {"step": k, "epoch": round(k * batch / parts.images_per_epoch, 4)}
    for i, writer in enumerate(writers):
        if done and due(done) and not checkpoint.evaluated(writer.checkpoints, done):  # it was stopped before that
            states[i] = _evaluated(here(done), states[i], writer, parts, watched)
    state, items = parts.join(states), parts.items(done)
    since, waited, counted, drawn = now(), 0.0, done, now()  # of the log interval
    for k in range(done + 1, until + 1):
        start = now()
        try:
            watched.enter("data")
            item = next(items)
            watched.enter("compile" if k == done + 1 else "step")
        except watchdog.StopError as signal:
            _leave(parts.split(state), writers, failed, signal)
        waited += now() - start
        state = parts.train_step(state, parts.arrays, item)

        saves = k % train.save_every == 0 or due(k) or k == until
        logs = k % train.log_every == 0 or saves  # so that an interval holds training and nothing else
        if logs or k == done + 1 or now() - drawn > 0.5:
            jax.block_until_ready(state)  # seldom enough to keep the device busy
            for writer in writers:
                writer.bar.update(k - writer.bar.n)
            drawn = now()
        if logs:
            steps, seconds = k - counted, now() - since
            states = list(parts.split(state))
            for i, writer in enumerate(writers):
                if writer.run.seed in failed:  # it is computed on with the others
                    continue
                bad, some = int(states[i].nan_step), SKIPPED if train.on_nan == "skip" else 1
                if bad >= 0 and k - bad >= some:
                    failed[writer.run.seed] = _stop(bad, writer)
                    continue
                states[i] = _log(here(k), states[i], batch, steps, seconds, waited, writer)
                if due(k):
                    states[i] = _evaluated(here(k), states[i], writer, parts, watched)
                elif saves:
                    watched.enter("save")
                    checkpoint.save(writer.checkpoints, states[i], None)
            if len(failed) == len(writers):
                break
            state = parts.join(states)
        if logs or k == done + 1:  # the first step compiles: it does not count, unless it is all there is
            since, waited, counted = now(), 0.0, k
        if k < until and (signal := watched.told()):
            _leave(parts.split(state), writers, failed, signal)
    if hasattr(items, "close"):
        items.close()  # ends the processes that decode
    watched.enter("save")
    for writer in writers:
        checkpoint.wait(writer.checkpoints)
        if until == train.steps and writer.run.seed not in failed:
            writer.write("end", step=until)
    return failed


def _leave(
    states: Iterable[train_step.State], writers: list[Writer], failed: dict[int, UserError], signal: object
) -> NoReturn:
    """Saves what is not saved at this step, and raises StoppedError.

    Nothing is logged: the sums of the log interval are part of the state, and go on when it is continued.
    """
    for state, writer in zip(states, writers, strict=True):
        k = int(state.step)
        good = int(state.nan_step) < 0 or writer.run.train.on_nan == "skip"
        if k and writer.run.seed not in failed and k not in writer.checkpoints.all_steps() and good:
            checkpoint.save(writer.checkpoints, state, None)
        checkpoint.wait(writer.checkpoints)
    raise StoppedError(f"stopped by {signal} at step {k}, which is saved; the same command continues from there")


def _log(
    here: dict[str, float],
    state: train_step.State,
    batch: int,
    steps: int,
    seconds: float,
    waited: float,
    writer: Writer,
) -> train_step.State:
    """Writes the means since the last line, of which `steps` took `seconds`, `waited` of them for data."""
    count = int(state.sums["steps"])
    means = {name: float(state.sums[name]) / count if count else None for name in ("loss", "error")}
    for name in ("bad_images", "skipped"):  # images others stood in for; updates that were left out
        if number := int(state.sums[name]):
            means[name] = number
    speed = {"images_per_s": steps * batch / seconds, "data_time": waited / steps, "step_time": seconds / steps}
    writer.write("train", **here, **means, lr=float(optimizers.current_rate(state.opt)), **speed)
    writer.bar.set_postfix_str(
        f"error {means['error'] or 0:.1%}, {speed['images_per_s']:.0f} images/s, data wait {waited / seconds:.0%}"
    )
    # zeros_like leaves them where they lie: with arrays laid out anew the step would be compiled again.
    return state.replace(sums=jax.tree.map(jax.numpy.zeros_like, state.sums))


def _evaluated(
    here: dict[str, float], state: train_step.State, writer: Writer, parts: Parts, watched: watchdog.Watch
) -> train_step.State:
    """The state that has seen its error in an evaluation, which is written; it is saved."""
    try:
        watched.enter("evaluate")
        found = parts.evaluate(state)
        watched.enter("save")
    except watchdog.StopError as signal:
        _leave([state], [writer], {}, signal)
    # Batch norm's averages may be far off after few steps: the run goes on, though JSON has no infinity.
    found["loss"] = found["loss"] if math.isfinite(found["loss"]) else None
    writer.write("eval", **here, **found)
    state = state.replace(opt=optimizers.observe(state.opt, found["error"]))
    checkpoint.save(writer.checkpoints, state, found["error"])
    return state


def _stop(bad: int, writer: Writer) -> UserError:
    """Ends a run whose loss is not finite after `bad` updates; the last checkpoint from before that is kept."""
    experiment, checkpoints = writer.run, writer.checkpoints
    writer.write("nan", step=bad)
    checkpoint.wait(checkpoints)
    for saved in [s for s in checkpoints.all_steps() if s >= bad]:
        checkpoints.delete(saved)  # the state that gave such a loss, saved before it did
    good = checkpoints.latest_step()
    kept = f"step {good} is saved in {checkpoints.directory}" if good else "nothing was saved before it"
    what = "loss" if experiment.train.on_nan == "stop" else "loss or gradient"
    return UserError(
        f"{experiment.name or experiment.model.name}: the {what} is not finite at step {bad}; {kept}. Start in another"
        f" --workdir with a lower rate than --set optim.learning_rate={experiment.optim.learning_rate:g}"
    )
