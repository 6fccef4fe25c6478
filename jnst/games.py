"""Games: the training of a generator against a discriminator, compiled; of several such pairs as one program.

What is played, the networks and their losses, is a `Game`; each of `tasks.dcgan`, `tasks.pix2pix` and `tasks.cyclegan`
is one. Several networks, as in `tasks.fast`, differ in their seeds and rates, and share each batch of pictures; of
several devices either each has some of the networks, or all have every network and a part of the batch. A batch that
cannot be cut into as many parts, such as an epoch's last, every device goes through whole.

A departure from the papers: both sides learn at once, from gradients at the same parameters, as in TensorFlow's
tutorial, where the papers' own code updates one and then the other. What is taken out may be an average of the
generator over its last iterates (Yazici et al. 2019, https://arxiv.org/abs/1806.04498).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnst import train
from jnst.config import TrainConfig
from jnst.train import BATCH, NETS
from jnst.types import Rates, Snapshot, Terms

__all__ = ["Choice", "Game", "Prepared", "Record", "Result", "Spec", "gather", "prepare", "run", "trouble"]

_EVERYWHERE = PartitionSpec()
_START = 2**32 - 1  # what a network's key is folded with for its first parameters; with smaller numbers, for steps
_LONG = 1000  # steps after which a discriminator that is always right is trouble
_ALWAYS = 0.995


class Game(Protocol):
    """What is played; a frozen dataclass, since it is static."""

    terms: ClassVar[tuple[str, ...]]
    """Names of what `loss` tells: losses, and accuracies, the shares of pictures that the discriminator is right about;
    `generator` and `discriminator` are among them."""

    def begin(self, key: jax.Array) -> tuple[train.Pair, train.Pair]:
        """Parameters before any training, and `extra` (see `jnst.train`), of both sides."""

    def loss(
        self, key: jax.Array, params: train.Pair, extra: train.Pair, batch: object, *, axis_name: str | None
    ) -> tuple[train.Pair, tuple[Terms, train.Pair]]:
        """See `train.PairLoss`; the batch is what the source gives, in [-1, 1]."""

    def taken(self, key: jax.Array, params: object) -> object:
        """What a trained generator is used with: of its parameters, or of their average."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """The static half of a training."""

    game: Game
    generator: TrainConfig
    discriminator: TrainConfig
    together: str = "auto"
    """One of `config.TOGETHER`."""


class Choice(NamedTuple):
    """What tells one network's training from another's; traced."""

    seed: jax.Array  # [] uint32: of the first parameters, the noise and what is dropped
    generator: Rates
    discriminator: Rates


class Record(NamedTuple):
    """What a callback sees after a step."""

    step: int
    """Updates made."""
    steps: int
    """Updates that were asked for."""
    terms: Callable[[], list[dict[str, float]]]
    """Fetches this step's terms, of each network."""
    trace: list[dict[str, float]]
    """The rows so far."""
    variables: Callable[[], list[object]]
    """Fetches each generator as it would be if the training ended here."""
    snapshot: Callable[[], Snapshot]
    """Fetches all that `prepare` needs to go on from here; only while the callback runs."""


class _State(NamedTuple):
    """Of all networks, stacked."""

    networks: train.Pair
    sums: Mapping[str, jax.Array]  # of the terms times pictures since the last row of the trace, and the pictures


class Prepared(NamedTuple):
    """A training before its next step. `run` donates `state`: it serves once."""

    state: object
    choices: Choice  # stacked
    spec: Spec
    mesh: Mesh
    trace: list[dict[str, float]]


class Result(NamedTuple):
    """What a training leaves."""

    variables: list[object]
    """Of each generator, see `Game.taken`; on the host."""
    trace: list[dict[str, float]]
    """Rows of step, epoch, net and the terms, each the means over the steps since the row before."""
    stopped: bool
    """Whether the callback ended it before its last step."""
    step: int
    """Updates made."""


def prepare(
    key: jax.Array, choices: Sequence[Choice], spec: Spec, *, mesh: Mesh, snapshot: Snapshot | None = None
) -> Prepared:
    """A training before its first step, or as it stood at a snapshot.

    Args:
        key: Of all networks; each folds its seed into it.
        choices: One for each network.
        spec: Static.
        mesh: From `train.spread_over`.
        snapshot: Where to go on.

    Raises:
        ValueError: a snapshot of another training.
    """
    stacked = jax.tree.map(lambda *each: jnp.stack([jnp.asarray(leaf) for leaf in each]), *choices)
    state, trace = _begin(key, stacked, spec), []
    if snapshot is not None:
        state, trace = train.restore(state, snapshot.leaves), list(snapshot.trace)
    place = lambda tree: jax.device_put(tree, NamedSharding(mesh, PartitionSpec(NETS)))  # noqa: E731
    return Prepared(place(state), place(stacked), spec, mesh, trace)


@functools.partial(jax.jit, static_argnames=("spec",))
def _begin(key, choices, spec):
    def one(choice):
        own = jax.random.fold_in(jax.random.fold_in(key, choice.seed), np.uint32(_START))
        params, extra = spec.game.begin(own)
        rates, configs = (choice.generator, choice.discriminator), (spec.generator, spec.discriminator)
        states = train.Pair(*map(train.init, params, extra, rates, configs))
        return _State(states, {name: jnp.float32(0) for name in (*spec.game.terms, "pictures")})

    return jax.vmap(one)(choices)


def run(
    key: jax.Array,
    prepared: Prepared,
    source: Callable[[int], object],
    *,
    an_epoch: int,
    print_every: int = 0,
    callback: Callable[[Record], bool | None] | None = None,
) -> Result:
    """Drives a training to its last step, or to where the callback stops it.

    Args:
        key: The one that `prepare` was given.
        prepared: From `prepare`.
        source: The number of a batch -> pictures `[B, S, S, 3]` uint8, or a tuple of such; always the same, called in
            order. Each size of batch is compiled once.
        an_epoch: Batches in an epoch.
        print_every: Steps between rows of the trace, beside those at each epoch's end and at the last step; 0: none.
        callback: Called after each step; a true answer ends the training.
    """
    state, spec, trace = prepared.state, prepared.spec, list(prepared.trace)
    steps, stopped = spec.generator.steps, False
    done = int(np.array(state.networks.generator.step).flat[0])
    programs = {}
    has_row = lambda step: step % an_epoch == 0 or (print_every > 0 and step % print_every == 0)  # noqa: E731
    while done < steps and not stopped:
        pictures = source(done)
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(pictures))
        spread = shapes[0][0] % prepared.mesh.shape[BATCH] == 0
        batch = jax.device_put(pictures, NamedSharding(prepared.mesh, PartitionSpec(BATCH) if spread else _EVERYWHERE))
        arguments = (key, state, batch, prepared.choices, np.bool_(has_row(done)))
        if shapes not in programs:
            lowered = _advance.lower(*arguments, spec=spec, mesh=prepared.mesh, spread=spread)
            # Without `compiler`'s options: products of these shapes take more than twice as long by Eigen.
            programs[shapes] = lowered.compile()
        state, terms = programs[shapes](*arguments)
        done += 1
        if has_row(done) or done == steps:
            trace.extend(_rows(state.sums, done, an_epoch))
        if callback is not None:
            fetch = functools.cache(functools.partial(_fetched, terms))
            variables = functools.partial(_variables, key, state, spec)
            snapshot = lambda state=state: Snapshot(train.leaves(state), list(trace))  # noqa: E731
            stopped = bool(callback(Record(done, steps, fetch, list(trace), variables, snapshot)))
    return Result(_variables(key, state, spec), trace, stopped and done < steps, done)


def _rows(sums, step, an_epoch):
    sums = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    pictures = sums.pop("pictures")
    return [
        {
            "step": step,
            "epoch": round(step / an_epoch, 4),
            "net": net,
            **{name: float(value[net] / pictures[net]) for name, value in sums.items()},
        }
        for net in range(len(pictures))
    ]


def _fetched(terms):
    found = {name: np.asarray(value, np.float64) for name, value in terms.items()}
    return [{name: float(value[net]) for name, value in found.items()} for net in range(len(found["generator"]))]


def _variables(key, state, spec):
    """Of each network's averaged generator, on the host."""
    average = jax.device_get(train.averaged(state.networks.generator))
    each = [jax.tree.map(lambda leaf, at=at: np.array(leaf[at]), average) for at in range(len(state.sums["generator"]))]
    return [jax.tree.map(np.array, jax.device_get(_taken(key, one, spec.game))) for one in each]


@functools.partial(jax.jit, static_argnames=("game",))
def _taken(key, params, game):
    return game.taken(key, params)


@functools.partial(jax.jit, static_argnames=("spec", "mesh", "spread"), donate_argnames=("state",))
def _advance(key, state, batch, choices, fresh, *, spec, mesh, spread):
    cut = spread and mesh.shape[BATCH] > 1
    each = functools.partial(_each, spec=spec, axis_name=BATCH if cut else None)
    if mesh.size == 1:
        return each(key, state, batch, choices, fresh)
    nets = PartitionSpec(NETS)
    specs = (_EVERYWHERE, nets, PartitionSpec(BATCH) if cut else _EVERYWHERE, nets, _EVERYWHERE)
    return jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=(nets, nets), check_vma=False)(
        key, state, batch, choices, fresh
    )


def _each(key, states, batch, choices, fresh, *, spec, axis_name):
    """A step of all networks that a device has."""
    batch = jax.tree.map(lambda pictures: pictures.astype(jnp.float32) / 127.5 - 1, batch)
    one = functools.partial(_gradients, key, batch=batch, spec=spec, axis_name=axis_name)
    if spec.together == "vmap":
        gradients, extra, terms = jax.vmap(one)(states.networks, choices.seed)
    else:
        every = range(len(choices.seed))
        each = [one(*jax.tree.map(lambda leaf, at=at: leaf[at], (states.networks, choices.seed))) for at in every]
        gradients, extra, terms = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    # The updates are one in any case: of a network's part of the state, XLA would not write into the donated buffers,
    # but copy all of it first.
    rates, configs = (choices.generator, choices.discriminator), (spec.generator, spec.discriminator)
    networks = [
        jax.vmap(functools.partial(train.update, config=config))(*arrays)
        for config, *arrays in zip(configs, states.networks, gradients, extra, rates, strict=True)
    ]
    count = len(jax.tree.leaves(batch)[0]) * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    now = {name: terms[name] * count for name in spec.game.terms}
    now["pictures"] = jnp.full(len(choices.seed), count, jnp.float32)
    sums = {name: jnp.where(fresh, 0, states.sums[name]) + now[name] for name in now}
    return _State(train.Pair(*networks), sums), terms


def _gradients(key, states, seed, *, batch, spec, axis_name):
    loss = functools.partial(spec.game.loss, axis_name=axis_name)
    return train.pair_gradients(jax.random.fold_in(key, seed), states, loss, batch, axis_name=axis_name)


def gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """A whole batch on every device, where it is spread over `axis_name`: `[B, ...]`."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def trouble(trace: Sequence[Mapping[str, float]], net: int, *, accuracies: Sequence[str] = ("real", "fake")) -> str:
    """What is wrong with a network's training so far, or nothing.

    Args:
        trace: Rows, see `Result`.
        net: Which network.
        accuracies: Terms that all are near 1 where the discriminator is never wrong.

    >>> rows = [{"step": step, "net": 0, "generator": 9.0, "discriminator": 0.0, "real": 1.0, "fake": 1.0}
    ...         for step in (100, 1500)]
    >>> trouble(rows, 0)
    'the discriminator tells all pictures apart, for 1500 steps'
    """
    rows = [row for row in trace if row["net"] == net]
    if rows and not all(np.isfinite(value) for value in rows[-1].values()):
        return f"a loss is not finite, at step {rows[-1]['step']}"
    sure = 0
    for before, row in zip([{"step": 0}, *rows], rows, strict=False):
        apart = bool(accuracies) and min(row[name] for name in accuracies) >= _ALWAYS
        sure = sure + row["step"] - before["step"] if apart else 0
    return f"the discriminator tells all pictures apart, for {sure} steps" if sure >= _LONG else ""
