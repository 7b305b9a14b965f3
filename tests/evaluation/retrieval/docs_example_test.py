"""The example of docs/retrieval.md runs as it stands, with a small model in place of a run."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from cnn_jax import trained
from cnn_jax.config import Experiment, choose
from cnn_jax.evaluation.retrieval import codes

PAGE = Path(__file__).parents[3] / "docs/retrieval.md"


def test_the_example_runs(monkeypatch, capsys):
    """Ten patterns with a little noise: each is found by its class."""
    made = trained.load_weights(Experiment(model=choose("lenet5_modern")), "untrained")
    monkeypatch.setattr(trained, "load", lambda target: made)
    layer = codes.CodeLayer("dense2", "flat")
    monkeypatch.setattr(codes, "find_layer", lambda model, name: layer)
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 200, (10, 28, 28, 1))
    labels = np.arange(100) % 10
    noisy = (patterns[labels] + rng.integers(0, 20, (100, 28, 28, 1))).astype(np.uint8)
    names = {
        "gallery_images": noisy[20:],
        "gallery_labels": labels[20:],
        "query_images": noisy[:20],
        "query_labels": labels[:20],
    }
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    exec(block, names)
    assert float(capsys.readouterr().out) > 0.9
    assert names["found"].index.shape == names["found"].distance.shape == (20, 10)
    assert names["short_gallery"].shape == (80, 64)
    assert jnp.asarray(names["gallery"]).dtype == jnp.float32
