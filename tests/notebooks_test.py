"""The notebooks: each .ipynb is its .py, each begins alike, and each runs in its smoke form."""

import json
import re
import types

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("nbclient")
from helpers import notebooks

from cnn_jax import notebook as library

NAMES = notebooks.NAMES
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def test_all_six_are_there():
    assert set(NAMES) == {
        "quickstart",
        "degradation_on_tpu",
        "scale_jitter",
        "your_own_data",
        "your_own_training_loop",
        "lectures",
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_its_source(name):
    """If this fails: python tests/helpers/notebooks.py sync"""
    path = notebooks.FOLDER / f"{name}.ipynb"
    written = json.loads(path.read_text())
    source = notebooks.read_source(name)
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in written["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in source.cells]
    assert written["metadata"] == source.metadata
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_its_badge_and_the_common_cell(name):
    badge, code = (cell.source for cell in notebooks.read_source(name).cells[:2])
    assert f"/cnn-jax/cnn_jax/blob/main/notebooks/{name}.ipynb" in badge.splitlines()[0]
    first = notebooks.read_source("quickstart").cells[1].source
    assert code == first and "check_runtime(jax_before)" in code


@pytest.mark.parametrize("name", NAMES)
def test_it_needs_no_flags_no_tensorflow_no_secret_and_no_drive(name):
    text = "\n".join(cell.source for cell in notebooks.read_source(name).cells[1:])
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert not re.search(r"absl|FLAGS|import tensorflow|google\.colab|userdata|drive\.mount", code)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_in_its_smoke_form(name, tmp_path):
    notebooks.execute(notebooks.read_source(name), tmp_path, smoke=True)


def test_a_replaced_jax_and_an_unseen_accelerator_are_one_sentence(monkeypatch, capsys):
    import jax

    with pytest.raises(library.RuntimeProblem, match=r"replaced jax 0\.1 by"):
        library.check_runtime("0.1")
    library.check_runtime(jax.__version__)
    assert f"jax {jax.__version__} on 8 x CPU" in capsys.readouterr().out
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5e-1")
    with pytest.raises(library.RuntimeProblem) as caught:
        library.check_runtime(jax.__version__)
    assert "has a TPU, but JAX" in str(caught.value) and "cnn_jax[tpu]" in str(caught.value)
    assert caught.value._render_traceback_() == [str(caught.value)]
    tpu = types.SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    monkeypatch.setattr(jax, "devices", lambda: [tpu])
    library.check_runtime(jax.__version__)
    assert "1 x TPU (TPU v5 lite)" in capsys.readouterr().out
