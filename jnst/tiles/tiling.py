"""How an image is cut into tiles, and how far beyond a tile one must look.

A feature is right if the pixels that it depends on are there. A tile is therefore computed in a window that reaches a
halo further, and only the tile's own features are counted. At the image's border a window ends with the image, since
the network's padding belongs there. All windows have one size, so that one program serves them, and start at multiples
of the deepest layer's stride, so that pooling has the same cells as in the whole image.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jnst.config import halvings_of
from jnst.nets import vgg

__all__ = ["Tiling", "cut", "halo_of", "make_tiling", "stride_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut; pairs are of rows and columns, lengths in pixels."""

    shape: tuple[int, int]
    """Of the image."""
    tile: tuple[int, int]
    """Of a tile; the last ones down and across may be smaller."""
    window: tuple[int, int]
    """What is computed for a tile."""
    counts: tuple[int, int]
    """Tiles down and across."""
    halo: int
    """How far a window reaches beyond its tile, but for the image's border."""

    @property
    def total(self) -> int:
        """Tiles in all."""
        return self.counts[0] * self.counts[1]

    @property
    def places(self) -> np.ndarray:
        """int32 `[total, 2, 3]`: of each tile, for rows and columns, where its window starts in the image, and where
        the tile starts and ends in the window."""
        places = [[self._along(axis, number) for axis, number in enumerate(pair)] for pair in np.ndindex(self.counts)]
        return np.array(places, np.int32)

    def _along(self, axis, number):
        length, tile, window = self.shape[axis], self.tile[axis], self.window[axis]
        start = min(max(0, number * tile - self.halo), length - window)
        return start, number * tile - start, min((number + 1) * tile, length) - start


def halo_of(layers: Sequence[str]) -> int:
    """How far beyond a tile a window must reach for the deepest of `layers`: as many pixels as its features see there,
    rounded up to its stride.

    >>> halo_of(["relu1_1", "relu5_1"]), halo_of(["relu3_1"])
    (80, 12)
    """
    reach = 0
    for name in reversed(vgg.convolutions(layers)):
        reach += 1
        if name.endswith("_1") and name != "conv1_1":
            reach *= 2  # the pooling before it; one after all of them sees its own cell, which is the tile's
    stride = stride_of(layers)
    return -(-reach // stride) * stride


def stride_of(layers: Sequence[str]) -> int:
    """Pixels from one feature of the deepest of `layers` to the next."""
    return 2 ** max(map(halvings_of, layers))


def make_tiling(shape: tuple[int, int], layers: Sequence[str], tile: int, *, halo: int | None = None) -> Tiling:
    """Cuts an image into tiles of about equal size.

    Args:
        shape: Rows and columns of the image; they need be multiples of nothing.
        layers: That will be looked at.
        tile: Longest side of a tile in pixels; rounded down to a multiple of the deepest layer's stride.
        halo: Another one than `halo_of`, a multiple of the stride too: to see what a smaller one would do.

    >>> tiling = make_tiling((1000, 700), ["relu5_1"], 512)
    >>> tiling.tile, tiling.window, tiling.counts
    ((512, 352), (680, 524), (2, 2))
    """
    return cut(shape, tile, halo=halo_of(layers) if halo is None else halo, stride=stride_of(layers))


def cut(shape: tuple[int, int], tile: int, *, halo: int, stride: int) -> Tiling:
    """The same for any network: `halo` a multiple of `stride`, at whose multiples windows start."""
    tile = max(stride, tile // stride * stride)
    tiles, windows, counts = zip(*(_cut(length, tile, halo, stride) for length in shape), strict=True)
    return Tiling(shape=tuple(shape), tile=tiles, window=windows, counts=counts, halo=halo)


def _cut(length, tile, halo, stride):
    """Tile, window and how many, along one side."""
    tile = -(-length // -(-length // tile))  # all about alike
    tile = -(-tile // stride) * stride
    # What is left of a length over a multiple of the stride belongs to the last window, and so to all.
    window = tile + 2 * halo + length % stride
    return (tile, window, -(-length // tile)) if window < length else (length, length, 1)
