"""The image pool: made pictures of earlier steps, which a discriminator is shown again so that it does not forget them
(Shrivastava et al. 2017, https://arxiv.org/abs/1612.07828; 50 of them in CycleGAN).

It lies among what a training's state carries, so a run that is restored has the pool that it had.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Pool", "init", "query"]


class Pool(NamedTuple):
    """Pictures, and how many of the places are taken."""

    pictures: jax.Array  # [places, H, W, 3]
    taken: jax.Array  # int32


def init(places: int, size: int) -> Pool:
    """An empty one for pictures of `size` x `size` pixels.

    >>> init(50, 32).pictures.shape
    (50, 32, 32, 3)
    """
    return Pool(jnp.zeros((places, size, size, 3)), jnp.int32(0))


def query(key: jax.Array, pool: Pool, images: jax.Array) -> tuple[Pool, jax.Array]:
    """What the discriminator is shown in place of new pictures.

    One after the other: while there is a free place a picture takes it, and is shown. Then by chance half of them are
    shown, and each other one takes the place of a picture of the pool, which is shown instead.

    Args:
        key: Of the chance.
        pool: From `init` or `query`.
        images: New ones, `[N, H, W, 3]`.

    Returns:
        The pool, and `[N, H, W, 3]`.

    >>> images = jnp.arange(3.0)[:, None, None, None] * jnp.ones((3, 4, 4, 3))
    >>> pool, shown = query(jax.random.key(0), init(2, 4), images)
    >>> int(pool.taken), shown[:2, 0, 0, 0].tolist()
    (2, [0.0, 1.0])
    """
    places = len(pool.pictures)

    def one(pool, given):
        key, image = given
        chance, place = jax.random.split(key)
        has_room = pool.taken < places
        exchanged = jnp.logical_and(~has_room, jax.random.bernoulli(chance))
        at = jnp.where(has_room, pool.taken, jax.random.randint(place, (), 0, places))
        old = jax.lax.dynamic_index_in_dim(pool.pictures, at, keepdims=False)
        kept = jnp.where(has_room | exchanged, image, old)
        pictures = jax.lax.dynamic_update_index_in_dim(pool.pictures, kept, at, 0)
        return Pool(pictures, jnp.minimum(pool.taken + 1, places)), jnp.where(exchanged, old, image)

    return jax.lax.scan(one, pool, (jax.random.split(key, len(images)), images))
