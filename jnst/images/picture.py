"""A picture in memory: its size, its alpha, resizing, several on a sheet."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

__all__ = ["Picture", "Refused", "Samples", "contact_sheet", "fit", "resize"]


@dataclasses.dataclass(frozen=True)
class Picture:
    """`rgb` is `[H, W, 3]` float32 sRGB in [0, 1]; `alpha` is `[H, W]` float32 in [0, 1], or None where opaque.

    `note` is what a user should hear of how the file was read, such as that the first of 12 frames was taken; a line,
    or empty.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as pictures are named."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def opaque(self) -> np.ndarray:
        """`rgb` over white where the picture is transparent, `[H, W, 3]`; the same array each time."""
        return self._opaque

    @functools.cached_property
    def _opaque(self):
        if self.alpha is None:
            return self.rgb
        alpha = self.alpha[..., None]
        return self.rgb * alpha + (1 - alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """What a file holds that Pillow does not read, neither in sRGB nor upright yet.

    `values` is `[H, W, C]` float32 in [0, 1], C = 1 gray, 3 RGB, 4 CMYK; `alpha` is `[H, W]`, not multiplied in;
    `orientation` is EXIF's; `bits` is how many a channel had; each of `notes` is a part of `Picture.note`.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    profile: bytes | None
    orientation: int
    bits: int
    notes: tuple[str, ...] = ()


class Refused(ValueError):
    """A file that is no damaged picture, but none that can be shown either: the reason, without the file's name."""


def fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Width and height with this longest side and the same shape; 0 keeps them.

    >>> fit((1024, 683), 512)
    (512, 342)
    >>> fit((3000, 1), 512)
    (512, 1)
    """
    if longest == 0:
        return size
    return tuple(max(1, round(longest * side / max(size))) for side in size)


def resize(picture: Picture, size: tuple[int, int], resample: str = "lanczos") -> Picture:
    """`picture` at width and height `size`, by one of `config.RESAMPLINGS`; the filter is widened when it shrinks (no
    aliasing)."""
    if picture.size == size:
        return picture
    if resample == "bicubic8":
        eight = Image.fromarray(np.round(picture.opaque() * 255).astype(np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        alpha = None if picture.alpha is None else _resize_plane(picture.alpha, size)
        return dataclasses.replace(picture, rgb=np.asarray(eight, np.float32) / 255, alpha=alpha)
    if picture.alpha is None:
        return dataclasses.replace(picture, rgb=_resize_planes(picture.rgb, size))
    # Weighted by alpha: the color hidden in transparent pixels must not bleed into the edge.
    alpha = _resize_plane(picture.alpha, size)
    weighted = _resize_planes(picture.rgb * picture.alpha[..., None], size)
    shown = alpha[..., None] > 1 / 512
    rgb = np.where(shown, weighted / np.where(shown, alpha[..., None], 1), _resize_planes(picture.rgb, size))
    return dataclasses.replace(picture, rgb=np.clip(rgb, 0, 1), alpha=alpha)


def _resize_planes(rgb, size):
    return np.stack([_resize_plane(rgb[..., channel], size) for channel in range(3)], -1)


def _resize_plane(plane, size):
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.clip(np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32), 0, 1)


def contact_sheet(tiles: Sequence[np.ndarray], *, gap: int = 8, columns: int = 0) -> np.ndarray:
    """Pictures of one size side by side on white, row by row.

    Args:
        tiles: Each `[h, w, 3]`.
        gap: Pixels between and around them.
        columns: How many in a row; 0: as many as make the sheet about square.

    Returns:
        `[H, W, 3]` float32.

    >>> contact_sheet([np.zeros((4, 6, 3))] * 5, gap=1).shape
    (16, 15, 3)
    """
    height, width = tiles[0].shape[:2]
    columns = columns or max(1, round(math.sqrt(len(tiles) * (height + gap) / (width + gap))))
    rows = -(-len(tiles) // columns)
    sheet = np.ones((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), np.float32)
    for index, tile in enumerate(tiles):
        top, left = (
            gap + place * (side + gap) for place, side in zip(divmod(index, columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = tile
    return sheet
