"""Convolutions out of MatConvNet's imagenet-vgg-verydeep-19.mat, both generations, its fields read by name.

The older generation keeps the mean in `normalization.averageImage`, as a picture; the newer in
`meta.normalization.averageImage`, as three numbers. The order of a layer's fields differs between them; the oldest have
`filters` and `biases` where later ones have `weights`.
"""

import zlib
from pathlib import Path

import numpy as np

from jnst.config import CONVOLUTIONS
from jnst.errors import InputError

__all__ = ["MAGIC", "read"]

MAGIC = b"MATLAB 5.0 MAT-file"
"""How such a file begins."""


def read(path: str | Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays by `conv1_1/kernel` `[3, 3, in, out]` and `conv1_1/bias` `[out]`, and the mean `[3]`, RGB in 0..255.

    Whether a kernel's first axis is the picture's height is not decided here.

    Raises:
        InputError: damaged, no layers, or no mean.
    """
    import scipy.io  # late: only these files need it

    try:
        content = scipy.io.loadmat(path, variable_names=["layers", "meta", "normalization"])
    except (
        *(ValueError, TypeError, OSError, EOFError, KeyError, IndexError, AttributeError),
        *(NotImplementedError, MemoryError, zlib.error, scipy.io.matlab.MatReadError),
    ) as error:
        raise InputError(f"{path}: not a whole MATLAB 5 file ({error})") from error
    if "layers" not in content:
        raise InputError(f"{path}: no variable 'layers': expected a network of MatConvNet")
    arrays: dict[str, np.ndarray] = {}
    for cell in np.ravel(content["layers"]):
        layer = _struct(cell)
        name = _text(layer.get("name"))
        if name not in CONVOLUTIONS:
            continue
        if "weights" in layer:
            parts = list(np.ravel(layer["weights"]))
        else:
            parts = [layer.get("filters"), layer.get("biases")]
        if len(parts) != 2 or any(np.asarray(part).dtype.kind not in "fiu" for part in parts):
            raise InputError(f"{path}: {name}: expected a cell 'weights' with filters and biases")
        kernel, bias = (np.asarray(part) for part in parts)
        # MATLAB drops trailing dimensions of one, and knows no vectors.
        arrays[f"{name}/kernel"] = kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim))
        arrays[f"{name}/bias"] = bias.reshape(-1)
    return arrays, _mean(path, content)


def _mean(path, content):
    holder = _struct(content["normalization"]) if "normalization" in content else {}
    if "meta" in content:
        holder = _struct(_struct(content["meta"]).get("normalization"))
    image = np.asarray(holder.get("averageImage"))
    if image.dtype.kind not in "fiu" or image.size < 3 or image.size % 3:
        raise InputError(f"{path}: no mean: expected normalization.averageImage or meta.normalization.averageImage")
    if image.ndim == 3 and image.shape[2] == 3:
        return image.astype(np.float64).mean((0, 1))
    if image.size == 3:
        return image.astype(np.float64).reshape(3)
    raise InputError(f"{path}: averageImage has shape {image.shape}: expected (height, width, 3)")


def _struct(value):
    """A 1x1 struct as a dict; anything else as an empty one."""
    value = np.asarray(value)
    if value.dtype == object and value.size == 1:  # a cell around it
        value = np.asarray(value.item())
    if value.dtype.names is None or value.size != 1:
        return {}
    record = value.reshape(-1)[0]
    return {name: record[name] for name in value.dtype.names}


def _text(value):
    value = np.asarray(value)
    return str(value.reshape(-1)[0]) if value.dtype.kind == "U" and value.size else ""
