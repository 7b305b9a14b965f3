"""VGG nets. Simonyan, Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition"."""

import flax.linen as nn
import jax

from cnn_jax.layers.conv import Conv, normal
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import Init, Net

ONE_256, ONE_512 = (1, 256), (1, 512)  # conv1-256 and conv1-512; a bare number is conv3's

# Table 1: the maps of each convolution, block by block; 2x2/2 max pooling after each block.
TABLE = {
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "C": ((64, 64), (128, 128), (256, 256, ONE_256), (512, 512, ONE_512), (512, 512, ONE_512)),
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "E": ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}


class Vgg(Net, kw_only=True):
    """3x3 convolutions with ReLU in five blocks, then three dense layers, on images of 224x224.

    Attributes:
      column: A | B | C | D | E, of Table 1; A-LRN is A with norm="lrn" (after the first convolution's ReLU, Sec. 2.3).
      remat: a block's activations are computed again in the backward pass, not kept: less memory, a third more time.
      initialiser: xavier (Sec. 3.1: works from scratch) | he | paper: N(0, 0.1^2), from which only A may be trained;
        B to E start from a trained A's first four convolutions and dense layers.
    """

    column: str
    remat: bool = False
    initialiser: str = "xavier"
    dropout: float = 0.5

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images, at least 32x32, to [B, num_classes] logits."""
        self.check_size(images, [(2, 2, 0)] * 5)
        x = images
        for block in range(1, 6):
            # The arguments after x are no arrays: remat is told so.
            again = self.remat and not self.is_initializing()
            run = nn.remat(Vgg._block, static_argnums=(2, 3)) if again else Vgg._block
            x = self.keep(f"pool{block}", run(self, x, block, train))
        return self.classified(x, self._weights(), train)  # of [B, 7, 7, 512]

    def _block(self, x: jax.Array, block: int, train: bool) -> jax.Array:
        """The convolutions of a block, and its pooling: [B, H, W, C] to [B, H // 2, W // 2, maps]."""
        for number, entry in enumerate(TABLE[self.column][block - 1], start=1):
            kernel, maps = entry if isinstance(entry, tuple) else (3, entry)
            place = f"{block}_{number}"
            x = Conv(self.maps(maps), (kernel, kernel), kernel_init=self._weights(), name=f"conv{place}")(x)
            x = self.keep(f"conv{place}", nn.relu(self.normalised(x, f"norm{place}", train)))
            if place == "1_1":
                x = self.lrn(x, "lrn1_1")
        return MaxPool(2, 2, name=f"pool{block}")(x)

    def _weights(self) -> Init:
        return self.weights(normal(0.1))
