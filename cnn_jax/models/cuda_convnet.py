"""The four-layer CNN for CIFAR-10 of Krizhevsky et al. 2012, Sec. 3.3, as cuda-convnet defines it.

The paper refers to cuda-convnet's code for the details of the model. They are in its files
example-layers/layers-conv-local-11pct.cfg (with LRN) and layers-conv-local-13pct.cfg (without).
"""

import functools

import flax.linen as nn
import jax

from cnn_jax.layers.activations import relu
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.initializers import normal
from cnn_jax.layers.local import LocalConv
from cnn_jax.layers.lrn import apply_local_response_norm
from cnn_jax.layers.pooling import MaxPool
from cnn_jax.models.base import BaseModel, Norm
from cnn_jax.models.spec import Deviation, ModelSpec

CONV_STD = (0.0001, 0.01)  # initW of conv1 and conv2
LOCAL_STD = 0.04


class CudaConvnet(BaseModel):
    """Two 5x5 convolutions, two locally connected 3x3 layers and a dense layer.

    They have 64, 64, 32 and 32 channels. 3x3/2 max pooling, which rounds sizes up, follows each
    convolution. LRN is applied before the pooling, with cuda-convnet's constants k = 1, n = 5,
    alpha = 0.001 / 5, beta = 0.75.

    Attributes:
      norm: lrn (an error of 11% in the paper) | none (13%) | bn.
      initializer: paper: N(0, std^2) with the definition files' std.
    """

    norm: Norm = "lrn"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] images, 24x24 or 32x32, to [B, num_classes] logits."""
        x = images
        for number, std in enumerate(CONV_STD, start=1):
            init = self.get_kernel_init(normal(std))
            x = Conv(self.scale_channels(64), (5, 5), kernel_init=init, name=f"conv{number}")(x)
            x = relu(self.apply_norm(x, f"norm{number}", train))
            x = self.capture(f"conv{number}", x)
            if self.norm == "lrn":
                x = apply_local_response_norm(x, k=1.0, n=5, alpha=0.001 / 5)
            x = self.capture(f"pool{number}", MaxPool(3, 2, "CEIL", name=f"pool{number}")(x))
        local = functools.partial(LocalConv, self.scale_channels(32), (3, 3))
        for number in (3, 4):  # [B, 6, 6, 32] from 24x24
            x = local(kernel_init=self.get_kernel_init(normal(LOCAL_STD)), name=f"local{number}")(x)
            x = self.capture(f"local{number}", relu(x))
        x = self.apply_dropout(x.reshape(x.shape[0], -1), train)
        return Dense(self.num_classes, kernel_init=self.get_kernel_init(normal(0.01)), name="fc10")(
            x
        )


MODELS = {
    "cuda_convnet": ModelSpec(
        CudaConvnet,
        input_shape=(24, 24, 3),
        num_classes=10,
        # 4,864 + 102,464 + 36 * (576 * 32 + 32) + 36 * (288 * 32 + 32) + 11,530
        parameters=1_116_490,
        deviations=(
            Deviation(
                "it has batch norm; cuda-convnet's files do not",
                lambda model: model.norm == "bn",
            ),
        ),
    )
}
