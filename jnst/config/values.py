"""Values that are lists: paths, layers with weights, shares."""

import math
import re
from collections.abc import Iterable

from jnst.config.choices import CONVOLUTIONS
from jnst.errors import InputError

__all__ = ["join_list", "parse_layers", "parse_mix", "split_list"]


def split_list(text: str) -> tuple[str, ...]:
    r"""The parts of a comma list; an empty text is an empty list; a comma after a backslash belongs to its part.

    >>> split_list(r"a, b\,c")
    ('a', 'b,c')
    """
    return tuple(part.strip().replace(r"\,", ",") for part in re.split(r"(?<!\\),", text)) if text.strip() else ()


def join_list(parts: Iterable[str]) -> str:
    """The text that `split_list` takes apart into `parts`."""
    return ",".join(part.replace(",", r"\,") for part in parts)


def parse_layers(flag: str, text: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """`"relu3_1:0.2,relu4_1"` -> names and weights; a layer without a number counts 1 / (number of layers).

    Args:
        flag: The flag's name, for the message.
        text: Comma list of `convB_I` or `reluB_I`, each with an optional `:weight`.

    Raises:
        InputError: an unknown layer, a layer named twice, a weight that is negative or no number.

    >>> parse_layers("style_layers", "relu1_1:0.3,relu2_1")
    (('relu1_1', 'relu2_1'), (0.3, 0.5))
    """
    parts = split_list(text)
    if not parts:
        raise InputError(f"--{flag}=: expected at least one layer, such as relu3_1")
    names, weights = [], []
    for part in parts:
        name, colon, number = part.partition(":")
        if name[:4] not in ("conv", "relu") or "conv" + name[4:] not in CONVOLUTIONS:
            raise InputError(f"--{flag}={text}: {name!r} is no layer of VGG-19; expected conv1_1 or relu1_1 to relu5_4")
        if name in names:
            raise InputError(f"--{flag}={text}: {name} is named twice")
        names.append(name)
        weights.append(_non_negative(flag, text, number) if colon else 1 / len(parts))
    return tuple(names), tuple(weights)


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
