"""Distances between feature maps, under a `Normalization`; each sums to a scalar in float32 or better."""

import jax
import jax.numpy as jnp

from jnst import ops
from jnst.normalizations import EPSILON, NORMALIZATIONS
from jnst.types import Image

__all__ = ["content_loss", "style_gram", "style_loss", "total_variation_loss"]


def content_loss(features: jax.Array, target: jax.Array, normalization: str) -> jax.Array:
    """How far `[h, w, c]` features F are from the content's P: `sum (F - P)^2`, normalized.

    >>> float(content_loss(jnp.zeros((2, 2, 3)), jnp.ones((2, 2, 3)), "neural_style"))
    1.0
    """
    rule = NORMALIZATIONS[normalization]
    features, target = _wide(features), _wide(target)
    difference = jnp.sum((features - target) ** 2)
    if rule.relative:
        return difference / (jnp.sum(target**2) + EPSILON)
    return rule.content(*target.shape) * difference


def style_gram(features: jax.Array, normalization: str) -> jax.Array:
    """The Gram matrix `[c, c]` that `style_loss` compares, normalized by the features' own size."""
    return ops.gram(features, NORMALIZATIONS[normalization].gram(*features.shape))


def style_loss(gram: jax.Array, target: jax.Array, normalization: str) -> jax.Array:
    """How far a Gram matrix G `[c, c]` is from the style's T: `sum (G - T)^2`, normalized."""
    rule = NORMALIZATIONS[normalization]
    difference = jnp.sum((gram - target) ** 2)
    if rule.relative:
        return difference / (jnp.sum(target**2) + EPSILON)
    return rule.style(gram.shape[-1]) * difference


def total_variation_loss(image: Image, kind: str, normalization: str) -> jax.Array:
    """Total variation of an image: per pixel in [0, 1] under `relative`, else the sum in units of 0..255."""
    rule = NORMALIZATIONS[normalization]
    total = ops.total_variation(image * rule.tv_unit, kind)
    return total / float(image.shape[0] * image.shape[1]) if rule.relative else total


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
