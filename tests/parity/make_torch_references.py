"""Computes PyTorch's reference values, with which our models are compared without PyTorch.

    python tests/parity/make_torch_references.py

writes tests/testdata/torch/*.json for every case in torch_cases.py. It needs PyTorch (pip install
torch); the tests that read the files do not. The PyTorch models are in torch_nets.py and
torch_inceptions.py and follow the papers' tables.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

from parity import torch_cases as cases  # noqa: E402

FOLDER = TESTS / "testdata" / "torch"
# The decay is large, so that it has an effect within a few small steps.
STEPS, MOMENTUM, DECAY = 5, 0.9, 0.5

# PyTorch's threads wait actively and would slow XLA and other test processes.
torch.set_num_threads(1)


def loaded(case: cases.Case) -> torch.nn.Module:
    """Returns the PyTorch model in evaluation mode, with the case's weights."""
    with torch.device("meta"):  # Skips its own initialization.
        net = case.make()
    ours = {
        name: torch.from_numpy(tensor)
        for name, tensor in cases.as_torch(*cases.weights(case)).items()
    }
    missing, unexpected = net.load_state_dict(
        ours, strict=False, assign=True
    )  # Raises for a wrong shape.
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (
        missing,
        unexpected,
    )
    return net.eval()


def pictures(case: cases.Case) -> torch.Tensor:
    """Returns the case's images in PyTorch's layout, [B, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(cases.images(case).transpose(0, 3, 1, 2)))


def forward(case: cases.Case) -> dict[str, Any]:
    """Returns the logits in evaluation mode."""
    with torch.no_grad():
        return {"logits": loaded(case)(pictures(case)).tolist()}


def moved(net: torch.nn.Module) -> dict[str, list[float]]:
    """Returns the measures of the running statistics."""
    buffers = {
        name: buffer.numpy() for name, buffer in net.named_buffers() if not name.endswith("tracked")
    }
    return cases.measures(buffers)


def gradients(case: cases.Case) -> dict[str, Any]:
    """Returns logits, gradients and updated statistics of one step, and losses of some steps."""
    net, x, labels = loaded(case).train(), pictures(case), torch.from_numpy(cases.LABELS).long()
    sgd = torch.optim.SGD(net.parameters(), cases.RATES[case.id], MOMENTUM, weight_decay=DECAY)
    found: dict[str, Any] = {"losses": []}
    for step in range(STEPS):
        sgd.zero_grad()
        logits = net(x)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        found["losses"].append(loss.item())
        if step == 0:
            grads = {name: p.grad.numpy().copy() for name, p in net.named_parameters()}
            found |= {
                "logits": logits.tolist(),
                "gradients": cases.measures(grads),
                "stats": moved(net),
            }
        sgd.step()
    return found | {
        "params": cases.measures({name: p.detach().numpy() for name, p in net.named_parameters()})
    }


def auxiliary(case: cases.Case) -> dict[str, Any]:
    """Returns the logits in training, the main ones first, and the updated statistics."""
    net = loaded(case).train()
    with torch.no_grad():
        logits = [head.tolist() for head in net(pictures(case))]
    return {"logits": logits, "stats": moved(net)}


KINDS = {
    "forward": (cases.FORWARD, forward),
    "gradients": (cases.GRADIENTS, gradients),
    "auxiliary": (cases.AUXILIARY, auxiliary),
}


def rounded(value: Any) -> Any:
    """Rounds numbers to 9 digits, which identify any float32."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.9g}")


def main() -> None:
    """Writes a file for each kind of comparison, with a line per case."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind, (rows, compute) in KINDS.items():
        lines = []
        for case in rows:
            print(kind, case.id, flush=True)
            found = json.dumps(rounded(compute(case)), separators=(",", ":"))
            lines.append(f"{json.dumps(case.id)}: {found}")
        about = {"torch": torch.__version__.partition("+")[0], "numpy": np.__version__}
        lines.insert(0, f'"made with": {json.dumps(about)}')
        (FOLDER / f"{kind}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
