"""From what `--weights` says to a backbone."""

import dataclasses
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jnst import bundled, files
from jnst.errors import InputError
from jnst.weights import canonical, fetch, hdf5, mat, pth
from jnst.weights.backbone import Backbone
from jnst.weights.convert import Converted, convert, convert_mat
from jnst.weights.filters import random_backbone

__all__ = ["find", "is_word", "load", "names", "read"]

_MOST = 2**30  # bytes of an .npz's arrays together: VGG-19 with all that belongs to it has 575 million


def is_word(name: str) -> bool:
    """Whether `name` is a word (`random`, `random:SEED`, `vgg19`); `./random` is a file."""
    return name.partition(":")[0] == "random" or name in fetch.DOWNLOADS


def names() -> list[str]:
    """Every name that `load` knows at the moment, for messages."""
    own = {path.stem for path in files.weights_folder().glob("*.safetensors")}
    return [*bundled.names("weights", ".safetensors"), *fetch.DOWNLOADS, "random", *sorted(own)]


def load(
    name: str,
    layers: Sequence[str] = (),
    *,
    source: str = "auto",
    progress: fetch.Progress | None = None,
    flag: str = "--weights=",
) -> Backbone:
    """The backbone that `--weights=name` means: a file, a name, or `random[:SEED]`.

    Args:
        name: As on the command line.
        layers: Random filters are made no deeper than these need.
        source: What a file's network was fed, see `config.SOURCES`.
        progress: Told of a download, where `name` is one that is not here yet.
        flag: What messages say before the name.

    Raises:
        InputError: no such file, not a format that is read, damaged, no VGG-19, or a download that failed.

    >>> load("random:1", ["relu1_2"]).convolutions
    ('conv1_1', 'conv1_2')
    """
    kind, _, seed = name.partition(":")
    if kind == "random":
        if seed and not (seed.isdecimal() and len(seed) < 20 and int(seed) < 2**63):
            raise InputError(f"{flag}{name}: expected random or random:SEED with a whole number as seed")
        return random_backbone(int(seed or 0), layers)
    path = fetch.fetch(name, progress=progress) if name in fetch.DOWNLOADS else find(name)
    if path is None:
        raise InputError(f"{flag}{name}: no such file; names: {', '.join(names())}")
    try:
        return dataclasses.replace(read(path, source), name=name)
    except OSError as error:
        raise InputError(f"{flag}{name}: cannot be read: {error.strerror or error}") from error


def find(name: str) -> Path | None:
    """The file that `--weights=name` means, where it is no word: on disk, bundled, or among the converted ones."""
    path = bundled.find(name, "weights", ("", ".safetensors"))
    converted = files.weights_folder() / f"{name}.safetensors"
    # A name never leaves the folder.
    return converted if path is None and Path(name).name == name and bundled.is_file(converted) else path


def read(path: str | Path, source: str = "auto") -> Backbone:
    """Reads a weights file of any kind, told by how it begins.

    Args:
        path: Canonical safetensors, `.npz`, PyTorch's `.pth` (zip or older), Keras' `.h5`, MatConvNet's `.mat`.
        source: What the network was fed, see `config.SOURCES`.

    Raises:
        InputError: not a format that is read, damaged, no VGG-19, or unclear what it was fed.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        start = file.read(32)
    if start.startswith(b"PK\x03\x04"):
        found = convert(path, _read_zip(path), source)
    elif start.startswith(pth.MAGIC[:1]):  # a pickle
        found = convert(path, pth.read(path), source)
    elif start.startswith(hdf5.MAGIC):
        found = convert(path, hdf5.read(path), source)
    elif start.startswith(mat.MAGIC):
        found = convert_mat(path, *mat.read(path), source)
    elif start[8:9] == b"{":
        arrays, text = canonical.read_arrays(path)
        if text is not None or not _has_convolutions(arrays):
            return canonical.to_backbone(path, arrays, text)
        found = convert(path, arrays, source)  # a state dict that somebody saved as safetensors
    else:
        raise InputError(f"{path}: not a weights file: none of .safetensors, .npz, .pth, .h5 and .mat begins like this")
    return _backbone(path, found)


def _backbone(path, found: Converted):
    return Backbone(
        name=str(path),
        sha256=files.sha256_of(path),
        params=found.params,
        padding=found.padding,
        source=f"{found.source} ({found.reason})",
        origin=found.origin,
        licence=found.licence,
    )


def _has_convolutions(arrays):
    return any(key.endswith(".weight") and array.ndim == 4 for key, array in arrays.items())


def _read_zip(path):
    """The arrays of an `.npz`, or of a PyTorch archive, which is a zip too."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries, size = archive.namelist(), sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:  # a name that is no text; a later version
        raise InputError(f"{path}: not a whole .npz or .pth file ({error})") from error
    if any(entry.endswith("/data.pkl") for entry in entries):
        return pth.read(path)
    if size > _MOST:  # before any of it is unpacked
        raise InputError(f"{path}: unpacked it has {size / 2**30:.1f} GiB: more than any VGG-19")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (
        *(ValueError, KeyError, EOFError, OSError, RuntimeError, NotImplementedError, OverflowError, MemoryError),
        *(SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    ) as error:
        raise InputError(f"{path}: not a whole .npz file of plain arrays ({error})") from error
