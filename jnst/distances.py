"""How far two sets of pictures lie apart, by what a network sees in them; in float64 on the host.

The Fréchet distance is that of the normal distributions with the sets' means and covariances (Dowson & Landau 1982);
with Inception's features it is known as FID (Heusel et al. 2017, https://arxiv.org/abs/1706.08500). The kernel distance
is the squared maximum mean discrepancy under a cubic kernel (Binkowski et al. 2018, https://arxiv.org/abs/1801.01401),
without bias, so that it can be a little below 0. Features of another network give other numbers: each is named after
the network, and none of them is FID or KID.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jnst.nets import vgg
from jnst.types import Params

__all__ = ["features", "frechet", "kernel"]


def features(
    params: Params, images: jax.Array, layer: str, *, pooling: str = "avg", padding: str = "zeros"
) -> jax.Array:
    """What a network sees in pictures: a layer's maps, averaged over each picture.

    Args:
        params: See `types.Params`.
        images: `[N, S, S, 3]` sRGB in [0, 1].
        layer: Such as `relu4_1`.
        pooling: As in `vgg.features`.
        padding: As in `vgg.features`.

    Returns:
        `[N, d]`.
    """

    def one(image):
        return jnp.mean(vgg.features(params, image, (layer,), pooling=pooling, padding=padding)[layer], (0, 1))

    return jax.vmap(one)(images)


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """`|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2)` of two sets of feature vectors `[N, d]` and `[M, d]`.

    Few vectors make it larger: it should be compared only between sets of as many, and of more than `d`.

    >>> round(frechet(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])), 6)
    9.0
    """
    one, other = _vectors(one), _vectors(other)
    (mean, first), (center, second) = _moments(one), _moments(other)
    apart = np.sum((mean - center) ** 2)
    # The root of a product that is not symmetric has the trace of one that is.
    root = _root(first)
    middle = np.linalg.eigvalsh(root @ second @ root)
    both = np.trace(first) + np.trace(second) - 2 * np.sum(np.sqrt(np.maximum(middle, 0)))
    return float(max(0.0, apart + both))


def kernel(one: np.ndarray, other: np.ndarray) -> Mapping[str, float]:
    """The squared maximum mean discrepancy of `[N, d]` and `[M, d]` vectors under `(x.y / d + 1)^3`, without bias.

    Returns:
        `distance`, and `error`: its standard error, from ten parts of both sets; NaN of sets below 20.

    >>> kernel(np.eye(2), np.eye(2))["distance"]
    -2.375
    """
    one, other = _vectors(one), _vectors(other)
    parts = min(len(one), len(other)) >= 20
    pieces = [_discrepancy(one[part::10], other[part::10]) for part in range(10)] if parts else [np.nan]
    error = float(np.std(pieces, ddof=1) / np.sqrt(len(pieces))) if parts else float("nan")
    return {"distance": _discrepancy(one, other), "error": error}


def _discrepancy(one, other):
    within = sum(_apart(vectors) for vectors in (one, other))
    return float(within - 2 * np.mean(_cubic(one, other)))


def _apart(vectors):
    """The mean over pairs of different vectors."""
    products = _cubic(vectors, vectors)
    count = len(vectors)
    return (np.sum(products) - np.trace(products)) / (count * (count - 1))


def _cubic(one, other):
    return (one @ other.T / one.shape[1] + 1) ** 3


def _vectors(found):
    found = np.asarray(found, np.float64)
    if found.ndim != 2 or len(found) < 2:
        raise ValueError(f"found an array of shape {found.shape}; expected at least two vectors")
    return found


def _moments(vectors):
    mean = vectors.mean(0)
    return mean, np.atleast_2d(np.cov(vectors, rowvar=False))


def _root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
