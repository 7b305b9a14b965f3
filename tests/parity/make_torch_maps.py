"""Compute with PyTorch the maps that ours are compared with where it is not installed.

python tests/parity/make_torch_maps.py writes tests/testdata/torch/maps.json: for each case the
gradient, guided backpropagation and the deconvnet's signal, integrated gradients and Grad-CAM, of
the nets of torch_nets.py with the weights of torch_cases.py. It needs PyTorch (pip install torch).
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

from parity import torch_cases as cases  # noqa: E402
from parity.make_torch_references import loaded, pictures, rounded  # noqa: E402

FILE = TESTS / "testdata" / "torch" / "maps.json"
STEPS = 8  # of the integral
LABELS = torch.tensor([3, 1])


class Place(NamedTuple):
    """A case, the torch module whose output is the last spatial map, and our name of that map."""

    case: str
    module: str
    layer: str


PLACES = (
    Place("lenet5_modern-28x28", "p1", "pool2"),
    Place("vgg_a-32x65-norm=bn", "pool5", "pool5"),
    Place("resnet20-33x25", "stage3_block3", "stage3"),
    Place("zfnet-65x97", "pool5", "pool5"),
)


class _Relu(torch.autograd.Function):
    rule = "backprop"

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        (x,) = ctx.saved_tensors
        if _Relu.rule != "deconvnet":
            signal = signal * (x > 0)
        return signal if _Relu.rule == "backprop" else signal * (signal > 0)


@contextlib.contextmanager
def relu_rule(rule):
    """Within it each ReLU of torch has the rule, those written as functions and methods too."""
    old = torch.nn.functional.relu, torch.Tensor.relu_
    torch.nn.functional.relu = lambda x, inplace=False: _Relu.apply(x)
    torch.Tensor.relu_ = lambda self: _Relu.apply(self)
    _Relu.rule = rule
    try:
        yield
    finally:
        torch.nn.functional.relu, torch.Tensor.relu_ = old


def scores(net, x):
    return net(x).gather(1, LABELS[:, None])[:, 0]


def gradient(net, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(scores(net, x).sum(), x)[0]


def integrated(net, x):
    points = [(k + 0.5) / STEPS * x for k in range(STEPS)]
    return x * sum(gradient(net, point) for point in points) / STEPS


def grad_cam(net, x, module):
    kept = []
    hook = net.get_submodule(module).register_forward_hook(lambda *told: kept.append(told[2]))
    total = scores(net, x.clone().requires_grad_()).sum()
    hook.remove()
    weights = torch.autograd.grad(total, kept[0])[0].mean((2, 3), keepdim=True)
    return (weights * kept[0]).sum(1).clamp(min=0).detach()


def compute(place):
    """Return the measures of each map, and the coarse Grad-CAM itself."""
    case = next(case for case in cases.FORWARD if case.id == place.case)
    net, x = loaded(case), pictures(case)
    maps = {}
    for rule in ("backprop", "deconvnet", "guided"):
        with relu_rule(rule):
            maps[rule] = gradient(net, x)
    maps["integrated"] = integrated(net, x)
    measured = cases.measures({k: np.moveaxis(v.numpy(), 1, -1) for k, v in maps.items()})
    return measured | {"grad_cam": grad_cam(net, x, place.module).tolist()}


def main():
    """Write the file, a line a case."""
    about = {"torch": torch.__version__.partition("+")[0], "numpy": np.__version__}
    lines = [f'"made with": {json.dumps(about)}']
    for place in PLACES:
        print(place.case, flush=True)
        found = json.dumps(rounded(compute(place)), separators=(",", ":"))
        lines.append(f"{json.dumps(place.case)}: {found}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
