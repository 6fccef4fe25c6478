"""Draw the quickstart's style picture: a swirling field of thick, directional oil-paint strokes.

A stream function (a gentle current, a handful of vortices and some turbulence) gives both the direction of
every stroke and the bands of colour it belongs to, so colour and gesture follow the same curves. Strokes are
laid from broad to fine. Each is a tapered ribbon that bends along the flow, with bristle streaks of slightly
different paint, and is drawn twice: once in colour and once into a height map. Lighting the height map from
the upper left makes the strokes read as raised paint.

Usage: python draw_style.py [OUTPUT]      (default: strokes.jpg beside this script)
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 768, 576
SCALE = 2  # strokes are drawn at twice the size and reduced, which smooths their edges

# (x, y, radius, turn): eddies of the flow; the sign of `turn` is the sense of rotation.
VORTICES = (
    (205, 190, 105, 1.00),
    (520, 335, 125, -1.15),
    (610, 100, 66, 0.80),
    (90, 440, 72, -0.75),
    (335, 480, 62, 0.70),
    (385, 75, 50, -0.55),
    (722, 500, 70, 0.70),
)

# The cool ramp colours the current, from deep to light; the warm ramp colours the eddies, from rim to core.
COOL = np.array(
    [
        (13, 18, 66),
        (20, 34, 112),
        (29, 60, 160),
        (36, 98, 190),
        (40, 146, 190),
        (112, 194, 196),
        (206, 226, 206),
    ],
    float,
)
WARM = np.array(
    [
        (22, 52, 140),
        (46, 140, 176),
        (196, 84, 44),
        (226, 112, 36),
        (240, 158, 40),
        (246, 200, 78),
        (252, 228, 150),
        (255, 246, 218),
    ],
    float,
)

# Layers of paint, broad to fine: stroke width, stroke length, how often the canvas is covered.
LAYERS = ((15, 74, 2.2), (10, 58, 2.4), (7.5, 46, 2.0), (5.5, 34, 1.2), (4.2, 24, 0.45))


def smooth_noise(rng, cells):
    """Noise in about -1..1 over the canvas, varying over canvas height / cells pixels."""
    grid = rng.standard_normal((cells + 2, int(cells * WIDTH / HEIGHT) + 2)).astype(np.float32)
    big = np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    return big / (np.abs(big).max() + 1e-6)


def stream_function(rng):
    """The stream function: its contour lines are the paths that the strokes follow."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    psi = -0.55 * (y + 46 * np.sin(x / 118 + 0.6) + 0.10 * x)
    for cx, cy, radius, turn in VORTICES:
        r2 = ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
        psi += turn * radius * 1.55 * np.exp(-0.75 * r2)
    return psi + 20 * smooth_noise(rng, 5) + 7 * smooth_noise(rng, 11)


def flow_field(psi):
    """Unit flow vectors: along the contours of psi, with a slight pull inwards that makes spirals."""
    gy, gx = np.gradient(psi)
    u, v = gy, -gx
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    speed = np.hypot(u, v)
    for cx, cy, radius, _ in VORTICES:
        dx, dy = cx - x, cy - y
        r = np.hypot(dx, dy) + 1e-6
        pull = 0.22 * speed * np.exp(-((r / radius) ** 2))
        u, v = u + pull * dx / r, v + pull * dy / r
    norm = np.hypot(u, v) + 1e-6
    return u / norm, v / norm


def ramp(colours, t):
    """Look t (0..1, any shape) up in a list of colours, blending neighbours."""
    t = np.clip(t, 0, 1) * (len(colours) - 1)
    stops = np.arange(len(colours))
    return np.stack([np.interp(t, stops, colours[:, c]) for c in range(3)], -1)


def colour_fields(psi, rng):
    """Where each ramp is read, and how warm the paint is: three maps over the canvas."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    patch = smooth_noise(rng, 4)
    bands = 0.5 + 0.5 * np.sin(psi / 10.5 + 2.2 * patch)
    cool = 0.06 + 0.66 * bands**1.5 + 0.16 * patch
    warm, heat = np.zeros_like(psi), np.zeros_like(psi)
    for cx, cy, radius, turn in VORTICES:
        r = np.hypot(x - cx, y - cy) / radius
        arms = np.cos(2 * np.arctan2(y - cy, x - cx) - np.sign(turn) * 9.0 * r + 1.2 * patch)
        glow = np.exp(-1.15 * r**2)
        warm = np.maximum(warm, glow * (0.96 + 0.26 * arms))
        heat = np.maximum(heat, np.clip(2.1 * glow * (0.86 + 0.74 * arms) - 0.24 + 1.2 * glow**5, 0, 1))
    # A few warm threads run along the current far from any eddy, so that the blues never go unanswered.
    threads = np.clip((np.sin(psi / 21 + 1.0 + 3 * patch) - 0.84) * 9, 0, 1)
    return cool, np.maximum(warm, 0.62 * threads), np.maximum(heat, 0.85 * threads)


def pick(field, points):
    """Read a map at (x, y) points, nearest pixel."""
    ix = np.clip(points[..., 0], 0, WIDTH - 1).astype(int)
    iy = np.clip(points[..., 1], 0, HEIGHT - 1).astype(int)
    return field[iy, ix]


def trace(points, flow, lengths, rng, steps=12):
    """Follow the flow half a stroke each way from every point: spines of shape (strokes, steps + 1, 2)."""
    half = steps // 2
    step = (lengths / steps)[:, None]
    drift = rng.normal(0, 0.14, len(points))  # a hand never follows a curve exactly
    c, s = np.cos(drift), np.sin(drift)
    spine = np.empty((len(points), steps + 1, 2))
    spine[:, half] = points
    for sign in (1, -1):
        p = points.copy()
        for i in range(1, half + 1):
            u, v = pick(flow[0], p), pick(flow[1], p)
            p = p + sign * step * np.stack([c * u - s * v, s * u + c * v], -1)
            spine[:, half + sign * i] = p
    return spine


def normals(spine):
    """Unit normals along each spine."""
    t = np.gradient(spine, axis=1)
    t /= np.linalg.norm(t, axis=-1, keepdims=True) + 1e-6
    return np.stack([-t[..., 1], t[..., 0]], -1)


def stroke_colours(points, fields, rng):
    """One colour per stroke: the band it lies in, broken by jitter in place, hue and value."""
    n = len(points)
    cool, warm, heat = fields
    near = points + rng.normal(0, 5, (n, 2))
    a = ramp(COOL, pick(cool, near) + rng.normal(0, 0.085, n))
    b = ramp(WARM, pick(warm, near) + rng.normal(0, 0.075, n))
    # Choosing one ramp or the other, never a mixture, keeps complementary colours side by side and clean.
    is_warm = rng.random(n) < pick(heat, near)
    colour = np.where(is_warm[:, None], b, a)
    accent = rng.random(n)
    colour[accent < 0.022] = ramp(WARM, rng.uniform(0.55, 0.85, n))[accent < 0.022]
    colour[accent > 0.975] = ramp(COOL, rng.uniform(0.55, 1.0, n))[accent > 0.975]
    colour = colour * rng.normal(1, 0.075, (n, 1)) + rng.normal(0, 6, (n, 3))
    return np.clip(colour, 0, 255)


def as_points(path):
    """A (k, 2) path in canvas pixels as the flat list that ImageDraw takes."""
    return (path * SCALE).ravel().tolist()


def lay_stroke(paint, relief, spine, normal, width, colour, rng):
    """Draw one stroke into the colour and height drawings: body, bristles, then ridges at its sides."""
    s = np.linspace(0, 1, len(spine))
    taper = np.minimum(1, 0.45 + 3.2 * s) * np.clip(np.sqrt(np.maximum(1 - s, 0)) * 1.9, 0.12, 1)
    side = normal * (0.5 * width * taper)[:, None]
    body = as_points(np.concatenate([spine + side, (spine - side)[::-1]]))
    level = rng.uniform(95, 150)
    paint.polygon(body, fill=tuple(colour.astype(int)))
    relief.polygon(body, fill=int(level))
    bristles = int(width * 0.9) + 2
    offsets = np.linspace(-0.86, 0.86, bristles) + rng.normal(0, 0.07, bristles)
    for offset, tone in zip(offsets, rng.normal(0, 1, bristles), strict=True):
        first, last = rng.integers(0, 3), len(spine) - rng.integers(0, 4)
        line = as_points((spine + side * offset)[first:last])
        shade = np.clip(colour * (1 + 0.075 * tone) + 5 * tone, 0, 255)
        paint.line(line, fill=tuple(shade.astype(int)), width=2)
        relief.line(line, fill=int(np.clip(level + 26 * tone, 0, 255)), width=2)
    for edge in (1, -1):  # paint pushed aside by the brush piles up along the stroke's edges
        relief.line(as_points((spine + edge * side)[1:-1]), fill=int(level + 62), width=2)


def light(colour, relief):
    """Shade the paint by its height map, lit from the upper left, with a faint wet gleam."""
    height = np.asarray(relief.filter(ImageFilter.GaussianBlur(1.5)), np.float64)
    gy, gx = np.gradient(height)
    slope = (gx + gy) / 26
    lit = np.tanh(slope)[..., None]
    out = colour * (1 + 0.34 * lit)
    return out + 70 * np.clip(lit - 0.45, 0, 1)


def draw(seed=7):
    """Return the picture as a (HEIGHT, WIDTH, 3) uint8 array."""
    rng = np.random.default_rng(seed)
    psi = stream_function(rng)
    flow, fields = flow_field(psi), colour_fields(psi, rng)
    size = (WIDTH * SCALE, HEIGHT * SCALE)
    picture, relief = Image.new("RGB", size, (22, 34, 96)), Image.new("L", size, 110)
    paint, bump = ImageDraw.Draw(picture), ImageDraw.Draw(relief)
    for width, length, cover in LAYERS:
        n = int(cover * WIDTH * HEIGHT / (width * length))
        points = rng.uniform((-8, -8), (WIDTH + 8, HEIGHT + 8), (n, 2))
        # Strokes circle an eddy's centre without crossing it: some dabs in the middle cover the ground.
        points = np.concatenate([points, *(rng.normal(v[:2], 2.5, (6, 2)) for v in VORTICES)])
        n = len(points)
        spines = trace(points, flow, length * rng.uniform(0.7, 1.25, n), rng)
        sides = normals(spines)
        colours = stroke_colours(points, fields, rng)
        widths = width * rng.uniform(0.75, 1.25, n)
        for i in range(n):
            lay_stroke(paint, bump, spines[i], sides[i], widths[i], colours[i], rng)
    lit = light(np.asarray(picture, np.float64), relief)
    final = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    return np.asarray(final.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    path = Path(argv[0]) if argv else Path(__file__).with_name("strokes.jpg")
    Image.fromarray(draw()).save(path, quality=92)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
