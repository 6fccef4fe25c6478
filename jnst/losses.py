"""Distances between feature maps, under a `Normalization`; each sums to a scalar in float32 or better.

What a distance needs to know of a feature map is sums over its pixels; the rest of it is a function of those.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jnst import ops
from jnst.normalizations import EPSILON, NORMALIZATIONS
from jnst.sqrtm import sqrtm
from jnst.types import Gaussian, Image, Moments, Statistic, StyleTarget

__all__ = [
    "content_loss",
    "content_term",
    "squares",
    "style_loss",
    "style_statistic",
    "style_sums",
    "style_target",
    "total_variation_loss",
]

RIDGE = 1e-4
"""Added to the diagonal of covariances, as in style-transfer-pytorch: a channel that never changes has a root, too."""


def content_loss(features: jax.Array, target: jax.Array, normalization: str) -> jax.Array:
    """How far `[h, w, c]` features F are from the content's P: `sum (F - P)^2`, normalized.

    >>> float(content_loss(jnp.zeros((2, 2, 3)), jnp.ones((2, 2, 3)), "neural_style"))
    1.0
    """
    difference = squares(_wide(features) - _wide(target))
    return content_term(difference, squares(target), target.shape, normalization)


def squares(x: jax.Array) -> jax.Array:
    """The sum of squares."""
    return jnp.sum(_wide(x) ** 2)


def content_term(difference: jax.Array, power: jax.Array, shape: Sequence[int], normalization: str) -> jax.Array:
    """`content_loss` from its sums: `difference` of (F - P)^2, `power` of P^2, over maps of this shape."""
    rule = NORMALIZATIONS[normalization]
    if rule.relative:
        return difference / (power + EPSILON)
    return rule.content(*shape) * difference


def style_sums(features: jax.Array, kind: str) -> Statistic:
    """What the style loss `kind` (`gram` or `wasserstein`) sums over the pixels of `[h, w, c]` features."""
    products = ops.products(features)
    return products if kind == "gram" else Moments(jnp.sum(_wide(features), (0, 1)), products)


def style_statistic(sums: Statistic, shape: Sequence[int], normalization: str) -> Statistic:
    """The Gram matrix, normalized, or the moments, from `style_sums` of a map of this shape."""
    if isinstance(sums, Moments):
        pixels = float(shape[0] * shape[1])
        return Moments(sums.first / pixels, sums.second / pixels)
    # The scale after the sum: bfloat16 would round it, and so the two sides of a loss differently.
    return NORMALIZATIONS[normalization].gram(*shape) * sums


def style_target(statistic: Statistic) -> StyleTarget:
    """What `style_loss` compares with: the Gram matrix itself, or the moments' normal distribution."""
    if not isinstance(statistic, Moments):
        return statistic
    covariance = _covariance(statistic)
    return Gaussian(statistic.first, covariance, sqrtm(covariance))


def style_loss(statistic: Statistic, target: StyleTarget, normalization: str) -> jax.Array:
    """How far an image's style is from the target.

    Of Gram matrices G and T, `sum (G - T)^2`, normalized. Of moments, per channel, the squared 2-Wasserstein distance
    of the two normal distributions: `|m - m0|^2 + tr(C + C0 - 2 (C0^1/2 C C0^1/2)^1/2)` (Olkin & Pukelsheim 1982,
    https://doi.org/10.1016/0024-3795(82)90112-4; as a style loss in style-transfer-pytorch).
    """
    rule = NORMALIZATIONS[normalization]
    if isinstance(statistic, Moments):
        covariance = _covariance(statistic)
        within = jnp.linalg.multi_dot([target.root, covariance, target.root], precision=jax.lax.Precision.HIGHEST)
        spread = jnp.diagonal(target.covariance + covariance - 2 * sqrtm(within))
        distance = jnp.mean((statistic.first - target.mean) ** 2) + jnp.mean(spread)
        size = jnp.mean(target.mean**2) + jnp.mean(jnp.diagonal(target.covariance))
        return distance / (size + EPSILON) if rule.relative else distance
    difference = jnp.sum((statistic - target) ** 2)
    if rule.relative:
        return difference / (jnp.sum(target**2) + EPSILON)
    return rule.style(statistic.shape[-1]) * difference


def _covariance(moments):
    ridge = RIDGE * jnp.eye(len(moments.first), dtype=moments.second.dtype)
    return moments.second - moments.first[:, None] * moments.first[None] + ridge


def total_variation_loss(image: Image, kind: str, normalization: str) -> jax.Array:
    """Total variation of an image: per pixel in [0, 1] under `relative`, else the sum in units of 0..255; under
    `style_transfer_pytorch`, the mean in [0, 1]."""
    rule = NORMALIZATIONS[normalization]
    return rule.tv(*image.shape) * ops.total_variation(image * rule.tv_unit, kind)


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
