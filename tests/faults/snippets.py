"""What the table of reports tries beyond commands: each function returns what is said now."""

import contextlib
import dataclasses
import functools
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from cnn_jax.errors import UserError

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def in_new_folder() -> Iterator[Path]:
    """Works in a folder of its own, which is removed."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(here)


def say(function: Callable, *arguments: object, **options: object) -> str:
    """What is printed by a call, and the line with which it is refused or what it returns."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            end = function(*arguments, **options)
        except (UserError, ValueError, TypeError) as error:
            end = error
    return " ".join(filter(None, (out.getvalue().strip(), str(end)))).replace(os.getcwd(), ".")


def run_python(code: str, *words: str, **options: object) -> str:
    """What a Python program prints as a process of its own, with its exit code."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment |= options.pop("env", {})
    command = [sys.executable, *(("-c", code) if code else ()), *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env=environment, **options
    )
    return f"{done.stdout}{done.stderr}".strip() + f" [exit {done.returncode}]"


# Wrong numbers.


def compare_mean_images() -> str:
    """How dense views prepare an image of training's size, beside how training does."""
    from cnn_jax.config import Data
    from cnn_jax.data import preprocess

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    mean = rng.uniform(0, 255, (1, 8, 8, 3)).astype(np.float32)
    trained = np.asarray(preprocess.preprocess(Data(), {"mean": mean}, images))
    padded = np.zeros((2, 64, 64, 3), np.uint8)
    padded[:, :8, :8] = images
    sizes = np.full((2, 2), 8, np.int32)
    dense = np.asarray(preprocess.preprocess_sized(mean, padded, sizes))[:, :8, :8]
    return f"largest difference of a pixel {np.abs(trained - dense).max():.1f}"


def count_printed_weights() -> str:
    """What a lecture prints for a 1x1 and a 5x5 convolution, and what both have."""
    from experiments import STUDIES

    rows = STUDIES["conv_arithmetic"]("laptop").measure()
    row = next(row for row in rows if row["label"] == "1x1 to 32 maps, 5x5")
    return f"printed {row['paper']['weights']:,}, counted {row['weights']:,}"


def report_another_model() -> str:
    """A paper's row whose model is another one."""
    from helpers import report_folders as made

    from cnn_jax.report import parts
    from cnn_jax.report.rows import describe_setting

    with in_new_folder() as folder:
        paper = describe_setting(made.make_experiment("resnet-20"))
        made.write_study(folder, "resnet-20", paper_runs={"resnet-20": vars(paper)})
        made.write_run(folder, "resnet-20", errors=(0.08,), model="mlp")
        row = made.make_row("resnet-20", paper={"top1_error": 8.75})
        table = parts.paper_table(made.read_folder(folder, row), (row,))
        found = made.cells(table)["resnet-20"]
    names = ("not the paper's", "difference (points)")
    return "; ".join(f"{name}: {found[name]}" for name in names)


def cut_rate() -> str:
    """The rates of a plateau schedule with three cuts while the error never falls."""
    import jax.numpy as jnp

    from cnn_jax.optim import transformations

    state, scales = transformations.reduce_on_plateau(0.1, 1, 3).init(jnp.ones(())), []
    for _ in range(7):
        state = transformations.observe_error(state, 0.5)
        scales.append(f"{float(state.scale):.0e}")
    return " ".join(scales)


def measure_mean() -> str:
    """How many images the mean of a streamed set is taken over."""
    from cnn_jax.data import measure

    return f"all training images, or {measure.MAX_IMAGES:,} of them"


def check_prose() -> str:
    """A figure in prose that no committed file holds."""
    import docs_results_test

    folder = docs_results_test.RESULTS / "resnet_degradation_digits"
    found = docs_results_test.find_wrong_numbers("1.46 and 1.47 of 64,000 steps", [folder])
    return f"not in a committed file: {', '.join(sorted(found))}"


def compare_decoding() -> str:
    """Pixels of a test image scaled to a small side, beside Pillow's own."""
    from cnn_jax.data.decode import decode_resized

    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).resize((640, 480)).save(stream, "JPEG", quality=95)
    ours = decode_resized(stream.getvalue(), 64)
    theirs = Image.open(stream).convert("RGB").resize((85, 64), Image.Resampling.BILINEAR)
    difference = np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max()
    return f"largest difference of a pixel {difference}"


# Folders of images.


def make_tree(files: dict[str, bytes | int]) -> None:
    """Writes files, or so many images into folders, below the working folder."""
    for name, content in files.items():
        place = Path(name)
        if isinstance(content, bytes):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            continue
        place.mkdir(parents=True, exist_ok=True)
        for number in range(content):
            Image.new("RGB", (8, 8)).save(place / f"{number}.jpg")


def scan(files: dict[str, bytes | int], links: dict[str, str] | None = None, **options) -> str:
    """What is said of a folder {file: bytes; folder: how many images} with links."""
    from cnn_jax.data import folder_scan, scan_report

    with in_new_folder() as folder:
        make_tree(files)
        for name, target in (links or {}).items():
            Path(name).symlink_to(target)
        try:
            found = folder_scan.scan_folder(str(folder), **options)
            text = " | ".join(scan_report.summarize_scan(found))
        except UserError as error:
            text = str(error)
        return text.replace(str(folder), ".")


def load(files: dict[str, bytes | int]) -> str:
    """What is said of a folder that a run is to train on."""
    from cnn_jax.data import folders

    with in_new_folder() as folder:
        make_tree(files)
        return say(folders.load_folder, str(folder))


def read_jpeg_with_more() -> str:
    """A JPEG followed by more bytes than itself, as phones write motion photos."""
    from cnn_jax.data.decode import decode_resized

    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(stream, "JPEG")
    image = decode_resized(stream.getvalue() + bytes(10_000), 30)
    return f"decoded to {image.shape}, the first pixel {image[0, 0].tolist()}"


def score_long_image() -> str:
    """A test image 150 times as wide as high, for dense views at 256 pixels."""
    from cnn_jax.config import Data
    from cnn_jax.data import ArrayDataset, Arrays, eval_views

    pixels = np.zeros((1, 20, 3000, 3), np.uint8)
    images = ArrayDataset("images", Arrays(pixels, np.zeros(1, np.int32)))
    return say(next, eval_views.iterate_resized(Data(), images, 256, 4))


def inspect_odd_names() -> str:
    """Classes that a figure would read as formulas, or whose names are not UTF-8."""
    from cnn_jax.data import inspect

    with in_new_folder():
        make_tree({"x/train/$5_$10": 2, "x/val/$5_$10": 1})
        make_tree({os.fsdecode(f"x/{kind}/caf".encode() + b"\xe9"): 2 for kind in ("train", "val")})
        said = say(inspect.main, ["--data=folder:x", "--out=seen", "--shorter_side=8", "--crop=8"])
        files = sorted(path.name for path in Path("seen").iterdir())
        return f"{said.splitlines()[-1]}, wrote {files}"


# Weights and evaluation.


def strip_prefix() -> str:
    """Names in a file of weights that wrappers of PyTorch models have changed."""
    from cnn_jax.pretrained.wrappers import strip_prefix

    names, prefix = strip_prefix({"module._orig_mod.conv1.weight": 1, "n_averaged": 2})
    return f"{list(names)}, without {prefix!r}"


def open_pickle(kind: str) -> str:
    """A file of weights of a hostile or unusual kind."""
    from helpers import torch_pickles as made

    from cnn_jax.pretrained import files

    with in_new_folder():
        path = Path("w.pth")
        if kind == "state":
            state = {"args": made.Call("argparse.Namespace", (), {"lr": 1})}
            made.write_zip(path, state | {"model": {"a": made.tensor(made.A, "0")}}, {"0": made.A})
        elif kind == "nested":
            made.write_pickle(path, b"\x80\x02)" + b"\x85" * 3_000_000 + b".")
        else:
            import zipfile

            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("net/data.pkl", b"\x80\x02}.")
                archive.writestr("net/byteorder", bytes(64 * 2**20))
        return say(files.open_weights, path)


def write_result() -> str:
    """A result that cannot be written: its folder is a file."""
    from cnn_jax.evaluation import evaluation_file

    with in_new_folder() as folder:
        (folder / "evaluations").write_text("")
        found = mock.Mock(spec=evaluation_file.Evaluation)
        with mock.patch.object(dataclasses, "asdict", lambda found: {}):
            return evaluation_file.write_evaluation(Path("evaluations/single.json"), found)


# Environments.


def list_without_home() -> str:
    """A user without a home folder and without an entry in passwd."""
    code = "import os, runpy, sys; os.environ.pop('HOME', None); os.getuid = lambda: 987654321;"
    code += " sys.argv = ['launch.py', '--list']; runpy.run_path('launch.py', run_name='__main__')"
    text = run_python(code, cwd=ROOT)
    return f"{text.splitlines()[0]} ... {text.splitlines()[-1][-60:]}"


def list_in_ascii() -> str:
    """A terminal that knows ASCII alone."""
    text = run_python("", "launch.py", "--list", cwd=ROOT, env={"PYTHONIOENCODING": "ascii"})
    return f"{text.splitlines()[0]} ... {text.splitlines()[-1][-60:]}"


def explain_shared_memory() -> str:
    """The error of workers that find /dev/shm full."""
    from cnn_jax.data import workers

    return say(workers._explain_shared_memory, 2)


def run_without_guard() -> str:
    """A script that trains with workers and has no main guard."""
    code = "from cnn_jax.data import workers\n"
    code += "print(next(workers.prefetch_decoded(dict, range(2), 1)))\n"
    with in_new_folder():
        Path("script.py").write_text(code)
        text = run_python("", "script.py")
    return text.splitlines()[-1]


def open_lock_of_another() -> str:
    """A lock that another user may only read, or not even that."""
    from cnn_jax.training import run_lock

    def refuse(path: Path, mode: str = "r", **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with in_new_folder() as folder, mock.patch.object(run_lock, "open", refuse, create=True):
        return say(run_lock._open, folder / "lock")


def push_forward() -> str:
    """A derivative in forward mode through a model, by plain XLA's kernels."""
    import jax
    import jax.numpy as jnp

    from cnn_jax import models
    from cnn_jax.cpu import switch

    model = models.create("lenet5_modern", 10)
    images = jnp.ones((2, 12, 12, 1))
    params, stats = model.init(jax.random.key(0), images)

    def loss(params: object) -> jax.Array:
        return model.apply(params, stats, images, train=False)[0].sum()

    with switch.use("xla"):
        _, slope = jax.jvp(loss, (params,), (params,))
    return f"the derivative {'is finite' if np.isfinite(slope) else slope}"


# Under attack.


@functools.cache
def make_folders() -> tuple[Path, "tempfile.TemporaryDirectory[str]"]:
    """A folder of a run of two steps, and what removes it."""
    from helpers.small_run import RUN

    from cnn_jax.training import train

    place = tempfile.TemporaryDirectory()
    run = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, steps=2))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train.run(run, place.name)
    return Path(place.name), place


def train_longer() -> str:
    """More steps in the folder of a run that has ended."""
    import shutil

    from helpers.small_run import RUN

    from cnn_jax.training import metrics_log, train

    with in_new_folder() as folder:
        shutil.copytree(make_folders()[0], folder, dirs_exist_ok=True)
        run = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, steps=4))
        say(train.run, run, ".")
        events = metrics_log.read_events(folder / "net/seed0")
        starts = (folder / "net/seed0/starts.jsonl").read_text().count("\n")
    return f"{starts} launches, the last line {events[-1]['event']} at step {events[-1]['step']}"


def damage(name: str, content: bytes) -> str:
    """What is said of a run of which a file is replaced."""
    import shutil

    from helpers.small_run import RUN

    from cnn_jax.training import train

    with in_new_folder() as folder:
        shutil.copytree(make_folders()[0], folder, dirs_exist_ok=True)
        (folder / "net/seed0" / name).write_bytes(content)
        run = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, steps=2))
        return say(train.run, run, ".").splitlines()[0]


def fill_disk() -> str:
    """The error of a full disk."""
    import errno

    from cnn_jax.errors import explain_os_errors

    def fail() -> None:
        with explain_os_errors("cannot write to runs", then="the same command continues"):
            raise OSError(errno.ENOSPC, "No space left on device", "runs/metrics.jsonl")

    return say(fail)


def differ_in_settings() -> str:
    """Two processes of one run, of which one was started with another rate."""
    from helpers import faults

    with in_new_folder() as folder:
        other = faults.ONE_OF_TWO | {"SET": "schedule.base=0.5"}
        processes = faults.start_several("resident", folder / "w", faults.ONE_OF_TWO, other)
        codes, printed = faults.end(processes)
    lines = [line for line in printed[0].splitlines() if "differ" in line]
    return f"{' '.join(lines)} [exit {codes}]"


def miss_coordinator() -> str:
    """A process whose coordinator is not there."""
    code = "from cnn_jax import distributed; distributed.CONNECT = 2;"
    code += " distributed.initialize('localhost:1', 1, 2)"
    return run_python(code).splitlines()[-1]


def close_terminal() -> str:
    """SIGHUP, the signal of a closed terminal, to a run."""
    import signal

    from helpers import faults
    from helpers.faults_damages import wait_for

    with in_new_folder() as folder:
        process = faults.start("resident", folder, STEPS="100000")
        wait_for(folder / "net/seed0/checkpoints/20")
        process.send_signal(signal.SIGHUP)
        (code,), (printed,) = faults.end([process])
    return f"{printed.splitlines()[-1]} [exit {code}]".replace(str(folder), ".")


def kill_one_of_two() -> str:
    """SIGKILL to one of two processes of a run; what the other says."""
    from helpers import faults
    from helpers.faults_damages import wait_for

    with in_new_folder() as folder:
        processes = faults.launch("pair", folder / "run")
        wait_for(folder / "run/net/seed0/checkpoints/20")
        processes[1].kill()
        codes, printed = faults.end(processes)
    return f"{printed[0].splitlines()[-1]} [exit {codes[0]}]"
