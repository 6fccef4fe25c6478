"""Mathematics on one image `[H, W, 3]` or one feature map `[h, w, c]`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "fourier_precondition",
    "gram",
    "luminance",
    "match_color",
    "match_luminance",
    "pool",
    "products",
    "replace_luminance",
    "resize",
    "smooth_variation",
    "total_variation",
]

# NTSC luma of the YIQ space that Gatys et al. 2017 (Controlling Perceptual Factors, 6.1) work in.
_LUMA = np.array([0.299, 0.587, 0.114])


def gram(features: jax.Array, scale: float) -> jax.Array:
    """Gram matrix `scale * F^T F` of `[h, w, c]` features, `[c, c]`; blind to where in the picture things are."""
    # The scale after the sum: bfloat16 would round it, and so the two sides of a loss differently.
    return scale * products(features)


def products(features: jax.Array) -> jax.Array:
    """`F^T F` of `[h, w, c]` features, `[c, c]`: a sum over pixels, so that parts of a picture can be added up.

    Summed in float32 at least and at the highest precision: on a TPU or GPU the default would round the products,
    and a style loss is a difference of nearly equal sums.
    """
    return _products(features.reshape(-1, features.shape[-1]))


@jax.custom_vjp
def _products(flat):
    return _sums(flat, flat, 0, 0)


def _of_products(flat, change):
    # Both factors are the same: one product with the symmetric part, where the rule for products would make two.
    kind = jnp.promote_types(flat.dtype, jnp.float32)
    return (_sums(flat, (change + change.T).astype(kind), 1, 0).astype(flat.dtype),)


_products.defvjp(lambda flat: (_products(flat), flat), _of_products)


def _sums(a, b, i, j):
    kind = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (((i,), (j,)), ((), ())), precision=lax.Precision.HIGHEST, preferred_element_type=kind)


def total_variation(image: jax.Array, kind: str, *, wrap: bool = False) -> jax.Array:
    """Sum over pixels and channels of neighbor differences: `l1` |d|, `l2` d^2 (Mahendran & Vedaldi 2015).

    `l2_nine`: d^2 to all eight neighbors, 2/3 of the straight ones and 1/6 of the diagonal ones, which go once around
    the picture, its border repeated (as style-transfer-pytorch has it, times the number of pixels and channels).

    Args:
        image: `[H, W, 3]`.
        kind: One of `config.TOTAL_VARIATIONS`.
        wrap: Whether the image is a torus: then the differences across its edges count as all others do, and none is
            to a repeated border.

    >>> ramp = jnp.arange(4.0).reshape(1, 4, 1)
    >>> float(total_variation(ramp, "l1")), float(total_variation(ramp, "l1", wrap=True))
    (3.0, 6.0)
    """
    if kind == "l2_nine":
        return _nine_around(image) if wrap else _nine(image)
    pairs = [(image[1:], image[:-1]), (image[:, 1:], image[:, :-1])]
    if wrap:
        pairs += [(image[:1], image[-1:]), (image[:, :1], image[:, -1:])]
    return sum(jnp.sum(_magnitude(_difference(*pair), kind)) for pair in pairs)


def _magnitude(difference, kind):
    return difference**2 if kind == "l2" else jnp.abs(difference)


def _difference(a, b):
    # d|x|/dx is 0 at 0, not 1: a flat region must not be pushed anywhere. Equality is asked of the neighbors: where
    # they were just scaled, a compiler fuses product and subtraction, and a rounding error remains of 255 x - 255 x.
    return jnp.where(a == b, 0, a - b)


def _nine(image):
    height, width, _ = image.shape
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    straight = _squares(image[1:], image[:-1]) + _squares(image[:, 1:], image[:, :-1])
    diagonal = _squares(padded[1:, 1:], padded[:-1, :-1]) + _squares(padded[1:, :-1], padded[:-1, 1:])
    # The mean of the diagonal ones is over more pairs than there are pixels.
    return 2 / 3 * straight + height * width / (6 * (height + 1) * (width + 1)) * diagonal


def _nine_around(image):
    """On a torus there are as many pairs of each of the four directions as there are pixels."""
    down, across = jnp.roll(image, -1, 0), jnp.roll(image, -1, 1)
    straight = _squares(down, image) + _squares(across, image)
    diagonal = _squares(jnp.roll(down, -1, 1), image) + _squares(down, across)
    return 2 / 3 * straight + diagonal / 6


def _squares(a, b):
    return jnp.sum(_difference(a, b) ** 2)


def smooth_variation(image: jax.Array, beta: jax.Array | float) -> jax.Array:
    """Total variation by the size of each pixel's gradient, `sum (dx^2 + dy^2)^(beta / 2)` (Mahendran & Vedaldi 2015).

    Differences are to the next row and column, over the border 0.

    >>> float(smooth_variation(jnp.array([[[0.0], [3.0]], [[4.0], [0.0]]]), 1.0))
    12.0
    """
    down = jnp.pad(_difference(image[1:], image[:-1]), ((0, 1), (0, 0), (0, 0)))
    across = jnp.pad(_difference(image[:, 1:], image[:, :-1]), ((0, 0), (0, 1), (0, 0)))
    square = down**2 + across**2
    # The slope at 0 is infinite for beta below 2, and a `where` alone would still multiply it by 0.
    return jnp.sum(jnp.where(square == 0, 0, jnp.where(square == 0, 1, square) ** (beta / 2)))


def pool(x: jax.Array, kind: str) -> jax.Array:
    """Pooling over 2x2 cells, an odd last row or column dropped: `[h, w, c]` -> `[h // 2, w // 2, c]`."""
    h, w, c = x.shape
    cells = x[: h // 2 * 2, : w // 2 * 2].reshape(h // 2, 2, w // 2, 2, c)
    first, second, third, fourth = (cells[:, i, :, j] for i in (0, 1) for j in (0, 1))
    if kind == "avg":
        return (first + second + third + fourth) / 4
    if kind == "l2":
        square = (first**2 + second**2 + third**2 + fourth**2) / 4
        # The root's slope at 0 is infinite, and a `where` alone would still multiply it by 0.
        return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))  # NaN stays NaN
    if kind == "max":
        # Of equal values the first in reading order gets the gradient, as in PyTorch and in XLA's own pooling,
        # whose gradient is many times slower on a CPU.
        return _first_max(_first_max(first, second), _first_max(third, fourth))
    raise ValueError(f"pooling={kind!r}: expected max, avg or l2")


def _first_max(a, b):
    return jnp.where((b > a) | jnp.isnan(b), b, a)


def resize(image: jax.Array, size: tuple[int, int], kind: str) -> jax.Array:
    """`[h, w, c]` at height and width `size`, by interpolation; not for shrinking, which would alias.

    Args:
        image: Its border is repeated.
        size: Rows and columns.
        kind: `linear`, or `cubic` with a = -0.75 (PyTorch's; overshoots at edges).

    >>> resize(jnp.array([[[0.0], [1.0]]]), (1, 4), "linear")[0, :, 0]
    Array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    for axis, length in enumerate(size):
        if image.shape[axis] != length:
            image = _resized(image, axis, length, kind)
    return image


def _resized(image, axis, length, kind):
    before = image.shape[axis]
    # Pixels are squares whose centers are at 1/2.
    place = (np.arange(length) + 0.5) * (before / length) - 0.5
    first = np.floor(place)
    away, kernel = ((0, 1), _linear) if kind == "linear" else ((-1, 0, 1, 2), _cubic)
    shape = [1, 1, 1]
    shape[axis] = length
    parts = []
    for offset in away:
        index = np.clip(first + offset, 0, before - 1).astype(np.int32)
        weight = jnp.asarray(kernel(np.abs(place - first - offset)).reshape(shape), image.dtype)
        parts.append(weight * jnp.take(image, index, axis))
    return sum(parts)


def _linear(distance):
    return 1 - distance


def _cubic(distance, a=-0.75):
    """Keys 1981 (https://doi.org/10.1109/TASSP.1981.1163711)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, far)


_LOWEST, _LOW = 1 / 128, 0.03
"""In cycles a pixel: the lowest frequency, and the one below which a style transfer's loss is flatter."""


def fourier_precondition(image: jax.Array) -> jax.Array:
    """`[H, W, 3]` with its lowest and highest frequencies raised: a rough inverse of how curved a perceptual loss is.

    A linear map, symmetric and positive. The picture goes on beyond its border as in a mirror; its frequencies are
    those of the cosine transform, f = hypot(y, x) in cycles a pixel. They are multiplied by 0.03 / f below f = 0.03
    (no more than by 3.84), and by 1 + (sin^2(pi y) + sin^2(pi x))^2 / 2, which rises from 1 over 1.5 at the highest
    straight frequency to 3 at the highest diagonal one. The shape is a rounding of what was measured along the steps
    of L-BFGS (real VGG-19 to conv3_4, 192 pixels): gradients change 3 to 20 times less with the picture below 0.03 and
    above 0.3 than between. DeepDream's canvases are preconditioned likewise, by 1 / f alone (Olah, Mordvintsev &
    Schubert 2017, https://doi.org/10.23915/distill.00007).

    By products with the few cosines that are slower than 0.03, and differences of neighbors; not by a fast Fourier
    transform: on a CPU the last bits of XLA's depend on how many of its threads are free (jaxlib 0.10.2).

    >>> fourier_precondition(jnp.ones((4, 6, 3)))[0, 0].round(2)
    Array([3.84, 3.84, 3.84], dtype=float32)
    """
    down, across = (_slow_cosines(length) for length in image.shape[:2])
    frequency = np.hypot(down[0][:, None], across[0][None])
    gain = jnp.asarray(np.maximum(_LOW / np.maximum(frequency, _LOWEST), 1) - 1, image.dtype)
    rows, columns = (jnp.asarray(cosines, image.dtype) for _, cosines in (down, across))
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    spectrum = product("kw,jwc->jkc", columns, product("jh,hwc->jwc", rows, image))
    slow = product("jh,jwc->hwc", rows, product("kw,jkc->jwc", columns, gain[..., None] * spectrum))
    return image + slow + _roughness(_roughness(image)) / 2


def _slow_cosines(length):
    """Frequencies below `_LOW`, `[k]`, and their orthonormal cosines over so many pixels, `[k, length]`."""
    order = np.arange(max(1, math.ceil(2 * _LOW * length)))
    cosines = np.cos(np.pi / length * order[:, None] * (np.arange(length) + 0.5)[None])
    return order / (2 * length), cosines * np.where(order == 0, 1, 2)[:, None] ** 0.5 / length**0.5


def _roughness(image):
    """A pixel minus the mean of its four neighbors, which multiplies a frequency by sin^2(pi y) + sin^2(pi x)."""
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return image - (padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]) / 4


def luminance(image: jax.Array) -> jax.Array:
    """Luma of `[H, W, 3]`, `[H, W]`."""
    return jnp.matmul(image, jnp.asarray(_LUMA, image.dtype), precision=lax.Precision.HIGHEST)


def match_luminance(luma: jax.Array, target: jax.Array) -> jax.Array:
    """`luma` with `target`'s mean and standard deviation (Gatys et al. 2017, eq. 10)."""
    spread = jnp.std(luma)
    scale = jnp.where(spread > 0, jnp.std(target) / jnp.where(spread > 0, spread, 1), 0)
    return scale * (luma - jnp.mean(luma)) + jnp.mean(target)


def replace_luminance(image: jax.Array, luma: jax.Array) -> jax.Array:
    """`image` with this luma and its own chroma, in [0, 1].

    In YIQ a shift of luma is the same shift of red, green and blue.
    """
    return jnp.clip(image + (luma - luminance(image))[..., None], 0, 1)


def match_color(image: jax.Array, target: jax.Array) -> jax.Array:
    """`image` with the mean and covariance of `target`'s colors, in [0, 1].

    The linear map is `Ct^(1/2) Ci^(-1/2)`, "image analogies" of Gatys et al. 2017, 6.2. A color direction in which
    `image` does not vary stays flat.
    """
    pixels, goal = image.reshape(-1, 3), target.reshape(-1, 3)
    exact = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    root = exact(_matrix_power(_covariance(goal), 0.5), _matrix_power(_covariance(pixels), -0.5))
    moved = exact(pixels - pixels.mean(0, keepdims=True), root.T) + goal.mean(0, keepdims=True)
    return jnp.clip(moved.reshape(image.shape), 0, 1)


def _covariance(colors):
    return jnp.cov(colors, rowvar=False, ddof=0)  # of a single pixel: 0, not 0 / 0


def _matrix_power(covariance, power):
    values, vectors = jnp.linalg.eigh(covariance)
    kept = values > 1e-6
    return (vectors * jnp.where(kept, jnp.where(kept, values, 1) ** power, 0)[None]) @ vectors.T
