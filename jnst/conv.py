"""The convolution that every network here calls: 3x3, stride 1, same size, on one `[H, W, C]` feature map."""

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["conv3x3"]

_PAD_MODES = {"reflect": "reflect", "replicate": "edge"}


def conv3x3(x: jax.Array, kernel: jax.Array, bias: jax.Array, *, padding: str = "zeros") -> jax.Array:
    """Cross-correlation (deep learning's convolution) that keeps height and width.

    Args:
        x: `[H, W, in]`.
        kernel: `[3, 3, in, out]`.
        bias: `[out]`.
        padding: `zeros`, `reflect` (without the border pixel) or `replicate`: a row of pixels on each side.

    Returns:
        `[H, W, out]`.

    >>> import jax.numpy as jnp
    >>> conv3x3(jnp.ones((4, 5, 2)), jnp.ones((3, 3, 2, 7)), jnp.zeros(7)).shape
    (4, 5, 7)
    """
    if padding == "zeros":
        border = [(1, 1), (1, 1)]
    else:
        x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode=_PAD_MODES[padding])
        border = [(0, 0), (0, 0)]
    # NHWC: the only layout that XLA's CPU convolutions run at full speed in.
    y = lax.conv_general_dilated(x[None], kernel, (1, 1), border, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y[0] + bias[None, None]
