"""Notebooks: NAME.py is the source, NAME.ipynb what Colab opens.

python tests/helpers/notebooks.py sync            every .ipynb gets the cells of its .py
python tests/helpers/notebooks.py run quickstart  likewise, executed in full, outputs included
"""

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbclient
import nbformat

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
TIMEOUT = 1800  # Seconds a cell.


def read_source(name):
    """The notebook of NAME.py: without outputs, its cells numbered so that files do not change."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
    metadata = notebook.metadata
    kept = {"kernelspec": dict(metadata.kernelspec), "language_info": {"name": "python"}}
    if metadata.accelerator != "None":
        kept |= {"accelerator": metadata.accelerator, "colab": {"gpuType": "V5E1"}}
    notebook.metadata = kept
    notebook.nbformat_minor = 5
    return notebook


def execute(notebook, folder, smoke):
    """Runs all cells in a folder, in a new kernel on the CPU."""
    if importlib.util.find_spec("cnn_jax.experiments") is None:  # A checkout, not installed.
        notebook = nbformat.from_dict(notebook)
        for cell in notebook.cells:
            cell.source = cell.source.replace(
                "from cnn_jax.experiments import", "from experiments import"
            )
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": path,
        "CNN_JAX_SMOKE": str(int(smoke)),
    }
    env.pop("XLA_FLAGS", None)
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources, record_timing=False
    )
    client.execute(env=env)
    return notebook


def tidy_outputs(cell):
    """Joins what a cell printed, and drops warnings of the machine that executed it."""
    outputs = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream" and output.name == "stderr":
            continue
        last = outputs[-1] if outputs else None
        if last and last.output_type == output.output_type == "stream":
            last.text += output.text
        else:
            outputs.append(output)
    if cell.cell_type == "code":
        cell.outputs = outputs


def write(name, notebook):
    for cell in notebook.cells:
        tidy_outputs(cell)
    nbformat.validate(notebook)
    (FOLDER / f"{name}.ipynb").write_text(nbformat.writes(notebook) + "\n")


def sync(name):
    """Gives NAME.ipynb the cells of NAME.py; a cell whose source is as before keeps its outputs."""
    notebook, path = read_source(name), FOLDER / f"{name}.ipynb"
    if path.exists():
        before = {cell.source: cell for cell in nbformat.read(path, 4).cells}
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.source in before:
                cell.outputs = before[cell.source].outputs
                cell.execution_count = before[cell.source].execution_count
    write(name, notebook)


def run(name):
    """Executes NAME.py in full and writes NAME.ipynb with its outputs."""
    began = time.perf_counter()
    notebook, sources = read_source(name), [cell.source for cell in read_source(name).cells]
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(notebook, folder, smoke=False)
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
    write(name, notebook)
    size = (FOLDER / f"{name}.ipynb").stat().st_size
    print(f"{name}: {time.perf_counter() - began:.0f} s, {size:,} bytes", flush=True)


if __name__ == "__main__":
    for given in sys.argv[2:] or NAMES:
        {"sync": sync, "run": run}[sys.argv[1]](given)
