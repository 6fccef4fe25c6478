"""Many runs as one program: a step vmapped over lanes, and the lanes spread over a mesh of devices.

A lane is one run; lanes are stacked along a first axis. What all of them read (a network, targets) is an argument of
its own, held once on each device. Lanes know nothing of each other: over several devices the program is one
`shard_map` without a collective in it, so that no device waits for another.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnst import compiler, optimize
from jnst.config import OptimizerConfig
from jnst.optimize import OptimState
from jnst.types import Image, Rates, Terms

__all__ = ["Lane", "Objective", "Program", "begin", "compile_steps", "lane_of", "make_mesh", "product", "put_states"]

Objective = Callable[[object, object, jax.Array, Image], tuple[jax.Array, Terms]]
"""`objective(shared, choice, key, image) -> (loss, terms)`: `choice` is what tells one run from the others."""

_AXIS = "runs"
_SPREAD, _EVERYWHERE = PartitionSpec(_AXIS), PartitionSpec()


class Lane(NamedTuple):
    """One run: what it was told, and where it stands."""

    key: jax.Array
    choice: object  # the objective's
    rates: Rates
    state: OptimState
    terms: Terms  # at the canvas
    best_terms: Terms  # at the best canvas
    bad_step: jax.Array  # int32: the first step whose total was not finite; -1 so far
    bad_terms: Terms  # at that step


class Program(NamedTuple):
    """Compiled steps over so many lanes."""

    advance: Callable[..., Lane]
    """`advance(lanes, shared)`, or `advance(lanes, shared, steps)` where it loops; donates the lanes."""
    lanes: int
    loops: bool
    bytes: int
    """What a device needs for its share: arguments, state and intermediate results; 0 where that is not known."""


def product(axes: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Every combination of the axes' values, the last axis varying fastest.

    >>> product({"style_weight": [1, 2], "seed": [0, 1]})[1]
    {'style_weight': 1, 'seed': 1}
    """
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """The devices in a row; the number of lanes must be a multiple of theirs."""
    return Mesh(np.array(devices), (_AXIS,))


def begin(
    keys: jax.Array,
    canvases: jax.Array,
    choices: object,
    rates: Rates,
    config: OptimizerConfig,
    *,
    terms: Sequence[str],
    mesh: Mesh,
) -> Lane:
    """Lanes before their first evaluation, each made on its own device.

    Args:
        keys: `[lanes]`.
        canvases: `[lanes, H, W, 3]`.
        choices: Leaves with a first axis of lanes.
        rates: Likewise.
        config: Static choices of the optimizer.
        terms: Names of the objective's terms.
        mesh: From `make_mesh`.
    """
    spread = NamedSharding(mesh, _SPREAD)
    arguments = jax.device_put((keys, canvases, choices, rates), spread)
    return _begin(*arguments, config=config, terms=tuple(terms), spread=spread)


@functools.partial(jax.jit, static_argnames=("config", "terms", "spread"))
def _begin(keys, canvases, choices, rates, *, config, terms, spread):
    def one(key, canvas, choice, rates):
        # Buffers of their own: lanes are donated, what was given here is not.
        key, choice, rates = jax.tree.map(jnp.copy, (key, choice, rates))
        zeros = {name: jnp.zeros((), canvas.dtype) for name in terms}
        state = optimize.init(canvas, rates, config)
        return Lane(key, choice, rates, state, zeros, zeros, jnp.int32(-1), zeros)

    return jax.lax.with_sharding_constraint(jax.vmap(one)(keys, canvases, choices, rates), spread)


def compile_steps(
    lanes: Lane, shared: object, *, objective: Objective, config: OptimizerConfig, mesh: Mesh, loop: bool
) -> Program:
    """The program that advances lanes: traced once, compiled once, whatever their weights, targets and starts are.

    Args:
        lanes: From `begin`, or their shapes (`jax.eval_shape`).
        shared: What all lanes read, or its shapes.
        objective: Of one lane.
        config: Static choices of the optimizer.
        mesh: The devices.
        loop: Whether a call makes several steps in a compiled loop, or one (see `loop.most_steps`).
    """
    count = lanes.bad_step.shape[0]
    step = functools.partial(_step, objective=objective, config=config)
    if count == mesh.size and config.line_search != "none":
        # Without vmap, under which a `cond` computes both of its sides, and a search is as long as the longest. Others
        # are vmapped over a single lane too: without, XLA would hold the pairs of L-BFGS twice more.
        each = lambda lanes, shared: _stacked(step(_first(lanes), shared))  # noqa: E731
    else:
        each = jax.vmap(step, (0, None))

    def several(lanes, shared, steps):
        # The loop is outside of the vmap: with a condition of each lane's own it would copy all states every time.
        return lax.fori_loop(0, steps, lambda index, lanes: each(lanes, shared), lanes)

    advance = several if loop else each
    if mesh.size > 1:
        inputs = (_SPREAD, _EVERYWHERE, *([_EVERYWHERE] if loop else []))
        advance = jax.shard_map(advance, mesh=mesh, in_specs=inputs, out_specs=_SPREAD, check_vma=False)
    place = lambda tree, spec: jax.tree.map(  # noqa: E731
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)), tree
    )
    steps = [place(jax.eval_shape(lambda: jnp.int32(1)), _EVERYWHERE)] if loop else []
    lowered = jax.jit(advance, donate_argnums=0).lower(place(lanes, _SPREAD), place(shared, _EVERYWHERE), *steps)
    compiled = compiler.compiled(lowered)
    return Program(advance=compiled, lanes=count, loops=loop, bytes=compiler.bytes_of(compiled))


def _first(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _stacked(tree):
    return jax.tree.map(lambda leaf: leaf[None], tree)


def _step(lane, shared, *, objective, config):
    """One step of one lane. After a total that is not finite, the best canvas stays what it was, as if it had ended."""
    before = lane.state
    goal = lambda key, image: objective(shared, lane.choice, key, image)  # noqa: E731
    state, terms = optimize.step(lane.key, before, goal, lane.rates, config)
    well = lane.bad_step < 0
    choose = lambda condition, new, old: jax.tree.map(functools.partial(jnp.where, condition), new, old)  # noqa: E731
    state = state._replace(
        best_canvas=jnp.where(well, state.best_canvas, before.best_canvas),
        best_total=jnp.where(well, state.best_total, before.best_total),
        best_step=jnp.where(well, state.best_step, before.best_step),
    )
    falls = well & ~jnp.isfinite(terms["total"])
    return lane._replace(
        state=state,
        terms=terms,
        best_terms=choose(state.best_step == state.step, terms, lane.best_terms),
        bad_step=jnp.where(falls, state.step, lane.bad_step),
        bad_terms=choose(falls, terms, lane.bad_terms),
    )


def lane_of(tree: object, index: int) -> object:
    """One lane of stacked leaves on the host, fetched from the device that has it alone; a copy."""

    def fetch(leaf):
        for shard in leaf.addressable_shards:
            rows = range(*shard.index[0].indices(leaf.shape[0]))
            if index in rows:
                return np.array(shard.data[index - rows.start])
        raise IndexError(index)

    return jax.tree.map(fetch, tree)


def put_states(lanes: Lane, states: Mapping[int, Sequence[np.ndarray]], terms: Mapping[int, Terms]) -> Lane:
    """The lanes, of which some stand where an earlier run left them.

    Args:
        lanes: From `begin`.
        states: By lane: leaves in `jax.tree.leaves`' order, as `lane_of(lanes.state, ...)` gave them.
        terms: By lane, of the best canvas.

    Raises:
        ValueError: leaves of other shapes or types.
    """
    leaves, structure = jax.tree.flatten(lanes.state)
    for rows in states.values():
        if [(row.shape, row.dtype) for row in rows] != [(leaf.shape[1:], leaf.dtype) for leaf in leaves]:
            raise ValueError("the state of a run with other shapes")
    # Leaf by leaf: all at once would be in memory twice.
    for place, leaf in enumerate(leaves):
        leaves[place] = _with_rows(leaf, {index: rows[place] for index, rows in states.items()})
    best = {
        name: _with_rows(leaf, {index: terms[index][name] for index in terms})
        for name, leaf in lanes.best_terms.items()
    }
    return lanes._replace(state=structure.unflatten(leaves), best_terms=best)


def _with_rows(leaf, rows):
    whole = np.array(leaf)
    for index, row in rows.items():
        whole[index] = row
    return jax.device_put(whole, leaf.sharding, may_alias=False)  # a buffer of its own: it is donated
