"""Says whether an environment still has the versions of a constraint file: python colab.py FILE."""

import sys
from importlib.metadata import version
from pathlib import Path


def main(path):
    """Returns the exit code: 1 if a package was replaced."""
    wanted = dict(
        line.split("==")
        for line in Path(path).read_text().splitlines()
        if line[:1] not in ("#", "")
    )
    replaced = {p: v for p, v in wanted.items() if version(p) != v}
    for package, want in replaced.items():
        print(f"{package}: {version(package)} in place of {want}", file=sys.stderr)
    if not replaced:
        print(f"{len(wanted)} packages are as before, jax {version('jax')} among them")
    return 1 if replaced else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
