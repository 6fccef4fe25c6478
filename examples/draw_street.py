"""Draw a street as pix2pix's facades have it: rectangles, each of the color of its kind.

Three houses on a ground of the color of what is no facade; the colors are those of the CMP facades' labels (Tylecek &
Sara 2013), so that a network that was trained from labels to photos makes a photo of it:

    bin/pix2pix test out/facades examples/street.png out/street.png --pairs=no

Usage: python draw_street.py [OUTPUT]      (default: street.png beside this script)
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 512, 256
GROUND, WALL, WINDOW, CORNICE = (0, 0, 222), (0, 48, 255), (0, 128, 255), (255, 80, 0)
DOOR, SILL, BALCONY, BLIND = (0, 208, 255), (111, 255, 144), (192, 255, 63), (255, 240, 0)
# Left edge, width, height of the roof from above, floors, windows a floor, whether blinds, the floor with balconies.
HOUSES = ((8, 150, 40, 3, 5, True, None), (158, 190, 16, 4, 5, False, 1), (348, 156, 58, 3, 4, False, None))


def _draw_house(box, left, width, top, floors, columns, blinds, balcony):
    box(WALL, left, top, width, HEIGHT - top)
    box(CORNICE, left, top, width, 9)
    rows, step = (HEIGHT - top - 58) / floors, width / columns
    for column in range(columns):
        middle, across, down = left + (column + 0.5) * step, int(step * 0.42), int(rows * 0.62)
        edge = int(middle - across / 2)
        for floor in range(floors):
            y = int(top + 18 + floor * rows)
            box(WINDOW, edge, y, across, down)
            box(SILL, edge - 2, y + down, across + 4, 3)
            if blinds:
                box(BLIND, edge - 6, y, 6, down)
                box(BLIND, int(middle + across / 2), y, 6, down)
            if floor == balcony and column % 2:
                box(BALCONY, int(middle - across), y + down - 8, 2 * across, 12)
        wide = int(step * 0.45)
        kind, y, high = (DOOR, 220, 36) if column == columns // 2 else (WINDOW, 221, 28)
        box(kind, int(middle - wide / 2), y, wide, high)
    box(CORNICE, left, 210, width, 5)


def draw():
    """The picture, [256, 512, 3] uint8."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    paint = ImageDraw.Draw(picture)
    for house in HOUSES:
        _draw_house(lambda color, x, y, w, h: paint.rectangle((x, y, x + w - 1, y + h - 1), fill=color), *house)
    return np.asarray(picture)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    path = Path(argv[0]) if argv else Path(__file__).with_name("street.png")
    Image.fromarray(draw()).save(path, optimize=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
