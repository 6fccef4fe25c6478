"""A generator's file: safetensors, with arrays named `params/up_1`, and one metadata key `generator`.

That key holds sorted JSON (a file's bytes must repeat): what kind of network it is, its architecture, the record of the
training. So the file loads without the flags that it was trained with. The kinds are those of `bin/dcgan` (`dcgan`),
`bin/pix2pix` (`unet`) and `bin/cyclegan` (`resnet`).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from jnst.config import DCGAN_SIZES, DISCRIMINATORS, UPSAMPLES, DcganSpec, ResnetSpec, UnetSpec
from jnst.errors import InputError
from jnst.files import sha256_of, write_atomically
from jnst.weights.arrays import flat, has_key, read

__all__ = ["Generator", "is_generator", "load", "save", "shapes"]

_KEY = "generator"
_PRECISIONS = ("float32", "bfloat16")
_TRANSLATED_NORMS = ("instance", "batch")
_MOST_WIDTHS = 8  # of a U-Net's first width

Spec = DcganSpec | UnetSpec | ResnetSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """A trained generator and what must be known to use it."""

    path: str
    sha256: str
    """Of the file."""
    variables: Mapping[str, object]
    """See `nets.dcgan.generate`, or `params` of `nets.unet` or `nets.resnet`; numpy float32."""
    spec: Spec
    record: Mapping[str, object]
    """Of the training."""


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """The arrays of a generator by their names in its file, with the shapes that its network's `init` gives them.

    >>> shapes(DcganSpec(size=28, width=4))["params/up_1"], shapes(UnetSpec(levels=6, width=4))["params/up_5"]
    ((4, 4, 8, 4), (4, 4, 32, 32))
    """
    return dict(sorted(_kind_of(spec).shapes(spec).items()))


def _of_dcgan(spec):
    side, levels = {28: (7, 2), 32: (4, 3), 64: (4, 4)}[spec.size]  # of the smallest maps, and how often they double
    widths = [spec.width * 2**level for level in reversed(range(levels))]
    found = {"params/first": (spec.latent, side * side * widths[0])}
    for level, width in enumerate(widths):
        if level:
            found[f"params/up_{level}"] = (4, 4, widths[level - 1], width)
        found |= _norm(f"norm_{level}", width)
        found |= {f"moments/norm_{level}/{part}": (1, 1, 1, width) for part in ("mean", "variance")}
    return found | {"params/last": (4, 4, spec.width, 3), "params/bias": (3,)}


def _of_unet(spec):
    widths = [spec.width * min(2**level, _MOST_WIDTHS) for level in range(spec.levels)]
    innermost, found = spec.levels - 1, {"params/bias": (3,)}
    for level, width in enumerate(widths):
        found[f"params/down_{level}"] = (4, 4, widths[level - 1] if level else 3, width)
        found |= _norm(f"norm_down_{level}", width) if 0 < level < innermost else {f"params/bias_{level}": (width,)}
        # What comes from further in stands beside the map of the way down.
        found[f"params/up_{level}"] = (4, 4, width * (1 + (level < innermost)), widths[level - 1] if level else 3)
        found |= _norm(f"norm_up_{level}", widths[level - 1]) if level else {}
    return found


def _of_resnet(spec):
    width = spec.width
    found = {"params/first": (7, 7, 3, width), "params/last": (7, 7, width, 3), "params/bias": (3,)}
    found |= _norm("norm_first", width)
    for level in range(2):
        own, larger = width * 2**level, width * 2 ** (level + 1)
        found |= {f"params/down_{level}": (3, 3, own, larger), f"params/up_{level}": (3, 3, larger, own)}
        found |= {**_norm(f"norm_down_{level}", larger), **_norm(f"norm_up_{level}", own)}
    for block in range(spec.blocks):
        for place in range(2):
            found[f"params/block_{block}_{place}"] = (3, 3, 4 * width, 4 * width)
            found |= _norm(f"norm_block_{block}_{place}", 4 * width)
    return found


def _norm(name, width):
    return {f"params/{name}/{part}": (width,) for part in ("scale", "shift")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
    """What a file may say of one kind of network."""

    name: str
    command: str
    shapes: Callable[[Spec], dict[str, tuple[int, ...]]]
    choices: Mapping[str, object]
    most: Mapping[str, int]
    """Of whole numbers from 1 on."""


_KINDS = {
    DcganSpec: _Kind(
        name="dcgan",
        command="dcgan",
        shapes=_of_dcgan,
        choices={"size": DCGAN_SIZES, "norm": DISCRIMINATORS, "precision": _PRECISIONS},
        most={"width": 1024, "latent": 65536},
    ),
    UnetSpec: _Kind(
        name="unet",
        command="pix2pix",
        shapes=_of_unet,
        choices={"norm": _TRANSLATED_NORMS, "precision": _PRECISIONS},
        most={"width": 1024, "levels": 12},
    ),
    ResnetSpec: _Kind(
        name="resnet",
        command="cyclegan",
        shapes=_of_resnet,
        choices={"norm": _TRANSLATED_NORMS, "precision": _PRECISIONS, "upsample": UPSAMPLES},
        most={"width": 1024, "blocks": 64},
    ),
}


def _kind_of(spec):
    return _KINDS[type(spec)]


def save(
    path: str | Path, variables: Mapping[str, object], *, spec: Spec, record: Mapping[str, object] | None = None
) -> None:
    """Writes a generator's file; equal arguments give equal bytes.

    Args:
        path: Where; it appears whole or not at all.
        variables: Nested, see `Generator`.
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
    facts = {"kind": _kind_of(spec).name, "spec": dataclasses.asdict(spec), "record": dict(record or {})}
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    write_atomically(path, safetensors.numpy.save(arrays, {_KEY: text}))


def load(path: str | Path, kind: type = DcganSpec) -> Generator:
    """The generator in a file.

    Args:
        path: The file.
        kind: The architecture that is expected: `DcganSpec`, `UnetSpec` or `ResnetSpec`.

    Raises:
        InputError: there is no such file; or it is damaged, or no generator.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected a generator of bin/{_KINDS[kind].command}")
    try:
        with safetensors.safe_open(path, "np") as file:
            facts = _facts(path, file.metadata() or {}, kind)
            spec = _spec(path, facts.get("spec"), kind)
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


def _facts(path, metadata, kind):
    try:
        facts = json.loads(metadata[_KEY])
    except (KeyError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("kind") != _KINDS[kind].name:
        command = _KINDS[kind].command
        raise InputError(f"{path}: not a generator of bin/{command}: its metadata key {_KEY!r} does not say so")
    return facts


def _spec(path, found, kind):
    """The architecture, of which nothing may be missing or unknown: it decides what the arrays mean."""
    fields = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(found, dict) or found.keys() != fields:
        named = sorted(found) if isinstance(found, dict) else found
        raise InputError(f"{path}: its architecture has {named}: expected {', '.join(sorted(fields))}")
    for name, choices in _KINDS[kind].choices.items():
        if type(found[name]) not in (int, str) or found[name] not in choices:
            raise InputError(f"{path}: {name} {found[name]!r}: expected one of {', '.join(map(str, choices))}")
    for name, most in _KINDS[kind].most.items():
        if type(found[name]) is not int or not 1 <= found[name] <= most:
            raise InputError(f"{path}: {name} {found[name]!r}: expected a whole number from 1 to {most}")
    dropout = found.get("dropout", 0)
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise InputError(f"{path}: dropout {dropout!r}: expected a number from 0 to 1")
    return kind(**found)
