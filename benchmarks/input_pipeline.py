"""JPEG to scale-jittered 224 x 224 crops, images a second: ours, Pillow, OpenCV, TensorFlow; and the whole loader.

    python -m benchmarks.input_pipeline --data=folder:PATH

Files lie in memory; S is uniform in [256, 512], and each way is given the same crops, in blocks that take turns.
"""

import functools
import importlib.util
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.result import aligned, spread, tell

LO, HI, CROP, BATCH, SEED = 256, 512, 224, 32, 0
FLAGS = flags.FLAGS
Way = Callable[[bytes, Any], Any]  # (encoded, Box) -> uint8 or float32 [224, 224, 3]


def main(argv: list[str]) -> None:
    """Times each way on one core and on all, then the loader, and prints the tables and a line of JSON."""
    if argv[1:] or not FLAGS.data.startswith("folder:"):
        sys.exit("input_pipeline.py: wants --data=folder:PATH, of class folders, and flags only")
    os.environ["JAX_PLATFORMS"] = "cpu"
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {min(cores)})  # before TensorFlow and OpenCV make a thread a core
    import cv2

    from cnn_jax.data import folders
    from cnn_jax.data.prepare import resize
    from cnn_jax.errors import UserError
    from cnn_jax.training import metrics_log

    cv2.setNumThreads(0)
    try:
        source = folders.load_folder(FLAGS.data.removeprefix("folder:"))
    except UserError as error:
        sys.exit(f"input_pipeline.py: {error}")
    ways: dict[str, Way] = {"pillow": pillow, "opencv": opencv, "ours": ours}
    if importlib.util.find_spec("tensorflow") is None:
        print("tf is not installed: pip install tensorflow-cpu")
    else:
        ways |= {"tf": tensorflow(antialias=False), "tf, antialiased": tensorflow(antialias=True)}
    with tempfile.TemporaryDirectory() as small:
        resize.resize(source, Path(small), FLAGS.resized)
        cv2.setNumThreads(0)
        name = f"ours, resized to {FLAGS.resized}"
        work = {way: (cut, in_memory(source)) for way, cut in ways.items()}
        work[name] = (ours, in_memory(folders.load_folder(small)))
        told = {"one core": timed(work, 1)}
        if cores:
            os.sched_setaffinity(0, cores)
        told["all cores"] = timed(work, len(cores) or os.cpu_count())
        loaders = {f"{workers} workers": loader(source, workers) for workers in FLAGS.workers}
    for title, rows in told.items():
        print(f"\n{title}\n{table(rows)}")
    print(
        "\nwhole loader, all cores: "
        + ", ".join(f"{k} {v:,.0f} images/s" for k, v in loaders.items())
    )
    one = {way: row["ratio"] for way, row in told["one core"].items()}
    print("goals on one core:", "; ".join([
        met("ours/pillow", one["ours"], 2.5),
        met("ours/tf", one["ours"] / one["tf"] if "tf" in one else None, 1.1),
        met("images/s from the resized set", told["one core"][name]["images_per_s"]["median"], 1800),
    ]))  # fmt: skip
    ratios = {
        way: one.get(way) for way in ("pillow", "opencv", "ours", "tf", "tf, antialiased")
    } | {name: one[name]}
    tell(
        ratios
        | {"benchmark": "input_pipeline", **told, "loader_images_per_s": loaders}
        | metrics_log.describe_environment()
    )


def in_memory(source: Any) -> list[tuple[bytes, Any]]:
    """(file, Box) of every image that can be decoded."""
    import numpy as np

    from cnn_jax.data import crops, headers

    rng, found = np.random.default_rng(SEED), []
    for part in (source.train, source.test):
        for i in range(len(part)):
            encoded = part.read(i)
            found.append(
                (encoded, crops.draw_scale_jitter(rng, headers.read_size(encoded), LO, HI, CROP))
            )
    return found


def ours(encoded: bytes, box: Any) -> Any:
    """As a run does."""
    from cnn_jax.data import decode

    return decode.decode_crop(encoded, lambda _: box, (CROP, CROP))


def pillow(encoded: bytes, box: Any) -> Any:
    """As torchvision does: the whole image is decoded, resized by antialiased bilinear, and cropped."""
    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    k = CROP / box.height
    whole = image.resize(
        (round(image.width * k), round(image.height * k)), Image.Resampling.BILINEAR
    )
    left, top = round(box.left * k), round(box.top * k)
    return np.asarray(whole.crop((left, top, left + CROP, top + CROP)))


def opencv(encoded: bytes, box: Any) -> Any:
    """The whole image is decoded, its box cropped and resized by area, which antialiases."""
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    top, left, bottom, right = window(box, image.shape)
    how = cv2.INTER_AREA if bottom - top > CROP else cv2.INTER_LINEAR
    return cv2.cvtColor(
        cv2.resize(image[top:bottom, left:right], (CROP, CROP), interpolation=how),
        cv2.COLOR_BGR2RGB,
    )


def tensorflow(antialias: bool) -> Way:
    """tf.image.decode_and_crop_jpeg and a bilinear resize, compiled into a graph; usual is not to antialias."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    if not antialias:  # once: before the first operation
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    @functools.partial(
        tf.function, input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([4], tf.int32)]
    )
    def cut(encoded: Any, box: Any) -> Any:
        image = tf.io.decode_and_crop_jpeg(encoded, box, channels=3)
        return tf.cast(tf.image.resize(image, (CROP, CROP), antialias=antialias), tf.uint8)

    def way(encoded: bytes, box: Any) -> Any:
        from cnn_jax.data import headers

        top, left, bottom, right = window(box, headers.read_size(encoded))
        return cut(encoded, [top, left, bottom - top, right - left]).numpy()

    return way


def window(box: Any, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the box in whole pixels inside an image of this shape."""
    top, left = int(box.top), int(box.left)
    return top, left, min(shape[0], round(top + box.height)), min(shape[1], round(left + box.width))


def timed(work: dict[str, tuple[Way, list]], threads: int) -> dict[str, Any]:
    """Images a second of each way, and its ratio to Pillow's, medians over blocks that take turns."""
    speeds: dict[str, list[float]] = {name: [] for name in work}
    with ThreadPoolExecutor(threads) as pool:
        for block in range(FLAGS.blocks + 1):
            for name, (way, files) in work.items():
                one = lambda item, way=way: way(*item) is not None
                began = time.perf_counter()
                list(pool.map(one, files) if threads > 1 else map(one, files))
                if block:  # the first warms up
                    speeds[name].append(len(files) / (time.perf_counter() - began))
    # The ratio of blocks that stand side by side: other work on the machine then slows both.
    ratio = lambda name: statistics.median(
        a / b for a, b in zip(speeds[name], speeds["pillow"], strict=True)
    )
    return {
        name: {"images_per_s": spread(found), "ratio": ratio(name)}
        for name, found in speeds.items()
    }


def loader(source: Any, workers: int) -> float:
    """Images a second of batches as a run's step takes them, without their way to the device."""
    from cnn_jax.config import Data, dataset
    from cnn_jax.data import streaming

    data = Data(
        dataset=dataset(FLAGS.data),
        train_resize=(LO, HI),
        image_size=CROP,
        batch_size=BATCH,
        workers=workers,
    )
    batches = streaming.iterate_batches(streaming.StreamedBatches(data, source.train, SEED), 0)
    for _ in range(8):  # workers start, and fill what waits
        next(batches)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < FLAGS.seconds:
        count += len(next(batches)["label"])
    speed = count / (time.perf_counter() - began)
    batches.close()
    return speed


def table(rows: dict[str, Any]) -> str:
    """A line a way; above 1 it is faster than Pillow."""
    lines = [("way", "images/s", "(min - max)", "of pillow")]
    for name, row in rows.items():
        speed = row["images_per_s"]
        spans = f"({speed['min']:,.0f} - {speed['max']:,.0f})"
        lines.append((name, f"{speed['median']:,.0f}", spans, f"{row['ratio']:.2f}"))
    return aligned(lines)


def met(what: str, found: float | None, goal: float) -> str:
    """What was reached, and whether that is the goal."""
    if found is None:
        return f"{what} not measured"
    return f"{what} {found:,.2f} ({'met' if found >= goal else 'not met'}: {goal:,})"


if __name__ == "__main__":
    flags.DEFINE_string("data", "", "folder:PATH, a folder of class folders of JPEGs.")
    flags.DEFINE_integer(
        "resized",
        256,
        "The shorter side at which the set is re-encoded for its row.",
        lower_bound=1,
    )
    flags.DEFINE_multi_integer("workers", [1, 2], "Processes of the loader; 0: threads.")
    flags.DEFINE_float("seconds", 4, "How long the loader is timed.", lower_bound=0)
    flags.DEFINE_integer("blocks", 5, "Timed blocks of each way.", lower_bound=1)
    app.run(main)
