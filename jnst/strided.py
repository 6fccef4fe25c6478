"""Convolutions with 4x4 kernels and stride 2 over batches: down to half the side, and their transpose, up to twice it.

All of GANs' ways down and up are these. A kernel's side is a multiple of the stride, so that every pixel of what goes
up gets as many products: no checkerboard by itself (Odena et al. 2016, https://doi.org/10.23915/distill.00003).

Both are one matrix product over patches, and so are their gradients. On a CPU a convolution between whose pixels there
are zeros, which is the way up and the gradient of the way down, takes XLA ten to twenty times as long; and of several
networks at once, under `vmap`, products stay products where convolutions become grouped ones.

Inputs are `[N, H, W, C]`; beyond the border there are zeros.
"""

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["down", "up"]


def down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlation with stride 2, one pixel of zeros around: `[N, 2 h, 2 w, in]` -> `[N, h, w, out]`.

    Args:
        x: Maps of even sides.
        kernel: `[4, 4, in, out]`.

    >>> down(jnp.ones((1, 6, 8, 2)), jnp.ones((4, 4, 2, 7))).shape
    (1, 3, 4, 7)
    """
    n, height, width, inputs = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = height // 2, width // 2
    # Blocks of two by two pixels, of which a patch has two by two.
    x = x.reshape(n, height + 1, 2, width + 1, 2, inputs).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(n, height + 1, width + 1, 4 * inputs)
    patches = jnp.concatenate([x[:, a : a + height, b : b + width] for a in (0, 1) for b in (0, 1)], -1)
    return _product(patches, _blocks(kernel, (0, 2, 1, 3, 4, 5)).reshape(16 * inputs, -1))


def up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transpose of `down`: `[N, h, w, in]` -> `[N, 2 h, 2 w, out]`.

    Args:
        x: Maps.
        kernel: `[4, 4, in, out]`: what a pixel adds to its surroundings.

    >>> up(jnp.ones((1, 3, 4, 2)), jnp.ones((4, 4, 2, 7))).shape
    (1, 6, 8, 7)
    """
    n, height, width, inputs = x.shape
    outputs = kernel.shape[-1]
    # Each pixel's patch of 4x4, as two by two blocks of two by two pixels, which are then added where they overlap.
    patches = _product(x, _blocks(kernel, (4, 0, 2, 1, 3, 5)).reshape(inputs, 16 * outputs))
    patches = patches.reshape(n, height, width, 2, 2, 4 * outputs)
    places = [((0, 0), (a, 1 - a), (b, 1 - b), (0, 0)) for a in (0, 1) for b in (0, 1)]
    parts = [patches[:, :, :, a, b] for a in (0, 1) for b in (0, 1)]
    blocks = sum(jnp.pad(part, place) for part, place in zip(parts, places, strict=True))
    blocks = blocks.reshape(n, height + 1, width + 1, 2, 2, outputs).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, 2 * height + 2, 2 * width + 2, outputs)[:, 1:-1, 1:-1]


def _blocks(kernel, order):
    """A kernel's rows and columns as (block, pixel of the block) each, in another order."""
    return kernel.reshape(2, 2, 2, 2, *kernel.shape[2:]).transpose(order)


def _product(x, matrix):
    return lax.dot_general(x, matrix, (((x.ndim - 1,), (0,)), ((), ())))
