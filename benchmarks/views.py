"""Images/s of test-time views of a VGG-16: ours and PyTorch's, by the same protocol.

    python -m benchmarks.views --protocol=ten_crop

An image counts once, however many views it has. Ours is the evaluation of a finished run; PyTorch's
is written from the papers' words (`peers/torch_views.py`). Both get the same weights and images of
256x320 in memory, and must report the same loss. Blocks take turns as in `benchmarks.train_step`.
"""

import importlib.metadata
import tempfile

from absl import flags

from benchmarks.peers import CROP, Spec
from benchmarks.result import run_benchmark, write_result
from benchmarks.train_step import compare, draw_inputs, format_table

# {protocol: images on CPU}
PROTOCOLS = {"ten_crop": 2, "dense": 4}
IMAGES = 250  # On an accelerator.
FLAGS = flags.FLAGS


def main() -> None:
    """Times a protocol, and prints the table and a line of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Spec(
            peer="ours_views",
            variant="",
            model="vgg_d",
            batch=FLAGS.images or PROTOCOLS[FLAGS.protocol],
            image=(CROP, CROP, 3),
            classes=1000,
            precision="float32",
            weights=f"{folder}/weights.npz",
            protocol=FLAGS.protocol,
        )
        environment = draw_inputs(spec)
        spec = spec._replace(platform=environment["platform"])
        if spec.platform != "cpu" and not FLAGS.images:
            spec = spec._replace(batch=IMAGES)
            draw_inputs(spec)
        modules = {"ours": "ours_views", "torch": "torch_views"}
        rows, left_out = compare(spec, modules, FLAGS.seconds, FLAGS.blocks)
    print(f"\nvgg_d, {spec.protocol} of {spec.batch} images of 256x320, {spec.precision}")
    print(f"{FLAGS.blocks} blocks of {FLAGS.seconds:g} s or one pass; {environment['hardware']}\n")
    print(format_table(rows))
    if "torch" in rows:
        environment["versions"]["torch"] = importlib.metadata.version("torch")
    result = {
        "benchmark": "views",
        "model": spec.model,
        "protocol": spec.protocol,
        "images": spec.batch,
        "precision": spec.precision,
        "seconds": FLAGS.seconds,
        "blocks": FLAGS.blocks,
        "peers": rows,
        "left_out": left_out,
    }
    write_result(result | environment)


if __name__ == "__main__":
    flags.DEFINE_enum("protocol", "ten_crop", list(PROTOCOLS), "Which views are scored.")
    flags.DEFINE_integer(
        "images", None, "Images. Default: 2 or 4 on CPU, 250 elsewhere.", lower_bound=1
    )
    flags.DEFINE_float("seconds", 2, "Length of a timed block, at least one pass.", lower_bound=0)
    flags.DEFINE_integer("blocks", 3, "Timed blocks of each.", lower_bound=1)
    run_benchmark(main)
