"""The training step, a pure function, and the functions that compile it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify
from jax.sharding import Mesh

from cnn_jax import mesh as meshes
from cnn_jax.cpu import memory
from cnn_jax.data import Loader, augment
from cnn_jax.errors import UserError
from cnn_jax.evaluation.losses import compute_loss_and_error
from cnn_jax.models import Model
from cnn_jax.training.state import State, Step
from cnn_jax.training.steps_per_call import repeat_step


class StepParts(NamedTuple):
    """The parts of a training step besides its state and its batch.

    Attributes:
      model: The model.
      optimizer: The optimizer; its `update` takes the step's training error as `error`.
      loader: Fetches and preprocesses batches inside the step.
      key: The run's random key. Each step derives its own key from this key and the step number.
      axis: The pmapped axis over which the batch is split; None under jit.
      label_smoothing: Share of each label that is spread over all classes, 0 to 1.
      mixup: Alpha of mixup; 0: none. Under jit a row's partner is drawn from the whole batch; under
        pmap from the rows of the same device, and each device draws its own share. The numbers of
        jit and pmap therefore differ.
      skip_not_finite: Whether to skip updates whose loss or gradient is not finite. A skipped
        update changes only `step`, and no mean includes it.
      base: The schedule's base rate, [] float32; None: the rate is a constant of the optimizer.
    """

    model: Model
    optimizer: optax.GradientTransformationExtraArgs
    loader: Loader
    key: jax.Array
    axis: str | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    skip_not_finite: bool = False
    base: jax.Array | None = None


def train_step(parts: StepParts, state: State, arrays: Any, item: Any) -> State:
    """Returns the state after one update.

    All random numbers depend on (key, step, row), so that a resumed run draws the same numbers as
    an uninterrupted one.

    Args:
      parts: The parts that do not change between steps.
      state: The state before the update.
      arrays: The loader's arrays, on the devices.
      item: What the loader yields for this step: row numbers, or the batch itself.
    """
    augment_key, dropout_key, mixup_key = split_keys(parts, state.step)
    batch = parts.loader.fetch(arrays, item)
    rows = number_rows(batch, parts.axis)
    images = parts.loader.preprocess(arrays, batch["image"], augment_key, rows)
    mix = augment.mixup(mixup_key, images, batch["label"], parts.mixup) if parts.mixup else None
    images = mix[0] if mix else images

    def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        outputs, stats = parts.model.apply(params, state.stats, images, train=True, key=dropout_key)
        loss, error = compute_mean_loss_and_error(parts, outputs, images, batch["label"], mix)
        return loss, (error, stats)

    (loss, (error, stats)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    gradients, stats, loss, error = average((gradients, stats, loss, error), parts.axis)
    extra = {"error": error, "base": parts.base}
    updates, opt = parts.optimizer.update(gradients, state.opt, state.params, **extra)
    params = optax.apply_updates(state.params, updates)

    sums = add_to_sums(state.sums, loss, error, batch, parts.axis)
    fine = jnp.isfinite(loss)
    first_bad = jnp.where((state.nan_step < 0) & ~fine, state.step, state.nan_step)
    new = State(state.step + 1, params, stats, opt, sums, first_bad)
    return skip_if_not_finite(state, new, gradients, fine) if parts.skip_not_finite else new


def split_keys(parts: StepParts, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the random keys of a step for augmentation, dropout and mixup.

    Under pmap each device draws its own dropout masks and mixup partners. They differ from those
    under jit.

    Args:
      parts: The parts of the step.
      step: The step number, [] int32.
    """
    keys = jax.random.split(jax.random.fold_in(parts.key, step), 3)
    augment_key, dropout_key, mixup_key = keys
    if parts.axis:
        device = jax.lax.axis_index(parts.axis)
        dropout_key = jax.random.fold_in(dropout_key, device)
        mixup_key = jax.random.fold_in(mixup_key, device)
    return augment_key, dropout_key, mixup_key


def number_rows(batch: dict[str, jax.Array], axis: str | None) -> jax.Array:
    """Returns the numbers of the rows in the whole batch, [B] int32.

    Args:
      batch: The batch, or under pmap the rows of this device.
      axis: The pmapped axis; None under jit.
    """
    count = len(batch["label"])
    return jnp.arange(count) + (jax.lax.axis_index(axis) * count if axis else 0)


def compute_mean_loss_and_error(
    parts: StepParts, outputs: Any, images: jax.Array, labels: jax.Array, mix: tuple | None
) -> tuple[jax.Array, jax.Array]:
    """Returns the mean loss and the mean error of a batch, [] float32 each.

    With mixup, both are weighted means of the values with an image's own label and with the label
    of its partner.

    Args:
      parts: The parts of the step.
      outputs: The model's outputs for the images.
      images: [B, H, W, C] float32, preprocessed.
      labels: [B] int32.
      mix: The result of `augment.mixup`; None: no mixup.
    """

    def means(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        smoothing = parts.label_smoothing
        loss, error = compute_loss_and_error(parts.model, outputs, images, labels, smoothing)
        return loss.mean(), jnp.mean(error, dtype=jnp.float32)

    loss, error = means(labels)
    if mix is None:
        return loss, error
    _, partners, share = mix
    other_loss, other_error = means(partners)
    return share * loss + (1 - share) * other_loss, share * error + (1 - share) * other_error


def average(tree: Any, axis: str | None) -> Any:
    """Returns a tree's means over the pmapped devices, or the tree itself under jit (axis None)."""
    return jax.lax.pmean(tree, axis) if axis else tree


def add_to_sums(
    sums: dict[str, jax.Array],
    loss: jax.Array,
    error: jax.Array,
    batch: dict[str, jax.Array],
    axis: str | None,
) -> dict[str, jax.Array]:
    """Returns the sums of the log interval with the values of a step added.

    Args:
      sums: `State.sums` before the step.
      loss: The mean loss of the batch, [] float32.
      error: The mean error of the batch, [] float32.
      batch: The batch; `bad`, [B] bool, marks images that could not be decoded, if it has that.
      axis: The pmapped axis over which the batch is split; None under jit.
    """
    bad = jnp.int32(0)
    if "bad" in batch:
        bad = batch["bad"].sum()
        bad = jax.lax.psum(bad, axis) if axis else bad
    return {
        "loss": sums["loss"] + loss,
        "error": sums["error"] + error,
        "steps": sums["steps"] + 1,
        "bad_images": sums["bad_images"] + bad,
        "skipped": sums["skipped"],
    }


def skip_if_not_finite(old: State, new: State, gradients: Any, fine: jax.Array) -> State:
    """Returns the new state, or the old one with the next step number if a value is not finite.

    Args:
      old: The state before the update.
      new: The state after the update.
      gradients: The gradients of the update.
      fine: Whether the loss is finite, [] bool.
    """
    fine = jax.tree.reduce(lambda fine, g: fine & jnp.isfinite(g).all(), gradients, fine)
    counted = old.sums | {
        "skipped": old.sums["skipped"] + 1,
        "bad_images": new.sums["bad_images"],
    }
    nan_step = jnp.where(fine, -1, jnp.where(old.nan_step < 0, old.step, old.nan_step))
    stayed = old.replace(step=new.step, sums=counted, nan_step=nan_step)
    new = new.replace(nan_step=nan_step)
    return jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, stayed)


def compile_train(
    step: Step, parallel: str, mesh: Mesh, options: dict[str, Any] | None = None
) -> Step:
    """Returns the training step compiled over the mesh's devices.

    Args:
      step: step(state, inputs, batch) -> state.
      parallel: jit or pmap. A step under jit donates its input state.
      mesh: The devices that share a batch.
      options: XLA's compiler options for jit; pmap takes none.

    Returns:
      step(state, inputs, batch) -> state. JAX compiles it when it is first called. The rows of the
      batch are divided between the devices.
    """
    if parallel == "jit":
        whole, split = meshes.make_replicated_sharding(mesh), meshes.make_batch_sharding(mesh)
        jitted = jax.jit(
            step,
            in_shardings=(whole, whole, split),
            out_shardings=whole,
            donate_argnums=0,
            compiler_options=options,
        )
        return memory.trim_after_compiling(jitted)
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(step, meshes.BATCH, in_axes=(None, None, 0), out_axes=None, devices=devices)

    def split_rows(x: jax.Array) -> jax.Array:
        return x.reshape(len(devices), -1, *x.shape[1:])

    return lambda state, inputs, batch: mapped(state, inputs, jax.tree.map(split_rows, batch))


def compile_steps(step: Step, mesh: Mesh, options: dict[str, Any] | None = None) -> Step:
    """Returns a compiled function that makes several training steps in one call.

    Args:
      step: step(state, inputs, batch) -> state.
      mesh: The devices that share a batch.
      options: XLA's compiler options.

    Returns:
      (state, inputs, batches) -> state, as in `steps_per_call.repeat_step`. It donates its input
      state.
    """
    whole, split = meshes.make_replicated_sharding(mesh), meshes.make_steps_sharding(mesh)
    jitted = jax.jit(
        repeat_step(step),
        in_shardings=(whole, whole, split),
        out_shardings=whole,
        donate_argnums=0,
        compiler_options=options,
    )
    return memory.trim_after_compiling(jitted)


def compile_checked(step: Step, mesh: Mesh) -> Step:
    """Returns the training step compiled by jit with checks of every operation.

    The step takes several times as long as without checks. It does not donate its input state.

    Args:
      step: step(state, inputs, batch) -> state.
      mesh: The devices that share a batch.

    Returns:
      step(state, inputs, batch) -> state. It raises UserError with the source line of the first
      operation that gives NaN or divides by 0.
    """
    whole, split = meshes.make_replicated_sharding(mesh), meshes.make_batch_sharding(mesh)
    checked = checkify.checkify(step, checkify.float_checks)
    checked = jax.jit(checked, in_shardings=(whole, whole, split), out_shardings=whole)

    def run(state: State, inputs: Any, batch: Any) -> State:
        error, new = checked(state, inputs, batch)
        if found := error.get_exception():
            why = str(error.get()).strip().rstrip(".")
            where = _find_source_line(found)
            raise UserError(f"train.check_numerics: step {int(state.step)}: {why}, at {where}")
        return new

    return run


def _find_source_line(found: Exception) -> str:
    """Returns file:line (function) of an error of checkify, in our code or else outside of JAX."""
    lines = str(getattr(found, "traceback_info", "")).splitlines()  # Innermost first.
    ours = [line for line in lines if line.startswith(str(Path(__file__).parents[1]))]
    others = [line for line in lines if not line.startswith(str(Path(jax.__file__).parent))]
    return (ours or others or ["an unknown place"])[0]
