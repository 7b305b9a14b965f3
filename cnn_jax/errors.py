"""Errors for users, and suggestions for misspelled names."""

import contextlib
import difflib
import errno
import os
from collections.abc import Collection, Iterable, Iterator

STOPPED = 75  # Exit code of a run that was stopped and can be continued: EX_TEMPFAIL of sysexits.h.
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # What XLA calls it.
# Parts of JAX's errors when it cannot start.
NO_DEVICE = "Unable to initialize backend"
WRONG_VARIABLE = ("for JAX flag", "for environment")


class UserError(ValueError):
    """A user's mistake. Its text is one line that names the thing and the remedy.

    The command line prints that line and exits with code 2.
    """


class NotFiniteError(UserError):
    """A model's scores are NaN or infinite: there is nothing to measure."""


class StoppedError(Exception):
    """A run was stopped by a signal and has been saved. The command line exits with STOPPED."""


# Remedies that do not depend on the operation.
_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs, which hold too many files",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "check the disk",
}


def explain_os_error(what: str, error: OSError, remedy: str = "", then: str = "") -> UserError:
    """Explains an OSError to a user: what failed, the file, the reason and the remedy.

    Args:
      what: Such as 'cannot write to runs/a'.
      error: The error. Its file is named unless `what` names it.
      remedy: A remedy if the reason does not imply one, such as 'choose another workdir'.
      then: The next step, such as 'the same command continues'.
    """
    own = _REMEDIES.get(error.errno or 0, "")
    advice = remedy if own in remedy else ", or ".join(filter(None, (own, remedy)))
    advice = "; ".join(filter(None, (advice, then)))
    return UserError(f"{what} ({describe_os_error(error, what)})" + (advice and f": {advice}"))


def describe_os_error(error: OSError, known: str = "") -> str:
    """Returns the reason of an OSError, and its file unless a text that names it is given."""
    reason = error.strerror or str(error) or type(error).__name__
    names = [
        os.fsdecode(name) if isinstance(name, bytes) else str(name)
        for name in (error.filename, error.filename2)
        if name is not None
    ]
    new = [name for name in names if name not in known and name not in reason]
    return f"{' -> '.join(new)}: {reason}" if new else reason


@contextlib.contextmanager
def explain_os_errors(what: str, remedy: str = "", then: str = "") -> Iterator[None]:
    """Raises an OSError of the block as `explain_os_error` describes it."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(what, error, remedy, then) from None


@contextlib.contextmanager
def explain_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Raises a UserError if a device runs out of memory in the block.

    Args:
      what: The run or the file that is worked on.
      remedy: Such as 'lower data.batch_size'.
    """
    try:
        yield
    except RuntimeError as error:  # JaxRuntimeError, without an import of JAX.
        if not is_out_of_memory(error):
            raise
        why = summarize_error(error).removeprefix(f"{OUT_OF_MEMORY}: ")
        raise UserError(
            f"{what}: a device has not enough memory ({why.rstrip('.')}): {remedy}"
        ) from None


@contextlib.contextmanager
def explain_failed_start() -> Iterator[None]:
    """Raises a UserError if JAX cannot start in the block because a variable or device is wrong."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, ValueError) as error:
        why = summarize_error(error).partition(" (set JAX_PLATFORMS")[0].rstrip(".")
        if NO_DEVICE in why:
            remedy = "set JAX_PLATFORMS=cpu, or install JAX for that device"
        elif any(words in why for words in WRONG_VARIABLE):
            remedy = "correct or unset that environment variable"
        else:
            raise
        raise UserError(f"JAX cannot start ({why}): {remedy}") from None


def summarize_error(error: BaseException) -> str:
    r"""Returns the first 200 characters of an error's first line, or its class if it has no text.

    Example:
      >>> summarize_error(ValueError("no such key\nTraceback of the library"))
      'no such key'
      >>> summarize_error(KeyError())
      'KeyError'
    """
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that a device, or this computer, has no memory left."""
    return isinstance(error, MemoryError) or OUT_OF_MEMORY in str(error)


def suggest_names(name: str, known: Iterable[str]) -> str:
    """Returns 'nearest: a, b' for an unknown name, or 'known: ...' with all names if none is near.

    Example:
      >>> suggest_names("resnet51", ["resnet50", "vgg_d"])
      'nearest: resnet50'
      >>> suggest_names("xyz", ["resnet50", "vgg_d"])
      'known: resnet50, vgg_d'
    """
    known = list(known)
    close = find_same(name, known) or find_similar(name, known)
    return f"nearest: {', '.join(close)}" if close else f"known: {', '.join(known)}"


def find_same(name: str, known: Collection[str]) -> list[str]:
    """Returns the known names that a name may stand for: its path, its case or its words are short.

    Example:
      >>> find_same("optim.lr", ["schedule.learning_rate", "schedule"])
      ['schedule.learning_rate']
    """
    leaf, close = name.rpartition(".")[2], []
    for one in known:
        own = one.rpartition(".")[2]
        if leaf in (own, "".join(word[0] for word in own.split("_") if word)):
            close.append(one)
    return close or [one for one in known if one.casefold() == name.casefold()]


def find_similar(name: str, known: Collection[str]) -> list[str]:
    """Returns up to three known names that contain a name, or else are spelled similarly."""
    close = [one for one in known if name and name in one][:3]
    return close or difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def join_messages(messages: Iterable[str], most: int = 5) -> str:
    """Returns different messages on one line: the first ones, and how many more there are.

    Args:
      messages: Some may be equal, such as those of runs that fail in the same way.
      most: How many are shown.
    """
    different = list(dict.fromkeys(messages))
    rest = len(different) - most
    return "; ".join([*different[:most], *([f"and {rest} more"] if rest > 0 else [])])
