"""The photo loader: random crops of the pictures in folders, each batch a function of its number alone.

So training that was stopped goes on with the very crops that it would have had, and no state need be kept.
"""

from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np

from jnst.errors import InputError
from jnst.images.picture import Picture, resize
from jnst.images.reading import is_named_like_a_picture, load

__all__ = ["Ahead", "Crops", "find"]


def find(folders: Sequence[str | Path], flag: str = "photos") -> list[Path]:
    """The picture files in `folders` and below, told by their endings, each folder's in the order of their names.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    found = []
    for folder in folders:
        if not str(folder) or not Path(folder).is_dir():  # pathlib takes no name for the working folder
            raise InputError(f"--{flag}={folder}: no such folder")
        # As text, with / everywhere: the order must not depend on the system.
        paths = sorted(Path(folder).rglob("*"), key=lambda path: path.as_posix())
        paths = [path for path in paths if is_named_like_a_picture(path)]
        if not paths:
            raise InputError(f"--{flag}={folder}: no picture in this folder")
        found += paths
    return found


class Crops:
    """Square crops of pictures at random places, scales and sides, in shuffled order, epoch after epoch.

    A crop is a square with a side between the crop's own and `zoom` times that, as far as the picture allows (a
    smaller picture is enlarged), brought to size, and mirrored half of the time. A broken file is named once, through
    `warn`, and the next in order stands in for it.

    >>> from tempfile import TemporaryDirectory
    >>> from jnst.images import Picture, save
    >>> with TemporaryDirectory() as folder:
    ...     save(f"{folder}/a.png", Picture(np.zeros((40, 60, 3), np.float32)))
    ...     Crops(find([folder]), seed=0, size=16, batch=2).batch(5).shape
    (2, 16, 16, 3)
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        seed: int,
        size: int,
        batch: int,
        zoom: float = 2.0,
        warn: Callable[[str], None] = print,
    ) -> None:
        self._paths, self._seed, self._size, self._batch, self._zoom = list(paths), seed, size, batch, zoom
        self._warn, self._broken = warn, set()

    def batch(self, index: int) -> np.ndarray:
        """Batch `index`, `[batch, size, size, 3]` float32 in [0, 1]: always the same for the same files and seed.

        Raises:
            InputError: not one of the files can be read.
        """
        return np.stack([self._crop(index * self._batch + place) for place in range(self._batch)])

    def _crop(self, number):
        epoch, place = divmod(number, len(self._paths))
        order = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._paths))
        rgb = self._read(order, place)
        rng = np.random.default_rng([self._seed, 1, number])
        height, width = rgb.shape[:2]
        short = min(height, width)
        least = min(self._size, short)
        side = int(rng.integers(least, max(least, min(short, round(self._zoom * self._size))) + 1))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = resize(Picture(rgb[top : top + side, left : left + side]), (self._size, self._size)).rgb
        return crop[:, ::-1] if rng.integers(2) else crop

    def _read(self, order, place):
        for step in range(len(order)):
            path = self._paths[order[(place + step) % len(order)]]
            if path in self._broken:
                continue
            try:
                return load(path).opaque()
            except InputError as error:
                self._broken.add(path)
                self._warn(f"skipped: {error}")
        raise InputError(f"{self._paths[0].parent}: none of {len(order)} pictures can be read")


class Ahead:
    """Batches that are made before it is their turn, by threads: what computes with them does not wait for files.

    >>> with Ahead(lambda index: index**2, stop=3) as source:
    ...     [source(index) for index in range(3)]
    [0, 1, 4]
    """

    def __init__(self, source: Callable[[int], np.ndarray], *, stop: int, ahead: int = 4, threads: int = 2) -> None:
        self._source, self._stop, self._ahead, self._threads = source, stop, ahead, threads
        self._coming: dict[int, futures.Future] = {}

    def __enter__(self):
        self._pool = futures.ThreadPoolExecutor(self._threads)
        return self

    def __call__(self, index: int) -> np.ndarray:
        """What `source(index)` is; those after it, up to `stop`, are begun."""
        for number in range(index, max(index + 1, min(self._stop, index + 1 + self._ahead))):
            if number not in self._coming:
                self._coming[number] = self._pool.submit(self._source, number)
        return self._coming.pop(index).result()

    def __exit__(self, *error):
        self._pool.shutdown(cancel_futures=True)
