"""How every command of the package ends: exit codes, and one line in place of a traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import result, table
from cnn_jax.commands import run_command
from cnn_jax.data import folder_index, folder_scan, inspect
from cnn_jax.data.prepare import __main__ as prepare
from cnn_jax.data.prepare import resize
from cnn_jax.errors import STOPPED, StoppedError, UserError
from cnn_jax.export import __main__ as export
from cnn_jax.pretrained import download

ROOT = Path(__file__).parent.parent


def fail(error):
    raise error


@pytest.mark.parametrize(
    "error, code, line",
    [
        (UserError("x: choose\ny"), 2, r"error: x: choose\ny"),
        (StoppedError("saved"), STOPPED, "error: saved"),
        (BrokenPipeError(), 0, ""),
        (
            OSError(errno.ENOSPC, "No space left on device", "here/a"),
            2,
            "error: stopped (here/a: No space left on device): make room",
        ),
        (
            RuntimeError(
                "Unable to initialize backend 'tpu': no libtpu.so (set JAX_PLATFORMS='' to choose)"
            ),
            2,
            "error: JAX cannot start (Unable to initialize backend 'tpu': no libtpu.so): set"
            " JAX_PLATFORMS=cpu, or install JAX for that device",
        ),
        (
            ValueError('Invalid value "x" for JAX flag jax_debug'),
            2,
            'error: JAX cannot start (Invalid value "x" for JAX flag jax_debug): correct or unset'
            " that environment variable",
        ),
        (KeyboardInterrupt(), 130, "interrupted: run this again"),
    ],
)
def test_an_end_that_is_no_error_of_the_program_takes_one_line(error, code, line, capfd):
    assert run_command(lambda: fail(error)) == code
    assert capfd.readouterr().err.strip() == line


def test_an_unexpected_error_has_a_traceback(capsys):
    assert run_command(lambda: 1 / 0) == 1  # type: ignore[arg-type, return-value]
    assert "ZeroDivisionError: division by zero\n" in capsys.readouterr().err


COMMANDS = {
    "export": (export.main, "_export", "interrupted: run this again"),
    "inspect": (inspect.main, "_inspect", "interrupted: run this again"),
    "prepare": (prepare.main, "_prepare", "interrupted: nothing was written"),
    "resize": (resize.main, "_resize", "interrupted: run this again, it continues"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_in_one_line(name, monkeypatch, capsys):
    main, inner, interrupted = COMMANDS[name]
    arguments = ["--data=x", "--out=y", "--shorter_side=9"] if name == "resize" else ["x"]
    for error, code, line in (
        (KeyboardInterrupt(), 130, interrupted),
        (PermissionError(errno.EACCES, "Permission denied", "here"), 2, "error: stopped (here: "),
    ):
        monkeypatch.setitem(main.__globals__, inner, lambda *_, error=error: fail(error))
        assert main(arguments) == code
        said = capsys.readouterr().err.strip()
        assert said.startswith(line) and "\n" not in said


def test_benchmarks_end_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/epoch.py"])
    monkeypatch.setattr(result.app, "run", lambda main, flags_parser: main([]))
    for error, code in ((KeyboardInterrupt(), 130), (OSError(errno.EACCES, "Denied", "bench"), 2)):
        with pytest.raises(SystemExit) as ended:
            result.run_benchmark(lambda error=error: fail(error))
        assert ended.value.code == code
        said = capsys.readouterr().err.strip()
        assert said.startswith("epoch.py: stopped") and "\n" not in said


def test_the_table_of_benchmarks_names_a_line_that_is_no_result(tmp_path):
    with pytest.raises(UserError, match="name the files"):
        table.main([])
    with pytest.raises(UserError, match=r"absent.jsonl cannot be read \(No such file"):
        table.main([str(tmp_path / "absent.jsonl")])
    torn = tmp_path / "bench.jsonl"
    for line in ('{"benchmark": "epo', '{"event": "train"}', "3", "\udcff"):
        good = '{"benchmark": "epoch", "hardware": "1 x CPU"}\n'
        torn.write_bytes((good + line).encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=r"bench.jsonl, line 2: is no result"):
            table.main([str(torn)])


@pytest.mark.parametrize("place, code", [("/dev/full", 2), ("closed", 0)])
def test_a_stdout_that_is_full_or_closed_has_no_traceback(place, code, tmp_path):
    """Its buffer is written at the end, when Python itself would report the error."""
    reads, writes = os.pipe()
    os.close(reads)
    program = (
        "import sys; from cnn_jax.commands import run_command;"
        "sys.exit(run_command(lambda: print('text')))"
    )
    with open(writes, "w") as closed, open("/dev/full", "w") as full:
        output = closed if place == "closed" else full
        done = run_python(program, stdout=output, stderr=subprocess.PIPE)
    assert done.returncode == code, done.stderr
    assert done.stderr == ("error: stopped (No space left on device): make room\n" if code else "")


def test_ctrl_c_while_jax_is_imported_ends_an_export_in_one_line():
    program = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'jax':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv = ['export', 'absent', '--out=here']\n"
        "runpy.run_module('cnn_jax.export', run_name='__main__', alter_sys=True)\n"
    )
    done = run_python(program, capture_output=True)
    assert done.returncode == 130 and done.stderr.strip() == "interrupted: run this again"


PROGRAMS = {
    "export": ("-m", "cnn_jax.export", "absent", "--out=here"),
    "inspect": ("-m", "cnn_jax.data.inspect", "--data=digits", "--out=here"),
    "prepare": ("-m", "cnn_jax.data.prepare", "cifar10"),
    "cnn-jax": ("-m", "cnn_jax", "--summary=lenet5"),
    "launch": ("launch.py", "--summary=lenet5"),
    "benchmark": ("-m", "benchmarks.seeds"),
}
# Like NumPy, which reports any exception of its own imports as an ImportError.
INTERRUPTED_JAX = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    raise ImportError("could not be imported") from None
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_while_jax_is_imported_ends_every_command_in_one_line(name, tmp_path):
    done = run_with_fake_jax(INTERRUPTED_JAX, PROGRAMS[name], tmp_path)
    assert done.returncode == 130 and done.stderr == "\ninterrupted: run this again\n"


def test_a_process_that_ignores_ctrl_c_or_no_command_keeps_its_handler(tmp_path):
    """As a command in the background of a shell, or a program that imports the package."""
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    (tmp_path / "sitecustomize.py").write_text(ignored)
    done = run_with_fake_jax(INTERRUPTED_JAX, PROGRAMS["inspect"], tmp_path)
    assert "No module named 'jax." in done.stderr
    program = (
        "import signal, cnn_jax.cli, benchmarks.result\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    assert run_python(program, capture_output=True).stdout == "True\n"


def run_with_fake_jax(code, words, folder):
    (folder / "jax").mkdir()
    (folder / "jax" / "__init__.py").write_text(code)
    path = os.pathsep.join((str(folder), str(ROOT)))
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def test_ctrl_c_while_jax_collects_garbage_is_not_lost():
    """Python prints and ignores an exception in such a callback."""
    program = """
import gc, os, signal, sys, time
from cnn_jax import interrupts
from cnn_jax.commands import run_command

def _xla_gc_callback(*_):
    gc.callbacks.remove(_xla_gc_callback)
    os.kill(os.getpid(), signal.SIGINT)

def collect():
    gc.callbacks.append(_xla_gc_callback)
    gc.collect()
    time.sleep(10)

signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.catch()
sys.exit(run_command(collect))
"""
    done = run_python(program, capture_output=True)
    assert done.returncode == 130 and done.stderr == "\ninterrupted: run this again\n"


def run_python(program, **options):
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, **options)


def prepare_mnist(archive, folder):
    official = pytest.importorskip("cnn_jax.data.prepare.official")
    official.prepare(official.OFFICIAL["mnist"], archive, folder)


@pytest.mark.parametrize(
    "name, read",
    [
        ("data.dataset.path", folder_scan.scan_folder),
        ("data.dataset.path", folder_index.scan_with_index),
        ("weights", download.fetch),
        ("--data_dir", lambda place: prepare_mnist("", place)),
        ("--archive", lambda place: prepare_mnist(place, "data")),
    ],
)
def test_a_home_folder_that_is_not_there_is_named(name, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"{name}=~nobody-here/x: there is no such home folder"):
        read("~nobody-here/x")


def test_an_empty_path_is_named(capsys):
    """As of an unset variable: it would be the current folder."""
    assert export.main(["run", "--out="]) == 2
    assert capsys.readouterr().err == "error: --out: its path is empty; give one\n"
