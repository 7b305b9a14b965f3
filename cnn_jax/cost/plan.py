"""Plans a run: the memory and the time that its step needs, also on devices that are not attached.

The run's own training step is compiled for the devices; nothing is allocated. The time is bounded
by a roofline (Williams, Waterman, Patterson 2009): a step takes at least as long as its arithmetic
at the chip's peak, its memory traffic, and its communication with other chips.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from cnn_jax import mesh
from cnn_jax.config import Experiment
from cnn_jax.cost import chips, hlo
from cnn_jax.cost.chips import Chip
from cnn_jax.cost.compiled import CompilerReport, compile_for_report
from cnn_jax.cost.lower import lower_step, make_slice
from cnn_jax.cost.measure_chip import find_chip, find_dtype

# A TPU multiplies in bfloat16. A float32 product of each precision takes this many passes
# (jax.lax.Precision: DEFAULT, HIGH, HIGHEST).
PASSES = {"bfloat16": 1, "tensorfloat32": 3, "float32": 6}
# {collective: bytes that a device sends among n devices, in multiples of its operands' bytes}
SENT: dict[str, Callable[[int], float]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
}


@dataclass(frozen=True)
class StepCost:
    """The cost of the compiled step on one chip; FLOPs and hours are of all chips.

    Attributes:
      memory_parts: Bytes of arguments, temporaries, outputs and the program.
      compiler_flops: FLOPs of a step over all chips, counted by the compiler.
      compiler_flops_partly: Whether the compiler omits the work of a loop or a library, so that the
        bound uses the counted FLOPs.
      passes: bfloat16 products per float32 product.
      compiler_bytes: Bytes moved, counted by the compiler.
      memory_traffic: Bytes moved between a chip and its memory.
      collectives: Collectives by kind.
      sent: Bytes that a chip sends to others.
      seconds: Lower bounds of a step by arithmetic, memory and interconnect.
      bound: The largest of them.
      step_s: Its seconds.
      run_hours: Hours of the whole run.
      chip_hours: Chip-hours of the whole run over all chips.
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
    """What a run's step needs and costs on its devices.

    Attributes:
      run: The run's name.
      model: Its model.
      dtype: Data type of the model's activations.
      batch: Images per step.
      parallel: jit or pmap.
      devices: In words, or the slice's name.
      chips: Number of chips.
      steps: Number of steps of the run.
      counted_flops: FLOPs of a step over all chips: 3 x 2 x multiply-adds x images.
      chip: Its limits.
      fits: Whether the step fits into a chip's memory.
      memory: Bytes per chip; None if the compiler did not report them.
      cost: None if the step does not fit.
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
        """Returns the plan as a flat dictionary. Unknown values are None."""
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


def plan_run(experiment: Experiment, topology: str | None = None) -> Plan:
    """Compiles the run's step and returns what it needs and its lower bounds. It needs no data set.

    Args:
      experiment: The run.
      topology: A TPU slice such as 'v5e:4x4', for which libtpu compiles; None: this machine's
        devices.

    Raises:
      UserError: If the configuration has a mistake, there is no such slice, or libtpu is missing.
    """
    devices = jax.devices() if topology is None else make_slice(topology)
    precision = experiment.train.precision
    platform = devices[0].platform
    with mesh.target_platform(platform), jax.default_matmul_precision(precision):
        lowered, multiply_adds = lower_step(experiment, devices)
        chip = find_chip(experiment, topology)
        # Forward, and backward to inputs and to weights; a product and an addition each.
        flops = 6 * multiply_adds * experiment.data.batch_size
        cost, fits = None, False
        try:
            report = compile_for_report(lowered, topology, _find_cache_folder())
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            memory = _parse_needed_memory(str(error))
        else:
            cost = _measure_step(experiment, report, chip, len(devices), platform, flops)
            memory = sum(cost.memory_parts.values())
            fits = memory <= chip.memory
    return Plan(
        run=experiment.name,
        model=experiment.model.name,
        dtype=find_dtype(experiment),
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


def _find_cache_folder() -> Path | None:
    """Returns the folder of JAX's compile cache, if it has one."""
    folder = jax.config.jax_compilation_cache_dir
    return Path(folder) if folder and "://" not in folder else None


def _measure_step(
    experiment: Experiment,
    report: CompilerReport,
    chip: chips.Chip,
    count: int,
    platform: str,
    counted_flops: int,
) -> StepCost:
    text, flops = report.text, report.flops  # These are of one device.
    # The compiler counts a loop's body once, and the work of a library (oneDNN) not at all.
    partly = flops * count < counted_flops and (hlo.has_loop(text) or platform != "tpu")
    worked = counted_flops / count if partly else flops
    in_passes = platform == "tpu" and find_dtype(experiment) == "float32"
    passes = PASSES[experiment.train.precision] if in_passes else 1
    moved = hlo.count_traffic(text) if platform == "tpu" else report.bytes_accessed
    collectives = hlo.count_collectives(text)
    sent = sum(_count_sent(kind, found.bytes, count) for kind, found in collectives.items())
    seconds = {"arithmetic": worked * passes / chip.flops, "memory": moved / chip.bandwidth}
    if chip.interconnect:
        # A chip receives as much as it sends.
        seconds["interconnect"] = sent / (chip.interconnect / 2)
    bound = max(seconds, key=seconds.__getitem__)
    hours = seconds[bound] * experiment.train.steps / 3600
    return StepCost(
        memory_parts=report.memory_parts,
        compiler_flops=flops * count,
        compiler_flops_partly=partly,
        passes=passes,
        compiler_bytes=report.bytes_accessed,
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
    """Returns the bytes that a device sends in collectives of one kind."""
    return SENT[kind](count) * size if kind in SENT else size


def _parse_needed_memory(message: str) -> float | None:
    """Reads the bytes that a compiler would have needed: 'Used 20.46G of 15.75G hbm'."""
    found = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    return float(found[1]) * 1024 ** " KMGT".index(found[2] or " ") if found else None
