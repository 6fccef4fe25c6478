"""Flags from config dataclasses, flagfiles by path or bundled name, and errors as one line."""

import dataclasses
import os
from collections.abc import Sequence

from absl import flags

from jnst import bundled
from jnst.config import INITS, join_list, option_line, split_list
from jnst.errors import InputError

__all__ = [
    "MARK",
    "PATHS",
    "at_home",
    "define",
    "fits_a_line",
    "flagfile",
    "help_text",
    "join_paths",
    "parse",
    "paths_in",
    "resolved",
    "to_config",
]

_DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    bool: flags.DEFINE_bool,
    tuple: flags.DEFINE_multi_string,
}


def define(config: type, values: flags.FlagValues) -> None:
    """Defines a flag for each field of a config dataclass, with its default and help.

    Ranges and choices are left to `config.check`: absl lets NaN through, and words its errors over two lines.
    """
    for field in dataclasses.fields(config):
        _DEFINE[type(field.default)](field.name, field.default, _help(field), flag_values=values)


def parse(values: flags.FlagValues, argv: Sequence[str], *, words: int = 0) -> list[str]:
    """Parses `argv`, the program's name first, and returns what is no flag: at most so many `words`, anywhere.

    Raises:
        InputError: an unknown flag, a value that is no number, a flagfile that is not there, a stray argument.
    """
    values.set_gnu_getopt(True)
    try:
        rest = values([argv[0], *_expanded(argv[1:], ())])
    except flags.IllegalFlagValueError as error:
        raise InputError(_illegal(values, str(error))) from error
    except flags.Error as error:
        raise InputError(str(error)) from error
    if len(rest) > 1 + words:
        raise InputError(f"{rest[1 + words]!r}: expected flags only, such as --output=picture.png")
    return rest[1:]


def _illegal(values, message):
    """absl: `flag --size=abc: invalid literal for int() ...`; here: `--size=abc: expected a whole number`."""
    given = message.removeprefix("flag ").split(": ")[0]
    name = given.removeprefix("--").partition("=")[0]
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    kind = kinds.get(values[name].flag_type()) if name in values else None
    return f"{given}: expected {kind}" if kind else message


def _expanded(arguments, within):
    """Each `--flagfile` replaced by the file's lines, as absl would, but preset names work, in flagfiles too.

    `within` are the files around these arguments.
    """
    found, rest = [], iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            found.append(argument)
            continue
        value = value if equals else next(rest, "")
        if not value:
            raise InputError("--flagfile: expected a file or a preset's name")
        path = _preset(value)
        if any(path.samefile(outer) for outer in within):
            raise InputError(f"--flagfile={value}: files that name each other without end")
        try:
            lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--flagfile={value}: cannot be read as text ({error})") from error
        lines = [line for line in lines if line and not line.startswith(("#", "//"))]
        for line in lines:
            if not line.startswith("-"):
                raise InputError(f"--flagfile={value}: {line!r}: expected a line such as --size=512")
        found += _expanded(lines, (*within, path))
    return found


def _preset(name):
    path = bundled.find(os.path.expanduser(name), "presets", ("", ".flags"))
    if path is None:
        known = ", ".join(bundled.names("presets", ".flags"))
        raise InputError(f"--flagfile={name}: no such file; presets: {known}")
    return path


def to_config(config: type, values: flags.FlagValues) -> object:
    """The parsed flags as a config; `~` stands for the home folder in every path."""
    chosen = {field.name: values[field.name].value for field in dataclasses.fields(config)}
    for field in dataclasses.fields(config):
        if isinstance(field.default, tuple):
            chosen[field.name] = tuple(chosen[field.name])
    for name in PATHS & chosen.keys():
        chosen[name] = at_home(name, chosen[name])
    return config(**chosen)


def at_home(name: str, text: str) -> str:
    """A flag's value with the home folder for `~`, where it is a path."""
    if name not in PATHS:
        return text
    return join_paths(name, [os.path.expanduser(part) for part in paths_in(name, text)])


MARK = "# A run of jnst: --flagfile=THIS makes its picture again. A rerun replaces this file."
"""The first line of a flagfile that jnst wrote; others are never replaced."""

PATHS = {"image", "guide", "content", "style", "weights", "init", "output", "photos", "teacher", "deep_teacher"}
PATHS |= {"pictures", "calibrate", "start", "data", "a", "b"}
_LISTS = {"style", "photos", "pictures"}
_WEIGHTS = {"weights", "teacher", "deep_teacher"}


def paths_in(name: str, text: str) -> tuple[str, ...]:
    """The paths in a flag's value: of most, a comma is a part of the file's name."""
    return split_list(text) if name in _LISTS else (text,)


def join_paths(name: str, parts: Sequence[str]) -> str:
    """The value that `paths_in` takes apart into `parts`."""
    return join_list(parts) if name in _LISTS else parts[0]


def _is_word(name, part):
    """Whether a value is no file here: a bundled name, or a word such as `noise`, whatever lies in the folder.

    A picture that is neither is a file that has gone: it keeps the place where it was.
    """
    from jnst.weights import is_word  # late: it loads numpy

    words = {"init": INITS, "image": ("noise",)}.get(name, ())
    if not part or part in words or (name in _WEIGHTS and is_word(part)):
        return True
    if name in ("output", "photos", "calibrate", "data") or bundled.is_file(part):
        return False
    if name == "pictures" and os.path.isdir(part):
        return False
    if name == "start":
        return bundled.find(part, "weights/stylenets", ("", ".safetensors")) is not None
    return name in _WEIGHTS or bundled.find(part, "examples", ("", ".jpg", ".png")) is not None


def resolved(config: object) -> dict[str, object]:
    """Every flag's value, files as absolute paths: what a rerun from another folder needs."""
    chosen = dataclasses.asdict(config)
    chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}  # as in JSON
    for name in PATHS & chosen.keys():
        parts = paths_in(name, chosen[name])
        parts = [part if _is_word(name, part) else os.path.abspath(part) for part in parts]
        chosen[name] = join_paths(name, parts)
    return chosen


def flagfile(chosen: dict[str, object]) -> str:
    """A flagfile with one line a flag, under a first line that says whose it is."""
    lines = (
        option_line(name, one)
        for name, value in chosen.items()
        for one in (value if isinstance(value, list) else [value])  # a flag that may be repeated
    )
    return MARK + "\n" + "".join(line + "\n" for line in lines)


def fits_a_line(name: str) -> bool:
    """Whether a file name could stand in OUTPUT.flags."""
    try:
        return len(name.encode().splitlines()) <= 1
    except UnicodeEncodeError:
        return False


def help_text(config: type, usage: str) -> str:
    """Usage and every flag with its default and choices."""
    lines = [usage]
    for field in dataclasses.fields(config):
        lines.append(f"\n  --{field.name} (default: {field.default if field.default not in ('', ()) else 'none'})")
        lines.append(f"      {_help(field)}")
    return "\n".join(lines) + "\n"


def _help(field):
    choices = field.metadata["choices"]
    if not choices:
        return field.metadata["help"]
    return f"{field.metadata['help']} One of {', '.join(map(str, choices))}."
