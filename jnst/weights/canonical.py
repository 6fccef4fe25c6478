"""The canonical file: safetensors, with `conv1_1/kernel` `[3, 3, in, out]`, `conv1_1/bias` `[out]` and `mean` `[3]`.

The input rule is the house's own: an sRGB image in [0, 1], from which the mean is subtracted before the padding of
conv1_1. What else is known of the weights is one metadata key `jnst` with sorted JSON: several keys would come out in
another order at each writing, and a file's bytes must repeat.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from jnst.config import PADDINGS
from jnst.errors import InputError
from jnst.files import sha256_of, write_atomically
from jnst.weights.backbone import Backbone, check, nested, present

__all__ = ["read_arrays", "read_facts", "save_safetensors", "to_backbone"]


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], str | None]:
    """The arrays of any safetensors file, and the text of its metadata key `jnst` where it has one.

    Raises:
        InputError: not a whole safetensors file.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            return arrays, (file.metadata() or {}).get("jnst")
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:  # the latter: unknown types
        raise InputError(f"{path}: not a whole safetensors file ({error})") from error


def read_facts(path: str | Path) -> dict[str, object]:
    """What a canonical file says of itself, without its arrays; empty for any other file, or none."""
    try:
        with safetensors.safe_open(path, "np") as file:
            return dict(json.loads((file.metadata() or {})["jnst"]))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return {}


def to_backbone(path: str | Path, arrays: Mapping[str, np.ndarray], text: str) -> Backbone:
    """The backbone in a canonical file, from what `read_arrays` gave.

    Raises:
        InputError: not one of jnst's, or not a VGG-19.
    """
    arrays = dict(arrays)
    try:
        facts = dict(json.loads(text))
        padding, origin, licence = (facts[key] for key in ("padding", "origin", "licence"))
        mean = arrays.pop("mean")
    except KeyError as error:
        raise InputError(f"{path}: not a weights file of jnst: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not a weights file of jnst: its metadata key 'jnst' holds no JSON object") from error
    if padding not in PADDINGS:
        raise InputError(f"{path}: padding {padding!r}: expected one of {', '.join(PADDINGS)}")
    params = {"mean": mean, **nested(arrays)}
    check(path, params)
    return Backbone(
        name=str(path),
        sha256=sha256_of(path),
        params=params,
        padding=padding,
        source="jnst's canonical file",
        origin=str(origin),
        licence=str(licence),
    )


def save_safetensors(
    path: str | Path,
    params: Mapping[str, object],
    *,
    padding: str = "zeros",
    origin: str = "",
    licence: str = "",
    source_sha256: str = "",
    dtype: str = "float32",
) -> None:
    """Writes a canonical file; equal weights and facts give equal bytes.

    Args:
        path: Where; it appears whole or not at all.
        params: See `types.Params`.
        padding: What stands beyond the border: `zeros`, `reflect` or `replicate`.
        origin: Who trained it and where it came from.
        licence: Its terms.
        source_sha256: Hash of the file it was converted from.
        dtype: `float32` or `float16`, of kernels and biases.
    """
    if padding not in PADDINGS:
        raise InputError(f"{path}: padding {padding!r}: expected one of {', '.join(PADDINGS)}")
    with np.errstate(over="ignore"):  # too large for 16 bits: infinite then, which is refused by name
        rounded = {
            name: {part: np.asarray(array, dtype) for part, array in params[name].items()} for name in present(params)
        }
    check(path, {"mean": params["mean"], **rounded})
    # safetensors stores a transposed view's memory as it lies, silently in the wrong order: make it contiguous.
    arrays = {"mean": np.ascontiguousarray(params["mean"], np.float32)}
    for name, parts in rounded.items():
        for part in ("kernel", "bias"):
            arrays[f"{name}/{part}"] = np.ascontiguousarray(parts[part])
    facts = {
        "origin": origin,
        "licence": licence,
        "layers": list(rounded),
        "widths": [int(params[name]["kernel"].shape[-1]) for name in rounded],
        "padding": padding,
        "mean": [float(value) for value in arrays["mean"]],
        "source_sha256": source_sha256,
    }
    data = safetensors.numpy.save(arrays, {"jnst": json.dumps(facts, sort_keys=True)})
    write_atomically(path, data)
