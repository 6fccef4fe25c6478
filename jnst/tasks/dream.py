"""DeepDream (Mordvintsev, Olah & Tyka 2015): a picture in which what a layer sees has been amplified.

Octave by octave, the smallest first: steps of gradient ascent along the gradient divided by its mean size, from the
picture at that size plus the detail that the octaves before have added. Before a step the picture is rolled by a few
pixels, and its gradient back. The original's formula is `gradient := activation` at the layer, that is half the sum of
squares; here it is half the mean, so that layers of different sizes count alike, which changes no step of a single
layer. Where the original resizes linearly, pictures are shrunk by Lanczos and details enlarged by cubic interpolation.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jnst import ops, transforms
from jnst.config import DreamConfig, OptimizerConfig, parse_channels
from jnst.errors import InputError
from jnst.loop import Prepared, restore
from jnst.nets import vgg
from jnst.network import network, prepared
from jnst.stages import make_stage
from jnst.tiles import make_tiling, stride_of
from jnst.types import Image, Params, Rates, Snapshot, Terms

__all__ = ["Dream", "octave_sizes", "prepare"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dream:
    """What is minimized: minus the mean over the layers of how active they are. A `stages.Goal`."""

    layers: tuple[tuple[str, tuple[int, ...]], ...]
    """Each with the channels that count; none: all."""
    kind: str = "square"
    """One of `config.DREAMS`."""
    guided: bool = False
    pooling: str = "avg"
    padding: str = "zeros"
    jitter: int = 0
    tile: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names."""
        return tuple(name for name, _ in self.layers)

    def __call__(self, key: jax.Array, image: Image, shared: Any, own: Any = ()) -> tuple[jax.Array, Terms]:
        """The loss of `[H, W, 3]` and `{"total", "activation"}`.

        Args:
            key: Of the jitter.
            image: In [0, 1].
            shared: The network, and the guide's feature maps (empty without a guide).
            own: Not used.
        """
        params, guide = shared
        if self.jitter:
            image = transforms.jitter(key, image, most=self.jitter)
        activation = self._activation(params, image, guide)
        return -activation, {"total": -activation, "activation": activation}

    def _activation(self, params, image, guide):
        tiling = make_tiling(image.shape[:2], self.names, self.tile) if self.tile else None
        if tiling is None or tiling.total == 1:
            scale, found = self._scale(params, image), self._features(params, image)
            return sum(scale[name] * jnp.sum(self._score(found[name], guide, name)) for name in self.names)
        return _in_tiles(self, tiling, params, image, guide)

    def _scale(self, params, image):
        """What makes a sum over a layer's features its part of the mean."""
        shapes = jax.eval_shape(lambda image: self._features(params, image), image)
        return {name: 1 / (float(np.prod(map_.shape)) * len(self.layers)) for name, map_ in shapes.items()}

    def _features(self, params, image):
        found = vgg.features(params, image, self.names, pooling=self.pooling, padding=self.padding)
        return {name: map_[..., list(chosen)] if chosen else map_ for (name, chosen), map_ in _paired(self, found)}

    def _score(self, x, guide, name):
        """Of every feature, `[h, w, c]` or `[h, w]`."""
        if self.guided:
            # The guide's feature that has the largest product with it (the original's guided dreams).
            flat = x.reshape(-1, x.shape[-1])
            best = guide[name][_nearest(lax.stop_gradient(flat), guide[name])]
            return jnp.sum(flat * best, 1).reshape(x.shape[:2])
        return x**2 / 2 if self.kind == "square" else x

    def _own(self, x, guide, name, place):
        """The sum of a tile's own scores."""
        stride = stride_of([name])
        along = []
        for axis, length in enumerate(x.shape[:2]):
            _, first, end = place[axis]
            index = jnp.arange(length) * stride
            along.append((index >= first) & (index < end))
        score = self._score(x, guide, name)
        own = along[0][:, None] & along[1][None]
        return jnp.sum(jnp.where(own[..., None] if score.ndim == 3 else own, score, 0))


def _paired(dream, found):
    return ((layer, found[layer[0]]) for layer in dream.layers)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_tiles(dream, tiling, params, image, guide):
    """The activation, tile by tile. Nothing shows where tiles meet: a sum over features is the sum of the tiles' sums,
    and so is its gradient."""
    return _tiled(dream, tiling, params, image, guide, gradient=False)[0]


def _tiled(dream, tiling, params, image, guide, *, gradient):
    """The sum, and its gradient: each tile's at once, so that no tile is computed twice, nor kept."""
    scale = dream._scale(params, image)

    def of_tile(window, place):
        found = dream._features(params, window)
        return sum(scale[name] * dream._own(found[name], guide, name, place) for name in dream.names)

    def add(sums, place):
        total, change = sums
        corner = place[0, 0], place[1, 0], jnp.int32(0)
        window = lax.dynamic_slice(image, corner, (*tiling.window, 3))
        if not gradient:
            return (total + of_tile(window, place), change), None
        part, of_window = jax.value_and_grad(of_tile)(window, place)
        of_window += lax.dynamic_slice(change, corner, of_window.shape)
        return (total + part, lax.dynamic_update_slice(change, of_window, corner)), None

    zeros = jnp.zeros((), image.dtype), jnp.zeros_like(image) if gradient else ()
    return lax.scan(add, zeros, jnp.asarray(tiling.places))[0]


_in_tiles.defvjp(
    functools.partial(_tiled, gradient=True),
    lambda dream, tiling, change, of_total: (None, of_total * change, None),
)

_MOST_PRODUCTS = 2**24
"""Of features with features, that are held at once."""


def _nearest(flat, guide):
    """By row of `[n, c]`, which row of `[m, c]` has the largest product with it; `[n]`."""
    index = lambda rows: jnp.argmax(jnp.matmul(rows, guide.T, precision=lax.Precision.HIGHEST), 1)  # noqa: E731
    count = max(1, _MOST_PRODUCTS // guide.shape[0])
    if flat.shape[0] <= count:
        return index(flat)
    blocks = -(-flat.shape[0] // count)
    padded = jnp.pad(flat, ((0, blocks * count - flat.shape[0]), (0, 0)))
    return lax.map(index, padded.reshape(blocks, count, -1)).reshape(-1)[: flat.shape[0]]


def octave_sizes(size: tuple[int, int], octaves: int, scale: float, least: int) -> list[tuple[int, int]]:
    """Width and height of every octave, the smallest first; those with a side below `least` are left out.

    >>> octave_sizes((512, 384), 3, 1.4, 16)
    [(261, 196), (366, 274), (512, 384)]
    """
    sizes = [tuple(max(1, round(side / scale**back)) for side in size) for back in reversed(range(octaves))]
    return [*(pair for pair in sizes[:-1] if min(pair) >= least), sizes[-1]]


def prepare(
    key: jax.Array,
    params: Params,
    pictures: Sequence[Image],
    config: DreamConfig,
    *,
    guide: Image | None = None,
    lanes: Sequence[DreamConfig] = (),
    padding: str = "zeros",
    standardize: bool = False,
    room: int | None = None,
    snapshot: Snapshot | None = None,
) -> Prepared:
    """A dream, its first octave compiled.

    Args:
        key: Of the jitter; one for each lane, where there are lanes.
        params: Backbone.
        pictures: The picture at every octave's size, the smallest first, `[H, W, 3]`.
        config: Paths and sizes in it are not looked at.
        guide: A picture whose features shall appear.
        lanes: Configs that differ in traced numbers (`config.DREAM_AXES`): all are dreamed in one program, and pictures
            are `[lanes, H, W, 3]`.
        padding: The backbone's.
        standardize: Scale the backbone to unit variance on the pictures first (random filters).
        room: Bytes that the device has left; None: not asked for.
        snapshot: Where a dream was left that now goes on.

    Raises:
        InputError: there is not enough memory.
        ValueError: the snapshot is of another run.

    >>> from jnst import loop
    >>> from jnst.weights import random_backbone
    >>> params = random_backbone(0, ["relu1_2"]).params
    >>> config = DreamConfig(layers="relu1_2", steps=2)
    >>> result = loop.run(prepare(jax.random.key(0), params, [jnp.full((8, 8, 3), 0.5)], config))
    >>> result.trace[-1]["activation"] > result.trace[0]["activation"]
    True
    """
    dtype = jnp.float64 if config.precision == "float64" else jnp.float32
    pictures = [jnp.asarray(picture, dtype) for picture in pictures]
    goal = Dream(
        layers=parse_channels("layers", config.layers),
        kind=config.objective,
        guided=guide is not None,
        pooling=config.pooling,
        padding=padding,
        jitter=config.jitter,
        tile=config.tile,
    )
    how = {"pooling": config.pooling, "padding": padding, "precision": config.precision}
    net = network(params, pictures[-1:], goal.names, standardize=standardize, **how)
    seen = {} if guide is None else _seen(net, jnp.asarray(guide, dtype), goal=dataclasses.replace(goal, tile=0))
    shared = (prepared(net), seen)
    optimizer = OptimizerConfig(optimizer="sgd", normalize=config.normalize, projection="clip", last=True)
    each = (lambda function: jax.vmap(function)) if lanes else lambda function: function
    step_sizes = [run.step_size for run in lanes] if lanes else config.step_size
    rates = Rates(jnp.asarray(step_sizes, dtype) / 255)

    def make(number):
        base = pictures[number]

        def grown(canvas):
            detail = canvas - pictures[number - 1]
            return jnp.clip(base + ops.resize(detail, base.shape[:2], "cubic"), 0, 1)

        def start():
            return jnp.array(jnp.broadcast_to(base, (len(lanes), *base.shape)) if lanes else base, copy=True)

        return make_stage(
            each(lambda key: jax.random.fold_in(key, number))(key),
            goal,
            shared,
            start,
            rates,
            optimizer,
            steps=config.steps,
            lanes=len(lanes),
            grow=(lambda state: each(grown)(state.canvas)) if number else None,
            room=room,
        )

    if room is not None and not config.tile:
        make = _hinting(make)
    number = snapshot.scale if snapshot else 0
    if number >= len(pictures):
        raise ValueError("a snapshot of a dream with more octaves")
    stage = make(number)
    size = pictures[-1].shape[:2]
    run = Prepared(
        stage=stage,
        number=number,
        counts=(config.steps,) * len(pictures),
        sizes=tuple(picture.shape[:2] for picture in pictures),
        make=make,
        begin=stage.begin,
        finish=lambda canvas: np.clip(each(lambda one: ops.resize(one, size, "cubic"))(jnp.asarray(canvas)), 0, 1),
        config=config,
        summands=(),
        trace=[],
        keeps="last",
    )
    return restore(run, snapshot) if snapshot else run


def _hinting(make):
    def made(number):
        try:
            return make(number)
        except InputError as error:
            raise InputError(f"{error}, or --tile=512") from error

    return made


_MOST_SEEN = 4096
"""Of a guide's features: each of the picture's is compared with each of them."""


@functools.partial(jax.jit, static_argnames=("goal",))
def _seen(params, guide, *, goal):
    """The guide's features by layer, `[features, c]`; of too many, those of every second row and column, or third..."""
    found = {}
    for name, map_ in goal._features(params, guide).items():
        every = math.ceil(math.sqrt(map_.shape[0] * map_.shape[1] / _MOST_SEEN))
        found[name] = map_[every // 2 :: every, every // 2 :: every].reshape(-1, map_.shape[-1])
    return found
