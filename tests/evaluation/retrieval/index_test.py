"""A user's images: what an index holds, when it is used again and when it is refused."""

import dataclasses
import json
import os
import shutil
import weakref

import numpy as np
import pytest
from PIL import Image

from cnn_jax import cli, data, trained
from cnn_jax.config import Data, Experiment, choose
from cnn_jax.errors import UserError
from cnn_jax.evaluation.retrieval import codes, find, images, index
from cnn_jax.report import retrieval


def write_image(path, color, seed=0):
    """An image of one color with a little noise: its code tells the color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-9, 10, (12, 14, 3))
    Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def gallery(tmp_path):
    """Three red images and two blue ones, in class folders."""
    for i in range(3):
        write_image(tmp_path / f"gallery/red/{i}.png", (200, 30, 30), i)
    for i in range(2):
        write_image(tmp_path / f"gallery/blue/{i}.png", (30, 30, 200), i + 3)
    return tmp_path / "gallery"


@pytest.fixture(scope="module")
def model():
    """An untrained network of two dense layers on 8x8 color images."""
    made = trained.load_weights(Experiment(model=choose("mlp", hidden=(16,))), "untrained")
    shape = (8, 8, 3)
    import jax
    import jax.numpy as jnp

    params, stats = made.model.init(jax.random.key(0), jnp.zeros((1, *shape)))
    return made._replace(params=params, stats=stats, image_shape=shape, resize=8)


def look_up(model, gallery, query, folder, **options):
    return find.find_images(model, str(gallery), str(query), folder, **options)


def test_each_image_finds_its_class_and_not_itself(model, gallery, tmp_path):
    found = look_up(model, gallery, gallery, tmp_path / "index")
    assert found.names == ("blue/0.png", "blue/1.png", "red/0.png", "red/1.png", "red/2.png")
    assert found.neighbors.shape == (5, 4)
    for row, neighbors in enumerate(found.neighbors):
        assert sorted(neighbors) == sorted(set(range(5)) - {row})
    nearest = [found.index.names[at].split("/")[0] for at in found.neighbors[:, 0]]
    assert nearest == ["blue", "blue", "red", "red", "red"]
    assert found.is_right[0] == (True, False, False, False)
    assert found.means.queries == 5 and found.means.precision_at_1 == 1.0


def test_an_index_is_written_once_and_read_again(model, gallery, tmp_path, monkeypatch):
    folder = tmp_path / "index"
    first = look_up(model, gallery, gallery / "red/0.png", folder)
    assert not first.index.was_read and first.index.codes.shape == (5, 16)
    files = {path.name for path in folder.iterdir()}
    assert files == {"codes.npy", "names.json", "index.json"}
    np.testing.assert_array_equal(np.load(folder / "codes.npy"), first.index.codes)
    monkeypatch.setattr(index, "_write", None)  # would raise
    again = look_up(model, gallery, gallery / "red/0.png", folder)
    assert again.index.was_read
    np.testing.assert_array_equal(again.neighbors, first.neighbors)
    np.testing.assert_array_equal(again.distances, first.distances)


def test_codes_are_compressed_by_whitened_pca_and_so_are_queries(model, gallery, tmp_path):
    folder = tmp_path / "index"
    found = look_up(model, gallery, gallery, folder, code_size=2)
    again = look_up(model, gallery, gallery, folder, code_size=2)
    assert found.index.codes.shape == (5, 2) and (folder / "pca.npz").exists()
    np.testing.assert_allclose(found.index.codes.std(0, ddof=1), 1, rtol=1e-4)
    np.testing.assert_array_equal(again.neighbors, found.neighbors)


def other_weights(model):
    return model._replace(params={k: dict(v) for k, v in model.params.items()}, name="another")


def test_an_index_of_something_else_is_refused_in_one_line(model, gallery, tmp_path):
    folder = tmp_path / "index"
    look_up(model, gallery, gallery, folder)
    other = other_weights(model)
    name = next(iter(other.params))
    other.params[name]["kernel"] = other.params[name]["kernel"] + 1e-6
    elsewhere = shutil.copytree(gallery, tmp_path / "elsewhere")
    cases = [
        ((other, gallery), {}, "its codes are of other weights .*another"),
        ((model, elsewhere), {}, "elsewhere is not .*gallery, which the index was built"),
        ((model, gallery), {"code_size": 2}, "its codes are of code_size 0, not 2"),
        ((model, gallery), {"layer": "logits"}, "layer=logits: the model has no such layer"),
    ]
    for (who, where), options, words in cases:
        with pytest.raises(UserError, match=words) as error:
            look_up(who, where, gallery, folder, **options)
        assert "\n" not in str(error.value)
    write_image(gallery / "red/9.png", (200, 30, 30))
    with pytest.raises(UserError, match=r"the gallery .*gallery has changed since: choose another"):
        look_up(model, gallery, gallery, folder)


@pytest.mark.parametrize(
    "change, words",
    [
        ("activation", r"codes are of options mlp\(hidden=16\), not mlp\(activation=tanh, hidden"),
        ("precision", "codes are of precision highest, not tensorfloat32"),
        ("scale", "images were normalized in another way"),
        ("mean image", "images were normalized in another way"),
    ],
)
def test_an_index_of_a_model_that_computes_something_else_is_refused(
    model, gallery, tmp_path, change, words
):
    """The parameters are the same bits."""
    look_up(model, gallery, gallery, tmp_path / "index")
    image = np.zeros((1, 8, 8, 3), np.float32)
    image[:, :4] += 1
    image[:, 4:] -= 1  # Its mean is zero.
    options = {"hidden": (16,), "activation": "tanh"}
    made = trained.load_weights(Experiment(model=choose("mlp", **options)), "untrained")
    changed = {
        "activation": {"choice": made.choice, "model": made.model},
        "precision": {"precision": "tensorfloat32"},
        "scale": {"prepare": lambda x: 2 * model.prepare(x)},
        "mean image": {"prepare": lambda x: model.prepare(x) - image},
    }
    other = model._replace(**changed[change])
    assert index.compute_checksum(other) == index.compute_checksum(model)
    with pytest.raises(UserError, match=words):
        look_up(other, gallery, gallery, tmp_path / "index")


def test_an_index_of_an_earlier_form_is_refused_with_the_remedy(model, gallery, tmp_path):
    folder = tmp_path / "index"
    look_up(model, gallery, gallery, folder)
    words = json.loads((folder / "index.json").read_bytes()) | {"version": 1}
    for name in ("options", "precision", "normalization"):
        del words[name]
    (folder / "index.json").write_text(json.dumps(words))
    with pytest.raises(UserError, match="by another version of cnn_jax: choose another index"):
        look_up(model, gallery, gallery, folder)


def test_weights_that_are_the_same_bits_are_the_same_weights(model, gallery, tmp_path):
    look_up(model, gallery, gallery, tmp_path / "index")
    assert look_up(other_weights(model), gallery, gallery, tmp_path / "index").index.was_read


def test_an_image_that_is_changed_in_place_is_noticed(model, gallery, tmp_path):
    look_up(model, gallery, gallery, tmp_path / "index")
    os.utime(gallery / "red/0.png", (0, 0))
    with pytest.raises(UserError, match="has changed since"):
        look_up(model, gallery, gallery, tmp_path / "index")


@pytest.mark.parametrize("name", ["codes.npy", "names.json", "index.json"])
def test_a_damaged_index_is_said_to_be(model, gallery, tmp_path, name):
    folder = tmp_path / "index"
    look_up(model, gallery, gallery, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    damaged = bytes(content) if name != "index.json" else content[:-30]
    (folder / name).write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged: delete the folder to rebuild it"):
        look_up(model, gallery, gallery, folder)


def test_a_folder_of_other_files_is_left_as_it_is(model, gallery, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"holds other files and no index\.json"):
        look_up(model, gallery, gallery, tmp_path / "home")


def test_damaged_images_stop_it_or_are_named_and_left_out(model, gallery, tmp_path, capsys):
    (gallery / "red/1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"red/1.png: .*data.on_bad_image=skip"):
        look_up(model, gallery, gallery / "blue", tmp_path / "index")
    skipping = model._replace(data=dataclasses.replace(model.data, on_bad_image="skip"))
    found = look_up(skipping, gallery, gallery, tmp_path / "index")
    assert found.names == ("blue/0.png", "blue/1.png", "red/0.png", "red/2.png")
    assert len(found.index.codes) == 4 and "left out: " in capsys.readouterr().err
    nearest = [found.index.names[row[0]] for row in found.neighbors]
    assert nearest == ["blue/1.png", "blue/0.png", "red/2.png", "red/0.png"]


def test_a_batch_of_damaged_images_alone_is_left_out(model, gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS_PER_BATCH", 2 * model.resize**2)
    (gallery / "red/2.png").write_bytes(b"no image")  # The fifth image is alone in its batch.
    skipping = model._replace(data=dataclasses.replace(model.data, on_bad_image="skip"))
    found = look_up(skipping, gallery, gallery, tmp_path / "index")
    assert found.names == ("blue/0.png", "blue/1.png", "red/0.png", "red/1.png")
    assert found.index.rows.tolist() == [0, 1, 2, 3] and found.neighbors.shape == (4, 3)


@pytest.fixture
def no_work(monkeypatch):
    """Nothing may be encoded."""
    monkeypatch.setattr(codes, "make_trained_encoder", None)


def test_what_cannot_be_done_is_said_before_the_work(model, gallery, tmp_path, no_work):
    words = "code_size=5: 5 codes of 16 numbers have at most 4 principal components"
    with pytest.raises(UserError, match=words):
        look_up(model, gallery, gallery, tmp_path / "index", code_size=5)
    (tmp_path / "file").write_text("")
    words = r"index=.*file/index: cannot be written \(Not a directory\): choose another folder"
    with pytest.raises(UserError, match=words):
        look_up(model, gallery, gallery, tmp_path / "file/index")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "gallery"]


def test_the_length_of_codes_is_known_before(model, gallery, tmp_path):
    numbers = look_up(model, gallery, gallery, tmp_path / "index").index.codes.shape[1]
    assert codes.compute_code_length(model, codes.find_layer(model)) == numbers == 16


def test_queries_are_encoded_batch_by_batch(model, gallery, tmp_path, monkeypatch):
    """Of five batches of one image at most the last two are in memory at a time."""
    look_up(model, gallery, gallery, tmp_path / "index")
    alive, most = [], []

    def iterate(*given, iterate=images.iterate_model_images):
        for part in iterate(*given):
            alive.append(weakref.ref(part.images))
            yield part
            most.append(sum(pixels() is not None for pixels in alive))

    monkeypatch.setattr(images, "iterate_model_images", iterate)
    monkeypatch.setattr(images, "MAX_PIXELS_PER_BATCH", model.resize**2)
    assert look_up(model, gallery, gallery, tmp_path / "index").index.was_read
    assert len(most) == 5 and max(most) <= 2


def test_a_gallery_without_another_image_is_said_to_be(model, gallery, tmp_path):
    for path in gallery.glob("*/*.png"):
        if path.name != "0.png" or path.parent.name != "red":
            path.write_bytes(b"no image")
    skipping = model._replace(data=dataclasses.replace(model.data, on_bad_image="skip"))
    words = "its only image that can be decoded is the query red/0.png itself"
    with pytest.raises(UserError, match=words):
        look_up(skipping, gallery, gallery / "red/0.png", tmp_path / "index")


def test_the_model_s_own_data_set_has_its_options():
    own = Data(dataset=choose("digits", side=20, margin=4))
    found = index.open_gallery("gallery", "digits", own=own)
    assert found[0][0].shape == (28, 28, 1)
    assert index.open_gallery("gallery", "fake", own=own)[0][0].shape == (8, 8, 3)


def test_a_model_of_shuffled_pixels_finds_no_files(model, gallery, tmp_path):
    shuffled = model._replace(data=dataclasses.replace(model.data, shuffle_pixels=True))
    with pytest.raises(UserError, match=r"data\.shuffle_pixels=true: .* those of files are not"):
        look_up(shuffled, gallery, gallery, tmp_path / "index")


def test_a_data_set_can_be_the_gallery(model, tmp_path):
    """A bright square's place is the class of the set `fake`."""
    fake = data.load_dataset(Data(dataset=choose("fake")))
    Image.fromarray(fake.test.images[4]).save(tmp_path / "one.png")
    found = look_up(model, "fake", tmp_path / "one.png", tmp_path / "index")
    assert found.index.names[:2] == ("fake train image 0", "fake train image 1")
    assert fake.train.labels[found.neighbors[0, 0]] == fake.test.labels[4]


def test_a_linked_folder_is_searched_and_a_hidden_one_is_not(model, gallery, tmp_path):
    write_image(tmp_path / "elsewhere/0.png", (30, 200, 30))
    (gallery / "green").symlink_to(tmp_path / "elsewhere")
    write_image(gallery / ".thumbnails/0.png", (30, 200, 30))
    found = look_up(model, gallery, gallery / "green", tmp_path / "index")
    assert found.names == ("0.png",) and found.index.names[2] == "green/0.png"
    assert len(found.index.names) == 6 and 2 not in found.neighbors


def test_grey_and_color_meet():
    color = np.zeros((1, 1, 3, 3), np.uint8)
    color[0, 0] = np.eye(3) * 255
    assert images.match_channels(color, 1)[0, 0, :, 0].tolist() == [76, 150, 29]
    gray = np.full((1, 2, 2, 1), 7, np.uint8)
    assert images.match_channels(gray, 3).tolist() == np.full((1, 2, 2, 3), 7).tolist()


@pytest.mark.parametrize(
    "gallery, query, words",
    [
        ("nowhere", "x", "gallery=.*nowhere: there is no such file or folder"),
        ("full", "nowhere", "query=.*nowhere: there is no such file or folder"),
        ("empty", "full", "gallery=.*empty: holds no images"),
        ("full", "empty", "query=.*empty: holds no images"),
    ],
)
def test_paths_that_are_not_there_are_named(model, tmp_path, gallery, query, words):
    write_image(tmp_path / "full/a.png", (1, 2, 3))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=words):
        look_up(model, tmp_path / gallery, tmp_path / query, tmp_path / "index")


def test_the_page_shows_neighbors_and_names_all_of_them(model, gallery, tmp_path):
    found = look_up(model, gallery, gallery, tmp_path / "index")
    built = retrieval.build_page(found, tmp_path / "out", [("model", "a <model>")])
    html = built.html.read_text()
    assert "a &lt;model&gt;" in html and "Over all queries" in html
    assert [path.name for path in built.figures] == ["neighbors1.png"]
    rows = json.loads((tmp_path / "out/neighbors.json").read_text())
    assert [row["query"] for row in rows] == list(found.names)
    assert rows[2]["neighbors"][0]["name"].startswith("red/")


def test_names_that_are_not_utf_8_are_shown_and_written(model, gallery, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write_image(gallery / "red" / name, (200, 30, 30))
    found = look_up(model, gallery, gallery, tmp_path / "index")
    built = retrieval.build_page(found, tmp_path / "out", [("gallery", name)])
    assert "caf\\xe9.png" in built.html.read_text() and built.figures[0].exists()
    rows = json.loads((tmp_path / "out/neighbors.json").read_text())
    assert rows[5]["query"] == os.path.join("red", name)  # As `open` takes it.


def test_the_command_makes_the_page_and_refuses_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cnn_jax.cli.command.prepare_jax", lambda cache: None)
    write_image(tmp_path / "gallery/a.png", (200, 30, 30))
    write_image(tmp_path / "gallery/b.png", (30, 200, 30))
    command = ["launch.py", "--retrieve=lenet5_modern:untrained", f"--workdir={tmp_path / 'out'}"]
    asked = [f"--gallery={tmp_path / 'gallery'}", f"--query={tmp_path / 'gallery/a.png'}"]
    assert cli.execute([*command, *asked], {}, {}) == 0
    assert "2 images" in capsys.readouterr().out
    assert (tmp_path / "out/retrieval.html").exists()
    assert cli.execute([*command, asked[0]], {}, {}) == 2
    assert "give --query too" in capsys.readouterr().err
    assert cli.execute([*command, *asked, "--layer=dense9"], {}, {}) == 2
    error = capsys.readouterr().err
    assert error.startswith("launch.py: --layer=dense9: the model has no such layer; nearest: ")
    assert cli.execute([*command, *asked, "--layer=conv1"], {}, {}) == 2
    assert "its codes are of layer dense2, not conv1" in capsys.readouterr().err
    below = f"--workdir={tmp_path / 'gallery/a.png/out'}"
    monkeypatch.setattr(find, "open_index", None)  # Nothing may be encoded.
    assert cli.execute([command[0], command[1], below, *asked], {}, {}) == 2
    assert "a.png/out (" in (error := capsys.readouterr().err)
    assert error.endswith("Not a directory): choose another --workdir\n")
