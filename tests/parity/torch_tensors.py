"""Our tensors with PyTorch's names and layout, with NumPy alone."""

from collections.abc import Mapping

import numpy as np

# {our name of a tensor: PyTorch's}
NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "coefficient": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# {dimensions of our kernel: the order of its axes in PyTorch}
KERNEL_AXES = {
    4: (3, 2, 0, 1),  # [h, w, in, out] -> [out, in, h, w]
    3: (2, 0, 1),  # [h, w, number] of C3's single connections -> [number, h, w]
    2: (1, 0),  # [in, out] -> [out, in]
}


def to_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {layer.weight: array} from {layer/kernel: array}.

    Raises:
      ValueError: If two tensors get the same name.
    """
    renamed: dict[str, np.ndarray] = {}
    for path, tensor in tensors.items():
        *layers, name = path.split("/")
        key = ".".join([*layers, NAMES.get(name, name)])
        if key in renamed:
            raise ValueError(f"{path}: another tensor is called {key} too")
        tensor = np.asarray(tensor)
        if name == "kernel":
            tensor = tensor.transpose(KERNEL_AXES[tensor.ndim])
        renamed[key] = np.array(tensor, order="C")
    return renamed
