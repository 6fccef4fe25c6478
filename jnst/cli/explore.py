"""`explore`: what a network is made of, what it sees in a picture, and how pictures lie beside each other in it."""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags as absl_flags

from jnst import bundled, files
from jnst.cli import flags
from jnst.cli.command import DONE, guard, start
from jnst.cli.interrupt import Interrupt
from jnst.config import (
    LOOKS,
    MAXIMIZE,
    ExploreConfig,
    MaximizeConfig,
    check_explore,
    check_maximize,
    join_list,
    split_list,
)
from jnst.errors import InputError

if TYPE_CHECKING:  # it loads jax
    from jnst.cli.looks import Look

__all__ = ["main"]

USAGE = """\
usage: explore filters|activations|neighbors|verify|identify|tsne [PICTURES AND FOLDERS] [flags]
       explore maximize [flags]                                         (explore maximize --help lists its own flags)

  explore filters --output=out/filters.png                                the kernels of the first layer
  explore activations photo.jpg --layers=relu3_1 --output=out/maps.png    what they and later ones see in a picture
  explore maximize --layers=relu3_1:5,17,40 --output=out/max.png          pictures that excite channels most
  explore neighbors photo.jpg photos --output=out/near.png                the pictures in a folder that are most alike
  explore verify a.jpg b.jpg --calibrate=people                           the same or not; people/NAME/*.jpg are known
  explore identify who.jpg people --threshold=0.15                        which subfolder, or unknown
  explore tsne photos --output=out/map.png                                a map of a folder
  explore --flagfile=out/map.flags                                        makes out/map.png again
  explore --flagfile=out/max.flags --resume                               goes on with it where it was stopped
"""

_SWITCHES = {"resume": "Go on from OUTPUT's checkpoint, to the same bytes as a run that was never interrupted."}

_MANY = 1000


class _Word(NamedTuple):
    """What a word of the command needs, and what does its work."""

    work: "Callable[[Look], int]"
    counts: tuple[int, ...]
    expected: str
    needs_output: bool


def _showing(word):
    def work(look):
        from jnst.cli import showing  # late: it loads jax

        return getattr(showing, word)(look)

    return work


def _comparing(word):
    def work(look):
        from jnst.cli import comparing

        return getattr(comparing, word)(look)

    return work


# Another word is another line here, and one in `config.LOOKS`. `maximize` makes steps: it is a `run.Work` instead.
_WORK = {
    "filters": _Word(_showing("filters"), (0,), "no picture", True),
    "activations": _Word(_showing("activations"), (1,), "one picture", True),
    "neighbors": _Word(_comparing("neighbors"), (2,), "a picture and a folder", False),
    "verify": _Word(_comparing("verify"), (0, 2), "two pictures", False),
    "identify": _Word(_comparing("identify"), (2,), "a picture and a folder", False),
    "tsne": _Word(_comparing("tsne"), (1,), "one folder", True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    interrupt = Interrupt()
    return guard(
        lambda: _main(sys.argv if argv is None else argv, interrupt), lambda: f"interrupted{interrupt.remains}"
    )


def _main(argv, interrupt):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags")
        return DONE
    if _asks_for_maximize(argv):
        return _maximize(argv, interrupt)
    parsed = start(ExploreConfig, argv, USAGE, words=_MANY)
    if parsed is None:
        return DONE
    with interrupt:
        values, words = parsed
        config, pictures = _asked(flags.to_config(ExploreConfig, values), words)
        _check_flags(config, pictures)
        # Late: what is wrong with the flags is said without waiting for jax.
        from jnst.cli import cache, looks

        cache.use()
        with looks.looking(config, interrupt, pictures) as look:
            return _WORK[config.look].work(look)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Either(ExploreConfig, MaximizeConfig):
    """All flags, to read the word among them."""


def _asks_for_maximize(argv):
    values = absl_flags.FlagValues()
    flags.define(_Either, values)
    for name in (*_SWITCHES, "version", "help"):
        absl_flags.DEFINE_bool(name, False, "", flag_values=values)
    words = flags.parse(values, argv, words=_MANY)
    if words and words[0] in LOOKS:
        return words[0] == MAXIMIZE
    return values.look == MAXIMIZE


def _maximize(argv, interrupt):
    parsed = start(MaximizeConfig, argv, USAGE, switches=_SWITCHES, words=_MANY)
    if parsed is None:
        return DONE
    with interrupt:
        values, words = parsed
        words = words[1:] if words[:1] == [MAXIMIZE] else words
        if words:
            raise InputError(f"{MAXIMIZE}: expected no picture, found {len(words)}: {', '.join(words)}")
        config = flags.to_config(MaximizeConfig, values)
        check_maximize(config)
        from jnst.cli import cache, maximizing, report, run

        report.check_paths(config, [config.weights])
        cache.use()
        return run.run(maximizing.work_of(config), interrupt, resume=values.resume)


def _asked(config, words):
    """The config with its look, and the pictures: words where there are some, else what flags say."""
    look = config.look
    if words and (words[0] in _WORK or not look):
        look, *words = words
    if look not in _WORK:
        raise InputError(f"{look or 'no word'!r}: expected one of {', '.join(LOOKS)}")
    pictures = tuple(map(os.path.expanduser, words or split_list(config.pictures)))
    return dataclasses.replace(config, look=look, pictures=join_list(pictures)), pictures


def _check_flags(config, pictures):
    """What can be wrong with the flags alone, before jax is loaded or a file is written."""
    check_explore(config)
    word = _WORK[config.look]
    if len(pictures) not in word.counts or (config.look == "verify" and not pictures and not config.calibrate):
        raise InputError(f"{config.look}: expected {word.expected}, found {len(pictures)}: {', '.join(pictures)}")
    for flag in ("threshold", "calibrate"):
        value = getattr(config, flag)
        if value and config.look not in ("verify", "identify"):
            raise InputError(f"--{flag}={value}: {config.look} takes no such flag")
    if config.output:
        _check_output(config, pictures)
    elif word.needs_output:
        raise InputError("--output is missing: expected a picture file (no arguments at all show an example)")


def _check_output(config, pictures):
    from jnst import images
    from jnst.cli import report

    images.format_of(config.output)
    for name, value in flags.resolved(config).items():
        for part in flags.paths_in(name, value) if name in flags.PATHS else ():
            if not flags.fits_a_line(part):
                raise InputError(f"--{name}={part!r}: expected a name in UTF-8 without line breaks")
    read = [*pictures, *([config.calibrate] if config.calibrate else [])]
    written = (config.output, report.record_path(config.output), report.flags_path(config.output))
    places = [os.path.realpath(path) for path in written]
    for name in filter(os.path.exists, [*read, config.weights]):
        place = os.path.realpath(name)
        if place in places:
            raise InputError(f"--output={config.output}: would replace {name}, which is read; expected another name")
        if os.path.isdir(place) and os.path.commonpath([place, places[0]]) == place:
            raise InputError(f"--output={config.output}: lies in {name}, which is read; expected another place")
    for path in map(Path, written):
        files.check_place(path)
        if path.suffix in report.OWN_ENDINGS and bundled.is_file(path) and not report.is_ours(path):
            raise InputError(
                f"--output={config.output}: would replace {path}, which no run of jnst wrote; expected another name"
            )


if __name__ == "__main__":
    sys.exit(main())
