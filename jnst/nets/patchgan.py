"""The PatchGAN: a discriminator that says of each patch of a picture whether it is real (Isola et al. 2017,
https://arxiv.org/abs/1611.07004, appendix 6.1.2; Zhu et al. 2017, https://arxiv.org/abs/1703.10593).

4x4 convolutions, first with stride 2 and then two with stride 1, with leaky rectifiers; normalization but at the first
and the last. How many have stride 2 decides how large a patch is: three, 70 pixels. None: a network of 1x1 kernels,
which sees each pixel by itself.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnst import convs, strided
from jnst.config import PatchSpec
from jnst.gan_layers import Norm, arithmetic, drawn, leaky, placeholder

__all__ = ["apply", "init", "receptive_field"]

_MOST = 8  # of the first width


def receptive_field(layers: int) -> int:
    """Side of the patch that a logit sees, in pixels, with so many strided layers.

    >>> [receptive_field(layers) for layers in (0, 1, 3, 5)]
    [1, 16, 70, 286]
    """
    side = 7  # two convolutions with stride 1
    for _ in range(layers):
        side = 2 * (side - 1) + 4
    return side if layers else 1


class _PatchGan(nn.Module):
    spec: PatchSpec

    @nn.compact
    def __call__(self, x, axis_name):
        spec = self.spec
        if not spec.layers:
            widths, products = (spec.width, 2 * spec.width, 1), [_pixelwise] * 3
        else:
            levels = range(spec.layers + 1)
            widths = (*(spec.width * min(2**level, _MOST) for level in levels), 1)
            products = [strided.down] * spec.layers + [convs.even_conv] * 2
        last = len(widths) - 1
        for layer, (width, product) in enumerate(zip(widths, products, strict=True)):
            side = 4 if spec.layers else 1
            kernel = self.param(f"layer_{layer}", placeholder, (side, side, x.shape[-1], width))
            x = product(arithmetic(x, spec.precision), arithmetic(kernel, spec.precision))
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            if 0 < layer < last:
                x = Norm(width, spec.norm, name=f"norm_{layer}")(x, axis_name)
            else:
                x = x + self.param(f"bias_{layer}", placeholder, (width,))[None, None, None]
            x = leaky(x) if layer < last else x
        return x[..., 0]


def _pixelwise(x, kernel):
    return jnp.matmul(x, kernel[0, 0])


def init(key: jax.Array, spec: PatchSpec) -> Mapping[str, object]:
    """Parameters before any training.

    >>> jax.eval_shape(lambda: init(jax.random.key(0), PatchSpec(channels=6)))["layer_0"].shape
    (4, 4, 6, 64)
    """
    side = max(16, 2 ** (spec.layers + 2))
    images = jnp.zeros((1, side, side, spec.channels))
    shapes = jax.eval_shape(lambda: _PatchGan(spec).init(key, images, None))
    return drawn(key, shapes["params"])


def apply(
    params: Mapping[str, object], images: jax.Array, spec: PatchSpec, *, axis_name: str | None = None
) -> jax.Array:
    """What the discriminator says of each patch.

    Args:
        params: From `init`, trained.
        images: `[N, H, W, channels]` in [-1, 1]; the sides are multiples of two to the number of strided layers.
        spec: Static.
        axis_name: The mesh's axis that a batch is spread over, where it is.

    Returns:
        `[N, h, w]` logits: above the middle, real.

    >>> spec = PatchSpec(width=2, channels=3)
    >>> jax.eval_shape(lambda: apply(init(jax.random.key(0), spec), jnp.ones((1, 256, 256, 3)), spec)).shape
    (1, 30, 30)
    """
    return _PatchGan(spec).apply({"params": dict(params)}, images, axis_name)
