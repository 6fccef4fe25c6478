"""CycleGAN's generator (Zhu et al. 2017, https://arxiv.org/abs/1703.10593, appendix 7.2): a picture from a picture of
the same layout.

A 7x7 convolution, two that halve the side, residual blocks, two that double it, a 7x7 convolution and tanh; instance
normalization. Departures:

- Up by enlarging and a convolution, not by a transposed one (`--upsample=transpose`): no checkerboards (Odena et al.
  2016, https://doi.org/10.23915/distill.00003), and fewer products.
- Borders are reflected at every convolution, also where the side is halved.
- Any size: on the way down a map has half the pixels, rounded up, and on the way up it gets the size back that it had.

Pictures in and out are `[N, H, W, 3]` in [-1, 1].
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnst import convs
from jnst.config import ResnetSpec
from jnst.gan_layers import Norm, arithmetic, drawn, placeholder

__all__ = ["apply", "init"]

_HALVINGS = 2


class _Resnet(nn.Module):
    spec: ResnetSpec

    @nn.compact
    def __call__(self, x, axis_name):
        width, sizes = self.spec.width, []
        x = nn.relu(self._layer("first", x, width, axis_name, kernel=7))
        for level in range(_HALVINGS):
            sizes.append(x.shape[1:3])
            width *= 2
            x = nn.relu(self._layer(f"down_{level}", x, width, axis_name, stride=2))
        for block in range(self.spec.blocks):
            y = nn.relu(self._layer(f"block_{block}_0", x, width, axis_name))
            x = x + self._layer(f"block_{block}_1", y, width, axis_name)
        rise = convs.up_conv if self.spec.upsample == "resize" else convs.transposed_conv
        for level in reversed(range(_HALVINGS)):
            width //= 2
            x = nn.relu(self._layer(f"up_{level}", x, width, axis_name, rise=rise, size=sizes[level]))
        x = self._product("last", x, 3, kernel=7)
        return jnp.tanh(x + self.param("bias", placeholder, (3,))[None, None, None])

    def _layer(self, name, x, width, axis_name, **how):
        return Norm(width, self.spec.norm, name=f"norm_{name}")(self._product(name, x, width, **how), axis_name)

    def _product(self, name, x, width, *, kernel=3, stride=1, rise=None, size=(None, None)):
        kernel = self.param(name, placeholder, (kernel, kernel, x.shape[-1], width))
        x, kernel = (arithmetic(each, self.spec.precision) for each in (x, kernel))
        x = rise(x, kernel) if rise else convs.conv(x, kernel, stride=stride)
        x = x[:, : size[0], : size[1]]  # before normalization: what is cut off counts nowhere
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def init(key: jax.Array, spec: ResnetSpec) -> Mapping[str, object]:
    """Parameters before any training.

    >>> jax.eval_shape(lambda: init(jax.random.key(0), ResnetSpec(blocks=1, width=4)))["block_0_0"].shape
    (3, 3, 16, 16)
    """
    shapes = jax.eval_shape(lambda: _Resnet(spec).init(key, jnp.zeros((1, 16, 16, 3)), None))
    return drawn(key, shapes["params"])


def apply(
    params: Mapping[str, object],
    images: jax.Array,
    spec: ResnetSpec,
    *,
    axis_name: str | None = None,
) -> jax.Array:
    """Pictures from pictures, of the size that went in.

    Args:
        params: From `init`, trained.
        images: `[N, H, W, 3]` in [-1, 1].
        spec: Static.
        axis_name: The mesh's axis that a batch is spread over, where it is.

    >>> spec = ResnetSpec(width=2, blocks=1)
    >>> jax.eval_shape(lambda: apply(init(jax.random.key(0), spec), jnp.ones((1, 30, 21, 3)), spec)).shape
    (1, 30, 21, 3)
    """
    return _Resnet(spec).apply({"params": dict(params)}, images, axis_name)
