"""Tensors out of PyTorch's files, without PyTorch and without running the pickle in them.

Of the opcodes only those are followed that build dicts, lists and tensors of numbers, and of names only those in a
short table (`jnst.pickles`).

Both formats: the zip archive (PyTorch 1.6 and later) and the row of pickles with raw numbers behind them (0.1 to 1.5).
"""

import math
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from jnst.errors import InputError
from jnst.pickles import Global, Refused, expect, fill, interpret

__all__ = ["MAGIC", "read"]

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How the old format begins: a pickle of the number 0x1950a86a20f9469cfc6c."""

# Storage classes: dtype without byte order. Where NumPy lacks the type, its bits.
_TYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
_STORAGES = {f"{module} {name}": name for module in ("torch", "torch.cuda") for name in _TYPES}
_DEEPEST = 4  # dicts within dicts
_MOST = 10_000  # entries: a few lines of pickle can stand for more dicts than there are atoms
_MOST_AXES = 8  # of a tensor
_LONGEST = 200  # characters of a name: no layer's is longer, and a long one can be mentioned often


class _Storage(NamedTuple):
    """A run of numbers somewhere in the file."""

    kind: str
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of one and of four dimensions (what convolutions are made of) in a state dict, by name.

    Dicts within dicts get joined names: `state_dict.features.0.weight`.

    Raises:
        InputError: damaged, or not plain tensors; naming the file, and the tensor or the opcode.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) == b"PK\x03\x04":
                return _read_zip(file)
            file.seek(0)
            return _read_old(file)
    except Refused as error:
        raise InputError(f"{path}: {error}") from error


def _read_zip(file):
    try:
        with zipfile.ZipFile(file) as archive:
            programs = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(programs) != 1:
                raise Refused("not a PyTorch archive: expected one entry NAME/data.pkl")
            folder = programs[0].removesuffix("data.pkl")
            order = "<"
            if folder + "byteorder" in archive.namelist():
                order = {b"little": "<", b"big": ">"}.get(_entry(archive, folder + "byteorder").strip(), "<")
            with archive.open(_plain(archive, programs[0])) as program:
                tensors = _tensors(_interpret(program))

            def fetch(storage):
                return _entry(archive, f"{folder}data/{storage.key}")

            return _arrays(tensors, fetch, order, os.fstat(file.fileno()).st_size)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        raise Refused(f"not a whole PyTorch archive ({error})") from error


def _plain(archive, name):
    """An entry's record. PyTorch never compresses: a compressed one could be a bomb."""
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise Refused(f"entry {name!r} is missing") from error
    if info.compress_type != zipfile.ZIP_STORED:
        raise Refused(f"entry {name!r} is compressed, which PyTorch never does")
    return info


def _entry(archive, name):
    return archive.read(_plain(archive, name))


def _read_old(file):
    if file.read(len(MAGIC)) != MAGIC:
        raise Refused("not a PyTorch file")
    protocol, system = _interpret(file), _interpret(file)
    if protocol != 1001 or not isinstance(system, dict):
        raise Refused(f"PyTorch's serialization protocol {protocol!r}: expected 1001")
    tensors = _tensors(_interpret(file))
    keys = _interpret(file)
    if not isinstance(keys, list):
        raise Refused("the list of storages is missing")
    kinds = {tensor.storage.key: tensor.storage.kind for tensor in tensors.values()}
    places, end = {}, os.fstat(file.fileno()).st_size
    for key in keys:  # each: how many numbers, then the numbers
        if type(key) is not str or key not in kinds or file.tell() + 8 > end:
            break  # of no tensor that is known here, so of unknown size; or the end
        (count,) = struct.unpack("<q", file.read(8))
        if count < 0:
            raise Refused(f"storage {key!r} has {count} numbers")
        places[key] = (file.tell(), count)
        size = count * int(_TYPES[kinds[key]][1])
        if file.tell() + size > end:
            break
        file.seek(size, os.SEEK_CUR)

    def fetch(storage):
        position, count = places.get(storage.key, (end, storage.count))
        if count != storage.count:
            raise Refused(f"its storage has {count} numbers, not {storage.count}")
        file.seek(position)
        size = count * int(_TYPES[storage.kind][1])
        return file.read(size) if position + size <= end else b""

    # Little-endian on any machine: what `little_endian` says is where it was written, not how.
    return _arrays(tensors, fetch, "<", end)


def _interpret(file: BinaryIO) -> object:
    """What one pickle builds, of dicts, lists, tuples, texts, numbers and tensors."""
    return interpret(file, names=_NAMES, build=_build, persistent=_storage, needed_by="plain state dict")


def _build(thing, state):
    expect(dict, thing)  # of a state dict: `_metadata`, which says nothing of numbers


def _storage(identity):
    tag, kind, key, _, count, *view = expect(tuple, identity)[:7]
    if tag != "storage" or type(kind) is not Global or type(key) is not str or type(count) is not int:
        raise TypeError("a storage is not described as PyTorch does")
    if view not in ([], [None]):
        raise Refused("a storage is a view of another one, as only PyTorch before 0.4 wrote: save it anew")
    return _Storage(_STORAGES[kind.name], key, count)


def _dict(arguments):
    mapping = {}
    if arguments:  # Python 2 gives an OrderedDict its items as a list of lists.
        (pairs,) = arguments
        fill(mapping, (_pair(pair) for pair in expect(list, pairs)))
        pairs.clear()  # used up: one long list could be mentioned often
    return mapping


def _parameter(arguments):
    return expect(_Tensor, arguments[0])


def _tensor(arguments):
    storage, offset, shape, strides = arguments[:4]
    if max(len(expect(tuple, shape)), len(expect(tuple, strides))) > _MOST_AXES:
        raise TypeError(f"a tensor's shape is not made of whole numbers, at most {_MOST_AXES}")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(type(number) is not int or number < 0 for number in numbers):
        raise TypeError("a tensor's shape is not made of whole numbers")
    return _Tensor(expect(_Storage, storage), offset, shape, strides)


def _pair(pair):
    if type(pair) not in (list, tuple) or len(pair) != 2:
        raise TypeError("found no pair")
    return pair


_NAMES = {
    **dict.fromkeys(_STORAGES),
    "collections OrderedDict": _dict,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}


def _tensors(found: object) -> dict[str, _Tensor]:
    """Every tensor in dicts within dicts, by joined names."""
    if type(found) is not dict:
        raise Refused("holds no state dict")
    tensors, queue, seen = {}, [("", found, 1)], 0
    while queue:
        prefix, mapping, depth = queue.pop(0)
        for key, value in mapping.items():
            seen += 1
            if seen > _MOST:
                raise Refused(f"more than {_MOST} entries: no state dict of a VGG-19")
            if len(prefix) + len(str(key)) > _LONGEST:
                continue
            if type(value) is _Tensor:
                tensors[f"{prefix}{key}"] = value
            elif type(value) is dict and depth < _DEEPEST:
                queue.append((f"{prefix}{key}.", value, depth + 1))
    return tensors


def _arrays(
    tensors: dict[str, _Tensor], fetch: Callable[[_Storage], bytes], order: str, limit: int
) -> dict[str, np.ndarray]:
    """Views of storages that are read once each; all of them together have no more bytes than the file."""
    arrays, runs = {}, {}
    for name, tensor in tensors.items():
        # Matrices of fully connected layers would be half a gigabyte.
        if len(tensor.shape) not in (1, 4) or 0 in tensor.shape:
            continue
        try:
            _check_view(tensor)
            if tensor.storage not in runs:
                runs[tensor.storage] = _numbers(tensor.storage, fetch, order)
                limit -= tensor.storage.count * int(_TYPES[tensor.storage.kind][1])
                if limit < 0:
                    raise Refused("its storages lie upon each other")
            run = runs[tensor.storage]
            steps = [n * run.itemsize if size > 1 else 0 for n, size in zip(tensor.strides, tensor.shape, strict=True)]
            arrays[name] = np.lib.stride_tricks.as_strided(run[tensor.offset :], tensor.shape, steps, writeable=False)
        except Refused as error:
            raise Refused(f"{name}: {error}") from error
    return arrays


def _check_view(tensor):
    storage, offset, shape, strides = tensor
    # PyTorch does write tensors that overlap themselves, but never these: so no view is larger than its storage.
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.count or last >= storage.count:
        raise Refused(f"shape {shape} at {offset} does not fit into {storage.count} numbers")


def _numbers(storage, fetch, order):
    dtype = np.dtype(order + _TYPES[storage.kind])
    data = fetch(storage)
    if len(data) < storage.count * dtype.itemsize:
        raise Refused("the file ends before its numbers do")
    if len(data) > storage.count * dtype.itemsize:  # which would be kept whole, as often as it is mentioned
        raise Refused(f"its storage has {len(data)} bytes, not {storage.count * dtype.itemsize}")
    run = np.frombuffer(data, dtype, storage.count)
    if storage.kind == "BFloat16Storage":  # the upper half of a float32
        return (run.astype(np.uint32) << 16).view(np.float32)
    return run.astype(run.dtype.newbyteorder("="), copy=False)
