"""The training of stylenets: perceptual losses of what a network makes of photos (Johnson et al. 2016), compiled.

Several networks are one program. They differ in their parameters, styles, weights and learning rates, and share each
batch of photos and its content features, which are read and computed once. `config.TOGETHER` names how they go
through it: one after the other, or vmapped, which makes grouped convolutions; and of several devices either each has
some of the networks, or all have every network and a part of the batch.

Departures from Johnson et al.: the loss network is any VGG-19 that is asked for (`mini` by default), not VGG-16; the
learning rate falls along a cosine; the result is an average over the last iterates.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnst import compiler, network, objective, train
from jnst.config import ObjectiveSpec, StyleNetSpec, TrainConfig
from jnst.nets import stylenet
from jnst.train import BATCH, NETS
from jnst.types import Image, Params, Rates, Snapshot, StyleTarget, Targets, Weights

__all__ = [
    "TERMS",
    "Choice",
    "Prepared",
    "Record",
    "Result",
    "Spec",
    "evaluate",
    "prepare",
    "run",
    "style_choice",
]

TERMS = ("total", "content", "style", "tv")
"""Of the loss, means over the batch."""

_EVERYWHERE = PartitionSpec()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """The static half of a training."""

    net: StyleNetSpec
    objective: ObjectiveSpec
    training: TrainConfig
    together: str = "auto"
    """One of `config.TOGETHER`."""


class Choice(NamedTuple):
    """What tells one network's training from another's; traced."""

    styles: Mapping[str, StyleTarget]  # by style layer, [styles, ...]
    weights: Weights
    rates: Rates


class Record(NamedTuple):
    """What a callback sees after a step."""

    step: int
    """Updates made."""
    steps: int
    """Updates that were asked for."""
    terms: Callable[[], list[dict[str, float]]]
    """Fetches the loss terms, of each network: `TERMS`."""
    variables: Callable[[], list[dict[str, object]]]
    """Fetches each network as it would be if the training ended here."""
    snapshot: Callable[[], Snapshot]
    """Fetches all that `prepare` needs to go on from here; only while the callback runs."""


class Prepared(NamedTuple):
    """A training before its next step. `run` donates `state`: it serves once."""

    state: train.TrainState  # of all networks, stacked
    backbone: Params
    choices: Choice  # stacked
    spec: Spec
    mesh: Mesh
    trace: list[dict[str, float]]


class Result(NamedTuple):
    """What a training leaves."""

    variables: list[dict[str, object]]
    """Of each network, see `stylenet.init`: averages over the last iterates; on the host."""
    trace: list[dict[str, float]]
    """Rows of step, net and `TERMS`."""
    stopped: bool
    """Whether the callback ended it before its last step."""
    step: int
    """Updates made."""


def style_choice(
    backbone: Params,
    styles: Sequence[Image],
    mix: Sequence[float] | None,
    weights: Weights,
    rates: Rates,
    spec: ObjectiveSpec,
) -> Choice:
    """What one network shall learn.

    Args:
        backbone: From `network.network`.
        styles: Pictures, each `[H, W, 3]`, of any sizes.
        mix: Shares of the styles, which are blended; None: each is a style of its own, of a conditional network.
        weights: Of the terms.
        rates: Of the optimizer.
        spec: Static.
    """
    found = [_statistics(backbone, jnp.asarray(style), spec) for style in styles]
    rows = np.eye(len(styles)) if mix is None else np.array([mix])
    targets = [objective.blend(found, jnp.asarray(row, jnp.float32)) for row in rows]
    return Choice(jax.tree.map(lambda *each: jnp.stack(each), *targets), weights, rates)


@functools.partial(jax.jit, static_argnames=("spec",))
def _statistics(backbone, style, spec):
    return objective.style_statistics(backbone, style, spec)


def prepare(
    key: jax.Array,
    backbone: Params,
    choices: Sequence[Choice],
    spec: Spec,
    *,
    mesh: Mesh,
    start: Mapping[str, object] | None = None,
    snapshot: Snapshot | None = None,
) -> Prepared:
    """A training before its first step, or as it stood at a snapshot.

    Args:
        key: Of the networks' first parameters, which are the same for all: what differs then comes from the choices.
        backbone: From `network.network`, with the layers of `spec.objective`.
        choices: One for each network.
        spec: Static.
        mesh: From `train.spread_over`.
        start: Variables of a network of this architecture to go on from, instead of random ones.
        snapshot: Where to go on.

    Raises:
        ValueError: a snapshot of another training.
    """
    stacked = jax.tree.map(lambda *each: jnp.stack([jnp.asarray(leaf) for leaf in each]), *choices)
    first = stylenet.init(key, spec.net) if start is None else jax.tree.map(jnp.asarray, dict(start))
    state = _begin(first["params"], first.get("running", {}), stacked.rates, spec)
    trace = []
    if snapshot is not None:
        state, trace = train.restore(state, snapshot.leaves), list(snapshot.trace)
    place = lambda tree, axes: jax.device_put(tree, NamedSharding(mesh, axes))  # noqa: E731
    each = PartitionSpec(NETS)
    backbone = network.prepared(backbone)
    return Prepared(place(state, each), place(backbone, _EVERYWHERE), place(stacked, each), spec, mesh, trace)


@functools.partial(jax.jit, static_argnames=("spec",))
def _begin(params, running, rates, spec):
    return jax.vmap(lambda rates: train.init(params, running, rates, spec.training))(rates)


def run(
    key: jax.Array,
    prepared: Prepared,
    source: Callable[[int], np.ndarray],
    *,
    print_every: int = 0,
    callback: Callable[[Record], bool | None] | None = None,
) -> Result:
    """Drives a training to its last step, or to where the callback stops it.

    Args:
        key: Handed on to the loss, which draws nothing from it so far.
        prepared: From `prepare`.
        source: The number of a batch -> `[B, S, S, 3]`, always the same; called in order.
        print_every: Steps between rows of the trace; 0: the first and last only.
        callback: Called after each step; a true answer ends the training.
    """
    state, spec, trace = prepared.state, prepared.spec, list(prepared.trace)
    steps, done, stopped = spec.training.steps, int(np.array(prepared.state.step).flat[0]), False
    batches = NamedSharding(prepared.mesh, PartitionSpec(BATCH))
    advance = None
    while done < steps and not stopped:
        batch = jax.device_put(source(done), batches)
        arguments = (key, state, prepared.backbone, batch, prepared.choices)
        if advance is None:
            advance = compiler.compiled(_advance.lower(*arguments, spec=spec, mesh=prepared.mesh))
        state, terms = advance(*arguments)
        done += 1
        fetch = functools.cache(functools.partial(_terms, terms))
        if done in (1, steps) or (print_every > 0 and done % print_every == 0):
            trace.extend({"step": done, "net": index, **row} for index, row in enumerate(fetch()))
        if callback is not None:
            variables = functools.partial(_variables, state)
            snapshot = lambda state=state: Snapshot(train.leaves(state), list(trace))  # noqa: E731
            stopped = bool(callback(Record(done, steps, fetch, variables, snapshot)))
    return Result(_variables(state), trace, stopped and done < steps, done)


def evaluate(
    variables: Mapping[str, object], backbone: Params, choice: Choice, photos: np.ndarray, spec: Spec
) -> list[dict[str, float]]:
    """The loss terms of what a network makes of photos `[N, S, S, 3]`, each by itself, in each of its styles.

    Returns:
        `TERMS` of every photo, the mean over the styles.
    """
    rows = [jax.device_get(_evaluated(variables, backbone, choice, jnp.asarray(photo), spec)) for photo in photos]
    return [{name: float(row[name]) for name in TERMS} for row in rows]


@functools.partial(jax.jit, static_argnames=("spec",))
def _evaluated(variables, backbone, choice, photo, spec):
    content = objective.content_targets(backbone, photo, spec.objective)
    mixes = jnp.eye(spec.net.styles)
    copies = jnp.broadcast_to(photo[None], (spec.net.styles, *photo.shape))
    painted = jnp.clip(stylenet.apply(variables, copies, mixes, spec.net)[0], 0, 1)
    one = lambda image, mix: _terms_of(backbone, image, content, mix, choice, spec.objective)  # noqa: E731
    return jax.tree.map(jnp.mean, jax.vmap(one)(painted, mixes))


def _terms(terms):
    found = {name: np.asarray(terms[name], np.float64) for name in TERMS}
    return [{name: float(found[name][index]) for name in TERMS} for index in range(len(found["total"]))]


def _variables(state):
    """Of each network, on the host."""
    average, running = jax.device_get((train.averaged(state), state.extra))
    take = lambda tree, index: jax.tree.map(lambda leaf: np.array(leaf[index]), tree)  # noqa: E731
    return [
        {"params": take(average, index), **({"running": take(running, index)} if running else {})}
        for index in range(len(state.step))
    ]


@functools.partial(jax.jit, static_argnames=("spec", "mesh"), donate_argnames=("state",))
def _advance(key, state, backbone, batch, choices, *, spec, mesh):
    spread = mesh.shape[BATCH] > 1
    each = functools.partial(_each, spec=spec, axis_name=BATCH if spread else None)
    if mesh.size == 1:
        return each(key, state, backbone, batch, choices)
    nets = PartitionSpec(NETS)
    specs = (_EVERYWHERE, nets, _EVERYWHERE, PartitionSpec(BATCH), nets)
    return jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=(nets, nets), check_vma=False)(
        key, state, backbone, batch, choices
    )


def _each(key, states, backbone, batch, choices, *, spec, axis_name):
    """A step of all networks that a device has."""
    look = functools.partial(objective.content_targets, backbone, spec=spec.objective)
    content = jax.vmap(look)(batch)
    one = functools.partial(_step, key, backbone=backbone, batch=batch, content=content, spec=spec, axis_name=axis_name)
    if _vmaps(spec.together):
        return jax.vmap(one)(states, choices)
    # Not in a loop: on a CPU a convolution's gradient is several times slower there.
    count = len(states.step)
    results = [one(*jax.tree.map(lambda leaf, at=at: leaf[at], (states, choices))) for at in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def _vmaps(together):
    # Grouped convolutions: on a CPU 2.6 times the time of separate trainings (benchmarks/results); else unmeasured.
    return together == "vmap"


def _step(key, state, choice, *, backbone, batch, content, spec, axis_name):
    def loss(_, params, running, photos):
        mix = _mix(state.step, len(photos), spec.net.styles, axis_name)
        variables = {"params": params, **({"running": running} if running else {})}
        painted, running = stylenet.apply(variables, photos, mix, spec.net, train=True, axis_name=axis_name)
        one = lambda image, content, mix: _terms_of(backbone, image, content, mix, choice, spec.objective)  # noqa: E731
        terms = jax.tree.map(jnp.mean, jax.vmap(one)(painted, content, mix))
        return terms["total"], (terms, running)

    return train.step(key, state, loss, batch, choice.rates, spec.training, axis_name=axis_name)


def _mix(step, count, styles, axis_name):
    """Which style each photo of a batch is painted in: all in turn, from step to step shifted by the batch."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    whole = count if axis_name is None else count * jax.lax.axis_size(axis_name)
    return jax.nn.one_hot((step * whole + first + jnp.arange(count)) % styles, styles)


def _terms_of(backbone, image, content, mix, choice, spec):
    style = jax.tree.map(lambda rows: jnp.tensordot(mix, rows, 1), choice.styles)
    return objective.style_objective(backbone, image, Targets(content, style), choice.weights, spec)[1]
