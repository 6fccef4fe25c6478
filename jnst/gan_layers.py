"""What the networks of pix2pix and CycleGAN are made of: normalization by the moments of what goes through, dropout
that is the network's noise, and first numbers, normal(0, 0.02).

There are no running moments: a picture that is translated is normalized by its own, as in Isola et al. 2017
(https://arxiv.org/abs/1611.07004, section 3.4), so that use is like training with batches of one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

__all__ = ["EPSILON", "Norm", "arithmetic", "dropped", "drawn", "keys_of", "leaky", "placeholder"]

EPSILON = 1e-5
"""Added to variances."""

_LEAK = 0.2  # of what is below 0
_SPREAD = 0.02
_LEVELS = 256  # dropout draws bytes, which is four times as fast as numbers


def placeholder(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Zeros, for a parameter whose first numbers `drawn` gives.

    >>> placeholder(jax.random.key(0), (2,)).tolist()
    [0.0, 0.0]
    """
    return jnp.zeros(shape)


class Norm(nn.Module):
    """Takes off the mean and divides by the deviation of each map (`instance`), or of a batch's maps (`batch`); then a
    scale and a shift by channel, which for CycleGAN's instance normalization is a departure."""

    width: int
    kind: str

    @nn.compact
    def __call__(self, x: jax.Array, axis_name: str | None = None) -> jax.Array:
        """Maps `[N, H, W, C]`; `axis_name`: the mesh's axis that a batch is spread over, where it is."""
        scale = self.param("scale", placeholder, (self.width,))
        shift = self.param("shift", placeholder, (self.width,))
        axes = (0, 1, 2) if self.kind == "batch" else (1, 2)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = jnp.mean(x, axes, keepdims=True)
        variance = jnp.mean((x - mean) ** 2, axes, keepdims=True)
        if self.kind == "batch" and axis_name is not None:
            whole = jax.lax.pmean(mean, axis_name)
            variance, mean = jax.lax.pmean(variance + (mean - whole) ** 2, axis_name), whole
        factor = jax.lax.rsqrt(variance + EPSILON) * scale[None, None, None]
        return (x - mean) * factor + shift[None, None, None]


def leaky(x: jax.Array) -> jax.Array:
    """The leaky rectifier.

    >>> leaky(jnp.array([-1.0, 2.0])).tolist()
    [-0.20000000298023224, 2.0]
    """
    return jnp.where(x > 0, x, _LEAK * x)


def arithmetic(x: jax.Array, precision: str) -> jax.Array:
    """In the type that products are made in: `float32`, as it is, or `bfloat16`."""
    return x.astype(jnp.bfloat16) if precision == "bfloat16" else x


def keys_of(key: jax.Array, count: int, *, first: int | jax.Array = 0) -> jax.Array:
    """A key for each picture of a batch, by its number, so that its noise is the same however a batch is spread."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


def dropped(keys: jax.Array, x: jax.Array, share: float, layer: int) -> jax.Array:
    """Maps `[N, H, W, C]` without a share of their numbers (rounded to 256ths), the others larger in turn.

    Args:
        keys: `[N]`, from `keys_of`.
        x: Maps.
        share: That is dropped.
        layer: Its number: layers of one picture drop other numbers.

    >>> x = dropped(keys_of(jax.random.key(0), 1), jnp.ones((1, 64, 64, 1)), 0.5, 0)
    >>> sorted(set(x.ravel().tolist())), round(float(x.mean()), 1)
    ([0.0, 2.0], 1.0)
    """
    least = round(share * _LEVELS)
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, layer)
    kept = jax.vmap(lambda key: jax.random.bits(key, x.shape[1:], jnp.uint8))(own) >= least
    return jnp.where(kept, x * (_LEVELS / (_LEVELS - least)), 0)


def drawn(key: jax.Array, shapes: object) -> object:
    """First numbers for parameters of these shapes: normal(0, 0.02), scales normal(1, 0.02), biases and shifts 0.

    One draw, cut in pieces, which compiles in a tenth of the time.

    >>> drawn(jax.random.key(0), {"scale": jax.ShapeDtypeStruct((2,), jnp.float32)})["scale"].round(1).tolist()
    [1.0, 1.0]
    """
    found, tree = jax.tree_util.tree_flatten_with_path(shapes)
    names = [path[-1].key for path, _ in found]
    sizes = [0 if name in ("bias", "shift") else leaf.size for name, (_, leaf) in zip(names, found, strict=True)]
    numbers = _SPREAD * jax.random.normal(key, (sum(sizes),))
    leaves, at = [], 0
    for name, (_, leaf), size in zip(names, found, sizes, strict=True):
        start = jnp.full(leaf.shape, float(name == "scale"), leaf.dtype)
        leaves.append(start + numbers[at : at + size].reshape(leaf.shape) if size else start)
        at += size
    return tree.unflatten(leaves)
