"""Feature visualization (Olah, Mordvintsev & Schubert 2017, https://doi.org/10.23915/distill.00007): pictures that
excite a channel as much as possible, from almost nothing.

Maximized is the mean of a channel's feature map. What moves is the picture's spectrum (`parameterize.fourier_image`),
and before each step the picture is jittered, scaled and turned at random (`transforms.standard`). All channels, of all
layers, are lanes of one program: a lane is told its layer and channel as numbers.

Departure: where a channel is silent everywhere, so that there is nothing to climb, what it has before the rectifier
rises. (lucid, https://github.com/tensorflow/lucid, lets gradients through closed rectifiers in the first 16 steps.)
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnst import parameterize, transforms
from jnst.config import MaximizeConfig, OptimizerConfig, convolution_of, parse_channels
from jnst.errors import InputError
from jnst.loop import Prepared, restore
from jnst.nets import vgg
from jnst.network import network, prepared
from jnst.stages import make_stage
from jnst.types import Image, Params, Rates, Snapshot, Terms

__all__ = ["Maximum", "activations", "channels_of", "prepare"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maximum:
    """What is minimized: minus how active a channel is. A `stages.Goal` over spectra."""

    layers: tuple[str, ...]
    pooling: str = "avg"
    padding: str = "zeros"
    robust: bool = True
    decay: float = 1.0

    def __call__(self, key: jax.Array, image: jax.Array, shared: Any, own: Any) -> tuple[jax.Array, Terms]:
        """The loss of a spectrum and `{"total", "activation"}`.

        Args:
            key: Of the transforms.
            image: The canvas, a spectrum `[H, W, 3]`.
            shared: The network.
            own: Which of the layers, and which of its channels; int32, traced.
        """
        shown = self.picture(image)
        if self.robust:
            shown = transforms.standard(key, shown)
        activation, score = self.excitement(shared, shown, own)
        return -score, {"total": -score, "activation": activation}

    def picture(self, canvas: jax.Array) -> Image:
        """The image of a spectrum."""
        return parameterize.fourier_image(canvas, decay=self.decay)

    def excitement(self, params: Params, image: Image, own: Any) -> tuple[jax.Array, jax.Array]:
        """Of an image `[H, W, 3]`: the mean of the channel's feature map, and what is maximized."""
        which, channel = own
        convolutions = [convolution_of(layer) for layer in self.layers]
        names = tuple(dict.fromkeys((*self.layers, *convolutions)))
        found = vgg.features(params, image, names, pooling=self.pooling, padding=self.padding)
        activation, score = 0, 0
        for number, (layer, before) in enumerate(zip(self.layers, convolutions, strict=True)):
            # By a mask, not an index: its gradient is a product, and lanes of other layers get 0 from here.
            mask = (which == number) & (jnp.arange(found[layer].shape[-1]) == channel)
            mean = jnp.mean(found[layer], (0, 1))
            silent = jnp.max(found[layer], (0, 1)) <= 0
            activation += jnp.sum(jnp.where(mask, mean, 0))
            score += jnp.sum(jnp.where(mask, jnp.where(silent, jnp.mean(found[before], (0, 1)), mean), 0))
        return activation, score


def channels_of(params: Params, config: MaximizeConfig) -> list[tuple[str, tuple[int, ...]]]:
    """The channels that `config.layers` means, by layer.

    Args:
        params: Backbone; has all of the layers.
        config: The run's.

    Raises:
        InputError: a layer has no such channel.

    >>> from jnst.weights import random_backbone
    >>> params = random_backbone(0, ["conv1_2"]).params
    >>> channels_of(params, MaximizeConfig(layers="relu1_1:40,7,conv1_2", channels=3))
    [('relu1_1', (40, 7)), ('conv1_2', (0, 1, 2))]
    """
    found = []
    for layer, chosen in parse_channels("layers", config.layers):
        count = np.shape(params[convolution_of(layer)]["kernel"])[-1]
        for channel in chosen:
            if channel >= count:
                raise InputError(
                    f"--layers={config.layers}: {layer} has no channel {channel}; expected 0 to {count - 1}"
                )
        found.append((layer, chosen or tuple(range(min(count, config.channels)))))
    return found


def prepare(
    key: jax.Array,
    params: Params,
    config: MaximizeConfig,
    *,
    padding: str = "zeros",
    standardize: bool = False,
    room: int | None = None,
    snapshot: Snapshot | None = None,
) -> Prepared:
    """The ascent of all channels at once, compiled; the result's `image` is `[channels, size, size, 3]`.

    Lane i is the run of its channel alone with the key `fold_in(key, i)`.

    Args:
        key: Of the starts and the transforms.
        params: Backbone.
        config: Paths in it are not looked at.
        padding: The backbone's.
        standardize: Scale the backbone to unit variance first (random filters), on noise with the spectrum of photos.
        room: Bytes that the device has left; None: not asked for.
        snapshot: Where a run was left that now goes on.

    Raises:
        InputError: there is not enough memory, or a layer has no such channel.
        ValueError: the snapshot is of another run.

    >>> from jnst import loop
    >>> from jnst.weights import random_backbone
    >>> config = MaximizeConfig(layers="relu1_1:3,5", size=16, steps=3, robust="none")
    >>> result = loop.run(prepare(jax.random.key(0), random_backbone(0, ["relu1_1"]).params, config))
    >>> result.image.shape, result.trace[-1]["activation"] > result.trace[0]["activation"]
    ((2, 16, 16, 3), True)
    """
    dtype = jnp.float64 if config.precision == "float64" else jnp.float32
    chosen = channels_of(params, config)
    own = _numbers(chosen)
    lanes = len(own[0])
    goal = _goal(config, chosen, padding)
    net = prepared(_network(params, config, goal, standardize))

    def start():
        keys = jax.vmap(lambda lane: jax.random.fold_in(key, lane))(jnp.arange(lanes))
        draw = lambda one: parameterize.fourier_start(one, (config.size, config.size))  # noqa: E731
        return jax.vmap(draw)(keys).astype(dtype)

    def make(number):
        try:
            return make_stage(
                key,
                goal,
                net,
                start,
                Rates(jnp.asarray(config.learning_rate, dtype)),
                OptimizerConfig(optimizer="adam", projection="none", last=True),
                steps=config.steps,
                own=own,
                lanes=lanes,
                room=room,
            )
        except InputError as error:
            raise InputError(f"{error}, or fewer channels") from error

    stage = make(0)
    run = Prepared(
        stage=stage,
        number=0,
        counts=(config.steps,),
        sizes=((config.size, config.size),),
        make=make,
        begin=stage.begin,
        finish=lambda canvas: _pictures(canvas, goal=goal),
        config=config,
        summands=(),
        trace=[],
        keeps="last",
    )
    return restore(run, snapshot) if snapshot else run


def activations(
    params: Params,
    pictures: Sequence[np.ndarray],
    config: MaximizeConfig,
    *,
    padding: str = "zeros",
    standardize: bool = False,
) -> list[float]:
    """The mean of its channel's feature map that each picture reaches, as it is.

    Args:
        params: Backbone.
        pictures: `[H, W, 3]` each, in the order of `channels_of`.
        config: The run's.
        padding: The backbone's.
        standardize: As of `prepare`.
    """
    chosen = channels_of(params, config)
    goal = _goal(config, chosen, padding)
    net = _network(params, config, goal, standardize)
    found = []
    for picture, *own in zip(pictures, *_numbers(chosen), strict=True):
        found.append(float(_activation(net, jnp.asarray(picture, net["mean"].dtype), tuple(own), goal=goal)))
    return found


@functools.partial(jax.jit, static_argnames=("goal",))
def _activation(net, image, own, *, goal):
    return goal.excitement(net, image, own)[0]


@functools.partial(jax.jit, static_argnames=("goal",))
def _pictures(canvases, *, goal):
    return jax.vmap(goal.picture)(canvases)


def _numbers(chosen):
    """By lane its layer's and its channel's number."""
    pairs = [(number, channel) for number, (_, channels) in enumerate(chosen) for channel in channels]
    return tuple(np.array(column, np.int32) for column in zip(*pairs, strict=True))


def _goal(config, chosen, padding):
    return Maximum(
        layers=tuple(layer for layer, _ in chosen),
        pooling=config.pooling,
        padding=padding,
        robust=config.robust == "standard",
        decay=config.decay,
    )


def _network(params, config, goal, standardize):
    dtype = jnp.float64 if config.precision == "float64" else jnp.float32
    noise = (
        np.random.default_rng(0).standard_normal((config.size, config.size, 3)) if standardize else np.zeros((1, 1, 3))
    )
    clouds = parameterize.fourier_image(jnp.asarray(noise, dtype))  # of the statistics that photos have
    how = {"pooling": config.pooling, "padding": goal.padding, "precision": config.precision}
    return network(params, [clouds], goal.layers, standardize=standardize, **how)
