"""One scale of a run, compiled: whole, or in tiles where it would not fit into memory."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnst import compiler, objective, optimize, tiles
from jnst.config import ObjectiveSpec, StylizeConfig, parse_mix
from jnst.errors import InputError
from jnst.loop import Stage, most_steps
from jnst.nets import vgg
from jnst.tasks.stylize import parts
from jnst.types import Image, Params, Targets

__all__ = ["Level", "Plan", "make_stage"]

AUTO_TILES = (1024, 512, 256)
"""What `auto` tries, largest first: the smaller a tile, the more of the work is for its halo."""

LEAST_HISTORY = 3
"""Pairs of L-BFGS below which a run is refused."""


class Level(NamedTuple):
    """The pictures of one scale."""

    content: Image  # [H, W, 3]
    styles: Sequence[Image]  # each [h, w, 3]
    init: Image | None  # [H, W, 3]
    steps: int


class Plan(NamedTuple):
    """How a scale is computed; a run that goes on keeps it."""

    tile: int
    """Longest side of a tile; 0: whole."""
    history: int
    """Pairs of L-BFGS."""


def make_stage(
    key: jax.Array,
    params: Params,
    level: Level,
    config: StylizeConfig,
    spec: ObjectiveSpec,
    *,
    devices: Sequence[jax.Device],
    room: int | None,
    plan: Plan | None = None,
) -> Stage:
    """Plans and compiles; nothing is computed yet.

    Args:
        key: Of the initial noise.
        params: The network, as `parts.network` gives it.
        level: The scale's pictures, recolored.
        config: `tile` and `history` in it say what is wanted.
        spec: Static half of the objective.
        devices: The first computes whole pictures, all of them tiles.
        room: Bytes that each device has left, or None where nobody knows.
        plan: Of the run that goes on; without it one is made.

    Raises:
        InputError: there is not enough memory, or a torus was to be cut.
    """
    wanted = config.tile
    if spec.padding == "wrap" and wanted not in ("auto", "0"):
        raise InputError(f"--tile={wanted}: has no --padding=wrap; expected --tile=0, or another padding")
    if plan is not None:
        config, wanted = dataclasses.replace(config, history=plan.history), str(plan.tile)
    maker = _Maker(key, params, level, config, spec, devices, room)
    never = config.line_search != "none" or spec.padding == "wrap"
    if never or wanted == "0" or (wanted == "auto" and room is None):
        return maker.whole(must=True)
    if wanted != "auto":
        return maker.tiled(int(wanted), must=True)
    smaller = [tile for tile in AUTO_TILES if tile < max(level.content.shape)]
    found = maker.whole(must=not smaller)
    for tile in smaller:
        found = found or maker.tiled(tile, must=tile == smaller[-1])
    return found


@dataclasses.dataclass(frozen=True)
class _Maker:
    key: jax.Array
    params: Params
    level: Level
    config: StylizeConfig
    spec: ObjectiveSpec
    devices: Sequence[jax.Device]
    room: int | None

    def whole(self, *, must):
        """The step as one program, or None where it does not fit."""
        optimizer, rates = parts.optimizer_config(self.config), parts.rates(self.config)
        weights = parts.weights(self.config)
        level = self.level
        shapes = _network_and_targets.eval_shape(
            self.params, level.content, tuple(level.styles), self._mix(), spec=self.spec, platform=compiler.platform()
        )
        like = _init.eval_shape(level.content, rates, config=optimizer)
        steps = () if most_steps() == 1 else (jnp.int32(1),)
        lowered = _advance.lower(like, *shapes, weights, rates, *steps, key=self.key, spec=self.spec, config=optimizer)
        program = compiler.compiled(lowered)
        needed = compiler.bytes_of(program)
        if self._is_too_much(needed):
            if must:
                can_be_cut = self.config.tile == "0" and self.config.line_search == "none"
                can_be_cut = can_be_cut and self.spec.padding != "wrap"
                self._refuse(needed, "--tile=auto, or a smaller --size" if can_be_cut else "a smaller --size")
            return None
        arguments = functools.cache(lambda: (parts.prepared(self.params), self._targets(needed), weights, rates))

        def advance(state, steps, tick=None):
            extra = () if most_steps() == 1 else (jnp.int32(steps),)
            return program(state, *arguments(), *extra, key=self.key)

        return Stage(
            advance=advance,
            arguments=arguments,
            begin=lambda: optimize.init(self._start(), rates, optimizer),
            like=like,
            grow=lambda state: optimize.grow(state, self._size(), rates, optimizer),
            outcome=lambda state: optimize.outcome(state, rates, optimizer),
            steps=self.level.steps,
            chunk=most_steps(),
            size=self._size(),
            plan=Plan(0, self.config.history),
            bytes=needed,
            note="",
        )

    def tiled(self, tile, *, must):
        """The step as passes over tiles, or None where it does not fit."""
        mesh = tiles.make_mesh(self.devices)
        layers = objective.layers_of(self.spec)
        tiling = tiles.make_tiling(self._size(), layers, tile)
        if tiling.total == 1:
            return self.whole(must=must)
        weights = parts.weights(self.config)
        prepared = jax.eval_shape(parts.prepared, self.params)
        passes = tiles.compile_passes(prepared, tiling, self.spec, weights, mesh=mesh)
        config, note = self.config, ""
        steps = _Steps(self._start, config, mesh)
        while self._is_too_much(needed := steps.needs(passes.bytes)):
            pairs = self._pairs_that_fit(needed, steps)
            if not must:
                return None
            if pairs < LEAST_HISTORY:
                self._refuse(
                    needed, "a smaller --size" + (", or --optimizer=adam" if config.optimizer == "lbfgs" else "")
                )
            note = f"memory: L-BFGS remembers {pairs} pairs instead of {self.config.history}"
            config = dataclasses.replace(config, history=pairs)
            steps = _Steps(self._start, config, mesh)
        down, across = tiling.counts
        where = f" on {mesh.size} devices" if mesh.size > 1 else ""
        said = f"tiles: {down}x{across} of {'x'.join(map(str, tiling.tile[::-1]))} pixels{where}"
        arguments = functools.cache(lambda: self._arguments(tile, passes))

        def advance(state, steps_, tick=None):
            network, *targets = arguments()
            state, image = steps.move(state)
            total, terms, gradient = tiles.evaluate(passes, network, image, *targets, tick=tick)
            return steps.judge(state, total, gradient), terms

        return Stage(
            advance=advance,
            arguments=arguments,
            begin=steps.begin,
            like=steps.like,
            grow=lambda state: steps.grow(state, self._size()),
            outcome=steps.outcome,
            steps=self.level.steps,
            chunk=1,
            size=self._size(),
            plan=Plan(tile, config.history),
            bytes=needed,
            note="\n".join(filter(None, [said, note])),
        )

    def _arguments(self, tile, passes):
        """What `tiles.evaluate` is given beside the image."""
        mesh = passes.mesh
        put = lambda tree: jax.device_put(tree, tiles.everywhere(mesh))  # noqa: E731
        network, weights, content = put((parts.prepared(self.params), parts.weights(self.config), self.level.content))
        found = []
        for style in self.level.styles:
            tiling = tiles.make_tiling(style.shape[:2], self.spec.style_layers, tile)
            found.append(tiles.style_statistics(network, put(style), tiling, self.spec, mesh=mesh))
        return network, tiles.content_of(passes, network, content), objective.blend(found, put(self._mix())), weights

    def _size(self):
        return self.level.content.shape[:2]

    def _start(self):
        return parts.start(self.key, self.level.content, self.params["mean"], self.config, init=self.level.init)

    def _mix(self):
        return jnp.asarray(parse_mix(self.config.style_mix, len(self.level.styles)), self.level.content.dtype)

    def _targets(self, needed):
        found = [self._statistic(style, needed) for style in self.level.styles]
        content = parts.content_targets(self.params, self.level.content, self.spec)
        return Targets(content=content, style=objective.blend(found, self._mix()))

    def _statistic(self, style, needed):
        """Of a style image; in tiles where it is so much larger than the content that it alone would not fit."""
        whole = self.spec.padding == "wrap"  # whose edges meet, which a tile's do not
        if whole or not self._is_too_much(needed * style.size // self.level.content.size):
            return parts.style_statistics(self.params, style, self.spec)
        tiling = tiles.make_tiling(style.shape[:2], self.spec.style_layers, AUTO_TILES[0])
        return tiles.style_statistics(self.params, style, tiling, self.spec, mesh=tiles.make_mesh(self.devices[:1]))

    def _is_too_much(self, needed):
        return self.room is not None and needed > self.room

    def _pairs_that_fit(self, needed, steps):
        """How many pairs of L-BFGS fit where one more than fit are kept now."""
        if self.config.optimizer != "lbfgs":
            return 0
        return steps.history - max(1, -(-(needed - self.room) // steps.pair_bytes))

    def _refuse(self, needed, instead):
        height, width = self._size()
        raise InputError(
            f"--size: {width}x{height} pixels need {needed / 2**30:.1f} GiB of memory, {self.room / 2**30:.1f} GiB are "
            f"free; expected {instead}"
        )


class _Steps:
    """The optimizer's half of a step in tiles: its state lies spread over the devices."""

    def __init__(self, start, config, mesh):
        optimizer, rates = parts.optimizer_config(config), parts.rates(config)
        shape = jax.eval_shape(lambda: optimize.init(start(), rates, optimizer))
        places = jax.tree.map(lambda leaf: tiles.spread(mesh, leaf.shape), shape)
        self.like = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shape, places
        )
        self.history = config.history
        whole = tiles.everywhere(mesh)

        def move(state):
            state = optimize.move(state, rates, optimizer)
            return state, optimize.image_of(state.canvas, optimizer)

        def judge(state, total, gradient):
            return optimize.judge(state, total, gradient / optimizer.canvas_scale)

        lowered = jax.jit(move, donate_argnums=0, out_shardings=(places, whole)).lower(self.like)
        self.move = compiler.compiled(lowered)
        self.judge = jax.jit(judge, donate_argnums=(0, 2), out_shardings=places)
        self.begin = lambda: jax.jit(
            lambda canvas: optimize.init(canvas, rates, optimizer), donate_argnums=0, out_shardings=places
        )(jax.device_put(start(), places.canvas))
        self.grow = lambda state, size: jax.jit(
            lambda state: optimize.grow(state, size, rates, optimizer), out_shardings=places
        )(jax.device_put(state, whole))
        self.outcome = lambda state: optimize.outcome(state, rates, optimizer)
        self.state_bytes = sum(map(_own_bytes, jax.tree.leaves(self.like)))
        self.pair_bytes = 2 * _own_bytes(self.like.canvas)

    def needs(self, of_passes):
        """Bytes that a device needs for a step."""
        return max(compiler.bytes_of(self.move), self.state_bytes + of_passes)


@functools.partial(jax.jit, static_argnames=("spec", "platform"))
def _network_and_targets(params, content, styles, mix, *, spec, platform):
    """Only its shapes are asked for: what it gives is made picture by picture, so that runs share what they can."""
    return vgg.prepare(params, platform), objective.style_targets(params, content, styles, mix, spec)


@functools.partial(jax.jit, static_argnames=("config",))
def _init(canvas, rates, *, config):
    return optimize.init(canvas, rates, config)


@functools.partial(jax.jit, static_argnames=("spec", "config"), donate_argnames=("state",))
def _advance(state, params, targets, weights, rates, steps=None, *, key, spec, config):
    """One step, or `steps` of them in a compiled loop.

    On a CPU one at a time: there, XLA runs a convolution's gradient 3 to 4 times slower inside a loop, and a call
    costs nothing beside a step. Elsewhere the loop keeps the device busy while the host sleeps.
    """
    goal = lambda key, image: objective.style_objective(params, image, targets, weights, spec)  # noqa: E731
    if steps is None:
        return optimize.step(key, state, goal, rates, config)
    return optimize.minimize(key, state, goal, rates, config, steps)


def _own_bytes(leaf):
    """Of a device's part."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
