"""Aliases and small traced records.

The data contract, once for all modules: an image is `[H, W, 3]` float32 sRGB in [0, 1], rows first, without a
batch axis (`vmap` adds axes). NamedTuples are traced; what is static lives in `config`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

__all__ = ["Features", "Image", "Params", "Rates", "Snapshot", "Targets", "Terms", "Weights"]

Image = jax.Array
"""`[H, W, 3]` float32 sRGB in [0, 1]."""

Features = Mapping[str, jax.Array]
"""Feature maps by layer name, each `[h, w, c]`."""

Terms = Mapping[str, jax.Array]
"""Weighted loss terms by name, scalars: `total`, and what it is the sum of."""

Params = Mapping[str, object]
"""A backbone: `{"mean": [3], "conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ...}`. After `vgg.prepare` a layer
may also have `winograd`, the kernel in another form."""


class Weights(NamedTuple):
    """What each term counts. Traced, so that a change of weight compiles nothing."""

    content: jax.Array  # []
    style: jax.Array  # []
    tv: jax.Array  # []
    content_layers: jax.Array  # [number of content layers]
    style_layers: jax.Array  # [number of style layers]


class Targets(NamedTuple):
    """What the image is compared with. Gram matrices have one size whatever the style's: styles stack."""

    content: Features  # by content layer, [h, w, c]
    style: Mapping[str, jax.Array]  # by style layer, [c, c]


class Rates(NamedTuple):
    """The optimizer's traced numbers."""

    learning_rate: jax.Array  # [], in the canvas's unit


class Snapshot(NamedTuple):
    """A run between two steps, on the host."""

    leaves: list[np.ndarray]
    """Of the loop's state, in `jax.tree.leaves`' order."""
    trace: list[dict[str, float]]
    """Rows of steps and terms, up to here."""
