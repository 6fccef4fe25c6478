"""A generator's file: safetensors, with arrays named `params/up_1`, and one metadata key `generator`.

That key holds sorted JSON (a file's bytes must repeat): what kind of network it is, its architecture, the record of the
training. So the file loads without the flags that it was trained with.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from jnst.config import DCGAN_SIZES, DISCRIMINATORS, DcganSpec
from jnst.errors import InputError
from jnst.files import sha256_of, write_atomically
from jnst.weights.arrays import flat, has_key, read

__all__ = ["Generator", "is_generator", "load", "save", "shapes"]

_KEY = "generator"
_KIND = "dcgan"
_MOST = {"width": 1024, "latent": 65536}
_CHOICES = {"size": DCGAN_SIZES, "norm": DISCRIMINATORS, "precision": ("float32", "bfloat16")}
_LEVELS = {28: (7, 2), 32: (4, 3), 64: (4, 4)}  # side of the smallest maps, and how often they double


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """A trained generator and what must be known to use it."""

    path: str
    sha256: str
    """Of the file."""
    variables: Mapping[str, object]
    """See `nets.dcgan.generate`; numpy float32."""
    spec: DcganSpec
    record: Mapping[str, object]
    """Of the training."""


def shapes(spec: DcganSpec) -> dict[str, tuple[int, ...]]:
    """The arrays of a generator by their names in its file, with the shapes that `nets.dcgan.init` gives them.

    >>> shapes(DcganSpec(size=28, width=4))["params/up_1"]
    (4, 4, 8, 4)
    """
    side, levels = _LEVELS[spec.size]
    widths = [spec.width * 2**level for level in reversed(range(levels))]
    found = {"params/first": (spec.latent, side * side * widths[0])}
    for level, width in enumerate(widths):
        if level:
            found[f"params/up_{level}"] = (4, 4, widths[level - 1], width)
        found |= {f"params/norm_{level}/{part}": (width,) for part in ("scale", "shift")}
        found |= {f"moments/norm_{level}/{part}": (1, 1, 1, width) for part in ("mean", "variance")}
    found |= {"params/last": (4, 4, spec.width, 3), "params/bias": (3,)}
    return dict(sorted(found.items()))


def save(
    path: str | Path, variables: Mapping[str, object], *, spec: DcganSpec, record: Mapping[str, object] | None = None
) -> None:
    """Writes a generator's file; equal arguments give equal bytes.

    Args:
        path: Where; it appears whole or not at all.
        variables: Nested, see `nets.dcgan.generate`.
        spec: The architecture.
        record: Of the training; what JSON can hold.

    Raises:
        InputError: numbers that are not finite; `path` cannot be written.
        ValueError: the variables are not of this architecture.
    """
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in sorted(flat(variables))}
    if {name: array.shape for name, array in arrays.items()} != shapes(spec):
        raise ValueError("the variables are not of this architecture")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name}: expected finite numbers")
    facts = {"kind": _KIND, "spec": dataclasses.asdict(spec), "record": dict(record or {})}
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    write_atomically(path, safetensors.numpy.save(arrays, {_KEY: text}))


def load(path: str | Path) -> Generator:
    """The generator in a file.

    Raises:
        InputError: there is no such file; or it is damaged, or no generator.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected a generator of bin/dcgan")
    try:
        with safetensors.safe_open(path, "np") as file:
            facts = _facts(path, file.metadata() or {})
            spec = _spec(path, facts.get("spec"))
            variables = read(path, file, shapes(spec))
        digest = sha256_of(path)
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:  # the latter: unknown types
        raise InputError(f"{path}: not a whole safetensors file ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    record = facts.get("record")
    return Generator(
        path=str(path),
        sha256=digest,
        variables=variables,
        spec=spec,
        record=record if isinstance(record, dict) else {},
    )


def is_generator(path: str | Path) -> bool:
    """Whether a file says that it is a generator, so that another may take its place."""
    return has_key(path, _KEY)


def _facts(path, metadata):
    try:
        facts = json.loads(metadata[_KEY])
    except (KeyError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("kind") != _KIND:
        raise InputError(f"{path}: not a generator of bin/dcgan: its metadata key {_KEY!r} does not say so")
    return facts


def _spec(path, found):
    """The architecture, of which nothing may be missing or unknown: it decides what the arrays mean."""
    fields = {field.name for field in dataclasses.fields(DcganSpec)}
    if not isinstance(found, dict) or found.keys() != fields:
        named = sorted(found) if isinstance(found, dict) else found
        raise InputError(f"{path}: its architecture has {named}: expected {', '.join(sorted(fields))}")
    for name, choices in _CHOICES.items():
        if type(found[name]) not in (int, str) or found[name] not in choices:
            raise InputError(f"{path}: {name} {found[name]!r}: expected one of {', '.join(map(str, choices))}")
    for name, most in _MOST.items():
        if type(found[name]) is not int or not 1 <= found[name] <= most:
            raise InputError(f"{path}: {name} {found[name]!r}: expected a whole number from 1 to {most}")
    if type(found["dropout"]) not in (int, float) or not 0 <= found["dropout"] < 1:
        raise InputError(f"{path}: dropout {found['dropout']!r}: expected a number from 0 to 1")
    return DcganSpec(**found)
