"""Backbones: the canonical weight file, readers of other formats, and random filters. Host only: numpy, no jax.

The canonical file is safetensors with keys `conv1_1/kernel` `[3, 3, in, out]`, `conv1_1/bias` `[out]` and `mean`
`[3]`, for an sRGB image in [0, 1] from which the mean is subtracted before the padding of conv1_1. What else is
known of it is one metadata key `jnst` with sorted JSON: several keys would come out in another order at each
writing, and a file's bytes must repeat.
"""

import dataclasses
import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from jnst import bundled
from jnst.config import CONVOLUTIONS, PADDINGS
from jnst.errors import InputError
from jnst.files import write_atomically

__all__ = ["Backbone", "from_keras", "load", "random_backbone", "read_npz", "read_safetensors", "save_safetensors"]

# Channel means of the network's training pictures, blue, green, red in 0..255, as the Oxford group published them.
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)

# The widths of VGG-19's blocks; a file may hold any others.
VGG19_WIDTHS = (64, 128, 256, 512, 512)

SMOOTHNESS = 0.5
"""Amplitude of a random filter's frequency over that of the next lower one: 1 gives white filters, which answer most
to grain, and so put grain into pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network's weights and what must be known to use them."""

    name: str
    """A path, a bundled name, or `random:0`."""
    sha256: str
    """Of the file; of the filters before standardizing, for random ones."""
    params: Mapping[str, object]
    """See `types.Params`; numpy float32."""
    padding: str = "zeros"
    standardize: bool = False
    """Whether the kernels wait to be scaled to unit variance on the pictures at hand (random filters do)."""
    origin: str = ""
    licence: str = ""

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names of the convolutions that it has, in order: always an unbroken run from conv1_1."""
        return tuple(name for name in CONVOLUTIONS if name in self.params)

    def require(self, flag: str, layers: Sequence[str]) -> None:
        """Raises `InputError` where one of `layers` lies deeper than these weights go."""
        for layer in layers:
            if "conv" + layer[4:] not in self.params:
                last = self.convolutions[-1]
                raise InputError(
                    f"--{flag}: {layer} is not in --weights={self.name}, which ends at {last} (relu{last[4:]})"
                )


def load(name: str, layers: Sequence[str] = ()) -> Backbone:
    """The backbone that `--weights=name` means: a file, a bundled name, or `random[:SEED]`.

    Args:
        name: As on the command line.
        layers: Random filters are made no deeper than these need.

    Raises:
        InputError: no such file, not a format that is read, damaged, or no VGG-19.
    """
    kind, _, seed = name.partition(":")
    if kind == "random":  # a word is a word, whatever lies in the folder; ./random is a file
        if seed and not (seed.isdecimal() and len(seed) < 20 and int(seed) < 2**63):
            raise InputError(f"--weights={name}: expected random or random:SEED with a whole number as seed")
        return random_backbone(int(seed or 0), layers)
    path = bundled.find(name, "weights", ("", ".safetensors"))
    if path is None:
        known = ["random", *bundled.names("weights", ".safetensors")]
        raise InputError(f"--weights={name}: no such file; bundled names: {', '.join(known)}")
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
        reader = read_npz if magic == b"PK\x03\x04" else read_safetensors
        return dataclasses.replace(reader(path), name=name)
    except OSError as error:
        raise InputError(f"--weights={name}: cannot be read: {error.strerror or error}") from error


def read_safetensors(path: str | Path) -> Backbone:
    """Reads a canonical file.

    Raises:
        InputError: not safetensors, not one of jnst's, or not a VGG-19.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get("jnst")
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:  # the latter: unknown types
        raise InputError(f"{path}: neither .npz nor a whole safetensors file ({error})") from error
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
    params = {"mean": mean, **_nested(arrays)}
    _check(path, params)
    return Backbone(
        name=str(path), sha256=_sha256(path), params=params, padding=padding, origin=str(origin), licence=str(licence)
    )


def save_safetensors(
    path: str | Path,
    params: Mapping[str, object],
    *,
    padding: str = "zeros",
    origin: str = "",
    licence: str = "",
    source_sha256: str = "",
) -> None:
    """Writes a canonical file; equal weights and facts give equal bytes.

    Args:
        path: Where; it appears whole or not at all.
        params: See `types.Params`.
        padding: What stands beyond the border: `zeros`, `reflect` or `replicate`.
        origin: Who trained it and where it came from.
        licence: Its terms.
        source_sha256: Hash of the file it was converted from.
    """
    if padding not in PADDINGS:
        raise InputError(f"{path}: padding {padding!r}: expected one of {', '.join(PADDINGS)}")
    _check(path, params)
    # safetensors stores a transposed view's memory as it lies, silently in the wrong order: make it contiguous.
    arrays = {"mean": np.ascontiguousarray(params["mean"], np.float32)}
    for name in _present(params):
        for part in ("kernel", "bias"):
            arrays[f"{name}/{part}"] = np.ascontiguousarray(params[name][part], np.float32)
    facts = {
        "origin": origin,
        "licence": licence,
        "layers": _present(params),
        "widths": [int(params[name]["kernel"].shape[-1]) for name in _present(params)],
        "padding": padding,
        "mean": [float(value) for value in arrays["mean"]],
        "source_sha256": source_sha256,
    }
    data = safetensors.numpy.save(arrays, {"jnst": json.dumps(facts, sort_keys=True)})
    write_atomically(path, data)


def read_npz(path: str | Path) -> Backbone:
    """Reads the Oxford weights as `.npz` with Keras' names: `block1_conv1/kernel` `[3, 3, in, out]`, input BGR 0..255.

    Raises:
        InputError: damaged, pickled, or not a VGG-19.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, RuntimeError, zlib.error) as error:
        raise InputError(f"{path}: not a whole .npz file of plain arrays ({error})") from error
    params = from_keras(path, arrays)
    return Backbone(
        name=str(path),
        sha256=_sha256(path),
        params=params,
        origin="Simonyan & Zisserman, VGG-19",
        licence="CC BY 4.0",
    )


def from_keras(path: str | Path, arrays: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Params from arrays under Keras' names, trained on BGR in 0..255 minus the Caffe mean.

    conv1_1 of `255 * bgr - mean` equals conv1_1' of `rgb - mean_rgb / 255`, with the kernel's input channels
    reversed and multiplied by 255.
    """
    renamed = {}
    for key, array in arrays.items():
        layer, _, part = key.partition("/")
        block, _, index = layer.removeprefix("block").partition("_conv")
        if layer.startswith("block") and part in ("kernel", "bias"):
            if array.dtype.kind not in "fiu":
                raise InputError(f"{path}: {key} holds {array.dtype}: expected numbers")
            renamed[f"conv{block}_{index}/{part}"] = array
    params = _nested(renamed)
    if not params:
        raise InputError(f"{path}: no layer found; expected arrays such as block1_conv1/kernel and block1_conv1/bias")
    params["mean"] = np.array(CAFFE_MEAN_BGR[::-1], np.float32) / 255
    _check(path, params)
    first = params["conv1_1"]
    params["conv1_1"] = {
        "kernel": np.ascontiguousarray(first["kernel"][:, :, ::-1]) * np.float32(255),
        "bias": first["bias"],
    }
    return params


def random_backbone(seed: int, layers: Sequence[str] = ()) -> Backbone:
    """VGG-19 with random filters: orthogonal, each with taps that sum to 0, no bias.

    Random networks do transfer style (He, Wang & Hopcroft 2016; Ustyuzhaninov et al. 2016). Orthogonal filters do not
    repeat each other; a sum of 0 keeps the mean brightness, which after a rectifier is positive everywhere, from
    drowning the rest. Departures from those papers, both by looking at pictures: filters favor low frequencies
    (`SMOOTHNESS`), and the border is replicated, because zeros beyond it leave a broad frame. Where there are more
    filters than directions (conv1_1), they come in several orthogonal sets.

    Args:
        seed: Every layer has its own stream, so depth changes nothing.
        layers: Made no deeper than these need; empty: all.

    >>> kernel = random_backbone(0, ["conv1_1"]).params["conv1_1"]["kernel"]
    >>> kernel.shape, bool(abs(kernel.sum((0, 1, 2))).max() < 1e-5)
    ((3, 3, 3, 64), True)
    """
    depth = 1 + max((CONVOLUTIONS.index("conv" + layer[4:]) for layer in layers), default=len(CONVOLUTIONS) - 1)
    params: dict[str, object] = {"mean": np.array(CAFFE_MEAN_BGR[::-1], np.float32) / 255}
    digest = hashlib.sha256()
    channels = 3
    for index, name in enumerate(CONVOLUTIONS[:depth]):
        width = VGG19_WIDTHS[int(name[4]) - 1]
        kernel = _orthogonal(np.random.default_rng([seed, index]), 9 * channels, width).reshape(3, 3, channels, width)
        params[name] = {"kernel": kernel, "bias": np.zeros(width, np.float32)}
        digest.update(kernel.tobytes())
        channels = width
    return Backbone(
        name=f"random:{seed}",
        sha256=digest.hexdigest(),
        params=params,
        padding="replicate",
        standardize=True,
        origin="random filters",
    )


def _orthogonal(rng, inputs, outputs):
    """`[inputs, outputs]` of unit columns that sum to 0, orthogonal in sets of up to `inputs - 1`.

    An input is one tap of a 3x3 filter over `inputs // 9` channels.
    """
    # Drawn as amplitudes of the 3x3 cosine transform, smaller for higher frequencies.
    places = np.arange(3)
    waves = np.cos(np.pi * np.outer(places, places + 0.5) / 3)  # [frequency, place]
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    amplitudes = SMOOTHNESS ** np.add.outer(places, places)
    sets = math.ceil(outputs / (inputs - 1))
    columns = []
    for size in (len(part) for part in np.array_split(range(outputs), sets)):
        draw = rng.standard_normal((3, 3, inputs // 9, size)) * amplitudes[:, :, None, None]
        draw = np.einsum("vx,uvio->uxio", waves, draw)
        draw = np.einsum("uy,uxio->yxio", waves, draw).reshape(inputs, size)
        draw -= draw.mean(0)
        # Gram-Schmidt by a Cholesky factor: in float64 as exact as a QR here, and several times faster.
        columns.append(np.linalg.solve(np.linalg.cholesky(draw.T @ draw), draw.T).T)
    return np.ascontiguousarray(np.concatenate(columns, 1), np.float32)


def _nested(arrays):
    """`{"conv1_1/kernel": a}` -> `{"conv1_1": {"kernel": a}}`, for VGG-19's names only."""
    params: dict[str, dict] = {}
    for key, array in arrays.items():
        name, _, part = key.partition("/")
        if name in CONVOLUTIONS and part in ("kernel", "bias"):
            params.setdefault(name, {})[part] = np.asarray(array, np.float32)
    return params


def _present(params):
    return [name for name in CONVOLUTIONS if name in params]


def _check(path, params):
    """Raises `InputError` unless `params` are an unbroken run of layers with fitting shapes and finite numbers."""
    present = _present(params)
    if not present:
        raise InputError(f"{path}: no layer of VGG-19 found")
    if np.shape(params["mean"]) != (3,) or not np.isfinite(params["mean"]).all():
        raise InputError(f"{path}: mean: expected 3 finite numbers")
    channels = 3
    for name in CONVOLUTIONS[: CONVOLUTIONS.index(present[-1]) + 1]:
        for part in ("kernel", "bias"):
            if part not in params.get(name, {}):
                raise InputError(f"{path}: {name}/{part} is missing, though {present[-1]} is there")
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        width = kernel.shape[-1] if kernel.ndim == 4 else 0
        if kernel.shape != (3, 3, channels, width) or width == 0:
            raise InputError(f"{path}: {name}/kernel has shape {kernel.shape}: expected (3, 3, {channels}, out)")
        if bias.shape != (width,):
            raise InputError(f"{path}: {name}/bias has shape {bias.shape}: expected ({width},)")
        for part, array in (("kernel", kernel), ("bias", bias)):
            if not np.isfinite(array).all():
                raise InputError(f"{path}: {name}/{part} holds numbers that are not finite")
        channels = width


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
