"""A large picture by a stylenet, tile by tile: the same picture as of the whole, without seams.

A tile is computed in a window that reaches as much further as the network looks (`halo_of`), and only the tile is
kept; see `jnst.tiles.tiling`. What a window cannot know are the moments of instance normalization, which are the whole
picture's. They are found one normalization after the other, since each map depends on the moments of those before:
a pass over the tiles adds up the mean and the squared differences of the map that the next normalization stands
before. So many passes go down to the smallest map, which is kept whole, as are the residual blocks, and so many up
again; the last of them paints. Batch normalization brings its moments along: one pass down, one up.

Of full size there are the photo and the picture, in the host's memory, and on the device the maps of one window. All
windows have one shape, so a pass is one program.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jnst import compiler, tiles
from jnst.config import StyleNetSpec
from jnst.nets import stylenet
from jnst.tasks.fast.painting import finished

__all__ = ["halo_of", "paint_tiled", "passes_of"]


def paint_tiled(
    variables: Mapping[str, object],
    image: np.ndarray,
    mix: np.ndarray,
    spec: StyleNetSpec,
    *,
    tile: int,
    strength: float = 1.0,
    preserve_color: str = "none",
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """What `painting.paint` makes of a photo, in tiles: `[H, W, 3]` in [0, 1], on the host.

    Args:
        variables: Of the network, see `stylenet.init`.
        image: `[H, W, 3]` sRGB in [0, 1], on the host.
        mix: `[styles]`, the share of each style.
        spec: The network's architecture.
        tile: Longest side of a tile in pixels; what is computed for it is `halo_of(spec)` larger on each side.
        strength: As for `painting.paint`.
        preserve_color: As for `painting.paint`.
        progress: Told after each tile of each pass how many are done, and of how many.

    >>> spec = StyleNetSpec(widths=(4, 8), blocks=1)
    >>> variables = stylenet.init(jax.random.key(0), spec)
    >>> paint_tiled(variables, np.zeros((33, 50, 3), np.float32), np.ones(1, np.float32), spec, tile=16).shape
    (33, 50, 3)
    """
    image, mix = np.asarray(image), jnp.asarray(mix)[None]
    sizes = stylenet.sizes_of(image.shape[:2], spec)
    deepest = len(sizes) - 1
    tiling = tiles.cut(sizes[0], tile, halo=halo_of(spec), stride=2**deepest)
    places = functools.partial(next, _passes(tiling, passes_of(spec), progress))
    downs, ups = stylenet.norms(spec)
    unknown = spec.norm == "instance"

    given = {}
    for level, name in enumerate(downs[:-1] if unknown else ()):
        run = functools.partial(_down_moments, variables, mix, given, spec=spec, until=name)
        given = {**given, name: _joined([run(place.of(image), place.inside(level)) for place in places()])}

    small = np.empty((*sizes[-1], spec.widths[-1]), image.dtype)
    for place in places():
        place.put(small, _down(variables, mix, given, place.of(image), spec=spec, until=downs[-1]), deepest)
    small = jnp.asarray(small[None])  # the host's goes
    small = np.asarray(_middle(variables, small, mix, spec=spec))[0]

    given, static = {}, {"spec": spec, "sizes": stylenet.sizes_of(tiling.window, spec)}
    for level, name in zip(reversed(range(deepest)), ups if unknown else (), strict=False):
        run = functools.partial(_up_moments, variables, mix, given, until=name, **static)
        given = {**given, name: _joined([run(place.of(small, deepest), place.inside(level)) for place in places()])}

    static |= {"strength": jnp.float32(strength), "preserve_color": preserve_color}
    picture = np.empty_like(image)
    for place in places():
        place.put(picture, _up(variables, mix, given, place.of(small, deepest), place.of(image), **static))
    return picture


def halo_of(spec: StyleNetSpec) -> int:
    """How far beyond a tile the network looks, but for its residual blocks: pixels, rounded up to a multiple of those
    from one pixel of the smallest map to the next.

    >>> halo_of(StyleNetSpec()), halo_of(StyleNetSpec(widths=(32, 64, 128), kernel=13))
    (8, 12)
    """
    levels = len(spec.widths) - 1
    down = 0  # from a pixel of the smallest map, in pixels of each map on the way
    for _ in range(levels):
        down = 2 * down + 1
    down += spec.kernel // 2
    up = spec.kernel // 2  # from a pixel of the picture, in pixels of each map on the way
    for _ in range(levels):
        up = -(-(up + 1) // 2)
    stride = 2**levels
    return max(-(-down // stride), up) * stride


def passes_of(spec: StyleNetSpec) -> int:
    """How often the tiles are gone over.

    >>> passes_of(StyleNetSpec()), passes_of(StyleNetSpec(norm="batch"))
    (6, 2)
    """
    return 2 * len(spec.widths) if spec.norm == "instance" else 2


@dataclasses.dataclass(frozen=True)
class _Place:
    """A tile: where its window starts in the picture, and where it starts and ends in its window."""

    tiling: tiles.Tiling
    start: np.ndarray  # [2], as all three
    begin: np.ndarray
    end: np.ndarray

    def of(self, array, level=0):
        """Its window of a map that was halved so often: `[1, h, w, C]`."""
        first, last = self.start >> level, -(-(self.start + self.tiling.window) >> level)
        return array[None, first[0] : last[0], first[1] : last[1]]

    def inside(self, level):
        """Of such a window, the first row and column that are the tile's, and those after its last."""
        return np.stack([self.begin >> level, -(-self.end >> level)])

    def put(self, array, window, level=0):
        """Writes the tile's part of a window to its place in the map."""
        (top, left), (bottom, right) = self.inside(level)
        row, column = (self.start >> level) + (top, left)
        tile = np.asarray(window)[0, top:bottom, left:right]
        array[row : row + bottom - top, column : column + right - left] = tile


def _passes(tiling, count, progress) -> Iterator[Iterator[_Place]]:
    """The tiles, so many times."""

    def places(before):
        for number, place in enumerate(tiling.places, 1):
            yield _Place(tiling, *place.T)
            if progress is not None:
                progress(before + number, count * tiling.total)

    return (places(number * tiling.total) for number in range(count))


def _joined(parts):
    """Moments of all from those of the parts (Chan, Golub & LeVeque 1979), in double precision."""
    counts, means, squares = (np.array(each, np.float64) for each in zip(*parts, strict=True))
    counts = counts[:, None]
    mean = (counts * means).sum(0) / counts.sum()
    variance = (squares + counts * (means - mean) ** 2).sum(0) / counts.sum()
    kind = parts[0][1].dtype
    return stylenet.Moments(*(value[None, None, None].astype(kind) for value in (mean, variance)))


def _fetched(run):
    """To the host at once: else windows would queue up."""
    return functools.wraps(run)(lambda *arguments, **options: jax.device_get(run(*arguments, **options)))


def _part(x, inside):
    """Of the tile's part of a map `[1, H, W, C]`: how many pixels, their mean, the sum of squared differences."""
    (top, left), (bottom, right) = inside
    rows, columns = (lax.broadcasted_iota(jnp.int32, x.shape, axis) for axis in (1, 2))
    ours = (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
    # Columns first: a sum over many pixels in a row loses digits.
    added = lambda x: jnp.where(ours, x, 0).sum(2).sum((0, 1))  # noqa: E731
    count = (bottom - top) * (right - left)
    mean = added(x) / count.astype(x.dtype)
    return count, mean, added((x - mean[None, None, None]) ** 2)


@_fetched
@functools.partial(compiler.jit, static_argnames=("spec", "until"))
def _down_moments(variables, mix, given, images, inside, *, spec, until):
    return _part(stylenet.down(variables, images, mix, given, spec, until=until), inside)


@functools.partial(compiler.jit, static_argnames=("spec", "until"))
def _down(variables, mix, given, images, *, spec, until):
    return stylenet.down(variables, images, mix, given, spec, until=until)


@functools.partial(compiler.jit, static_argnames=("spec",), donate_argnames=("x",))
def _middle(variables, x, mix, *, spec):
    return stylenet.middle(variables, x, mix, spec)


@_fetched
@functools.partial(compiler.jit, static_argnames=("spec", "sizes", "until"))
def _up_moments(variables, mix, given, x, inside, *, spec, sizes, until):
    return _part(stylenet.up(variables, x, None, sizes, mix, given, spec, until=until), inside)


@functools.partial(compiler.jit, static_argnames=("spec", "sizes", "preserve_color"))
def _up(variables, mix, given, x, images, *, spec, sizes, strength, preserve_color):
    painted = stylenet.up(variables, x, images, sizes, mix, given, spec)
    return finished(images[0], painted[0], strength, preserve_color=preserve_color)[None]
