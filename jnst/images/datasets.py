"""Sets of small pictures, whole in memory as bytes: CIFAR-10's own files, or any folder of pictures; and their order.

CIFAR-10 comes as Python's pickles or as records of bytes (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html);
the pickles are read without running them. What is held out of the training is CIFAR's test batch; of a folder with
`train` in it, the pictures of `test` or `val` beside that; of another folder every twentieth picture.
"""

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jnst.errors import InputError
from jnst.images.crops import find
from jnst.images.picture import Picture, resize
from jnst.images.reading import load
from jnst.pickles import Refused, expect, interpret

__all__ = ["Batches", "Dataset", "hold_out", "inner_folder", "read_dataset"]

_HELD_OUT = 20  # of so many pictures of a folder, in the order of their names, one is held out
_SIDE = 32  # of CIFAR's pictures
_PLANES = 3 * _SIDE * _SIDE
_LARGEST_FILE = 1 << 30  # bytes: no batch has a thirtieth of it


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Pictures `[N, S, S, 3]` uint8 to train on, and held out."""

    train: np.ndarray
    held_out: np.ndarray
    files: tuple[Path, ...]
    """What they were read from."""
    labels: np.ndarray | None = None
    """Of `train`, `[N]`, where the files say."""
    kind: str = "folder"
    """`folder`, or `pickles` or `records` of CIFAR-10."""

    def batch(self, indices: np.ndarray, mirrored: np.ndarray | None = None) -> np.ndarray:
        """Pictures to train on, `[B, S, S, 3]` uint8, those mirrored that `mirrored` `[B]` says."""
        taken = self.train[indices]
        if mirrored is not None:
            taken[mirrored] = taken[mirrored, :, ::-1]
        return taken


class Batches:
    """The order of training: each picture once an epoch, shuffled anew; a batch is a function of its number alone.

    The last batch of an epoch has what is left, so that batches have at most two sizes.

    >>> batches = Batches(5, 0, 2)
    >>> [len(batches.indices(step)) for step in range(4)]
    [2, 2, 1, 2]
    >>> sorted(np.concatenate([batches.indices(step) for step in range(3, 6)]).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, count: int, seed: int, batch: int) -> None:
        self._count, self._seed, self._batch = count, seed, min(batch, count)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    @property
    def an_epoch(self) -> int:
        """Batches in an epoch."""
        return -(-self._count // self._batch)

    def indices(self, step: int) -> np.ndarray:
        """Which pictures are in batch `step`, from 0; `[B]`."""
        epoch, place = divmod(step, self.an_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, 0, epoch]).permutation(self._count)
            self._epoch = epoch
        return self._order[place * self._batch : (place + 1) * self._batch]

    def mirrored(self, step: int) -> np.ndarray:
        """Which of them are mirrored, half of them by chance: `[B]` of bool."""
        return np.random.default_rng([self._seed, 1, step]).random(len(self.indices(step))) < 0.5


def read_dataset(folder: str | Path, size: int, *, flag: str = "data", warn: Callable[[str], None] = print) -> Dataset:
    """The pictures of a folder, and of those below it, at `size` x `size` pixels.

    Pictures that are not square are cut to the square in their middle. A folder that holds nothing but one other folder
    stands for that one.

    Args:
        folder: With CIFAR-10's `data_batch_1` to `data_batch_5` or the same with `.bin`, or with pictures.
        size: Side in pixels.
        flag: For messages, the flag that named the folder.
        warn: Told of each picture that cannot be read, which is skipped.

    Raises:
        InputError: no such folder, no picture in it, or a batch that is damaged.
    """
    if not str(folder) or not Path(folder).is_dir():
        raise InputError(f"--{flag}={folder}: no such folder")
    place = inner_folder(Path(folder))
    for ending, kind, read in (("", "pickles", _read_pickle), (".bin", "records", _read_records)):
        batches = [place / f"data_batch_{number}{ending}" for number in range(1, 6)]
        batches = [path for path in batches if path.is_file()]
        if batches:
            return _cifar(batches, place / f"test_batch{ending}", kind, read, size)
    found = _pictures(place, flag, size, warn)
    if not len(found.train):
        raise InputError(f"--{flag}={folder}: none of its pictures can be read")
    return found


def inner_folder(folder: Path) -> Path:
    """The folder that is meant: one that holds nothing but one other folder (and a text perhaps) stands for that."""
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        folders = [entry for entry in entries if entry.is_dir()]
        texts = all(entry.suffix.lower() in ("", ".md", ".txt", ".html", ".gz") for entry in entries if entry.is_file())
        batches = any(entry.name.startswith("data_batch") for entry in entries)
        if len(folders) != 1 or not texts or batches or folders[0].name in ("train", "test", "val"):
            return folder
        folder = folders[0]


def _cifar(batches, test, kind, read, size):
    found = [read(path) for path in batches]
    train, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if test.is_file():
        held_out, files = read(test)[0], (*batches, test)
    else:
        keep = np.arange(len(train)) % _HELD_OUT != 0
        held_out, train, labels, files = train[~keep], train[keep], labels[keep], tuple(batches)
    return Dataset(train=_sized(train, size), held_out=_sized(held_out, size), files=files, labels=labels, kind=kind)


def _sized(pictures, size):
    if size == _SIDE:
        return np.ascontiguousarray(pictures)
    return np.stack([_bytes(Picture(picture.astype(np.float32) / 255), size) for picture in pictures])


def _pictures(place, flag, size, warn):
    if (place / "train").is_dir():
        beside = next((place / name for name in ("test", "val") if (place / name).is_dir()), None)
        paths = find([place / "train"], flag)
        if beside is not None:
            held = find([beside], flag)
        else:
            held, paths = hold_out(paths)
    else:
        held, paths = hold_out(find([place], flag))
    train, held_out = _read_pictures(paths, size, warn), _read_pictures(held, size, warn)
    return Dataset(train=train, held_out=held_out, files=(*paths, *held))


def hold_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Those that are held out, every twentieth, and the others; a single picture is both."""
    paths = list(paths)
    others = [path for place, path in enumerate(paths) if place % _HELD_OUT]
    return paths[::_HELD_OUT], others or paths


def _read_pictures(paths: Sequence[Path], size: int, warn: Callable[[str], None]) -> np.ndarray:
    pictures = np.zeros((len(paths), size, size, 3), np.uint8)
    count = 0
    for path in paths:
        try:
            pictures[count] = _bytes(load(path), size)
            count += 1
        except InputError as error:
            warn(f"skipped: {error}")
    return pictures[:count]


def _bytes(picture, size):
    rgb = picture.opaque()
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = resize(Picture(rgb[top : top + side, left : left + side]), (size, size)).rgb
    return np.round(square * 255).astype(np.uint8)


def _contents(path):
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"{path}: no batch of CIFAR-10: it has {path.stat().st_size:,} bytes")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _read_records(path):
    """A byte that is the label, then a picture's red, green and blue planes; again and again."""
    data = np.frombuffer(_contents(path), np.uint8)
    if not len(data) or len(data) % (1 + _PLANES):
        raise InputError(f"{path}: {len(data)} bytes; expected records of {1 + _PLANES}, as in CIFAR-10's binary files")
    records = data.reshape(-1, 1 + _PLANES)
    return _upright(records[:, 1:]), records[:, 0].astype(np.int32)


def _upright(planes):
    return planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


class _Array:
    """What becomes a NumPy array."""

    def __init__(self):
        self.values = None


class _Type:
    """NumPy's type of bytes, the only one that a picture needs."""


def _array(arguments):
    return _Array()


def _type(arguments):
    if arguments[0] not in ("u1", "|u1", b"u1"):
        raise Refused(f"its numbers are of type {arguments[0]!r}; expected bytes")
    return _Type()


def _encoded(arguments):
    text, coding = arguments
    if coding != "latin1":
        raise TypeError("a text is encoded in another way")
    return expect(str, text).encode("latin1")


def _build(thing, state):
    if type(thing) is _Type:  # its byte order, and that it has no fields
        return
    _, shape, kind, by_columns, data = expect(tuple, state)
    expect(_Type, kind)
    data = data.encode("latin1") if type(data) is str else expect(bytes, data)
    if by_columns is not False or any(type(side) is not int or side < 0 for side in expect(tuple, shape)):
        raise TypeError("an array is not laid out by rows")
    expect(_Array, thing).values = np.frombuffer(data, np.uint8).reshape(shape)


_NAMES = {
    "numpy ndarray": None,
    "numpy dtype": _type,
    "numpy.core.multiarray _reconstruct": _array,
    "numpy._core.multiarray _reconstruct": _array,
    "_codecs encode": _encoded,  # how Python 3 writes bytes for Python 2
}


def _read_pickle(path):
    """A dict with `data`, `[N, 3072]`, planes as in the records, and `labels`."""
    try:
        found = interpret(io.BytesIO(_contents(path)), names=_NAMES, build=_build, needed_by="batch of CIFAR-10")
        entries = {
            key.decode("latin1") if type(key) is bytes else key: value for key, value in expect(dict, found).items()
        }
        data = expect(_Array, entries["data"]).values
        labels = np.array(expect(list, entries["labels"]), np.int32)
    except Refused as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: no batch of CIFAR-10: expected a dict with data and labels") from error
    if data is None or data.ndim != 2 or data.shape[1] != _PLANES or labels.shape != data.shape[:1] or not len(data):
        raise InputError(f"{path}: no batch of CIFAR-10: expected pictures of {_PLANES} bytes, and as many labels")
    return _upright(data), labels
