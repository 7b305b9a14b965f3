"""Where evaluation cuts the images of public weights, beside torchvision's and timm's transforms;
skipped without them.
"""

import numpy as np

from cnn_jax.data.crops import compute_scaled_size
from cnn_jax.evaluation.protocols import offset_center
from parity.public_nets import imported

SIDES = [(224, 224), (232, 224), (256, 224), (342, 299)]  # of `cnn_jax.pretrained.preprocessing`


def find_their_crop(size, side, crop):
    """Returns the size of the image that torchvision scales, and the corner of its crop."""
    torch, transforms = imported("torch"), imported("torchvision.transforms")
    image = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(1, *size)
    height, width = transforms.Resize(side)(image).shape[1:]
    numbers = torch.arange(height * width).reshape(1, height, width)
    corner = divmod(int(transforms.CenterCrop(crop)(numbers)[0, 0, 0]), width)
    return (height, width), corner


def test_crops_lie_at_most_one_pixel_beside_torchvision_s():
    draw = np.random.default_rng(0)
    longer, beside = set(), set()
    for number in range(80):
        size, (side, crop) = tuple(draw.integers(200, 700, 2).tolist()), SIDES[number % len(SIDES)]
        theirs, their_corner = find_their_crop(size, side, crop)
        ours = compute_scaled_size(size, side)
        (our_corner,) = offset_center(ours, crop)
        exact = side * max(size) / min(size)
        assert min(ours) == min(theirs) == side
        assert max(theirs) == int(exact) and max(ours) == int(exact + 0.5)
        longer.add(max(ours) - max(theirs))
        beside |= {a - b for a, b in zip(our_corner, their_corner, strict=True)}
    assert longer == {0, 1} and beside == {-1, 0, 1}


def test_timm_crops_as_torchvision_does():
    factory, transforms = (
        imported("timm.data.transforms_factory"),
        imported("torchvision.transforms"),
    )
    resize, crop, *_ = factory.transforms_imagenet_eval((224, 224), crop_pct=0.875).transforms
    assert isinstance(resize, transforms.Resize) and resize.size == 256
    assert isinstance(crop, transforms.CenterCrop) and tuple(crop.size) == (224, 224)
