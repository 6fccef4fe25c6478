"""One run: `prepare` compiles its first scale and computes targets; `stylize` also drives it."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jnst import ops, optimize
from jnst.config import StylizeConfig
from jnst.loop import Callback, Prepared, Result, restore, run
from jnst.tasks.stylize import parts
from jnst.tasks.stylize.stage import Level, Plan, make_stage
from jnst.types import Image, Params, Snapshot

__all__ = ["TERMS", "footprint", "prepare", "stylize"]

TERMS = ("content", "style", "tv")
"""What the total is the sum of."""


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

    def finish(canvas):
        image = jnp.asarray(canvas) / config.canvas_scale
        return parts.finish(ops.resize(image, original.shape[:2], "cubic"), original, config)

    prepared = Prepared(
        stage=stage,
        number=number,
        counts=tuple(level.steps for level in levels),
        sizes=tuple(level.content.shape[:2] for level in levels),
        make=make,
        begin=stage.begin,
        finish=finish,
        config=config,
        summands=TERMS,
        trace=[],
        keeps="average" if config.average_decay else "best",
        carry=functools.partial(optimize.carried, config=parts.optimizer_config(config)),
    )
    return restore(prepared, snapshot) if snapshot else prepared


def _colored(level, config, dtype):
    pictures = (jnp.asarray(image, dtype) for image in (level.content, *level.styles))
    content, *styles = pictures
    content, styles = parts.recolored(content, styles, config.preserve_color)
    return level._replace(content=content, styles=styles)


def footprint(*arguments: object, **more: object) -> tuple[int, str]:
    """Bytes that a run's largest scale needs, and what there is to say of it. Arguments as of `prepare`."""
    stage = prepare(*arguments, **{**more, "smaller": ()}).stage
    return stage.bytes, stage.note
