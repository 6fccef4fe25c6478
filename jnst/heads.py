"""Heads: 1x1 convolutions that guess one network's feature maps from another's, by least squares.

Everything here is computed from second moments, so that no guessed map is ever made: a head's error and the Gram
matrices of its guesses follow from sums over the places of a map.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jnst import ops
from jnst.config import CONVOLUTIONS
from jnst.types import Features, Params

__all__ = ["Moments", "balance", "fit", "grams", "guessed_grams", "moments", "residual", "score", "variance"]

_FLAT = 1e-4  # of the mean square: a variance below it is no contrast
_RIDGE = 1e-5  # of the mean diagonal: the channels of a layer are nearly dependent


class Moments(NamedTuple):
    """Second moments of a student's layer, with a constant 1 as its last channel, and a teacher's."""

    own: jax.Array  # [c + 1, c + 1]
    cross: jax.Array  # [c + 1, C]; its last row is the teacher's mean
    teacher: jax.Array  # [C], mean squares


def moments(student: jax.Array, teacher: jax.Array) -> Moments:
    """Of feature maps `[..., c]` and `[..., C]` at the same places.

    >>> import jax.numpy as jnp
    >>> found = moments(jnp.ones((4, 4, 2)), jnp.ones((4, 4, 5)))
    >>> found.own.shape, found.cross.shape, found.teacher.shape
    ((3, 3), (3, 5), (5,))
    """
    own, theirs = (maps.reshape(-1, maps.shape[-1]) for maps in (student, teacher))
    own = jnp.concatenate([own, jnp.ones((len(own), 1), own.dtype)], 1)
    return Moments(_product(own, own), _product(own, theirs), jnp.mean(theirs**2, 0))


def _product(a, b):
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST) / len(a)


def fit(moments: Moments) -> jax.Array:
    """The least squares head `[c + 1, C]`; its last row is the bias. A multiple of the moments gives the same head."""
    size = len(moments.own)
    ridge = _RIDGE * jnp.trace(moments.own) / size * jnp.eye(size, dtype=moments.own.dtype)
    return jax.scipy.linalg.solve(moments.own + ridge, moments.cross, assume_a="pos")


def residual(moments: Moments, head: jax.Array) -> jax.Array:
    """The head's mean squared error at each of the teacher's channels, `[C]`."""
    guess = jnp.matmul(moments.own, head, precision=lax.Precision.HIGHEST)
    return moments.teacher - 2 * jnp.sum(head * moments.cross, 0) + jnp.sum(head * guess, 0)


def variance(moments: Moments) -> jax.Array:
    """Of the teacher's channels, `[C]`; never below 0, as rounding would have it where there is no contrast."""
    return jnp.maximum(moments.teacher - moments.cross[-1] ** 2, 0)


def grams(maps: jax.Array) -> jax.Array:
    """Gram matrices `[B, c, c]` of `[B, h, w, c]`, each a mean over places."""
    return jax.vmap(lambda x: ops.gram(x, 1 / (x.shape[0] * x.shape[1])))(maps)


def guessed_grams(maps: jax.Array, head: jax.Array) -> jax.Array:
    """Gram matrices `[B, C, C]` of what a head `[c + 1, C]` makes of `[B, h, w, c]`."""
    means = jnp.mean(maps, (1, 2))[:, :, None]
    ones = jnp.ones((len(maps), 1, 1), maps.dtype)
    own = jnp.block([[grams(maps), means], [means.swapaxes(1, 2), ones]])
    return jnp.einsum("ic,bij,jd->bcd", head, own, head, precision=lax.Precision.HIGHEST)


def score(
    student: Features, teacher: Features, heads: Mapping[str, jax.Array]
) -> Mapping[str, tuple[jax.Array, jax.Array]]:
    """How well one picture's feature maps `[h, w, c]` of a student tell those of a teacher.

    Returns:
        By layer, R^2 (the share of all channels' variance that the head explains) and the cosine between the teacher's
        Gram matrix and that of the guess.
    """
    found = {}
    for name, head in heads.items():
        both = moments(student[name], teacher[name])
        whole = jnp.sum(variance(both))
        seen = whole > _FLAT * jnp.sum(both.teacher)
        explained = jnp.where(seen, 1 - jnp.sum(residual(both, head)) / jnp.where(seen, whole, 1), jnp.nan)
        guess, truth = guessed_grams(student[name][None], head)[0], grams(teacher[name][None])[0]
        cosine = jnp.sum(guess * truth) / (jnp.linalg.norm(guess) * jnp.linalg.norm(truth))
        found[name] = (explained, cosine)
    return found


def balance(params: Params, heads: Mapping[str, jax.Array]) -> Params:
    """The same network, each channel scaled to the length of its row in the layer's head `[c + 1, C]`.

    A rectifier and a mean let a channel be scaled up and the next kernel's rows down, and nothing changes. But a style
    loss compares channels as they are: after this, each counts as much as it counts in the teacher.
    """
    out, before = {"mean": params["mean"]}, None
    for name in (name for name in CONVOLUTIONS if name in params):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        if before is not None:
            kernel = kernel / before[None, None, :, None]
        head = heads.get("relu" + name[4:])
        before = jnp.ones_like(bias) if head is None else jnp.linalg.norm(head[:-1], axis=1)
        before = jnp.where(before > 0, before, 1)
        out[name] = {"kernel": kernel * before[None, None, None], "bias": bias * before}
    return out
