"""A `loop.Stage` from any goal over an image: compiled whole, as one run or as lanes that are one program.

The tasks that have no pyramid of tiles of their own (dreams, inversions, feature visualization) are a `Goal` each and
what they give it.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jnst import compiler, optimize
from jnst.config import OptimizerConfig
from jnst.errors import InputError
from jnst.loop import Stage, most_steps
from jnst.types import Image, Rates, Terms

__all__ = ["Goal", "make_stage"]


class Goal(Protocol, Hashable):
    """What is minimized, a pure function; a frozen dataclass, so that equal goals are one compiled program."""

    def __call__(self, key: jax.Array, image: Image, shared: Any, own: Any) -> tuple[jax.Array, Terms]:
        """The loss of one image and its terms.

        Args:
            key: Of this step.
            image: `[H, W, 3]`, or whatever canvas the goal decodes.
            shared: What all lanes are given: the network, targets.
            own: What a lane has for itself.
        """


def make_stage(
    key: jax.Array,
    goal: Goal,
    shared: Any,
    start: Callable[[], jax.Array],
    rates: Rates,
    config: OptimizerConfig,
    *,
    steps: int,
    own: Any = (),
    lanes: int = 0,
    grow: Callable[[optimize.OptimState], jax.Array] | None = None,
    room: int | None = None,
) -> Stage:
    """Compiles a step; nothing is computed yet.

    Args:
        key: Folded with the step's number, and of lanes with the lane's, before the goal gets it; or a key a lane.
        goal: What is minimized.
        shared: What every call of the goal is given; a function without arguments that makes it will do.
        start: Makes the canvas to begin with, `[H, W, 3]`, or `[lanes, H, W, 3]`.
        rates: Traced numbers, for all lanes or, where they are arrays, one a lane.
        config: Static choices.
        steps: How many.
        own: A tree of arrays with one row a lane.
        lanes: How many run at once, under `vmap`; 0: one, without an axis for it.
        grow: From the state of the stage before to the canvas to begin with; without it every stage begins anew.
        room: Bytes that the device has left; None: not asked for.

    Raises:
        InputError: there is not enough memory.
    """
    canvas = jax.eval_shape(start)
    given = functools.cache(shared if callable(shared) else lambda: shared)
    keys = key
    if lanes:
        rates = jax.tree.map(lambda rate: jnp.broadcast_to(rate, (lanes,)), rates)
        keys = key if key.shape else jax.vmap(lambda lane: jax.random.fold_in(key, lane))(jnp.arange(lanes))
    begin = functools.partial(_begin, rates=rates, config=config, has_lanes=bool(lanes))
    like = jax.eval_shape(begin, canvas)
    device = compiler.platform(), jax.config.jax_default_device
    program = _program(goal, config, bool(lanes), device, _Shapes.of((like, given(), own, rates, keys)))
    needed = compiler.bytes_of(program)
    size = canvas.shape[-3:-1]
    if room is not None and needed > room:
        raise InputError(
            f"--size: {size[1]}x{size[0]} pixels{f' {lanes} times' if lanes else ''} need {needed / 2**30:.1f} GiB of "
            f"memory, {room / 2**30:.1f} GiB are free; expected a smaller --size"
        )

    def advance(state, steps, tick=None):
        extra = () if most_steps() == 1 else (jnp.int32(steps),)
        return program(state, given(), own, rates, keys, *extra)

    return Stage(
        advance=advance,
        arguments=lambda: (given(), own, rates),
        begin=lambda: begin(start()),
        like=like,
        grow=lambda state: begin(grow(state) if grow else start()),
        outcome=lambda state: _lanes(lambda *each: optimize.outcome(*each, config), lanes)(state, rates),
        steps=steps,
        chunk=most_steps(),
        size=size,
        bytes=needed,
    )


def _lanes(function, lanes):
    return jax.vmap(function) if lanes else function


@functools.partial(jax.jit, static_argnames=("config", "has_lanes"))
def _begin(canvas, *, rates, config, has_lanes):
    return _lanes(lambda *each: optimize.init(*each, config), has_lanes)(canvas, rates)


class _Shapes:
    """The shapes of a tree of arrays, hashable."""

    def __init__(self, tree):
        self.tree = tree
        leaves, structure = jax.tree.flatten(tree)
        self._key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)

    @classmethod
    def of(cls, tree):
        shape = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))  # noqa: E731
        return cls(jax.tree.map(shape, tree))

    def __hash__(self):
        return hash(self._key)

    def __eq__(self, other):
        return self._key == other._key


@functools.lru_cache(maxsize=32)
def _program(goal, config, has_lanes, device, shapes):
    """The compiled step; the frames of a film share theirs."""
    chunk = () if most_steps() == 1 else (jnp.int32(1),)
    return compiler.compiled(_advance.lower(*shapes.tree, *chunk, goal=goal, config=config, has_lanes=has_lanes))


@functools.partial(jax.jit, static_argnames=("goal", "config", "has_lanes"), donate_argnames=("state",))
def _advance(state, shared, own, rates, keys, steps=None, *, goal, config, has_lanes):
    """One step, or `steps` of them in a compiled loop, as `tasks.stylize.stage` has it."""

    def one(state, own, key, rates):
        objective = lambda key, image: goal(key, image, shared, own)  # noqa: E731
        if steps is None:
            return optimize.step(key, state, objective, rates, config)
        return optimize.minimize(key, state, objective, rates, config, steps)

    return (jax.vmap(one) if has_lanes else one)(state, own, keys, rates)
