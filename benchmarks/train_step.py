"""Images/s of a training step: ours and other frameworks', for the same work in the same run.

    python -m benchmarks.train_step --model=resnet20 --batch=128 --peers=flax,torch,keras

Each peer runs in a process of its own. All peers start from the same weights and batch, and a peer
whose losses differ from ours is not timed. Timed blocks take turns (ours, flax, torch, keras, ours,
...); while one peer runs a block, the others sleep.
"""

import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks.peers import ALL_PEERS, WORKLOADS, Spec
from benchmarks.result import (
    check_names,
    compute_range,
    format_columns,
    run_benchmark,
    write_result,
)
from benchmarks.worker_process import ROOT, UNFILTERED, Worker, WorkerError, keep_fastest
from cnn_jax.errors import UserError

INSTALL = {
    "torch": (
        "pip install torch --index-url https://download.pytorch.org/whl/cpu (or the build for your"
        " GPU from pytorch.org)"
    ),
    "keras": "pip install -e '.[bench]'",
}
# Variants of a peer, of which the fastest is kept.
VARIANTS = {"torch": ("contiguous", "channels_last")}
# Largest relative difference of the first loss. A ResNet-50 with random weights magnifies
# bfloat16's rounding, so only float32's test is strict.
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
# Largest relative difference of the change of the loss over two updates. Rounding makes it differ
# by a few percent for a ResNet-50 with random weights, a missing momentum by 31%.
UPDATE_TOLERANCE = 0.25

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of `main`."""
    flags.DEFINE_enum("model", "resnet20", list(WORKLOADS), "The model to train.")
    flags.DEFINE_integer(
        "batch", None, "Images per step. Default: those of the model's goal.", lower_bound=1
    )
    flags.DEFINE_integer(
        "image_size", None, "Side of the images. Default: that of the model's goal.", lower_bound=1
    )
    flags.DEFINE_list(
        "peers",
        None,
        f"What to compare with. Default: of {', '.join(ALL_PEERS)} those with the model.",
    )
    flags.DEFINE_float(
        "seconds", 2, "Length of a timed block, which has at least one step.", lower_bound=0
    )
    flags.DEFINE_integer("blocks", 5, "Timed blocks of each peer.", lower_bound=1)
    flags.DEFINE_enum(
        "precision",
        "float32",
        list(LOSS_TOLERANCE),
        "Precision of activations. Parameters are float32.",
    )


def main() -> None:
    """Times our step and the peers', and prints the table and a line of JSON."""
    _, image, classes, batch, peers, _ = WORKLOADS[FLAGS.model]
    chosen = list(peers) if FLAGS.peers is None else FLAGS.peers
    check_names("peers", chosen, peers)
    image = (FLAGS.image_size, FLAGS.image_size, image[2]) if FLAGS.image_size else image
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/weights.npz"
        spec = Spec(
            "ours", "", FLAGS.model, FLAGS.batch or batch, image, classes, FLAGS.precision, file
        )
        environment = draw_inputs(spec)
        spec = spec._replace(platform=environment["platform"])
        modules = {peer: peer for peer in ("ours", *chosen)}
        rows, left_out = compare(spec, modules, FLAGS.seconds, FLAGS.blocks)
    print(
        f"\n{spec.model}, a training step of {spec.batch} images of {'x'.join(map(str, image))},"
        f" {spec.precision}"
    )
    print(f"{FLAGS.blocks} blocks of {FLAGS.seconds:g} s or one step; {environment['hardware']}\n")
    print(format_table(rows))
    environment["versions"] |= {
        peer: importlib.metadata.version(peer) for peer in rows if peer in ("torch", "keras")
    }
    settings = {k: v for k, v in spec._asdict().items() if k not in ("peer", "variant", "weights")}
    settings |= {"seconds": FLAGS.seconds, "blocks": FLAGS.blocks}
    result = {"benchmark": "train_step", **settings, "peers": rows, "left_out": left_out}
    write_result(result | environment)


def compare(
    spec: Spec, modules: Mapping[str, str], seconds: float, blocks: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Times peers, which take turns. Exits if ours fails.

    Args:
      spec: What all compute; its weights are drawn.
      modules: {peer: its module in `benchmarks.peers`}, ours first.
      seconds: Length of a block.
      blocks: Of each peer.

    Returns:
      {peer: its measurements}, {peer that is left out: why}.
    """
    left_out: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    with contextlib.ExitStack() as stack:
        started = {
            peer: [
                stack.enter_context(Worker(spec._replace(peer=module, variant=variant)))
                for variant in VARIANTS.get(peer, ("",))
            ]
            for peer, module in modules.items()
            if peer not in INSTALL or importlib.util.find_spec(peer)
        }
        # Imports take seconds and are not timed: all processes import at once. They have ended
        # before the first process compiles.
        for worker in itertools.chain(*started.values()):
            worker.wait_for_import()
        for peer in modules:
            try:
                if peer not in started:
                    raise WorkerError(f"is not installed: {INSTALL[peer]}")
                for worker in started[peer]:
                    worker.take_first_steps()
                worker = keep_fastest(started[peer], seconds)
                ours = workers.get("ours", worker)
                check_losses(worker.losses, ours.losses, LOSS_TOLERANCE[spec.precision])
                workers[peer] = worker
            except WorkerError as e:
                left_out[peer] = str(e)
                print(f"{peer} {e}", flush=True)
                if not workers:
                    sys.exit(1)  # Ours failed: there is nothing to compare with.
        for _ in range(blocks):
            for worker in workers.values():
                worker.time_block(seconds)
        rows = {peer: summarize_worker(worker, spec.batch) for peer, worker in workers.items()}
    return rows, left_out


def draw_inputs(spec: Spec) -> dict[str, Any]:
    """Writes the weights and the batch with `benchmarks.draw`, in a process of its own.

    Returns:
      The time, hardware, versions and commit, and JAX's platform.
    """
    command = [sys.executable, "-m", "benchmarks.draw", json.dumps(spec._asdict())]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | UNFILTERED,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["drawing the weights failed"])[-1]
        if done.returncode == 2:  # A size that the model cannot take.
            raise UserError(line.removeprefix("error: "))
        sys.exit(f"train_step.py: {line}")
    return json.loads(done.stdout.splitlines()[-1])


def check_losses(theirs: list[float], ours: list[float], tolerance: float) -> None:
    """Compares a peer's losses with ours: others would mean that it does other work.

    Args:
      theirs: The peer's losses before any update, after one, and after two.
      ours: The same of our step.
      tolerance: Largest relative difference of the first loss.

    Raises:
      WorkerError: If the losses differ by more than the tolerances.
    """
    their_change, our_change = theirs[2] - theirs[0], ours[2] - ours[0]
    allowed = tolerance * abs(ours[0])
    if not abs(theirs[0] - ours[0]) <= allowed:  # Refuses NaN too.
        raise WorkerError(
            f"is refused: its loss on the same weights and batch is {theirs[0]:.7g}, ours"
            f" {ours[0]:.7g}"
        )
    if not abs(their_change - our_change) <= allowed + UPDATE_TOLERANCE * abs(our_change):
        raise WorkerError(
            f"is refused: two updates change its loss by {their_change:.4g}, ours by"
            f" {our_change:.4g}"
        )


def summarize_worker(worker: Worker, batch: int) -> dict[str, Any]:
    """Returns a worker's measurements: images/s, time per step, memory and losses."""
    return {
        "variant": worker.variant,
        "images_per_s": compute_range([batch / seconds for seconds in worker.blocks]),
        "step_ms": 1000 * statistics.median(worker.blocks),
        "first_step_s": worker.first_s,
        "peak_mib": worker.peak_mib,
        "losses": worker.losses,
    }


def format_table(rows: dict[str, dict[str, Any]]) -> str:
    """Returns a line per peer, ours first.

    The ratio ours/peer is of median images/s: above 1, ours is faster.
    """
    head = ("peer", "images/s", "(min - max)", "ours/peer", "ms/step", "compile s", "peak MiB")
    lines = [head]
    for name, row in rows.items():
        speed = row["images_per_s"]
        ratio = rows["ours"]["images_per_s"]["median"] / speed["median"]
        lines.append(
            (
                f"{name} ({row['variant']})" if row["variant"] else name,
                f"{speed['median']:.1f}",
                f"({speed['min']:.1f} - {speed['max']:.1f})",
                f"{ratio:.2f}",
                f"{row['step_ms']:.1f}",
                f"{row['first_step_s']:.1f}",
                f"{row['peak_mib']:.0f}",
            )
        )
    return format_columns(lines)


if __name__ == "__main__":
    define_flags()
    run_benchmark(main)
