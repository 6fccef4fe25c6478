"""Random filters: a backbone that needs no file."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from jnst.config import CONVOLUTIONS, convolution_of
from jnst.weights.backbone import CAFFE_MEAN_BGR, Backbone

__all__ = ["random_backbone"]

# The widths of VGG-19's blocks; a file may hold any others.
_VGG19_WIDTHS = (64, 128, 256, 512, 512)

# Amplitude of a random filter's frequency over that of the next lower one: 1 gives white filters, which answer most to
# grain, and so put grain into pictures.
_SMOOTHNESS = 0.5


def random_backbone(seed: int, layers: Sequence[str] = ()) -> Backbone:
    """VGG-19 with random filters: orthogonal, each with taps that sum to 0, no bias.

    Random networks do transfer style (He, Wang & Hopcroft 2016; Ustyuzhaninov et al. 2016). Orthogonal filters do not
    repeat each other; a sum of 0 keeps the mean brightness, which after a rectifier is positive everywhere, from
    drowning the rest. Departures from those papers, both by looking at pictures: filters favor low frequencies
    (`_SMOOTHNESS`), and the border is replicated, because zeros beyond it leave a broad frame. Where there are more
    filters than directions (conv1_1), they come in several orthogonal sets.

    Args:
        seed: Every layer has its own stream, so depth changes nothing.
        layers: Made no deeper than these need; empty: all.

    >>> kernel = random_backbone(0, ["conv1_1"]).params["conv1_1"]["kernel"]
    >>> kernel.shape, bool(abs(kernel.sum((0, 1, 2))).max() < 1e-5)
    ((3, 3, 3, 64), True)
    """
    depth = 1 + max((CONVOLUTIONS.index(convolution_of(layer)) for layer in layers), default=len(CONVOLUTIONS) - 1)
    params: dict[str, object] = {"mean": np.array(CAFFE_MEAN_BGR[::-1], np.float32) / 255}
    digest = hashlib.sha256()
    channels = 3
    for index, name in enumerate(CONVOLUTIONS[:depth]):
        width = _VGG19_WIDTHS[int(name[4]) - 1]
        kernel = _orthogonal(np.random.default_rng([seed, index]), 9 * channels, width).reshape(3, 3, channels, width)
        params[name] = {"kernel": kernel, "bias": np.zeros(width, np.float32)}
        digest.update(kernel.tobytes())
        channels = width
    return Backbone(
        name=f"random:{seed}",
        sha256=digest.hexdigest(),
        params=params,
        padding="replicate",
        standardize=True,
        source="random filters, built in",
        origin="random filters",
    )


def _orthogonal(rng, inputs, outputs):
    """`[inputs, outputs]` of unit columns that sum to 0, orthogonal in sets of up to `inputs - 1`.

    An input is one tap of a 3x3 filter over `inputs // 9` channels.
    """
    # Drawn as amplitudes of the 3x3 cosine transform, smaller for higher frequencies.
    places = np.arange(3)
    waves = np.cos(np.pi * np.outer(places, places + 0.5) / 3)  # [frequency, place]
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    amplitudes = _SMOOTHNESS ** np.add.outer(places, places)
    sets = math.ceil(outputs / (inputs - 1))
    columns = []
    for size in (len(part) for part in np.array_split(range(outputs), sets)):
        draw = rng.standard_normal((3, 3, inputs // 9, size)) * amplitudes[:, :, None, None]
        draw = np.einsum("vx,uvio->uxio", waves, draw)
        draw = np.einsum("uy,uxio->yxio", waves, draw).reshape(inputs, size)
        draw -= draw.mean(0)
        # Gram-Schmidt by a Cholesky factor: in float64 as exact as a QR here, and several times faster.
        columns.append(np.linalg.solve(np.linalg.cholesky(draw.T @ draw), draw.T).T)
    return np.ascontiguousarray(np.concatenate(columns, 1), np.float32)
