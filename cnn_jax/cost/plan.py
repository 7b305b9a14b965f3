"""What a run needs of devices that need not be here, and what bounds the time of its step.

The run's own training step is compiled for the devices; nothing is allocated. The bounds are those
of a roofline (Williams, Waterman, Patterson 2009): a step takes at least as long as its arithmetic
at the chip's peak, its traffic with memory, and its messages to other chips.
"""

import functools
import importlib.util
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, mesh, models
from cnn_jax.config import Experiment
from cnn_jax.cost import chips, hlo, summary
from cnn_jax.cost.chips import Chip  # in Plan, chips is a field
from cnn_jax.data.base import as_arrays
from cnn_jax.errors import UserError
from cnn_jax.training.components import make_components, make_model
from cnn_jax.training.program import compile_step, make_step, split_seed_keys
from cnn_jax.training.state import init_state

# A TPU multiplies in bfloat16: a float32 product of each precision takes so many passes
# (jax.lax.Precision: DEFAULT, HIGH, HIGHEST).
PASSES = {"bfloat16": 1, "tensorfloat32": 3, "float32": 6}
# Without these libtpu looks for a TPU and complains in many lines, and only one process at a time
# may use it, which is of no use where it only compiles.
LIBTPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
# What a device sends of a collective among n devices, in multiples of its operands' bytes.
SENT: dict[str, Callable[[int], float]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
}
CAUTION = (
    "An estimate, and a lower bound on time: no chip keeps to its peaks all the while, and neither"
    " input, evaluation, checkpoints nor compilation are counted."
)


@dataclass(frozen=True)
class StepCost:
    """What the compiled step costs; all but the FLOPs and hours of one chip.

    Attributes:
      memory_parts: Bytes of arguments, temporaries, outputs and the program.
      compiler_flops: FLOPs of a step over all chips, as the compiler counts them.
      compiler_flops_partly: Whether the compiler leaves out what a loop or a library computes, so
        that the bound takes the counted FLOPs.
      passes: Products of bfloat16 that a float32 product takes.
      compiler_bytes: Bytes moved, as the compiler counts them.
      memory_traffic: Bytes moved between a chip and its memory.
      collectives: By kind.
      sent: Bytes that a chip sends to others.
      seconds: What a step takes at least, by arithmetic, memory and interconnect.
      bound: The one of them that takes longest.
      step_s: Its seconds.
      run_hours: Of the whole run.
      chip_hours: Of the whole run over all chips.
    """

    memory_parts: dict[str, int]
    compiler_flops: float
    compiler_flops_partly: bool
    passes: int
    compiler_bytes: float
    memory_traffic: float
    collectives: dict[str, hlo.Collective]
    sent: float
    seconds: dict[str, float]
    bound: str
    step_s: float
    run_hours: float
    chip_hours: float


@dataclass(frozen=True)
class Plan:
    """What a run's step needs of its devices, and what it costs there.

    Attributes:
      run: The run's name.
      model: Its model.
      dtype: Of the model's activations.
      batch: Images of a step.
      parallel: jit or pmap.
      devices: In words, or the slice's name.
      chips: How many.
      steps: Of the run.
      counted_flops: FLOPs of a step over all chips: 3 x 2 x multiply-adds x images.
      chip: What bounds a step on it.
      fits: Whether the step fits into a chip's memory.
      memory: Bytes of a chip that it needs; None: the compiler did not say.
      cost: None where the compiler found no room for the step.
    """

    run: str
    model: str
    dtype: str
    batch: int
    parallel: str
    devices: str
    chips: int
    steps: int
    counted_flops: int
    chip: Chip
    fits: bool
    memory: float | None
    cost: StepCost | None

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as a flat dictionary; what is not known is None."""
        cost = vars(self.cost) if self.cost else dict.fromkeys(StepCost.__annotations__)
        if self.cost:
            kinds = self.cost.collectives.items()
            cost = cost | {"collectives": {kind: found._asdict() for kind, found in kinds}}
        return {
            "run": self.run,
            "model": self.model,
            "dtype": self.dtype,
            "batch": self.batch,
            "form": self.parallel,
            "devices": self.devices,
            "chips": self.chips,
            "steps": self.steps,
            "counted_flops": self.counted_flops,
            **{f"chip_{field}": value for field, value in self.chip._asdict().items()},
            "fits": self.fits,
            "memory": self.memory,
            **cost,
        }


class LoweredStep(NamedTuple):
    """A run's training step, lowered for devices.

    Attributes:
      lowered: `compile` turns it into the program that the run executes.
      multiply_adds: Of one image's forward pass.
    """

    lowered: jax.stages.Lowered
    multiply_adds: int


def plan_run(experiment: Experiment, topology: str | None = None) -> Plan:
    """Compiles the run's step and tells what it needs and takes at least. Needs no data set.

    Args:
      experiment: The run.
      topology: A TPU slice that is not here, such as 'v5e:4x4', for which libtpu compiles; None:
        this machine's devices.

    Raises:
      UserError: If the configuration has a mistake, there is no such slice, or libtpu is missing.
    """
    devices = jax.devices() if topology is None else _make_slice(topology)
    precision = experiment.train.precision
    platform = devices[0].platform
    with mesh.target_platform(platform), jax.default_matmul_precision(precision):
        lowered, multiply_adds = lower_step(experiment, devices)
        chip = _find_chip(experiment, topology)
        # Forward, and backward to inputs and to weights; a product and an addition each.
        flops = 6 * multiply_adds * experiment.data.batch_size
        cost, fits = None, False
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            memory = _parse_needed_memory(str(error))
        else:
            cost = _measure_step(experiment, compiled, chip, len(devices), platform, flops)
            memory = sum(cost.memory_parts.values())
            fits = memory <= chip.memory
    return Plan(
        run=experiment.name,
        model=experiment.model.name,
        dtype=_find_dtype(experiment),
        batch=experiment.data.batch_size,
        parallel=experiment.train.parallel,
        devices=topology or f"{len(devices)} x {devices[0].device_kind}",
        chips=len(devices),
        steps=experiment.train.steps,
        counted_flops=flops,
        chip=chip,
        fits=fits,
        memory=memory,
        cost=cost,
    )


def _find_dtype(experiment: Experiment) -> str:
    return str(experiment.model.args.get("dtype", "float32"))


def _measure_step(
    experiment: Experiment,
    compiled: jax.stages.Compiled,
    chip: chips.Chip,
    count: int,
    platform: str,
    counted_flops: int,
) -> StepCost:
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    assert memory is not None and cost is not None and text is not None  # of CPU, GPU and TPU
    flops = cost["flops"]  # Of one device, as all that a compiled program tells.
    # The compiler counts a loop's body once, and what a library (oneDNN) computes not at all.
    partly = flops * count < counted_flops and (hlo.has_loop(text) or platform != "tpu")
    worked = counted_flops / count if partly else flops
    in_passes = platform == "tpu" and _find_dtype(experiment) == "float32"
    passes = PASSES[experiment.train.precision] if in_passes else 1
    moved = hlo.count_traffic(text) if platform == "tpu" else cost["bytes accessed"]
    collectives = hlo.count_collectives(text)
    sent = sum(_count_sent(kind, found.bytes, count) for kind, found in collectives.items())
    seconds = {"arithmetic": worked * passes / chip.flops, "memory": moved / chip.bandwidth}
    if chip.interconnect:
        seconds["interconnect"] = sent / (chip.interconnect / 2)  # As much comes in as goes out.
    bound = max(seconds, key=seconds.__getitem__)
    hours = seconds[bound] * experiment.train.steps / 3600
    return StepCost(
        memory_parts={
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "program": memory.generated_code_size_in_bytes,
        },
        compiler_flops=flops * count,
        compiler_flops_partly=partly,
        passes=passes,
        compiler_bytes=cost["bytes accessed"],
        memory_traffic=moved,
        collectives=collectives,
        sent=sent,
        seconds=seconds,
        bound=bound,
        step_s=seconds[bound],
        run_hours=hours,
        chip_hours=hours * count,
    )


def _count_sent(kind: str, size: int, count: int) -> float:
    """Returns the bytes that a device sends of collectives of one kind with so many operands."""
    return SENT[kind](count) * size if kind in SENT else size


def lower_step(experiment: Experiment, devices: list[jax.Device]) -> LoweredStep:
    """Lowers the run's own training step for the devices; needs no data set and allocates nothing.

    Args:
      experiment: The run.
      devices: They need not be here.
    """
    hosts = {device.process_index for device in devices}
    if experiment.train.parallel == "pmap" and len(hosts) > 1:
        raise UserError(
            "train.parallel=pmap: JAX maps over the chips of one host: plan it for v5e:2x2, or set"
            " train.parallel=jit"
        )
    source, streamed = _make_dataset(experiment)
    parts = make_components(experiment, source, len(devices))
    over = mesh.batch_mesh(devices)
    loader = data.make_loader(experiment.data, parts.dataset, experiment.seed)
    arrays, batch = loader.arrays, next(loader.batches(0))
    shape = as_arrays(source.train).images.shape[1:]
    if streamed:
        rows = experiment.data.batch_size
        pixels = np.broadcast_to(np.uint8(0), (rows, *shape))
        batch |= {"image": pixels, "label": np.zeros(rows, np.int32), "bad": np.zeros(rows, bool)}
        loader = loader._replace(fetch=lambda arrays, batch: batch)
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
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, arrays, batch))
    return LoweredStep(compiled.lower(*shapes), summary.count_multiply_adds(plain, shape))


def _make_dataset(experiment: Experiment) -> tuple[data.Dataset, bool]:
    """Returns a data set of the run's shapes that takes no memory, and whether it is streamed.

    Streamed are full-size images, which do not fit on a device. The step sees them cut to their
    crop; what is done to them before is the host's work.
    """
    name = experiment.data.name
    (height, width, channels), classes = data.image_shape(experiment.data)
    streamed = data.is_streamed(experiment.data)
    train, test, held_out = 1, 1, 0
    if not streamed:
        info = data.DATASET_INFO[name]
        assert info.train_images is not None and info.test_images is not None  # all in memory
        train, test = info.train_images, info.test_images
        held_out = experiment.data.validation_images
    if train <= held_out:
        raise UserError(f"data.validation_images={held_out}: {name} has {train} training images")

    def make_split(count: int) -> data.Arrays:
        images = np.broadcast_to(np.uint8(0), (count, height, width, channels))
        return data.Arrays(images, np.broadcast_to(np.int32(0), (count,)))

    return data.Dataset(make_split(train - held_out), make_split(test), classes), streamed


def _make_slice(topology: str) -> list[jax.Device]:
    """Returns the devices of a TPU slice that is not here, one a chip."""
    _, count = chips.parse_topology(topology)
    if not importlib.util.find_spec("libtpu"):
        raise UserError(
            f"topology={topology}: needs libtpu, which compiles for TPUs: pip install libtpu"
        )
    from jax.experimental import topologies

    for name, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    generation = topology.partition(":")[0]
    # A v4 or v5p chip has two cores, which work as one device where they are joined.
    joined = {"chip_config_name": "megacore"} if generation in ("v4", "v5p") else {}
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology, **joined)
    except jax.errors.JaxRuntimeError as error:
        words = str(error).splitlines()[0]
        raise UserError(
            f"topology={topology}: libtpu does not make such a slice ({words}); {chips.HELP}"
        ) from None
    devices = list(description.devices)
    assert len(devices) == count, (topology, len(devices))
    return devices


def _parse_needed_memory(message: str) -> float | None:
    """Returns the bytes that a compiler would have needed: 'Used 20.46G of 15.75G hbm'."""
    found = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    return float(found[1]) * 1024 ** " KMGT".index(found[2] or " ") if found else None


def _find_chip(experiment: Experiment, topology: str | None) -> chips.Chip:
    if topology is not None:
        return chips.parse_topology(topology).chip
    kind = jax.devices()[0].device_kind
    if kind in chips.DEVICE_KINDS:
        return chips.TPUS[chips.DEVICE_KINDS[kind]]
    return measure_chip(models.DTYPES[_find_dtype(experiment)])


def measure_chip(dtype: Any) -> chips.Chip:
    """Measures one of this machine's devices in about a second, by matrix products and a copy.

    The devices of a CPU share what it has.

    Args:
      dtype: Of the products.
    """
    device = jax.devices()[0]
    sharing = jax.local_device_count() if device.platform == "cpu" else 1
    square, copy = jax.jit(lambda x: x @ x), jax.jit(jnp.negative, donate_argnums=0)
    flops, side, took = 0.0, 512, 0.0
    while took < 0.02:  # A larger product comes nearer to the peak.
        took = _time_fastest(square, jnp.zeros((side, side), dtype), repeat=False)
        flops, side = max(flops, 2 * side**3 / took), 2 * side
    size = 2**25  # More than a cache holds.
    took = _time_fastest(copy, jnp.zeros(size, "float32"), repeat=True)
    return chips.Chip(
        name=f"{device.device_kind}, measured",
        memory=_find_memory(device) / sharing,
        bandwidth=2 * 4 * size / took / sharing,  # Read and written.
        flops=flops / sharing,
        interconnect=None,
    )


def _time_fastest(compute: Callable, x: jax.Array, repeat: bool) -> float:
    """Returns the seconds of the fastest of some calls within a third of a second.

    Args:
      compute: A compiled function of one array.
      x: The array.
      repeat: Whether each call takes the result of the one before, rather than x.
    """
    times: list[float] = []
    result = jax.block_until_ready(compute(x))
    while len(times) < 3 or sum(times) < 0.3:
        begin = time.perf_counter()
        result = jax.block_until_ready(compute(result if repeat else x))
        times.append(time.perf_counter() - begin)
    return min(times)


def _find_memory(device: jax.Device) -> float:
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def format_plan(plan: Plan) -> str:
    """Returns a plan as lines of text."""
    chip = f"{plan.chip.name} ({plan.chip.memory / 1e9:.4g} GB)"
    flops = f"{_format_si(plan.counted_flops, 'FLOP')} a step: 3 x 2 x multiply-adds x images"
    if plan.cost:
        rows = _format_rows(plan, plan.cost, chip)
    else:
        needed = f"{plan.memory / 1e9:.4g} GB" if plan.memory else "more"
        rows = {
            "memory": f"does not fit: the compiler needs {needed} on a {chip}",
            "counted": flops,
        }
    width = max(map(len, rows))
    lines = [f"  {label:{width}}  {words}" for label, words in rows.items()]
    head = f"{plan.run} ({plan.model}, {plan.dtype}), batch {plan.batch}, {plan.parallel}"
    return "\n".join([f"{head}, on {plan.devices}", *lines])


def _format_rows(plan: Plan, cost: StepCost, chip: str) -> dict[str, str]:
    memory, fits = plan.memory or 0, "fits" if plan.fits else "does not fit"
    parts = [f"{name} {size / 1e9:.3g}" for name, size in cost.memory_parts.items()]
    apart = cost.compiler_flops / plan.counted_flops - 1
    passes = f", {cost.passes} passes a float32 product" if cost.passes > 1 else ""
    rates = {
        "arithmetic": _format_si(plan.chip.flops, "FLOP/s") + passes,
        "memory": _format_si(plan.chip.bandwidth, "B/s"),
        "interconnect": f"{_format_si((plan.chip.interconnect or 0) / 2, 'B/s')} each way",
    }
    kinds = [
        f"{found.count} {kind} of {_format_si(found.bytes, 'B')}"
        for kind, found in cost.collectives.items()
    ]
    unknown = ""
    if plan.chips > 1 and not plan.chip.interconnect:
        unknown = " (interconnect not known: not in the bound)"
    bounds = [f"{what} {s * 1e3:.3g} ms ({rates[what]})" for what, s in cost.seconds.items()]
    return {
        "memory": f"{memory / 1e9:.3g} GB: {fits} on a {chip}; {', '.join(parts)}",
        "FLOPs": f"{_format_si(cost.compiler_flops, 'FLOP')} a step by the compiler,"
        f" {_format_si(plan.counted_flops, 'FLOP')} by counting 3 x 2 x multiply-adds"
        f" ({apart:+.1%})" + (", which the bound takes" if cost.compiler_flops_partly else ""),
        "traffic": f"{_format_si(cost.memory_traffic, 'B')} a step between a chip and its memory"
        f" ({_format_si(cost.compiler_bytes, 'B')} as the compiler counts)",
        "collectives": (", ".join(kinds) or "none") + unknown,
        "a step": f"{cost.step_s * 1e3:.3g} ms at least, bound by {cost.bound}:"
        f" {', '.join(bounds)}",
        "the run": f"{plan.steps:,} steps: {cost.run_hours:.3g} hours,"
        f" {cost.chip_hours:.3g} chip-hours at least",
    }


def _format_si(value: float, unit: str) -> str:
    """Returns 5.93e12 FLOP as '5.93 TFLOP'."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
