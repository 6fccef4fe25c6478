"""Convolutions with 4x4 kernels and stride 2 over batches: down to half the side, and their transpose, up to twice it.

All of GANs' ways down and up are these. A kernel's side is a multiple of the stride, so that every pixel of what goes
up gets as many products: no checkerboard by itself (Odena et al. 2016, https://doi.org/10.23915/distill.00003).

The way up is one matrix product whose results are added where they overlap, and so is the gradient of the way down to
its input: as convolutions between whose pixels there are zeros, they take XLA ten to twenty times as long on a CPU.

Inputs are `[N, H, W, C]`; beyond the border there are zeros.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jnst import compiler

__all__ = ["down", "up"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")

_AT_ONCE = 64
"""Pictures whose gradient to a kernel a CPU computes together: of 256 it takes XLA ten times as long, not four."""


def down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlation with stride 2, one pixel of zeros around: `[N, 2 h, 2 w, in]` -> `[N, h, w, out]`.

    Args:
        x: Maps of even sides.
        kernel: `[4, 4, in, out]`.

    >>> down(jnp.ones((1, 6, 8, 2)), jnp.ones((4, 4, 2, 7))).shape
    (1, 3, 4, 7)
    """
    return _down(x, kernel)


@jax.custom_vjp
def _down(x, kernel):
    return _convolution(x, kernel)


def _convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT)


def _forward(x, kernel):
    return _convolution(x, kernel), (x, kernel)


def _backward(kept, gradient):
    x, kernel = kept
    size = _AT_ONCE if compiler.platform() == "cpu" else len(x)
    parts = [slice(at, at + size) for at in range(0, len(x), size)]
    of_kernel = sum(_of_kernel(x[part], kernel, gradient[part]) for part in parts)
    return up(gradient, jnp.swapaxes(kernel, 2, 3)), of_kernel


def _of_kernel(x, kernel, gradient):
    return jax.vjp(lambda kernel: _convolution(x, kernel), kernel)[1](gradient)[0]


_down.defvjp(_forward, _backward)


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
    # Of two matrices: of more axes the gradient's product takes XLA three times as long.
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)
