"""A DCGAN as a game (Radford, Metz & Chintala 2016): its losses; pictures out of it, and walks between them.

How it is trained is in `jnst.games`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jnst import adversarial, distances, train
from jnst.config import DcganSpec
from jnst.nets import dcgan
from jnst.types import Params, Terms

__all__ = ["TERMS", "Game", "features", "noise", "sample", "walk"]

TERMS = ("generator", "discriminator", "real", "fake")
"""Two losses, and two accuracies: the shares of real and of made pictures that the discriminator is right about."""

_MEASURED = 512  # pictures that a generator's moments are measured on
_AT_ONCE = 250  # pictures that a network looks at together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Game:
    """See `games.Game`."""

    terms: ClassVar[tuple[str, ...]] = TERMS
    net: DcganSpec
    kind: str = "bce"
    """One of `config.ADVERSARIAL_LOSSES`."""

    def begin(self, key: jax.Array) -> tuple[train.Pair, train.Pair]:
        """Both networks' parameters; nothing is learnt beside them."""
        return train.Pair(*(found["params"] for found in dcgan.init(key, self.net))), train.Pair({}, {})

    def loss(
        self,
        key: jax.Array,
        params: train.Pair,
        extra: train.Pair,
        batch: jax.Array,
        *,
        axis_name: str | None = None,
    ) -> tuple[train.Pair, tuple[Terms, train.Pair]]:
        """Of both networks, on real pictures `[B, S, S, 3]` and as many made ones."""
        of_noise, of_real, of_made = (jax.random.fold_in(key, number) for number in range(3))
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(batch)
        z = dcgan.latents(of_noise, len(batch), self.net, first=first)
        made = dcgan.generate({"params": params.generator}, z, self.net, train=True, axis_name=axis_name)
        judge = functools.partial(
            dcgan.discriminate,
            variables={"params": params.discriminator},
            spec=self.net,
            first=first,
            axis_name=axis_name,
        )
        real, fake = judge(of_real, images=batch), judge(of_made, images=made)
        losses = train.Pair(
            adversarial.generator_loss(fake, self.kind), adversarial.discriminator_loss(real, fake, self.kind)
        )
        right = adversarial.accuracies(real, fake, self.kind)
        return losses, (dict(zip(TERMS, (*losses, *right), strict=True)), extra)

    def taken(self, key: jax.Array, params: object) -> object:
        """With the moments that its maps have on noise, see `nets.dcgan.measured`."""
        return dcgan.measured({"params": params}, dcgan.latents(key, _MEASURED, self.net), self.net)


def noise(key: jax.Array, count: int, spec: DcganSpec) -> jax.Array:
    """Noise to sample from, `[count, latent]`: more of it begins with the same.

    >>> noise(jax.random.key(0), 2, DcganSpec()).shape
    (2, 100)
    """
    return _noise(key, count, spec)


@functools.partial(jax.jit, static_argnames=("count", "spec"))
def _noise(key, count, spec):
    return dcgan.latents(key, count, spec)


def sample(variables: Mapping[str, object], z: np.ndarray, spec: DcganSpec) -> np.ndarray:
    """Pictures of a trained generator: `[N, latent]` -> `[N, S, S, 3]` sRGB in [0, 1], each by its own noise alone."""
    rows = [_sampled(variables, jnp.asarray(z[at : at + _AT_ONCE]), spec) for at in range(0, len(z), _AT_ONCE)]
    return np.concatenate([np.asarray(row) for row in rows])


@functools.partial(jax.jit, static_argnames=("spec",))
def _sampled(variables, z, spec):
    return jnp.clip((dcgan.generate(variables, z, spec) + 1) / 2, 0, 1)


def walk(corners: np.ndarray, steps: int, *, closed: bool = False) -> np.ndarray:
    """A way through noise vectors `[K, latent]`, `steps` from each to the next along an arc (Shoemake 1985).

    On a straight way the middle would be nearer to 0 than noise ever is, and its pictures grayer.

    Args:
        corners: At least two.
        steps: From corner to corner.
        closed: Whether it comes back to the first, which then is not repeated at the end.

    >>> walk(np.array([[1.0, 0.0], [0.0, 1.0]]), 2).round(3)
    array([[1.   , 0.   ],
           [0.707, 0.707],
           [0.   , 1.   ]], dtype=float32)
    """
    corners = np.asarray(corners, np.float64)
    ends = np.roll(corners, -1, 0) if closed else corners[1:]
    way = [_arc(one, other, step / steps) for one, other in zip(corners, ends, strict=False) for step in range(steps)]
    return np.array(way if closed else [*way, corners[-1]], np.float32)


def _arc(one, other, share):
    cosine = np.dot(one, other) / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:
        return (1 - share) * one + share * other
    return (np.sin((1 - share) * angle) * one + np.sin(share * angle) * other) / np.sin(angle)


def features(
    params: Params, pictures: np.ndarray, layer: str, *, pooling: str = "avg", padding: str = "zeros"
) -> np.ndarray:
    """`distances.features`, compiled, of pictures `[N, S, S, 3]` in bytes or in [0, 1]: `[N, d]` float64."""
    found = []
    for at in range(0, len(pictures), _AT_ONCE):
        some = np.asarray(pictures[at : at + _AT_ONCE])
        some = some.astype(np.float32) / 255 if some.dtype == np.uint8 else some
        found.append(np.asarray(_features(params, jnp.asarray(some), layer, pooling, padding), np.float64))
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnames=("layer", "pooling", "padding"))
def _features(params, images, layer, pooling, padding):
    return distances.features(params, images, layer, pooling=pooling, padding=padding)
