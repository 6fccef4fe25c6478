"""`pix2pix combine`: the pictures of two folders, side by side in one file each, and which are for training.

All is looked at before anything is written: two folders that do not go together are named picture by picture. A pair in
PNG holds the digests of both pictures, so that the same command goes on with what is missing or has changed; of other
formats a hidden file keeps which are ours, and these are made again.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jnst import files, images
from jnst.cli.command import DONE, INTERRUPTED
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.cli.progress import Steps
from jnst.config import PARTS, CombineConfig, check_combine, parse_split
from jnst.errors import InputError
from jnst.images import Picture

__all__ = ["OURS", "run"]

OURS = ".jnst-pairs.json"
"""In the output folder: names of the pairs that are, or will be, there."""

_NAMED = 20  # of what does not go together


class _Pair(NamedTuple):
    name: str
    """Without its ending, below A and B."""
    a: Path
    b: Path
    output: Path


def run(config: CombineConfig, interrupt: Interrupt) -> int:
    """Makes every pair that is not there yet. Returns the exit code.

    Args:
        config: Its ranges are checked.
        interrupt: Ctrl-C ends it after the pair at hand.

    Raises:
        InputError: something in the input is wrong; what does not go together has been named.
    """
    check_combine(config)
    images.format_of(f"pair{config.format}")  # whether this Pillow writes it
    interrupt.remains = "; nothing written"
    _check_places(config)
    pairs, problems = _paired(config)
    _refuse(config, problems)
    ours = _check_output(config, pairs)
    missing = _missing(config, pairs, ours)
    _write_ours(config, ours | {_below(config, pair.output) for pair in pairs})
    interrupt.begin()
    kept = len(pairs) - len(missing)
    with Steps("made") as steps:
        for made, (pair, text) in enumerate(missing):
            interrupt.remains = f": {kept + made} of {len(pairs)} pairs are there; the same command goes on"
            if interrupt.seen:
                warn(f"interrupted{interrupt.remains}")
                return INTERRUPTED
            _make(config, pair, text)
            steps.show(made + 1, len(missing))
    parts = [pair.output.relative_to(config.output).parts[0] for pair in pairs]
    counts = ", ".join(f"{parts.count(part)} {part}" for part in PARTS)
    there = f", {kept} were there already" if kept else ""
    say(f"{config.output}: {len(missing)} of {len(pairs)} pairs made{there}; {counts}")
    return DONE


def _check_places(config):
    places = {}
    for name in ("a", "b"):
        folder = getattr(config, name)
        if not os.path.isdir(folder):
            raise InputError(f"--{name}={folder}: no such folder")
        places[name] = folder
    if os.path.lexists(config.output) and not os.path.isdir(config.output):
        raise InputError(f"--output={config.output}: is a file; expected a folder's name")
    places["output"] = config.output
    names = list(places)
    for place, name in enumerate(names):
        for other in names[:place]:
            one, two = (Path(os.path.realpath(places[key])) for key in (name, other))
            if one == two or one in two.parents or two in one.parents:
                given = f"--{name}={places[name]}"
                raise InputError(f"{given}: lies in --{other}={places[other]}, or that in it; expected folders apart")


def _paired(config):
    """The pairs, by name, and a line for each file that has none."""
    sides, problems = {}, []
    for side in "ab":
        folder = Path(getattr(config, side))
        sides[side], twice = _names(folder)
        problems += [f"{'; '.join(map(str, paths))}: of one name; expected one of them" for paths in twice]
        if not sides[side]:
            raise InputError(f"--{side}={folder}: no picture in this folder")
    for side, other in ("ab", "ba"):
        alone = sorted(set(sides[side]) - set(sides[other]))
        problems += [f"{sides[side][name]}: no such picture in --{other}={getattr(config, other)}" for name in alone]
    names = sorted(set(sides["a"]) & set(sides["b"]))
    kept = all(any(_part_of(name) for name in found) for found in sides.values())
    problems += [f"{sides['a'][name]}: not in {', '.join(PARTS)}" for name in names if kept and not _part_of(name)]
    shares = parse_split(config.split)
    pairs = []
    for name in names:
        below = name if kept else f"{_drawn(name, config.seed, shares)}/{name}"
        output = Path(config.output, below + config.format)
        pairs.append(_Pair(name, sides["a"][name], sides["b"][name], output))
    return pairs, problems


def _names(folder):
    """Files by their names below a folder, without endings; and lists of files that share one."""
    found = {}
    for path in sorted(folder.rglob("*"), key=lambda path: path.as_posix()):
        below = path.relative_to(folder)
        if images.is_named_like_a_picture(path) and not any(part.startswith(".") for part in below.parts):
            found.setdefault(below.with_suffix("").as_posix(), []).append(path)
    return {name: paths[0] for name, paths in found.items()}, [paths for paths in found.values() if len(paths) > 1]


def _part_of(name):
    """Which of the parts a name's first folder is, or nothing."""
    first, slash, _ = name.partition("/")
    return first if slash and first in PARTS else ""


def _drawn(name, seed, shares):
    """A part by chance, which the name and the seed decide alone: no pair moves when others come or go."""
    digest = hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
    drawn = int.from_bytes(digest[:6]) / 2**48
    last = max(place for place, share in enumerate(shares) if share)
    for place, share in enumerate(shares):
        if drawn < share or place == last:  # rounding leaves a little behind the last
            return PARTS[place]
        drawn -= share
    raise AssertionError


def _refuse(config, problems):
    if not problems:
        return
    for line in problems[:_NAMED]:
        warn(line)
    if len(problems) > _NAMED:
        warn(f"and {len(problems) - _NAMED} more")
    count = "1 file does not go" if len(problems) == 1 else f"{len(problems)} files do not go"
    raise InputError(f"--a={config.a} --b={config.b}: {count} together; nothing written")


def _below(config, path):
    return path.relative_to(config.output).as_posix()


def _check_output(config, pairs):
    """The names of ours in the output folder; refuses what is in the way, or would stand among the pairs."""
    noted = _read_ours(config)
    for pair in pairs:
        if pair.output.is_dir():
            raise InputError(f"{pair.output}: is a folder; expected none, or another --output")
        # A PNG says so itself.
        is_ours = _text(pair.output) if config.format == ".png" else _below(config, pair.output) in noted
        if os.path.lexists(pair.output) and not is_ours:
            raise InputError(f"{pair.output}: is there and no pair of ours; expected none, or another --output")
    expected = {_below(config, pair.output) for pair in pairs}
    found = {name for name in noted if name.split("/")[0] in PARTS and Path(config.output, name).is_file()}
    left = sorted(found - expected)
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise InputError(
            f"--output={config.output}: {left[0]}{more} of an earlier run with other pictures or another --split, "
            "--seed or --format; expected it deleted, or another folder"
        )
    return found


def _read_ours(config):
    try:
        found = json.loads(Path(config.output, OURS).read_text("utf-8"))
        return {name for name in found if isinstance(name, str) and ".." not in Path(name).parts}
    except (OSError, ValueError, TypeError, RecursionError):
        return set()


def _write_ours(config, names):
    path = Path(config.output, OURS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output={config.output}: cannot be written: {error.strerror}") from error
    if names != _read_ours(config):
        files.write_atomically(path, json.dumps(sorted(names), indent=0).encode())


def _text(path):
    """What a PNG of ours says of itself, or nothing."""
    found = images.text_of(path)
    return found if found.startswith('{"pair": ') else ""


def _missing(config, pairs, ours):
    """The pairs that are to be made, and what their files will say of themselves; all of them can be made."""
    missing, problems = [], []
    with Steps("checked") as steps:
        for place, pair in enumerate(pairs):
            try:
                digests = [files.sha256_of(path) for path in (pair.a, pair.b)]
            except OSError as error:
                problems.append(f"{error.filename}: cannot be read: {error.strerror}")
                continue
            text = json.dumps({"pair": digests, "fit": config.fit})
            if _text(pair.output) != text:
                problems += _problems_of(config, pair)
                missing.append((pair, text))
            steps.show(place + 1, len(pairs))
    _refuse(config, problems)
    return missing


def _problems_of(config, pair):
    found, problems = [], []
    for path in (pair.a, pair.b):
        try:
            found.append(images.load(path))
        except InputError as error:
            problems.append(str(error))
    if problems:
        return problems
    a, b = found
    if a.size != b.size and not config.fit:
        sizes = [f"{width}x{height}" for width, height in (a.size, b.size)]
        return [f"{pair.b}: {sizes[1]} pixels, but {pair.a} has {sizes[0]}; expected the same, or --fit"]
    try:
        images.check_encodable((2 * a.size[0], a.size[1]), images.FORMATS[config.format])
    except InputError as error:
        return [f"{pair.a}: {error}"]
    return []


def _make(config, pair, text):
    a, b = (Picture(images.load(path).opaque()) for path in (pair.a, pair.b))
    if a.size != b.size:
        if not config.fit:
            raise InputError(f"{pair.b}: has changed its size meanwhile; expected that of {pair.a}")
        b = images.resize(b, a.size)
    try:
        pair.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{pair.output}: cannot be written: {error.strerror}") from error
    images.save(pair.output, Picture(np.concatenate([a.rgb, b.rgb], 1)), text)
