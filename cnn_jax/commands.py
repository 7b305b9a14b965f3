"""How a command ends: its exit code, and one line on stderr for what is no error of the program."""

import os
import sys
import traceback
from collections.abc import Callable

from cnn_jax import distributed
from cnn_jax.errors import (
    STOPPED,
    StoppedError,
    UserError,
    explain_failed_start,
    explain_os_error,
    explain_out_of_memory,
)
from cnn_jax.interrupts import INTERRUPTED, INTERRUPTED_LINE
from cnn_jax.text import escape_unprintable, replace_unprintable


def run_command(
    function: Callable[[], object],
    name: str = "error",
    describe_interrupt: Callable[[], str] = lambda: INTERRUPTED_LINE,
) -> int:
    """Runs a command and returns its exit code.

    0: done. 1: an unexpected error, with a traceback. 2: a user's mistake, or a file that cannot be
    read or written; 75: stopped and saved; 130: interrupted; each with one line on stderr.

    A process that is one of several ends here unless it is done or saved: the others would wait
    for it.

    Args:
      function: The command; it prints its results.
      name: Begins the line on stderr.
      describe_interrupt: Returns the line for Ctrl-C.
    """
    replace_unprintable()
    code = 2
    try:
        with (
            explain_failed_start(),
            explain_out_of_memory(
                "stopped", "lower data.batch_size or data.eval_batch_size, or ask for less at once"
            ),
        ):
            function()
            sys.stdout.flush()  # Its errors would otherwise be Python's own, at the end.
        return 0
    except UserError as error:
        _print_error(f"{name}: {escape_unprintable(error)}")
    except StoppedError as error:
        _print_error(f"{name}: {escape_unprintable(error)}")
        return STOPPED
    except BrokenPipeError:  # The reader of the output, such as head, has closed it.
        _drop_output()
        code = 0
    except OSError as error:
        _print_error(f"{name}: {escape_unprintable(explain_os_error('stopped', error))}")
        _drop_output()  # It may be what cannot be written.
    except KeyboardInterrupt:
        _print_error(f"\n{describe_interrupt()}")
        code = INTERRUPTED
    except Exception:
        traceback.print_exc()
        code = 1
    distributed.exit_if_distributed(code)
    return code


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Lets what is still to be written to stdout vanish if it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
