"""What is optimized (the canvas) -> the image: a spectrum or pixels, colors mixed as in photographs, through a sigmoid.

The image that a descent finds depends on what it descends in: where slow waves count more, and colors vary together,
there is less noise than among pixels. Olah, Mordvintsev & Schubert 2017
(https://doi.org/10.23915/distill.00007), "preconditioning and parameterization". A start is a random canvas; the
functions from canvas to image are pure and run under `jit`, `vmap` and `grad`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jnst.errors import InputError
from jnst.types import Image

__all__ = ["fourier_image", "fourier_start", "hartley", "pixel_image", "pixel_start"]

# A root of the covariance of ImageNet's colors, by rows red, green and blue; its columns are nearly lightness, red
# against blue and green against both. Numbers of lucid's optvis/param/color.py (color_correlation_svd_sqrt).
_COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLORS = _COLORS / np.linalg.norm(_COLORS, axis=0).max()


def fourier_image(spectrum: jax.Array, *, decay: float = 1.0, decorrelate: bool = True) -> Image:
    """The image of a spectrum `[H, W, 3]`, in (0, 1); zeros are gray.

    Waves (`hartley`) of the amplitudes `spectrum * 8^-1/2 / max(f, 1 / max(H, W))^decay`, f = hypot(y, x) in cycles a
    pixel; then the mix of colors; then a sigmoid. Amplitudes of photographs fall as 1 / f: with `decay=1` white noise
    in the canvas has their statistics of second order, and looks like clouds in muted colors.

    These are lucid's `fft_image` and `to_valid_rgb` (https://github.com/tensorflow/lucid, optvis/param), but in a real
    orthonormal basis, which has as many numbers as the image. lucid's sqrt(H W) makes up for the 1 / (H W) of its
    inverse transform, and is not needed here. Its numbers are the real and imaginary parts of half the spectrum, each a
    wave of norm 2^1/2, and it divides by 4: hence 8^-1/2, so that its learning rates and its start do much the same
    here. Departures: waves of the horizontal frequencies 0 and 1/2, of which lucid keeps both halves, are 2^1/2 times
    lower there; an image of odd width is not cut from a wider one.

    Args:
        spectrum: Any real numbers, the slow waves' at the corners.
        decay: 0 leaves the waves alike; above 1 the image is smoother.
        decorrelate: Whether the channels are lightness and two colors, mixed as ImageNet's colors are; else they are
            red, green and blue.

    >>> fourier_image(jnp.zeros((2, 3, 3)))[1, 2]
    Array([0.5, 0.5, 0.5], dtype=float32)
    """
    gain = 8**-0.5 * jnp.asarray(_frequency(*spectrum.shape[:2]), spectrum.dtype) ** -decay
    return pixel_image(hartley(gain[..., None] * spectrum), decorrelate=decorrelate)


def _frequency(height, width):
    """In cycles a pixel, `[height, width]`; at the corner that of one wave over the longer side, not 0."""
    down, across = (np.minimum(np.arange(n), n - np.arange(n)) / n for n in (height, width))
    return np.maximum(np.hypot(down[:, None], across[None]), 1 / max(height, width))


def hartley(image: jax.Array) -> jax.Array:
    """The discrete Hartley transform of both axes of `[H, W, c]`: real, orthonormal, and its own inverse.

    Each axis is multiplied by the symmetric `cas(2 pi j k / n) / n^1/2`, cas = cos + sin; Hartley 1942
    (https://doi.org/10.1109/JRPROC.1942.234333), Bracewell 1983 (https://doi.org/10.1364/JOSA.73.001832).

    By two matrix products, H W (H + W) c multiplications, and not by a fast Fourier transform: on a CPU the last bits
    of XLA's depend on how many of its threads are free (jaxlib 0.10.2).

    >>> hartley(jnp.ones((1, 4, 1)))[..., 0].tolist()
    [[2.0, 0.0, 0.0, 0.0]]
    """
    rows, columns = (jnp.asarray(_cas(length), image.dtype) for length in image.shape[:2])
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    return product("kw,jwc->jkc", columns, product("jh,hwc->jwc", rows, image))


def _cas(length):
    place = np.arange(length)
    angle = 2 * np.pi / length * (place[:, None] * place[None] % length)  # whole turns taken off before rounding
    return (np.cos(angle) + np.sin(angle)) / length**0.5


def pixel_image(canvas: jax.Array, *, decorrelate: bool = True) -> Image:
    """The image of a canvas of pixels `[H, W, 3]`, in (0, 1), as `fourier_image` but without waves; zeros are gray.

    >>> round(float(pixel_image(jnp.ones((1, 1, 3)), decorrelate=False)[0, 0, 0]), 4)
    0.7311
    """
    if decorrelate:
        canvas = jnp.matmul(canvas, jnp.asarray(_COLORS.T, canvas.dtype), precision=lax.Precision.HIGHEST)
    return jax.nn.sigmoid(canvas)


def fourier_start(key: jax.Array, size: tuple[int, int], *, scale: float = 0.01) -> jax.Array:
    """A random spectrum `[H, W, 3]` float32 for an image of `size` rows and columns: nearly gray.

    Args:
        key: Draws it.
        size: Rows and columns.
        scale: The standard deviation of each number; 0.01 is lucid's.

    Raises:
        InputError: `size` or `scale` is none.
    """
    if len(size) != 2 or any(side != math.floor(side) or side < 1 for side in size):
        raise InputError(f"size={size!r}: expected rows and columns, whole numbers above 0")
    if not 0 <= scale < math.inf:
        raise InputError(f"scale={scale!r}: expected a standard deviation, 0 or more")
    return scale * jax.random.normal(key, (*size, 3), jnp.float32)


def pixel_start(key: jax.Array, size: tuple[int, int], *, scale: float = 0.01) -> jax.Array:
    """A random canvas of pixels, drawn as `fourier_start` draws a spectrum.

    Raises:
        InputError: `size` or `scale` is none.
    """
    return fourier_start(key, size, scale=scale)
