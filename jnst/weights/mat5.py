"""MATLAB 5 files (.mat) as plain Python things, without SciPy, whose reader ends the process on some damaged files.

Numbers become arrays (column first, as MATLAB holds them), texts `str`, cells lists, structs dicts, arrays of structs
lists of dicts; anything else, such as a sparse matrix, None.
"""

import math
import struct
import zlib
from collections.abc import Container
from pathlib import Path

import numpy as np

__all__ = ["Damaged", "read"]

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x800

_DEEPEST = 16  # cells within cells
_MOST = 2**30  # bytes of one variable: the whole of VGG-19 has 575 million
_FIELDS = 100_000  # and so many things in it


class Damaged(ValueError):
    """Why a file is not read."""


def read(path: str | Path, names: Container[str]) -> dict[str, object]:
    """The variables of these names.

    Raises:
        Damaged: cut short, or not what the format allows.
    """
    with open(path, "rb") as file:
        data = memoryview(file.read())
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if order is None:
        raise Damaged("no MATLAB 5 header")
    found, place = {}, 128
    while place < len(data):
        if len(data) - place < 8:
            raise Damaged("it ends within a variable")
        kind, size = struct.unpack_from(order + "II", data, place)
        place += 8
        if size > len(data) - place:
            raise Damaged("it ends within a variable")
        content = data[place : place + size]
        place += size
        if kind == _COMPRESSED:
            kind, content = _inflated(content, order)
        if kind != _MATRIX:
            raise Damaged(f"found element {kind} where a variable was expected")
        name, thing = _Reader(content, order).variable(names)
        if name in names:
            found[name] = thing
    return found


def _inflated(content, order):
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(content, _MOST)
    except zlib.error as error:
        raise Damaged(str(error)) from error
    if inflater.unconsumed_tail or not inflater.eof or len(data) < 8:
        raise Damaged("a compressed variable is too large or ends early")
    kind, size = struct.unpack_from(order + "II", data)
    if size > len(data) - 8:
        raise Damaged("a compressed variable ends early")
    return kind, memoryview(data)[8 : 8 + size]


class _Reader:
    """One variable's bytes."""

    def __init__(self, data, order):
        self._data, self._order, self._left = data, order, _FIELDS

    def variable(self, names):
        """Its name and, where that is wanted, what it is."""
        return self._matrix(self._data, 0, names)

    def _elements(self, data):
        """Type and bytes of each element in a run of them."""
        place = 0
        while place < len(data):
            if len(data) - place < 8:
                raise Damaged("an element is cut short")
            kind, size = struct.unpack_from(self._order + "II", data, place)
            if kind >> 16:  # four bytes or fewer stand in the head itself
                kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
            else:
                start, step = place + 8, 8 + size + (-size % 8 if kind != _COMPRESSED else 0)
            if (size > 4 and step == 8) or start + size > len(data):
                raise Damaged("an element is cut short")
            yield kind, data[start : start + size]
            place += step

    def _matrix(self, data, depth, names=None):
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            raise Damaged("more than a network has, one in another")
        if not len(data):
            return "", np.zeros((0, 0))
        elements = self._elements(data)
        flags, shape = self._numbers(next(elements, None)), self._numbers(next(elements, None))
        name = self._text(next(elements, None))
        if flags.size < 1 or shape.size < 2 or shape.dtype.kind not in "iu" or (shape < 0).any():
            raise Damaged("an array has no shape")
        if names is not None and name not in names:
            return name, None
        kind, shape = int(flags[0]) & 0xFF, tuple(int(size) for size in shape)
        count = math.prod(shape)
        if kind == _CELL:
            return name, self._many(elements, count, depth)
        if kind == _STRUCT:
            return name, self._structs(elements, count, depth)
        if kind == _CHAR:
            return name, self._text(next(elements, None))
        if kind not in _CLASSES or int(flags[0]) & _COMPLEX:
            return name, None
        numbers = self._numbers(next(elements, None))
        if numbers.size != count:
            raise Damaged(f"an array of shape {shape} has {numbers.size} numbers")
        return name, numbers.astype(_CLASSES[kind], copy=False).reshape(shape, order="F")

    def _many(self, elements, count, depth):
        things = []
        for _ in range(count):
            kind, data = next(elements, (None, None))
            if kind != _MATRIX:
                raise Damaged("a cell or a struct is cut short")
            things.append(self._matrix(data, depth + 1)[1])
        return things

    def _structs(self, elements, count, depth):
        width = self._numbers(next(elements, None))
        if width.size != 1 or width.dtype.kind not in "iu" or not 0 < width[0] <= 64:
            raise Damaged("a struct's fields have no names")
        _, text = next(elements, (None, b""))
        width = int(width[0])
        fields = [bytes(text[at : at + width]).split(b"\0")[0].decode("latin-1") for at in range(0, len(text), width)]
        structs = []
        for _ in range(count):
            self._left -= 1
            if self._left < 0:
                raise Damaged("more than a network has")
            structs.append(dict(zip(fields, self._many(elements, len(fields), depth), strict=True)))
        return structs[0] if count == 1 else structs

    def _numbers(self, element):
        kind, data = element or (None, b"")
        if kind not in _NUMBERS:
            raise Damaged("numbers are missing")
        dtype = np.dtype(self._order + _NUMBERS[kind])
        if len(data) % dtype.itemsize:
            raise Damaged("a number is cut short")
        numbers = np.frombuffer(data, dtype)
        return numbers.astype(dtype.newbyteorder("="), copy=False)

    def _text(self, element):
        kind, data = element or (None, b"")
        encoding = _TEXTS.get(kind, "latin-1")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self._order == "<" else "-be"
        return bytes(data).decode(encoding, "replace")
