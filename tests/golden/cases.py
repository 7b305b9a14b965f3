"""The cases of the golden values, and how to compute them with the current code.

A refactoring must not change the library's numbers. `record.py` writes them to `testdata/golden/`,
and `golden_test.py` compares. Only the first part of this file uses the library: when its modules,
functions, options or fields change, change that part, and leave the cases and the files unchanged.
The cases name options and fields as they were called when they were recorded; `OPTIONS` and
`FIELDS` map them to the current names, and `leaf_name` returns a parameter's recorded name.
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CLASSES = 10

# ----------------------------------------------------------------- the library, as it is now

# {recorded name of an option: current name}
OPTIONS: dict[str, str] = {
    "initialiser": "initializer",
    "scan_from": "scan_min_blocks",
}
# {recorded name of a field, such as model.width: current name}
FIELDS: dict[str, str] = {
    "optim.schedule": "schedule",
    "optim.learning_rate": "schedule.base",
    "optim.factor": "schedule.factor",
    "optim.patience": "schedule.patience",
    "optim.decay": "schedule.rate",
    "optim.weight_decay": "optimizer.weight_decay",
    "data.name": "data.dataset",
    "data.pad": "data.pad_and_crop",
    "data.shorter_side": "data.train_resize",
    "data.crop": "data.image_size",
    "data.mean": "data.subtract_mean",
    "data.cut": "data.train_crop",
    "model.name": "model",
    **{f"model.{old}": f"model.{new}" for old, new in OPTIONS.items()},
}
VALUES = {"data.cut=area": "inception"}  # {recorded value: current value}


def leaf_name(path: tuple) -> str:
    """Returns the recorded name of a parameter or statistic: its keys, joined by slashes."""
    return "/".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)


def model_names() -> list[str]:
    """Returns the names of all models."""
    from cnn_jax import models

    return list(models.MODELS)


def make_model(name: str, **options: Any) -> Any:
    """Returns a model for CLASSES classes, with init and apply as `model_values` calls them."""
    from cnn_jax import models

    options = {OPTIONS.get(option, option): value for option, value in options.items()}
    return models.create(name, CLASSES, **options)


def input_channels(name: str) -> int:
    """Returns the number of channels of the images in a model's paper."""
    from cnn_jax import models

    return models.get_paper_input(name)[0][2]


def compute_losses(model: Any, outputs: Any, images: jax.Array, labels: Any) -> jax.Array:
    """Returns the training losses [B] of a model's outputs, including auxiliary heads."""
    from cnn_jax.evaluation import losses

    return losses.compute_loss_and_error(model, outputs, images, labels)[0]


def run_losses(fields: dict[str, str], workdir: Path) -> dict[str, list[float]]:
    """Trains the run that these fields describe; returns every step's logged numbers.

    The log is <workdir>/<run>/seed<k>/metrics.jsonl, with a JSON object per line.
    """
    from cnn_jax.config import Experiment
    from cnn_jax.overrides import override
    from cnn_jax.training import train
    from cnn_jax.training.components import KINDS

    # The name of a choice must be set before its options.
    order = sorted(fields, key=lambda field: field not in ("model.name", "optim.schedule"))
    assignments = []
    for field in order:
        value = VALUES.get(f"{field}={fields[field]}", fields[field])
        assignments.append(f"{FIELDS.get(field, field)}={value}")
    experiment = Experiment(study="golden", name="golden")
    train.run(override(experiment, assignments, KINDS), workdir)
    return logged(workdir / "golden" / "seed0")


def protocol_scores(
    model: Any, params: Any, stats: Any, views: str, sides: tuple[int, ...], crop: int, average: str
) -> list[list[float]]:
    """Returns the scores [images, classes] of `oblong_digits`, averaged over views and scales."""
    from cnn_jax import mesh
    from cnn_jax.config import Data, choose
    from cnn_jax.data import ArrayDataset, Arrays, eval_views
    from cnn_jax.evaluation.protocols import make_protocol
    from cnn_jax.evaluation.scoring import cut_views, fuse_scores, make_scorer, score_images

    def prepare(images: jax.Array, sizes: jax.Array) -> jax.Array:
        return images.astype(jnp.float32) / 255 - 0.5

    over = mesh.make_batch_mesh(jax.devices()[:1])
    scorer = make_scorer(model, params, stats, prepare, crop, over, average)
    protocol = make_protocol(choose(views, scales=sides), crop, crop)
    rows = []
    for images, labels in oblong_digits():
        drawn = ArrayDataset("digits", Arrays(images, labels))
        found = []
        for kind in protocol.views:
            cut = functools.partial(cut_views, kind, crop)
            for side in protocol.scales:
                if kind.dense:
                    batches = eval_views.iterate_resized(Data(), drawn, side, 4)
                else:
                    batches = eval_views.iterate_views(Data(), drawn, side, cut, 4)
                found.append(score_images(scorer, kind, batches))
        scores = fuse_scores(found, average).scores
        # Probabilities were recorded; scores are now their logarithms.
        rows += [(np.exp(x) if average == "softmax" else x).tolist() for x in scores]
    return rows


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits' test images, uint8 [N, 8, 8, 1], and their labels."""
    from cnn_jax.config import choose
    from cnn_jax.data import datasets

    return datasets.open_dataset(choose("digits")).test


def smoke_report(study: str, preset: str, runs: str, workdir: Path) -> tuple[str, dict]:
    """Runs a study as a user does; returns its report.md and the logged losses of each run.

    Only runs whose name matches the pattern `runs` are trained; an empty pattern matches all.
    """
    words = [f"--experiment={study}", f"--preset={preset}", f"--workdir={workdir}"]
    words += [f"--run={runs}"] if runs else []
    command = [sys.executable, str(ROOT / "launch.py"), *words, "--compile_cache=off"]
    # One device and the default compiler options, as on a user's CPU.
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "CNN_JAX_ROUTES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=workdir, env=env)
    assert done.returncode == 0, done.stderr
    found = {}
    for log in sorted(workdir.glob("*/seed0/metrics.jsonl")):
        each = found[log.parts[-3]] = logged(log.parent)
        for test in sorted(log.parent.glob("evaluations/*.json")):
            each[test.stem] = [json.loads(test.read_text())["loss"]]
    return (workdir / "report.md").read_text(), found


def logged(folder: Path) -> dict[str, list[float]]:
    """Reads a run's log: loss and rate of every training step, loss of every evaluation."""
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {"loss": [], "lr": [], "eval_loss": []}
    for event in events:
        if event["event"] == "train":
            found["loss"].append(event["loss"])
            found["lr"].append(event["lr"])
        elif event["event"] == "eval":
            found["eval_loss"].append(event["loss"])
    return found


# ----------------------------------------------------------------- the cases

# {model: side of its images}; 32 for all others.
SIDE = {
    **dict.fromkeys(("perceptron", "mlp", "small_cnn", "autoencoder", "autoencoder_lectures"), 8),
    "autoencoder_deep": 16,
    "cuda_convnet": 16,
    **dict.fromkeys(("lenet1", "lenet4", "lenet5", "lenet5_modern"), 28),
    **dict.fromkeys(("alexnet", "alexnet_one_tower", "alexnet_half"), 67),
    "alexnet_owt": 63,
    "zfnet": 47,
    **dict.fromkeys(("googlenet", "googlenet_bn"), 79),
    **dict.fromkeys(("inception_v2", "inception_v3"), 107),
    # At 32, batch norm would see four values per channel, which multiplies rounding errors.
    **dict.fromkeys(("resnet34", "resnet50", "resnet101", "resnet152", "plain34"), 64),
}
FULL_WIDTH = (
    *("lenet1", "lenet4", "lenet5", "perceptron"),
    *("autoencoder", "autoencoder_lectures"),
)
# Compiling gradients takes most of the time, so models whose layers occur in a model with recorded
# gradients have none. The deepest model has no training at all. Gradients of plain models with 44
# layers or more explode and are meaningless.
WITHOUT_GRADIENT = (
    *("alexnet_one_tower", "alexnet_half", "vgg_b", "vgg_c"),
    *("googlenet_bn", "bn_inception", "inception_v2"),
    *("resnet32", "resnet44", "resnet56", "resnet34", "resnet101", "resnet152"),
    *("plain32", "plain44", "plain56", "plain110", "plain34"),
)
WITHOUT_TRAINING = ("resnet1202",)
# The variance of kernels is gain / inputs. A gain of 2 keeps the size of signals from layer to
# layer. Where hundreds of blocks are summed it is less, so that the sum stays finite.
GAIN = {"resnet110": 0.5, "resnet1202": 0.1}


def model_case(name: str) -> dict[str, Any]:
    """Returns the case of a model: options, side of the images, gain of its weights."""
    options = {} if name in FULL_WIDTH else {"width": 1 / 16}
    if name.startswith(("resnet", "plain")):
        options["scan_min_blocks"] = 2  # Compiles one block per stage.
    return {"options": options, "side": SIDE.get(name, 32), "gain": GAIN.get(name, 2.0)}


_SHORT = {"train.steps": "10", "train.log_every": "1", "train.save_every": "10"}
RUNS: dict[str, dict[str, str]] = {
    "resnet20 with batch norm groups": {
        "model.name": "resnet20",
        "model.bn_group": "8",
        "model.width": "0.5",
        "data.name": "fake",
        "data.batch_size": "16",
        "data.pad": "1",
        "optim.learning_rate": "0.002",  # Larger ones multiply rounding errors a thousandfold.
        "train.eval_every": "10",
        **_SHORT,
    },
    "vgg_a with dropout": {
        "model.name": "vgg_a",
        "model.width": "0.0625",
        "model.initialiser": "he",
        "model.dropout": "0.3",
        "data.name": "digits",
        "data.batch_size": "16",
        "data.shorter_side": "36,48",
        "data.crop": "32",
        "data.pad": "0",
        "data.flip": "false",
        "data.mean": "channel",
        "data.eval_batch_size": "360",
        "optim.learning_rate": "0.01",
        "optim.weight_decay": "5e-4",
        "train.eval_every": "10",
        **_SHORT,
    },
    "googlenet with auxiliary heads": {
        "model.name": "googlenet",
        "model.width": "0.0625",
        "model.initialiser": "he",
        "model.aux_heads": "true",
        "model.aux_weight": "0.3",
        "data.name": "fake",
        "data.batch_size": "8",
        "data.shorter_side": "80,96",
        "data.crop": "79",
        "data.cut": "area",
        "data.pad": "0",
        "data.mean": "channel",
        "data.eval_batch_size": "40",
        "optim.learning_rate": "0.01",
        "train.label_smoothing": "0.1",
        "train.eval_every": "10",
        **_SHORT,
    },
    "autoencoder": {
        "model.name": "autoencoder",
        "data.name": "digits",
        "data.batch_size": "32",
        "data.mean": "none",
        "data.pad": "0",
        "data.flip": "false",
        "optim.learning_rate": "0.1",
        "optim.schedule": "exponential",
        "optim.decay": "0.05",
        "train.eval_every": "10",
        **_SHORT,
    },
    "mlp on a plateau": {
        "model.name": "mlp",
        "model.hidden": "32,16",
        "data.name": "digits",
        "data.batch_size": "16",
        "data.pad": "1",
        "data.flip": "false",
        "optim.learning_rate": "0.5",
        "optim.schedule": "plateau",
        "optim.factor": "0.5",
        "optim.patience": "1",
        "train.eval_every": "1",
        **_SHORT,
    },
}

VIEWS = ("single", "ten_crop", "grid", "googlenet144", "dense", "dense+grid")
AVERAGES = ("softmax", "logits")
TESTED = {"name": "vgg_a", "options": {"width": 1 / 32}, "gain": 2.0, "crop": 32, "sides": (40, 48)}

# {study: (preset, pattern of the trained runs)}. The report names the others as missing.
STUDIES = {
    "resnet_degradation": ("smoke", "*-20"),
    "vgg_scale_jitter": ("smoke", "[ad]-*"),
    "lrn": ("smoke", ""),
    "ten_crop": ("smoke", ""),
    "conv_arithmetic": ("laptop", ""),  # It has no smoke preset, trains nothing and takes seconds.
}


# ----------------------------------------------------------------- the values


def fill_tree(tree: Any, gain: float) -> Any:
    """Fills a tree of shapes or arrays by a rule that does not depend on initializers.

    A leaf is drawn from N(0, 1) by NumPy's default_rng, seeded by the CRC-32 of its name; a kernel
    (two dimensions or more) is then scaled by sqrt(gain / inputs), inputs being the product of all
    dimensions but the last. A leaf named scale is 1 + 0.1 times what was drawn, a variance 1 + 0.1
    times its absolute value, any other 0.1 times it.
    """

    def fill(path: tuple, leaf: Any) -> jax.Array:
        name = leaf_name(path)
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(leaf.shape)
        last = name.rpartition("/")[2]
        if len(leaf.shape) >= 2 and last not in ("scale", "bias", "mean", "var"):
            drawn *= np.sqrt(gain / np.prod(leaf.shape[:-1]))
        elif last == "scale":
            drawn = 1 + 0.1 * drawn
        elif last == "var":
            drawn = 1 + 0.1 * np.abs(drawn)
        else:
            drawn *= 0.1
        return jnp.asarray(drawn, jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, tree)


@contextlib.contextmanager
def compile_quickly() -> Iterator[None]:
    """Compiles without most optimizations: compiling a model takes longer than running it.

    The programs are dropped afterwards, because other tests would get other last bits from them.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()


def model_values(name: str) -> dict[str, list]:
    """Computes a model's values on weights of `fill_tree` and images of noise.

    Returns:
        logits: Of two images in evaluation; the first ten values for an autoencoder.
        train_loss, grad_norm: Mean training loss of four images, and the L2 norm of its gradient.
        init: Sum and L2 norm of the initial parameters and statistics for key 0.
    """
    case, key = model_case(name), jax.random.key(0)
    model = make_model(name, **case["options"])
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, case["side"], case["side"], input_channels(name)))
    images, labels = jnp.asarray(images, jnp.float32), jnp.arange(4, dtype=jnp.int32)

    drawn = jax.tree.leaves(model.init(key, images[:1]))
    total = float(sum(np.asarray(leaf, np.float64).sum() for leaf in drawn))
    params, stats = fill_tree(jax.eval_shape(model.init, key, images[:1]), case["gain"])

    def compute_logits(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        return model.apply(params, stats, images)[0].reshape(len(images), -1)[:, :CLASSES]

    def loss(params: Any, stats: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        outputs, _ = model.apply(params, stats, images, train=True, key=jax.random.key(1))
        return compute_losses(model, outputs, images, labels).mean()

    found = {"init": [total, l2_norm(drawn)]}
    with compile_quickly():
        logits = jax.jit(compute_logits)(params, stats, images)
        found["logits"] = np.asarray(logits, np.float64)[:2].tolist()
        if name in WITHOUT_GRADIENT:
            found["train_loss"] = [float(jax.jit(loss)(params, stats, images, labels))]
        elif name not in WITHOUT_TRAINING:
            value, gradient = jax.jit(jax.value_and_grad(loss))(params, stats, images, labels)
            found["train_loss"] = [float(value)]
            found["grad_norm"] = [l2_norm(jax.tree.leaves(gradient))]
    return found


def l2_norm(leaves: list[jax.Array]) -> float:
    """Returns the L2 norm of all leaves together, in float64."""
    return float(np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in leaves)))


def run_values(name: str) -> dict[str, list]:
    """Returns the losses, rates and evaluations of a short run."""
    with tempfile.TemporaryDirectory() as folder:
        return run_losses(RUNS[name], Path(folder))


def oblong_digits() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (images, labels): four digits of 8x6 pixels, then four of 6x8."""
    images, labels = digits()
    yield images[:4, :, 1:7], labels[:4]
    yield images[4:8, 1:7], labels[4:8]


def protocol_values(views: str) -> dict[str, list]:
    """Returns a protocol's scores of the eight test images, for each kind of average."""
    model = make_model(TESTED["name"], **TESTED["options"])
    image = jax.ShapeDtypeStruct((1, TESTED["crop"], TESTED["crop"], 1), jnp.float32)
    params, stats = fill_tree(jax.eval_shape(model.init, jax.random.key(0), image), TESTED["gain"])
    sides, crop = TESTED["sides"], TESTED["crop"]
    with compile_quickly():
        each = [protocol_scores(model, params, stats, views, sides, crop, a) for a in AVERAGES]
    return dict(zip(AVERAGES, each, strict=True))


def study_values(study: str) -> tuple[str, dict[str, list]]:
    """Returns a study's report without what changes from run to run, and the losses of its runs."""
    with tempfile.TemporaryDirectory() as folder:
        report, runs = smoke_report(study, *STUDIES[study], Path(folder))
        report = normalize_report(report, folder)
    return report, {f"{run} {what}": x for run, each in runs.items() for what, x in each.items()}


# Facts of a report that depend on the machine and the time.
FACTS = ("date", "hardware", "commit", "versions")


def normalize_report(report: str, folder: str) -> str:
    """Removes the lines of FACTS and the folder from a report, and restores recorded names."""
    for old, new in FIELDS.items():
        report = report.replace(f"{new}:", f"{old}:")
    facts = tuple(f"- **{fact}**" for fact in FACTS)
    lines = [line for line in report.splitlines() if not line.startswith(facts)]
    return "\n".join(lines).replace(folder, "WORKDIR") + "\n"


# ----------------------------------------------------------------- groups, files, comparison

STORED = ROOT / "tests" / "testdata" / "golden"
GROUPS = {
    "models": (model_names, model_values),
    "runs": (RUNS.keys, run_values),
    "protocols": (VIEWS.__iter__, protocol_values),
    "studies": (STUDIES.keys, study_values),
}


def read_stored(group: str) -> dict[str, dict[str, list]]:
    """Returns the recorded {case: {quantity: numbers}} of a group. JSON keeps every bit."""
    return json.loads((STORED / f"{group}.json").read_text())


def get_report_path(study: str) -> Path:
    """Returns the path of a study's recorded report."""
    return STORED / f"{study}.md"


def pair_numbers(old: dict[str, list], new: dict[str, list]) -> tuple[np.ndarray, np.ndarray]:
    """Returns all numbers of two cases, [N] each; AssertionError if their shapes differ."""
    assert old.keys() == new.keys(), f"quantities differ: {sorted(old.keys() ^ new.keys())}"
    sides = [np.empty(0)], [np.empty(0)]
    for k in old:
        a, b = np.asarray(old[k], np.float64), np.asarray(new[k], np.float64)
        assert a.shape == b.shape, f"{k}: recorded {a.shape}, now {b.shape}"
        sides[0].append(a.ravel())
        sides[1].append(b.ravel())
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def summary(old: np.ndarray, new: np.ndarray) -> str:
    """Describes how many numbers are equal to the bit, and how much the others differ."""
    differ = old != new
    away = np.abs(new - old)[differ]
    words = f"{len(old)} values, {len(old) - differ.sum()} equal to the bit"
    if not differ.any():
        return words
    relative = away / np.maximum(np.abs(old[differ]), np.finfo(np.float32).tiny)
    return f"{words}; the others differ by at most {away.max():.3g}, relative {relative.max():.3g}"
