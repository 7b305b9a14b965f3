"""Damaged images: each is decoded, or is a bad image, which data.on_bad_image=skip leaves out."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import budget, damage
from hypothesis import HealthCheck, given, settings
from PIL import Image

from cnn_jax.config import Data
from cnn_jax.data import crops, decode, headers, streaming

EXAMPLES = budget.choose(300, 20_000)
SECONDS = 2  # Of this process, for one image of at most a million pixels.
FOLDER = Path(__file__).parents[1] / "testdata" / "images"
JPEGS = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.jpg"))}
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


def encode(kind):
    stream = io.BytesIO()
    NOISE.save(stream, kind)
    return stream.getvalue()


OTHERS = {kind: encode(kind) for kind in ("PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")}
CONTENTS = JPEGS | OTHERS
GOOD = JPEGS["baseline_420"]
READERS = {
    "crop": lambda file: decode.decode_crop(
        file, lambda size: crops.draw_inception_crop(np.random.default_rng(0), size), (24, 24)
    ),
    "resized": lambda file: decode.decode_resized(file, 16),
    "grey": lambda file: decode.decode_resized(file, 16, channels=1),
    "windows": lambda file: decode.decode_windows(
        file, 24, lambda size: decode.find_center(size, 24), 24
    ),
}


class Images:
    """A data set of one damaged image and a good one."""

    def __init__(self, file):
        self.files = (file, GOOD)

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return self.files[i], i

    def name(self, i):
        return f"{i}.jpg"


@pytest.fixture(autouse=True, scope="module")
def _fewer_pixels():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "MAX_PIXELS", 10**6)  # Damage that claims more takes long.
        patch.setattr(streaming, "_warn_once", lambda why: None)
        yield


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not budget.LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(damage.damaged(CONTENTS))
def test_a_damaged_image_is_decoded_or_left_out(drawn):
    name, file = drawn
    reader = READERS[sorted(READERS)[len(file) % len(READERS)]]
    began = time.process_time()
    found = streaming.decode_or_next(Data(on_bad_image="skip"), Images(file), 0, reader)
    assert found.image.dtype == np.uint8 and found.image.ndim >= 3
    assert found.replaced == (found.label == 1)
    assert time.process_time() - began < SECONDS, name
