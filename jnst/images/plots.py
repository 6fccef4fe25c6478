"""What `explore` draws: pictures with captions, a map of thumbnails, a curve. Equal arguments, equal pictures."""

import colorsys
import functools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jnst.images.picture import Picture, fit, resize

__all__ = ["Tile", "captioned_sheet", "enlarged", "roc_plot", "stacked", "thumbnail_map"]

Tile = tuple[str, np.ndarray]
"""A caption and a picture `[h, w, 3]` in [0, 1]."""

_INK, _FAINT = (34, 34, 34), (150, 150, 150)
_MOST_NAMED = 20  # labels in a legend


def enlarged(tile: np.ndarray, side: int) -> np.ndarray:
    """A small picture with its pixels as squares, as large as whole squares within `side` allow.

    >>> enlarged(np.zeros((3, 2, 3)), 32).shape
    (30, 20, 3)
    """
    factor = max(1, side // max(tile.shape[:2]))
    return tile.repeat(factor, 0).repeat(factor, 1)


def captioned_sheet(
    sections: Sequence[tuple[str, Sequence[Tile]]], *, side: int = 128, columns: int = 0, letters: int = 12
) -> np.ndarray:
    """Pictures with a caption below each, in sections with a heading each.

    Args:
        sections: Headings, each with its tiles; those larger than `side` are shrunk, none is enlarged.
        side: Longest side of a picture on the sheet in pixels.
        columns: Pictures in a row; 0: as many as make the sheet about square.
        letters: Height of the captions' letters.

    Returns:
        `[H, W, 3]` float32 in [0, 1].

    >>> captioned_sheet([("two", [("a", np.zeros((40, 40, 3))), ("b", np.ones((20, 40, 3)))])], columns=2).shape[2]
    3
    """
    gap, line = 8, _line(letters)
    count = sum(len(tiles) for _, tiles in sections)
    columns = columns or max(1, round(math.sqrt(count * (side + line + gap) / (side + gap))))
    columns = min(columns, max(1, max(len(tiles) for _, tiles in sections)))
    headings = [_cut(heading, columns * (side + gap) - gap, letters + 2) for heading, _ in sections]
    shown = [[(caption, _shrunk(tile, side)) for caption, tile in tiles] for _, tiles in sections]
    cells = [max((tile.shape[0] for _, tile in tiles), default=0) for tiles in shown]  # wide pictures make low rows
    tall = [
        _line(letters + 2) + gap + -(-len(tiles) // columns) * (cell + line + gap)
        for tiles, cell in zip(shown, cells, strict=True)
    ]
    image = Image.new("RGB", (gap + columns * (side + gap), gap + sum(tall)), "white")
    draw, placed, top = ImageDraw.Draw(image), [], gap
    for heading, tiles, cell, full in zip(headings, shown, cells, tall, strict=True):
        draw.text((gap, top), heading, fill=_INK, font=_font(letters + 2))
        for index, (caption, tile) in enumerate(tiles):
            row, column = divmod(index, columns)
            left = gap + column * (side + gap)
            upper = top + _line(letters + 2) + gap + row * (cell + line + gap)
            label = _cut(caption, side, letters)
            draw.text((left + side // 2, upper + cell), label, fill=_INK, font=_font(letters), anchor="ma")
            height, width = tile.shape[:2]  # they stand on their captions, in the middle
            placed.append((upper + cell - height, left + (side - width) // 2, tile))
        top += full
    sheet = _array(image)
    for upper, left, tile in placed:
        sheet[upper : upper + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def thumbnail_map(
    positions: np.ndarray, thumbnails: Sequence[np.ndarray], labels: Sequence[str], *, side: int = 1600
) -> np.ndarray:
    """Thumbnails at their places, in frames whose color is the label's, with a legend below.

    Args:
        positions: `[n, 2]`, rightwards and downwards, of any unit; both axes keep one scale.
        thumbnails: `n` pictures `[h, w, 3]` in [0, 1]; later ones lie upon earlier ones.
        labels: `n` of them; where all are alike there are neither frames nor a legend.
        side: Longest side of the map in pixels, without the legend.

    Returns:
        `[H, W, 3]` float32 in [0, 1].

    Raises:
        ValueError: not as many of each, or places that are not finite.

    >>> thumbnail_map(np.array([[0, 0], [1, 0.5]]), [np.zeros((8, 8, 3))] * 2, ["", ""], side=300).shape
    (195, 300, 3)
    """
    positions = np.asarray(positions, np.float64)
    if positions.shape != (len(thumbnails), 2) or len(labels) != len(thumbnails) or not len(labels):
        raise ValueError(f"{positions.shape} places, {len(thumbnails)} thumbnails and {len(labels)} labels")
    if not np.isfinite(positions).all():
        raise ValueError("places that are not finite")
    tile = min(max(16, round(side * math.sqrt(0.3 / len(thumbnails)))), side // 5)
    margin = max(2, tile // 4)
    room = side - tile - 2 * margin
    span = np.ptp(positions, axis=0)
    places = (positions - positions.min(0)) * (room / (span.max() or 1))
    width, height = (math.ceil(value) + tile + 2 * margin for value in places.max(0))
    named = sorted(set(labels))
    colors = _colors(len(named))
    sheet = np.ones((height, width, 3), np.float32)
    frame = max(2, tile // 10) if len(named) > 1 else 0
    for place, thumbnail, label in zip(np.rint(places).astype(int), thumbnails, labels, strict=True):
        small = _shrunk(thumbnail, tile - 2 * frame)
        h, w = small.shape[:2]
        left, top = margin + place[0] + (tile - w) // 2 - frame, margin + place[1] + (tile - h) // 2 - frame
        if frame:
            sheet[top : top + h + 2 * frame, left : left + w + 2 * frame] = colors[named.index(label)]
        sheet[top + frame : top + frame + h, left + frame : left + frame + w] = small
    return stacked([sheet, _legend(named, colors, width)]) if frame else sheet


def _legend(named, colors, width):
    """Squares of color with their labels, in rows."""
    letters, gap = 16, 12
    shown = [_cut(label, width // 2, letters) for label in named[:_MOST_NAMED]]
    if len(named) > len(shown):
        shown.append(f"and {len(named) - len(shown)} more")
    places, left, top, line = [], gap, gap, _line(letters)
    for label in shown:
        wide = line + 6 + math.ceil(_font(letters).getlength(label))
        if left > gap and left + wide > width - gap:
            left, top = gap, top + line + gap // 2
        places.append((left, top))
        left += wide + 2 * gap
    image = Image.new("RGB", (width, top + line + gap), "white")
    draw = ImageDraw.Draw(image)
    for index, ((left, top), label) in enumerate(zip(places, shown, strict=True)):
        if index < _MOST_NAMED:
            color = tuple(round(255 * value) for value in colors[index])
            draw.rectangle((left, top + 3, left + line - 6, top + line - 3), fill=color)
        draw.text((left + line, top), label, fill=_INK, font=_font(letters))
    return _array(image)


def roc_plot(false_accepts: np.ndarray, false_rejects: np.ndarray, rate: float, *, side: int = 480) -> np.ndarray:
    """The ROC curve: the share of the same that is accepted, over the share of different things that is.

    Args:
        false_accepts: `[t]` in [0, 1], rising.
        false_rejects: `[t]` in [0, 1], falling.
        rate: The equal error rate, marked where the falling diagonal is met.
        side: Of the picture in pixels.

    Returns:
        `[side, side, 3]` float32 in [0, 1].
    """
    letters, left, bottom = 14, 60, 50
    wide = side - left - 20
    top = side - bottom - wide
    at = lambda x, y: (left + x * wide, top + (1 - y) * wide)  # noqa: E731
    scale = 2  # drawn larger and shrunk: Pillow's lines have steps
    image = Image.new("RGB", (scale * side, scale * side), "white")
    draw = ImageDraw.Draw(image)
    line = lambda points, fill, width: draw.line(  # noqa: E731
        [(scale * x, scale * y) for x, y in points], fill=fill, width=scale * width
    )
    for tick in (0, 0.25, 0.5, 0.75, 1):
        line([at(tick, 0), at(tick, 1)], (229, 229, 229), 1)
        line([at(0, tick), at(1, tick)], (229, 229, 229), 1)
    line([at(0, 1), at(1, 0)], _FAINT, 1)
    line([at(x, 1 - y) for x, y in zip(false_accepts, false_rejects, strict=True)], (31, 95, 170), 2)
    x, y = at(rate, 1 - rate)
    draw.ellipse([scale * (value + d) for d in (-5, 5) for value in (x, y)], fill=(200, 40, 40))
    image = image.resize((side, side), Image.Resampling.BOX)
    draw, font = ImageDraw.Draw(image), _font(letters)
    for tick in (0, 0.5, 1):
        draw.text((at(tick, 0)[0], at(0, 0)[1] + 4), f"{tick:g}", fill=_INK, font=font, anchor="ma")
        draw.text((left - 6, at(0, tick)[1]), f"{tick:g}", fill=_INK, font=font, anchor="rm")
    draw.text((left + wide / 2, side - 4), "different, but accepted", fill=_INK, font=font, anchor="md")
    upright = Image.new("L", (wide, _line(letters)))
    ImageDraw.Draw(upright).text((wide // 2, 0), "the same, and accepted", fill=255, font=font, anchor="ma")
    image.paste(_INK, (6, top), upright.rotate(90, expand=True))
    beside = (x + 12, y + 8) if x < left + 0.6 * wide else (x - 12, y - 8)
    anchor = "la" if x < left + 0.6 * wide else "rd"
    draw.text(beside, f"equal error rate {rate:.1%}", fill=(200, 40, 40), font=font, anchor=anchor)
    return _array(image)


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures `[h, w, 3]` one under the other, white beside the narrower ones.

    >>> stacked([np.zeros((2, 3, 3)), np.zeros((1, 5, 3))]).shape
    (3, 5, 3)
    """
    sheet = np.ones((sum(len(one) for one in pictures), max(one.shape[1] for one in pictures), 3), np.float32)
    top = 0
    for one in pictures:
        sheet[top : top + len(one), : one.shape[1]] = one
        top += len(one)
    return sheet


def _colors(count):
    """Hues all around, light and dark in turn: neighbors in the legend are told apart."""
    return [colorsys.hls_to_rgb(index / count, 0.38 if index % 2 else 0.55, 0.85) for index in range(count)]


def _shrunk(tile, side):
    height, width = tile.shape[:2]
    return resize(Picture(np.asarray(tile, np.float32)), fit((width, height), min(side, max(height, width)))).rgb


def _array(image):
    return np.asarray(image, np.float32) / 255


@functools.cache
def _font(letters):
    return ImageFont.load_default(size=letters)


def _line(letters):
    return sum(_font(letters).getmetrics())


def _cut(text, width, letters):
    """`text` on one line, its middle left out where it is wider than `width`."""
    text = "".join(one if one.isprintable() else "?" for one in text)
    kept = len(text)
    shown = text
    while kept and _font(letters).getlength(shown) > width:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown
