"""What is in a pickle, without running it.

A pickle is a program. Here its opcodes are read one by one, and only those that build dicts, lists, tuples, texts and
numbers are followed; any other opcode, or a name outside the caller's table, ends the reading. Nothing is ever
imported or called by what the file says: what a name stands for is the caller's own.
"""

import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, NamedTuple

__all__ = ["Global", "Refused", "expect", "fill", "interpret"]

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING"}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(Exception):  # noqa: N818 - it says why, and is shown as it is
    """Why a file is not read."""


class Global(NamedTuple):
    """A name that a pickle mentions, `module name`, from the caller's table."""

    name: str


def interpret(
    file: BinaryIO,
    *,
    names: Mapping[str, Callable[[tuple], object] | None],
    build: Callable[[object, object], None],
    persistent: Callable[[object], object] | None = None,
    needed_by: str,
) -> object:
    """What the pickle at a file's place builds; the place after it is the next.

    Args:
        file: Open for reading bytes.
        names: By `module name`, what takes the arguments that the pickle calls the name with; None: it is only
            mentioned.
        build: Takes a thing and the state that the pickle gives it.
        persistent: Takes what a persistent id says; None: there must be none.
        needed_by: For messages, what such a pickle is: `plain state dict`.

    Raises:
        Refused: damaged, or more than is followed here.

    >>> import io, pickle
    >>> program = io.BytesIO(pickle.dumps({"a": [1, 2.5]}, protocol=2))
    >>> interpret(program, names={}, build=expect, needed_by="example")
    {'a': [1, 2.5]}
    """
    reader = _Reader(names, build, persistent, needed_by)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return reader.stack.pop()
            reader.follow(opcode.name, argument)
    except Refused:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        # Damaged: an opcode that found less on the stack than it takes, a text that ends early.
        raise Refused(f"its pickle is damaged ({type(error).__name__}: {error})") from error
    raise Refused("its pickle has no end")


def expect(kind: type, thing: object) -> object:
    """`thing`, which must be of this kind: no opcode may reach into another.

    Raises:
        TypeError: it is not.
    """
    if type(thing) is not kind:
        raise TypeError(f"found {type(thing).__name__} where {kind.__name__} was expected")
    return thing


def fill(mapping: dict[object, object], pairs: Iterable[tuple[object, object]]) -> None:
    """Puts pairs into a dict.

    Raises:
        TypeError: a key is neither text nor bytes nor a whole number.
    """
    for key, value in pairs:
        if type(key) not in (str, bytes, int):
            raise TypeError(f"found {type(key).__name__} as a key")
        mapping[key] = value


class _Reader:
    def __init__(self, names, build, persistent, needed_by):
        self.stack, self._marks, self._memo = [], [], {}
        self._names, self._build, self._persistent, self._needed_by = names, build, persistent, needed_by

    def follow(self, name, argument):
        stack, memo = self.stack, self._memo
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self._above()))
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("APPEND", "APPENDS"):
            items = self._above() if name == "APPENDS" else self._pop(1)
            expect(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._above() if name == "SETITEMS" else self._pop(2)
            fill(expect(dict, stack[-1]), zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            if argument not in self._names:
                shown = argument.replace(" ", ".")
                raise Refused(f"its pickle names {shown!r}, which no {self._needed_by} needs: refused")
            stack.append(Global(argument))
        elif name == "BINPERSID" and self._persistent is not None:
            stack.append(self._persistent(stack.pop()))
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            call = self._names[expect(Global, function).name]
            if call is None:
                raise TypeError(f"{function.name} is called")
            stack.append(call(expect(tuple, arguments)))
        elif name == "BUILD":
            state = stack.pop()
            self._build(stack[-1], state)
        elif name != "PROTO":
            raise Refused(f"its pickle uses the opcode {name}, which no {self._needed_by} needs: refused")

    def _pop(self, count):
        if len(self.stack) < count:
            raise IndexError("nothing on the stack")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _above(self):
        mark = self._marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken
