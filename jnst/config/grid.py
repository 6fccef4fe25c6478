"""The flags of `grid`: those of `stylize`, axes over them, and how the runs are spread."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Collection
from typing import NamedTuple

from jnst.config.options import check, option
from jnst.config.stylize import StylizeConfig
from jnst.errors import InputError

__all__ = ["ALONE", "NO_AXES", "Axis", "GridConfig", "check_grid", "parse_axes", "swept"]

ALONE = ("scales", "scale_factor", "min_size", "first_steps", "tile", "average_decay")
"""Flags of a run by itself: those of a grid are of one scale, whole, and their best iterates."""

NO_AXES = ("output", "device", "print_every", "save_every", "checkpoint_every")
"""Flags that change no picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridConfig(StylizeConfig):
    """The flags of `grid`."""

    axis: tuple[str, ...] = option(
        (), "An axis, such as style_weight=1e2,1e3: a flag and its values. Values that hold commas: a;b,c. Repeat."
    )
    output: str = option("", "The folder to write: a picture a run, grid.csv, sheet.png and index.html.")
    print_every: int = option(5, "Steps between rows of the traces, which the page draws as curves.", lower=0)
    scales: str = option("1", "Of a grid, 1.", choices=("1",))
    tile: str = option("0", "Of a grid, 0.", choices=("0",))
    average_decay: float = option(0.0, "Of a grid, 0.", lower=0.0, upper=0.0)
    runs_at_once: str = option("auto", "Runs in one program: auto plans them by the memory; a whole number sets them.")
    coordinator_address: str = option("", "Of several processes: HOST:PORT of the first. Empty: what the cluster says.")
    num_processes: int = option(-1, "Of several processes: how many; 1: alone. -1: what the cluster says.", lower=-1)
    process_id: int = option(
        -1, "Of several processes: which one this is, from 0. -1: what the cluster says.", lower=-1
    )


class Axis(NamedTuple):
    """One flag and what it takes on."""

    flag: str
    texts: tuple[str, ...]
    """As they were given, for names and labels."""
    values: tuple[object, ...]
    """Of the flag's type."""


def check_grid(config: GridConfig) -> None:
    """Raises `InputError` where a flag of `grid` alone is wrong."""
    check(config)
    number = config.runs_at_once
    if number != "auto" and not (number.isdecimal() and len(number) < 10 and 1 <= int(number) <= 65536):
        raise InputError(f"--runs_at_once={number}: expected auto, or a whole number from 1 to 65536")


def parse_axes(texts: tuple[str, ...], *, of: type = StylizeConfig, among: Collection[str] | None = None) -> list[Axis]:
    r"""The axes that `--axis` names.

    Args:
        texts: What was given.
        of: The config whose flags they are.
        among: The flags that may be axes; of a grid, all that change a picture.

    Raises:
        InputError: no axis, an unknown flag, a value of the wrong type, a flag or value that is named twice.

    >>> parse_axes(("style_weight=1e2,1e3", r"style=a.jpg,b.jpg;c.jpg"))[1].texts
    ('a.jpg,b.jpg', 'c.jpg')
    """
    if not texts:
        raise InputError("--axis is missing: expected an axis such as --axis=style_weight=1e2,1e3,1e4")
    axes = [_axis(text, of, among) for text in texts]
    flags = [axis.flag for axis in axes]
    for text, flag in zip(texts, flags, strict=True):
        if flags.count(flag) > 1:
            raise InputError(f"--axis={text}: {flag} is named twice; expected one axis a flag")
    return axes


def swept(config: object, among: Collection[str]) -> tuple[list[Axis], list[object]]:
    """The axes of a config's `axis`, and a config for every combination of their values, the last varying fastest.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     axis: tuple[str, ...] = ("seed=1,2",)
    ...     seed: int = 0
    >>> swept(Config(), ("seed",))[1]
    [Config(axis=(), seed=1), Config(axis=(), seed=2)]
    """
    axes = parse_axes(config.axis, of=type(config), among=among)
    names = [axis.flag for axis in axes]
    chosen = itertools.product(*(axis.values for axis in axes))
    return axes, [dataclasses.replace(config, axis=(), **dict(zip(names, values, strict=True))) for values in chosen]


def _axis(text, of, among):
    flag, equals, rest = text.partition("=")
    flag = flag.strip()
    if not equals or not rest.strip():
        raise InputError(f"--axis={text}: expected a flag and its values, such as style_weight=1e2,1e3")
    defaults = {field.name: field.default for field in dataclasses.fields(of)}
    if among is not None and flag in defaults and flag not in among:
        raise InputError(f"--axis={text}: {flag} is of the whole program; expected one of {', '.join(among)}")
    if among is None and flag in ALONE:
        raise InputError(f"--axis={text}: {flag} is of single pictures; a grid's are whole, and of one scale")
    known = sorted(defaults.keys() - set(NO_AXES + ALONE) if among is None else among)
    if flag not in known:
        near = difflib.get_close_matches(flag, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"--axis={text}: {flag!r} is no flag that changes a picture{hint}")
    texts = _texts(rest, keep=flag == "style")
    values = tuple(_value(text, flag, part, type(defaults[flag])) for part in texts)
    for place, value in enumerate(values):
        if value in values[:place]:
            raise InputError(f"--axis={text}: {texts[place]} is named twice")
    return Axis(flag, texts, values)


def _texts(rest, keep):
    """The values' texts; `keep` a backslash before a comma, where the value is itself a list that knows it."""
    if ";" in rest:
        parts = [part.strip() for part in rest.split(";")]
        parts = parts[:-1] if not parts[-1] else parts  # `a,b;` is one value
        return tuple(part if keep else part.replace(r"\,", ",") for part in parts)
    parts = [part.strip() for part in re.split(r"(?<!\\),", rest)]
    return tuple(part if keep else part.replace(r"\,", ",") for part in parts)


def _value(axis, flag, text, kind):
    try:
        return kind(text)
    except ValueError as error:
        expected = {int: "a whole number", float: "a number"}[kind]
        raise InputError(f"--axis={axis}: --{flag}={text}: expected {expected}") from error
