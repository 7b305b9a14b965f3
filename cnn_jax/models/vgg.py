"""VGG nets. Simonyan, Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition"."""

import functools

import flax.linen as nn
import jax

from cnn_jax.models.layers import BatchNorm, Conv, initialiser, keep, normal, rectified
from cnn_jax.models.lrn import local_response_norm
from cnn_jax.models.pooling import check_size

ONE_256, ONE_512 = (1, 256), (1, 512)  # conv1-256 and conv1-512; a bare number is conv3's

# Table 1: the maps of each convolution, block by block; 2x2/2 max pooling after each block.
TABLE = {
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "C": ((64, 64), (128, 128), (256, 256, ONE_256), (512, 512, ONE_512), (512, 512, ONE_512)),
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "E": ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}


class Vgg(nn.Module):
    """3x3 convolutions with ReLU in five blocks, then three dense layers, on images of 224x224.

    Attributes:
      num_classes: logits.
      column: A | B | C | D | E, of Table 1; A-LRN is A with norm="lrn".
      norm: none | lrn after the first convolution's ReLU (Sec. 2.3), AlexNet's constants | bn before each ReLU.
      dropout: the share of fc6's and fc7's outputs dropped in training.
      initialiser: xavier (Sec. 3.1: works from scratch) | he | paper: N(0, 0.1^2), from which only A may be trained;
        B to E start from a trained A's first four convolutions and dense layers.
      bn_group: images per batch-statistics group; 0: the whole batch.
      axis: the pmapped axis over which the batch is split, if it is.
    """

    num_classes: int
    column: str
    norm: str = "none"
    dropout: float = 0.5
    initialiser: str = "xavier"
    bn_group: int = 0
    axis: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] images, at least 32x32, to [B, num_classes] logits."""
        check_size(f"vgg_{self.column.lower()}", images, [(2, 2, 0)] * 5)
        weights = initialiser(self.initialiser, normal(0.1))
        batch_norm = functools.partial(BatchNorm, group=self.bn_group, axis=self.axis)

        x = images
        for block, row in enumerate(TABLE[self.column], start=1):
            for number, entry in enumerate(row, start=1):
                kernel, maps = entry if isinstance(entry, tuple) else (3, entry)
                place = f"{block}_{number}"
                x = Conv(maps, (kernel, kernel), kernel_init=weights, name=f"conv{place}")(x)
                x = keep(self, f"conv{place}", rectified(x, self.norm, batch_norm, f"norm{place}", train))
                if self.norm == "lrn" and place == "1_1":
                    x = local_response_norm(x)
            x = keep(self, f"pool{block}", nn.max_pool(x, (2, 2), (2, 2)))
        x = x.reshape(len(x), -1)  # [B, 7 * 7 * 512]
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(4096, kernel_init=weights, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(keep(self, name, x))
        return nn.Dense(self.num_classes, kernel_init=weights, name="fc8")(x)
