"""Ctrl-C while a command is imported, which takes seconds: one line, and exit code 130.

Python raises KeyboardInterrupt wherever it is. Inside the imports of NumPy, JAX or TensorFlow
Datasets it may be replaced by an ImportError, or printed and ignored. Before `run_command` nothing
would catch it.
"""

import os
import signal
import sys
import threading
from types import FrameType

INTERRUPTED = 130  # Exit code after Ctrl-C, as shells have it.
INTERRUPTED_LINE = "interrupted: run this again"


def catch() -> None:
    """Lets Ctrl-C end this process in one line during any import, and before `run_command`.

    At all other times Ctrl-C raises KeyboardInterrupt as usual. A process that ignores Ctrl-C, or
    has a handler of its own, keeps that.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _handle)


def catch_if_run(package: str) -> None:
    """Calls `catch` if this process is `python -m PACKAGE` or `python -m PACKAGE.MODULE`.

    Args:
      package: The package that calls this while it is imported.
    """
    if sys.argv[:1] == ["-m"]:  # So it is until Python has found the module.
        module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        if module.partition(".")[0] == package:
            catch()


def _handle(number: int, frame: FrameType | None) -> None:
    imports, runs = False, False
    while frame:
        if frame.f_code.co_name == "_xla_gc_callback":  # JAX's, which ignores all exceptions.
            threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
            return
        imports |= frame.f_code.co_filename.startswith("<frozen importlib")
        runs |= frame.f_code.co_name == "run_command"
        frame = frame.f_back
    if runs and not imports:
        raise KeyboardInterrupt
    os.write(2, f"\n{INTERRUPTED_LINE}\n".encode())
    os._exit(INTERRUPTED)
