"""A field that is a flag: its default, help, range and choices, and the check of a whole config against them."""

import dataclasses
import math
import numbers
from collections.abc import Collection
from typing import Any

from jnst.errors import InputError

__all__ = ["check", "option", "option_line"]


def option(
    default: object,
    help: str,  # noqa: A002 - absl's word
    *,
    lower: float | None = None,
    upper: float | None = None,
    above: float | None = None,
    choices: Collection[object] | None = None,
) -> Any:
    """A dataclass field that is a flag; `above` is a bound that the value must not touch."""
    metadata = {"help": help, "lower": lower, "upper": upper, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def option_line(name: str, value: object) -> str:
    """A flag as it is written on a command line or in a flagfile."""
    return f"--{name}={value}"


def check(config: object) -> None:
    """Raises `InputError` where a field is not finite, out of its range or not one of its choices."""
    for field in dataclasses.fields(config):
        value, rule = getattr(config, field.name), field.metadata
        kind = type(field.default)
        if not isinstance(value, _KINDS[kind][0]) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"--{field.name}={value!r}: expected {_KINDS[kind][1]}")
        problem = _range_problem(value, rule)
        if problem:
            raise InputError(f"{option_line(field.name, value)}: expected {problem}")


# The abstract types take in NumPy's scalars.
_KINDS = {
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
    tuple: (tuple, "texts"),
    bool: (bool, "true or false"),
}


def _range_problem(value, rule):
    if rule["choices"] is not None:
        return None if value in rule["choices"] else "one of " + ", ".join(map(str, rule["choices"]))
    if isinstance(value, numbers.Real) and not math.isfinite(value):
        return "a finite number"
    lower, upper, above = rule["lower"], rule["upper"], rule["above"]
    if above is not None and not value > above:
        return f"a number greater than {above:g}"
    if lower is not None and value < lower:
        return f"a number not below {lower:g}"
    if upper is not None and value > upper:
        return f"a number not above {upper:g}"
    return None
