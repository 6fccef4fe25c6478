"""Pictures by a trained stylenet, in one pass, compiled once for each size."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jnst import compiler, ops
from jnst.config import StyleNetSpec
from jnst.nets import stylenet

__all__ = ["finished", "paint"]


def paint(
    variables: Mapping[str, object],
    images: np.ndarray | jax.Array,
    mix: np.ndarray | jax.Array,
    spec: StyleNetSpec,
    *,
    strength: float = 1.0,
    preserve_color: str = "none",
) -> jax.Array:
    """Pictures `[N, H, W, 3]` in [0, 1] of the photos `images`, whole.

    Args:
        variables: Of the network, see `stylenet.init`.
        images: `[N, H, W, 3]` sRGB in [0, 1].
        mix: `[styles]`, the share of each style.
        spec: The network's architecture.
        strength: From the photo, 0, to the network's picture, 1; traced.
        preserve_color: `luminance` keeps the photos' chroma.

    >>> spec = StyleNetSpec(widths=(4, 8), blocks=1)
    >>> variables = stylenet.init(jax.random.key(0), spec)
    >>> paint(variables, np.zeros((1, 9, 13, 3), np.float32), np.ones(1, np.float32), spec).shape
    (1, 9, 13, 3)
    """
    return _paint(variables, jnp.asarray(images), jnp.asarray(mix), jnp.float32(strength), spec, preserve_color)


@functools.partial(compiler.jit, static_argnames=("spec", "preserve_color"))
def _paint(variables, images, mix, strength, spec, preserve_color):
    shares = jnp.broadcast_to(mix[None], (len(images), len(mix)))
    painted, _ = stylenet.apply(variables, images, shares, spec)
    return jax.vmap(functools.partial(finished, preserve_color=preserve_color), (0, 0, None))(images, painted, strength)


def finished(image: jax.Array, painted: jax.Array, strength: jax.Array, *, preserve_color: str = "none") -> jax.Array:
    """What is shown of a network's picture: colors and strength as they were asked for, clipped. `[H, W, 3]` each."""
    painted = jnp.clip(painted, 0, 1)
    if preserve_color == "luminance":
        painted = jnp.clip(ops.replace_luminance(image, ops.luminance(painted)), 0, 1)
    return image + strength * (painted - image)
