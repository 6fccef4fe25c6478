"""Convolutions with 4x4 kernels and stride 2 over batches: down to half the side, and their transpose, up to twice it.

All of GANs' ways down and up are these. A kernel's side is a multiple of the stride, so that every pixel of what goes
up gets as many products: no checkerboard by itself (Odena et al. 2016, https://doi.org/10.23915/distill.00003).

The way up is one matrix product whose results are added where they overlap, and so is the gradient of the way down to
its input: as convolutions between whose pixels there are zeros, they take XLA ten to twenty times as long on a CPU.

There, where the maps are many and wide, both ways and all their gradients make nine products where these make sixteen
(Winograd 1980, https://doi.org/10.1137/1.9781611970364). Over blocks `d` of two pixels, which a kernel's halves `g`
meet with stride 1, two neighbors are `d0 g0 + d1 g1` and `d1 g0 + d2 g1`, which is `a + b` and `b + c` of

    a = (d0 - d1) g0        b = d1 (g0 + g1)        c = (d2 - d1) g1

and so over rows of such rows: a tile of 2x2 pixels from 3x3 blocks. It needs sums only, and is as exact as float32 is.
Where the maps are so small that the kernel is most of what is read, there is one product for each of its pixels, which
reads the kernel as it lies.

Inputs are `[N, H, W, C]`; beyond the border there are zeros.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jnst import compiler

__all__ = ["down", "up"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")

_AT_ONCE = 64
"""Pictures whose gradient to a kernel a CPU computes together: of 256 it takes XLA ten times as long, not four."""

_FEW = 64
"""Pixels of the smaller maps, up to which a CPU makes one product for each pixel of the kernel."""
_MANY = 512
"""From which on nine products save more time than the kernel's sums take."""
_CHANNELS = 16
"""The fewest, of either side, for which they do."""


def down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlation with stride 2, one pixel of zeros around: `[N, 2 h, 2 w, in]` -> `[N, h, w, out]`.

    Args:
        x: Maps of even sides.
        kernel: `[4, 4, in, out]`.

    >>> down(jnp.ones((1, 6, 8, 2)), jnp.ones((4, 4, 2, 7))).shape
    (1, 3, 4, 7)
    """
    n, height, width, _ = x.shape
    return _DOWN[_way(n, height // 2, width // 2, kernel)](x, kernel)


def up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transpose of `down`: `[N, h, w, in]` -> `[N, 2 h, 2 w, out]`.

    Args:
        x: Maps.
        kernel: `[4, 4, in, out]`: what a pixel adds to its surroundings.

    >>> up(jnp.ones((1, 3, 4, 2)), jnp.ones((4, 4, 2, 7))).shape
    (1, 6, 8, 7)
    """
    return _UP[_way(*x.shape[:3], kernel)](x, kernel)


def _way(n, height, width, kernel):
    """Which of the ways to compute it is the fastest, by the size of the smaller maps."""
    pixels = n * height * width
    if compiler.platform() != "cpu" or kernel.dtype.itemsize < 4:  # of few digits the sums would lose some
        return "whole"
    if pixels <= _FEW:
        return "by_pixels"
    fits = height % 2 == width % 2 == 0 and min(kernel.shape[2:]) >= _CHANNELS
    return "by_tiles" if fits and pixels >= _MANY else "whole"


@jax.custom_vjp
def _down(x, kernel):
    return _convolution(x, kernel)


def _convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT)


def _down_forward(x, kernel):
    return _convolution(x, kernel), (x, kernel)


def _down_backward(kept, gradient):
    x, kernel = kept
    of_x = _folded(_product(gradient, kernel.reshape(-1, kernel.shape[3]).T))
    if compiler.platform() != "cpu":
        return of_x, _of_kernel(x, kernel, gradient)
    if kernel.shape[2] < _CHANNELS:
        patches, gradient = _patches(x), gradient.reshape(-1, gradient.shape[3])
        return of_x, (patches.reshape(len(gradient), -1).T @ gradient).reshape(kernel.shape)
    parts = [slice(at, at + _AT_ONCE) for at in range(0, len(x), _AT_ONCE)]
    return of_x, sum(_of_kernel(x[part], kernel, gradient[part]) for part in parts)


def _of_kernel(x, kernel, gradient):
    return jax.vjp(lambda kernel: _convolution(x, kernel), kernel)[1](gradient)[0]


_down.defvjp(_down_forward, _down_backward)


@jax.custom_vjp
def _up(x, kernel):
    return _folded(_product(x, _beside(kernel)))


def _beside(kernel):
    """A kernel's pixels in one row: `[in, 16 out]`."""
    return kernel.transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)


def _up_forward(x, kernel):
    return _up(x, kernel), (x, kernel)


def _up_backward(kept, gradient):
    x, kernel = kept
    patches = _patches(gradient)
    of_x = _product(patches, _beside(kernel).T)
    of_kernel = x.reshape(-1, x.shape[3]).T @ patches.reshape(-1, patches.shape[3])
    inputs, outputs = kernel.shape[2:]
    return of_x, of_kernel.reshape(inputs, 4, 4, outputs).transpose(1, 2, 0, 3)


_up.defvjp(_up_forward, _up_backward)


def _product(x, matrix):
    # Of two matrices: of more axes the gradient's product takes XLA three times as long.
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


def _blocks(x):
    """`[N, 2 h, 2 w, C]` with its border -> `[N, h + 1, 2, w + 1, 2 C]`."""
    n, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return x.reshape(n, height // 2 + 1, 2, width // 2 + 1, 2 * channels)


def _patches(x):
    """What a kernel sees: `[N, 2 h, 2 w, C]` -> `[N, h, w, 16 C]`."""
    blocks = _blocks(x)
    height, width = blocks.shape[1] - 1, blocks.shape[3] - 1
    places = [(a, line, b) for a in (0, 1) for line in (0, 1) for b in (0, 1)]
    return jnp.concatenate([blocks[:, a : a + height, line, b : b + width] for a, line, b in places], -1)


def _folded(patches):
    """The transpose of `_patches`: adds them where they overlap."""
    n, height, width, size = patches.shape
    patches = patches.reshape(n, height, width, 2, 2, 2, size // 8)
    places = [(a, b) for a in (0, 1) for b in (0, 1)]
    added = sum(jnp.pad(patches[:, :, :, a, :, b], ((0, 0), (a, 1 - a), (b, 1 - b), (0, 0), (0, 0))) for a, b in places)
    added = added.transpose(0, 1, 3, 2, 4).reshape(n, 2 * height + 2, 2 * width + 2, size // 16)
    return added[:, 1:-1, 1:-1]


# A product for each pixel of the kernel: parts are `[16, N h w, C]`.


@jax.custom_vjp
def _down_by_pixels(x, kernel):
    parts = _apart(_patches(x))
    n, height, width, _ = x.shape
    result = jnp.sum(_batch(parts, _flat(kernel), 2, 1), 0)
    return result.reshape(n, height // 2, width // 2, -1)


def _down_by_pixels_forward(x, kernel):
    return _down_by_pixels(x, kernel), (x, kernel)


def _down_by_pixels_backward(kept, gradient):
    x, kernel = kept
    repeated = _repeated(gradient)
    of_x = _together(_batch(repeated, _flat(kernel), 2, 2), gradient.shape[:3])
    return of_x, _batch(_apart(_patches(x)), repeated, 1, 1).reshape(kernel.shape)


_down_by_pixels.defvjp(_down_by_pixels_forward, _down_by_pixels_backward)


@jax.custom_vjp
def _up_by_pixels(x, kernel):
    return _together(_batch(_repeated(x), _flat(kernel), 2, 1), x.shape[:3])


def _up_by_pixels_forward(x, kernel):
    return _up_by_pixels(x, kernel), (x, kernel)


def _up_by_pixels_backward(kept, gradient):
    x, kernel = kept
    parts = _apart(_patches(gradient))
    of_x = jnp.sum(_batch(parts, _flat(kernel), 2, 2), 0).reshape(x.shape)
    return of_x, _batch(_repeated(x), parts, 1, 1).reshape(kernel.shape)


_up_by_pixels.defvjp(_up_by_pixels_forward, _up_by_pixels_backward)


def _batch(x, y, one, other):
    return lax.dot_general(x, y, (((one,), (other,)), ((0,), (0,))))


def _flat(kernel):
    return kernel.reshape(16, *kernel.shape[2:])


def _repeated(x):
    return jnp.broadcast_to(x.reshape(1, -1, x.shape[3]), (16, x.size // x.shape[3], x.shape[3]))


def _apart(patches):
    n, height, width, size = patches.shape
    return patches.reshape(n * height * width, 16, size // 16).transpose(1, 0, 2)


def _together(parts, shape):
    """What the parts add up to where they overlap; `shape` is `(N, h, w)`."""
    return _folded(parts.transpose(1, 0, 2).reshape(*shape, -1))


# Nine products. Of maps, of kernels and of results there are three by three parts each; a part of the larger maps, the
# "wide", is `[tiles, 4 C]`, of the smaller, the "narrow", `[tiles, C]`.


@jax.custom_vjp
def _down_by_tiles(x, kernel):
    return _down_by_tiles_forward(x, kernel)[0]


def _down_by_tiles_forward(x, kernel):
    wide, taps = _wide(x), _taps(kernel, 0)
    n, height, width, _ = x.shape
    return _from_narrow(_each(jnp.matmul, wide, taps), (n, height // 2, width // 2)), (wide, taps)


def _down_by_tiles_backward(kept, gradient):
    wide, taps = kept
    narrow = _narrow(gradient)
    of_x = _from_wide(_each(_by_rows, narrow, taps), gradient.shape[:3])
    return of_x, _from_taps(_each(_by_columns, wide, narrow), 0)


_down_by_tiles.defvjp(_down_by_tiles_forward, _down_by_tiles_backward)


@jax.custom_vjp
def _up_by_tiles(x, kernel):
    return _up_by_tiles_forward(x, kernel)[0]


def _up_by_tiles_forward(x, kernel):
    narrow, taps = _narrow(x), _taps(kernel, 1)
    return _from_wide(_each(jnp.matmul, narrow, taps), x.shape[:3]), (narrow, taps)


def _up_by_tiles_backward(kept, gradient):
    narrow, taps = kept
    wide = _wide(gradient)
    n, height, width, _ = gradient.shape
    of_x = _from_narrow(_each(_by_rows, wide, taps), (n, height // 2, width // 2))
    return of_x, _from_taps(_each(_by_columns, narrow, wide), 1)


_up_by_tiles.defvjp(_up_by_tiles_forward, _up_by_tiles_backward)


def _each(product, one, other):
    """Of parts that belong to each other."""
    return [[product(*pair) for pair in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]


def _by_rows(x, y):
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())))


def _by_columns(x, y):
    return lax.dot_general(x, y, (((0,), (0,)), ((), ())))


def _wide(x):
    """Of blocks of 2x2 pixels: `[N, 2 h, 2 w, C]` -> parts."""

    def parts(x, axis):
        first, middle, last = (lax.slice_in_dim(x, at, x.shape[axis] - (at == 0), 2, axis) for at in range(3))
        return first - middle, middle, last - middle

    def flat(part):
        # A transposition of the two lines of a block would take XLA twice as long.
        return jnp.stack([part[:, :, 0], part[:, :, 1]], 3).reshape(-1, 2 * part.shape[4])

    return [[flat(part) for part in parts(row, 3)] for row in parts(_blocks(x), 1)]


def _from_wide(parts, shape):
    """The transpose of `_wide`: parts -> `[N, 2 h, 2 w, C]`, where `shape` is `(N, h, w)`."""
    n, height, width = shape

    def lines(first, middle, last, axis):
        """The four pixels of a tile along an axis; at each end half a block comes from the neighbor."""
        halves = [(lax.index_in_dim(x, 0, 3, False), lax.index_in_dim(x, 1, 3, False)) for x in (first, middle, last)]
        (first, after), (one, other), (before, last) = halves
        return (
            after + _moved(last, axis, 1),
            one - first - before,
            other - after - last,
            before + _moved(first, axis, -1),
        )

    parts = [[part.reshape(n, height // 2, width // 2, 2, 2, -1) for part in row] for row in parts]
    rows = [lines(*column, 1) for column in zip(*parts, strict=True)]
    whole = [jnp.stack(lines(*row, 2), 3) for row in zip(*rows, strict=True)]
    return jnp.stack(whole, 2).reshape(n, 2 * height, 2 * width, -1)


def _moved(x, axis, by):
    """By one place along an axis, after or before which there is 0."""
    edges = [(0, 0)] * x.ndim
    edges[axis] = (1, 0) if by > 0 else (0, 1)
    start = 0 if by > 0 else 1
    return lax.slice_in_dim(jnp.pad(x, edges), start, start + x.shape[axis], axis=axis)


def _narrow(x):
    """The transpose of `_from_narrow`."""

    def parts(x, axis):
        even, odd = (lax.slice_in_dim(x, at, None, 2, axis) for at in (0, 1))
        return even, even + odd, odd

    return [[part.reshape(-1, x.shape[3]) for part in parts(row, 2)] for row in parts(x, 1)]


def _from_narrow(parts, shape):
    """Tiles of 2x2 pixels: parts -> `[N, h, w, C]`, where `shape` is `(N, h, w)`."""
    n, height, width = shape
    parts = [[part.reshape(n, height // 2, width // 2, -1) for part in row] for row in parts]
    pairs = [(one + middle, middle + other) for one, middle, other in parts]
    rows = [[one + other for one, other in zip(*both, strict=True)] for both in (pairs[:2], pairs[1:])]
    return jnp.stack([jnp.stack(row, 3) for row in rows], 2).reshape(n, height, width, -1)


def _taps(kernel, at):
    """`[4, 4, in, out]` -> parts; `at`: which side, 0 the inputs or 1 the outputs, is that of the larger maps."""
    inputs, outputs = kernel.shape[2:]
    kernel = kernel.reshape(2, 2, 2, 2, inputs, outputs)
    rows = kernel[0], kernel[0] + kernel[1], kernel[1]
    whole = [(row[:, 0], row[:, 0] + row[:, 1], row[:, 1]) for row in rows]
    if at:
        return [[part.transpose(2, 0, 1, 3).reshape(inputs, 4 * outputs) for part in row] for row in whole]
    return [[part.reshape(4 * inputs, outputs) for part in row] for row in whole]


def _from_taps(parts, at):
    """The transpose of `_taps`."""
    if at:
        inputs = len(parts[0][0])
        whole = [[part.reshape(inputs, 2, 2, -1).transpose(1, 2, 0, 3) for part in row] for row in parts]
    else:
        whole = [[part.reshape(2, 2, -1, part.shape[1]) for part in row] for row in parts]
    pairs = [(one + middle, middle + other) for one, middle, other in whole]
    rows = [[one + other for one, other in zip(*both, strict=True)] for both in (pairs[:2], pairs[1:])]
    return jnp.stack([jnp.stack(row, 1) for row in rows]).reshape(4, 4, *rows[0][0].shape[2:])


_DOWN = {"whole": _down, "by_pixels": _down_by_pixels, "by_tiles": _down_by_tiles}
_UP = {"whole": _up, "by_pixels": _up_by_pixels, "by_tiles": _up_by_tiles}
