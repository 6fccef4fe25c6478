"""Feature inversion (Mahendran & Vedaldi 2015, https://doi.org/10.1109/CVPR.2015.7299155): the picture whose features
at a layer are those of a given one shows what the layer still knows of it.

Minimized is `|F(x) - F0|^2 / |F0|^2 + a mean |2 x - 1|^alpha + v mean (dx^2 + dy^2)^(beta / 2)`, x in [0, 1], from
noise. Departures from the paper: the regularizers are means over pixels and channels instead of sums, so that their
weights hold for every size; gray, not the training pictures' mean, is what the norm pulls to; L-BFGS instead of
gradient descent with momentum; pixels are kept in range by clipping; pooling is by means unless asked for otherwise,
for with maxima the relative error sticks at some percent (README). With jitter both pictures are rolled alike before a
step.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnst import losses, ops, transforms
from jnst.config import LAYERS, InvertConfig, OptimizerConfig
from jnst.errors import InputError
from jnst.loop import Prepared, restore
from jnst.nets import vgg
from jnst.network import network, prepared
from jnst.stages import make_stage
from jnst.types import Image, Params, Rates, Snapshot, Terms

__all__ = ["SUMMANDS", "Inversion", "prepare", "relative_errors"]

SUMMANDS = ("features", "norm", "tv")
"""The terms of the loss."""

_NOISE = 0.15
"""Deviation of the start from gray."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inversion:
    """What is minimized. A `stages.Goal`."""

    layer: str
    pooling: str = "avg"
    padding: str = "zeros"
    jitter: int = 0

    def __call__(self, key: jax.Array, image: Image, shared: Any, own: Any = ()) -> tuple[jax.Array, Terms]:
        """The loss of `[H, W, 3]` and its terms.

        Args:
            key: Of the jitter.
            image: In [0, 1].
            shared: The network; the given picture with jitter, its features without; the numbers
                `(alpha, weight of the norm, beta, weight of the total variation)`.
            own: A lane's own four numbers; empty: those of all.
        """
        params, given, numbers = shared
        alpha, alpha_weight, beta, tv_weight = own or numbers
        found, target = image, given
        if self.jitter:
            offset = transforms.offset(key, self.jitter)
            found = transforms.shift(image, offset)
            target = self.features(params, transforms.shift(given, offset))
        difference = self.features(params, found) - target
        terms = {
            "features": losses.squares(difference) / losses.squares(target),
            "norm": alpha_weight * jnp.mean(jnp.abs(2 * image - 1) ** alpha),
            "tv": tv_weight * ops.smooth_variation(image, beta) / image.size,
        }
        total = sum(terms[name] for name in SUMMANDS)
        return total, {"total": total, **terms}

    def features(self, params: Params, image: Image) -> jax.Array:
        """Of the layer, `[h, w, c]`."""
        return vgg.features(params, image, (self.layer,), pooling=self.pooling, padding=self.padding)[self.layer]


def prepare(
    key: jax.Array,
    params: Params,
    image: Image,
    config: InvertConfig,
    *,
    lanes: Sequence[InvertConfig] = (),
    padding: str = "zeros",
    standardize: bool = False,
    room: int | None = None,
    snapshot: Snapshot | None = None,
) -> Prepared:
    """The inversions of all layers, one stage each, the first compiled; the result's `kept` are their pictures.

    What is drawn depends on the key, the layer and the number of the start alone: a layer's picture is the same alone
    and in a list, and start 1 of several is the one of a run with a single start (up to rounding, for under `vmap` sums
    may go another way).

    Args:
        key: Of the noise and the jitter; one for each lane, where there are lanes.
        params: Backbone.
        image: `[H, W, 3]`, whose features are inverted.
        config: Paths and sizes in it are not looked at. With `restarts` above 1 the pictures are
            `[restarts, H, W, 3]`, from one program.
        lanes: Configs that differ in traced numbers (`config.INVERT_AXES`) instead of restarts: all in one program.
        padding: The backbone's.
        standardize: Scale the backbone to unit variance on the picture first (random filters).
        room: Bytes that the device has left; None: not asked for.
        snapshot: Where a run was left that now goes on.

    Raises:
        InputError: there is not enough memory, or a layer has no features to be found again.
        ValueError: the snapshot is of another run.

    >>> from jnst import loop
    >>> from jnst.weights import random_backbone
    >>> params = random_backbone(0, ["relu1_1"]).params
    >>> image = jnp.linspace(0.2, 0.8, 8 * 8 * 3).reshape(8, 8, 3)
    >>> result = loop.run(prepare(jax.random.key(0), params, image, InvertConfig(layers="relu1_1", steps=20)))
    >>> bool(jnp.abs(result.kept[0] - image).mean() < 0.05)
    True
    """
    dtype = jnp.float64 if config.precision == "float64" else jnp.float32
    image = jnp.asarray(image, dtype)
    net = _network(params, image, config, padding, standardize)
    for layer in config.names:
        _check(layer, float(losses.squares(_features(net, image, goal=_goal(config, layer, padding)))))
    optimizer = OptimizerConfig(optimizer="lbfgs", history=config.history)
    numbers = _numbers(config, dtype)
    own = jax.tree.map(lambda *each: jnp.stack(each), *(_numbers(lane, dtype) for lane in lanes)) if lanes else ()
    count = len(lanes) or config.restarts
    keys = key if lanes else jnp.repeat(key[None], count)
    order = jnp.zeros(count, jnp.int32) if lanes else jnp.arange(count)  # a lane is the first start of its own seed
    alone = count == 1 and not lanes

    def make(number):
        goal = _goal(config, config.names[number], padding)
        pairs = jax.vmap(lambda one: jax.random.split(jax.random.fold_in(one, LAYERS.index(goal.layer))))(keys)
        noise_keys, step_keys = (jax.vmap(jax.random.fold_in)(pairs[:, place], order) for place in (0, 1))
        given = image if config.jitter else _features(net, image, goal=goal)
        needed = {name: net[name] for name in ("mean", *vgg.convolutions([goal.layer]))}

        def start():
            noise = jax.vmap(lambda one: _NOISE * jax.random.normal(one, image.shape, dtype))(noise_keys)
            canvas = jnp.clip(0.5 + noise, 0, 1)
            return canvas[0] if alone else canvas

        return make_stage(
            step_keys[0] if alone else step_keys,
            goal,
            (prepared(needed), given, numbers),
            start,
            Rates(jnp.asarray(1, dtype)),
            optimizer,
            steps=config.steps,
            own=own,
            lanes=0 if alone else count,
            room=room,
        )

    number = snapshot.scale if snapshot else 0
    if number >= len(config.names):
        raise ValueError("a snapshot of a run with more layers")
    deepest = max(range(number, len(config.names)), key=lambda place: LAYERS.index(config.names[place]))
    if room is not None and deepest != number:
        # It needs most memory: too little shows now, not after the work on the others. Its program is kept for it.
        make(deepest)
    stage = make(number)
    run = Prepared(
        stage=stage,
        number=number,
        counts=(config.steps,) * len(config.names),
        sizes=(image.shape[:2],) * len(config.names),
        make=make,
        begin=stage.begin,
        finish=lambda canvas: np.clip(canvas, 0, 1),
        config=config,
        summands=SUMMANDS,
        trace=[],
        keeping=True,
        carry=lambda state: None,  # the pairs of L-BFGS make room
    )
    return restore(run, snapshot) if snapshot else run


def relative_errors(
    params: Params,
    image: Image,
    found: Sequence[np.ndarray],
    config: InvertConfig,
    *,
    padding: str = "zeros",
    standardize: bool = False,
) -> list[list[float]]:
    """`|F(x) - F0| / |F0|` of every layer's picture at that layer, and of each restart.

    Args:
        params: Backbone.
        image: `[H, W, 3]`, the one whose features were inverted.
        found: By layer, `[H, W, 3]` or `[restarts, H, W, 3]`.
        config: The run's.
        padding: The backbone's.
        standardize: As of `prepare`.
    """
    image = jnp.asarray(image, found[0].dtype)
    net = _network(params, image, config, padding, standardize)
    errors = []
    for layer, pictures in zip(config.names, found, strict=False):  # an interrupted run has fewer
        features = functools.partial(_features, goal=_goal(config, layer, padding))
        target = features(net, image)
        size = losses.squares(target)
        every = pictures if pictures.ndim == 4 else pictures[None]
        errors.append([float(jnp.sqrt(losses.squares(features(net, one) - target) / size)) for one in every])
    return errors


def _numbers(config, dtype):
    chosen = config.alpha, config.alpha_weight, config.tv_beta, config.tv_weight
    return tuple(jnp.asarray(value, dtype) for value in chosen)


def _check(layer, size):
    if not 0 < size < np.inf:
        raise InputError(
            f"--layers: {layer} has features on this picture whose squares add up to {size:g}; expected a number above "
            "0 and below infinity (another picture, layer or --weights)"
        )


@functools.partial(jax.jit, static_argnames=("goal",))
def _features(params, image, *, goal):
    return goal.features(params, image)


def _goal(config, layer, padding):
    return Inversion(layer=layer, pooling=config.pooling, padding=padding, jitter=config.jitter)


def _network(params, image, config, padding, standardize):
    how = {"pooling": config.pooling, "padding": padding, "precision": config.precision}
    return network(params, [image], config.names, standardize=standardize, **how)
