"""The descriptors of a folder's pictures, kept in jnst's cache folder and brought up to date for changed files only.

An index is one safetensors file, told by the folder and by what the descriptors depend on. A file counts as unchanged
where its size and time of change are; where not, its SHA-256 decides, so that a copied or touched picture costs a
reading only. Nothing is ever written to the folder itself.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import safetensors
import safetensors.numpy

from jnst import images
from jnst.errors import InputError
from jnst.files import cache_folder, part_prefix, remove_parts, replacing, sha256_of
from jnst.images import Picture

__all__ = ["BATCH", "PIXELS", "Entry", "Update", "look", "path_of", "read", "square", "update"]

BATCH = 16
"""Pictures that are described at once. Always so many: a program of one shape gives a picture the same bits."""
PIXELS = 32
"""Side of the thumbnail that is kept of each picture, to compare pixels by."""

_VERSION = 1
_READERS = 2  # of which each holds one whole picture
_SAVE_EVERY = 64  # batches


class Entry(NamedTuple):
    """What is known of a picture."""

    size: int
    """Of the file, in bytes."""
    changed: int
    """When, in nanoseconds."""
    sha256: str
    features: np.ndarray  # [d] float32, of length 1
    pixels: np.ndarray  # [PIXELS, PIXELS, 3] uint8


class Update(NamedTuple):
    """What `update` found."""

    entries: dict[str, Entry]
    """By the file's place in the folder, with / everywhere, in the order of their names."""
    described: int
    """How many of them were new or had changed."""
    stopped: bool
    """Whether `progress` ended it before the last picture."""


def square(picture: Picture, side: int) -> np.ndarray:
    """The middle square of a picture at `side` pixels, `[side, side, 3]` float32 in [0, 1].

    Cut, not squeezed: a picture that is pulled out of shape has other textures. What lies at the ends of a long picture
    is not seen.
    """
    rgb = picture.opaque()
    height, width = rgb.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return images.resize(Picture(rgb[top : top + short, left : left + short]), (side, side)).rgb


def look(name: str | Path, side: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A picture's square `[side, side, 3]`, its thumbnail as `Entry.pixels`, and the note of its reading.

    Raises:
        InputError: it cannot be read.
    """
    picture = images.load(name)
    small = np.rint(255 * np.clip(square(picture, PIXELS), 0, 1)).astype(np.uint8)
    return square(picture, side), small, picture.note


def path_of(folder: str | Path, facts: Mapping[str, object]) -> Path:
    """Where the index of a folder lies.

    Args:
        folder: Of pictures.
        facts: What the descriptors depend on (weights, layers, size and so on); whatever JSON holds.
    """
    place = os.path.realpath(folder).encode("utf-8", "surrogateescape")
    text = json.dumps({"version": _VERSION, **facts}, sort_keys=True).encode()
    name = hashlib.sha256(place + b"\0" + text).hexdigest()[:32]
    return cache_folder() / "explore" / f"{name}.safetensors"


def read(path: Path) -> dict[str, Entry]:
    """The entries of an index; none where there is no such file, or where it is damaged."""
    try:
        with safetensors.safe_open(path, "np") as file:
            rows = json.loads((file.metadata() or {})["explore"])
            features, pixels = file.get_tensor("features"), file.get_tensor("pixels")
        if features.dtype != np.float32 or features.ndim != 2 or not np.isfinite(features).all():
            return {}
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS, PIXELS, 3):
            return {}
        # A checksum: a flipped bit among the descriptors would pass for one.
        if rows["digest"] != _digest(features, pixels) or not len(rows["files"]) == len(features) == len(pixels):
            return {}
        return {
            str(name): Entry(int(size), int(changed), str(digest), features[index], pixels[index])
            for index, (name, size, changed, digest) in enumerate(rows["files"])
        }
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def _digest(*arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _write(path, entries, listing):
    """Writes the index, with what another process has found meanwhile of the same folder."""
    with _alone(path):
        remove_parts(path.parent, re.escape(part_prefix(path)))
        entries = {**{name: entry for name, entry in read(path).items() if name in listing}, **entries}
        if not entries:
            return
        features = np.stack([entry.features for entry in entries.values()])
        pixels = np.stack([entry.pixels for entry in entries.values()])
        files = [[name, entry.size, entry.changed, entry.sha256] for name, entry in entries.items()]
        text = json.dumps({"digest": _digest(features, pixels), "files": files})
        with replacing(path, apart=True) as temporary:
            try:
                safetensors.numpy.save_file({"features": features, "pixels": pixels}, temporary, {"explore": text})
            except safetensors.SafetensorError as error:
                raise OSError(0, str(error)) from error


@contextlib.contextmanager
def _alone(path):
    """Keeps others from writing an index between our reading and writing it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{path}.lock")
        lock.acquire(timeout=60)
    except (filelock.Timeout, OSError) as error:
        raise InputError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    try:
        yield
    finally:
        lock.release()


def update(
    folder: str | Path,
    facts: Mapping[str, object],
    describe: Callable[[np.ndarray], np.ndarray],
    *,
    side: int,
    flag: str = "pictures",
    warn: Callable[[str], None] = print,
    progress: Callable[[int, int], bool | None] = lambda done, total: None,
) -> Update:
    """Brings a folder's index up to date and gives what it holds.

    Files that cannot be read are named through `warn` and left out. An index that cannot be written is named, too, and
    the descriptors serve this time only.

    Args:
        folder: Of pictures, in it and below.
        facts: See `path_of`; `side` is one of them by itself.
        describe: `[BATCH, side, side, 3]` -> `[BATCH, d]`, of whatever shape `d` has.
        side: Of the square that is looked at.
        flag: The flag that named the folder, for messages.
        warn: Told of what is left out.
        progress: Told before the first batch and after each how many pictures are described, of how many; a true
            answer ends the work, and what was described by then is kept.

    Raises:
        InputError: no such folder, no picture in it, or none that can be read.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in images.find([folder], flag)}
    place = path_of(folder, {**facts, "side": side})
    before = read(place)
    entries, left, stale = _unchanged(paths, before, warn)
    keep, stopped = _Keeper(place, paths, warn), bool(left) and bool(progress(0, len(left)))
    for number, (done, batch) in enumerate(_described([] if stopped else left, describe, side, warn), 1):
        entries |= batch
        stopped = bool(progress(done, len(left)))
        if stopped:
            break
        if number % _SAVE_EVERY == 0:  # so that a kill loses little
            keep(entries)
    entries = {name: entries[name] for name in paths if name in entries}
    described = sum(name in entries for name, *_ in left)
    if described or stale or entries.keys() != before.keys():
        keep(entries)
    if not entries and not stopped:
        raise InputError(f"--{flag}={folder}: none of {len(paths)} pictures can be read")
    return Update(entries, described, stopped)


class _Keeper:
    """Writes an index, and says once where that cannot be."""

    def __init__(self, place, listing, warn):
        self._place, self._listing, self._warn, self._failed = place, listing, warn, False

    def __call__(self, entries):
        try:
            if not self._failed:
                _write(self._place, entries, self._listing)
        except InputError as error:
            self._failed = True
            self._warn(f"no index is kept: {error}")


def _unchanged(paths, before, warn):
    """Entries that still hold; files to be described, with size, time and hash; whether a known file was touched."""
    known = {entry.sha256: entry for entry in before.values()}
    entries, left, stale = {}, [], False
    for name, path in paths.items():
        try:
            found = path.stat()
            entry = before.get(name)
            if entry is not None and (entry.size, entry.changed) == (found.st_size, found.st_mtime_ns):
                entries[name] = entry
                continue
            digest = sha256_of(path)
        except OSError as error:
            warn(f"skipped: {path}: cannot be read: {error.strerror or error}")
            continue
        if digest in known:
            entries[name] = known[digest]._replace(size=found.st_size, changed=found.st_mtime_ns)
            stale = True
        else:
            left.append((name, path, found.st_size, found.st_mtime_ns, digest))
    return entries, left, stale


def _described(left: Sequence[tuple], describe, side, warn) -> Iterator[tuple[int, dict[str, Entry]]]:
    """Batches of entries, and how many files are done; the next batch is read while one is described."""
    batches = [left[start : start + BATCH] for start in range(0, len(left), BATCH)]
    with ThreadPoolExecutor(_READERS) as readers:
        ahead = [[readers.submit(_try_look, file[1], side) for file in batch] for batch in batches[:1]]
        try:
            done = 0
            for number, batch in enumerate(batches):
                reading = ahead.pop()
                if number + 1 < len(batches):
                    ahead.append([readers.submit(_try_look, file[1], side) for file in batches[number + 1]])
                found = []
                for file, look_ in zip(batch, reading, strict=True):
                    seen = look_.result()
                    if isinstance(seen, InputError):
                        warn(f"skipped: {seen}")
                    else:
                        found.append((file, *seen))
                done += len(batch)
                yield done, _entries(found, describe, side)
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def _try_look(path, side):
    try:
        return look(path, side)
    except InputError as error:
        return error


def _entries(found, describe, side):
    if not found:
        return {}
    block = np.zeros((BATCH, side, side, 3), np.float32)
    block[: len(found)] = [seen for _, seen, _, _ in found]
    features = np.asarray(describe(block), np.float32)
    entries = {}
    for ((name, _, size, changed, digest), _, small, _), row in zip(found, features, strict=False):
        entries[name] = Entry(size, changed, digest, np.array(row), small)
    return entries
