"""A backbone's layers as a task computes with them: on the device, in the precision asked for."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jnst import compiler
from jnst.nets import vgg
from jnst.types import Image, Params

__all__ = ["network", "prepared"]

_LARGEST = 512
"""Pixels on the longest side of the pictures that random filters are scaled on: variances need no more, memory may
not have more."""


def network(
    params: Params,
    pictures: Sequence[Image],
    layers: Sequence[str],
    *,
    pooling: str,
    padding: str,
    precision: str = "float32",
    standardize: bool = False,
) -> Params:
    """The convolutions that `layers` need.

    Args:
        params: Backbone.
        pictures: As the network shall see them, in the canvas's type; all but the type counts only where `standardize`
            is true.
        layers: Names.
        pooling: Of the network.
        padding: Of the network.
        precision: One of `config.PRECISIONS`.
        standardize: Scale the layers to unit variance on these pictures (random filters).
    """
    layers = tuple(layers)
    needed = {name: params[name] for name in ("mean", *vgg.convolutions(layers))}
    needed = jax.tree.map(lambda leaf: jnp.asarray(leaf, pictures[0].dtype), needed)
    if standardize:
        needed = _standardize(needed, list(pictures), layers, pooling, padding)
    if precision == "bfloat16":
        kernels = {name: needed[name] for name in needed if name != "mean"}
        needed = {"mean": needed["mean"], **jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), kernels)}
    return needed


def prepared(params: Params) -> Params:
    """The network that steps are made with: `vgg.prepare` for the device. It serves many steps, not a single pass."""
    return _prepare(params, compiler.platform())


@functools.partial(jax.jit, static_argnames=("platform",))
def _prepare(params, platform):
    return vgg.prepare(params, platform)


def _at_most(image, longest):
    height, width, _ = image.shape
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    return jax.image.resize(image, (max(1, round(height * scale)), max(1, round(width * scale)), 3), "linear")


@functools.partial(jax.jit, static_argnames=("layers", "pooling", "padding"))
def _standardize(params, images, layers, pooling, padding):
    images = [_at_most(image, _LARGEST) for image in images]
    return vgg.standardize(params, images, layers, pooling=pooling, padding=padding)
