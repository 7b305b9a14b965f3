"""Weights from addresses and hubs."""

import hashlib
import http.server
import json
import threading

import pytest
from helpers.torch_pickles import write_stream, write_zip
from helpers.weight_files import TIMM, make_weights, write_safetensors

from cnn_jax import pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import Preprocessing, download
from cnn_jax.pretrained.preprocessing import TORCHVISION

GRAY = Preprocessing(crop=28, mean=(0.1,), std=(0.3,))

WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Returns (served folder, its URL, received requests). The cache is tmp_path / cache."""
    folder, seen = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def send_header(self, name, value):
            short = self.path.endswith("short.safetensors") and name == "Content-Length"
            super().send_header(name, str(int(value) + 10) if short else value)

        def log_message(self, *_):
            seen.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    yield folder, f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def cached(tmp_path):
    return sorted(
        path.name
        for path in (tmp_path / "cache").rglob("*")
        if path.is_file() or ".part" in path.name
    )


def test_a_url_is_fetched_once_and_checked(served, tmp_path):
    folder, url, seen = served
    params, stats = make_weights("mlp", {})
    pretrained.save(folder / "mlp.safetensors", "mlp", params, stats, 4, GRAY)
    digest = hashlib.sha256((folder / "mlp.safetensors").read_bytes()).hexdigest()
    good, bad = f"mlp-{digest[:8]}.safetensors", "mlp-01234567.safetensors"
    for name in (good, bad, "short.safetensors"):
        (folder / name).write_bytes((folder / "mlp.safetensors").read_bytes())
    for _ in range(2):
        loaded = pretrained.load("mlp", f"{url}/{good}")
        assert bool((loaded.params["Dense_1"]["kernel"] == params["Dense_1"]["kernel"]).all())
    assert len(seen) == 1 and cached(tmp_path) == [good]
    for name, words in (
        (bad, f"its SHA-256 begins with {digest[:8]}, not 01234567"),
        ("nowhere.pth", "the server says 404"),
        ("short.safetensors", r"cannot be fetched: .* bytes arrived; try again"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            pretrained.load("mlp", f"{url}/{name}")
        assert "\n" not in str(caught.value) and cached(tmp_path) == [good]


def test_files_of_one_name_in_several_folders_do_not_mix(served, tmp_path):
    folder, url, _ = served
    for name, options in (("a", {"hidden": (3,)}), ("b", {"hidden": (5,)})):
        (folder / name).mkdir()
        pretrained.save(
            folder / name / "model.safetensors",
            "mlp",
            *make_weights("mlp", options),
            4,
            GRAY,
            options,
        )
    for name, units in (("a", 3), ("b", 5)):
        loaded = pretrained.load("mlp", f"{url}/{name}/model.safetensors")
        assert loaded.params["Dense_0"]["bias"].shape == (units,)
    outside = f"{url}/../../../../{tmp_path}/outside.pth"
    with pytest.raises(UserError, match="404"):
        pretrained.load("mlp", outside)
    assert all(
        (tmp_path / "cache") in path.parents
        for path in tmp_path.rglob("model.safetensors")
        if folder not in path.parents
    )


def test_a_hub_s_config_is_downloaded_and_only_404_means_that_it_is_absent(
    served, resnet18, monkeypatch
):
    folder, url, _ = served
    monkeypatch.setattr(download, "HUB", "127.0.0.1")
    for name in ("with", "without"):
        (folder / name).mkdir()
        write_safetensors(folder / name / "model.safetensors", resnet18)
    (folder / "with" / "config.json").write_text(json.dumps(TIMM))
    assert pretrained.load("resnet18", f"{url}/with/model.safetensors").preprocessing.crop == 160
    assert (
        pretrained.load("resnet18", f"{url}/without/model.safetensors").preprocessing == TORCHVISION
    )

    def no_network(url, path):
        raise UserError("no network")

    monkeypatch.setattr(download, "_download", no_network)
    with pytest.raises(UserError, match="no network"):
        pretrained.load("resnet18", f"{url}/without/model.safetensors")


def test_errors_of_the_network_and_other_schemes_are_refused(served):
    free = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    free.server_close()
    for wrong, words in (
        (
            f"http://127.0.0.1:{free.server_port}/x.pth",
            "cannot be reached: .*; download it yourself and give its path",
        ),
        ("file:///etc/passwd", "must be a path, or a URL of https"),
        ("https://", "must be a path, or a URL of https"),
        ("http://[", "Invalid IPv6 URL"),
        ("http://127.0.0.1:1/a b.pth", "cannot be fetched: .* can't contain control characters"),
    ):
        with pytest.raises(UserError, match=words):
            pretrained.load("mlp", wrong)
