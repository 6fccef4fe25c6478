"""The style transfer objective of Gatys, Ecker & Bethge 2016 (https://doi.org/10.1109/CVPR.2016.265).

A static spec says what is computed; targets and weights are traced arguments, so that `vmap` runs over them. The image
counts through sums over the pixels of its feature maps alone (`sums_of`), and `style_terms` is a function of those:
that is what lets `tiles` compute both, and the gradient, of an image that is too large to be held at once.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jnst import losses
from jnst.config import ObjectiveSpec
from jnst.nets import vgg
from jnst.types import Features, Image, Params, Statistic, StyleTarget, Sums, Targets, Terms, Weights

__all__ = [
    "blend",
    "content_powers",
    "content_targets",
    "layers_of",
    "style_objective",
    "style_statistics",
    "style_targets",
    "style_terms",
    "sums_of",
]


def layers_of(spec: ObjectiveSpec) -> tuple[str, ...]:
    """All layers that an objective looks at."""
    return tuple(dict.fromkeys(spec.content_layers + spec.style_layers))


def content_targets(params: Params, content: Image, spec: ObjectiveSpec) -> dict[str, jax.Array]:
    """Feature maps P of the content image, by content layer."""
    return vgg.features(params, content, spec.content_layers, pooling=spec.pooling, padding=spec.padding)


def content_powers(targets: Features) -> dict[str, jax.Array]:
    """The sum of P^2, by content layer."""
    return {layer: losses.squares(target) for layer, target in targets.items()}


def style_statistics(params: Params, style: Image, spec: ObjectiveSpec) -> dict[str, Statistic]:
    """Of one style image, by style layer: Gram matrices `[c, c]`, or moments, whatever the picture's size."""
    found = vgg.features(params, style, spec.style_layers, pooling=spec.pooling, padding=spec.padding)
    return {
        layer: losses.style_statistic(
            losses.style_sums(found[layer], spec.style_loss), found[layer].shape, spec.normalization
        )
        for layer in spec.style_layers
    }


def blend(statistics: Sequence[Mapping[str, Statistic]], mix: jax.Array) -> dict[str, StyleTarget]:
    """The style between several: `sum_k mix_k G_k` in every layer, as a target. `mix` is `[number of styles]`, sum 1.

    Raw moments are blended, not covariances: those are of the mixture of the styles' pixels.
    """
    mixed = jax.tree.map(lambda *each: jnp.tensordot(mix.astype(each[0].dtype), jnp.stack(each), 1), *statistics)
    return {layer: losses.style_target(statistic) for layer, statistic in mixed.items()}


def style_targets(
    params: Params, content: Image, styles: Sequence[Image], mix: jax.Array, spec: ObjectiveSpec
) -> Targets:
    """What `style_objective` compares with: the content's features and the blended styles' statistics."""
    statistics = [style_statistics(params, style, spec) for style in styles]
    return Targets(content=content_targets(params, content, spec), style=blend(statistics, mix))


def sums_of(found: Features, content: Features, spec: ObjectiveSpec) -> Sums:
    """What the objective needs of an image's features; of parts of an image, its sums over the parts are the whole's.

    Args:
        found: The image's features, by layer.
        content: The content's features P.
        spec: Static.
    """
    return Sums(
        content={layer: losses.squares(_wide(found[layer]) - _wide(content[layer])) for layer in spec.content_layers},
        style={layer: losses.style_sums(found[layer], spec.style_loss) for layer in spec.style_layers},
    )


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def style_terms(
    sums: Sums,
    shapes: Mapping[str, Sequence[int]],
    powers: Mapping[str, jax.Array],
    styles: Mapping[str, StyleTarget],
    weights: Weights,
    spec: ObjectiveSpec,
) -> Terms:
    """The weighted terms `content` and `style` from an image's sums; without content layers that term is 0.

    Args:
        sums: From `sums_of`.
        shapes: `(h, w, c)` of the image's feature maps, by layer.
        powers: From `content_powers`.
        styles: From `blend`.
        weights: Traced; `content_layers` and `style_layers` in the spec's order.
        spec: Static.
    """
    kind = spec.normalization
    content = [
        losses.content_term(sums.content[name], powers[name], shapes[name], kind) for name in spec.content_layers
    ]
    style = [
        losses.style_loss(losses.style_statistic(sums.style[name], shapes[name], kind), styles[name], kind)
        for name in spec.style_layers
    ]
    return {
        "content": weights.content * _weighted(weights.content_layers, content),
        "style": weights.style * _weighted(weights.style_layers, style),
    }


def _weighted(weights, terms):
    """The weighted sum over layers; over none 0."""
    return jnp.sum(weights * jnp.stack(terms)) if terms else jnp.zeros_like(weights, shape=())


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
    found = vgg.features(params, image, layers_of(spec), pooling=spec.pooling, padding=spec.padding)
    shapes = {layer: map_.shape for layer, map_ in found.items()}
    sums = sums_of(found, targets.content, spec)
    terms = style_terms(sums, shapes, content_powers(targets.content), targets.style, weights, spec)
    terms["tv"] = weights.tv * losses.total_variation_loss(image, spec.tv, spec.normalization)
    total = terms["content"] + terms["style"] + terms["tv"]
    return total, {"total": total, **terms}
