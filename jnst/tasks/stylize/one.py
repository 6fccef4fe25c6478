"""One run: `prepare` compiles its first scale and computes targets; `run` drives it; `stylize` is both."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnst import ops, optimize
from jnst.config import StylizeConfig
from jnst.tasks.stylize import parts
from jnst.tasks.stylize.loop import Callback, Record, Result, first_bad, is_row, next_stop, row
from jnst.tasks.stylize.stage import Level, Plan, Stage, make_stage
from jnst.types import Image, Params, Snapshot

__all__ = ["Prepared", "footprint", "prepare", "restore", "run", "stylize"]


class Prepared(NamedTuple):
    """A run that has not begun: its first scale is compiled. It serves once."""

    stage: Stage
    number: int
    """Of the scale that it begins with, from 0."""
    levels: tuple[Level, ...]
    make: Callable[[int], Stage]
    """Any other scale."""
    begin: Callable[[], optimize.OptimState]
    finish: Callable[[Image], Image]
    config: StylizeConfig
    trace: list[dict[str, float]]
    """Rows of the steps made before."""

    @property
    def done(self) -> int:
        """Steps of the scales before the first one here."""
        return sum(level.steps for level in self.levels[: self.number])

    @property
    def steps(self) -> int:
        """Of all scales."""
        return sum(level.steps for level in self.levels)


def stylize(
    key: jax.Array,
    params: Params,
    content: Image,
    styles: Sequence[Image],
    config: StylizeConfig,
    *,
    callback: Callback | None = None,
    **more: object,
) -> Result:
    """The content image painted in the styles: `run(prepare(...))`.

    Args:
        key: Of the initial noise.
        params: Backbone.
        content: `[H, W, 3]`.
        styles: Each `[h, w, 3]`, of any size.
        config: Paths, sizes and device in it are not looked at.
        callback: Called after step 0 and between chunks.
        **more: As of `prepare`.

    >>> from jnst.weights import random_backbone
    >>> config = StylizeConfig(steps=2, style_layers="relu1_1", content_layers="conv1_1")
    >>> params = random_backbone(0, ["relu1_1"]).params
    >>> image = jnp.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)
    >>> stylize(jax.random.key(0), params, image, [image[::-1]], config).image.shape
    (8, 8, 3)
    """
    return run(prepare(key, params, content, styles, config, **more), callback=callback)


def prepare(
    key: jax.Array,
    params: Params,
    content: Image,
    styles: Sequence[Image],
    config: StylizeConfig,
    *,
    init: Image | None = None,
    padding: str = "zeros",
    standardize: bool = False,
    smaller: Sequence[Level] = (),
    steps: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    room: int | None = None,
    snapshot: Snapshot | None = None,
) -> Prepared:
    """Targets, start and the compiled step, of the first scale.

    Args:
        key: Of the initial noise.
        params: Backbone.
        content: `[H, W, 3]`.
        styles: Each `[h, w, 3]`, of any size.
        config: Paths, sizes and device in it are not looked at.
        init: The start, `[H, W, 3]`; without it `config.init` says content, noise or mix.
        padding: The backbone's.
        standardize: Scale the backbone to unit variance on these pictures first (random filters).
        smaller: The pictures at the scales before, smallest first.
        steps: Of the last scale, where they are not `config.steps`.
        devices: That tiles are spread over; JAX's first alone, where none are given.
        room: Bytes that each device has left; None: nothing is planned for it.
        snapshot: Where a run was left that now goes on.

    Raises:
        InputError: there is not enough memory.
        ValueError: the snapshot is of another run: its arrays have other shapes or types.
    """
    spec = parts.objective_spec(config, padding)
    dtype = parts.dtype_of(config)
    final = Level(content, tuple(styles), init, config.steps if steps is None else steps)
    levels = tuple(_colored(level, config, dtype) for level in (*smaller, final))
    network = parts.network(
        params, levels[-1].content, levels[-1].styles, spec, precision=config.precision, standardize=standardize
    )

    def make(number, plan=None):
        chosen = devices or [jax.config.jax_default_device or jax.devices()[0]]
        return make_stage(key, network, levels[number], config, spec, devices=chosen, room=room, plan=plan)

    number = snapshot.scale if snapshot else 0
    if number >= len(levels):
        raise ValueError("a snapshot of a run with more scales")
    stage = make(number, Plan(*snapshot.plan) if snapshot and snapshot.plan else None)
    original = jnp.asarray(content, dtype)
    prepared = Prepared(
        stage=stage,
        number=number,
        levels=levels,
        make=make,
        begin=stage.begin,
        finish=lambda image: parts.finish(ops.resize(image, original.shape[:2], "cubic"), original, config),
        config=config,
        trace=[],
    )
    return restore(prepared, snapshot) if snapshot else prepared


def _colored(level, config, dtype):
    pictures = (jnp.asarray(image, dtype) for image in (level.content, *level.styles))
    content, *styles = pictures
    content, styles = parts.recolored(content, styles, config.preserve_color)
    return level._replace(content=content, styles=styles)


def restore(prepared: Prepared, snapshot: Snapshot) -> Prepared:
    """The prepared run as it stood when the snapshot was taken: `run` goes on from there to the same bytes.

    Raises:
        ValueError: the snapshot is of another run, or of another scale: its arrays have other shapes or types.
    """
    leaves, structure = jax.tree.flatten(prepared.stage.like)
    found = snapshot.leaves
    if len(leaves) != len(found) or snapshot.scale != prepared.number:
        raise ValueError("a snapshot of a run with other parts")
    for leaf, array in zip(leaves, found, strict=True):
        if (leaf.shape, leaf.dtype) != (array.shape, array.dtype):
            raise ValueError("a snapshot of a run with other shapes")

    def begin():
        # Copies: the state is donated, and a CPU would take the host's arrays as they are.
        placed = (
            jax.device_put(array, leaf.sharding, may_alias=False) for leaf, array in zip(leaves, found, strict=True)
        )
        return structure.unflatten(placed)

    rows = list(snapshot.trace)
    if rows and len(prepared.levels) == 1 and not is_row(rows[-1]["step"], prepared.config):
        rows.pop()  # it was the last step of a run that now goes on
    return prepared._replace(begin=begin, trace=rows)


def footprint(*arguments: object, **more: object) -> tuple[int, str]:
    """Bytes that a run's largest scale needs, and what there is to say of it. Arguments as of `prepare`."""
    stage = prepare(*arguments, **{**more, "smaller": ()}).stage
    return stage.bytes, stage.note


def run(
    prepared: Prepared,
    *,
    callback: Callback | None = None,
    tick: Callable[[float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Drives a prepared run to its last step, or to where the callback or a loss that is not finite stops it.

    Args:
        prepared: From `prepare`.
        callback: Called after step 0 and between chunks.
        tick: Called within steps that go tile by tile, with the share of all work that is done.
        say: Told how a later scale is computed, where there is something to tell.
    """
    config, trace, levels = prepared.config, list(prepared.trace), prepared.levels
    share = functools.partial(_share, [level.steps * level.content[..., 0].size for level in levels])
    stage, begin = prepared.stage, prepared.begin
    state, before, stopped, bad_term, done = begin(), prepared.done, "", "", 0
    for number in range(prepared.number, len(levels)):
        if number > prepared.number:
            # What the scale before leaves makes room for this one.
            state, stage = optimize.carried(state, parts.optimizer_config(config)), None
            stage = prepared.make(number)
            for line in stage.note.splitlines() if say else ():
                say(line)
            state = stage.grow(state)
        size = levels[number].content.shape[:2]
        ends = before + stage.steps
        place = {"size": max(size)} if len(levels) > 1 else {}
        local = int(state.step)  # -1: not even the start is evaluated
        while local < stage.steps and not stopped:
            within = tick and functools.partial(_tick, tick, share, number, local, stage.steps)
            stop = before if local < 0 else next_stop(before + local, config, last=ends)
            state, terms = stage.advance(state, min(stage.chunk, stop - before - local), within)
            terms = {name: float(value) for name, value in jax.device_get(terms).items()}
            local = int(state.step)
            done = before + local
            bad_term = first_bad(terms)
            if bad_term:
                stopped = "diverged"
                break
            wanted = local in (0, stage.steps) or is_row(done, config, first=before, last=ends)
            if wanted:
                trace.append({**row(done, terms), **place})
            image = lambda canvas=state.canvas: _fetch(prepared, canvas)  # noqa: E731
            snapshot = lambda state=state, stage=stage, number=number: Snapshot(  # noqa: E731
                _leaves(state), list(trace), number, tuple(stage.plan)
            )
            record = Record(
                done, prepared.steps, terms, image, snapshot, size, share(number, (local + 1) / (stage.steps + 1))
            )
            if callback is not None and callback(record):
                stopped = "interrupted" if done < prepared.steps else ""
            del record, image, snapshot  # they hold the state
            if stopped and not wanted:
                trace.append({**row(done, terms), **place})
        before = ends
        if stopped:
            break
    best_step = int(state.best_step)
    averaged = config.average_decay > 0 and stopped != "diverged"
    canvas = stage.outcome(state) if averaged else state.best_canvas
    return Result(
        # Of a scale that fails at once there is what the one before left.
        image=None if best_step < 0 and number == 0 else _fetch(prepared, canvas),
        best_step=done if averaged else before - stage.steps + max(best_step, 0 if number else -1),
        trace=trace,
        stopped=stopped,
        bad_step=done if stopped == "diverged" else -1,
        bad_term=bad_term,
    )


def _share(work, number, part):
    """Of all work, where so much of a scale is done."""
    return (sum(work[:number]) + work[number] * part) / sum(work)


def _tick(tick, share, number, local, steps, part):
    tick(share(number, (local + 1 + part) / (steps + 1)))  # a scale has one evaluation more than steps


def _fetch(prepared, canvas):
    image = jnp.asarray(jax.device_get(canvas)) / prepared.config.canvas_scale
    return np.asarray(prepared.finish(image), np.float32)


def _leaves(state):
    """On a CPU views of the state itself, for it may be larger than what else is free."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
