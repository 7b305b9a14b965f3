"""The publisher's preprocessing of an image, against Pillow and by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.torch_pickles import write_stream, write_zip
from PIL import Image

from cnn_jax.errors import UserError
from cnn_jax.pretrained import Preprocessing
from cnn_jax.pretrained.preprocessing import KERAS_CAFFE, TORCHVISION

GRAY = Preprocessing(crop=28, mean=(0.1,), std=(0.3,))

WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height, width", [(90, 120), (61, 40), (20, 31)])
def test_resizing_matches_pillow(method, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    recipe = Preprocessing(
        crop=28, mean=(0.0,) * 3, std=(1.0,) * 3, resize=32, interpolation=method, maximum=255.0
    )
    ours = np.asarray(recipe.apply(image[None])[0])
    size = [int(32 * side / min(height, width)) for side in (width, height)]
    theirs = np.asarray(
        Image.fromarray(image).resize(size, getattr(Image.Resampling, method.upper())), np.float32
    )
    top, left = (round((side - 28) / 2) for side in theirs.shape[:2])
    difference = np.abs(ours - theirs[top : top + 28, left : left + 28])
    assert (
        difference.max() <= 1 and difference.mean() < 0.04
    )  # Pillow computes in fixed-point arithmetic.


def test_channel_order_and_values_by_hand():
    image = np.zeros((1, 224, 224, 3), np.uint8) + np.array([255, 51, 0], np.uint8)
    keras = dataclasses.replace(KERAS_CAFFE, resize=0).apply(image)
    np.testing.assert_allclose(keras[0, 0, 0], [0 - 103.939, 51 - 116.779, 255 - 123.68], rtol=1e-5)
    torch = jax.jit(dataclasses.replace(TORCHVISION, resize=0).apply)(image)
    np.testing.assert_allclose(
        torch[0, 0, 0], [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225], rtol=1e-5
    )
    assert torch.dtype == jnp.float32


def test_an_image_smaller_than_the_crop_is_refused():
    with pytest.raises(UserError, match="images of 20x28 are smaller than the 28x28"):
        GRAY.apply(np.zeros((1, 20, 28, 1), np.uint8))
