"""`explore`: what a network is made of, what it sees in a picture, and how pictures lie beside each other in it."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jnst import bundled, files
from jnst.cli import flags
from jnst.cli.command import DONE, guard, start
from jnst.cli.interrupt import Interrupt
from jnst.config import ExploreConfig, check_explore, join_list, split_list
from jnst.errors import InputError

if TYPE_CHECKING:  # it loads jax
    from jnst.cli.looks import Look

__all__ = ["main"]

USAGE = """\
usage: explore filters|activations|neighbors|verify|identify|tsne [PICTURES AND FOLDERS] [flags]

  explore filters --output=out/filters.png                                the kernels of the first layer
  explore activations photo.jpg --layers=relu3_1 --output=out/maps.png    what they and later ones see in a picture
  explore neighbors photo.jpg photos --output=out/near.png                the pictures in a folder that are most alike
  explore verify a.jpg b.jpg --calibrate=people                           the same or not; people/NAME/*.jpg are known
  explore identify who.jpg people --threshold=0.15                        which subfolder, or unknown
  explore tsne photos --output=out/map.png                                a map of a folder
  explore --flagfile=out/map.flags                                        makes out/map.png again
"""

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


# Another word is another line here, and one in `config.LOOKS`.
_WORK = {
    "filters": _Word(_showing("filters"), (0,), "no picture", True),
    "activations": _Word(_showing("activations"), (1,), "one picture", True),
    "neighbors": _Word(_comparing("neighbors"), (2,), "a picture and a folder", False),
    "verify": _Word(_comparing("verify"), (0, 2), "two pictures", False),
    "identify": _Word(_comparing("identify"), (2,), "a picture and a folder", False),
    "tsne": _Word(_comparing("tsne"), (1,), "one folder", True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 130 Ctrl-C."""
    interrupt = Interrupt()
    return guard(
        lambda: _main(sys.argv if argv is None else argv, interrupt), lambda: f"interrupted{interrupt.remains}"
    )


def _main(argv, interrupt):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags")
        return DONE
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


def _asked(config, words):
    """The config with its look, and the pictures: words where there are some, else what flags say."""
    look = config.look
    if words and (words[0] in _WORK or not look):
        look, *words = words
    if look not in _WORK:
        raise InputError(f"{look or 'no word'!r}: expected one of {', '.join(_WORK)}")
    pictures = tuple(map(os.path.expanduser, words or split_list(config.pictures)))
    calibrate = os.path.expanduser(config.calibrate)
    return dataclasses.replace(config, look=look, pictures=join_list(pictures), calibrate=calibrate), pictures


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
    named = {name: value for name, value in flags.resolved(config).items() if name in flags.PATHS}
    read = [*pictures, *([config.calibrate] if config.calibrate else [])]
    for name, value in [*named.items(), *(("pictures", one) for one in read)]:
        if not flags.fits_a_line(value):
            raise InputError(f"--{name}={value!r}: expected a name in UTF-8 without line breaks")
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
        if path.suffix in report.OWN_ENDINGS and bundled.is_file(path) and not _is_ours(path):
            raise InputError(
                f"--output={config.output}: would replace {path}, which no run of jnst wrote; expected another name"
            )


def _is_ours(path):
    """Whether a record or flagfile was written by a run of jnst."""
    from jnst.cli import report

    try:
        return report.is_ours(path) or dict(json.loads(path.read_text("utf-8"))).get("command") == "explore"
    except (OSError, ValueError, TypeError):
        return False


if __name__ == "__main__":
    sys.exit(main())
