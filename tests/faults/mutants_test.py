"""The bugs of `make mutants` can still be put into the code: each part of a line stands once."""

import re
from pathlib import Path

import pytest
from faults.mutant_list import MUTANTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("tests", MUTANTS, ids=lambda words: words.partition(" ")[0])
def test_every_bug_has_its_place(tests):
    for path in re.findall(r"tests/\S+\.py", tests):
        assert (ROOT / path).exists(), path
    for file, part, bug in MUTANTS[tests]:
        assert (ROOT / file).read_text(encoding="utf-8").count(part) == 1, f"{file}: {part}"
        assert part != bug
