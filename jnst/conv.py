"""The convolution that every network here calls: 3x3, stride 1, same size, on one `[H, W, C]` feature map.

Where a kernel was prepared for it, it runs by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray 2016,
https://arxiv.org/abs/1509.09308): 36 products where the sum over nine taps has 144. `prepare` says by device and shape
where that is faster; elsewhere it is the library's own convolution. A large picture goes through in bands of rows, so
that what lies between the passes stays in the caches. `jnst.winograd` has the algorithm.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jnst import winograd as filtering

__all__ = ["conv3x3", "conv3x3_trained", "pays", "prepare"]

_TILE = 4  # outputs of a tile, along each side
_TAPS = 3

LEAST_CHANNELS = {"cpu": (16, 32)}
"""By platform: Winograd is faster from this many channels in and out. One without an entry never is: unmeasured."""

LEAST_WORK = 1e8
"""Multiplications and additions of a direct sum from which on Winograd is worth its longer compiling."""

BAND_BYTES = 40e6
"""What a band's transformed input and output may take: about the last cache of a server's CPU."""


def conv3x3(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    padding: str = "zeros",
    rectify: bool = False,
    winograd: jax.Array | None = None,
) -> jax.Array:
    """Cross-correlation (deep learning's convolution) that keeps height and width.

    Args:
        x: `[H, W, in]`.
        kernel: `[3, 3, in, out]`.
        bias: `[out]`.
        padding: `zeros`, `reflect` (without the border pixel), `replicate` or `wrap` (the map is a torus): a row of
            pixels on each side.
        rectify: Whether max(., 0) follows.
        winograd: The kernel once more, from `prepare`. Gradients go to `kernel`; this is a copy, and its own is 0.

    Returns:
        `[H, W, out]`.

    >>> import jax.numpy as jnp
    >>> conv3x3(jnp.ones((4, 5, 2)), jnp.ones((3, 3, 2, 7)), jnp.zeros(7)).shape
    (4, 5, 7)
    """
    return _conv(x, kernel, bias, winograd, padding, rectify)


def conv3x3_trained(x: jax.Array, kernel: jax.Array, *, padding: str = "reflect") -> jax.Array:
    """The same of a batch by Winograd's filtering, where the kernel learns: its transform is made anew each time, and
    its gradient, too, is 36 products where the sum over pixels and taps has 144 (the transpose of the same algorithm).

    Args:
        x: `[N, H, W, in]`.
        kernel: `[3, 3, in, out]`.
        padding: `reflect`, `replicate` or `wrap`.

    >>> conv3x3_trained(jnp.ones((2, 4, 5, 2)), jnp.ones((3, 3, 2, 7))).shape
    (2, 4, 5, 7)
    """
    return _trained(x, kernel, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _trained(x, kernel, padding):
    return _trained_forward(x, kernel, padding)[0]


def _trained_forward(x, kernel, padding):
    winograd = filtering.transform(kernel)
    return _winograd(padding, 0, False, False)(x, winograd), (x, winograd)


def _trained_backward(padding, kept, change):
    x, winograd = kept
    of_x = _winograd("zeros", 1, False, True)(change, winograd)
    of_x = jax.vmap(lambda change: _folded(change, padding))(of_x)
    return of_x, filtering.kernel_gradient(jax.vmap(lambda x: _bordered(x, padding))(x), change, _TAPS)


_trained.defvjp(_trained_forward, _trained_backward)


def prepare(kernel: jax.Array, platform: str) -> jax.Array | None:
    """`winograd.transform(kernel)` where Winograd is faster on this platform (`cpu`, `gpu`, `tpu`), else None."""
    least = LEAST_CHANNELS.get(platform)
    narrow = least is None or kernel.shape[2] < least[0] or kernel.shape[3] < least[1]
    # Types of 16 bits would not bear the sums of the transforms.
    return None if narrow or jnp.finfo(kernel.dtype).bits < 32 else filtering.transform(kernel)


def pays(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether a map `[H, W, in]` is large enough for a kernel that was prepared."""
    return 2 * x.shape[0] * x.shape[1] * kernel.size >= LEAST_WORK


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _conv(x, kernel, bias, winograd, padding, rectify):
    if winograd is not None:
        return _winograd(padding, 0, rectify, False)(x[None], winograd, bias)[0]
    y = _direct(x, kernel, padding) + bias[None, None]
    return jax.nn.relu(y) if rectify else y


def _forward(x, kernel, bias, winograd, padding, rectify):
    y = _conv(x, kernel, bias, winograd, padding, rectify)
    return y, (x, kernel, winograd, y if rectify else None)


def _backward(padding, rectify, kept, change):
    x, kernel, winograd, y = kept
    if rectify:
        change = jnp.where(y > 0, change, 0)
    if winograd is not None:
        # A plain convolution with the kernel turned around, in and out swapped.
        lead = 0 if padding == "zeros" else 1
        of_x = _folded(_winograd("zeros", lead, False, True)(change[None], winograd)[0], padding)
    else:
        of_x = _of_input(x, kernel, change, padding)
    of_kernel = jax.linear_transpose(lambda kernel: _direct(x, kernel, padding), kernel)(change)[0]
    of_copy = None if winograd is None else jnp.zeros_like(winograd)
    return of_x, of_kernel, change.sum((0, 1)), of_copy


_conv.defvjp(_forward, _backward)


def _direct(x, kernel, padding):
    x = _bordered(x, padding)
    border = [(1, 1), (1, 1)] if padding == "zeros" else [(0, 0), (0, 0)]
    # NHWC: the only layout that XLA's CPU convolutions run at full speed in.
    return lax.conv_general_dilated(x[None], kernel, (1, 1), border, dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


_SOURCE = {"replicate": 1, "reflect": 2, "wrap": -2}
"""Which row of the bordered map its first row repeats; its last one the one that lies as far from the other end."""


def _beyond(length, padding):
    """Which of so many rows stands before the first, and which after the last."""
    i = _SOURCE[padding]
    return i % (length + 2) - 1, max(0, (-1 - i) % (length + 2) - 1)  # in one pixel there is nothing to reflect


def _bordered(x, padding):
    """`x` with a row of pixels on each side; with zeros, whoever convolves adds them."""
    if padding == "zeros":
        return x
    i = _SOURCE[padding]
    x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))  # one copy; jnp.pad's other modes make two more
    x = x.at[:, 0].set(x[:, i]).at[:, -1].set(x[:, -1 - i])
    return x.at[0].set(x[i]).at[-1].set(x[-1 - i])


_FEW = 4
"""Up to so many channels in, a CPU's gradient is computed by planes."""


def _of_input(x, kernel, change, padding):
    """The gradient at `x` of the library's convolution."""

    def whole(kernel, change):
        return jax.linear_transpose(lambda x: _direct(x, kernel, padding), x)(change)[0]

    def by_planes(kernel, change):
        full = _planes(kernel, change)
        return full[1:-1, 1:-1] if padding == "zeros" else _folded(full, padding)

    return lax.platform_dependent(kernel, change, cpu=by_planes if x.shape[-1] <= _FEW else whole, default=whole)


def _planes(kernel, change):
    """The gradient at the bordered map. The library has vectors of channels, short with three: here each tap and
    channel is a plane, and the planes are added up."""
    (height, width, _), taps = change.shape, kernel.shape[:3]
    pair = kernel.reshape(math.prod(taps), -1), change.reshape(height * width, -1)
    kind = jnp.promote_types(change.dtype, jnp.float32)
    planes = lax.dot_general(*pair, (((1,), (1,)), ((), ())), preferred_element_type=kind)
    planes = lax.optimization_barrier(planes.reshape(*taps, height, width))
    places = [(i, j) for i in range(_TAPS) for j in range(_TAPS)]
    summed = sum(jnp.pad(planes[i, j], ((0, 0), (i, 2 - i), (j, 2 - j))) for i, j in places)
    return jnp.moveaxis(summed, 0, -1).astype(change.dtype)


def _folded(change, padding):
    """The transpose of `_bordered`."""
    if padding == "zeros":
        return change
    i = _SOURCE[padding]
    change = change.at[i].add(change[0]).at[-1 - i].add(change[-1])
    change = change.at[:, i].add(change[:, 0]).at[:, -1 - i].add(change[:, -1])
    return change[1:-1, 1:-1]


@functools.cache
def _winograd(padding: str, lead: int, rectify: bool, turned: bool):
    """`f(x, kernel)` or `f(x, kernel, bias)` of `[N, H, W, C]`, of which maps over `x` make a larger N.

    `lead`: so many rows and columns of zeros are set around the map first. `turned`: with the kernel turned around and
    its channels swapped.
    """
    static = {"padding": padding, "lead": lead, "rectify": rectify, "turned": turned}
    run = jax.custom_batching.custom_vmap(functools.partial(_bands, **static))

    @run.def_vmap
    def rule(size, mapped, x, *rest):
        if mapped[0] and not any(mapped[1:]):
            y = run(x.reshape(-1, *x.shape[2:]), *rest)
            return y.reshape(size, -1, *y.shape[1:]), True
        pairs = zip((x, *rest), mapped, strict=True)
        every = [arg if is_mapped else jnp.repeat(arg[None], size, 0) for arg, is_mapped in pairs]
        return lax.map(lambda one: run(*one), tuple(every)), True

    return run


def _bands(x, kernel, bias=None, *, padding, lead, rectify, turned):
    """The convolution, band after band."""
    count, height, width, inputs = np.add(x.shape, (0, 2 * lead, 2 * lead, 0)).tolist()
    outputs = kernel.shape[1 if turned else 2]
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    bytes_of_row = filtering.WINDOW**2 * columns * (inputs + outputs) * x.dtype.itemsize
    bands = _bands_of(rows, bytes_of_row)
    rows = -(-rows // bands)  # of tiles, in a band
    most = max(1, int(BAND_BYTES / (rows * bytes_of_row)))
    together = next(n for n in range(min(count, most), 0, -1) if count % n == 0)
    x = _extended(x, lead, bands * rows * _TILE, columns * _TILE, padding)
    beyond = padding != "zeros" and [_beyond(length, padding) for length in (height, width)]

    def band(image, index):
        y = _band(_with_border(x, image, index * (rows * _TILE), (together, rows * _TILE), beyond), kernel, turned)
        y = y if bias is None else y + bias[None, None, None]
        return jax.nn.relu(y) if rectify else y

    if bands == 1 and together == count:
        return band(np.uint32(0), np.uint32(0))[:, :height, :width]

    def body(number, y):
        number = number.astype(np.uint32)  # unsigned, or each index would be tested for a minus
        image, index = number // bands * together, number % bands
        return lax.dynamic_update_slice(y, band(image, index), (image, index * (rows * _TILE), *_ORIGIN))

    y = jnp.zeros((count, bands * rows * _TILE, columns * _TILE, outputs), x.dtype)
    return lax.fori_loop(0, count // together * bands, body, y)[:, :height, :width]


_ORIGIN = (np.uint32(0), np.uint32(0))


def _bands_of(rows, bytes_of_row):
    """How many bands a map of so many rows of tiles goes in: each within BAND_BYTES where that can be, and all alike
    where that costs no more than twice as many."""
    least = min(rows, math.ceil(rows * bytes_of_row / BAND_BYTES))
    return next((n for n in range(least, 2 * least) if rows % n == 0), least)


def _extended(x, lead, height, width, padding):
    """`x` after `lead` rows and columns of zeros, with more of them at its end; the first there is its border."""
    _, h, w, _ = x.shape
    more = height - h - lead, width - w - lead
    if not any(more):
        return x
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (lead, more[0], 0), (lead, more[1], 0), (0, 0, 0)])
    if padding != "zeros":
        x = x.at[:, :, w].set(x[:, :, _beyond(w, padding)[1]]) if more[1] else x
        x = x.at[:, h].set(x[:, _beyond(h, padding)[1]]) if more[0] else x
    return x


def _with_border(x, image, start, size, beyond):
    """`size` images and rows from `image` and `start` on, with what surrounds them.

    `beyond`: rows and columns that stand before the map's first and after its last; none: zeros do. After the last
    they count where nothing was added at the end; else they are there, or beyond all that is kept.
    """
    images, rows = size
    _, height, width, channels = x.shape
    take = lambda at, rows: lax.dynamic_slice(x, (image, at, *_ORIGIN), (images, rows, width, channels))  # noqa: E731
    one = np.uint32(1)
    before, after = take(jnp.maximum(start, one) - one, 1), take(jnp.minimum(start + rows, np.uint32(height - 1)), 1)
    if not beyond:
        before, after = jnp.where(start == 0, 0, before), jnp.where(start + rows == height, 0, after)
        x = jnp.concatenate([before, take(start, rows), after], 1)
        return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), (1, 1, 0), (0, 0, 0)])
    (first, last), (left, right) = beyond
    before = jnp.where(start == 0, take(np.uint32(first), 1), before)
    after = jnp.where(start + rows == height, take(np.uint32(last), 1), after)
    x = jnp.concatenate([before, take(start, rows), after], 1)
    return jnp.concatenate([x[:, :, left : left + 1], x, x[:, :, right : right + 1]], 2)


def _band(x, kernel, turned):
    """The convolution of `[n, 4 r + 2, 4 c + 2, in]` without border: `[n, 4 r, 4 c, out]`."""
    outputs, _, inputs = filtering.turned() if turned else filtering.matrices(_TILE)
    rows, columns = ((length - _TAPS + 1) // _TILE for length in x.shape[1:3])
    count = len(x)
    x = filtering.tiles(x, inputs, _TILE, _TAPS - 1)
    y = lax.dot_general(x, kernel, (((2,), (2 if turned else 1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)
    return filtering.together(y, outputs, (count, rows, columns))
