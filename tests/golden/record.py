"""Records the golden values: python tests/golden/record.py [--compare] [--only=models,runs].

Record only with code that is known to be right, because every later change is compared with it.
--compare writes nothing and prints a line per group and one for all.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import conftest  # noqa: E402, F401  (JAX as the tests have it)

from golden import cases as golden  # noqa: E402


def main() -> None:
    """Records or compares the groups of `--only`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", action="store_true", help="write nothing, print what differs")
    every = ",".join(golden.GROUPS)
    parser.add_argument("--only", default=every, help=f"comma-separated groups: {every}")
    flags = parser.parse_args()
    golden.STORED.mkdir(parents=True, exist_ok=True)
    everything = []
    for group in flags.only.split(","):
        names, values = golden.GROUPS[group]
        found, sides, began = {}, [], time.perf_counter()
        for name in names():
            found[name], report = values(name), None
            if group == "studies":
                report, found[name] = found[name]
            print(f"{group}: {name}, {time.perf_counter() - began:.0f} s", flush=True)
            if not flags.compare:
                if report:
                    golden.get_report_path(name).write_text(report)
                continue
            sides.append(golden.pair_numbers(golden.read_stored(group)[name], found[name]))
            if report is not None:
                same = report == golden.get_report_path(name).read_text()
                words = "equal" if same else "different: golden_test.py compares its numbers"
                print(f"{group}: {name}: the report is {words}")
        if flags.compare:
            everything += sides
            print(f"{group}: {summary(sides)}", flush=True)
        else:
            lines = [f'"{name}": {json.dumps(case)}' for name, case in found.items()]
            (golden.STORED / f"{group}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
            print(f"{group}: recorded in {time.perf_counter() - began:.0f} s", flush=True)
    if flags.compare:
        print(f"all: {summary(everything)}")


def summary(sides: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Describes the numbers of several cases, each (recorded, computed)."""
    return golden.summary(*map(np.concatenate, zip(*sides, strict=True)))


if __name__ == "__main__":
    main()
