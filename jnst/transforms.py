"""Random transforms of one image `[H, W, 3]`: one that is to please a network under each of them has less noise.

Pure, and linear in the image but for the gray from beyond its edges. They run under `jit`, `vmap` and `grad`: the shape
of what comes out does not depend on what was drawn. What is drawn from (`most`, `factors`, `degrees`) is static.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jnst.errors import InputError

__all__ = ["crop_jitter", "jitter", "offset", "pad", "rotate", "scale", "shift", "standard"]


def offset(key: jax.Array, most: int) -> jax.Array:
    """Rows and columns to `shift` by, `[2]` int32: each of the whole numbers in [-most, most] is as likely.

    Raises:
        InputError: `most` is not a whole number of pixels.
    """
    _check_pixels("most", most)
    return jax.random.randint(key, (2,), -most, most + 1)


def shift(image: jax.Array, offset: jax.Array) -> jax.Array:
    """`image` moved so many rows down and columns to the right; what leaves on one side comes in on the other.

    `shift(shift(image, offset), -offset)` is `image`, bit for bit.

    >>> shift(jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([0, 1]))[0, :, 0]
    Array([3., 1., 2.], dtype=float32)
    """
    return jnp.roll(image, offset, (0, 1))


def jitter(key: jax.Array, image: jax.Array, *, most: int) -> jax.Array:
    """`image` shifted at random by up to `most` pixels each way, around its edges: DeepDream's.

    Mordvintsev, Olah & Tyka 2015 (https://github.com/google/deepdream). Gradients are shifted back.

    Raises:
        InputError: `most` is not a whole number of pixels.
    """
    return shift(image, offset(key, most))


def pad(image: jax.Array, *, width: int, value: float = 0.5) -> jax.Array:
    """`image` in a frame of `value`: `[H + 2 width, W + 2 width, 3]`.

    >>> pad(jnp.ones((1, 1, 1)), width=1)[..., 0].tolist()
    [[0.5, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 0.5]]

    Raises:
        InputError: `width` is not a whole number of pixels.
    """
    _check_pixels("width", width)
    return jnp.pad(image, ((width, width), (width, width), (0, 0)), constant_values=value)


def crop_jitter(key: jax.Array, image: jax.Array, *, most: int) -> jax.Array:
    """A random window of `image` that is `most` smaller on both axes: `[H - most, W - most, 3]`; lucid's jitter.

    Raises:
        InputError: `most` is not a whole number of pixels, or nothing would be left.
    """
    _check_pixels("most", most)
    height, width, channels = image.shape
    if most >= min(height, width):
        raise InputError(f"most={most}: expected less than the sides of the image, which has {height}x{width} pixels")
    down, across = jax.random.randint(key, (2,), 0, most + 1)
    return lax.dynamic_slice(image, (down, across, 0), (height - most, width - most, channels))


def scale(key: jax.Array, image: jax.Array, *, factors: Sequence[float], value: float = 0.5) -> jax.Array:
    """`image` enlarged by one of `factors`, each as likely, about its center, in its own frame.

    Bilinear, nothing smoothed before: for factors that are not far below 1, as what is much smaller would alias. By a
    product with each axis's weights, whose gradient is a product, too: no sums in an order of chance.

    Args:
        key: Draws the factor.
        image: `[H, W, 3]`.
        factors: Above 1 what is near the edges is cut off; below 1 the frame is not filled.
        value: What is seen beyond the edges.

    Raises:
        InputError: There is no factor, or one that is not above 0.
    """
    table = _check_choices("factors", factors)
    if (table <= 0).any():
        raise InputError(f"factors={factors!r}: expected numbers above 0")
    factor = _one_of(key, table, _kind(image))
    rows, columns = (_weights(length, factor).astype(image.dtype) for length in image.shape[:2])
    product = lambda *pair: jnp.einsum(*pair, precision=lax.Precision.HIGHEST)  # noqa: E731
    scaled = product("kw,jwc->jkc", columns, product("jh,hwc->jwc", rows, image))
    inside = rows.sum(1)[:, None] * columns.sum(1)[None]
    return scaled + value * (1 - inside)[..., None]


def _weights(length, factor):
    """What each pixel before counts for each one after, `[length, length]`: rows sum to 1, at the edges to less."""
    place = jnp.arange(length, dtype=factor.dtype) - (length - 1) / 2  # from the center
    distance = jnp.abs((place / factor)[:, None] - place[None])
    return jnp.maximum(1 - distance, 0)


def rotate(key: jax.Array, image: jax.Array, *, degrees: Sequence[float], value: float = 0.5) -> jax.Array:
    """`image` turned counterclockwise by one of `degrees`, each as likely, about its center, in its own frame.

    Bilinear, four pixels gathered for each. 180 degrees are exact; 90 are where both sides are even or both odd. The
    gradient is added up where they were gathered, on a CPU always in one order (jaxlib 0.10.2).

    Args:
        key: Draws the angle.
        image: `[H, W, 3]`.
        degrees: Repeat one that should be drawn more often.
        value: What is seen beyond the edges.

    Raises:
        InputError: There is no angle, or one that is not a number.
    """
    angles = np.deg2rad(_check_choices("degrees", degrees) % 360)
    # Rounded so that a right angle's cosine is 0: float64's is 6e-17.
    table = np.round(np.stack([np.cos(angles), np.sin(angles)], 1), 15)
    cosine, sine = _one_of(key, table, _kind(image))
    height, width, channels = image.shape
    down, across = (jnp.arange(length, dtype=cosine.dtype) - (length - 1) / 2 for length in (height, width))
    down, across = jnp.meshgrid(down, across, indexing="ij")
    row = cosine * down + sine * across + (height - 1) / 2
    column = cosine * across - sine * down + (width - 1) / 2
    top, left = jnp.floor(row), jnp.floor(column)
    flat = image.reshape(height * width, channels)
    turned, inside = 0, 0
    for y, x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        within = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        weight = jnp.where(within, (1 - jnp.abs(row - y)) * (1 - jnp.abs(column - x)), 0).astype(image.dtype)
        index = jnp.where(within, y.astype(jnp.int32) * width + x.astype(jnp.int32), 0)  # float32 counts to 2^24
        turned += weight[..., None] * flat[index]
        inside += weight
    return turned + value * (1 - inside)[..., None]


_FACTORS = tuple(1 + step / 50 for step in range(-5, 6))
_DEGREES = (*range(-10, 11), 0, 0, 0, 0, 0)


def standard(key: jax.Array, image: jax.Array) -> jax.Array:
    """The chain that lucid has as its standard: `[H, W, 3]` -> `[H + 12, W + 12, 3]`.

    Padded by 12 pixels of 0.5, jittered by 8, scaled by 0.9, 0.92 ... 1.1, turned by -10, -9 ... 10 degrees (0 six
    times as likely as another), jittered by 4; both jitters crop. Olah, Mordvintsev & Schubert 2017
    (https://doi.org/10.23915/distill.00007); the numbers are `standard_transforms` of lucid's optvis/transform.py.

    Departures: lucid's scaling changes the size of what comes out, here the frame keeps its size, with 0.5 around
    what became smaller; what turns into the corners is 0.5, too, there 0; scaling is about the center, there pixels
    are points and the first one stays; pi is not 3.14.
    """
    first, factor, angle, last = jax.random.split(key, 4)
    image = crop_jitter(first, pad(image, width=12), most=8)
    image = rotate(angle, scale(factor, image, factors=_FACTORS), degrees=_DEGREES)
    return crop_jitter(last, image, most=4)


def _kind(image):
    """The type to place pixels in: bfloat16 cannot count them."""
    return jnp.promote_types(image.dtype, jnp.float32)


def _one_of(key, table, kind):
    return jnp.asarray(table, kind)[jax.random.randint(key, (), 0, len(table))]


def _check_choices(name, choices):
    table = np.asarray(choices, np.float64)
    if table.ndim != 1 or not table.size or not np.isfinite(table).all():
        raise InputError(f"{name}={choices!r}: expected one number or more")
    return table


def _check_pixels(name, value):
    if isinstance(value, bool) or value != math.floor(value) or value < 0:
        raise InputError(f"{name}={value!r}: expected a whole number of pixels, 0 or more")
