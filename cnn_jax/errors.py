"""Errors that a user reads: what they are, and how a misspelled name is answered."""

import difflib
from collections.abc import Iterable

STOPPED = 75  # Exit code of a run that was stopped and can be continued: EX_TEMPFAIL of sysexits.h.


class UserError(ValueError):
    """A user's mistake. Its text is one line that names the thing and the remedy.

    The command line prints that line and exits with code 2.
    """


class NotFiniteError(UserError):
    """A model's scores are NaN or infinite: there is nothing to measure."""


class StoppedError(Exception):
    """A run was stopped by a signal and has been saved. The command line exits with STOPPED."""


def nearest(name: str, known: Iterable[str]) -> str:
    """'nearest: a, b' for an unknown name; 'known: ...' with all there is if nothing is near."""
    known = list(known)
    initials = {
        k: "".join(word[0] for word in k.rpartition(".")[2].split("_") if word) for k in known
    }
    leaf = name.rpartition(".")[2]
    close = [k for k in known if leaf in (k.rpartition(".")[2], initials[k])]  # lr: learning_rate
    close = close or [k for k in known if name and name in k][:3]
    close = close or difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"nearest: {', '.join(close)}" if close else f"known: {', '.join(known)}"
