"""Values that are lists: paths, layers with weights, shares."""

import math
import re
from collections.abc import Iterable

from jnst.config.layers import LAYERS
from jnst.errors import InputError

__all__ = ["join_list", "parse_channels", "parse_layers", "parse_mix", "split_list"]


def split_list(text: str) -> tuple[str, ...]:
    r"""The parts of a comma list; an empty text is an empty list; a comma after a backslash belongs to its part.

    >>> split_list(r"a, b\,c")
    ('a', 'b,c')
    """
    return tuple(part.strip().replace(r"\,", ",") for part in re.split(r"(?<!\\),", text)) if text.strip() else ()


def join_list(parts: Iterable[str]) -> str:
    """The text that `split_list` takes apart into `parts`."""
    return ",".join(part.replace(",", r"\,") for part in parts)


def parse_layers(flag: str, text: str, *, may_be_empty: bool = False) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """`"relu3_1:0.2,relu4_1"` -> names and weights; a layer without a number counts 1 / (number of layers).

    Args:
        flag: The flag's name, for the message.
        text: Comma list of `convB_I`, `reluB_I` or `poolB`, each with an optional `:weight`.
        may_be_empty: Whether there may be no layer.

    Raises:
        InputError: an unknown layer, a layer named twice, none, a weight that is negative or no number.

    >>> parse_layers("style_layers", "relu1_1:0.3,relu2_1")
    (('relu1_1', 'relu2_1'), (0.3, 0.5))
    """
    parts = split_list(text)
    if not parts and not may_be_empty:
        raise InputError(f"--{flag}=: expected at least one layer, such as relu3_1")
    names, weights = [], []
    for part in parts:
        name, colon, number = part.partition(":")
        if name not in LAYERS:
            raise InputError(
                f"--{flag}={text}: {name!r} is no layer of VGG-19; expected conv1_1 or relu1_1 to relu5_4, or pool1 to "
                "pool4"
            )
        if name in names:
            raise InputError(f"--{flag}={text}: {name} is named twice")
        names.append(name)
        weights.append(_non_negative(flag, text, number) if colon else 1 / len(parts))
    return tuple(names), tuple(weights)


def parse_channels(flag: str, text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """`"relu3_1,relu4_1:12,87"` -> layers with the channels that are meant, none standing for all.

    A number belongs to the layer before it.

    Args:
        flag: The flag's name, for the message.
        text: Comma list of layers, each with optional channels after a colon.

    Raises:
        InputError: an unknown layer, a layer or channel named twice, a channel that is no whole number.

    >>> parse_channels("layers", "relu3_1,relu4_1:12,87")
    (('relu3_1', ()), ('relu4_1', (12, 87)))
    """
    found: list[tuple[str, list[int]]] = []
    for part in split_list(text):
        name, colon, number = part.partition(":")
        if not colon and part.isdecimal() and found and found[-1][1]:
            name, number = "", part
        else:
            parse_layers(flag, name)
            if name in dict(found):
                raise InputError(f"--{flag}={text}: {name} is named twice")
            found.append((name, []))
        if number or colon:
            if not (number.isdecimal() and len(number) < 6):
                raise InputError(f"--{flag}={text}: {number!r} is no channel; expected a whole number, from 0")
            if int(number) in found[-1][1]:
                raise InputError(f"--{flag}={text}: channel {int(number)} is named twice")
            found[-1][1].append(int(number))
    if not found:
        parse_layers(flag, text)  # which says what is expected
    return tuple((name, tuple(channels)) for name, channels in found)


def parse_mix(text: str, count: int) -> tuple[float, ...]:
    """`"0.3,0.7"` -> shares that sum to 1, one for each of `count` styles; an empty text gives equal shares."""
    if not text.strip():
        return (1 / count,) * count
    numbers = [_non_negative("style_mix", text, part) for part in split_list(text)]
    if len(numbers) != count:
        raise InputError(f"--style_mix={text}: expected {count} numbers, one for each style, found {len(numbers)}")
    if not math.isfinite(sum(numbers)) or sum(numbers) <= 0:
        raise InputError(f"--style_mix={text}: expected numbers with a sum above 0")
    return tuple(number / sum(numbers) for number in numbers)


def _non_negative(flag, text, number):
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1e12:  # false for NaN
        raise InputError(f"--{flag}={text}: {number!r} is not a number from 0 to 1e12")
    return value
