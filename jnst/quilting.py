"""Image quilting: a texture of any size, laid out of patches of a sample that are cut to fit.

Efros & Freeman 2001 (https://doi.org/10.1145/383259.383296). Host only, and without a network: numpy alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["quilt"]

# Two sums of squares that differ by less are equal: rounding is some 1e-10, one 8-bit level in one channel 1.5e-5.
_NOISE = 1e-8


def quilt(
    rng: np.random.Generator,
    sample: np.ndarray,
    size: tuple[int, int],
    *,
    patch: int = 48,
    overlap: int | None = None,
    tolerance: float = 0.1,
    tileable: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """A picture that looks like the sample, made of squares of it.

    Row by row, each square is drawn at random among those of the sample that differ from what they overlap by no more
    than `1 + tolerance` times the least squared difference that is to be had. In the overlap the seam goes where new
    and old differ least (a minimum error boundary cut on each side; in a corner, what both cuts leave).

    Departures from the paper: the cut above a square begins no lower than the cut of the square to its left ended, so
    that the edge which that one left in the row above is covered; and a picture may be tileable. Then the last column
    overlaps the first and the last row the first row, with cuts there too, and squares are spread evenly, so that they
    overlap by `overlap` or a little more (less only where that is over a quarter of a patch and the picture less than
    two patches wide).

    Args:
        rng: Decides; equal states give equal bytes.
        sample: `[h, w, 3]` float32 in [0, 1].
        size: Height and width of the result, at least 1; a tileable one holds at least a patch.
        patch: Side of the squares, in pixels; they should hold the largest thing that repeats.
        overlap: Pixels that neighbors share, at most half a patch; None: a sixth of it, as in the paper.
        tolerance: See above; 0.1 in the paper. 0 copies more of the sample as it is.
        tileable: Make a result that can be repeated without a seam.
        progress: Called after each square with how many are done, and of how many.

    Returns:
        `[H, W, 3]` float32; each pixel is one of the sample's.

    Raises:
        ValueError: a sample, size, patch, overlap or tolerance that is out of range, with the numbers.

    >>> waves = np.sin(np.arange(40) / 3).astype(np.float32) / 2 + 0.5
    >>> sample = np.stack([np.add.outer(waves, waves) / 2] * 3, -1)
    >>> quilt(np.random.default_rng(0), sample, (30, 70), patch=16).shape
    (30, 70, 3)
    """
    overlap = max(1, patch // 6) if overlap is None else overlap
    _check(sample.shape, size, patch, overlap, tolerance, tileable)
    sample = np.ascontiguousarray(sample, np.float32)
    rows, columns = (_axis(length, patch, overlap, tileable) for length in size)
    canvas = np.zeros((rows.extent, columns.extent, 3), np.float32)
    search, span = _Search(sample, patch), np.arange(patch)
    for row, (top, above, below) in enumerate(rows.places):
        cuts = []  # of this row's patches, above and below
        for column, (left, before, after) in enumerate(columns.places):
            at = np.ix_((top + span) % rows.extent, (left + span) % columns.extent)
            old = canvas[at]
            hole = (slice(above, patch - below), slice(before, patch - after))  # where nothing lies yet
            y, x = _draw(rng, search.errors(old, hole), tolerance)
            new = sample[y : y + patch, x : x + patch]
            mask, cut = _mask(old, new, (above, below, before, after), cuts)
            cuts.append(cut)
            canvas[at] = np.where(mask[..., None], new, old)
            if progress is not None:
                progress(row * len(columns.places) + column + 1, len(rows.places) * len(columns.places))
    return np.ascontiguousarray(canvas[: size[0], : size[1]])


def _check(shape, size, patch, overlap, tolerance, tileable):
    if len(shape) != 3 or shape[-1] != 3:
        raise ValueError(f"a sample of shape {shape}: expected [h, w, 3]")
    if not 2 <= patch <= min(shape[:2]):
        raise ValueError(f"patch={patch} for a sample of {shape[0]} x {shape[1]}: expected 2 to its shorter side")
    if not 1 <= overlap <= patch // 2:
        raise ValueError(f"overlap={overlap} for patch={patch}: expected 1 to {patch // 2}, half a patch")
    least = patch if tileable else 1
    if min(size) < least:
        what = f"at least patch={patch} a side, to be tileable" if tileable else "at least 1 a side"
        raise ValueError(f"a result of {size[0]} x {size[1]} pixels: expected {what}")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance={tolerance}: expected 0 or more")


class _Axis(NamedTuple):
    """How patches lie along one side: where each starts, and what it shares with those before it and (the last of a
    circle) after it; and how long they are together."""

    places: Sequence[tuple[int, int, int]]
    extent: int


def _axis(length, patch, overlap, tileable):
    step = patch - overlap
    if tileable:
        # No more than two patches to a patch's length: a third would lie on both its neighbors' cuts.
        count = min(-(-length // step), 2 * length // patch)
        starts = [index * length // count for index in range(count)]
    else:
        starts = list(range(0, max(1, length - overlap), step))
    extent = length if tileable else starts[-1] + patch
    before = [0] + [a + patch - b for a, b in zip(starts, starts[1:], strict=False)]
    after = [0] * (len(starts) - 1) + [starts[-1] + patch - extent]
    return _Axis(list(zip(starts, before, after, strict=True)), extent)


class _Search:
    """The squared difference of a patch to each place of the sample, where the patch has anything.

    |S - C|^2 = |S|^2 - 2 S.C + |C|^2: the first from cumulative sums, the second a correlation by Fourier transforms.
    """

    def __init__(self, sample, patch):
        self._patch, self._places = patch, tuple(side - patch + 1 for side in sample.shape[:2])
        planes = np.moveaxis(sample, -1, 0).astype(np.float64)
        # At the sample's own size the correlation wraps around nowhere among the places asked for.
        self._shape = tuple(_fast_length(side) for side in sample.shape[:2])
        self._spectrum = np.fft.rfft2(planes, self._shape)
        self._sums = np.pad(np.cumsum(np.cumsum(np.sum(planes**2, 0), 0), 1), ((1, 0), (1, 0)))

    def errors(self, old, hole):
        """`[h - patch + 1, w - patch + 1]`: the sums of squares outside `hole`, two slices, in which `old` is 0."""
        old = np.moveaxis(old, -1, 0).astype(np.float64)
        spectrum = np.sum(self._spectrum * np.fft.rfft2(old, self._shape).conj(), 0)
        correlation = np.fft.irfft(np.fft.ifft(spectrum, axis=0)[: self._places[0]], self._shape[1])
        whole = self._box(0, self._patch, 0, self._patch)
        squares = whole - self._box(hole[0].start, hole[0].stop, hole[1].start, hole[1].stop)
        return np.maximum(squares - 2 * correlation[:, : self._places[1]] + np.sum(old**2), 0)

    def _box(self, top, bottom, left, right):
        """The sum of squares of the sample in this box, laid at each place."""
        rows, columns = self._places
        s = self._sums[:, right : right + columns] - self._sums[:, left : left + columns]
        return s[bottom : bottom + rows] - s[top : top + rows]


def _fast_length(length):
    """The next number without a prime factor over 7: a Fourier transform at a prime is several times slower."""
    while True:
        rest = length
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def _draw(rng, errors, tolerance):
    """A place `(y, x)` among those nearly as good as the best."""
    good = np.flatnonzero(errors <= (1 + tolerance) * errors.min() + _NOISE)
    return divmod(int(good[rng.integers(len(good))]), errors.shape[1])


def _mask(old, new, overlaps, cuts):
    """Where the new patch is laid, `[P, P]` bool; and its cuts above and below, for the next in the row.

    `overlaps` are how wide it lies on others above, below, before and after; `cuts` are those of the row so far.
    """
    above, below, before, after = overlaps
    error = np.sum((new.astype(np.float64) - old) ** 2, -1)
    place = np.arange(len(error))
    across = []
    for side, (strip, width) in enumerate(((error, above), (error[::-1], below))):
        # Where the patch before this one ends, its neighbors' pixels lie bare against the row above, from its cut on.
        # This patch covers that edge if its cut is no further in there, on both sides of the edge. In a circle, the
        # row's first patch has such an edge where it begins.
        most = np.full(len(error), width - 1)
        if before:
            most[before - 1 : before + 1] = cuts[-1][side][-1]
        if after:
            edge = slice(len(error) - after - 1, len(error) - after + 1)
            most[edge] = np.minimum(most[edge], cuts[0][side][0])
        across.append(_cut(strip[:width].T, most))
    down = [_cut(error[:, :before]), _cut(error[:, ::-1][:, :after])]
    mask = (place[:, None] >= across[0]) & (place[::-1, None] >= across[1])
    return mask & (place >= down[0][:, None]) & (place[::-1] >= down[1][:, None]), across


def _cut(error, most=None):
    """The path through `[length, width]` errors, from the first line to the last, whose sum is least.

    Returns:
        `[length]` int: the path's place in each line, at most one from that in the line before, and no more than
        `most` `[length]`, where given. All 0 where there is no overlap.
    """
    length, width = error.shape
    if width == 0:
        return np.zeros(length, int)
    if most is not None:
        error = np.where(np.arange(width) <= most[:, None], error, np.inf)
    total = np.full((length, width + 2), np.inf)  # of the best path to here; a border at either side
    total[0, 1:-1] = error[0]
    for line in range(1, length):
        last = total[line - 1]
        total[line, 1:-1] = error[line] + np.minimum(np.minimum(last[:-2], last[1:-1]), last[2:])
    path = np.empty(length, int)
    path[-1] = np.argmin(total[-1, 1:-1])
    for line in range(length - 2, -1, -1):
        path[line] = path[line + 1] - 1 + np.argmin(total[line, path[line + 1] : path[line + 1] + 3])
    return path
