"""VGG-19's convolutions as a pure function (Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556).

A layer is named `convB_I` before its rectifier, `reluB_I` after it, and `poolB` is what follows a block. The input
rule is one: an sRGB image in [0, 1], from which `params["mean"]` is subtracted here and nowhere else. Scale and
channel order of whatever the weights were trained on are folded into conv1_1's kernel when a file is converted.
The mean is not folded into the bias: padding is zero AFTER the mean is taken off, so along the border that would
be wrong.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jnst import conv, ops
from jnst.config import CONVOLUTIONS, LAYERS, convolution_of, halvings_of
from jnst.types import Features, Image, Params

__all__ = ["convolutions", "features", "min_size", "prepare", "standardize"]


def convolutions(layers: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the convolutions up to the deepest of `layers` (all 16 without), in order.

    >>> convolutions(["relu1_1", "pool1"]), convolutions([])
    (('conv1_1', 'conv1_2'), ())
    """
    if layers is None:
        return CONVOLUTIONS
    return CONVOLUTIONS[: 1 + max((CONVOLUTIONS.index(convolution_of(layer)) for layer in layers), default=-1)]


def min_size(layers: Sequence[str], padding: str = "zeros") -> int:
    """The smallest side in pixels that leaves every one of `layers` a feature map."""
    reflected = padding == "reflect"  # which needs a second pixel; what is pooled had it
    return max(2 ** halvings_of(layer) * (2 if reflected and layer[:4] != "pool" else 1) for layer in layers)


def features(
    params: Params, image: Image, layers: Sequence[str], *, pooling: str = "max", padding: str = "zeros"
) -> Features:
    """Feature maps of one image, computed no deeper than the deepest layer asked for.

    Args:
        params: See `types.Params`; weights beyond the deepest layer may be missing. Computes in the kernels' dtype.
        image: `[H, W, 3]` sRGB in [0, 1].
        layers: Names such as `conv4_2` (before the rectifier), `relu4_2` (after it) or `pool4` (after block 4 and the
            pooling that follows it); of none nothing is computed.
        pooling: `max`, `avg` or `l2`, of 2x2 cells; an odd last row or column is dropped.
        padding: `zeros`, `reflect`, `replicate`, or `replicate_first` (zeros but for conv1_1), a property of the
            weights, kept in their file; or `wrap`: the image is a torus. Where its sides are multiples of the deepest
            layer's stride, the features of the rolled image are then the rolled features.

    Raises:
        TypeError: an image of whole numbers, which would be one in 0..255.

    Returns:
        `{layer: [h, w, c]}`, with `h = H // 2**halvings`: `block - 1` of them, after a pooling `block`.

    >>> from jnst.weights import random_backbone
    >>> params = random_backbone(0, ["relu2_1"]).params
    >>> features(params, jnp.zeros((32, 48, 3)), ["relu1_1", "relu2_1"])["relu2_1"].shape
    (16, 24, 128)
    """
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"image: an array of {image.dtype}: expected floats in [0, 1]")
    found = {}
    x = image
    for name in _down_to(layers):
        if name in CONVOLUTIONS:
            # Where nobody looks before the rectifier, it is the convolution's own.
            x = _convolved(params, x, name, padding, rectify=name not in layers)
        elif name.startswith("pool"):
            x = ops.pool(x, pooling)
        elif convolution_of(name) in layers:
            x = jax.nn.relu(x)
        if name in layers:
            found[name] = x
    return {layer: found[layer] for layer in layers}


def _down_to(layers):
    """All layers to the deepest of `layers`, in order."""
    return LAYERS[: 1 + max(map(LAYERS.index, layers), default=-1)]


def prepare(params: Params, platform: str) -> Params:
    """Params that `features` computes with faster on a platform (`cpu`, `gpu`, `tpu`): see `conv.prepare`.

    The images' gradient and the features are the same but for rounding. Of use where the params stay as they are:
    gradients go to the kernels, not to what was made of them here.
    """
    prepared = dict(params)
    for name in CONVOLUTIONS:
        if name in params:
            kernel = conv.prepare(params[name]["kernel"], platform)
            prepared[name] = dict(params[name]) if kernel is None else {**params[name], "winograd": kernel}
    return prepared


def _convolved(params, x, name, padding, rectify=False):
    """One convolution; before the first one, the mean's subtraction."""
    layer = params[name]
    if name == "conv1_1":
        x = (x - params["mean"][None, None]).astype(layer["kernel"].dtype)
    if padding == "replicate_first":
        padding = "replicate" if name == "conv1_1" else "zeros"
    winograd = layer.get("winograd") if conv.pays(x, layer["kernel"]) else None
    return conv.conv3x3(x, layer["kernel"], layer["bias"], padding=padding, rectify=rectify, winograd=winograd)


def standardize(
    params: Params, images: Sequence[Image], layers: Sequence[str], *, pooling: str = "max", padding: str = "zeros"
) -> Params:
    """Params up to the deepest layer, each kernel scaled so that its output has unit variance over `images`.

    For random filters: without it their outputs shrink or grow from layer to layer. `images` may differ in size.

    Returns:
        Params of the same structure, biases unchanged.
    """
    out = {"mean": params["mean"]}
    xs = list(images)
    for name in _down_to(convolutions(layers)):
        if name.startswith("pool"):
            xs = [ops.pool(x, pooling) for x in xs]
        if name not in CONVOLUTIONS:
            continue
        ys = [_convolved(params, x, name, padding) for x in xs]
        count = float(sum(y[..., 0].size for y in ys))  # a whole number of this size may not fit into 32 bits
        mean = sum(y.sum((0, 1)) for y in ys) / count
        variance = sum(((y - mean[None, None]) ** 2).sum() for y in ys) / (count * mean.size)
        scale = jnp.where(variance > 0, 1 / jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1)
        out[name] = {"kernel": params[name]["kernel"] * scale, "bias": params[name]["bias"]}
        bias = params[name]["bias"][None, None]
        xs = [jax.nn.relu((y - bias) * scale + bias) for y in ys]
    return out
