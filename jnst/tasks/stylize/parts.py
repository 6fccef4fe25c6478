"""From pictures and flags to what a step is given: network, targets, weights, rates, a start; and back to a picture.

Each part is made for one run or one picture, so that several runs can share it.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jnst import objective, ops
from jnst.config import (
    HAVE_BETA2,
    LAYERS,
    ObjectiveSpec,
    OptimizerConfig,
    StylizeConfig,
    chosen_layers,
    parse_rate,
)
from jnst.nets import vgg
from jnst.network import network as _network
from jnst.network import prepared
from jnst.types import Image, Params, Rates, Statistic, Weights

__all__ = [
    "content_targets",
    "dtype_of",
    "finish",
    "network",
    "objective_spec",
    "optimizer_config",
    "prepared",
    "rates",
    "recolored",
    "start",
    "style_spec",
    "style_statistics",
    "weights",
]


def objective_spec(config: StylizeConfig, padding: str) -> ObjectiveSpec:
    """The static half of the objective that a configuration means for weights with this padding."""
    return ObjectiveSpec(
        content_layers=tuple(name for name, _ in _layers(config, "content_layers")),
        style_layers=tuple(name for name, _ in _layers(config, "style_layers")),
        pooling=config.pooling,
        padding=padding,
        normalization=config.normalization,
        tv=config.tv,
        style_loss=config.style_loss,
    )


def optimizer_config(config: StylizeConfig) -> OptimizerConfig:
    """The static half of the optimizer; what it has no use for stays at its default, so that it makes no program."""
    fields = ["optimizer", "projection", "canvas_scale"]
    fields += ["history", "line_search", "preconditioner"] if config.optimizer == "lbfgs" else []
    fields += ["beta2"] if config.optimizer in HAVE_BETA2 else []
    chosen = {name: getattr(config, name) for name in fields}
    return OptimizerConfig(average=config.average_decay > 0, **chosen)


def _layers(config, flag):
    """Names and weights by depth: in whatever order they are given, the same layers are one program."""
    pairs = zip(*chosen_layers(config, flag), strict=True)
    return sorted(pairs, key=lambda pair: LAYERS.index(pair[0]))


def dtype_of(config: StylizeConfig) -> jnp.dtype:
    """Of canvas, targets and weights; the network's own may be narrower."""
    return jnp.dtype(jnp.float64 if config.precision == "float64" else jnp.float32)


def weights(config: StylizeConfig) -> Weights:
    """What each term counts."""
    dtype = dtype_of(config)
    return Weights(
        *(jnp.asarray(value, dtype) for value in (config.content_weight, config.style_weight, config.tv_weight)),
        *(
            jnp.asarray([weight for _, weight in _layers(config, flag)], dtype)
            for flag in ("content_layers", "style_layers")
        ),
    )


def rates(config: StylizeConfig) -> Rates:
    """The optimizer's numbers."""
    dtype = dtype_of(config)
    return Rates(jnp.asarray(parse_rate(config), dtype), jnp.asarray(config.average_decay, dtype))


@functools.partial(jax.jit, static_argnames=("spec",))
def content_targets(params: Params, content: Image, spec: ObjectiveSpec) -> dict[str, jax.Array]:
    """`objective.content_targets`, compiled."""
    return objective.content_targets(params, content, spec)


def style_statistics(params: Params, style: Image, spec: ObjectiveSpec) -> dict[str, Statistic]:
    """`objective.style_statistics` of a style image, compiled; seen as `style_spec` says."""
    return _style_statistics(params, style, style_spec(spec, style.shape))


_style_statistics = functools.partial(jax.jit, static_argnames=("spec",))(objective.style_statistics)


def style_spec(spec: ObjectiveSpec, shape: Sequence[int]) -> ObjectiveSpec:
    """How a style image of a shape is looked at: as the canvas is, but that it is never a torus.

    Its opposite edges do not meet: padded with itself, it would have a seam, and the canvas were asked for one. Beyond
    its border lies its mirror image instead, or where it is too small for that, its outermost pixels.
    """
    if spec.padding != "wrap":
        return spec
    mirrored = min(shape[:2]) >= vgg.min_size(spec.style_layers, "reflect")
    return dataclasses.replace(spec, padding="reflect" if mirrored else "replicate")


def network(
    params: Params, content: Image, styles: Sequence[Image], spec: ObjectiveSpec, *, precision: str, standardize: bool
) -> Params:
    """`jnst.network.network` for an objective; of the pictures, as they shall be seen."""
    return _network(
        params,
        [content, *styles],
        spec.content_layers + spec.style_layers,
        pooling=spec.pooling,
        padding=spec.padding,
        precision=precision,
        standardize=standardize,
    )


def recolored(content: Image, styles: Sequence[Image], mode: str) -> tuple[Image, list[Image]]:
    """Content and styles as the network shall see them, by `preserve_color`; the canvas starts from this content."""
    if mode == "match":
        return content, [ops.match_color(style, content) for style in styles]
    if mode == "luminance":
        luma = ops.luminance(content)
        matched = [ops.match_luminance(ops.luminance(style), luma) for style in styles]
        return _gray(luma), [_gray(style) for style in matched]
    return content, list(styles)


def _gray(luma):
    return jnp.repeat(luma[..., None], 3, -1)


def finish(image: Image, original: Image, config: StylizeConfig) -> Image:
    """From the optimized image to the one that is shown; `original` is the content with its own colors."""
    image = jnp.clip(image, 0, 1)
    if config.preserve_color == "luminance":
        return ops.replace_luminance(original, ops.luminance(image))
    return image


def start(key: jax.Array, content: Image, mean: jax.Array, config: StylizeConfig, *, init: Image | None) -> jax.Array:
    """The canvas of step 0, a buffer of its own: the loop's state is donated.

    Args:
        key: Of the noise.
        content: As the network sees it.
        mean: The network's mean color, `[3]`.
        config: Says content, noise or mix, and the canvas's unit.
        init: A picture to start from instead.
    """
    image = _start(key, content, mean, config) if init is None else jnp.asarray(init, content.dtype)
    return jnp.array(image * config.canvas_scale, copy=True)


def _start(key, content, mean, config):
    if config.init == "content":
        return content
    width = config.noise_width / 255
    noise = mean[None, None] + jax.random.uniform(key, content.shape, content.dtype, -width, width)
    if config.init == "noise":
        return noise
    return config.noise_ratio * noise + (1 - config.noise_ratio) * content
