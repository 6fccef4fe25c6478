"""A grid's pictures on one sheet, with what was varied written beside them."""

import bisect
import dataclasses
import functools
import itertools
import math
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jnst.images.picture import Picture, fit, resize

__all__ = ["labelled_sheet"]

_LONGEST = 16384
# In memory 12 bytes a pixel, and a multiple of it while a file is made of them.
_MOST_PIXELS = 2**25
_SMALLEST = 32
_WIDEST_HEADING = 512

_INK, _FAINT, _EMPTY = (34, 34, 34), (110, 110, 110), (229, 229, 229)


def labelled_sheet(
    axes: Sequence[tuple[str, Sequence[str]]], tiles: Sequence[np.ndarray | str], *, tile: int = 256
) -> np.ndarray:
    """Pictures by what was varied: the first axis goes across, the second down, every choice of the others is a page.

    Pages stand one under the other. At most 16384 pixels on a side and 32 Mi in all: pictures shrink until the sheet
    is that small, and where 32 pixels a picture are still too many, the last pages, rows and columns are left out and
    counted in a line at the end. Equal arguments, equal sheets.

    Args:
        axes: Names and shown values.
        tiles: One for each combination, as `itertools.product` orders them (the last axis varies fastest): a picture
            `[h, w, 3]` in [0, 1] of any size, or why there is none ("not yet").
        tile: Longest side of a picture on the sheet in pixels, at least 32. No picture is enlarged.

    Returns:
        `[H, W, 3]` float32 in [0, 1].

    Raises:
        ValueError: more or fewer tiles than combinations.

    >>> labelled_sheet([("steps", ["1", "2", "3"])], [np.zeros((40, 40, 3)), "not yet", "not yet"]).shape
    (68, 140, 3)
    """
    if len(tiles) != math.prod(len(values) for _, values in axes):
        raise ValueError(f"{len(tiles)} tiles for a grid of {' x '.join(str(len(values)) for _, values in axes)}")
    sizes = {(one.shape[1], one.shape[0]) for one in tiles if not isinstance(one, str)}
    largest = max(_SMALLEST, min(tile, max(map(max, sizes), default=tile)))
    sides = range(_SMALLEST, largest + 1)
    too_large = bisect.bisect_left(sides, True, key=lambda side: not _Layout.of(axes, sizes, side).fits)
    layout = _Layout.of(axes, sizes, sides[max(0, too_large - 1)])
    return _draw(layout if layout.fits else layout.cut(), tiles)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where everything stands, in pixels; `columns`, `rows` and `pages` are how many of each are shown."""

    across: tuple[str, tuple[str, ...]]
    down: tuple[str, tuple[str, ...]]
    headings: tuple[str, ...]
    columns: int
    rows: int
    pages: int
    longest: int
    cell: tuple[int, int]
    letters: int
    gap: int

    @classmethod
    def of(cls, axes, sizes, longest):
        """The whole grid, its pictures with this longest side."""
        named = [(_plain(name), tuple(map(_plain, values))) for name, values in axes]
        across, down, *others = [*named, *[("", ("",))] * (2 - len(named))]
        choices = itertools.product(*([f"{name}={value}" for value in values] for name, values in others))
        headings = tuple("   ".join(choice) for choice in choices)
        shown = [_shrunk(size, longest) for size in sizes] or [(longest, longest)]
        cell = tuple(max(_SMALLEST, *sides) for sides in zip(*shown, strict=True))
        letters, gap = max(9, min(16, longest // 12)), max(4, longest // 32)
        counts = len(across[1]), len(down[1]), len(headings)
        return cls(across, down, headings, *counts, longest, cell, letters, gap)

    @functools.cached_property
    def line(self):
        """Height of a line of text."""
        return _line(self.letters)

    @functools.cached_property
    def row_labels(self):
        return _labels(*self.down, max(192, self.cell[0]), self.letters)

    @functools.cached_property
    def column_labels(self):
        return _labels(*self.across, self.cell[0] - 4, self.letters)

    @functools.cached_property
    def left(self):
        """Where the first column starts: right of the rows' labels."""
        return 2 * self.gap + max(math.ceil(_width(label, self.letters)) for label in self.row_labels)

    @property
    def page_height(self):
        """From one page's top to the next one's."""
        heading = _line(self.letters + 2) + 4 * self.gap if self.headings != ("",) else 0
        return heading + self.line + self.gap + self.rows * (self.cell[1] + self.gap) + self.gap

    @property
    def left_out(self):
        """The line about what is not shown; empty where all is."""
        missing = {
            "column": len(self.across[1]) - self.columns,
            "row": len(self.down[1]) - self.rows,
            "page": len(self.headings) - self.pages,
        }
        parts = [f"{count} more {name}{'s' * (count > 1)}" for name, count in missing.items() if count]
        return f"and {', '.join(parts)}" if parts else ""

    @property
    def size(self):
        """Width and height of the sheet."""
        wanted = max(_width(heading, self.letters + 2) for heading in (*self.headings[: self.pages], self.left_out))
        texts = 2 * self.gap + min(math.ceil(wanted), _WIDEST_HEADING)
        width = max(texts, self.left + self.columns * (self.cell[0] + self.gap))
        return width, self.gap + self.pages * self.page_height + (self.line + self.gap) * bool(self.left_out)

    @property
    def fits(self):
        width, height = self.size
        return max(width, height) <= _LONGEST and width * height <= _MOST_PIXELS

    def cut(self):
        """As many columns, rows and pages as fit, of each at least one."""
        found = self._most("columns", lambda layout: layout.size[0] <= _LONGEST)
        found = found._most("pages", lambda layout: layout.fits)
        return found if found.fits else found._most("rows", lambda layout: layout.fits)

    def _most(self, name, holds):
        """With as much of what `name` counts as `holds`; 1 where nothing does."""
        layouts = [dataclasses.replace(self, **{name: count}) for count in range(getattr(self, name), 0, -1)]
        return layouts[min(bisect.bisect_left(layouts, True, key=holds), len(layouts) - 1)]


def _draw(layout, tiles):
    """The sheet of a layout that fits."""
    image = Image.new("RGB", layout.size, "white")
    draw, gap, (width, height) = ImageDraw.Draw(image), layout.gap, layout.cell
    pictures = []
    pitch = len(layout.down[1]) * len(layout.headings), len(layout.headings), 1
    for page in range(layout.pages):
        top = gap + page * layout.page_height
        if layout.headings != ("",):
            heading = _cut(layout.headings[page], layout.size[0] - 2 * gap, layout.letters + 2)
            _write(draw, (gap, top + gap), heading, layout.letters + 2, "la")
            top += _line(layout.letters + 2) + 2 * gap
        for column, label in enumerate(layout.column_labels[: layout.columns]):
            _write(draw, (layout.left + column * (width + gap) + width // 2, top), label, layout.letters, "ma")
        top += layout.line + gap
        for row, label in enumerate(layout.row_labels[: layout.rows]):
            middle = top + row * (height + gap) + height // 2
            _write(draw, (layout.left - gap, middle), label, layout.letters, "rm")
        for row, column in itertools.product(range(layout.rows), range(layout.columns)):
            tile = tiles[sum(place * step for place, step in zip((column, row, page), pitch, strict=True))]
            corner = layout.left + column * (width + gap), top + row * (height + gap)
            if isinstance(tile, str):
                draw.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), fill=_EMPTY)
                _write_inside(draw, corner, layout, tile)
            else:
                pictures.append((corner, tile))
    if layout.left_out:
        _write(draw, (gap, gap + layout.pages * layout.page_height), layout.left_out, layout.letters, "la")
    sheet = np.array(image, np.float32)
    sheet /= 255
    for (left, top), tile in pictures:
        size = _shrunk((tile.shape[1], tile.shape[0]), layout.longest)
        left, top = left + (width - size[0]) // 2, top + (height - size[1]) // 2
        sheet[top : top + size[1], left : left + size[0]] = resize(Picture(tile), size).rgb
    return sheet


def _shrunk(size, longest):
    return fit(size, min(longest, max(size)))


# ---- text


@functools.cache
def _font(letters):
    return ImageFont.load_default(size=letters)


def _width(text, letters):
    return _font(letters).getlength(text)


def _line(letters):
    return sum(_font(letters).getmetrics())


def _plain(text):
    """`text` on one line, nearer to what Pillow's font has: no accents, nothing that is no letter at all."""
    folded = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return "".join(one if one.isprintable() else "?" for one in folded)


def _labels(name, values, width, letters):
    """`name=value` for each value, none wider than `width`; what tells them apart is kept as long as it can be."""
    if not name or all(_width(f"{name}={value}", letters) <= width for value in values):
        return [f"{name}={value}" if name else value for value in values]
    short = _cut(name, width - max(_width(f"={value}", letters) for value in values), letters)
    if len(short) > 2:
        return [f"{short}={value}" for value in values]
    for kept in (f"{name}=", ""):
        cut = [_cut(f"{kept}{value}", width, letters) for value in values]
        if len(set(cut)) == len(set(values)) and all(label.startswith(kept) for label in cut):
            return cut
    start = _common(values)
    end = _common([value[start:][::-1] for value in values])
    return [_cut(f"…{value[start : len(value) - end]}{'…' * bool(end)}", width, letters) for value in values]


def _common(texts):
    """How many characters all begin with."""
    same = (len(set(letters)) == 1 for letters in zip(*texts, strict=False))
    return sum(itertools.takewhile(bool, same))


def _cut(text, width, letters):
    """`text`, its middle left out where it is wider than `width`."""
    if _width(text, letters) <= width:
        return text

    def shortened(kept):
        return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"

    wide = bisect.bisect_left(range(len(text)), True, key=lambda kept: _width(shortened(kept), letters) > width)
    return shortened(max(0, wide - 1))


def _write(draw, place, text, letters, anchor, fill=_INK):
    draw.text(place, text, fill=fill, font=_font(letters), anchor=anchor)


def _write_inside(draw, corner, layout, text):
    """Words in the middle of a cell, as many lines of them as it holds."""
    width, height = layout.cell
    lines = [""]
    for word in _plain(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(longer, layout.letters) > width - 4:
            lines.append(word)
        else:
            lines[-1] = longer
    lines = lines[: max(1, height // layout.line)]
    top = corner[1] + (height - len(lines) * layout.line) // 2
    for number, line in enumerate(lines):
        shown = _cut(line, width - 4, layout.letters)
        place = corner[0] + width // 2, top + number * layout.line
        _write(draw, place, shown, layout.letters, "ma", _FAINT)
