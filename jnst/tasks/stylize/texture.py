"""Texture synthesis (Gatys, Ecker & Bethge 2015, https://arxiv.org/abs/1505.07376): a style transfer without content.

From noise, a picture of any size with the sample's Gram matrices. Departures from the paper: differences are relative
to the sample's (`--normalization`), the picture grows over a few sizes, and L-BFGS is preconditioned. A tileable one is
computed on a torus: every convolution is padded with the opposite edge, those of the sample with its mirror image.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jnst import objective, ops, optimize, tiles
from jnst.config import ObjectiveSpec, TextureConfig
from jnst.loop import Prepared
from jnst.tasks.stylize import one, parts
from jnst.tasks.stylize.stage import AUTO_TILES, Level
from jnst.types import Image, Params, Snapshot

__all__ = ["enlarged", "gram_residuals", "prepare", "scaled", "sizes_of"]


def sizes_of(config: TextureConfig, least: int) -> list[tuple[int, int]]:
    """Width and height of every scale, the smallest first; none with a side below `least` or, tileable, that is no
    multiple of what the layers ask for.

    >>> sizes_of(TextureConfig(size="96x64", scales="3", tileable=True, layers="pool4"), 16)
    [(48, 32), (96, 64)]
    """
    width, height = config.shape
    found = [(width, height)]
    for back in range(1, int(config.scales)):
        size = tuple(round(side / 2**back) for side in (width, height))
        if min(size) < least or (config.tileable and any(side % config.stride for side in size)):
            break
        found.insert(0, size)
    return found


def prepare(
    key: jax.Array,
    params: Params,
    samples: Sequence[Image],
    sizes: Sequence[tuple[int, int]],
    config: TextureConfig,
    *,
    padding: str = "zeros",
    standardize: bool = False,
    devices: Sequence[jax.Device] | None = None,
    room: int | None = None,
    snapshot: Snapshot | None = None,
) -> Prepared:
    """A synthesis, its first scale compiled.

    Args:
        key: Of the noise.
        params: Backbone.
        samples: The sample at every scale, `[h, w, 3]`.
        sizes: Width and height of every scale, from `sizes_of`.
        config: Paths and sizes in it are not looked at.
        padding: The backbone's; a tileable texture has its own.
        standardize: Scale the backbone to unit variance on the sample first (random filters).
        devices: That tiles are spread over.
        room: Bytes that each device has left; None: nothing is planned for it.
        snapshot: Where a run was left that now goes on.

    Raises:
        InputError: there is not enough memory.
        ValueError: the snapshot is of another run.

    >>> from jnst import loop
    >>> from jnst.weights import random_backbone
    >>> config = TextureConfig(layers="relu1_1", steps=3, scales="1")
    >>> params = random_backbone(0, ["relu1_1"]).params
    >>> sample = np.random.default_rng(0).uniform(size=(8, 8, 3)).astype(np.float32)
    >>> result = loop.run(prepare(jax.random.key(0), params, [sample], [(12, 9)], config))
    >>> result.image.shape, result.trace[-1]["style"] < result.trace[0]["style"]
    ((9, 12, 3), True)
    """
    padding = "wrap" if config.tileable else padding
    if standardize:  # on the sample alone: the gray picture that stands for a content is none of the texture's
        params = scaled(params, samples[-1], config, parts.objective_spec(config.painting(), padding))
    levels = [
        Level(np.full((height, width, 3), 0.5, np.float32), (sample,), None, config.steps)
        for (width, height), sample in zip(sizes, samples, strict=True)
    ]
    run = one.prepare(
        key,
        params,
        levels[-1].content,
        levels[-1].styles,
        config.painting(),
        padding=padding,
        smaller=levels[:-1],
        devices=devices,
        room=room,
        snapshot=snapshot,
    )
    run = run._replace(summands=("style", "tv"))  # there is no content
    return run._replace(make=functools.partial(_on_a_torus, run.make, config)) if config.tileable else run


def _on_a_torus(make, config, number):
    """A scale that begins with the one before enlarged over its edges; elsewhere a border is repeated."""
    stage, painting = make(number), config.painting()

    def grow(state):
        canvas = jnp.clip(enlarged(stage.outcome(state), stage.size), 0, painting.canvas_scale)
        return optimize.init(canvas, parts.rates(painting), parts.optimizer_config(painting))

    return stage._replace(grow=grow)


def enlarged(image: Image, size: tuple[int, int]) -> Image:
    """A torus `[h, w, 3]` at height and width `size`: the middle of nine of them, resized together.

    >>> enlarged(jnp.array([[[0.0], [1.0], [0.0], [1.0]]]), (1, 8))[0, :, 0].round(1)
    Array([0.2, 0.2, 0.8, 0.8, 0.2, 0.2, 0.8, 0.8], dtype=float32)
    """
    (height, width), nine = size, jnp.tile(image, (3, 3, 1))
    return ops.resize(nine, (3 * height, 3 * width), "cubic")[height : 2 * height, width : 2 * width]


def gram_residuals(
    params: Params,
    image: Image,
    sample: Image,
    config: TextureConfig,
    *,
    padding: str = "zeros",
    standardize: bool = False,
) -> dict[str, float]:
    """How far a picture's Gram matrices are from the sample's, `|G - T| / |T|`, by layer.

    Args:
        params: Backbone.
        image: `[H, W, 3]`.
        sample: `[h, w, 3]`.
        config: Says the layers.
        padding: The backbone's; a tileable texture is looked at on its torus.
        standardize: As of `prepare`.
    """
    spec = parts.objective_spec(config.painting(), "wrap" if config.tileable else padding)
    image, sample = (jnp.asarray(picture, parts.dtype_of(config)) for picture in (image, sample))
    if standardize:
        params = scaled(params, sample, config, spec)
    net = parts.network(params, sample, [], spec, precision=config.precision, standardize=False)
    found = _statistics(net, image, spec, config.tile)
    target = _statistics(net, sample, parts.style_spec(spec, sample.shape), config.tile)
    return {name: _distance(found[name], target[name]) for name in spec.style_layers}  # by depth


def scaled(params: Params, sample: Image, config: TextureConfig, spec: ObjectiveSpec) -> Params:
    """Random filters, scaled on the sample: the same for a run and for its residuals."""
    sample = jnp.asarray(sample, parts.dtype_of(config))
    return parts.network(params, sample, [], spec, precision=config.precision, standardize=True)


_whole = functools.partial(jax.jit, static_argnames=("spec",))(objective.style_statistics)


def _statistics(params, image, spec, tile):
    """Gram matrices by layer; of a picture that was computed in tiles in tiles too."""
    side = AUTO_TILES[0] if tile in ("auto", "0") else int(tile)
    if tile == "0" or spec.padding == "wrap" or max(image.shape) <= side:
        return _whole(params, image, spec)
    tiling = tiles.make_tiling(image.shape[:2], spec.style_layers, side)
    device = jax.config.jax_default_device or jax.devices()[0]
    return tiles.style_statistics(params, image, tiling, spec, mesh=tiles.make_mesh([device]))


def _distance(found, target):
    """On the host: of a target of zeros (a picture of one color, to filters without biases) it is no NaN."""
    found, target = (np.asarray(matrix, np.float64) for matrix in (found, target))
    return float(np.linalg.norm(found - target) / max(np.linalg.norm(target), 1e-30))
