"""Draw the quickstart's content picture: a small harbour town at evening, mirrored in calm water.

The picture is built back to front from planes (sky, hills, town, quay), each drawn as flat shapes at three
times the final size, given a little texture, and veiled with haze according to its distance. The water is
the finished upper half turned over, shaken by ripples that grow towards the viewer, and tinted with depth;
the sun's glitter and the boats, each with its own reflection, come last.

Usage: python draw_content.py [OUTPUT]      (default: harbor.jpg beside this script)
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 768, 576
SCALE = 3  # shapes are drawn at three times the size and reduced, which smooths their edges
SHORE = 374  # the water line
SUN = (262, 268)
HAZE = (250, 206, 160)
# The sky from the zenith down to the shore: height in the picture, then colour.
SKY = np.array(
    [(0, 58, 98, 152), (90, 104, 146, 184), (180, 176, 190, 190), (260, 248, 208, 150), (330, 252, 180, 108)],
    np.float32,
)
FAR_HILLS = ((0, 306), (90, 286), (190, 318), (290, 330), (400, 276), (520, 230), (640, 262), (768, 216))
NEAR_HILLS = ((0, 352), (140, 344), (230, 356), (320, 340), (420, 282), (540, 270), (660, 250), (768, 236))
ROCKS = ((0, 312), (38, 308), (74, 318), (120, 322), (158, 334), (186, 352), (212, 366), (230, SHORE + 2))
TREES = (
    (372, 306, 26),
    (330, 336, 30),
    (420, 284, 28),
    (536, 270, 36),
    (582, 262, 30),
    (642, 252, 40),
    (700, 250, 44),
    (752, 232, 44),
)  # x, y, size
# x, width, height of the eaves, height of the gable, wall, roof
HOUSES = (
    (352, 50, 66, 44, (232, 196, 132), (150, 62, 44)),
    (402, 44, 88, 42, (200, 106, 76), (96, 48, 48)),
    (446, 56, 74, 50, (240, 226, 196), (168, 76, 50)),
    (502, 46, 98, 46, (116, 142, 158), (64, 54, 70)),
    (548, 54, 80, 48, (228, 172, 88), (154, 64, 42)),
    (602, 44, 102, 44, (238, 214, 180), (92, 50, 52)),
    (646, 58, 76, 52, (184, 88, 70), (70, 52, 62)),
    (704, 66, 92, 54, (222, 200, 150), (158, 68, 46)),
)
DARK, CREAM = (58, 46, 56), (246, 234, 208)
# Boats, their corners in hundredths of their size: hull, strake, mast, mainsail, its shaded luff and the jib
SLOOP = (
    ((-44, -13), (50, -15), (36, 1), (-34, 1)),
    ((-44, -13), (50, -15), (48, -11), (-42, -9.5)),
    ((-1, -13), (-1, -122), (1, -122), (1, -13)),
    ((-2, -119), (-2, -22), (-46, -24), (-30, -62)),
    ((-2, -119), (-2, -22), (-15, -23)),
    ((3, -108), (46, -19), (4, -24)),
)
# An open boat likewise: hull, the inside in shadow, and the rail
ROWBOAT = (
    ((-50, -22), (-36, 0), (36, 0), (54, -24)),
    ((-50, -22), (54, -24), (40, -15), (-38, -15)),
    ((-51, -24), (55, -26), (54, -22), (-50, -20)),
)
# Far to near: water line, x, size, shapes and their colours
FLEET = (
    (392, 566, 46, ROWBOAT, ((150, 56, 44), (75, 28, 22), CREAM)),
    (398, 690, 62, SLOOP, ((60, 84, 110), CREAM, DARK, (236, 214, 176), (188, 171, 140), CREAM)),
    (448, 388, 128, SLOOP, ((44, 40, 58), CREAM, DARK, (206, 92, 50), (164, 73, 40), CREAM)),
    (508, 186, 96, ROWBOAT, ((46, 74, 92), (23, 37, 46), CREAM)),
)


def tint(colour, factor):
    """A colour made darker or lighter."""
    return tuple(int(min(255, max(0, c * factor))) for c in colour)


def rgb(r, g, b):
    return np.array((r, g, b), np.float32)


def smooth_noise(rng, cell_x, cell_y, octaves):
    """Noise around 0 (deviation 1) whose coarsest cells measure cell_x by cell_y pixels."""
    total = np.zeros((HEIGHT * SCALE, WIDTH * SCALE), np.float32)
    for k in range(octaves):
        shape = (int(HEIGHT / cell_y * 2**k) + 2, int(WIDTH / cell_x * 2**k) + 2)
        cells = Image.fromarray(rng.standard_normal(shape).astype(np.float32))
        total += np.asarray(cells.resize(total.shape[::-1], Image.Resampling.BICUBIC)) * 0.5**k
    return total / total.std()


def sample(array, x, y):
    """Read an array at positions given in final-size coordinates, held inside its edges."""
    row = np.clip(y * SCALE, 0, HEIGHT * SCALE - 1).astype(int)
    return array[row, np.clip(x * SCALE, 0, WIDTH * SCALE - 1).astype(int)]


def grid():
    y, x = np.mgrid[0 : HEIGHT * SCALE, 0 : WIDTH * SCALE].astype(np.float32)
    return x / SCALE, y / SCALE


class Plane:
    """A transparent sheet to draw flat shapes on, in final-size coordinates."""

    def __init__(self):
        self.image = Image.new("RGBA", (WIDTH * SCALE, HEIGHT * SCALE), (0, 0, 0, 0))
        self.pen = ImageDraw.Draw(self.image)

    def poly(self, colour, *points):
        self.pen.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=colour)

    def box(self, colour, x0, y0, x1, y1):
        self.pen.rectangle((x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE), fill=colour)

    def dot(self, colour, x, y, rx, ry):
        corners = (x - rx, y - ry, x + rx, y + ry)
        self.pen.ellipse([c * SCALE for c in corners], fill=colour)

    def over(self, canvas, texture=0.0, haze=0.0):
        """Lay this sheet over the canvas (floats), textured and veiled."""
        sheet = np.asarray(self.image, np.float32)
        alpha = sheet[..., 3:] / 255
        colour = sheet[..., :3] * (1 + np.asarray(texture)[..., None])
        return canvas * (1 - alpha) + (colour * (1 - haze) + rgb(*HAZE) * haze) * alpha


def sky(rng):
    """A gradient from blue to gold, the sun with its glow, and streaks of cloud lit from below."""
    x, y = grid()
    out = np.stack([np.interp(y, SKY[:, 0], SKY[:, c]) for c in (1, 2, 3)], -1).astype(np.float32)
    out += np.exp(-np.hypot(x - SUN[0], (y - SUN[1]) * 1.25) / 95)[..., None] * rgb(110, 74, 26)
    cloud = smooth_noise(rng, 230, 62, 5) + 0.5 * smooth_noise(rng, 420, 150, 2) - 0.1
    cloud -= np.clip((y - 210) / 60, 0, 4)  # the sky clears towards the horizon
    cover = 0.9 * np.clip(cloud * 0.9, 0, 1)[..., None]
    # Where a cloud thins out downwards it faces the low sun, so that edge is the bright one.
    facing = np.clip(sample(cloud, x, y - 9) - cloud, -1, 1)[..., None]
    out = out * (1 - cover) + (rgb(222, 176, 172) + facing * rgb(60, 56, 26)) * cover
    disc = np.clip(23.5 - np.hypot(x - SUN[0], y - SUN[1]), 0, 1)[..., None]
    return out * (1 - disc) + rgb(255, 248, 214) * disc


def ridge(plane, colour, knots):
    """Hills: a smooth line through (x, y) knots, filled down to the shore."""
    xs = np.arange(0, WIDTH + 4, 3)
    ys = np.interp(xs, *np.array(knots, float).T)
    ys = np.convolve(np.pad(ys, 12, mode="edge"), np.hanning(25) / 12, "valid")
    plane.poly(colour, (0, SHORE), *zip(xs, ys, strict=True), (WIDTH, SHORE))


def tree(plane, rng, x, y, size, colour):
    """A crown of leaf clumps, dark at the lower right and warm where the sun touches the upper left."""
    for k in np.linspace(0, 1, 150):  # the last clumps lie on top: they are smaller and catch more light
        reach, angle = size * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        dx, dy = 0.86 * reach * np.cos(angle), reach * np.sin(angle)
        sun = -k * (dx + dy) / size
        r = size * rng.uniform(0.10, 0.20) * (1.25 - 0.68 * k)
        red, green, blue = tint(colour, 0.8 + 0.30 * sun + rng.normal(0, 0.07))
        warm = 46 * max(0.0, sun)
        plane.dot((int(red + warm), int(green + 0.7 * warm), blue), x + dx, y + dy, r, 0.85 * r)


def window(plane, x, y, w, h, lit):
    plane.box(CREAM, x - 1.2, y - 1.2, x + w + 1.2, y + h + 1.6)
    plane.box((255, 214, 122) if lit else (52, 58, 78), x, y, x + w, y + h)
    plane.box(CREAM, x + w / 2 - 0.5, y, x + w / 2 + 0.3, y + h)
    plane.box(CREAM, x, y + h * 0.4, x + w, y + h * 0.4 + 0.7)


def house(plane, rng, x, w, eaves, gable, wall, roof, stepped):
    """A gabled front: chimney, roof, wall with its right side in shade, rows of windows and a door."""
    base, top, mid = SHORE - 8, SHORE - 8 - eaves, x + w / 2
    pot = x + w * rng.uniform(0.70, 0.78)
    plane.box(tint(roof, 0.72), pot, top - gable * 0.78, pot + 6, top)
    plane.box(tint(wall, 0.8), pot - 1, top - gable * 0.80, pot + 7, top - gable * 0.72)
    plane.poly(roof, (x - 4, top + 4), (mid, top - gable - 5), (x + w + 4, top + 4))
    # Up the left slope and, mirrored, down the right one; doubled corners turn a slope into steps.
    corners = [(k // 2, (k + 1) // 2) for k in range(10)] if stepped else [(0, 0), (5, 5)]
    slope = [(a * w / 10, top + 4 - b * (gable - 1) / 5) for a, b in corners]
    front = [(x + a, b) for a, b in slope] + [(x + w - a, b) for a, b in reversed(slope)]
    plane.poly(wall, (x, base), *front, (x + w, base))
    edge = top + 4 - (0 if stepped else 0.4 * gable)
    plane.poly(tint(wall, 0.84), (x + 0.8 * w, base), (x + 0.8 * w, edge), (x + w, top + 4), (x + w, base))
    plane.box(tint(wall, 0.62), x - 0.6, top + 4, x + 0.6, base)
    columns = 3 if w > 48 else 2
    for row in range(eaves // 25):
        for c in range(columns):
            pane_x = x + w * (c + 0.5) / columns - 3.4
            window(plane, pane_x, top + 8 + row * 24, 6.8, 11.5, rng.random() < 0.3)
    window(plane, mid - 3.2, top - gable * 0.42, 6.4, 9, rng.random() < 0.5)
    plane.box(tint(roof, 0.62), mid - 5, base - 15, mid + 5, base)


def church(plane, x, base):
    """A tower with a tall spire, lit from the left."""
    for left, wall, slate in ((-1.0, (206, 168, 132), (96, 108, 112)), (0.2, (158, 120, 108), (62, 70, 84))):
        plane.box(wall, x + 16 * left, base - 150, x + 16, base)
        plane.poly(slate, (x + 19 * left, base - 148), (x, base - 236), (x + 19, base - 148))
    plane.box(DARK, x - 0.8, base - 248, x + 0.8, base - 232)
    plane.box(DARK, x - 6, base - 138, x + 2, base - 118)
    plane.dot(DARK, x - 2, base - 138, 4, 5)


def lighthouse(plane, x, base):
    """A tapering tower in red and white bands, brighter on the side that faces the sun."""
    width, height = np.linspace(20, 12, 7), np.linspace(base, base - 172, 7)
    for k in range(6):
        colour = ((196, 58, 44), CREAM)[k % 2]
        for a, b, factor in ((-1, -0.3, 0.66), (-0.3, 0.35, 0.86), (0.35, 1, 1.02)):
            corners = ((a, k), (a, k + 1), (b, k + 1), (b, k))
            plane.poly(tint(colour, factor), *((x + side * width[i], height[i]) for side, i in corners))
    top = base - 172
    plane.box(DARK, x - 17, top - 4, x + 17, top + 1)
    plane.box((255, 226, 140), x - 9, top - 23, x + 9, top - 4)
    for dx in (-9, -3, 3, 9):
        plane.box(DARK, x + dx - 0.7, top - 23, x + dx + 0.7, top - 4)
    plane.box(DARK, x - 0.8, top - 48, x + 0.8, top - 36)
    plane.poly((164, 48, 42), (x - 13, top - 22), (x, top - 40), (x + 13, top - 22))


def headland(plane, rng):
    """Rocks at the left with turf, the keeper's cottage and the lighthouse."""
    plane.poly((82, 62, 66), (0, SHORE + 2), *ROCKS)
    for _ in range(170):
        x, w, h = rng.uniform(0, 225), rng.uniform(5, 15), rng.uniform(3, 8)
        y = rng.uniform(np.interp(x, *np.array(ROCKS).T) + 2, SHORE + 1)
        tone = tint((112, 84, 76), rng.uniform(0.55, 1.1) + 0.25 * (x > 150))
        crest = (x - 0.4 * w, y - 0.4 * h), (x + 0.5 * w, y - 0.6 * h)
        plane.poly(tone, (x - w, y + h), *crest, (x + w, y + h))
    plane.poly((92, 98, 58), (0, 318), (0, 309), (40, 304), (80, 314), (128, 319), (150, 330), (90, 326))
    plane.box((238, 216, 182), 28, 288, 66, 314)
    plane.poly((150, 62, 46), (22, 290), (33, 268), (60, 268), (72, 290))
    window(plane, 36, 296, 6, 9, True)
    window(plane, 52, 296, 6, 9, False)
    lighthouse(plane, 112, 322)


def land(canvas, rng):
    """Everything that stands above the water, far to near."""
    grain = np.clip(0.035 * smooth_noise(rng, 9, 9, 3), -0.12, 0.12)
    far, middle, near, town = Plane(), Plane(), Plane(), Plane()
    ridge(far, (128, 128, 160), FAR_HILLS)
    ridge(middle, (104, 112, 108), NEAR_HILLS)
    church(near, 478, SHORE - 20)
    for x, y, size in TREES:
        tree(near, rng, x, y, size, (52, 76, 56))
    town.box((96, 78, 76), 296, SHORE - 9, WIDTH, SHORE + 1)
    town.box((206, 176, 142), 296, SHORE - 10, WIDTH, SHORE - 7)
    for x in range(300, WIDTH, 13):
        town.box((70, 56, 60), x, SHORE - 7, x + 1, SHORE)
    tree(town, rng, 322, 346, 22, (56, 80, 54))
    for k, spec in enumerate(HOUSES):
        house(town, rng, *spec, stepped=k % 3 == 1)
    headland(town, rng)
    for plane, haze in ((far, 0.42), (middle, 0.28), (near, 0.08), (town, 0)):
        canvas = plane.over(canvas, grain, haze)
    x, y = grid()
    glow = np.exp(-np.hypot(x - SUN[0], y - SUN[1]) / 120)[..., None]  # light spills over nearby edges
    return canvas + glow * rgb(46, 26, 4)


def water(canvas, rng):
    """Turn the land over into the water. Returns the picture and how far the ripples shift a reflection."""
    x, y = grid()
    depth = np.clip((y - SHORE) / (HEIGHT - SHORE), 0, 1)
    # Reading an even sheet of noise ever more slowly makes ripples that broaden towards the viewer.
    near_x = WIDTH / 2 + (x - WIDTH / 2) * (1 - 0.55 * depth)
    ripple = sample(smooth_noise(rng, 40, 9, 3), near_x, HEIGHT * (0.06 + 0.93 * depth**0.62))
    swell = ripple * (0.8 + 9 * depth)
    mirror = sample(canvas, x + 0.45 * swell, np.clip(2 * SHORE - y - 1 + swell, 0, SHORE - 2))
    # Looking down steeply, near the viewer, more of the water's own colour shows.
    share = np.clip(0.14 + 0.46 * depth + 0.05 * ripple, 0, 0.85)[..., None]
    out = mirror * 0.95 * (1 - share) + (rgb(34, 66, 96) + ripple[..., None] * rgb(7, 10, 12)) * share
    path = np.exp(-(((x - SUN[0]) / (12 + 50 * depth)) ** 2))
    glitter = np.clip(1.6 * (ripple + 1.5 * path - 0.75), 0, 1) * path
    out = np.minimum(out + glitter[..., None] * rgb(171, 135, 76), 255)
    return np.where((y < SHORE)[..., None], canvas, out), swell


def boat(plane, base, x, size, shapes, colours):
    for shape, colour in zip(shapes, colours, strict=True):
        plane.poly(colour, *((x + px * size / 100, base + py * size / 100) for px, py in shape))


def piles(plane, base, x):
    """Three mooring piles bound together: the dark foreground that gives the water its depth."""
    for foot, head, height in ((-15, -9, 76), (14, 7, 70), (0, 0, 92)):
        foot, head, top = x + foot, x + head, base - height
        for edge, colour in ((7, (50, 36, 44)), (-3, (168, 104, 66))):
            plane.poly(colour, (foot - 7, base), (head - 6, top), (head + edge, top), (foot + edge, base))
        plane.dot((196, 150, 108), head, top, 6.5, 2.4)
    plane.box((206, 170, 120), x - 18, base - 54, x + 16, base - 46)


def floating(canvas, swell, base, draw_on, *args):
    """Lay something that floats at height `base` over the water, above its own broken reflection."""
    plane = Plane()
    draw_on(plane, base, *args)
    x, y = grid()
    mirror = sample(np.asarray(plane.image, np.float32), x + 0.6 * swell, 2 * base - y + 0.5 * swell)
    fade = np.clip(0.80 - (y - base) / 190, 0.25, 1) * (y >= base)
    alpha = mirror[..., 3:] / 255 * fade[..., None]
    return plane.over(canvas * (1 - alpha) + (mirror[..., :3] * 0.78 + rgb(8, 16, 24)) * alpha)


def draw(seed=11):
    """Return the picture as a (HEIGHT, WIDTH, 3) uint8 array."""
    rng = np.random.default_rng(seed)
    canvas, swell = water(land(sky(rng), rng), rng)
    for base, *spec in FLEET:
        canvas = floating(canvas, swell, base, boat, *spec)
    canvas = floating(canvas, swell, 532, piles, 706)
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    path = Path(argv[0]) if argv else Path(__file__).with_name("harbor.jpg")
    Image.fromarray(draw()).save(path, quality=92)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
