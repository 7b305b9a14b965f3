"""Which operations of a training step take the time: ours against PyTorch's, by kind.

    python -m benchmarks.profile_step --model=alexnet

Both run in this process, one after the other. Operations are grouped by kind. An operation of ours
belongs to the layer from which it was traced; where the compiler fuses operations of several
layers, it belongs to the last of them. PyTorch's operations are grouped by their names. Times are
those of both profilers, with what they add.
"""

import importlib.util
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags

from benchmarks import draw
from benchmarks.peers import WORKLOADS, Peer, Spec
from benchmarks.result import format_columns, run_benchmark
from benchmarks.train_step import INSTALL
from cnn_jax.cost import hlo
from cnn_jax.cpu import memory, settings
from cnn_jax.errors import UserError
from cnn_jax.training.profile import read_costs

# Kinds by the names of our layers; the innermost layer of a path that matches decides.
OUR_KINDS = {
    "batch norm": r"(\w+_)?norm\d*(_\d)?",
    "LRN": r"lrn\w*",
    "pooling": r"\w*pool\d*|s2|s4",
    "dense layers": r"(D|d)ense_?\d*|fc\d|f6|head|output",
    "convolution": r"(C|c)onv\w*|stem|projection|c1|c3|c5",
}
# Kinds by the names of PyTorch's operations, of which the first match decides.
TORCH_KINDS = {
    "convolution, backward": r"convolution_backward",
    "convolution, forward": r"conv",
    "batch norm": r"batch_norm",
    "LRN": r"avg_pool3d|pow",
    "pooling": r"pool",
    "dense layers": r"addmm|::mm",
}
OTHER = "all else"
STEPS_BEFORE = 2  # The first compiles.
LARGEST = 6  # Operations that are listed by themselves.
FLAGS = flags.FLAGS


def main() -> None:
    """Profiles both and prints the tables."""
    if not importlib.util.find_spec("torch"):
        raise UserError(f"torch is not installed: {INSTALL['torch']}")
    _, image, classes, batch, *_ = WORKLOADS[FLAGS.model]
    image = (FLAGS.image_size, FLAGS.image_size, image[2]) if FLAGS.image_size else image
    # As a run does. Both come before JAX starts, which the line after them does: malloc would not
    # keep memory for threads that exist already, and each step would fault its pages in again.
    settings.configure()
    memory.keep_memory((FLAGS.batch or batch) * math.prod(image))
    platform = jax.default_backend()
    spec = Spec("ours", "", FLAGS.model, FLAGS.batch or batch, image, classes, "float32", "")
    spec = spec._replace(platform=platform, variant=FLAGS.layout)
    torch_costs = profile_torch(spec, FLAGS.steps)
    costs, layers = profile_ours(spec, FLAGS.steps)
    our_kinds = group(costs, lambda name: find_our_kind(name, layers[name]))
    torch_kinds = group(torch_costs, find_torch_kind)
    print(f"\n{spec.model}, a step of {spec.batch} images of {'x'.join(map(str, image))}, ms\n")
    print(format_kinds(our_kinds, torch_kinds))
    for whose, found in (("ours", costs), (f"torch ({spec.variant})", torch_costs)):
        print(f"\nthe costliest operations, {whose}, ms")
        rows = [(f"{name}  {layers.get(name, '')}", ms) for name, ms in found.most_common(LARGEST)]
        print("\n".join(f"{ms:9.3f}  {name}" for name, ms in rows))


def profile_ours(spec: Spec, steps: int) -> tuple[Counter[str], dict[str, str]]:
    """Returns {operation: ms a step} and {operation: the path of its layer}."""
    from benchmarks.peers import ours

    peer = ours.make_peer(spec, draw.draw_arrays(spec))
    take_steps(peer, STEPS_BEFORE)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            take_steps(peer, steps)
        costs = read_costs(Path(folder), steps)
    assert peer.read_program
    origins = hlo.find_origins(peer.read_program())
    unknown = hlo.Origin("", "")
    by_name = {name: origins.get(name.partition("__onednn$")[0], unknown) for name in costs}
    own = {n: ms for n, ms in costs.items() if by_name[n].opcode not in hlo.CONTROL_FLOW}
    return Counter(own), {name: by_name[name].layer for name in own}


def profile_torch(spec: Spec, steps: int) -> Counter[str]:
    """Returns {operation: ms a step}, without the operations that it calls."""
    import torch.profiler

    from benchmarks.peers import torch as torch_peer

    peer = torch_peer.make_peer(spec, draw.draw_arrays(spec))
    take_steps(peer, STEPS_BEFORE)
    with torch.profiler.profile() as profile:
        take_steps(peer, steps)
    name = "self_device_time_total" if spec.platform == "gpu" else "self_cpu_time_total"
    return Counter({e.key: getattr(e, name) / 1000 / steps for e in profile.key_averages()})


def take_steps(peer: Peer, steps: int) -> None:
    """Takes some steps and waits for them."""
    for _ in range(steps):
        peer.step()
    peer.read_loss()


def group(costs: Counter[str], find_kind: Callable[[str], str]) -> Counter[str]:
    """Returns {kind: ms a step}."""
    kinds: Counter[str] = Counter()
    for name, ms in costs.items():
        kinds[find_kind(name)] += ms
    return kinds


def find_our_kind(operation: str, path: str) -> str:
    """Returns the kind of one of our operations.

    Args:
      operation: Its name in the program, such as fusion.3.
      path: Of its layer, such as jvp(model)/conv1/dot_general.
    """
    *layers, _ = path.split("/")
    if "convolution" in operation:
        layers.append("conv")
    for layer in reversed(layers):
        for kind, pattern in OUR_KINDS.items():
            if re.fullmatch(pattern, layer):
                if kind != "convolution":
                    return kind
                return f"{kind}, {'backward' if 'transpose(' in path else 'forward'}"
    return OTHER


def find_torch_kind(operation: str) -> str:
    """Returns the kind of one of PyTorch's operations, such as aten::addmm."""
    return next((k for k, pattern in TORCH_KINDS.items() if re.search(pattern, operation)), OTHER)


def format_kinds(ours: Counter[str], torch: Counter[str]) -> str:
    """Returns a line per kind, the one where ours loses most first, and the sums."""
    kinds = sorted(ours.keys() | torch.keys(), key=lambda kind: torch[kind] - ours[kind])
    rows = [("kind", "ours", "torch", "ours - torch")]
    both = [(kind, ours[kind], torch[kind]) for kind in kinds]
    for kind, a, b in [*both, ("sum", ours.total(), torch.total())]:
        rows.append((kind, f"{a:.2f}", f"{b:.2f}", f"{a - b:+.2f}"))
    return format_columns(rows)


if __name__ == "__main__":
    flags.DEFINE_enum("model", "resnet20", list(WORKLOADS), "The model to train.")
    flags.DEFINE_integer("batch", None, "Images per step. Default: the workload's.", lower_bound=1)
    flags.DEFINE_integer(
        "image_size", None, "Side of the images. Default: the workload's.", lower_bound=1
    )
    flags.DEFINE_integer("steps", 3, "Steps that are traced.", lower_bound=1)
    flags.DEFINE_enum(
        "layout", "channels_last", ["contiguous", "channels_last"], "PyTorch's memory format."
    )
    run_benchmark(main)
