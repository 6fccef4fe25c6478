"""The style transfer objective of Gatys, Ecker & Bethge 2016 (https://doi.org/10.1109/CVPR.2016.265).

A static spec says what is computed; targets and weights are traced arguments, so that `vmap` runs over them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jnst.config import ObjectiveSpec
from jnst.losses import content_loss, style_gram, style_loss, total_variation_loss
from jnst.nets import vgg
from jnst.types import Image, Params, Targets, Terms, Weights

__all__ = ["blend_grams", "content_targets", "style_grams", "style_objective", "style_targets"]


def content_targets(params: Params, content: Image, spec: ObjectiveSpec) -> dict[str, jax.Array]:
    """Feature maps P of the content image, by content layer."""
    return vgg.features(params, content, spec.content_layers, pooling=spec.pooling, padding=spec.padding)


def style_grams(params: Params, style: Image, spec: ObjectiveSpec) -> dict[str, jax.Array]:
    """Gram matrices of one style image, by style layer: `[c, c]` whatever the picture's size."""
    found = vgg.features(params, style, spec.style_layers, pooling=spec.pooling, padding=spec.padding)
    return {layer: style_gram(found[layer], spec.normalization) for layer in spec.style_layers}


def blend_grams(grams: Sequence[dict[str, jax.Array]], mix: jax.Array) -> dict[str, jax.Array]:
    """The style between several: `sum_k mix_k G_k` in every layer. `mix` is `[number of styles]` with sum 1."""
    return jax.tree.map(lambda *each: jnp.tensordot(mix.astype(each[0].dtype), jnp.stack(each), 1), *grams)


def style_targets(
    params: Params, content: Image, styles: Sequence[Image], mix: jax.Array, spec: ObjectiveSpec
) -> Targets:
    """What `style_objective` compares with: the content's features and the blended styles' Gram matrices."""
    grams = [style_grams(params, style, spec) for style in styles]
    return Targets(content=content_targets(params, content, spec), style=blend_grams(grams, mix))


def style_objective(
    params: Params, image: Image, targets: Targets, weights: Weights, spec: ObjectiveSpec
) -> tuple[jax.Array, Terms]:
    """The loss of an image and its weighted terms.

    `total = content + style + tv`, where content is `content_weight * sum_l a_l * content_loss_l`, style is
    `style_weight * sum_l b_l * style_loss_l` and tv is `tv_weight * total_variation_loss`.

    Args:
        params: Backbone.
        image: `[H, W, 3]` sRGB, the size of the content targets' image.
        targets: From `style_targets` with the same spec.
        weights: Traced weights; `content_layers` and `style_layers` in the spec's order.
        spec: Static.

    Returns:
        The total and `{"total", "content", "style", "tv"}`, scalars.
    """
    layers = tuple(dict.fromkeys(spec.content_layers + spec.style_layers))
    found = vgg.features(params, image, layers, pooling=spec.pooling, padding=spec.padding)
    content = [content_loss(found[layer], targets.content[layer], spec.normalization) for layer in spec.content_layers]
    style = [
        style_loss(style_gram(found[layer], spec.normalization), targets.style[layer], spec.normalization)
        for layer in spec.style_layers
    ]
    terms = {
        "content": weights.content * jnp.sum(weights.content_layers * jnp.stack(content)),
        "style": weights.style * jnp.sum(weights.style_layers * jnp.stack(style)),
        "tv": weights.tv * total_variation_loss(image, spec.tv, spec.normalization),
    }
    total = terms["content"] + terms["style"] + terms["tv"]
    return total, {"total": total, **terms}
