"""Images a second of a training step, ours against peers who do the same work in the same run.

    python -m benchmarks.train_step --net=resnet20 --batch=128 --peers=flax,torch,keras

Each peer lives in a process of its own, starts from the same weights and batch, must show the same losses as ours,
and is then timed in blocks that take turns (ours, flax, torch, keras, ours, ...) while the others sleep.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.peers import Spec
from benchmarks.result import aligned, spread, tell

ROOT = Path(__file__).parents[1]
# The images that a net is timed on, their classes, and the batch.
NETS = {
    "resnet20": ((32, 32, 3), 10, 128),
    "resnet50": ((224, 224, 3), 1000, 16),
    "vgg_d": ((32, 32, 3), 10, 64),
    "lenet5_modern": ((28, 28, 1), 10, 1),
}
PEERS = ("flax", "torch", "keras")
INSTALL = {
    "torch": "pip install torch --index-url https://download.pytorch.org/whl/cpu (or a GPU's from pytorch.org)",
    "keras": "pip install -e '.[bench]'",
}
VARIANTS = {"torch": ("contiguous", "channels_last")}  # of which the faster is kept
# Of the first loss, relative. Random ResNet-50s make much of bfloat16's rounding: the strict test is float32's.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
# Of what two updates change it by: random ResNet-50s differ by some percent from rounding, one without momentum by 31%.
UPDATES = 0.25

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of `main`."""
    flags.DEFINE_enum("net", "resnet20", list(NETS), "What is trained.")
    flags.DEFINE_integer(
        "batch", None, "Images a step. Default: the goal's of the net.", lower_bound=1
    )
    flags.DEFINE_integer(
        "image_size", None, "The side of an image. Default: the goal's of the net.", lower_bound=1
    )
    flags.DEFINE_list("peers", list(PEERS), f"Whom we are compared with: {', '.join(PEERS)}.")
    flags.DEFINE_float(
        "seconds", 2, "How long a timed block is to be (at least one step).", lower_bound=0
    )
    flags.DEFINE_integer("blocks", 5, "Timed blocks of each peer.", lower_bound=1)
    flags.DEFINE_enum(
        "precision", "float32", list(TOLERANCE), "Of the activations; parameters are float32."
    )


def main(argv: list[str]) -> None:
    """Times ours and the peers, and prints the table and a line of JSON."""
    if len(argv) > 1 or (unknown := [peer for peer in FLAGS.peers if peer not in PEERS]):
        sys.exit(
            f"train_step.py: {argv[1] if len(argv) > 1 else unknown[0]}: choose --peers of {', '.join(PEERS)}"
        )
    image, classes, batch = NETS[FLAGS.net]
    image = (FLAGS.image_size, FLAGS.image_size, image[2]) if FLAGS.image_size else image
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = f"{folder}/weights.npz"
        spec = Spec(
            "ours", "", FLAGS.net, FLAGS.batch or batch, image, classes, FLAGS.precision, file
        )
        surroundings = draw(spec)
        spec = spec._replace(platform=surroundings["platform"])
        workers: list[Worker] = []
        for peer in ("ours", *FLAGS.peers):
            specs = [
                spec._replace(peer=peer, variant=variant) for variant in VARIANTS.get(peer, ("",))
            ]
            try:
                if peer in INSTALL and importlib.util.find_spec(peer) is None:
                    raise WorkerError(f"is not installed: {INSTALL[peer]}")
                worker = fastest(
                    [stack.enter_context(Worker(each)) for each in specs], FLAGS.seconds
                )
                check(worker.losses, (workers or [worker])[0].losses, TOLERANCE[spec.precision])
                workers.append(worker)
            except WorkerError as e:
                told[peer] = str(e)
                print(f"{peer} {e}", flush=True)
                if not workers:
                    sys.exit(1)  # nothing to compare with
        for _ in range(FLAGS.blocks):
            for worker in workers:
                worker.block(FLAGS.seconds)
        rows = {worker.name: row(worker, spec.batch) for worker in workers}
    print(
        f"\n{spec.net}, a training step of {spec.batch} images of {'x'.join(map(str, image))}, {spec.precision}"
    )
    print(f"{FLAGS.blocks} blocks of {FLAGS.seconds:g} s or a step; {surroundings['hardware']}\n")
    print(table(rows))
    surroundings["versions"] |= {
        peer: importlib.metadata.version(peer) for peer in rows if peer in ("torch", "keras")
    }
    settings = {k: v for k, v in spec._asdict().items() if k not in ("peer", "variant", "weights")}
    settings |= {"seconds": FLAGS.seconds, "blocks": FLAGS.blocks}
    tell({"benchmark": "train_step", **settings, "peers": rows, "left_out": told, **surroundings})


class WorkerError(RuntimeError):
    """Why a peer cannot be timed, in words that follow its name."""


class Worker:
    """A peer in its own process, from its first steps to the end of the `with`; raises WorkerError if it dies.

    losses: of its first three steps. first_s: seconds of the first, which traces and compiles. blocks: seconds a step
    of each timed block. peak_mib: memory.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec, self.name, self.variant = spec, spec.peer, spec.variant
        self.blocks, self.peak_mib, self.step_s = [], 0.0, 0.0
        self.complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed at the end of our own `with`
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "benchmarks.worker"]
        self.process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=self.complaints,
            text=True,
            cwd=ROOT,
            env=environment(spec),
        )

    def __enter__(self) -> "Worker":
        first = self._ask(json.dumps(self.spec._asdict()))
        self.losses, self.first_s, self.step_s = first["losses"], first["first_s"], first["step_s"]
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.complaints.close()

    def run(self, seconds: float) -> float:
        """Seconds a step, over as many as fill `seconds` by what the last took, after one that does not count.

        A step as long as a block needs none before it.
        """
        steps, before = max(1, round(seconds / self.step_s)), int(self.step_s < seconds)
        answer = self._ask(f"{before} {steps}")
        self.step_s, self.peak_mib = answer["seconds"] / steps, answer["peak_mib"]
        return self.step_s

    def block(self, seconds: float) -> None:
        """Runs a block that counts."""
        self.blocks.append(self.run(seconds))

    def _ask(self, line: str) -> dict[str, Any]:
        with contextlib.suppress(OSError):  # it is dead, as its silence will tell
            print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            self.complaints.seek(0)
            said = self.complaints.read().strip().splitlines() or [
                f"exit code {self.process.returncode}"
            ]
            raise WorkerError(f"failed: {said[-1]}")
        return json.loads(answer)


def environment(spec: Spec) -> dict[str, str]:
    """The worker's: nothing compiled is taken from a cache, and processes share a GPU's memory."""
    told = {"JAX_ENABLE_COMPILATION_CACHE": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if spec.precision == "float32":  # products too, as in our runs; a GPU would take tensorfloat32
        told["JAX_DEFAULT_MATMUL_PRECISION"] = "float32"
    return os.environ | told


def draw(spec: Spec) -> dict[str, Any]:
    """Has the weights and the batch drawn, in a process that ends; gives when, where and with what."""
    command = [sys.executable, "-m", "benchmarks.draw", json.dumps(spec._asdict())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(
            f"train_step.py: {(done.stderr.strip().splitlines() or ['drawing the weights failed'])[-1]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def fastest(workers: list[Worker], seconds: float) -> Worker:
    """The fastest after warm-up, by the median of three turns if there are several; the others are ended."""
    for turn in range(5 if len(workers) > 1 else 2):
        for worker in workers:
            if turn >= 2:
                worker.block(seconds)
            elif (
                worker.step_s < seconds
            ):  # of longer ones, the three that gave the losses are enough
                worker.run(seconds)
    best = min(workers, key=lambda worker: statistics.median(worker.blocks or [0]))
    for worker in workers:
        worker.blocks = []
        if worker is not best:
            worker.__exit__()
    return best


def check(theirs: list[float], ours: list[float], tolerance: float) -> None:
    """Raises WorkerError if the losses [before, after one update, after two] are not ours: the work is not the same."""
    moved, our_move = theirs[2] - theirs[0], ours[2] - ours[0]
    allowed = tolerance * abs(ours[0])
    if not abs(theirs[0] - ours[0]) <= allowed:  # so that NaN is refused too
        raise WorkerError(
            f"is refused: its loss on the same weights and batch is {theirs[0]:.7g}, ours {ours[0]:.7g}"
        )
    if not abs(moved - our_move) <= allowed + UPDATES * abs(our_move):
        raise WorkerError(
            f"is refused: two updates change its loss by {moved:.4g}, ours by {our_move:.4g}"
        )


def row(worker: Worker, batch: int) -> dict[str, Any]:
    """What is found of a worker: images/s of the median, the fastest and the slowest block."""
    return {
        "variant": worker.variant,
        "images_per_s": spread([batch / seconds for seconds in worker.blocks]),
        "step_ms": 1000 * statistics.median(worker.blocks),
        "first_step_s": worker.first_s,
        "peak_mib": worker.peak_mib,
        "losses": worker.losses,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line a peer, ours first; the ratio is of medians, ours by the peer's: above 1, ours is faster."""
    head = ("peer", "images/s", "(min - max)", "ours/peer", "ms a step", "compile s", "peak MiB")
    lines = [head]
    for name, found in rows.items():
        speed = found["images_per_s"]
        ratio = rows["ours"]["images_per_s"]["median"] / speed["median"]
        lines.append(
            (
                f"{name} ({found['variant']})" if found["variant"] else name,
                f"{speed['median']:.1f}",
                f"({speed['min']:.1f} - {speed['max']:.1f})",
                f"{ratio:.2f}",
                f"{found['step_ms']:.1f}",
                f"{found['first_step_s']:.1f}",
                f"{found['peak_mib']:.0f}",
            )
        )
    return aligned(lines)


if __name__ == "__main__":
    define_flags()
    app.run(main)
