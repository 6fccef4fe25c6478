"""What networks from picture to picture are trained on: pairs A|B, each in one file, or the pictures of two folders.

As in pix2pix (Isola et al. 2017, https://arxiv.org/abs/1611.07004) and CycleGAN (Zhu et al. 2017,
https://arxiv.org/abs/1703.10593) pictures are brought a little above their size, cut at a random place and mirrored
half of the time: 286 and 256 there, in proportion at other sizes. Here the shape of a picture is kept: its short side
gets that length. Each batch is a function of its number alone, so that training that was stopped goes on with the very
batches that it would have had, and threads may make them.

Trained on is a folder, or `train` in it; held out are the pictures of `val`, else `test`, beside `train`; a folder
`trainA` has `valA` or `testA` beside it. Of another folder every twentieth picture is held out.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np

from jnst import files
from jnst.errors import InputError
from jnst.images.crops import find
from jnst.images.datasets import hold_out, inner_folder
from jnst.images.picture import Picture, resize
from jnst.images.reading import MOST_PIXELS, load

__all__ = ["MEMORY", "Pairs", "Unpaired"]

MEMORY = 2 << 30
"""Bytes that pictures may take in memory before the others are read from their files each time."""

_LOAD = 286 / 256  # of the size, the short side that crops are taken from
_TRAIN = re.compile("train((?:[_-]?[ab])?)", re.IGNORECASE)
_THREADS = 2
_AT_ONCE = 32  # files between two looks at the memory that is left


class Pairs:
    """Pairs of pictures, A the left and B the right half of one file.

    A file that is broken or of an odd width is named once, through `warn`, and left out.

    >>> from tempfile import TemporaryDirectory
    >>> from jnst.images import save
    >>> with TemporaryDirectory() as folder:
    ...     for number in range(6):
    ...         save(f"{folder}/{number}.png", Picture(np.zeros((20, 40, 3), np.float32)))
    ...     pairs = Pairs(folder, size=16, batch=2, seed=0)
    >>> [one.shape for one in pairs.batch(0)], pairs.an_epoch, pairs.counts
    ([(2, 16, 16, 3), (2, 16, 16, 3)], 3, {'train': 5, 'held_out': 1})
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        size: int,
        batch: int,
        seed: int,
        jitter: bool = True,
        flips: bool = True,
        flag: str = "data",
        warn: Callable[[str], None] = print,
        memory: int = MEMORY,
    ) -> None:
        """Reads all files once.

        Args:
            folder: The pictures', see the module.
            size: Side of what is trained on, in pixels.
            batch: Pairs in a batch.
            seed: Of orders, places and mirrors.
            jitter: Whether crops have random places, in pictures that are a little larger; else they are the middle.
            flips: Whether half of the pairs are mirrored.
            flag: For messages, the flag that named the folder.
            warn: Told of each file that is left out.
            memory: Bytes that the pictures may take.

        Raises:
            InputError: no such folder, no picture in it, or none that can be used.
        """
        self._cut = _Cut(size, seed, jitter, flips)
        self._train, self._held_out = _read(folder, flag, self._cut, warn, memory, halves=True)
        self._order = _Order(len(self._train), batch)
        self.sha256 = _sha256(self._cut, self._order, self._train, self._held_out)
        """Of all that decides the batches, and of the files held out, in hexadecimal."""

    @property
    def an_epoch(self) -> int:
        """Batches in an epoch."""
        return self._order.an_epoch

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs there are to train on, and held out."""
        return {"train": len(self._train), "held_out": len(self._held_out)}

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `step`, from 0: A and B, each `[B, S, S, 3]` uint8. The last of an epoch is what is left."""
        a, b = zip(*(self._cut.random(self._train, number, 0) for number in self._order.numbers(step)), strict=True)
        return np.stack(a), np.stack(b)

    def held_out(self, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The first pairs that are held out, at most so many, each picture `[S, S, 3]` uint8."""
        return [tuple(map(self._cut.middle, pair)) for pair in self._held_out.first(count)]


class Unpaired:
    """Pictures of two folders, A and B, in orders that have nothing to do with each other.

    An epoch is as long as the longer folder; the shorter one goes round, shuffled anew each time. Files that are broken
    are named once, through `warn`, and left out.
    """

    def __init__(
        self,
        a: str | Path,
        b: str | Path,
        *,
        size: int,
        batch: int,
        seed: int,
        jitter: bool = True,
        flips: bool = True,
        flags: tuple[str, str] = ("a", "b"),
        warn: Callable[[str], None] = print,
        memory: int = MEMORY,
    ) -> None:
        """Reads all files once.

        Args:
            a: The folder of A, see the module.
            b: The folder of B.
            size: Side of what is trained on, in pixels.
            batch: Pictures of each folder in a batch.
            seed: Of orders, places and mirrors.
            jitter: Whether crops have random places, in pictures that are a little larger; else they are the middle.
            flips: Whether half of the pictures are mirrored, each by its own chance.
            flags: For messages, the flags that named the folders.
            warn: Told of each file that is left out.
            memory: Bytes that the pictures may take.

        Raises:
            InputError: no such folder, no picture in it, or none that can be used.
        """
        self._cut = _Cut(size, seed, jitter, flips)
        self._train, self._held_out = [], []
        for folder, flag in zip((a, b), flags, strict=True):
            train, held_out = _read(folder, flag, self._cut, warn, memory, halves=False)
            memory -= train.bytes + held_out.bytes
            self._train.append(train)
            self._held_out.append(held_out)
        self._order = _Order(max(map(len, self._train)), batch)
        self.sha256 = _sha256(self._cut, self._order, *self._train, *self._held_out)
        """Of all that decides the batches, and of the files held out, in hexadecimal."""

    @property
    def an_epoch(self) -> int:
        """Batches in an epoch."""
        return self._order.an_epoch

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures of each folder there are to train on, and held out."""
        kinds = (("train", self._train), ("held_out", self._held_out))
        return {f"{kind}_{side}": len(one) for kind, both in kinds for side, one in zip("ab", both, strict=True)}

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `step`, from 0: A and B, each `[B, S, S, 3]` uint8. The last of an epoch is what is left."""
        numbers = self._order.numbers(step)
        return tuple(
            np.stack([self._cut.random(store, number, side)[0] for number in numbers])
            for side, store in enumerate(self._train)
        )

    def held_out(self, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The first pictures that are held out, at most so many of A and of B, each `[S, S, 3]` uint8."""
        return tuple([self._cut.middle(picture) for (picture,) in store.first(count)] for store in self._held_out)


class _Order:
    """Which numbers are in a batch; a number goes on counting from epoch to epoch."""

    def __init__(self, count, batch):
        self.count, self.size = count, min(batch, count)
        self.an_epoch = -(-count // self.size)

    def numbers(self, step):
        epoch, place = divmod(step, self.an_epoch)
        begin = place * self.size
        return range(epoch * self.count + begin, epoch * self.count + min(begin + self.size, self.count))


class _Cut:
    """From a picture to a square."""

    def __init__(self, size, seed, jitter, flips):
        self.size, self.seed, self.jitter, self.flips = size, seed, jitter, flips
        self.load = max(size, round(size * _LOAD)) if jitter else size

    def random(self, store, number, side):
        """What stands at a number of the order of A (0) or B (1): its parts, cut and mirrored alike."""
        around, place = divmod(number, len(store))
        pictures = store[_shuffled(self.seed, 2 * side, around, len(store))[place]]
        rng = np.random.default_rng([self.seed, 2 * side + 1, number])
        top, left = (int(rng.integers(long - self.size + 1)) for long in pictures[0].shape[:2])
        mirrored = rng.integers(2)
        if not self.jitter:
            top, left = _middle(pictures[0], self.size)
        crops = [picture[top : top + self.size, left : left + self.size] for picture in pictures]
        return [crop[:, ::-1] for crop in crops] if mirrored and self.flips else crops

    def middle(self, picture):
        top, left = _middle(picture, self.size)
        return picture[top : top + self.size, left : left + self.size].copy()


def _middle(picture, size):
    return [(long - size) // 2 for long in picture.shape[:2]]


@functools.lru_cache(maxsize=8)
def _shuffled(seed, purpose, around, count):
    order = np.random.default_rng([seed, purpose, around]).permutation(count)
    order.flags.writeable = False
    return order


class _Store:
    """Files, read as `[H, W, 3]` bytes with a short side of `short` pixels, some of them in memory; those that cannot
    be used are left out.

    Each item is a tuple, of both halves or of the whole.
    """

    def __init__(self, paths, *, short, halves, warn, memory):
        self._short, self._halves = short, halves
        self._paths, self._kept, self.bytes = [], {}, 0
        self.digest = hashlib.sha256()
        with futures.ThreadPoolExecutor(_THREADS) as pool:
            for begin in range(0, len(paths), _AT_ONCE):
                some, room = paths[begin : begin + _AT_ONCE], memory - self.bytes
                look = functools.partial(self._first_look, room=room)
                for path, (pictures, digest, problem) in zip(some, pool.map(look, some), strict=True):
                    if problem:
                        warn(f"skipped: {problem}")
                        continue
                    self._keep(pictures, memory)
                    self._paths.append(path)
                    self.digest.update(digest.encode())

    def _keep(self, pictures, memory):
        needed = sum(picture.nbytes for picture in pictures)
        if pictures and self.bytes + needed <= memory:
            self._kept[len(self._paths)] = pictures
            self.bytes += needed

    def _first_look(self, path, *, room):
        """The pictures, none of which where there is no room for them; the file's digest; or what is wrong with it."""
        try:
            parts, size = self._parts(path)
            fits = 3 * size[0] * size[1] * len(parts) <= room
            return self._sized(parts, size) if fits else (), files.sha256_of(path), ""
        except (InputError, OSError) as error:
            return (), "", str(error)

    def _parts(self, path):
        rgb = load(path).opaque()
        height, width = rgb.shape[:2]
        if self._halves and width % 2:
            raise InputError(f"{path}: {width} pixels wide; expected A and B side by side, both of the same width")
        parts = (rgb[:, : width // 2], rgb[:, width // 2 :]) if self._halves else (rgb,)
        width //= len(parts)
        size = tuple(round(long * self._short / min(width, height)) for long in (width, height))
        if size[0] * size[1] > MOST_PIXELS:
            raise InputError(f"{path}: {width}x{height} pixels are too narrow to be {self._short} on the short side")
        return parts, size

    def _sized(self, parts, size):
        return tuple(np.rint(resize(Picture(part), size).rgb * 255).astype(np.uint8) for part in parts)

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, index):
        return self._kept[index] if index in self._kept else self._sized(*self._parts(self._paths[index]))

    def first(self, count):
        return (self[index] for index in range(min(count, len(self))))


def _read(folder, flag, cut, warn, memory, *, halves):
    """What is trained on, and what is held out of it."""
    trained, held = _paths(folder, flag)
    train = _Store(trained, short=cut.load, halves=halves, warn=warn, memory=memory)
    # A single picture is both, and named once.
    told = (lambda line: None) if held == trained else warn
    held_out = _Store(held, short=cut.size, halves=halves, warn=told, memory=memory - train.bytes)
    for store, which in ((train, "its pictures"), (held_out, "the pictures that are held out")):
        if not len(store):
            raise InputError(f"--{flag}={folder}: none of {which} can be used")
    return train, held_out


def _paths(folder, flag) -> tuple[Sequence[Path], Sequence[Path]]:
    if not str(folder) or not Path(folder).is_dir():
        raise InputError(f"--{flag}={folder}: no such folder")
    given = Path(folder)
    named = given if given.name not in ("", "..") else given.resolve()
    place = named if _TRAIN.fullmatch(named.name) else inner_folder(given)
    if (place / "train").is_dir():
        place = place / "train"
    match = _TRAIN.fullmatch(place.name)
    for name in ("val", "test") if match else ():
        beside = place.parent / f"{name}{match[1]}"
        if beside.is_dir():
            return find([place], flag), find([beside], flag)
    held, trained = hold_out(find([place], flag))
    return trained, held


def _sha256(cut, order, *stores):
    settings = (cut.size, cut.load, cut.seed, cut.jitter, cut.flips, order.size, [len(store) for store in stores])
    digests = [store.digest.hexdigest() for store in stores]
    return hashlib.sha256(repr((settings, digests)).encode()).hexdigest()
