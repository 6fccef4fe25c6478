"""Convolutions out of MatConvNet's imagenet-vgg-verydeep-19.mat, both generations, its fields read by name.

The older generation keeps the mean in `normalization.averageImage`, as a picture; the newer in
`meta.normalization.averageImage`, as three numbers. The order of a layer's fields differs between them; the oldest have
`filters` and `biases` where later ones have `weights`.
"""

from pathlib import Path

import numpy as np

from jnst.config import CONVOLUTIONS
from jnst.errors import InputError
from jnst.weights import mat5

__all__ = ["MAGIC", "read"]

MAGIC = b"MATLAB 5.0 MAT-file"
"""How such a file begins."""


def read(path: str | Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays by `conv1_1/kernel` `[3, 3, in, out]` and `conv1_1/bias` `[out]`, and the mean `[3]`, RGB in 0..255.

    Whether a kernel's first axis is the picture's height is not decided here.

    Raises:
        InputError: damaged, no layers, or no mean.
    """
    try:
        content = mat5.read(path, ("layers", "meta", "normalization"))
    except (mat5.Damaged, MemoryError) as error:
        raise InputError(f"{path}: not a whole MATLAB 5 file ({error})") from error
    if "layers" not in content:
        raise InputError(f"{path}: no variable 'layers': expected a network of MatConvNet")
    arrays: dict[str, np.ndarray] = {}
    layers = content["layers"]
    for layer in layers if isinstance(layers, list) else [layers]:
        name = layer.get("name") if isinstance(layer, dict) else None
        if not isinstance(name, str) or name not in CONVOLUTIONS:
            continue
        parts = layer.get("weights", [layer.get("filters"), layer.get("biases")])
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, np.ndarray) for part in parts):
            raise InputError(f"{path}: {name}: expected a cell 'weights' with filters and biases")
        if f"{name}/kernel" in arrays:
            raise InputError(f"{path}: {name}: there are two layers of this name")
        kernel, bias = parts
        # MATLAB drops trailing dimensions of one, and knows no vectors.
        arrays[f"{name}/kernel"] = kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim))
        arrays[f"{name}/bias"] = bias.reshape(-1)
    return arrays, _mean(path, content)


def _mean(path, content):
    holder = content.get("meta", content)
    for key in ("normalization", "averageImage"):
        holder = holder.get(key) if isinstance(holder, dict) else None
    image = holder
    if not isinstance(image, np.ndarray) or image.size < 3 or image.size % 3:
        raise InputError(f"{path}: no mean: expected normalization.averageImage or meta.normalization.averageImage")
    if image.ndim == 3 and image.shape[2] == 3:
        return image.astype(np.float64).mean((0, 1))
    if image.size == 3:
        return image.astype(np.float64).reshape(3)
    raise InputError(f"{path}: averageImage has shape {image.shape}: expected (height, width, 3)")
