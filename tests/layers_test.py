"""The one way of the data: an import inside the project goes only upward in this list."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A module may import those of lower rank; modules of one rank do not know one another.
RANK = {
    "cnn_jax.cpu": 0,
    "cnn_jax.hlo": 0,
    "cnn_jax.config": 0,
    "cnn_jax.files": 0,
    "cnn_jax.chips": 1,
    "cnn_jax.mesh": 1,
    "cnn_jax.data": 2,
    "cnn_jax.models": 2,
    "cnn_jax.optim": 2,
    "cnn_jax.pretrained": 3,
    "cnn_jax.step": 3,
    "cnn_jax.summary": 3,
    "cnn_jax.digest": 3,
    "cnn_jax.lock": 1,
    "cnn_jax.processes": 1,
    "cnn_jax.watch": 2,
    "cnn_jax.views": 3,
    "cnn_jax.checkpoint": 4,
    "cnn_jax.log": 4,
    "cnn_jax.profile": 4,
    "cnn_jax.together": 4,
    "cnn_jax.train": 5,
    "cnn_jax.estimate": 6,
    "cnn_jax.plan": 6,
    "cnn_jax.evaluate": 6,
}
MODULES = sorted(p for top in ("cnn_jax", "experiments") for p in (ROOT / top).rglob("*.py"))


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module):
    """The listed module that a module is, or lies in."""
    return next((name for name in RANK if module == name or module.startswith(name + ".")), None)


def imports(path):
    """Modules of ours that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("cnn_jax", "experiments", "launch", "tests"))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_upward(path):
    module = dotted(path)
    if module == "cnn_jax":
        assert list(imports(path)) == ["cnn_jax.cpu"]
        return
    mine = room(module)
    for name in imports(path):
        theirs = room(name)
        if module.startswith("experiments"):
            assert name.startswith("experiments") or RANK[theirs] == 0, f"{module} imports {name}"
        else:
            assert mine, f"{module} has no place in the list: give it one"
            assert theirs and (theirs == mine or RANK[theirs] < RANK[mine]), f"{module} imports {name}"


def test_the_walk_sees_imports():
    seen = {room(name) for name in imports(ROOT / "cnn_jax/train.py")}
    assert seen >= {"cnn_jax.step", "cnn_jax.config", "cnn_jax.log"}


def test_step_takes_the_model_and_the_transformation_as_arguments():
    assert {room(name) for name in imports(ROOT / "cnn_jax/step.py")} == {
        "cnn_jax.config",
        "cnn_jax.mesh",
        "cnn_jax.data",
    }
