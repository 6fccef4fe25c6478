"""How near pictures are to their ground truth: pixel by pixel, by their structure, colors and labels. NumPy float64.

Everywhere a picture is `[H, W, 3]`, sRGB in [0, 1]. The measures are those by which pix2pix is judged (Isola et al.
2017, https://arxiv.org/abs/1611.07004), and SSIM (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

__all__ = ["LabelScores", "histogram_intersection", "l1", "lab", "label_scores", "palette_of", "ssim"]

_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as MATLAB's rgb2gray, which SSIM's authors used

# IEC 61966-2-1: linear sRGB -> XYZ; a row's sum is white's, D65, so that white has no color at all.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_BINS = {"L": (100, 0, 100), "a": (110, -110, 110), "b": (110, -110, 110)}

_CELL = 8  # of 256 levels, the side of a cell in which colors are counted
_LEAST_DISTANCE = 40  # of 256 levels, between two label colors
_CONCENTRATED = 0.5  # of the pixels within three cells of a label's color, how many are within one
_COVERED = 0.7  # of all pixels, how many are within three cells of label colors


def l1(x: np.ndarray, y: np.ndarray) -> float:
    """The mean absolute difference of two pictures.

    >>> l1(np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.25))
    0.25
    """
    x, y = _alike(x, y)
    return float(np.mean(np.abs(x - y)))


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """The mean structural similarity of two pictures' luminance (0.299 R + 0.587 G + 0.114 B); 1 of equal ones.

    With a Gaussian window of 11 x 11 and a sigma of 1.5, K1 = 0.01 and K2 = 0.03, where the window is whole.

    Raises:
        ValueError: pictures that are smaller than the window, or not of one size.

    >>> ssim(np.zeros((11, 11, 3)), np.ones((11, 11, 3))) < 1e-3
    True
    """
    x, y = _alike(x, y)
    if min(x.shape[:2]) < _WINDOW:
        raise ValueError(f"pictures of {x.shape[1]}x{x.shape[0]} pixels; expected at least {_WINDOW}x{_WINDOW}")
    x, y = x @ _LUMA, y @ _LUMA
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(np.mean(above / below))


def _blurred(plane):
    places = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-(places**2) / (2 * _SIGMA**2))
    window /= window.sum()
    for _ in range(2):  # along rows, then along columns
        long = len(plane) - _WINDOW + 1
        plane = sum(weight * plane[place : place + long] for place, weight in enumerate(window)).T
    return plane


def lab(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D65, `[..., 3]` of sRGB `[..., 3]`: L in [0, 100], a in [-87, 99], b in [-108, 95].

    >>> lab(np.array([1.0, 0.0, 0.0])).round(2).tolist()
    [53.24, 80.09, 67.2]
    """
    image = np.asarray(image, np.float64)
    linear = np.where(image <= 0.04045, image / 12.92, (np.maximum(image, 0.04045) + 0.055) ** 2.4 / 1.055**2.4)
    xyz = linear @ (_TO_XYZ / _TO_XYZ.sum(1, keepdims=True)).T
    edge = 6 / 29
    f = np.where(xyz > edge**3, np.cbrt(xyz), xyz / (3 * edge**2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def histogram_intersection(x_pictures: Iterable[np.ndarray], y_pictures: Iterable[np.ndarray]) -> Mapping[str, float]:
    """How much the colors of two sets of pictures have in common (Isola et al. 2017, section 4.2 and figure 7).

    By channel of L*a*b*: the sum, over bins, of the smaller of both sets' shares of pixels; 1 of equal sets. The bins
    are not published; here they are 1 wide over L from 0 to 100, and 2 wide over a and b from -110 to 110.

    Args:
        x_pictures: Pictures of any sizes, at least one.
        y_pictures: Pictures of any sizes, at least one.

    Returns:
        `L`, `a` and `b`.

    >>> histogram_intersection([np.zeros((2, 2, 3))], [np.ones((2, 2, 3)), np.zeros((2, 2, 3))])["L"]
    0.5
    """
    x, y = _shares(x_pictures), _shares(y_pictures)
    return {channel: float(np.minimum(x[channel], y[channel]).sum()) for channel in _BINS}


def _shares(pictures):
    counts = {channel: np.zeros(bins) for channel, (bins, _, _) in _BINS.items()}
    for picture in pictures:
        found = lab(_checked(picture)).reshape(-1, 3)
        for place, (channel, (bins, low, high)) in enumerate(_BINS.items()):
            # White may lie above 100, and gray below 0, by a rounding error: on the edge between two bins of a and b
            # such an error would decide, so bins there begin a little lower.
            values = np.clip(found[:, place] + 1e-6, low, high)
            counts[channel] += np.histogram(values, bins, (low, high))[0]
    if not counts["L"].sum():
        raise ValueError("no pictures; expected at least one in each set")
    return {channel: found / found.sum() for channel, found in counts.items()}


def palette_of(pictures: Iterable[np.ndarray], *, least_share: float = 0.001) -> np.ndarray:
    """The colors of the labels in label maps, which JPEG and resizing may have blurred; none where they are no such.

    Colors are counted in cells of 8 levels, of which the fullest are looked at first, each with the cells around it. A
    label's color lies 40 levels or more from the others, has its share of all pixels, and at least half of the pixels
    within three cells lie within one. Mixed colors along edges, and nearly all colors of photos, are spread too widely
    for that. Where the found colors have less than 70% of the pixels near them, the pictures are no label maps. The
    border of a picture does not count.

    It takes a set of pictures to be sure: in one alone a mixed color may be frequent enough, and a photo of few plain
    things may look like a label map.

    Args:
        pictures: At least one, better ten.
        least_share: Of all pixels, how many a color must have.

    Returns:
        `[labels, 3]` float64 in [0, 1], the most frequent first; `[0, 3]` where the pictures are no label maps.

    >>> flag = np.zeros((6, 9, 3))
    >>> flag[:, :3, 0] = flag[:, 3:5, 1] = 1
    >>> palette_of([flag]).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    counts, sums = _cells(pictures)
    near, around = _box(counts, 1), _box(counts, 3)
    total, side = counts.sum(), 256 // _CELL
    peaks, covered = [], 0
    for place in np.argsort(-near, axis=None, kind="stable"):
        cell = np.array(np.unravel_index(place, counts.shape))
        here = tuple(cell)
        if near[here] < least_share * total:
            break
        apart = all(np.linalg.norm((cell - peak) * _CELL) >= _LEAST_DISTANCE for peak in peaks)
        if apart and near[here] >= _CONCENTRATED * around[here]:
            peaks.append(cell)
            covered += around[here]
    if len(peaks) < 2 or covered < _COVERED * total:
        return np.zeros((0, 3))
    blocks = [tuple(slice(max(0, at - 1), min(side, at + 2)) for at in cell) for cell in peaks]
    return np.stack([sums[block].sum((0, 1, 2)) / counts[block].sum() for block in blocks])


def _cells(pictures):
    """By cell of color, how many pixels there are `[c, c, c]`, and the sum of their colors `[c, c, c, 3]`."""
    side = 256 // _CELL
    counts, sums = np.zeros(side**3), np.zeros((side**3, 3))
    for picture in pictures:
        colors = np.clip(_inner(_checked(picture)), 0, 1).reshape(-1, 3)
        cells = np.rint(colors * 255).astype(np.int64) // _CELL
        index = np.ravel_multi_index(tuple(cells.T), (side,) * 3)
        counts += np.bincount(index, minlength=side**3)
        for channel in range(3):
            sums[:, channel] += np.bincount(index, colors[:, channel], minlength=side**3)
    if not counts.sum():
        raise ValueError("no pictures; expected at least one")
    return counts.reshape(side, side, side), sums.reshape(side, side, side, 3)


def _inner(picture):
    """Without the border, where that of a pair's other half may have been mixed in."""
    return picture[1:-1, 1:-1] if min(picture.shape[:2]) > 2 else picture


def _box(counts, reach):
    """The sum over the cells within `reach` of each."""
    for axis in range(3):
        padded = np.pad(counts, [(reach + 1, reach) if axis == own else (0, 0) for own in range(3)])
        running = np.moveaxis(padded.cumsum(axis), axis, 0)
        counts = np.moveaxis(running[2 * reach + 1 :] - running[: -2 * reach - 1], 0, axis)
    return counts


class LabelScores(NamedTuple):
    """How well labels were guessed, over the pixels of all pictures, in [0, 1]."""

    pixel_accuracy: float
    """Of all pixels, how many have the right label."""
    class_accuracy: float
    """The mean over labels of how many of a label's pixels have it."""
    class_iou: float
    """The mean over labels of how many pixels have a label in both, among those that have it in either."""
    confusion: np.ndarray
    """`[labels, labels]`: how many pixels of a label (row) were taken for each (column)."""


def label_scores(made: Iterable[np.ndarray], truth: Iterable[np.ndarray], palette: np.ndarray) -> LabelScores:
    """Scores of label maps against the true ones; each pixel has the label whose color is nearest to its own.

    The means are over the labels that the truth has (Long et al. 2015, https://arxiv.org/abs/1411.4038, section 5).

    Args:
        made: Label maps, at least one.
        truth: As many, of the same sizes.
        palette: `[labels, 3]`, see `palette_of`.

    Raises:
        ValueError: no label, no picture, or sets that do not fit together.

    >>> colors = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    >>> label_scores([colors[[[0, 0, 1, 1]]] * 0.9], [colors[[[0, 0, 0, 1]]]], colors)[:2]
    (0.75, 0.8333333333333333)
    """
    palette = np.asarray(palette, np.float64)
    count = len(palette)
    if not count:
        raise ValueError("no label; expected the color of at least one")
    confusion = np.zeros((count, count), np.int64)
    for one, other in zip(made, truth, strict=True):
        guessed, right = (_labels(picture, palette) for picture in _alike(one, other))
        confusion += np.bincount(right * count + guessed, minlength=count**2).reshape(count, count)
    own, of_truth, of_made = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    if not of_truth.sum():
        raise ValueError("no pictures; expected at least one")
    there = of_truth > 0
    return LabelScores(
        float(own.sum() / confusion.sum()),
        float(np.mean(own[there] / of_truth[there])),
        float(np.mean(own[there] / (of_truth + of_made - own)[there])),
        confusion,
    )


def _labels(picture, palette):
    flat = picture.reshape(-1, 3)
    # The square of the distance but for the color's own, which is the same for each label.
    return np.argmin(np.sum(palette**2, 1) - 2 * flat @ palette.T, 1)


def _checked(picture):
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[-1] != 3 or not np.issubdtype(picture.dtype, np.floating):
        raise ValueError(f"an array {picture.shape} of {picture.dtype}; expected [H, W, 3] floats in [0, 1]")
    return picture.astype(np.float64)


def _alike(x, y):
    x, y = _checked(x), _checked(y)
    if x.shape != y.shape:
        raise ValueError(f"pictures of shapes {x.shape} and {y.shape}; expected one shape")
    return x, y
