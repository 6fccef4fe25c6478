"""The U-Net of pix2pix (Isola et al. 2017, https://arxiv.org/abs/1611.07004, appendix 6.1): a picture from a picture.

Down by 4x4 convolutions with stride 2 until a map has one pixel, and up again by their transposes; each map on the way
up stands beside the one of its size on the way down. Normalization everywhere but at the first and the innermost map,
leaky rectifiers down, rectifiers up, tanh at the end. Its noise is dropout of half of the three innermost maps on the
way up, in use as in training.

A departure: any size. A map of an odd side gets its last row or column twice on the way down, which the way up takes
off again. Pictures in and out are `[N, H, W, 3]` in [-1, 1].
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnst import strided
from jnst.config import UnetSpec
from jnst.gan_layers import Norm, arithmetic, drawn, dropped, keys_of, leaky, placeholder

__all__ = ["apply", "init", "widths_of"]

_MOST = 8  # of the first width
_DROPPED = 3  # maps


def widths_of(spec: UnetSpec) -> tuple[int, ...]:
    """Channels of the maps on the way down, the largest map's first.

    >>> widths_of(UnetSpec(levels=6))
    (64, 128, 256, 512, 512, 512)
    """
    return tuple(spec.width * min(2**level, _MOST) for level in range(spec.levels))


class _Unet(nn.Module):
    spec: UnetSpec

    @nn.compact
    def __call__(self, keys, x, axis_name):
        spec, widths = self.spec, widths_of(self.spec)
        innermost = spec.levels - 1
        sizes, beside = [], []
        for level, width in enumerate(widths):
            sizes.append(x.shape[1:3])
            kernel = self.param(f"down_{level}", placeholder, (4, 4, x.shape[-1], width))
            x = self._product(strided.down, _even(leaky(x) if level else x), kernel)
            if 0 < level < innermost:
                x = Norm(width, spec.norm, name=f"norm_down_{level}")(x, axis_name)
            else:
                x = x + self.param(f"bias_{level}", placeholder, (width,))[None, None, None]
            beside.append(x)
        x = beside.pop()
        for level in reversed(range(spec.levels)):
            width = widths[level - 1] if level else 3
            kernel = self.param(f"up_{level}", placeholder, (4, 4, x.shape[-1], width))
            height, across = sizes[level]
            x = self._product(strided.up, nn.relu(x), kernel)[:, :height, :across]
            if not level:
                return jnp.tanh(x + self.param("bias", placeholder, (3,))[None, None, None])
            x = Norm(width, spec.norm, name=f"norm_up_{level}")(x, axis_name)
            if keys is not None and spec.dropout and innermost - level < _DROPPED:
                x = dropped(keys, x, spec.dropout, level)
            x = jnp.concatenate([beside.pop(), x], -1)

    def _product(self, of, x, kernel):
        result = of(arithmetic(x, self.spec.precision), arithmetic(kernel, self.spec.precision))
        return result.astype(jnp.promote_types(result.dtype, jnp.float32))


def _even(x):
    """Of even sides: the last row and column once more where they are odd."""
    odd = [(0, side % 2) for side in x.shape[1:3]]
    return jnp.pad(x, ((0, 0), *odd, (0, 0)), mode="edge") if any(map(any, odd)) else x


def init(key: jax.Array, spec: UnetSpec) -> Mapping[str, object]:
    """Parameters before any training.

    >>> jax.eval_shape(lambda: init(jax.random.key(0), UnetSpec(levels=6, width=4)))["up_5"].shape
    (4, 4, 32, 32)
    """
    images = jnp.zeros((1, 2**spec.levels, 2**spec.levels, 3))
    shapes = jax.eval_shape(lambda: _Unet(spec).init(key, None, images, None))
    return drawn(key, shapes["params"])


def apply(
    key: jax.Array | None,
    params: Mapping[str, object],
    images: jax.Array,
    spec: UnetSpec,
    *,
    first: int | jax.Array = 0,
    axis_name: str | None = None,
) -> jax.Array:
    """Pictures from pictures, of the size that went in.

    Args:
        key: Of the noise; None: nothing is dropped.
        params: From `init`, trained.
        images: `[N, H, W, 3]` in [-1, 1].
        spec: Static.
        first: The number of the first picture in the whole batch.
        axis_name: The mesh's axis that a batch is spread over, where it is.

    >>> spec = UnetSpec(levels=6, width=2)
    >>> jax.eval_shape(lambda: apply(None, init(jax.random.key(0), spec), jnp.ones((1, 99, 70, 3)), spec)).shape
    (1, 99, 70, 3)
    """
    keys = None if key is None else keys_of(key, len(images), first=first)
    return _Unet(spec).apply({"params": dict(params)}, keys, images, axis_name)
