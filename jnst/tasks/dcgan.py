"""A DCGAN's training (Radford, Metz & Chintala 2016), compiled; pictures out of it, and walks between them.

Several networks are one program, as in `tasks.fast`. They differ in their seeds and rates, and share each batch of
pictures; of several devices either each has some of the networks, or all have every network and a part of the batch. A
batch that cannot be cut into as many parts, such as an epoch's last, every device goes through whole.

Departures from the paper: both networks learn at once, from gradients at the same parameters, as in TensorFlow's
tutorial, where the paper's own code updates the discriminator first; what is taken out is an average of the generator
over its last iterates (Yazici et al. 2019, https://arxiv.org/abs/1806.04498).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnst import adversarial, distances, train
from jnst.config import DcganSpec, TrainConfig
from jnst.nets import dcgan
from jnst.train import BATCH, NETS
from jnst.types import Params, Rates, Snapshot

__all__ = [
    "TERMS",
    "Choice",
    "Prepared",
    "Record",
    "Result",
    "Spec",
    "features",
    "noise",
    "prepare",
    "run",
    "sample",
    "trouble",
    "walk",
]

TERMS = ("generator", "discriminator", "real", "fake")
"""Two losses, and two accuracies: the shares of real and of made pictures that the discriminator is right about."""

_EVERYWHERE = PartitionSpec()
_START = 2**32 - 1  # what a network's key is folded with for its first parameters; with smaller numbers, for steps
_MEASURED = 512  # pictures that a generator's moments are measured on
_LONG = 1000  # steps after which a discriminator that is always right is trouble
_ALWAYS = 0.995
_AT_ONCE = 250  # pictures that a network looks at together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """The static half of a training."""

    net: DcganSpec
    generator: TrainConfig
    discriminator: TrainConfig
    loss: str = "bce"
    """One of `config.ADVERSARIAL_LOSSES`."""
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
    """Fetches this step's `TERMS`, of each network."""
    trace: list[dict[str, float]]
    """The rows so far."""
    variables: Callable[[], list[dict[str, object]]]
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

    variables: list[dict[str, object]]
    """Of each generator, see `nets.dcgan.generate`; on the host."""
    trace: list[dict[str, float]]
    """Rows of step, epoch, net and `TERMS`, each the means over the steps since the row before."""
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
        generator, discriminator = (found["params"] for found in dcgan.init(own, spec.net))
        states = train.Pair(
            train.init(generator, {}, choice.generator, spec.generator),
            train.init(discriminator, {}, choice.discriminator, spec.discriminator),
        )
        return _State(states, {name: jnp.float32(0) for name in (*TERMS, "pictures")})

    return jax.vmap(one)(choices)


def run(
    key: jax.Array,
    prepared: Prepared,
    source: Callable[[int], np.ndarray],
    *,
    an_epoch: int,
    print_every: int = 0,
    callback: Callable[[Record], bool | None] | None = None,
) -> Result:
    """Drives a training to its last step, or to where the callback stops it.

    Args:
        key: The one that `prepare` was given.
        prepared: From `prepare`.
        source: The number of a batch -> `[B, S, S, 3]` uint8, always the same; called in order. Each size of batch is
            compiled once.
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
        spread = len(pictures) % prepared.mesh.shape[BATCH] == 0
        batch = jax.device_put(pictures, NamedSharding(prepared.mesh, PartitionSpec(BATCH) if spread else _EVERYWHERE))
        arguments = (key, state, batch, prepared.choices, np.bool_(has_row(done)))
        if pictures.shape not in programs:
            lowered = _advance.lower(*arguments, spec=spec, mesh=prepared.mesh, spread=spread)
            # Without `compiler`'s options: products of this shape take more than twice as long by Eigen.
            programs[pictures.shape] = lowered.compile()
        state, terms = programs[pictures.shape](*arguments)
        done += 1
        if has_row(done) or done == steps:
            trace.extend(_rows(state.sums, done, an_epoch))
        if callback is not None:
            fetch = functools.cache(functools.partial(_terms, terms))
            variables = functools.partial(_variables, key, state, spec)
            snapshot = lambda state=state: Snapshot(train.leaves(state), list(trace))  # noqa: E731
            stopped = bool(callback(Record(done, steps, fetch, list(trace), variables, snapshot)))
    return Result(_variables(key, state, spec), trace, stopped and done < steps, done)


def _rows(sums, step, an_epoch):
    sums = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    means = {name: sums[name] / sums["pictures"] for name in TERMS}
    return [
        {
            "step": step,
            "epoch": round(step / an_epoch, 4),
            "net": net,
            **{name: float(means[name][net]) for name in TERMS},
        }
        for net in range(len(sums["pictures"]))
    ]


def _terms(terms):
    found = {name: np.asarray(terms[name], np.float64) for name in TERMS}
    return [{name: float(found[name][net]) for name in TERMS} for net in range(len(found["real"]))]


def _variables(key, state, spec):
    """Of each network's averaged generator, with its moments, on the host."""
    average = jax.device_get(state.networks.generator.average)
    each = [jax.tree.map(lambda leaf, at=at: np.array(leaf[at]), average) for at in range(len(state.sums["real"]))]
    z = noise(key, _MEASURED, spec.net)
    return [jax.tree.map(np.array, jax.device_get(_measured({"params": one}, z, spec.net))) for one in each]


@functools.partial(jax.jit, static_argnames=("spec",))
def _measured(variables, z, spec):
    return dcgan.measured(variables, z, spec)


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
    batch = batch.astype(jnp.float32) / 127.5 - 1
    one = functools.partial(_step, key, batch=batch, fresh=fresh, spec=spec, axis_name=axis_name)
    if spec.together == "vmap":
        return jax.vmap(one)(states, choices)
    count = len(choices.seed)
    results = [one(*jax.tree.map(lambda leaf, at=at: leaf[at], (states, choices))) for at in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def _step(key, state, choice, *, batch, fresh, spec, axis_name):
    own = jax.random.fold_in(key, choice.seed)
    loss = functools.partial(_loss, spec=spec, axis_name=axis_name)
    rates = train.Pair(choice.generator, choice.discriminator)
    configs = train.Pair(spec.generator, spec.discriminator)
    networks, terms = train.step_pair(own, state.networks, loss, batch, rates, configs, axis_name=axis_name)
    count = len(batch) * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    now = {**{name: terms[name] * count for name in TERMS}, "pictures": jnp.float32(count)}
    sums = {name: jnp.where(fresh, 0, state.sums[name]) + now[name] for name in now}
    return _State(networks, sums), terms


def _loss(key, params, extra, batch, *, spec, axis_name):
    """Of both networks, on real pictures and as many made ones."""
    of_noise, of_real, of_made = (jax.random.fold_in(key, number) for number in range(3))
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(batch)
    z = dcgan.latents(of_noise, len(batch), spec.net, first=first)
    made = dcgan.generate({"params": params.generator}, z, spec.net, train=True, axis_name=axis_name)
    judge = functools.partial(
        dcgan.discriminate,
        variables={"params": params.discriminator},
        spec=spec.net,
        first=first,
        axis_name=axis_name,
    )
    real, fake = judge(of_real, images=batch), judge(of_made, images=made)
    losses = train.Pair(
        adversarial.generator_loss(fake, spec.loss), adversarial.discriminator_loss(real, fake, spec.loss)
    )
    right = adversarial.accuracies(real, fake, spec.loss)
    return losses, (dict(zip(TERMS, (*losses, *right), strict=True)), extra)


def noise(key: jax.Array, count: int, spec: DcganSpec) -> jax.Array:
    """Noise to sample from, `[count, latent]`: more of it begins with the same.

    >>> noise(jax.random.key(0), 2, DcganSpec()).shape
    (2, 100)
    """
    return _noise(key, count, spec)


@functools.partial(jax.jit, static_argnames=("count", "spec"))
def _noise(key, count, spec):
    return dcgan.latents(key, count, spec)


def sample(variables: Mapping[str, object], z: np.ndarray, spec: DcganSpec) -> np.ndarray:
    """Pictures of a trained generator: `[N, latent]` -> `[N, S, S, 3]` sRGB in [0, 1], each by its own noise alone."""
    rows = [_sampled(variables, jnp.asarray(z[at : at + _AT_ONCE]), spec) for at in range(0, len(z), _AT_ONCE)]
    return np.concatenate([np.asarray(row) for row in rows])


@functools.partial(jax.jit, static_argnames=("spec",))
def _sampled(variables, z, spec):
    return jnp.clip((dcgan.generate(variables, z, spec) + 1) / 2, 0, 1)


def walk(corners: np.ndarray, steps: int, *, closed: bool = False) -> np.ndarray:
    """A way through noise vectors `[K, latent]`, `steps` from each to the next along an arc (Shoemake 1985).

    On a straight way the middle would be nearer to 0 than noise ever is, and its pictures grayer.

    Args:
        corners: At least two.
        steps: From corner to corner.
        closed: Whether it comes back to the first, which then is not repeated at the end.

    >>> walk(np.array([[1.0, 0.0], [0.0, 1.0]]), 2).round(3)
    array([[1.   , 0.   ],
           [0.707, 0.707],
           [0.   , 1.   ]], dtype=float32)
    """
    corners = np.asarray(corners, np.float64)
    ends = np.roll(corners, -1, 0) if closed else corners[1:]
    way = [_arc(one, other, step / steps) for one, other in zip(corners, ends, strict=False) for step in range(steps)]
    return np.array(way if closed else [*way, corners[-1]], np.float32)


def _arc(one, other, share):
    cosine = np.dot(one, other) / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:
        return (1 - share) * one + share * other
    return (np.sin((1 - share) * angle) * one + np.sin(share * angle) * other) / np.sin(angle)


def trouble(trace: Sequence[Mapping[str, float]], net: int) -> str:
    """What is wrong with a network's training so far, or nothing.

    >>> rows = [{"step": step, "net": 0, "generator": 9.0, "discriminator": 0.0, "real": 1.0, "fake": 1.0}
    ...         for step in (100, 1500)]
    >>> trouble(rows, 0)
    'the discriminator tells all pictures apart, for 1500 steps'
    """
    rows = [row for row in trace if row["net"] == net]
    if rows and not all(np.isfinite(rows[-1][name]) for name in TERMS):
        return f"a loss is not finite, at step {rows[-1]['step']}"
    sure = 0
    for before, row in zip([{"step": 0}, *rows], rows, strict=False):
        apart = min(row["real"], row["fake"]) >= _ALWAYS
        sure = sure + row["step"] - before["step"] if apart else 0
    return f"the discriminator tells all pictures apart, for {sure} steps" if sure >= _LONG else ""


def features(
    params: Params, pictures: np.ndarray, layer: str, *, pooling: str = "avg", padding: str = "zeros"
) -> np.ndarray:
    """`distances.features`, compiled, of pictures `[N, S, S, 3]` in bytes or in [0, 1]: `[N, d]` float64."""
    found = []
    for at in range(0, len(pictures), _AT_ONCE):
        some = np.asarray(pictures[at : at + _AT_ONCE])
        some = some.astype(np.float32) / 255 if some.dtype == np.uint8 else some
        found.append(np.asarray(_features(params, jnp.asarray(some), layer, pooling, padding), np.float64))
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnames=("layer", "pooling", "padding"))
def _features(params, images, layer, pooling, padding):
    return distances.features(params, images, layer, pooling=pooling, padding=padding)
