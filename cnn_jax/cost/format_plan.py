"""Prints a plan as a table."""

from cnn_jax.cost.estimate import format_duration
from cnn_jax.cost.plan import Plan, StepCost

CAUTION = (
    "An estimate, and a lower bound on time: no chip keeps to its peaks all the while, and neither"
    " input, evaluation, checkpoints nor compilation are counted."
)


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
    parts = [f"{name} {_format_si(size, 'B')}" for name, size in cost.memory_parts.items()]
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
        "memory": f"{_format_si(memory, 'B')}: {fits} on a {chip}; {', '.join(parts)}",
        "FLOPs": f"{_format_si(cost.compiler_flops, 'FLOP')} a step by the compiler,"
        f" {_format_si(plan.counted_flops, 'FLOP')} by counting 3 x 2 x multiply-adds"
        f" ({apart:+.1%})" + (", which the bound takes" if cost.compiler_flops_partly else ""),
        "traffic": f"{_format_si(cost.memory_traffic, 'B')} a step between a chip and its memory"
        f" ({_format_si(cost.compiler_bytes, 'B')} as the compiler counts)",
        "collectives": (", ".join(kinds) or "none") + unknown,
        "a step": f"{cost.step_s * 1e3:.3g} ms at least, bound by {cost.bound}:"
        f" {', '.join(bounds)}",
        "the run": f"{plan.steps:,} steps: {format_duration(3600 * cost.run_hours)},"
        f" {_format_hours(cost.chip_hours)} chip-hours at least",
    }


def _format_si(value: float, unit: str) -> str:
    """Returns 5.93e12 FLOP as '5.93 TFLOP'."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _format_hours(hours: float) -> str:
    """Returns a number of hours with two decimals, and 'under 0.01' if it is less."""
    return f"{hours:,.2f}" if hours >= 0.01 else "under 0.01"
