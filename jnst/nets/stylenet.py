"""The stylenet: a network that paints a picture in one pass (Johnson, Alahi & Fei-Fei 2016,
https://arxiv.org/abs/1603.08155), with instance normalization (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022),
and, of several styles, one scale and shift each (Dumoulin et al. 2017, https://arxiv.org/abs/1610.07629).

Down, residual blocks, up again; without skips from the way down to the way up. Departures from Johnson et al.:

- Up by enlarging and a convolution, not by a transposed one: no checkerboards (Odena et al. 2016).
- Borders are reflected at every convolution, not once by 40 pixels around the picture; residual blocks keep the size.
- A convolution before a normalization has no bias, which that takes off again; nor has a block's last normalization a
  shift, for the same reason.
- The output is linear, not 150 tanh, unless the head says so, and the last kernel starts small: a gray picture learns
  faster than a noisy one.
- Any size: on the way down a map has half the pixels, rounded up, and on the way up it gets the size back that it had.

What differs between styles are `scale` and `shift` alone, so a style is a share of each row: `mix` is `[N, styles]`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jnst import convs
from jnst.config import StyleNetSpec

__all__ = ["EPSILON", "Moments", "apply", "down", "init", "middle", "moments_of", "norms", "sizes_of", "up"]

EPSILON = 1e-5
"""Added to variances."""

_MEAN = 0.45  # about the mean of photos: taken off what goes in, added to what comes out
_REACH = 150 / 255  # Johnson et al.: the output is 150 tanh, in 0..255
_HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # He et al. 2015; a truncated one compiles slowly
_START = 0.01  # of the variance that keeps that of a map
_MOMENTUM = 0.9  # of batch normalization's running moments


class Moments(NamedTuple):
    """What a normalization takes off and divides by."""

    mean: jax.Array  # [N, 1, 1, C], or [1, 1, 1, C]
    variance: jax.Array


def moments_of(x: jax.Array, norm: str) -> Moments:
    """The moments of maps `[N, H, W, C]`: over the pixels of each one (`instance`), or of all together (`batch`)."""
    axes = (1, 2) if norm == "instance" else (0, 1, 2)
    mean = jnp.mean(x, axes, keepdims=True)
    return Moments(mean, jnp.mean((x - mean) ** 2, axes, keepdims=True))


class _Layer(nn.Module):
    """A convolution and its normalization, which tiles need one at a time."""

    spec: StyleNetSpec
    inputs: int
    width: int
    kernel: int = 3
    stride: int = 1
    rises: bool = False
    rectify: bool = True

    def setup(self):
        shape = (self.kernel, self.kernel, self.inputs, self.width)
        self.weights = self.param("kernel", _HE, shape)
        # Of several styles a row each.
        self.scale = self.param("scale", nn.initializers.ones, (self.spec.styles, self.width))
        if self.rectify:
            self.shift = self.param("shift", nn.initializers.zeros, (self.spec.styles, self.width))
        if self.spec.norm == "batch":
            everywhere = (1, 1, 1, self.width)
            self.mean = self.variable("running", "mean", jnp.zeros, everywhere)
            self.variance = self.variable("running", "variance", jnp.ones, everywhere)

    def convolved(self, x, size=None):
        if self.rises:
            rise = convs.up_conv if self.spec.upsample == "resize" else convs.transposed_conv
            return rise(x, self.weights)[:, : size[0], : size[1]]
        return convs.conv(x, self.weights, stride=self.stride, border=self.spec.border)

    def normalized(self, x, how, moments=None):
        moments = moments or self._moments(x, how)
        factor = jax.lax.rsqrt(moments.variance + EPSILON)
        of_styles = lambda rows: jnp.matmul(how.mix, rows)[:, None, None]  # noqa: E731
        x = (x - moments.mean) * (factor * of_styles(self.scale))
        # What a block ends with is added to, and the next normalization takes a shift off again: it has none.
        return nn.relu(x + of_styles(self.shift)) if self.rectify else x

    def _moments(self, x, how):
        if self.spec.norm == "instance":
            return moments_of(x, "instance")
        if not how.train:
            return Moments(self.mean.value, self.variance.value)
        found = moments_of(x, "batch")
        if how.axis_name is not None:  # the batch is spread over devices
            mean = jax.lax.pmean(found.mean, how.axis_name)
            found = Moments(mean, jax.lax.pmean(found.variance + (found.mean - mean) ** 2, how.axis_name))
        for kept, value in zip((self.mean, self.variance), found, strict=True):
            kept.value = _MOMENTUM * kept.value + (1 - _MOMENTUM) * jax.lax.stop_gradient(value)
        return found


class _How(NamedTuple):
    """What all layers of a pass are told."""

    mix: jax.Array
    given: Mapping[str, Moments]
    train: bool = False
    axis_name: str | None = None


class _StyleNet(nn.Module):
    spec: StyleNetSpec

    def setup(self):
        spec, widths = self.spec, self.spec.widths
        levels = range(len(widths))
        layer = lambda inputs, width, **more: _Layer(spec, inputs, width, **more)  # noqa: E731
        self.downs = [
            layer(3, widths[0], kernel=spec.kernel) if level == 0 else layer(widths[level - 1], widths[level], stride=2)
            for level in levels
        ]
        self.blocks = [
            (layer(widths[-1], widths[-1]), layer(widths[-1], widths[-1], rectify=False)) for _ in range(spec.blocks)
        ]
        self.ups = [layer(widths[level], widths[level - 1], rises=True) for level in reversed(levels[1:])]
        last = (spec.kernel, spec.kernel, widths[0], 3)
        self.last = self.param("last", nn.initializers.variance_scaling(_START, "fan_in", "normal"), last)
        self.bias = self.param("bias", nn.initializers.zeros, (3,))

    def __call__(self, images, how):
        sizes = sizes_of(images.shape[1:3], self.spec)
        x = self.down(images, how, self.downs[-1].name)
        return self.up(self.middle(x, how), images, sizes, how)

    def down(self, images, how, until):
        return self._through(self.downs, images - _MEAN, how, until)

    def middle(self, x, how):
        x = self.downs[-1].normalized(x, how)
        for first, second in self.blocks:
            x = x + self._through([first, second], x, how)
        return x

    def up(self, x, images, sizes, how, until=None):
        x = self._through(self.ups, x, how, until, sizes[-2::-1])
        if until is not None:
            return x
        x = convs.conv(x, self.last, border=self.spec.border) + self.bias[None, None, None]
        if self.spec.head == "residual":
            return images + x
        return _MEAN + (_REACH * jnp.tanh(x) if self.spec.head == "tanh" else x)

    def _through(self, layers, x, how, until=None, sizes=None):
        """The layers in turn; `until` one of them, the map that it would normalize."""
        for place, layer in enumerate(layers):
            x = layer.convolved(x, sizes and sizes[place])
            if layer.name == until:
                return x
            x = layer.normalized(x, how, how.given.get(layer.name))
        return x


def init(key: jax.Array, spec: StyleNetSpec) -> dict[str, object]:
    """Variables before any training: `params`, and `running` moments where the normalization is by batches.

    >>> variables = init(jax.random.key(0), StyleNetSpec(widths=(4, 8), blocks=1))
    >>> variables["params"]["downs_0"]["kernel"].shape
    (5, 5, 3, 4)
    """
    side = 2 ** len(spec.widths)
    images = jnp.zeros((1, side, side, 3))
    return _StyleNet(spec).init(key, images, _How(jnp.ones((1, spec.styles)), {}))


def apply(
    variables: Mapping[str, object],
    images: jax.Array,
    mix: jax.Array,
    spec: StyleNetSpec,
    *,
    train: bool = False,
    axis_name: str | None = None,
) -> tuple[jax.Array, Mapping[str, object]]:
    """Pictures in one pass, of the size that went in.

    Args:
        variables: From `init`, trained.
        images: `[N, H, W, 3]` sRGB in [0, 1].
        mix: `[N, styles]`, the share of each style; of a network of one style, ones.
        spec: Static.
        train: Whether batch normalization goes by this batch, not by the running moments.
        axis_name: The mesh's axis that a batch is spread over, where it is.

    Returns:
        `[N, H, W, 3]`, not clipped, and the running moments (empty for instance normalization).

    >>> spec = StyleNetSpec(widths=(4, 8), blocks=1)
    >>> apply(init(jax.random.key(0), spec), jnp.ones((2, 13, 10, 3)), jnp.ones((2, 1)), spec)[0].shape
    (2, 13, 10, 3)
    """
    how = _How(mix, {}, train, axis_name)
    result, changed = _StyleNet(spec).apply(dict(variables), images, how, mutable=["running"])
    return result, changed.get("running", {})


def sizes_of(size: Sequence[int], spec: StyleNetSpec) -> tuple[tuple[int, int], ...]:
    """Height and width of the maps on the way down, the picture's first; half of it is rounded up.

    >>> sizes_of((13, 10), StyleNetSpec(widths=(4, 8, 16)))
    ((13, 10), (7, 5), (4, 3))
    """
    sizes = [tuple(size)]
    for _ in spec.widths[1:]:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    return tuple(sizes)


def norms(spec: StyleNetSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the normalizations on the way down, and of those on the way up, in order.

    >>> norms(StyleNetSpec(widths=(4, 8)))
    (('downs_0', 'downs_1'), ('ups_0',))
    """
    levels = len(spec.widths)
    return tuple(f"downs_{level}" for level in range(levels)), tuple(f"ups_{level}" for level in range(levels - 1))


def down(
    variables: Mapping[str, object],
    images: jax.Array,
    mix: jax.Array,
    given: Mapping[str, Moments],
    spec: StyleNetSpec,
    *,
    until: str,
) -> jax.Array:
    """The way down, for tiles of a picture: with the moments of the whole one.

    Args:
        variables: As for `apply`.
        images: Tiles `[N, H, W, 3]`.
        mix: As for `apply`.
        given: Moments by normalization; one that is not named takes the running ones, or its maps' own.
        spec: Static.
        until: A normalization: the map before it is what is returned.
    """
    how = _How(mix, given)
    return _StyleNet(spec).apply(dict(variables), images, how, until, method="down")


def middle(variables: Mapping[str, object], x: jax.Array, mix: jax.Array, spec: StyleNetSpec) -> jax.Array:
    """From the map before the last normalization on the way down to the one that goes up: that normalization and the
    residual blocks, over the whole of the smallest map."""
    return _StyleNet(spec).apply(dict(variables), x, _How(mix, {}), method="middle")


def up(
    variables: Mapping[str, object],
    x: jax.Array,
    images: jax.Array | None,
    sizes: Sequence[tuple[int, int]],
    mix: jax.Array,
    given: Mapping[str, Moments],
    spec: StyleNetSpec,
    *,
    until: str | None = None,
) -> jax.Array:
    """The way up, for tiles.

    Args:
        variables: As for `apply`.
        x: Tiles of what `middle` gives.
        images: The same of the picture; None where it ends before it needs them.
        sizes: Of the maps of a tile, see `sizes_of`.
        mix: As for `apply`.
        given: As for `down`.
        spec: Static.
        until: A normalization: the map before it is what is returned. None: the picture is.
    """
    how = _How(mix, given)
    return _StyleNet(spec).apply(dict(variables), x, images, tuple(sizes), how, until, method="up")
