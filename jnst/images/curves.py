"""Curves of a training as a picture: panels of lines over the steps. Equal arguments, equal pictures."""

import colorsys
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Panel", "curves_plot"]

Line = tuple[str, Sequence[float], Sequence[float]]
"""A name, and points along x and y; y may be NaN, where the line breaks."""

_INK, _FAINT, _GRID = (34, 34, 34), (110, 110, 110), (229, 229, 229)
_LETTERS = 14
_MOST_NAMED = 16  # lines in a legend
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 34, 30
_SCALE = 2  # drawn larger and shrunk: Pillow's lines have steps


class Panel(NamedTuple):
    """One plot of several lines."""

    title: str
    lines: Sequence[Line]
    limits: tuple[float, float] | None = None
    """Of y; None: from 0 or what is lowest to what all but the highest 2 percent reach."""


def curves_plot(panels: Sequence[Panel], *, size: tuple[int, int] = (900, 320), x_name: str = "step") -> np.ndarray:
    """Panels one under the other, all over the same x, with a legend each.

    Args:
        panels: At least one.
        size: Width and height of a panel in pixels.
        x_name: What stands below.

    Returns:
        `[H, W, 3]` float32 in [0, 1].

    >>> curves_plot([Panel("loss", [("a", [1, 2, 3], [3.0, 2.0, float("nan")])])], size=(300, 200)).shape
    (220, 300, 3)
    """
    width, height = size
    xs = [float(x) for panel in panels for _, points, _ in panel.lines for x in points]
    span = _span(xs, low=0.0)
    image = Image.new("RGB", (_SCALE * width, _SCALE * height * len(panels)), "white")
    draw = ImageDraw.Draw(image)
    frames = [_Frame((width, height), place * height, span, _limits(panel)) for place, panel in enumerate(panels)]
    for frame, panel in zip(frames, panels, strict=True):
        frame.draw(draw, panel)
    image = image.resize((width, height * len(panels)), Image.Resampling.BOX)
    whole = Image.new("RGB", (width, height * len(panels) + 20), "white")
    whole.paste(image, (0, 0))
    draw = ImageDraw.Draw(whole)
    for frame, panel in zip(frames, panels, strict=True):
        frame.write(draw, panel)
    draw.text(((_LEFT + width - _RIGHT) / 2, whole.height - 4), x_name, fill=_INK, font=_font(), anchor="md")
    return np.asarray(whole, np.float32) / 255


class _Frame:
    """Where a panel stands and what its axes reach."""

    def __init__(self, size, top, across, up):
        self.left, self.right = _LEFT, size[0] - _RIGHT
        self.top, self.bottom = top + _TOP, top + size[1] - _BOTTOM
        self.across, self.up = across, up

    def x(self, value):
        low, high = self.across
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value):
        low, high = self.up
        return self.bottom - (min(max(value, low), high) - low) / (high - low) * (self.bottom - self.top)

    def draw(self, draw, panel):
        scaled = lambda points: [(_SCALE * x, _SCALE * y) for x, y in points]  # noqa: E731
        for tick in _ticks(*self.up):
            draw.line(scaled([(self.left, self.y(tick)), (self.right, self.y(tick))]), fill=_GRID, width=_SCALE)
        for tick in _ticks(*self.across):
            draw.line(scaled([(self.x(tick), self.top), (self.x(tick), self.bottom)]), fill=_GRID, width=_SCALE)
        for (_, xs, ys), color in zip(panel.lines, _colors(len(panel.lines)), strict=True):
            for points in _pieces(xs, ys):
                places = [(self.x(x), self.y(y)) for x, y in points]
                if len(places) == 1:
                    (x, y) = places[0]
                    draw.ellipse([_SCALE * side for side in (x - 3, y - 3, x + 3, y + 3)], fill=color)
                else:
                    draw.line(scaled(places), fill=color, width=2 * _SCALE, joint="curve")

    def write(self, draw, panel):
        font = _font()
        for tick in _ticks(*self.up):
            draw.text((self.left - 6, self.y(tick)), f"{tick:g}", fill=_INK, font=font, anchor="rm")
        for tick in _ticks(*self.across):
            draw.text((self.x(tick), self.bottom + 4), f"{tick:g}", fill=_INK, font=font, anchor="ma")
        draw.text((self.left, self.top - 8), panel.title, fill=_INK, font=font, anchor="ls")
        at = self.left + font.getlength(panel.title) + 24
        for number, ((name, *_), color) in enumerate(zip(panel.lines, _colors(len(panel.lines)), strict=True)):
            more = len(panel.lines) - number
            rest = 110 if more > 1 else 0  # for the words about those that do not fit
            if number >= _MOST_NAMED or at + 18 + font.getlength(name) + rest > self.right:
                draw.text((at, self.top - 8), f"and {more} more", fill=_FAINT, font=font, anchor="ls")
                return
            draw.rectangle((at, self.top - 18, at + 12, self.top - 8), fill=color)
            draw.text((at + 18, self.top - 8), name, fill=_INK, font=font, anchor="ls")
            at += 18 + font.getlength(name) + 20


def _pieces(xs, ys):
    """The points between those that are not finite."""
    piece = []
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            piece.append((float(x), float(y)))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _limits(panel):
    if panel.limits is not None:
        return panel.limits
    values = np.array([float(y) for _, _, ys in panel.lines for y in ys if math.isfinite(y)])
    if not len(values):
        return 0.0, 1.0
    # A few of a training's first steps would else leave no room for all others.
    high = 1.05 * float(np.quantile(values, 0.98)) if values.min() >= 0 else float(values.max())
    return _span([float(values.min()), high], low=0.0)


def _span(values, low):
    start, end = min([low, *values]), max([low, *values])
    return (start, end) if end > start else (start, start + 1)


def _ticks(low, high):
    """Round numbers from low to high, four to nine of them.

    >>> _ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= 0.999 * rough)
    return [
        round(step * number, 10) for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _colors(count):
    """Hues all around, from blue."""
    hues = [(0.6 + index / max(2, count)) % 1 for index in range(count)]
    found = [colorsys.hls_to_rgb(hue, 0.4 if index % 2 else 0.47, 0.75) for index, hue in enumerate(hues)]
    return [tuple(round(255 * part) for part in color) for color in found]


@functools.cache
def _font():
    return ImageFont.load_default(size=_LETTERS)
