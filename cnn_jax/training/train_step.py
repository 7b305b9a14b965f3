"""The one training step and the one evaluation step: pure functions, and the two forms in which they compile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import checkify
from jax.sharding import Mesh

from cnn_jax import mesh as meshes
from cnn_jax.data import augment
from cnn_jax.errors import UserError


class State(flax.struct.PyTreeNode):
    """Everything that a step changes, in one tree.

    Attributes:
      step: [] int32, updates done.
      params: trained.
      stats: running averages of batch norm.
      opt: the optimiser's.
      sums: since the last log line: loss, error [] float32 summed over steps, steps, bad_images, skipped [] int32.
      nan_step: [] int32, the first step whose loss was not finite; -1: none. Where such updates are skipped: the first
        of those that came one after another up to now.
    """

    step: jax.Array
    params: Any
    stats: Any
    opt: Any
    sums: dict[str, jax.Array]
    nan_step: jax.Array


def zero_sums() -> dict[str, jax.Array]:
    """The sums of a log interval that begins."""
    kinds = {"loss": jnp.float32, "error": jnp.float32, "steps": jnp.int32, "bad_images": jnp.int32}
    kinds["skipped"] = jnp.int32
    return {name: jnp.zeros((), kind) for name, kind in kinds.items()}


def init_state(model: Any, tx: optax.GradientTransformation, key: jax.Array, images: jax.Array) -> State:
    """The state before the first step; images [1, H, W, C] only tell the shape."""
    params, stats = model.init(key, images)
    return State(jnp.int32(0), params, stats, tx.init(params), zero_sums(), jnp.int32(-1))


def train_step(
    model: Any,
    tx: Any,
    feed: Any,
    key: jax.Array,
    axis: str | None = None,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    skip: bool = False,
) -> Callable:
    """step(state, arrays, item) -> state: one update; randomness is addressed by (key, step, row).

    model: a cnn_jax.models.Model; tx: an optax transformation; feed: fetch and prepare; axis: the pmapped axis over
    which the batch is split, if it is; label_smoothing: the share of each label that is spread over all classes.
    mixup: alpha of augment.mixup; 0: none. Loss and error are then those against the images' own labels and those
    against their partners', weighted by their shares. Under jit partners are drawn from the whole batch, under pmap
    from a device's rows, with a share a device: the two forms' numbers then differ.
    skip: an update whose loss or gradient is not finite leaves all but `step` as it was, and counts for no mean.
    """
    mean = (lambda tree: jax.lax.pmean(tree, axis)) if axis else lambda tree: tree
    total = lambda x: jax.lax.psum(x.sum(), axis) if axis else x.sum()

    def step(state: State, arrays: Any, item: Any) -> State:
        crop_key, drop_key, mix_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        if axis:  # masks and partners are drawn a device at a time, and by each device anew: pmap's are not jit's
            drop_key, mix_key = (jax.random.fold_in(k, jax.lax.axis_index(axis)) for k in (drop_key, mix_key))
        batch = feed.fetch(arrays, item)
        rows = jnp.arange(len(batch["label"])) + (jax.lax.axis_index(axis) * len(batch["label"]) if axis else 0)
        images = feed.prepare(arrays, batch["image"], crop_key, rows)
        if mixup:
            images, partners, share = augment.mixup(mix_key, images, batch["label"], mixup)

        def objective(params: Any) -> tuple[jax.Array, tuple]:
            outputs, stats = model.apply(params, state.stats, images, train=True, key=drop_key)
            loss, error = _means(model, outputs, images, batch["label"], label_smoothing)
            if mixup:
                other = _means(model, outputs, images, partners, label_smoothing)
                loss, error = (share * a + (1 - share) * b for a, b in zip((loss, error), other, strict=True))
            return loss, (error, stats)

        (loss, (error, stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        grads, stats, loss, error = mean((grads, stats, loss, error))
        updates, opt = tx.update(grads, state.opt, state.params, error=error)
        moved = optax.apply_updates(state.params, updates), stats, opt
        sums = {
            "loss": state.sums["loss"] + loss,
            "error": state.sums["error"] + error,
            "steps": state.sums["steps"] + 1,
            "bad_images": state.sums["bad_images"] + total(batch["bad"]) if "bad" in batch else jnp.int32(0),
            "skipped": state.sums["skipped"],
        }
        fine = jnp.isfinite(loss)
        nan_step = jnp.where((state.nan_step < 0) & ~fine, state.step, state.nan_step)
        if skip:
            fine = jax.tree.reduce(lambda fine, g: fine & jnp.isfinite(g).all(), grads, fine)
            stayed = state.sums | {"skipped": state.sums["skipped"] + 1, "bad_images": sums["bad_images"]}
            before = (state.params, state.stats, state.opt), stayed
            moved, sums = jax.tree.map(lambda new, old: jnp.where(fine, new, old), (moved, sums), before)
            nan_step = jnp.where(fine, -1, jnp.where(state.nan_step < 0, state.step, state.nan_step))
        return State(state.step + 1, *moved, sums, nan_step)

    return step


def evaluate_step(model: Any, feed: Any) -> Callable:
    """step(params, stats, arrays, item) -> {loss [B], error [B], valid [B]} of the single view, an entry an image."""

    def step(params: Any, stats: Any, arrays: Any, item: Any) -> dict[str, jax.Array]:
        batch = feed.fetch(arrays, item)
        images = feed.prepare(arrays, batch["image"])
        outputs, _ = model.apply(params, stats, images, train=False)
        loss, error = scores(model, outputs, images, batch["label"])
        return {"loss": loss, "error": error, "valid": batch["valid"]}

    return step


def scores(
    model: Any, outputs: Any, images: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Loss [B] and error [B] of a net's outputs: logits, a tuple of main and auxiliary ones, or what `score` takes.

    The auxiliary losses are added to the main one, weighted; the error is the main logits' alone.
    """
    if model.score:
        return model.score(outputs, images, labels)
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = cross_entropy(logits, labels, label_smoothing)
    for head in auxiliary:
        loss += model.aux_weight * cross_entropy(head, labels, label_smoothing)
    return loss, top1_error(logits, labels)


def _means(*arguments: Any) -> tuple[jax.Array, jax.Array]:
    loss, error = scores(*arguments)
    return loss.mean(), jnp.mean(error, dtype=jnp.float32)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy [B] in nats of logits [B, classes] and labels [B].

    smoothing: the share of each label that is spread evenly over all classes, its own among them (Szegedy et al. 2015,
    arXiv:1512.00567, Sec. 7).
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return loss
    return (1 - smoothing) * loss - smoothing * jax.nn.log_softmax(logits).mean(-1)


def top1_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the highest logit is not the label's, [B] bool; the first of equal ones is the answer.

    Logits that are not finite hold no answer, and count as wrong (argmax would name the first NaN).
    """
    return (jnp.argmax(logits, -1) != labels) | ~jnp.isfinite(logits).all(-1)


def compile_train(step: Callable, parallel: str, mesh: Mesh, options: dict[str, Any] | None = None) -> Callable:
    """The training step over the mesh's devices, as jit (which consumes the state it is given) or as pmap.

    options: XLA's, of jit alone.
    """
    if parallel == "jit":
        replicated, sharded = meshes.replicated(mesh), meshes.sharded(mesh)
        shardings = {"in_shardings": (replicated, replicated, sharded), "out_shardings": replicated}
        return jax.jit(step, **shardings, donate_argnums=0, compiler_options=options)
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(step, meshes.BATCH, in_axes=(None, None, 0), out_axes=None, devices=devices)
    per_device = lambda x: x.reshape(len(devices), -1, *x.shape[1:])  # noqa: E731
    return lambda state, arrays, item: mapped(state, arrays, jax.tree.map(per_device, item))


def compile_checked(step: Callable, mesh: Mesh) -> Callable:
    """The training step that raises UserError at the first operation to give NaN or divide by 0, and says where it is.

    Several times slower; the state that it was given is still there afterwards.
    """
    replicated, sharded = meshes.replicated(mesh), meshes.sharded(mesh)
    checked = checkify.checkify(step, checkify.float_checks)
    checked = jax.jit(checked, in_shardings=(replicated, replicated, sharded), out_shardings=replicated)

    def run(state: State, arrays: Any, item: Any) -> State:
        error, new = checked(state, arrays, item)
        if found := error.get_exception():
            why = str(error.get()).strip().rstrip(".")
            raise UserError(f"train.debug: step {int(state.step)}: {why}, at {_place(found)}")
        return new

    return run


def _place(found: Exception) -> str:
    """file:line (function) of ours, or else outside of JAX, in which checkify found an error."""
    lines = str(getattr(found, "traceback_info", "")).splitlines()  # innermost first
    ours = [line for line in lines if line.startswith(str(Path(__file__).parents[1]))]
    others = [line for line in lines if not line.startswith(str(Path(jax.__file__).parent))]
    return (ours or others or ["an unknown place"])[0]


def compile_evaluate(step: Callable, mesh: Mesh) -> Callable:
    """The evaluation step over the mesh's devices."""
    replicated, sharded = meshes.replicated(mesh), meshes.sharded(mesh)
    return jax.jit(step, in_shardings=(replicated, replicated, replicated, sharded), out_shardings=replicated)


def evaluate(step: Callable, state: State, feed: Any, arrays: Any) -> dict[str, float]:
    """Mean loss (nats) and error (0 to 1) over all images of the feed, each counted once, and their number."""
    rows = [step(state.params, state.stats, arrays, item) for item in feed.items(0)]
    columns = {k: np.concatenate([np.asarray(row[k]) for row in rows]) for k in ("loss", "error", "valid")}
    valid = columns["valid"]
    mean = {k: float(np.mean(columns[k][valid], dtype=np.float64)) for k in ("loss", "error")}
    return mean | {"images": int(valid.sum())}
