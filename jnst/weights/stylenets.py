"""A stylenet's file: safetensors, with arrays named `params/downs_0/kernel`, and one metadata key `stylenet`.

That key holds sorted JSON (several keys would come out in another order at each writing, and a file's bytes must
repeat): the architecture, the names of the styles, the record of the training, the licence. So the file loads without
the flags that it was trained with. Kernels may be kept in 16 bits; what scales, shifts and normalizes stays in 32.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from jnst import bundled
from jnst.config import HEADS, NORMS, STYLENET_BORDERS, UPSAMPLES, StyleNetSpec
from jnst.errors import InputError
from jnst.files import sha256_of, write_atomically
from jnst.weights.arrays import flat, has_key, read

__all__ = ["FOLDER", "StyleNet", "is_stylenet", "load", "names", "rounded", "save", "shapes"]

FOLDER = "weights/stylenets"
"""Where the bundled ones lie."""

_KEY = "stylenet"
_CHOICES = {"norm": NORMS, "border": STYLENET_BORDERS, "upsample": UPSAMPLES, "head": HEADS}
_WIDEST, _LEVELS, _BLOCKS, _KERNEL, _STYLES = 4096, 6, 64, 15, 4096
_DTYPES = {"F16": "float16", "F32": "float32"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleNet:
    """A trained network and what must be known to use it."""

    name: str
    """As it was asked for: a path, or a bundled name."""
    path: str
    sha256: str
    """Of the file."""
    variables: Mapping[str, object]
    """See `nets.stylenet.init`; numpy float32."""
    spec: StyleNetSpec
    styles: tuple[str, ...]
    """Their names, one for each row of the network's scales and shifts."""
    record: Mapping[str, object]
    """Of the training."""
    licence: str = ""


def shapes(spec: StyleNetSpec) -> dict[str, tuple[int, ...]]:
    """The arrays of a network by their names in its file, with the shapes that `nets.stylenet.init` gives them.

    >>> shapes(StyleNetSpec(widths=(4, 8), blocks=1))["params/downs_1/kernel"]
    (3, 3, 4, 8)
    """
    found = {}
    for layer, kernel, inputs, width in _layers(spec):
        found[f"params/{layer}/kernel"] = (kernel, kernel, inputs, width)
        # Behind a block's second half the next normalization would take a shift off again: there is none.
        parts = ("scale",) if layer.startswith("blocks") and layer.endswith("_1") else ("scale", "shift")
        found |= {f"params/{layer}/{part}": (spec.styles, width) for part in parts}
        if spec.norm == "batch":
            found |= {f"running/{layer}/{part}": (1, 1, 1, width) for part in ("mean", "variance")}
    found["params/last"] = (spec.kernel, spec.kernel, spec.widths[0], 3)
    found["params/bias"] = (3,)
    return dict(sorted(found.items()))


def _layers(spec: StyleNetSpec) -> Iterator[tuple[str, int, int, int]]:
    """Name, side of the kernel, channels in and out of each layer that is normalized."""
    widths = spec.widths
    yield "downs_0", spec.kernel, 3, widths[0]
    for level in range(1, len(widths)):
        yield f"downs_{level}", 3, widths[level - 1], widths[level]
    for block in range(spec.blocks):
        for half in (0, 1):
            yield f"blocks_{block}_{half}", 3, widths[-1], widths[-1]
    for place, level in enumerate(range(len(widths) - 1, 0, -1)):
        yield f"ups_{place}", 3, widths[level], widths[level - 1]


def names() -> list[str]:
    """The bundled networks."""
    return bundled.names(FOLDER, ".safetensors")


def save(
    path: str | Path,
    variables: Mapping[str, object],
    *,
    spec: StyleNetSpec,
    styles: Sequence[str],
    record: Mapping[str, object],
    licence: str = "",
    dtype: str = "float16",
) -> None:
    """Writes a network's file; equal arguments give equal bytes.

    Args:
        path: Where; it appears whole or not at all.
        variables: Nested, see `nets.stylenet.init`.
        spec: The architecture.
        styles: A name for each style.
        record: Of the training; what JSON can hold.
        licence: The network's terms.
        dtype: `float16` or `float32`, of the kernels.

    Raises:
        InputError: numbers that are not finite, or too large for 16 bits; `path` cannot be written.
        ValueError: the variables are not of this architecture, or the styles are more or fewer than its own.
    """
    if len(styles) != spec.styles:
        raise ValueError(f"{len(styles)} names for {spec.styles} styles")
    given, expected = dict(flat(variables)), shapes(spec)
    if {name: np.shape(array) for name, array in given.items()} != expected:
        raise ValueError("the variables are not of this architecture")
    arrays = {}
    for name, array in sorted(given.items()):
        kept = _kept(name, len(expected[name]), dtype)
        with np.errstate(over="ignore"):  # infinite then, which is refused by name
            # safetensors stores a transposed view's memory as it lies: make it contiguous.
            arrays[name] = np.ascontiguousarray(np.asarray(array), kept)
        if not np.isfinite(arrays[name]).all():
            raise InputError(f"{path}: {name}: expected finite numbers that {kept} holds")
    facts = {
        "spec": dataclasses.asdict(spec),
        "styles": list(styles),
        "record": dict(record),
        "licence": licence,
    }
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    write_atomically(path, safetensors.numpy.save(arrays, {_KEY: text}))


def load(name: str) -> StyleNet:
    """The network that `name` means: a file, else a bundled one.

    Raises:
        InputError: there is none; or the file is damaged, or no stylenet.
    """
    path = bundled.find(name, FOLDER, ("", ".safetensors"))
    if path is None:
        known = ", ".join(names()) or "none"
        raise InputError(f"{name}: no such network file, and no bundled network (those are: {known})")
    try:
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise InputError(f"{path}: not a network of bin/fast: it has no metadata key {_KEY!r}")
            facts = _facts(path, text)
            spec = _spec(path, facts.get("spec"))
            styles = _styles(path, facts.get("styles"), spec)
            variables = read(path, file, shapes(spec), _DTYPES)
        digest = sha256_of(path)
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:  # the latter: unknown types
        raise InputError(f"{path}: not a whole safetensors file ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    record, licence = facts.get("record", {}), facts.get("licence", "")
    return StyleNet(
        name=name,
        path=str(path),
        sha256=digest,
        variables=variables,
        spec=spec,
        styles=styles,
        record=record if isinstance(record, dict) else {},
        licence=licence if isinstance(licence, str) else "",
    )


def rounded(variables: Mapping[str, object], dtype: str = "float16") -> dict[str, object]:
    """The variables as `load` gives them after `save`: kernels rounded, in float32."""

    def walk(tree, prefix):
        if isinstance(tree, Mapping):
            return {name: walk(part, f"{prefix}{name}/") for name, part in tree.items()}
        with np.errstate(over="ignore"):
            return np.asarray(tree).astype(_kept(prefix, np.ndim(tree), dtype)).astype(np.float32)

    return walk(variables, "")


def _kept(name, axes, dtype):
    """The type that an array has in the file: kernels alone may have 16 bits."""
    return dtype if axes == 4 and name.startswith("params/") else "float32"


def is_stylenet(path: str | Path) -> bool:
    """Whether a file says that it is a stylenet, so that another may take its place."""
    return has_key(path, _KEY)


def _facts(path, text):
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise InputError(f"{path}: not a network of bin/fast: its metadata key {_KEY!r} holds no JSON object")
    return facts


def _spec(path, found):
    """The architecture, of which nothing may be missing or unknown: it decides what the arrays mean."""
    fields = {field.name for field in dataclasses.fields(StyleNetSpec)}
    if not isinstance(found, dict) or found.keys() != fields:
        named = sorted(found) if isinstance(found, dict) else found
        raise InputError(f"{path}: its architecture has {named}: expected {', '.join(sorted(fields))}")
    for name, choices in _CHOICES.items():
        if not isinstance(found[name], str) or found[name] not in choices:
            raise InputError(f"{path}: {name} {found[name]!r}: expected one of {', '.join(choices)}")
    widths = found["widths"]
    if (
        not isinstance(widths, list)
        or not 1 <= len(widths) <= _LEVELS
        or not all(_is(each, _WIDEST) for each in widths)
    ):
        raise InputError(f"{path}: widths {widths!r}: expected 1 to {_LEVELS} whole numbers from 1 to {_WIDEST}")
    if type(found["blocks"]) is not int or not 0 <= found["blocks"] <= _BLOCKS:
        raise InputError(f"{path}: blocks {found['blocks']!r}: expected a whole number from 0 to {_BLOCKS}")
    if not _is(found["kernel"], _KERNEL) or found["kernel"] % 2 == 0:
        raise InputError(f"{path}: kernel {found['kernel']!r}: expected an odd number from 1 to {_KERNEL}")
    if not _is(found["styles"], _STYLES):
        raise InputError(f"{path}: styles {found['styles']!r}: expected a whole number from 1 to {_STYLES}")
    return StyleNetSpec(**{**found, "widths": tuple(widths)})


def _is(value, most):
    return type(value) is int and 1 <= value <= most


def _styles(path, found, spec):
    if not isinstance(found, list) or len(found) != spec.styles or not all(isinstance(name, str) for name in found):
        raise InputError(f"{path}: its styles are {found!r}: expected {spec.styles} names")
    return tuple(found)
