"""An optax state loop over a network's parameters: any scalar loss of them, one update a step; and the same of a
generator and a discriminator, which learn against each other.

What the loss learns by the way and no gradient reaches (running moments, an image pool) is `extra`: it goes in and
comes out. The state holds everything that the next step needs, so a run that is restored goes on to the same bytes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jnst.config import OPTIMIZERS, TrainConfig
from jnst.types import Rates, Terms

__all__ = [
    "BATCH",
    "NETS",
    "Loss",
    "Pair",
    "PairLoss",
    "TrainState",
    "averaged",
    "init",
    "learning_rate",
    "leaves",
    "make_optimizer",
    "pair_gradients",
    "restore",
    "spread_over",
    "step",
    "step_pair",
    "update",
]

Loss = Callable[[jax.Array, object, object, object], tuple[jax.Array, tuple[Terms, object]]]
"""`loss(key, params, extra, batch) -> (loss, (terms, extra))`."""

PairLoss = Callable[[jax.Array, "Pair", "Pair", object], tuple["Pair", tuple[Terms, "Pair"]]]
"""`loss(key, params, extra, batch) -> (losses, (terms, extra))`, of both networks but the terms; float32."""


NETS, BATCH = "nets", "batch"
"""Axes of the mesh that several networks, or a batch, are spread over."""


def spread_over(devices: Sequence[jax.Device], nets: int, batch: int) -> Mesh:
    """The devices that share the work: of networks where their number is a multiple of the devices', else of batches.

    >>> spread_over(jax.devices()[:1], 3, 4).shape["nets"]
    1
    """
    count = len(devices)
    if nets % count == 0:
        return Mesh(np.array(devices).reshape(count, 1), (NETS, BATCH))
    used = max(number for number in range(1, count + 1) if batch % number == 0)
    return Mesh(np.array(devices[:used]).reshape(1, used), (NETS, BATCH))


class TrainState(NamedTuple):
    """Everything the next step needs."""

    params: object
    average: object  # iterate averaging: an exponential moving average of the params; None where it does not decay
    opt_state: optax.OptState
    extra: object
    step: jax.Array  # int32: updates made


class Pair(NamedTuple):
    """Something of both networks of a game: states, parameters, rates, losses."""

    generator: object
    discriminator: object


def learning_rate(step: jax.Array, rates: Rates, config: TrainConfig) -> jax.Array:
    """The rate of the update after `step` others: rises linearly over `warmup`, then follows the schedule.

    >>> config = TrainConfig(steps=100, warmup=10, schedule="cosine")
    >>> [round(float(learning_rate(jnp.int32(step), Rates(1.0), config)), 2) for step in (0, 4, 55, 100)]
    [0.1, 0.5, 0.5, 0.0]
    """
    rise = jnp.minimum(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "constant":
        return rates.learning_rate * rise
    if config.schedule == "linear":
        share = 1 - step / max(1, config.steps)
        return rates.learning_rate * rise * jnp.clip(share / max(1e-6, 1 - config.hold), 0, 1)
    done = jnp.clip((step - config.warmup) / max(1, config.steps - config.warmup), 0, 1)
    return rates.learning_rate * rise * (1 + jnp.cos(jnp.pi * done)) / 2


def make_optimizer(
    rate: jax.Array, config: TrainConfig, beta1: jax.Array | None = None
) -> optax.GradientTransformation:
    """The named optimizer, built inside the traced function: its learning rate is traced, and so is `beta1`, the decay
    of the mean gradient, where it is not the optimizer's own."""
    more = {} if beta1 is None else {"b1": beta1}
    return getattr(optax, config.optimizer)(rate, **OPTIMIZERS[config.optimizer], **more)


def init(params: object, extra: object, rates: Rates, config: TrainConfig) -> TrainState:
    """The state before the first update. No two leaves share a buffer: the state can be donated."""
    opt_state = make_optimizer(rates.learning_rate, config, rates.beta1).init(params)
    copy = lambda tree: jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)  # noqa: E731
    average = copy(params) if config.average_decay else None
    return TrainState(copy(params), average, copy(opt_state), copy(extra), jnp.int32(0))


def step(
    key: jax.Array,
    state: TrainState,
    loss: Loss,
    batch: object,
    rates: Rates,
    config: TrainConfig,
    *,
    axis_name: str | None = None,
) -> tuple[TrainState, Terms]:
    """One update by the loss's gradient over a batch.

    The average's decay grows with the steps, `min(decay, (1 + step) / (10 + step))`, so that it forgets the start.

    Args:
        key: Folded with the step's number before the loss gets it.
        state: From `init` or `step`.
        loss: See `Loss`.
        batch: Its last argument.
        rates: Traced numbers.
        config: Static choices.
        axis_name: The mesh's axis that the batch is spread over, where it is: gradient and terms are then means.

    Returns:
        The new state, and the terms before the update.
    """
    key = jax.random.fold_in(key, state.step)
    gradient, (terms, extra) = jax.grad(lambda params: loss(key, params, state.extra, batch), has_aux=True)(
        state.params
    )
    if axis_name is not None:
        gradient, terms = jax.lax.pmean((gradient, terms), axis_name)
    return update(state, gradient, extra, rates, config), terms


def step_pair(
    key: jax.Array,
    states: Pair,
    loss: PairLoss,
    batch: object,
    rates: Pair,
    configs: Pair,
    *,
    axis_name: str | None = None,
) -> tuple[Pair, Terms]:
    """One update of a generator and a discriminator at once: both gradients are at the parameters before it.

    Args:
        key: Folded with the step's number before the loss gets it.
        states: `TrainState`s from `init` or `step_pair`.
        loss: See `PairLoss`.
        batch: Its last argument.
        rates: `Rates` of both.
        configs: `TrainConfig`s of both.
        axis_name: As for `step`.

    Returns:
        The new states, and the terms before the update.
    """
    gradients, extra, terms = pair_gradients(key, states, loss, batch, axis_name=axis_name)
    return Pair(*map(update, states, gradients, extra, rates, configs)), terms


def pair_gradients(
    key: jax.Array, states: Pair, loss: PairLoss, batch: object, *, axis_name: str | None = None
) -> tuple[Pair, Pair, Terms]:
    """What `step_pair` updates the two networks with: gradients, what their losses learned by the way, and the terms.

    Each network's gradient is of its own loss alone. What both have in common, the generator's pictures and what the
    discriminator says of them, is computed once; of the two ways back a compiler leaves out what nobody asks for.
    """
    key = jax.random.fold_in(key, states.generator.step)
    params, extra = Pair(*(state.params for state in states)), Pair(*(state.extra for state in states))

    _, back, (terms, extra) = jax.vjp(lambda params: loss(key, params, extra, batch), params, has_aux=True)
    one, zero = jnp.float32(1), jnp.float32(0)
    gradients = Pair(back(Pair(one, zero))[0].generator, back(Pair(zero, one))[0].discriminator)
    if axis_name is not None:
        gradients, terms = jax.lax.pmean((gradients, terms), axis_name)
    return gradients, extra, terms


def update(state: TrainState, gradient: object, extra: object, rates: Rates, config: TrainConfig) -> TrainState:
    """The state after an update by a gradient, and with `extra`."""
    optimizer = make_optimizer(learning_rate(state.step, rates, config), config, rates.beta1)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay, average = jnp.minimum(config.average_decay, (1 + state.step) / (10 + state.step)), None
    if config.average_decay:  # or of a large network it would be a quarter of what an update reads and writes
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, params)
    return TrainState(params, average, opt_state, extra, state.step + 1)


def averaged(state: TrainState) -> object:
    """What a network is used with: the average of its parameters, or where there is none the last ones."""
    return state.params if state.average is None else state.average


def leaves(state: object) -> list[np.ndarray]:
    """A state, or a pair of them, on the host, in `jax.tree.leaves`' order; copies: the next step may overwrite it."""
    return [np.array(leaf) for leaf in jax.tree.leaves(state)]


def restore(state: object, found: Sequence[np.ndarray]) -> object:
    """The state that `leaves` was asked for, `state` being any of the same network and optimizer.

    Raises:
        ValueError: the leaves are of another network: they have other shapes or types.
    """
    own, structure = jax.tree.flatten(state)
    if [(leaf.shape, leaf.dtype) for leaf in own] != [(leaf.shape, leaf.dtype) for leaf in found]:
        raise ValueError("a state of another network: its arrays have other shapes")
    # Copies: the state is donated, and a CPU would take the host's arrays as they are.
    return structure.unflatten([jnp.array(leaf, copy=True) for leaf in found])
