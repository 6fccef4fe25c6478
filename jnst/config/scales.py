"""The sizes of a pyramid: a picture is painted small first, and each larger one starts from it."""

import itertools
from typing import NamedTuple

from jnst.config.choices import SCALE_FACTORS
from jnst.config.stylize import StylizeConfig
from jnst.config.values import split_list
from jnst.errors import InputError

__all__ = ["Scale", "check_scales", "is_explicit", "plan_scales"]

SINGLE = 512
"""Up to this size, `auto` is one scale: what VGG-19's deepest features see there is about the picture."""

_MOST = 16


class Scale(NamedTuple):
    """One size of a pyramid."""

    size: int
    """Longest side in pixels."""
    steps: int
    """Updates at this size."""


def plan_scales(config: StylizeConfig, longest: int) -> tuple[Scale, ...]:
    """The scales of a picture whose longest side ends at `longest`, smallest first.

    Raises:
        InputError: sizes that do not grow, or grow beyond `longest`.

    >>> [scale.size for scale in plan_scales(StylizeConfig(scales="all", min_size=128, scale_factor="sqrt2"), 512)]
    [128, 181, 256, 362, 512]
    >>> plan_scales(StylizeConfig(scales="256:100,512:50", steps=20), 1024)[1:]
    (Scale(size=512, steps=50), Scale(size=1024, steps=20))
    """
    given = _given(config)
    if given is not None:
        sizes, steps = map(list, zip(*given, strict=True))
        if sizes[-1] > longest:
            raise InputError(f"--scales={config.scales}: {sizes[-1]} is larger than the picture, {longest} pixels")
        if sizes[-1] < longest:
            sizes, steps = [*sizes, longest], [*steps, None]
    else:
        sizes = _growing(config, longest)
        steps = [None] * len(sizes)
    first = config.first_steps if len(sizes) > 1 else 0
    usual = [first or config.steps, *[config.steps] * (len(sizes) - 1)]
    return tuple(Scale(size, own or other) for size, own, other in zip(sizes, steps, usual, strict=True))


def _growing(config, longest):
    """The sizes that `scales` means without naming them."""
    if config.scales == "auto" and longest <= SINGLE:
        return [longest]
    shrink = lambda i: round(longest / SCALE_FACTORS[config.scale_factor] ** i)  # noqa: E731
    if config.scales.isdecimal():
        return sorted({max(1, shrink(i)) for i in range(int(config.scales))})
    return sorted({longest, *itertools.takewhile(lambda size: size >= config.min_size, map(shrink, itertools.count()))})


def is_explicit(config: StylizeConfig) -> bool:
    """Whether the sizes are named one by one."""
    return _given(config) is not None


def check_scales(config: StylizeConfig) -> None:
    """Raises `InputError` where `scales` is no such thing, before a picture is read."""
    given = _given(config)
    if given is not None and config.size:
        plan_scales(config, config.size)


def _given(config):
    """Sizes and steps that are named one by one, or None."""
    text = config.scales
    if text in ("auto", "all") or _is_number(text, _MOST):
        return None
    wrong = InputError(
        f"--scales={text}: expected auto, all, a number of scales from 1 to {_MOST}, or growing sizes with or without "
        "steps, such as 256:100,512:50,1024"
    )
    found = []
    for part in split_list(text):
        size, colon, steps = part.partition(":")
        numbers = [size, *([steps] if colon else [])]
        if not all(_is_number(number, 10_000_000) for number in numbers):
            raise wrong
        found.append((int(size), int(steps) if colon else None))
    sizes = [size for size, _ in found]
    if len(found) < 2 and ":" not in text or sizes != sorted(set(sizes)):
        raise wrong
    return found


def _is_number(text, most):
    return text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most
