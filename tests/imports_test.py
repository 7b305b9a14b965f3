"""Imports inside the project point one way: a module imports only packages of lower rank."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The packages and modules of one line do not import each other. Each may import those of the
# lines above.
LAYERS = (
    (
        "errors",
        "file_names",
        "interrupts",
        "registered_studies",
        "terminal_tables",
        "text",
        "__version__",
    ),
    ("files", "notebook", "optional_packages"),
    ("values", "user_file"),
    ("config",),
    ("config_file", "overrides", "registry"),
    ("mesh", "distributed", "cost.hlo", "cost.chips", "cost.chains"),
    ("commands", "cpu"),
    ("layers", "data", "optim"),
    ("models",),
    ("pretrained",),
    ("evaluation.losses", "evaluation.protocols"),
    ("evaluation.during_training",),
    ("training",),
    ("trained",),
    ("evaluation",),
    ("training.train",),
    ("cost", "visualize", "export"),
    ("tuning",),
    ("report",),
    ("study", "visualize.page"),
    ("cli", "experiments"),
)
RANK = {f"cnn_jax.{name}": rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted((ROOT / "cnn_jax").rglob("*.py"))


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module):
    """Returns the longest entry of RANK that a module is or lies in."""
    found = [name for name in RANK if module == name or module.startswith(name + ".")]
    return max(found, key=len, default=None)


def imports(path):
    """Yields the project's modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            name
            for name in names
            if name.split(".")[0] in ("cnn_jax", "experiments", "launch", "tests")
        )


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_one_way(path):
    module = dotted(path)
    if module in ("cnn_jax", "cnn_jax.__main__"):
        return
    mine = room(module)
    assert mine, f"{module} has no place in LAYERS: give it one"
    for name in imports(path):
        theirs = room(name)
        assert theirs and (theirs == mine or RANK[theirs] < RANK[mine]), f"{module} imports {name}"


def test_the_test_finds_imports():
    seen = {room(name) for name in imports(ROOT / "cnn_jax/training/train.py")}
    assert seen >= {"cnn_jax.training", "cnn_jax.config", "cnn_jax.evaluation"}
