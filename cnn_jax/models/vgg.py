"""VGG. Simonyan, Zisserman 2014, "Very Deep Convolutional Networks ..." (arXiv:1409.1556)."""

from typing import ClassVar

import flax.linen as nn
import jax

from cnn_jax.layers.activations import relu
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.initializers import Initializer, normal
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import BaseModel, Dropout, Initialization
from cnn_jax.models.spec import Deviation, ModelSpec

ONE_256, ONE_512 = (1, 256), (1, 512)  # conv1-256 and conv1-512; 256 alone is conv3-256

# Table 1: the channels of each convolution, block by block; 2x2/2 max pooling after each block.
TABLE = {
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "C": ((64, 64), (128, 128), (256, 256, ONE_256), (512, 512, ONE_512), (512, 512, ONE_512)),
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "E": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


class Vgg(BaseModel, kw_only=True):
    """3x3 convolutions with ReLU in five blocks, then three dense layers, on images of 224x224.

    Attributes:
      column: A | B | C | D | E, of Table 1. A-LRN is A with norm="lrn" (after the first
        convolution's ReLU, Sec. 2.3).
      remat: Whether to recompute a block's activations in the backward pass instead of keeping
        them, which needs less memory and a third more time.
      initializer: xavier trains from scratch (Sec. 3.1). paper: N(0, 0.1^2), from which only A
        trains; the paper initialized the first four convolutions and the dense layers of B to E
        with those of a trained A.
    """

    not_options: ClassVar[tuple[str, ...]] = ("column",)

    column: str
    remat: bool = False
    initializer: Initialization = "xavier"
    dropout: Dropout = 0.5

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images, at least 32x32, to [B, num_classes] logits."""
        self.check_size(images, [(2, 2, 0)] * 5)
        x = images
        for block in range(1, 6):
            # The arguments after x are not arrays, so that remat needs them to be static.
            remat = self.remat and not self.is_initializing()
            run = nn.remat(Vgg._block, static_argnums=(2, 3)) if remat else Vgg._block
            x = self.capture(f"pool{block}", run(self, x, block, train))
        return self.classify(x, self._get_kernel_init(), train)  # of [B, 7, 7, 512]

    def _block(self, x: jax.Array, block: int, train: bool) -> jax.Array:
        """Applies a block, from [B, H, W, C] to [B, H // 2, W // 2, channels]."""
        for number, entry in enumerate(TABLE[self.column][block - 1], start=1):
            kernel, channels = entry if isinstance(entry, tuple) else (3, entry)
            layer = f"{block}_{number}"
            x = Conv(
                self.scale_channels(channels),
                (kernel, kernel),
                kernel_init=self._get_kernel_init(),
                name=f"conv{layer}",
            )(x)
            x = relu(self.apply_norm(x, f"norm{layer}", train))
            x = self.capture(f"conv{layer}", x)
            if layer == "1_1":
                x = self.apply_lrn(x, "lrn1_1")
        return MaxPool(2, 2, name=f"pool{block}")(x)

    def _get_kernel_init(self) -> Initializer:
        return self.get_kernel_init(normal(0.1))


_XAVIER = Deviation(
    "initial weights are Xavier's, N(0, 1 / inputs), which Sec. 3.1 allows; the paper's models"
    " started from N(0, 0.1^2), the deeper ones from a trained A",
    lambda model: model.initializer == "xavier",
)

# Parameters: computed from Table 1; A, B, D and E as in torchvision's vgg11, 13, 16 and 19.
MODELS = {
    "vgg_a": ModelSpec(Vgg, {"column": "A"}, parameters=132_863_336, deviations=(_XAVIER,)),
    "vgg_a_lrn": ModelSpec(
        Vgg, {"column": "A", "norm": "lrn"}, parameters=132_863_336, deviations=(_XAVIER,)
    ),
    "vgg_b": ModelSpec(Vgg, {"column": "B"}, parameters=133_047_848, deviations=(_XAVIER,)),
    "vgg_c": ModelSpec(Vgg, {"column": "C"}, parameters=133_638_952, deviations=(_XAVIER,)),
    "vgg_d": ModelSpec(Vgg, {"column": "D"}, parameters=138_357_544, deviations=(_XAVIER,)),
    "vgg_e": ModelSpec(Vgg, {"column": "E"}, parameters=143_667_240, deviations=(_XAVIER,)),
}

# {name in torchvision and Keras: name here}.
OTHER_NAMES = {"vgg11": "vgg_a", "vgg13": "vgg_b", "vgg16": "vgg_d", "vgg19": "vgg_e"}
OTHER_NAMES |= {f"{name}_bn": f"{ours} with model.norm=bn" for name, ours in OTHER_NAMES.items()}
