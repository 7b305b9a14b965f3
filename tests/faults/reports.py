"""What people have reported and tried, in one table: python tests/faults/reports.py.

Each row is tried again, in a few minutes, and says what is printed now.
"""

import contextlib
import functools
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from faults import mutants, snippets  # noqa: E402
from PIL import Image  # noqa: E402

from cnn_jax import cli, files  # noqa: E402
from cnn_jax.errors import UserError  # noqa: E402
from experiments import COSTS, STUDIES  # noqa: E402

MAX_SHOWN = 200  # Characters of what is printed.
SMOKE = ("--experiment=resnet_degradation", "--preset=smoke", "--run=plain-20", "--dry_run")
SMOKE += ("--set=model=mlp", "--set=model.hidden=8")


class Report(NamedTuple):
    """One thing that was tried.

    Attributes:
      what: In words.
      says: Part of what is printed now.
      do: Returns what is printed.
      test: The file of its own test, where trying it takes longer than a second; empty: this table
        is its test.
    """

    what: str
    says: str
    do: Callable[[], str]
    test: str = ""


def command(*words: str) -> Callable[[], str]:
    """What a command prints, with its exit code; it runs in a folder of its own."""

    def run() -> str:
        out, here = io.StringIO(), os.getcwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                    code = cli.execute(["launch.py", *words], STUDIES, COSTS)
                left = sorted(path.name for path in Path(folder).iterdir())
            finally:
                os.chdir(here)
        text = out.getvalue().replace(folder, ".").strip()
        return f"{text} [exit {code}{f', left {left}' if left else ''}]"

    return run


def refusal(function: Callable, *arguments: object) -> Callable[[], str]:
    """The one line with which a call is refused, or what it returns."""

    def run() -> str:
        try:
            return str(function(*arguments))
        except (UserError, ValueError) as error:
            return str(error)

    return run


def scan(files: dict[str, bytes | int], **options: object) -> Callable[[], str]:
    """What is said of a folder; see `snippets.scan`."""
    return functools.partial(snippets.scan, files, **options)


def measure(scores: np.ndarray) -> str:
    """Top-1 and top-5 error of scores, of images whose labels go round the classes."""
    from cnn_jax.evaluation import metrics, scoring

    labels = np.arange(len(scores)) % scores.shape[1]
    found = metrics.measure_scores(scoring.Scores(np.arange(len(scores)), labels, scores))
    return f"top-1 error {found.top1_error}, top-5 error {found.top5_error}, loss {found.loss:.1f}"


def normalize_far_from_zero() -> str:
    """The largest error of batch norm where the mean is 1,000 standard deviations."""
    import jax.numpy as jnp

    from cnn_jax.layers import batch_norm

    x = np.random.default_rng(0).normal(1000, 1, (16, 8, 8, 4)).astype(np.float32)
    wide = x.astype(np.float64)
    truth = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    y, _, _ = batch_norm.normalize(jnp.asarray(x), jnp.ones(4), jnp.zeros(4), 0, None, 1e-5)
    error = np.abs(np.asarray(y) - truth).max()
    return f"error below {'2e-2: 10 times PyTorch' if error < 2e-2 else error}"


def read_bytes(content: bytes) -> Callable[[], str]:
    """What is said of the bytes of an image."""
    from cnn_jax.data import headers

    return refusal(headers.read_size, content)


def claim_png(side: int) -> bytes:
    """A PNG that claims to be so large."""
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = side.to_bytes(4, "big") * 2
    return bytes(content)


def name_errors() -> str:
    """How an autoencoder's evaluation is printed."""
    from cnn_jax.training.metrics_log import describe_error

    return describe_error({"step": 2, "loss": 1.05, "reconstruction_error": 1.0502})


def interval(errors: int, count: int) -> str:
    """The 95% interval of an error."""
    from cnn_jax.evaluation.metrics import compute_wilson_interval

    low, high = compute_wilson_interval(errors, count)
    return f"[{low:.1%}; {high:.1%}]"


def show(text: str) -> str:
    """A text as terminals and Markdown get it."""
    from cnn_jax.text import escape_markdown, escape_unprintable

    return f"{escape_unprintable(text)} {escape_markdown(text)}"


def find_setup() -> str:
    """What make setup says of an environment that is a link."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    return next(line for line in lines if "is a symbolic link" in line)


T = "tests/"
LABELED = {"train/a": 5, "train/b": 5, "val": 2}
REPORTS = (
    # Wrong numbers.
    Report(
        "all scores equal, 20 classes: top-5 error",
        "top-5 error 0.75",
        lambda: measure(np.zeros((40, 20))),
    ),
    Report("scores that are NaN", "not finite", refusal(measure, np.full((4, 20), np.nan))),
    Report(
        "a model that is very sure: the loss", "loss 1", lambda: measure(np.eye(20) * -100.0 - 100)
    ),
    Report("dense views with the mean image", "of a pixel 0.0", snippets.compare_mean_images),
    Report("batch norm at mean / deviation 1,000", "error below 2e-2", normalize_far_from_zero),
    Report("figures printed as a paper's own", "printed 204,800", snippets.count_printed_weights),
    Report("another model in a paper's row", "model mlp", snippets.report_another_model),
    Report("an autoencoder's error", "reconstruction error 1.05", name_errors),
    Report("a plateau that cuts without end", "1e-01 1e-02 1e-03 1e-03", snippets.cut_rate),
    Report("the mean of few center crops", "all training images", snippets.measure_mean),
    Report("figures in prose without a source", "1.47", snippets.check_prose),
    Report("the interval of no errors of 360", "[0.0%; 1.1%]", lambda: interval(0, 360)),
    Report("test images decoded at reduced size", "of a pixel 0", snippets.compare_decoding),
    # Folders of images.
    Report(
        "train/ and valid/", "valid", scan({"train/a": 5, "train/b": 5, "valid/a": 2, "valid/b": 2})
    ),
    Report(
        "Train/ and test/",
        "10 images",
        scan({"Train/a": 5, "Train/b": 5, "test/a": 2, "test/b": 2}),
    ),
    Report(
        "train/ beside a folder of another name",
        "other/",
        scan({"train/a": 5, "train/b": 5, "other/a": 2}),
    ),
    Report(
        "public weights and only val/", "4 images", scan({"val/a": 2, "val/b": 2}, test_only=True)
    ),
    Report(
        "classes named 0 to 11",
        "sorted as text",
        scan({f"{kind}/{n}": 2 for kind in ("train", "val") for n in range(12)}),
    ),
    Report(
        "weights of 12 classes, folders 0 to 11",
        "sorted as numbers",
        scan({f"val/{n}": 2 for n in range(12)}, test_only=True, num_classes=12),
    ),
    Report("one class", "nothing to learn", lambda: snippets.load({"train/a": 5, "val/a": 2})),
    Report(
        "nested folders and an empty class",
        "not entered (1)",
        scan({"train/a": 5, "train/b": 5, "train/a/more": 3, "train/c": 0, "val/a": 2, "val/b": 2}),
    ),
    Report(
        "links to nowhere",
        "links to nowhere (1)",
        scan({"train/a": 5, "train/b": 5}, links={"train/a/x.jpg": "gone"}),
    ),
    Report(
        "a class folder that is a link to nowhere",
        "labels depend on it",
        scan({"train/a": 5, "train/b": 5}, links={"train/c": "gone"}),
    ),
    Report(
        "a class folder that is a link to itself",
        "labels depend on it",
        scan({"train/a": 5, "train/b": 5}, links={"train/c": "c"}),
    ),
    Report(
        "a label file with a byte order mark",
        "2 images",
        scan(LABELED | {"val.txt": "0.jpg a\n1.jpg b\n".encode("utf-8-sig")}),
    ),
    Report(
        "a label file in UTF-16",
        "UTF-16",
        scan(LABELED | {"val.txt": "0.jpg a\n1.jpg b\n".encode("utf-16")}),
    ),
    Report("a JPEG followed by more bytes", "decoded to (30, 40, 3)", snippets.read_jpeg_with_more),
    Report("a JPEG of three bytes", "no image that can be read", read_bytes(b"\xff\xd8\xff")),
    Report("a PNG of 13,500 x 13,500", "pixels, more than the", read_bytes(claim_png(13_500))),
    Report(
        "one very long test image",
        "38400x256 pixels, more than the 4,194,304",
        snippets.score_long_image,
    ),
    Report(
        "a class named $5_$10, or not UTF-8",
        "report.txt",
        snippets.inspect_odd_names,
        test=T + "data/inspect_test.py",
    ),
    # Weights and evaluation.
    Report(
        "names that begin with module. or _orig_mod.", "['conv1.weight']", snippets.strip_prefix
    ),
    Report(
        "a whole training state",
        "save the state dict alone",
        functools.partial(snippets.open_pickle, "state"),
    ),
    Report("--summary=vgg16", "vgg_d", command("--summary=vgg16")),
    Report(
        "--evaluate=MODEL:WEIGHTS without --data",
        "give the images with --data",
        command("--evaluate=resnet20:w.pth"),
    ),
    Report("a result that may not be written", "the result is not kept", snippets.write_result),
    Report(
        "--dry_run of a study",
        "[exit 0]",
        command("--experiment=resnet_degradation", "--preset=smoke", "--run=plain-20", "--dry_run"),
        test=T + "cost/estimate_test.py",
    ),
    # Environments.
    Report(
        "make setup where .venv is a link",
        "is a symbolic link",
        find_setup,
    ),
    Report("a full /dev/shm", "--shm-size", functools.partial(snippets.explain_shared_memory)),
    Report(
        "workers and no main guard",
        "__main__",
        snippets.run_without_guard,
        test=T + "data/workers_test.py",
    ),
    Report("no home folder", "[exit 0]", snippets.list_without_home, test=T + "cli_test.py"),
    Report(
        "a lock that another user made", "let its owner permit it", snippets.open_lock_of_another
    ),
    Report("~ in paths", "/runs", lambda: str(files.expand_path("workdir", "~/runs"))),
    Report("--help", "[exit 0]", command("--help")),
    Report(
        "a batch that the group does not divide",
        "set it to 3, or to 0",
        command(*SMOKE[:4], "--set=data.batch_size=6", "--set=model.bn_group=4"),
    ),
    Report(
        "forward mode through a model",
        "is finite",
        snippets.push_forward,
        test=T + "cpu/switch_test.py",
    ),
    Report(
        "more steps in the same workdir",
        "2 launches, the last line end at step 4",
        snippets.train_longer,
        test=T + "training/train_test.py",
    ),
    Report(
        "a terminal that knows ASCII alone", "[exit 0]", snippets.list_in_ascii, T + "cli_test.py"
    ),
    Report(
        "bugs put into the code, one at a time",
        "one-line bugs",
        lambda: f"{sum(map(len, mutants.MUTANTS.values()))} one-line bugs, each noticed by a test",
    ),
    # Under attack.
    Report(
        "two processes of different settings",
        "differ in schedule.base: 0.02 and 0.5",
        snippets.differ_in_settings,
        test=T + "distributed_test.py",
    ),
    Report(
        "metrics.jsonl emptied",
        "top1_error",
        functools.partial(snippets.damage, "metrics.jsonl", b""),
        test=T + "faults/run_folders_test.py",
    ),
    Report(
        "metrics.jsonl of other bytes",
        "damaged lines are left out",
        functools.partial(snippets.damage, "metrics.jsonl", b"\xff\n" * 3),
        test=T + "faults/run_folders_test.py",
    ),
    Report(
        "config.json that is null",
        "config.json",
        functools.partial(snippets.damage, "config.json", b"null"),
        test=T + "faults/run_folders_test.py",
    ),
    Report("a full disk", "No space left", snippets.fill_disk),
    Report(
        "a patience of 99999999999",
        "at most 2147483647",
        command(*SMOKE, "--set=schedule=plateau", "--set=schedule.patience=99999999999"),
    ),
    Report(
        "a data set named a/b/c",
        "cannot be opened",
        command(
            *SMOKE,
            "--set=data.dataset=a/b/c",
            "--set=data.image_size=8",
            "--set=data.train_resize=8",
        ),
    ),
    Report(
        "a workdir of 300 letters",
        "at most 255 bytes",
        command(*SMOKE[:3], f"--workdir={'w' * 300}"),
    ),
    Report(
        "--data_dir=gs:// without its package",
        "[exit 2]",
        command(
            *SMOKE[:3],
            "--data=imagenet2012",
            "--data_dir=gs://x/y",
            "--set=data.train_resize=256",
            "--set=data.image_size=224",
        ),
    ),
    Report(
        "jitter of -1", "must be at least 0", command(*SMOKE, "--set=data.color_jitter=-1,0,0,0")
    ),
    Report(
        "momentum of 100", "must be less than 1", command(*SMOKE, "--set=optimizer.momentum=100")
    ),
    Report(
        "padding of 100 around 8 pixels",
        "more than the side of an image, 8",
        command(*SMOKE, "--set=data.dataset=fake", "--set=data.pad_and_crop=100"),
    ),
    Report(
        "boundaries=(1,2",
        "comma-separated integers",
        command(*SMOKE, "--set=schedule=step", "--set=schedule.boundaries=(1,2"),
    ),
    Report(
        "start_layers without start_from",
        "train.start_from",
        command(*SMOKE, "--set=train.start_layers=a"),
    ),
    Report(
        "--summary of a layer of 99999999999",
        "must be at most",
        command("--summary=mlp", "--set=model.hidden=99999999999"),
    ),
    Report(
        "--summary of a negative group",
        "must be at least 0",
        command("--summary=resnet20", "--set=model.bn_group=-1"),
    ),
    Report(
        "a schedule that there is not",
        "no such schedule",
        command(*SMOKE, "--set=schedule=nothing"),
    ),
    Report(
        "a start that does not exist",
        "not finished",
        command(*SMOKE[:3], *SMOKE[4:], "--set=train.start_from=nowhere"),
    ),
    Report(
        "a start from itself",
        "cannot start from itself",
        command(*SMOKE, "--set=train.start_from=plain-20"),
    ),
    Report("a name in capitals", "nearest: resnet20", command("--summary=RESNET20")),
    Report(
        "--seeds=99999999999999999999",
        "[exit 2]",
        command("--seeds=99999999999999999999", "--list"),
    ),
    Report(
        "a JPEG or PNG that claims 65,500 x 65,500",
        "pixels, more than the",
        read_bytes(claim_png(65_500)),
    ),
    Report(
        "a pickle of millions of tuples",
        "more than weights need",
        functools.partial(snippets.open_pickle, "nested"),
        test=T + "pretrained/bounds_test.py",
    ),
    Report(
        "a zip entry of zeros",
        "at most 16",
        functools.partial(snippets.open_pickle, "zeros"),
        test=T + "pretrained/bounds_test.py",
    ),
    Report(
        "escape sequences and <script", "\\x1b\\[31m a&lt;", lambda: show("\x1b[31m a<script\n")
    ),
    Report("SIGHUP", "SIGHUP", snippets.close_terminal, test=T + "launch_test.py"),
    Report(
        "one of two processes killed",
        "another process of this run has ended",
        snippets.kill_one_of_two,
        test=T + "distributed_test.py",
    ),
    Report(
        "a coordinator that is not there",
        "did not find one another",
        snippets.miss_coordinator,
        test=T + "distributed_test.py",
    ),
)


def main() -> int:
    """Prints the table; returns the exit code."""
    warnings.simplefilter("ignore")
    wrong = 0
    print("what was reported | what is printed now")
    for report in REPORTS:
        try:
            said = report.do()
        except (Exception, SystemExit) as error:
            said = f"Traceback: {error!r}"
        ok = report.says in said and "Traceback" not in said
        wrong += not ok
        shown = " ".join(said.split())
        shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
        print(f"{'' if ok else 'WRONG '}{report.what} | {shown}", flush=True)
    print(f"{len(REPORTS)} rows, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
