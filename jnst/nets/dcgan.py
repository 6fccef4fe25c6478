"""The networks of a DCGAN (Radford, Metz & Chintala 2016, https://arxiv.org/abs/1511.06434): pictures of 28, 32 or 64
pixels from noise, and a judge of them.

The generator: a product, then transposed convolutions that double the side and halve the channels, each with batch
normalization and a rectifier, the last with tanh. The discriminator: strided convolutions with leaky rectifiers, to one
logit. Weights begin as normal(0, 0.02), the normalizations' scales as normal(1, 0.02).

Departures from the paper:

- Kernels are 4x4, not 5x5, as in the implementations that came after it: every pixel then gets as many products.
- The moments that a generator is used with are not running averages over its training but measured on noise when it is
  taken out (`measured`; Brock et al. 2019, https://arxiv.org/abs/1809.11096, "standing statistics"): they fit the
  averaged weights that are taken out, which those of the weights on the way would not.
- The discriminator may do without batch normalization, with dropout instead, as in TensorFlow's tutorial.

What is random is drawn for each picture of a batch by itself, so that it is the same however a batch is spread.
Pictures in and out are `[N, S, S, 3]` in [-1, 1].
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnst import strided
from jnst.config import DcganSpec

__all__ = ["EPSILON", "discriminate", "generate", "init", "latents", "measured", "widths_of"]

EPSILON = 1e-5
"""Added to variances."""

_LEAK = 0.2  # of what is below 0
_SPREAD = 0.02
_SMALLEST = {28: 7, 32: 4, 64: 4}  # side of the smallest maps
_LEVELS = 256  # dropout draws bytes, which is four times as fast as numbers

_shape = nn.initializers.zeros  # of parameters, which `init` then draws


def widths_of(spec: DcganSpec) -> tuple[int, ...]:
    """Channels of the maps, the largest maps first: half the picture's side, a quarter and so on.

    >>> widths_of(DcganSpec(size=32, width=64))
    (64, 128, 256)
    """
    levels = (spec.size // _SMALLEST[spec.size]).bit_length() - 1
    return tuple(spec.width * 2**level for level in range(levels))


class _How(NamedTuple):
    """What all layers of a pass are told."""

    train: bool = True
    axis_name: str | None = None


class _BatchNorm(nn.Module):
    """By the moments of all maps of a batch, which it leaves, or by those that it was given."""

    width: int

    @nn.compact
    def __call__(self, x, how):
        everywhere = (1, 1, 1, self.width)
        scale = self.param("scale", _shape, (self.width,))
        shift = self.param("shift", _shape, (self.width,))
        mean = self.variable("moments", "mean", jnp.zeros, everywhere)
        variance = self.variable("moments", "variance", jnp.ones, everywhere)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if how.train:
            own = jnp.mean(x, (0, 1, 2), keepdims=True)
            spread = jnp.mean((x - own) ** 2, (0, 1, 2), keepdims=True)
            if how.axis_name is not None:  # the batch is spread over devices
                whole = jax.lax.pmean(own, how.axis_name)
                spread = jax.lax.pmean(spread + (own - whole) ** 2, how.axis_name)
                own = whole
            mean.value, variance.value = jax.lax.stop_gradient((own, spread))
        else:
            own, spread = mean.value, variance.value
        factor = jax.lax.rsqrt(spread + EPSILON) * scale[None, None, None]
        return (x - own) * factor + shift[None, None, None]


class _Generator(nn.Module):
    spec: DcganSpec

    @nn.compact
    def __call__(self, z, how):
        spec, widths = self.spec, widths_of(self.spec)
        side = _SMALLEST[spec.size]
        kernel = self.param("first", _shape, (spec.latent, side * side * widths[-1]))
        x = _arithmetic(z, spec) @ _arithmetic(kernel, spec)
        x = nn.relu(_BatchNorm(widths[-1], name="norm_0")(x.reshape(len(z), side, side, -1), how))
        for level, width in enumerate(reversed(widths[:-1]), 1):
            kernel = self.param(f"up_{level}", _shape, (4, 4, x.shape[-1], width))
            x = strided.up(_arithmetic(x, spec), _arithmetic(kernel, spec))
            x = nn.relu(_BatchNorm(width, name=f"norm_{level}")(x, how))
        kernel = self.param("last", _shape, (4, 4, widths[0], 3))
        bias = self.param("bias", _shape, (3,))
        x = strided.up(_arithmetic(x, spec), _arithmetic(kernel, spec))
        return jnp.tanh(x.astype(bias.dtype) + bias[None, None, None])


class _Discriminator(nn.Module):
    spec: DcganSpec

    @nn.compact
    def __call__(self, keys, x, how):
        spec = self.spec
        kept = _kept(keys, spec) if spec.norm == "dropout" else None
        for level, width in enumerate(widths_of(spec)):
            kernel = self.param(f"down_{level}", _shape, (4, 4, x.shape[-1], width))
            x = strided.down(_arithmetic(x, spec), _arithmetic(kernel, spec))
            if level and spec.norm == "batch":
                x = _BatchNorm(width, name=f"norm_{level}")(x, how)
            else:
                x = x + self.param(f"bias_{level}", _shape, (width,))[None, None, None]
            x = jnp.where(x > 0, x, _LEAK * x)
            if kept is not None:
                x = jnp.where(kept[level], x * (_LEVELS / (_LEVELS - _least(spec))), 0)
        x = x.reshape(len(x), -1)
        kernel = self.param("last", _shape, (x.shape[-1], 1))
        bias = self.param("bias", _shape, (1,))
        return (_arithmetic(x, spec) @ _arithmetic(kernel, spec)).astype(bias.dtype)[:, 0] + bias


def _arithmetic(x, spec):
    """In the type that products are made in."""
    return x.astype(jnp.bfloat16) if spec.precision == "bfloat16" else x


def _kept(keys, spec):
    """Of each layer which numbers are not dropped: a share that is rounded to 256ths; one draw for each picture."""
    shapes = [(spec.size >> level, spec.size >> level, width) for level, width in enumerate(widths_of(spec), 1)]
    sizes = [height * width * channels for height, width, channels in shapes]
    drawn = jax.vmap(lambda key: jax.random.bits(key, (sum(sizes),), jnp.uint8))(keys) >= _least(spec)
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    pieces = [drawn[:, end - size : end] for end, size in zip(ends, sizes, strict=True)]
    return [piece.reshape(-1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _least(spec):
    return round(spec.dropout * _LEVELS)


def init(key: jax.Array, spec: DcganSpec) -> tuple[dict[str, object], dict[str, object]]:
    """Variables before any training, the generator's and the discriminator's: `params`, and where there is batch
    normalization `moments`.

    >>> generator, discriminator = jax.eval_shape(lambda: init(jax.random.key(0), DcganSpec(width=4, latent=8)))
    >>> generator["params"]["up_1"].shape, discriminator["params"]["down_0"].shape
    ((4, 4, 16, 8), (4, 4, 3, 4))
    """
    one, other = jax.random.split(key)
    images = jnp.zeros((1, spec.size, spec.size, 3))
    keys = jnp.stack([key])
    generator = jax.eval_shape(lambda: _Generator(spec).init(key, jnp.zeros((1, spec.latent)), _How()))
    discriminator = jax.eval_shape(lambda: _Discriminator(spec).init(key, keys, images, _How()))
    return _drawn(one, generator), _drawn(other, discriminator)


def _drawn(key, shapes):
    """Numbers for variables of these shapes: one draw, cut in pieces, which compiles in a tenth of the time."""
    found, tree = jax.tree_util.tree_flatten_with_path(shapes)
    sizes = [leaf.size if _is_random(path) else 0 for path, leaf in found]
    numbers = _SPREAD * jax.random.normal(key, (sum(sizes),))
    leaves, at = [], 0
    for (path, leaf), size in zip(found, sizes, strict=True):
        start = jnp.full(leaf.shape, float(path[-1].key in ("scale", "variance")), leaf.dtype)
        leaves.append(start + numbers[at : at + size].reshape(leaf.shape) if size else start)
        at += size
    return tree.unflatten(leaves)


def _is_random(path):
    name = path[-1].key
    return path[0].key == "params" and not name.startswith("bias") and name != "shift"


def latents(key: jax.Array, count: int, spec: DcganSpec, *, first: int | jax.Array = 0) -> jax.Array:
    """Noise for `count` pictures, `[count, latent]`, normal; that of a picture depends on its number alone.

    Args:
        key: Of all of it.
        count: How many.
        spec: Static.
        first: The number of the first.

    >>> spec = DcganSpec(latent=2)
    >>> latents(jax.random.key(0), 3, spec)[2] == latents(jax.random.key(0), 1, spec, first=2)[0]
    Array([ True,  True], dtype=bool)
    """
    return jax.vmap(lambda key: jax.random.normal(key, (spec.latent,)))(_keys(key, count, first))


def _keys(key, count, first):
    """One for each picture, by its number."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


def generate(
    variables: Mapping[str, object],
    z: jax.Array,
    spec: DcganSpec,
    *,
    train: bool = False,
    axis_name: str | None = None,
) -> jax.Array:
    """Pictures from noise.

    Args:
        variables: From `init`, trained; to be used they need moments from `measured`.
        z: `[N, latent]`.
        spec: Static.
        train: Whether batch normalization goes by this batch, not by the moments among the variables.
        axis_name: The mesh's axis that a batch is spread over, where it is.

    Returns:
        `[N, S, S, 3]` in [-1, 1].

    >>> spec = DcganSpec(size=28, width=4)
    >>> jax.eval_shape(lambda: generate(init(jax.random.key(0), spec)[0], jnp.ones((2, 100)), spec)).shape
    (2, 28, 28, 3)
    """
    return _Generator(spec).apply(dict(variables), z, _How(train, axis_name), mutable=["moments"])[0]


def measured(variables: Mapping[str, object], z: jax.Array, spec: DcganSpec) -> dict[str, object]:
    """The generator's variables with the moments that its maps have on noise `[N, latent]`, to be used with."""
    _, changed = _Generator(spec).apply(dict(variables), z, _How(), mutable=["moments"])
    return {**variables, **changed}


def discriminate(
    key: jax.Array,
    variables: Mapping[str, object],
    images: jax.Array,
    spec: DcganSpec,
    *,
    first: int | jax.Array = 0,
    axis_name: str | None = None,
) -> jax.Array:
    """What the discriminator says of pictures while it is trained, batch normalization going by this batch.

    Args:
        key: Of what is dropped.
        variables: From `init`, trained.
        images: `[N, S, S, 3]` in [-1, 1], real or made: a batch of one kind, as in Radford et al.
        spec: Static.
        first: The number of the first picture in the whole batch.
        axis_name: As for `generate`.

    Returns:
        `[N]` logits: above 0, real.

    >>> spec = DcganSpec(size=64, width=2, norm="dropout")
    >>> key = jax.random.key(0)
    >>> jax.eval_shape(lambda: discriminate(key, init(key, spec)[1], jnp.ones((2, 64, 64, 3)), spec)).shape
    (2,)
    """
    keys = _keys(key, len(images), first) if spec.norm == "dropout" else None
    how = _How(True, axis_name)
    return _Discriminator(spec).apply(dict(variables), keys, images, how, mutable=["moments"])[0]
