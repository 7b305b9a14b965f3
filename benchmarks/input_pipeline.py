"""Images/s from a JPEG to a scale-jittered 224 x 224 crop, by our decoder and others.

    python -m benchmarks.input_pipeline --data=folder:PATH

The others are Pillow, OpenCV and TensorFlow. All get the same files, in memory, and the same crops,
whose shorter side is uniform in [256, 512]. Timed blocks take turns. Then the whole loader is
timed, with worker processes.
"""

import functools
import importlib.util
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.result import compute_range, format_columns, run_benchmark, write_result
from cnn_jax.errors import UserError

LO, HI, CROP, BATCH, SEED = 256, 512, 224, 32, 0
FLAGS = flags.FLAGS
Decoder = Callable[[bytes, Any], Any]  # (encoded, Box) -> uint8 or float32 [224, 224, 3].


def main() -> None:
    """Times the decoders on one core and on all, then the loader; prints tables and JSON."""
    if not FLAGS.data.startswith("folder:"):
        raise UserError("name a folder of class folders with --data=folder:PATH")
    os.environ["JAX_PLATFORMS"] = "cpu"
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {min(cores)})  # TensorFlow and OpenCV start a thread per core.
    import cv2

    from cnn_jax.data import folders
    from cnn_jax.data.prepare import resize
    from cnn_jax.training import environment

    cv2.setNumThreads(0)
    source = folders.load_folder(FLAGS.data.removeprefix("folder:"))
    decoders: dict[str, Decoder] = {
        "pillow": decode_by_pillow,
        "opencv": decode_by_opencv,
        "ours": decode_by_ours,
    }
    if importlib.util.find_spec("tensorflow") is None:
        print("tf is not installed: pip install tensorflow-cpu")
    else:
        decoders |= {
            "tf": make_tensorflow_decoder(antialias=False),
            "tf, antialiased": make_tensorflow_decoder(antialias=True),
        }
    with tempfile.TemporaryDirectory() as small:
        bad = resize.resize(source, Path(small), FLAGS.resized)
        for name, why in bad.items():
            raise UserError(f"{name}: {why}: name a folder without damaged images")
        cv2.setNumThreads(0)
        name = f"ours, resized to {FLAGS.resized}"
        work = {key: (decode, read_images(source)) for key, decode in decoders.items()}
        work[name] = (decode_by_ours, read_images(folders.load_folder(small)))
        results = {"one core": measure_decoders(work, 1)}
        if cores:
            os.sched_setaffinity(0, cores)
        results["all cores"] = measure_decoders(work, len(cores) or os.cpu_count())
        loaders = {
            f"{workers} workers": measure_loader(source, workers) for workers in FLAGS.workers
        }
    for title, rows in results.items():
        print(f"\n{title}\n{format_table(rows)}")
    print(
        "\nwhole loader, all cores: "
        + ", ".join(f"{k} {v:,.0f} images/s" for k, v in loaders.items())
    )
    ratios = {key: row["ratio"] for key, row in results["one core"].items()}
    resized = results["one core"][name]["images_per_s"]["median"]
    goals = (
        format_goal("ours/pillow", ratios["ours"], 2.5),
        format_goal("ours/tf", ratios["ours"] / ratios["tf"] if "tf" in ratios else None, 1.1),
        format_goal("images/s from the resized set", resized, 1800),
    )
    print("goals on one core:", "; ".join(goals))
    keys = ("pillow", "opencv", "ours", "tf", "tf, antialiased", name)
    write_result(
        {key: ratios.get(key) for key in keys}
        | {"benchmark": "input_pipeline", **results, "loader_images_per_s": loaders}
        | environment.describe_environment()
    )


def read_images(source: Any) -> list[tuple[bytes, Any]]:
    """Reads all files of a data set and draws a crop of each; returns pairs (encoded, Box)."""
    import numpy as np

    from cnn_jax.data import crops, headers

    rng, images = np.random.default_rng(SEED), []
    for part in (source.train, source.test):
        for i in range(len(part)):
            encoded = part.read(i)
            images.append(
                (encoded, crops.draw_scale_jitter(rng, headers.read_size(encoded), LO, HI, CROP))
            )
    return images


def decode_by_ours(encoded: bytes, box: Any) -> Any:
    """Decodes and crops as a run does."""
    from cnn_jax.data import decode

    return decode.decode_crop(encoded, lambda _: box, (CROP, CROP))


def decode_by_pillow(encoded: bytes, box: Any) -> Any:
    """Decodes all, resizes by antialiased bilinear interpolation and crops, as torchvision does."""
    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    k = CROP / box.height
    whole = image.resize(
        (round(image.width * k), round(image.height * k)), Image.Resampling.BILINEAR
    )
    left, top = round(box.left * k), round(box.top * k)
    return np.asarray(whole.crop((left, top, left + CROP, top + CROP)))


def decode_by_opencv(encoded: bytes, box: Any) -> Any:
    """Decodes all, crops the box and resizes it by area, which antialiases."""
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    top, left, bottom, right = round_box(box, image.shape)
    interpolation = cv2.INTER_AREA if bottom - top > CROP else cv2.INTER_LINEAR
    return cv2.cvtColor(
        cv2.resize(image[top:bottom, left:right], (CROP, CROP), interpolation=interpolation),
        cv2.COLOR_BGR2RGB,
    )


def make_tensorflow_decoder(antialias: bool) -> Decoder:
    """Returns tf.io.decode_and_crop_jpeg with a bilinear resize, compiled into a graph.

    Args:
      antialias: Whether the resize antialiases. TensorFlow's default is False.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    if not antialias:  # This must come before the first operation.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    @functools.partial(
        tf.function, input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([4], tf.int32)]
    )
    def decode_box(encoded: Any, box: Any) -> Any:
        image = tf.io.decode_and_crop_jpeg(encoded, box, channels=3)
        return tf.cast(tf.image.resize(image, (CROP, CROP), antialias=antialias), tf.uint8)

    def decode(encoded: bytes, box: Any) -> Any:
        from cnn_jax.data import headers

        top, left, bottom, right = round_box(box, headers.read_size(encoded))
        return decode_box(encoded, [top, left, bottom - top, right - left]).numpy()

    return decode


def round_box(box: Any, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns the box in whole pixels inside an image: top, left, bottom, right."""
    top, left = int(box.top), int(box.left)
    return top, left, min(shape[0], round(top + box.height)), min(shape[1], round(left + box.width))


def measure_decoders(work: dict[str, tuple[Decoder, list]], threads: int) -> dict[str, Any]:
    """Times the decoders in blocks that take turns.

    Args:
      work: {name: (decoder, pairs of encoded image and Box)}
      threads: Threads that decode.

    Returns:
      {name: {"images_per_s": min, median and max, "ratio": median ratio to Pillow's}}
    """
    speeds: dict[str, list[float]] = {name: [] for name in work}
    with ThreadPoolExecutor(threads) as pool:
        for block in range(FLAGS.blocks + 1):
            for name, (decode, images) in work.items():

                def decode_one(item: tuple, decode: Decoder = decode) -> bool:
                    return decode(*item) is not None

                start = time.perf_counter()
                list(pool.map(decode_one, images) if threads > 1 else map(decode_one, images))
                if block:  # The first block warms up.
                    speeds[name].append(len(images) / (time.perf_counter() - start))

    # The ratio of blocks that follow each other: other work on the machine slows both.
    def compute_ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(speeds[name], speeds["pillow"], strict=True))

    return {
        name: {"images_per_s": compute_range(values), "ratio": compute_ratio(name)}
        for name, values in speeds.items()
    }


def measure_loader(source: Any, workers: int) -> float:
    """Returns the images/s of a run's batches, without the copy to the device."""
    from cnn_jax.config import Data, parse_dataset
    from cnn_jax.data import streaming

    data = Data(
        dataset=parse_dataset(FLAGS.data),
        train_resize=(LO, HI),
        image_size=CROP,
        batch_size=BATCH,
        workers=workers,
    )
    batches = streaming.iterate_batches(streaming.StreamedBatches(data, source.train, SEED), 0)
    for _ in range(8):  # The workers start and fill the queue.
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < FLAGS.seconds:
        count += len(next(batches)["label"])
    speed = count / (time.perf_counter() - start)
    batches.close()
    return speed


def format_table(rows: dict[str, Any]) -> str:
    """Returns a line per decoder. A ratio above 1 is faster than Pillow."""
    lines = [("decoder", "images/s", "(min - max)", "/ pillow")]
    for name, row in rows.items():
        speed = row["images_per_s"]
        spans = f"({speed['min']:,.0f} - {speed['max']:,.0f})"
        lines.append((name, f"{speed['median']:,.0f}", spans, f"{row['ratio']:.2f}"))
    return format_columns(lines)


def format_goal(what: str, value: float | None, goal: float) -> str:
    """Returns a measured value and whether it meets the goal."""
    if value is None:
        return f"{what} not measured"
    return f"{what} {value:,.2f} ({'met' if value >= goal else 'not met'}: {goal:,})"


if __name__ == "__main__":
    flags.DEFINE_string("data", "", "folder:PATH, a folder of class folders with JPEGs.")
    flags.DEFINE_integer(
        "resized",
        256,
        "Shorter side to which the images are re-encoded for the row 'ours, resized'.",
        lower_bound=1,
    )
    flags.DEFINE_multi_integer(
        "workers", [1, 2], "Worker processes of the loader; 0: threads. May be repeated."
    )
    flags.DEFINE_float("seconds", 4, "How long the loader is timed, in seconds.", lower_bound=0)
    flags.DEFINE_integer("blocks", 5, "Timed blocks of each decoder.", lower_bound=1)
    run_benchmark(main)
