"""What a run needs of devices that need not be here: its real training step, compiled, and what then bounds its time.

The bounds are those of a roofline (Williams, Waterman, Patterson 2009): a step takes at least as long as its arithmetic
at the chip's peak, its traffic with memory, and its messages to other chips. Nothing is allocated: shapes are compiled.
"""

import functools
import importlib.util
import os
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, mesh, models
from cnn_jax.config import Experiment
from cnn_jax.cost import chips, hlo, summary
from cnn_jax.errors import UserError
from cnn_jax.training.components import make_components, make_model
from cnn_jax.training.program import compile_step, make_step, split_seed_keys
from cnn_jax.training.state import init_state

# On a TPU, whose products are of bfloat16, a float32 product of each precision takes so many of them
# (jax.lax.Precision: DEFAULT, HIGH, HIGHEST).
PASSES = {"bfloat16": 1, "tensorfloat32": 3, "float32": 6}
# libtpu looks for a TPU, and complains in many lines, unless it is told that this is the host of one; and it lets but
# one process at a time have it, which is of no use where it only compiles.
QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
# What a device sends of a collective among n, in multiples of its operands' bytes.
SENT: dict[str, Callable[[int], float]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
}
CAUTION = (
    "An estimate, and a lower bound on time: no chip keeps to its peaks all the while, and neither input, evaluation,"
    " checkpoints nor compilation are counted."
)


def plan_run(experiment: Experiment, topology: str | None = None) -> dict[str, Any]:
    """What the run's step needs and takes at least, on the slice ('v5e:4x4') or else on this machine's devices.

    Bytes, FLOPs of a step and seconds; `bound` names which of arithmetic, memory and interconnect holds; keys are None
    where the compiler found no room for the step. Needs no data set. Raises UserError for a mistake in the
    configuration, a slice that there is not, or libtpu missing.
    """
    devices = jax.devices() if topology is None else _slice(topology)
    with mesh.target_platform(devices[0].platform), jax.default_matmul_precision(experiment.train.precision):
        lowered, adds = lower_step(experiment, devices)
        chip = _chip(experiment, topology)
        told = {
            "run": experiment.name,
            "model": experiment.model.name,
            "dtype": experiment.model.args.get("dtype", "float32"),
            "batch": experiment.data.batch_size,
            "form": experiment.train.parallel,
            "devices": topology or f"{len(devices)} x {devices[0].device_kind}",
            "chips": len(devices),
            "steps": experiment.train.steps,
            "counted_flops": 6 * adds * experiment.data.batch_size,  # forward, backward to inputs and to weights
            **{f"chip_{field}": value for field, value in chip._asdict().items()},
        }
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e):
                raise
            return told | {"fits": False, "memory": _wanted(str(e)), "step_s": None, "bound": None, "chip_hours": None}
    return told | _bounds(told, compiled, chip, devices[0].platform, experiment.train.precision)


def _bounds(told: dict, compiled: Any, chip: chips.Chip, platform: str, precision: str) -> dict[str, Any]:
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    count = told["chips"]
    flops = cost["flops"]  # of one device, as all that a compiled program tells
    # What a loop's body or a library (oneDNN) computes, the compiler does not count as often as it is done, or at all.
    partly = flops * count < told["counted_flops"] and (hlo.loops(text) or platform != "tpu")
    worked = told["counted_flops"] / count if partly else flops
    passes = PASSES[precision] if platform == "tpu" and told["dtype"] == "float32" else 1
    moved = hlo.traffic(text) if platform == "tpu" else cost["bytes accessed"]
    collectives = hlo.collectives(text)
    sent = sum(SENT.get(kind, lambda n: 1)(count) * found["bytes"] for kind, found in collectives.items())
    seconds = {"arithmetic": worked * passes / chip.flops, "memory": moved / chip.bandwidth}
    if chip.interconnect:
        seconds["interconnect"] = sent / (chip.interconnect / 2)  # as much comes in as goes out
    bound = max(seconds, key=seconds.get)
    run = seconds[bound] * told["steps"]
    return {
        "fits": sum(parts.values()) <= chip.memory,
        "memory": sum(parts.values()),
        "memory_parts": parts,
        "compiler_flops": flops * count,
        "compiler_flops_partly": partly,
        "passes": passes,
        "compiler_bytes": cost["bytes accessed"],
        "memory_traffic": moved,
        "collectives": collectives,
        "sent": sent,
        "seconds": seconds,
        "bound": bound,
        "step_s": seconds[bound],
        "run_hours": run / 3600,
        "chip_hours": run / 3600 * count,
    }


def lower_step(experiment: Experiment, devices: list[jax.Device]) -> tuple[Any, int]:
    """Lowers the run's own training step for the devices; needs no data set and allocates nothing.

    Args:
      experiment: The run.
      devices: They need not be here.

    Returns:
      The lowered step, which `compile` turns into the program that the run executes; and the
      multiply-adds of one image's forward pass.
    """
    hosts = {device.process_index for device in devices}
    if experiment.train.parallel == "pmap" and len(hosts) > 1:
        raise UserError(
            "train.parallel=pmap: JAX maps over the chips of one host: plan it for v5e:2x2, or take train.parallel=jit"
        )
    source, streamed = _source(experiment)
    parts = make_components(experiment, source, len(devices))
    over = mesh.batch_mesh(devices)
    loader = data.make_loader(experiment.data, parts.dataset, experiment.seed)
    arrays, item = loader.arrays, next(loader.batches(0))
    shape = source.train.images.shape[1:]
    if streamed:
        rows = experiment.data.batch_size
        pixels = np.broadcast_to(np.uint8(0), (rows, *shape))
        item |= {"image": pixels, "label": np.zeros(rows, np.int32), "bad": np.zeros(rows, bool)}
        loader = loader._replace(fetch=lambda arrays, item: item)
        arrays = {name: arrays[name] for name in arrays.keys() - {"image", "label"}}
    (init_key,), step_keys = split_seed_keys([experiment.seed])
    image = jax.ShapeDtypeStruct((1, *shape), "float32")
    init = functools.partial(init_state, parts.model, parts.optimizer, images=image)
    state = jax.eval_shape(init, init_key)
    step = make_step(experiment, parts, loader, step_keys, over).step
    compiled = compile_step(experiment, step, over, image.size)
    if not hasattr(compiled, "lower"):
        compiled = jax.jit(compiled)  # pmap's is a function around what is compiled.
    plain = make_model(experiment, source.num_classes)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, arrays, item))
    return compiled.lower(*shapes), summary.multiply_adds(plain, shape)


def _source(experiment: Experiment) -> tuple[data.Dataset, bool]:
    """A data set of the run's shapes that takes no memory, and whether it is streamed: it does not fit on a device.

    Streamed are full-size images, cut to their crop: what is done to them before is the host's work.
    """
    name = experiment.data.name
    (height, width, channels), classes = data.image_shape(experiment.data)
    streamed = data.is_streamed(experiment.data)
    counts = (1, 1) if streamed else data.DATASET_INFO[name][2:]
    trained, tested = counts[0] - (0 if streamed else experiment.data.validation_images), counts[1]
    if trained < 1:
        raise UserError(
            f"data.validation_images={experiment.data.validation_images}: {name} has {counts[0]} training images"
        )
    nothing = lambda count: data.Arrays(
        np.broadcast_to(np.uint8(0), (count, height, width, channels)), np.broadcast_to(np.int32(0), (count,))
    )
    return data.Dataset(nothing(trained), nothing(tested), classes), streamed


def _slice(topology: str) -> list[jax.Device]:
    """The devices of a TPU slice that is not here, one a chip."""
    _, count = chips.of_topology(topology)
    if not importlib.util.find_spec("libtpu"):
        raise UserError("--topology: needs libtpu, which compiles for TPUs: pip install -r requirements-tpu.txt")
    from jax.experimental import topologies

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    generation = topology.partition(":")[0]
    # A v4 or v5p chip has two cores, which work as one device where a chip's are joined.
    joined = {"chip_config_name": "megacore"} if generation in ("v4", "v5p") else {}
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **joined).devices
    except jax.errors.JaxRuntimeError as e:
        words = str(e).splitlines()[0]
        raise UserError(f"--topology={topology}: libtpu does not make such a slice ({words}); {chips.FORMS}") from None
    assert len(devices) == count, (topology, len(devices))
    return list(devices)


def _wanted(words: str) -> float | None:
    """Bytes that a compiler says it would have needed, where its refusal has them: 'Used 20.46G of 15.75G hbm'."""
    found = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", words)
    return float(found[1]) * 1024 ** " KMGT".index(found[2] or " ") if found else None


def _chip(experiment: Experiment, topology: str | None) -> chips.Chip:
    if topology is not None:
        return chips.of_topology(topology)[0]
    kind = jax.devices()[0].device_kind
    if kind in chips.KINDS:
        return chips.TPUS[chips.KINDS[kind]]
    return measured(models.DTYPES[experiment.model.args.get("dtype", "float32")])


def measured(dtype: Any) -> chips.Chip:
    """One of this machine's devices, in about a second: products of the type and a copy are timed.

    The devices of a CPU share what it has.
    """
    device = jax.devices()[0]
    sharing = jax.local_device_count() if device.platform == "cpu" else 1
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: -x, donate_argnums=0)
    flops, side, took = 0.0, 512, 0.0
    while took < 0.02:  # a larger one comes nearer to the peak
        took = _fastest(product, jnp.zeros((side, side), dtype), again=False)
        flops, side = max(flops, 2 * side**3 / took), 2 * side
    size = 2**25  # more than a cache holds
    took = _fastest(copy, jnp.zeros(size, "float32"), again=True)
    return chips.Chip(
        f"{device.device_kind}, measured",
        _memory(device) / sharing,
        2 * 4 * size / took / sharing,  # read and written
        flops / sharing,
        None,
    )


def _fastest(compute: Callable, x: jax.Array, again: bool) -> float:
    """Seconds of the fastest of some runs within a third of a second; again: on what the last one gave."""
    times: list[float] = []
    jax.block_until_ready(made := compute(x))
    while len(times) < 3 or sum(times) < 0.3:
        began = time.perf_counter()
        jax.block_until_ready(made := compute(made if again else x))
        times.append(time.perf_counter() - began)
    return min(times)


def _memory(device: jax.Device) -> float:
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe(told: dict[str, Any]) -> list[str]:
    """What `of_run` tells, as lines to print."""
    chip = f"{told['chip_name']} ({told['chip_memory'] / 1e9:.4g} GB)"
    counted = _si(told["counted_flops"], "FLOP")
    rows = [("counted", f"{counted} a step: 3 x 2 x multiply-adds x images")]
    if told["step_s"] is None:
        wanted = f"{told['memory'] / 1e9:.4g} GB" if told["memory"] else "more"
        rows.insert(0, ("memory", f"does not fit: the compiler needs {wanted} on a {chip}"))
    else:
        rows = _rows(told, chip, counted)
    name = f"{told['run']} ({told['model']}, {told['dtype']}), batch {told['batch']}, {told['form']}"
    width = max(len(label) for label, _ in rows)
    return [f"{name}, on {told['devices']}", *(f"  {label:{width}}  {words}" for label, words in rows)]


def _rows(told: dict[str, Any], chip: str, counted: str) -> list[tuple[str, str]]:
    parts = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in told["memory_parts"].items())
    apart = told["compiler_flops"] / told["counted_flops"] - 1
    rates = {
        "arithmetic": f"{_si(told['chip_flops'], 'FLOP/s')}"
        + (f", {told['passes']} passes a float32 product" if told["passes"] > 1 else ""),
        "memory": _si(told["chip_bandwidth"], "B/s"),
        "interconnect": f"{_si((told['chip_interconnect'] or 0) / 2, 'B/s')} each way",
    }
    kinds = [f"{c['count']} {kind} of {_si(c['bytes'], 'B')}" for kind, c in told["collectives"].items()]
    unknown = "" if told["chip_interconnect"] or told["chips"] == 1 else " (interconnect not known: not in the bound)"
    return [
        ("memory", f"{told['memory'] / 1e9:.3g} GB: {'fits' if told['fits'] else 'does not fit'} on a {chip}; {parts}"),
        (
            "FLOPs",
            f"{_si(told['compiler_flops'], 'FLOP')} a step by the compiler, {counted} by counting 3 x 2 x multiply-adds"
            f" ({apart:+.1%})" + (", which the bound takes" if told["compiler_flops_partly"] else ""),
        ),
        (
            "traffic",
            f"{_si(told['memory_traffic'], 'B')} a step between a chip and its memory"
            f" ({_si(told['compiler_bytes'], 'B')} as the compiler counts)",
        ),
        ("collectives", (", ".join(kinds) or "none") + unknown),
        (
            "a step",
            f"{told['step_s'] * 1e3:.3g} ms at least, bound by {told['bound']}: "
            + ", ".join(f"{what} {s * 1e3:.3g} ms ({rates[what]})" for what, s in told["seconds"].items()),
        ),
        (
            "the run",
            f"{told['steps']:,} steps: {told['run_hours']:.3g} hours, {told['chip_hours']:.3g} chip-hours at least",
        ),
    ]


def _si(value: float, unit: str) -> str:
    """5.93e12 FLOP as '5.93 TFLOP'."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
