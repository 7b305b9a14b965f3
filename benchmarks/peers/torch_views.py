"""Test-time views of a VGG in PyTorch, from the papers' words.

Ten crops: the network's prediction is the average of its softmax on five patches, of the corners
and the center, and on their horizontal reflections (Krizhevsky et al. 2012, Sec. 4.1). Dense: the
first dense layer becomes a 7x7 convolution and the other two 1x1, the network is applied to the
whole image, its class scores are averaged over all positions, and the softmax of the image and of
its mirror image are averaged (Simonyan, Zisserman 2014, Sec. 3.2).
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from benchmarks.peers import CROP, Peer, Spec, make_photographs
from benchmarks.peers.torch import Weights, choose_device, load_weights, torch_nets


def make_peer(spec: Spec, weights: Weights) -> Peer:
    """Returns an evaluation of all photographs by the protocol of `spec`, as one step.

    Args:
      spec: Its variant is the layout of images and convolutions: contiguous or channels_last.
      weights: The arrays of `benchmarks.draw`.
    """
    device = choose_device(spec)
    layout = torch.channels_last if spec.variant == "channels_last" else torch.contiguous_format
    model = torch_nets.vgg((CROP, CROP), spec.classes, "D")
    load_weights(model, weights)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    predict = predict_ten_crops
    if spec.protocol == "dense":
        model, predict = convert_dense_layers(model), predict_densely
    model = model.to(device, memory_format=layout).eval()
    photographs = make_photographs(weights["images"])
    labels = torch.from_numpy(weights["labels"]).long()
    autocast = functools.partial(
        torch.autocast, device.type, torch.bfloat16, spec.precision == "bfloat16"
    )
    loss = torch.zeros(())

    @torch.inference_mode()
    def step() -> None:
        nonlocal loss
        images = torch.from_numpy(photographs).to(device).permute(0, 3, 1, 2)
        images = ((images.float() - 127) / 255).contiguous(memory_format=layout)
        with autocast():
            probabilities = predict(model, images)
        loss = F.nll_loss(probabilities.log().cpu(), labels)

    peak = torch.cuda.max_memory_allocated if device.type == "cuda" else lambda: None
    return Peer(step, lambda: loss.item(), peak)


def predict_ten_crops(
    model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    """Maps images [B, 3, H, W] to probabilities [B, classes]."""
    down, across = images.shape[2] - CROP, images.shape[3] - CROP
    corners = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
    total = 0.0
    for mirrored in (images, images.flip(3)):
        for y, x in corners:
            logits = model(mirrored[:, :, y : y + CROP, x : x + CROP])
            total = total + logits.float().softmax(1)
    return total / 10


def predict_densely(
    model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    """Maps images [B, 3, H, W] to probabilities [B, classes], the model being convolutions."""
    both = [model(each).float().mean((2, 3)).softmax(1) for each in (images, images.flip(3))]
    return (both[0] + both[1]) / 2


def convert_dense_layers(model: nn.Sequential) -> nn.Sequential:
    """Returns the model with its dense layers as convolutions.

    The first takes all pixels of the last feature maps, flattened in the order [H, W, C].
    """
    layers, side = [], CROP // 32  # Of the last feature maps.
    for module in model:
        if isinstance(module, torch_nets.Flatten):
            continue
        if isinstance(module, nn.Linear):
            units = module.out_features
            kernel = module.weight.reshape(units, side, side, -1).permute(0, 3, 1, 2)
            conv = nn.Conv2d(kernel.shape[1], units, side)
            conv.weight, conv.bias = nn.Parameter(kernel.contiguous()), module.bias
            module, side = conv, 1
        layers.append(module)
    return nn.Sequential(*layers)
