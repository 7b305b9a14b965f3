"""One-line bugs, each put into a copy of the code: `make mutants`, or python
tests/faults/mutants.py [part of a file's name or of a line].

The tests of each group in `mutant_list.py` must notice every bug of it. Prints what survived; the
exit code is 1 if anything did, or if the tests fail without a bug.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.mutant_list import MUTANTS

os.environ |= {"JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
ROOT = Path(__file__).parents[2]
SECONDS = 600  # For one mutant; a bug that makes its tests hang is noticed too.


def copy_tree(place):
    """A copy of the tracked and new files of the checkout."""
    listed = [
        "git",
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    for name in subprocess.run(listed, capture_output=True, check=True, text=True).stdout.split(
        "\0"
    ):
        if name and (ROOT / name).is_file() and not name.startswith(("docs/results", "notebooks")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)


def import_libraries():
    """What every test imports, so that it is imported once; nothing of ours, nothing started."""
    import cv2
    import flax.linen
    import jax
    import optax
    import PIL.Image
    import pytest
    import sklearn.datasets

    return cv2, flax, jax, optax, PIL, pytest, sklearn


def run_tests(place, selection):
    """pytest's exit code of a selection in the copy, from a fork of this process; None: it hung."""
    child = os.fork()
    if not child:
        os.chdir(place)
        sys.path[:0] = [str(place), str(place / "tests")]
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        import shlex

        import pytest

        os._exit(pytest.main(["-n", "0", "-x", "-p", "no:cacheprovider", *shlex.split(selection)]))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


@contextlib.contextmanager
def put_in(place, file, before, after):
    """The bug in the copy."""
    path = place / file
    text = path.read_text()
    assert text.count(before) == 1, f"{file}: {before!r} stands there {text.count(before)} times"
    path.write_text(text.replace(before, after))
    try:
        yield
    finally:
        path.write_text(text)


def main():
    """Puts in all bugs, or those that the argument selects; returns the exit code."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    killed, survived, wrong, began = 0, [], [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "code"
        # What a bug does not touch is compiled once.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder) / "cache")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        import_libraries()
        copy_tree(place)
        for tests, mutants in MUTANTS.items():
            chosen = [
                one for one in mutants if not wanted or any(wanted in x for x in (*one, tests))
            ]
            if not chosen:
                continue
            if code := run_tests(place, tests):
                wrong.append(f"{tests}: fails without a bug (pytest's exit code {code})")
                print(wrong[-1], flush=True)
                continue
            for file, before, after in chosen:
                with put_in(place, file, before, after):
                    code = run_tests(place, tests)
                # 1: a test failed; 2: the code cannot be imported, which is no test's merit.
                words = f"{file}: {before.strip()!r} -> {after.strip()!r} by {tests}"
                killed += code in (1, None)
                if code not in (1, None):
                    survived.append(words)
                print(f"{'killed' if code in (1, None) else 'SURVIVED'}: {words}", flush=True)
    total = sum(map(len, MUTANTS.values()))
    print(
        f"{killed} killed, {len(survived)} survived, of {total}; {time.monotonic() - began:.0f} s"
    )
    for words in (*survived, *wrong):
        print(f"  {words}")
    return int(bool(survived or wrong))


if __name__ == "__main__":
    sys.exit(main())
