"""Aliases and small traced records.

The data contract, once for all modules: an image is `[H, W, 3]` float32 sRGB in [0, 1], rows first, without a
batch axis (`vmap` adds axes). NamedTuples are traced; what is static lives in `config`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

__all__ = [
    "Features",
    "Gaussian",
    "Image",
    "Moments",
    "Params",
    "Rates",
    "Snapshot",
    "Statistic",
    "StyleTarget",
    "Sums",
    "Targets",
    "Terms",
    "Weights",
]

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


class Moments(NamedTuple):
    """First and second raw moment of features over pixels, or the sums that these are made of: both can be added."""

    first: jax.Array  # [c]
    second: jax.Array  # [c, c]


class Gaussian(NamedTuple):
    """The normal distribution that has the features' moments."""

    mean: jax.Array  # [c]
    covariance: jax.Array  # [c, c]
    root: jax.Array  # [c, c], of the covariance


Statistic = jax.Array | Moments
"""What a style loss knows of a feature map: a Gram matrix `[c, c]`, or moments."""

StyleTarget = jax.Array | Gaussian
"""What it is compared with."""


class Sums(NamedTuple):
    """All that an objective knows of an image's feature maps: sums over pixels, so that parts can be added up."""

    content: Mapping[str, jax.Array]  # by content layer, [], of (F - P)^2
    style: Mapping[str, Statistic]  # by style layer, not divided by anything


class Targets(NamedTuple):
    """What the image is compared with. Those of styles have one size whatever the picture's: styles stack."""

    content: Features  # by content layer, [h, w, c]
    style: Mapping[str, StyleTarget]  # by style layer


class Rates(NamedTuple):
    """The optimizer's traced numbers."""

    learning_rate: jax.Array  # [], in the canvas's unit
    average_decay: jax.Array | None = None  # [], of the average over the iterates, where there is one
    beta1: jax.Array | None = None  # [], decay of the mean gradient, where it is not the optimizer's own


class Snapshot(NamedTuple):
    """A run between two steps, on the host."""

    leaves: Sequence[np.ndarray]
    """Of the loop's state, in `jax.tree.leaves`' order."""
    trace: list[dict[str, float]]
    """Rows of steps and terms, up to here."""
    scale: int = 0
    """Which of the pyramid's scales it is at, from 0."""
    plan: tuple[int, ...] = ()
    """How that is computed, in the task's own words."""
    kept: Sequence[np.ndarray] = ()
    """Pictures of the stages before, where each is a result."""
