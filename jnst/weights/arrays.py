"""The arrays of a trained network's file: nested by the parts of their names, checked against an architecture before
they are believed."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors

from jnst.errors import InputError

__all__ = ["flat", "has_key", "read"]


def flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names and arrays of a nested dictionary.

    >>> list(flat({"params": {"last": 1, "downs_0": {"kernel": 2}}}))
    [('params/last', 1), ('params/downs_0/kernel', 2)]
    """
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def has_key(path: str | Path, name: str) -> bool:
    """Whether a safetensors file's metadata have a key of this name; of any other file, or none, not."""
    try:
        with safetensors.safe_open(path, "np") as file:
            return name in (file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return False


def read(
    path: str | Path, file: object, expected: Mapping[str, tuple[int, ...]], dtypes: Collection[str] = ("F32",)
) -> dict[str, object]:
    """The arrays of an open safetensors file, nested, in float32. Shapes are compared before anything is read.

    Args:
        path: For messages.
        file: From `safetensors.safe_open`.
        expected: Names, with shapes.
        dtypes: What they may be kept in, in safetensors' words.

    Raises:
        InputError: an array that is missing, too many, of another shape or type, not finite, or no variance.
    """
    for name in sorted(expected.keys() ^ set(file.keys())):
        problem = "is missing" if name in expected else "is no part of its architecture"
        raise InputError(f"{path}: {name} {problem}")
    slices = {name: file.get_slice(name) for name in expected}
    for name, shape in expected.items():
        found = tuple(slices[name].get_shape())
        if found != shape:
            raise InputError(f"{path}: {name} has shape {found}: expected {shape}")
        if slices[name].get_dtype() not in dtypes:
            raise InputError(f"{path}: {name} is of {slices[name].get_dtype()}: expected {' or '.join(dtypes)}")
    nested: dict[str, object] = {}
    for name in expected:
        array = np.array(file.get_tensor(name), np.float32)
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name} holds numbers that are not finite")
        if name.endswith("/variance") and (array < 0).any():
            raise InputError(f"{path}: {name} holds numbers below 0: expected variances")
        *outer, last = name.split("/")
        place = nested
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = array
    return nested
