"""Winograd's minimal filtering in tiles (Lavin & Gray 2016, https://arxiv.org/abs/1509.09308): its matrices, its
transforms, and the gradient of a kernel.

Six points make 4 outputs of 3 taps or 3 of 4, in one dimension: 36 products in two, where the sum has 144. They are 0,
3/4, -3/4, 4/3, -4/3 and infinity, not 0, 1, -1, 2, -2 and infinity as in the paper: rounding errors are a quarter
(Barabasz et al. 2020, https://doi.org/10.1145/3412380, on the choice), and the set is closed under x -> 1/x, so that a
kernel that is turned around has the same transform in another order.

A transform is a pass over the rows, then one over the columns, each a sum of whole slices: vectors of channels all the
way, a third of the memory of all 36 at once, and a quarter of the compile time.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["WINDOW", "kernel_gradient", "matrices", "tiles", "together", "transform", "turned"]

WINDOW = 6
"""Inputs that a tile sees along each side, and so many points there are."""

_POINTS = (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(4, 3), Fraction(-4, 3))  # and infinity


def transform(kernel: jax.Array) -> jax.Array:
    """A kernel `[k, k, in, out]`, k = 3 or 4, as the products need it: `[36, in, out]`.

    >>> transform(jnp.ones((3, 3, 2, 7))).shape
    (36, 2, 7)
    """
    taps = jnp.asarray(matrices(WINDOW + 1 - len(kernel))[1], kernel.dtype)
    highest = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    rows = highest("pi,ijcd->pjcd", taps, kernel)
    return highest("qj,pjcd->pqcd", taps, rows).reshape(-1, *kernel.shape[2:])


def kernel_gradient(x: jax.Array, change: jax.Array, side: int) -> jax.Array:
    """The gradient at a kernel, `[k, k, in, out]`: G^T ((B^T x B) * (A change A^T)) G, summed over tiles.

    Args:
        x: Maps with their border, `[N, h + k - 1, w + k - 1, in]`.
        change: The gradient at the results, `[N, h, w, out]`.
        side: k, 3 or 4.

    >>> kernel_gradient(jnp.ones((1, 7, 8, 2)), jnp.ones((1, 5, 6, 3)), 3)[0, 0, 0].round(2).tolist()
    [30.0, 30.0, 30.0]
    """
    size = WINDOW + 1 - side
    outputs, taps, inputs = matrices(size)
    more = [(0, 0), *((0, -length % size) for length in change.shape[1:3]), (0, 0)]  # zeros change nothing
    x = tiles(jnp.pad(x, more), inputs, size, side - 1)
    change = tiles(jnp.pad(change, more), outputs.T, size, 0)
    products = lax.dot_general(x, change, (((1,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)
    taps = jnp.asarray(taps, products.dtype)
    highest = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    rows = highest("pi,pqcd->iqcd", taps, products.reshape(WINDOW, WINDOW, *products.shape[1:]))
    return highest("qj,iqcd->ijcd", taps, rows)


def tiles(x: jax.Array, matrix: np.ndarray, size: int, beyond: int) -> jax.Array:
    """The transform of tiles by a matrix of six rows: `[n, size r + beyond, size c + beyond, C]` -> `[36, n r c, C]`.

    >>> tiles(jnp.ones((2, 10, 6, 3)), matrices(4)[2], 4, 2).shape
    (36, 4, 3)
    """
    n, height, width, channels = x.shape
    r, c = (height - beyond) // size, (width - beyond) // size
    step = lambda array, axis, i, tiles: lax.slice_in_dim(array, i, i + size * (tiles - 1) + 1, size, axis)  # noqa: E731
    apart, columns = lax.optimization_barrier, matrix.shape[1]  # or XLA would fuse passes, and compute one six times
    x = apart(_combine(matrix, [step(x, 1, i, r) for i in range(columns)], 0))  # [6, n, r, width, C]
    x = apart(_combine(matrix, [step(x, 3, i, c) for i in range(columns)], 1))  # [6, 6, n, r, c, C]
    return x.reshape(WINDOW**2, n * r * c, channels)


def together(y: jax.Array, matrix: np.ndarray, shape: tuple[int, int, int]) -> jax.Array:
    """From products `[36, n r c, C]` to results, `[n, size r, size c, C]`; `shape` is `(n, r, c)`."""
    n, r, c = shape
    size = len(matrix)
    y = lax.optimization_barrier(y).reshape(WINDOW, WINDOW, n, r, c, -1)
    y = _combine(matrix, [y[:, q] for q in range(WINDOW)], 4)
    y = lax.optimization_barrier(y).reshape(WINDOW, n, r, size * c, -1)
    y = _combine(matrix, [y[p] for p in range(WINDOW)], 2)
    return y.reshape(n, size * r, size * c, -1)


def _combine(matrix, parts: Sequence[jax.Array], axis):
    """The sums of `parts` that the rows of `matrix` say, stacked."""
    sums = [sum(float(factor) * part for factor, part in zip(row, parts, strict=True) if factor) for row in matrix]
    return jnp.stack(sums, axis)


@functools.cache
def matrices(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of tiles of `size` outputs and 7 - `size` taps: Winograd's A^T `[size, 6]`, G `[6, taps]` and B^T `[6, 6]`, for
    y = A^T ((G k) * (B^T x)), from Toom and Cook's theorem.

    >>> [matrix.shape for matrix in matrices(3)]
    [(3, 6), (6, 4), (6, 6)]
    """
    count = WINDOW + 1 - size
    norms = [math.prod(p - q for q in _POINTS if q != p) for p in _POINTS]
    outputs = [[p**i for p in _POINTS] + [Fraction(i == size - 1)] for i in range(size)]
    taps = [[p**i / norm for i in range(count)] for p, norm in zip(_POINTS, norms, strict=True)]
    taps += [[0] * (count - 1) + [1]]
    inputs = [_polynomial([q for q in _POINTS if q != p]) + [0] for p in _POINTS] + [_polynomial(_POINTS)]
    return tuple(np.array(matrix, float) for matrix in (outputs, taps, inputs))


@functools.cache
def turned() -> tuple[np.ndarray, None, np.ndarray]:
    """`matrices(4)` for a kernel that is turned around, whose transform G k is in the order of 1/x."""
    outputs, taps, inputs = matrices(4)
    order = [WINDOW - 1] + [_POINTS.index(1 / p) for p in _POINTS[1:]] + [0]
    # Row x of G, turned around, is row 1/x but for a factor.
    factors = [taps[i, ::-1] @ taps[j] / (taps[j] @ taps[j]) for i, j in enumerate(order)]
    places = np.argsort(order)
    return (outputs * factors)[:, places], None, inputs[places]


def _polynomial(roots):
    """Coefficients of the product of (x - root), lowest first."""
    found = [Fraction(1)]
    for root in roots:
        found = [low - root * high for low, high in zip([0, *found], [*found, 0], strict=True)]
    return found
