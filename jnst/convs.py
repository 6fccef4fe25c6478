"""Convolutions over batches of pictures, for networks that are trained: any odd size, strides, and up by two.

Inputs are `[N, H, W, C]`, kernels `[k, k, in, out]`; a map's border is reflected (without the border pixel) or repeated
before it is convolved, so that a picture has no dark frame. `jnst.conv` is the convolution of networks that stay as
they are, one map at a time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jnst import compiler, winograd
from jnst.conv import LEAST_CHANNELS, conv3x3_trained, pays

__all__ = [
    "FEW",
    "LEAST_PLACES",
    "LEAST_WIDTH",
    "MANY",
    "MOST_BYTES",
    "MOST_PIXELS",
    "conv",
    "even_conv",
    "transposed_conv",
    "up_conv",
]

_LAYOUT = ("NHWC", "HWIO", "NHWC")  # the only one that XLA's CPU convolutions run at full speed in
_MODES = {"reflect": "reflect", "replicate": "edge"}

FEW = 4
"""Up to so many channels out, a convolution runs by rows: its products would be as narrow."""

MANY = 32
"""From so many channels in on, they run by planes instead, where these take no more than `MOST_BYTES`."""

MOST_BYTES = 2**27
"""Of planes."""

LEAST_PLACES = 900
"""From so many places in a batch where a 4x4 kernel is laid, its gradient goes by Winograd: of fewer, the transform of
the products is more work than the products."""

LEAST_WIDTH = 32
"""Channels in and out from which on it does."""

MOST_PIXELS = 2**16
"""Of a map that goes by Winograd: of a larger one, what that needs beside it counts in hundreds of MB, and it is little
faster."""


def conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1, border: str = "reflect") -> jax.Array:
    """Cross-correlation (deep learning's convolution): `[N, H, W, in]` -> `[N, ceil(H / stride), ..., out]`.

    Where that is faster, it and its gradients run by `jnst.conv`'s Winograd.

    Args:
        x: Maps.
        kernel: `[k, k, in, out]`, k odd.
        stride: Between the places where it is laid, the first being the map's first pixel.
        border: What stands beyond the border, one of `config.STYLENET_BORDERS`.

    >>> conv(jnp.ones((1, 5, 8, 2)), jnp.ones((3, 3, 2, 7)), stride=2).shape
    (1, 3, 4, 7)
    """
    if stride == 1 and kernel.shape[0] == 3 and _by_winograd(x, kernel):
        return conv3x3_trained(x, kernel, padding=border)
    around = kernel.shape[0] // 2
    x = jnp.pad(x, ((0, 0), (around, around), (around, around), (0, 0)), mode=_MODES[border])
    if stride == 1 and kernel.shape[3] <= FEW < kernel.shape[2] and not _by_planes(x, kernel):
        return _by_rows(x, kernel)
    return _plain(x, kernel, stride)


def _by_winograd(x, kernel):
    """Whether that is faster."""
    least = LEAST_CHANNELS.get(compiler.platform())
    if least is None or kernel.shape[2] < least[0] or kernel.shape[3] < least[1] or kernel.dtype.itemsize < 4:
        return False
    return x.shape[1] * x.shape[2] <= MOST_PIXELS and pays(x[0], kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _plain(x, kernel, stride=1):
    if stride == 1 and kernel.shape[3] <= FEW and _by_planes(x, kernel):
        return _planes(x, kernel)
    return _sum(x, kernel, stride)


def _sum(x, kernel, stride):
    return lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=_LAYOUT)


def _forward(x, kernel, stride):
    return _plain(x, kernel, stride), (x, kernel)


def _backward(stride, kept, change):
    x, kernel = kept
    of_x = jax.linear_transpose(lambda x: _sum(x, kernel, stride), x)(change)[0]
    if compiler.platform() == "cpu":
        return of_x, _of_kernel(x, kernel, change, stride)
    return of_x, jax.linear_transpose(lambda kernel: _sum(x, kernel, stride), kernel)(change)[0]


_plain.defvjp(_forward, _backward)


def _of_kernel(x, kernel, change, stride):
    """The gradient at a kernel by matrix products, where the library's own takes a CPU two to ten times as long."""
    high, wide, inputs, outputs = kernel.shape
    n, height, width, _ = change.shape
    # Types of 16 bits would not bear the sums of the transforms.
    exact, wide_enough = kernel.dtype.itemsize >= 4, min(inputs, outputs) >= LEAST_WIDTH
    if high == wide == 4 and stride == 1 and n * height * width >= LEAST_PLACES and exact and wide_enough:
        return winograd.kernel_gradient(x, change, high)
    places = [(i, j) for i in range(high) for j in range(wide)]
    if outputs <= FEW and stride == 1:
        # One product of all taps, to whose places the change is moved, not what they see, which is many times as much.
        more = [((i, high - 1 - i), (j, wide - 1 - j)) for i, j in places]
        moved = jnp.stack([jnp.pad(change, ((0, 0), *each, (0, 0))) for each in more], 3)
        taps = x.reshape(-1, inputs).T @ moved.reshape(-1, len(places) * outputs)
        return taps.reshape(inputs, high, wide, outputs).transpose(1, 2, 0, 3)
    last = stride * (height - 1) + 1, stride * (width - 1) + 1
    seen = [x[:, i : i + last[0] : stride, j : j + last[1] : stride].reshape(-1, inputs) for i, j in places]
    change = change.reshape(-1, outputs)
    if inputs <= FEW:
        return (jnp.concatenate(seen, 1).T @ change).reshape(kernel.shape)
    return jnp.stack([each.T @ change for each in seen]).reshape(kernel.shape)


def _by_planes(x, kernel):
    """Whether few channels out are fastest as planes: of many channels in, where that many planes have room."""
    high, wide, inputs, outputs = kernel.shape
    bytes_of = x.shape[0] * x.shape[1] * x.shape[2] * high * wide * outputs * x.dtype.itemsize
    return compiler.platform() == "cpu" and inputs >= MANY and bytes_of <= MOST_BYTES


def _planes(x, kernel):
    """One product for all taps, each channel of which is a plane; the planes are moved to their places and added."""
    high, wide, inputs, outputs = kernel.shape
    n, height, width, _ = x.shape
    taps = kernel.transpose(0, 1, 3, 2).reshape(-1, inputs)
    planes = lax.dot_general(taps, x.reshape(-1, inputs), (((1,), (1,)), ((), ())))
    planes = lax.optimization_barrier(planes.reshape(high, wide, outputs, n, height, width))
    last = height - high + 1, width - wide + 1
    places = [(i, j) for i in range(high) for j in range(wide)]
    return jnp.moveaxis(sum(planes[i, j, :, :, i : i + last[0], j : j + last[1]] for i, j in places), 0, -1)


def _by_rows(x, kernel):
    """Each row of the kernel by itself, all of them as one convolution with k times as many channels out; the rows'
    results are then moved to their places and added."""
    k, _, inputs, outputs = kernel.shape
    rows = _plain(x, jnp.transpose(kernel, (1, 2, 0, 3)).reshape(1, k, inputs, k * outputs))
    height = x.shape[1] - k + 1
    return sum(rows[:, i : i + height, :, i * outputs : (i + 1) * outputs] for i in range(k))


# How the three taps of a kernel fall on the two pixels that an enlarged pixel's surroundings come from, for the first
# and the second of the pair that a pixel becomes.
_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


def up_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each pixel made two by two, then a 3x3 convolution: `[N, h, w, in]` -> `[N, 2 h, 2 w, out]`.

    Free of the checkerboards of transposed convolutions (Odena et al. 2016, https://doi.org/10.23915/distill.00003).
    The enlarged map is not made: each pixel of a pair sees 2x2 pixels of the small one, through sums of the kernel's
    taps, which is 4/9 of the products. Of the enlarged map a reflected border is the same as a repeated one.

    >>> up_conv(jnp.ones((1, 3, 4, 2)), jnp.ones((3, 3, 2, 7))).shape
    (1, 6, 8, 7)
    """
    n, height, width, _ = x.shape
    taps = jnp.asarray(_TAPS, kernel.dtype)
    pairs = jnp.einsum("aip,bjq,pqcd->abijcd", taps, taps, kernel, precision=lax.Precision.HIGHEST)
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = []
    for a in (0, 1):
        seen = [x[:, a : a + height + 1, b : b + width + 1] for b in (0, 1)]
        rows.append(jnp.stack([_plain(seen[b], pairs[a, b]) for b in (0, 1)], 3))
    return jnp.stack(rows, 2).reshape(n, 2 * height, 2 * width, -1)


def transposed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transpose of a 3x3 convolution with stride 2: `[N, h, w, in]` -> `[N, 2 h, 2 w, out]`.

    >>> transposed_conv(jnp.ones((1, 3, 4, 2)), jnp.ones((3, 3, 2, 7))).shape
    (1, 6, 8, 7)
    """
    # Of the pixels that a 3x3 kernel would reach, the last row and column are beyond an even map.
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 2), (1, 2)), lhs_dilation=(2, 2), dimension_numbers=_LAYOUT)


def even_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlation with a 4x4 kernel and one pixel of zeros around: `[N, H, W, in]` -> `[N, H - 1, W - 1, out]`.

    >>> even_conv(jnp.ones((1, 5, 8, 2)), jnp.ones((4, 4, 2, 7))).shape
    (1, 4, 7, 7)
    """
    return _plain(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), kernel)
