"""Convolutions out of a Keras file (.h5): VGG-19 with or without its fully connected layers."""

import re
from pathlib import Path

import numpy as np

from jnst.config import CONVOLUTIONS
from jnst.errors import InputError

__all__ = ["MAGIC", "read"]

MAGIC = b"\x89HDF\r\n\x1a\n"
"""How an HDF5 file begins."""

_KERAS_NAMES = [f"block{name[4]}_conv{name[6]}" for name in CONVOLUTIONS]

_LAYER = re.compile(rf"(?:^|/)({'|'.join(_KERAS_NAMES)})/")
_LARGEST = 2**22  # numbers; a file of a few bytes may claim any shape, and VGG-19's largest layer has 2.4 million


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by `block1_conv1/kernel` `[3, 3, in, out]` and `block1_conv1/bias` `[out]`.

    The names of the arrays themselves changed over the years (`block1_conv1_W_1:0`, `kernel:0`): it is the layer's
    name in their path and their number of dimensions that count.

    Raises:
        InputError: damaged, or numbers that lie in another file.
    """
    import h5py  # late: only these files need it

    arrays: dict[str, np.ndarray] = {}

    def visit(name, item):
        layer = _LAYER.search(name)
        # A whole model's file keeps its optimizer's moments too, under the same layers' names.
        if layer and isinstance(item, h5py.Dataset) and not name.startswith("optimizer_weights/"):
            # A file may say that its numbers lie elsewhere on this disk; nothing outside it is read.
            if item.external or item.is_virtual:
                raise InputError(f"{path}: {name} refers to another file: refused")
            if item.dtype.kind not in "fiu":
                raise InputError(f"{path}: {name} holds {item.dtype}: expected numbers")
            part = {1: "bias", 4: "kernel"}.get(item.ndim)
            if part and item.size > _LARGEST:
                raise InputError(f"{path}: {name} has shape {item.shape}: larger than any layer of VGG-19")
            if part and f"{layer[1]}/{part}" in arrays:
                raise InputError(f"{path}: {name}: a second {part} of {layer[1]}")
            if part:
                arrays[f"{layer[1]}/{part}"] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)  # follows neither soft nor external links
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise InputError(f"{path}: not a whole HDF5 file ({error})") from error
    return arrays
