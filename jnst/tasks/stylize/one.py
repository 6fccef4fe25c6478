"""One run: `prepare` computes targets and compiles the step; `run` drives it; `stylize` is both."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnst import compiler, objective, optimize
from jnst.config import StylizeConfig, parse_mix
from jnst.tasks.stylize import parts
from jnst.tasks.stylize.loop import Callback, Record, Result, first_bad, is_row, most_steps, next_stop, row
from jnst.types import Image, Params, Snapshot, Targets, Terms

__all__ = ["Prepared", "footprint", "prepare", "restore", "run", "stylize"]


class Prepared(NamedTuple):
    """A compiled run that has not begun. `run` donates `state`: it serves once."""

    advance: Callable[..., tuple[optimize.OptimState, Terms]]
    arguments: tuple
    state: optimize.OptimState
    finish: Callable[[Image], Image]
    config: StylizeConfig
    chunk: int
    """Most steps of one call."""
    trace: list[dict[str, float]]
    """Rows of the steps made before."""


def stylize(
    key: jax.Array,
    params: Params,
    content: Image,
    styles: Sequence[Image],
    config: StylizeConfig,
    *,
    init: Image | None = None,
    padding: str = "zeros",
    standardize: bool = False,
    callback: Callback | None = None,
) -> Result:
    """The content image painted in the styles: `run(prepare(...))`.

    Args:
        key: Of the initial noise.
        params: Backbone.
        content: `[H, W, 3]`.
        styles: Each `[h, w, 3]`, of any size.
        config: Paths, size and device in it are not looked at.
        init: The start, `[H, W, 3]`; without it `config.init` says content, noise or mix.
        padding: The backbone's.
        standardize: Scale the backbone to unit variance on these pictures first (random filters).
        callback: Called after step 0 and between chunks.

    >>> from jnst.weights import random_backbone
    >>> config = StylizeConfig(steps=2, style_layers="relu1_1", content_layers="conv1_1")
    >>> params = random_backbone(0, ["relu1_1"]).params
    >>> image = jnp.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)
    >>> stylize(jax.random.key(0), params, image, [image[::-1]], config).image.shape
    (8, 8, 3)
    """
    prepared = prepare(key, params, content, styles, config, init=init, padding=padding, standardize=standardize)
    return run(prepared, callback=callback)


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
) -> Prepared:
    """Targets, start and the compiled step. Arguments as in `stylize`."""
    spec = parts.objective_spec(config, padding)
    begin = functools.partial(_begin, config=config, spec=spec, standardize=standardize)
    state, arguments = begin(key, params, content, styles, init)
    compiled = _compile(key, state, arguments, spec, config)
    return Prepared(
        advance=functools.partial(compiled, key=key),
        arguments=arguments,
        state=state,
        finish=functools.partial(parts.finish, original=jnp.asarray(content, state.canvas.dtype), config=config),
        config=config,
        chunk=most_steps(),
        trace=[],
    )


def restore(prepared: Prepared, snapshot: Snapshot) -> Prepared:
    """The prepared run as it stood when the snapshot was taken: `run` goes on from there to the same bytes.

    Raises:
        ValueError: the snapshot is of another run: its arrays have other shapes or types.
    """
    leaves, structure = jax.tree.flatten(prepared.state)
    kinds = [(leaf.shape, leaf.dtype) for leaf in leaves]
    if kinds != [(leaf.shape, leaf.dtype) for leaf in snapshot.leaves]:
        raise ValueError("a snapshot of a run with other shapes")
    # Copies: the state is donated, and a CPU would take the host's arrays as they are.
    state = structure.unflatten([jnp.array(leaf, copy=True) for leaf in snapshot.leaves])
    rows = list(snapshot.trace)
    if rows and not is_row(rows[-1]["step"], prepared.config):
        rows.pop()  # it was the last step of a run that now goes on
    return prepared._replace(state=state, trace=rows)


def footprint(
    key: jax.Array,
    params: Params,
    content: Image,
    styles: Sequence[Image],
    config: StylizeConfig,
    *,
    init: Image | None = None,
    padding: str = "zeros",
    standardize: bool = False,
) -> int:
    """Bytes that a run's compiled step needs: arguments, state and intermediate results. Nothing is computed.

    Arguments as in `stylize`, of which only the shapes count.
    """
    spec = parts.objective_spec(config, padding)
    begin = functools.partial(_begin, config=config, spec=spec, standardize=standardize)
    state, arguments = jax.eval_shape(begin, key, params, content, styles, init)
    memory = _compile(key, state, arguments, spec, config).memory_analysis()
    if memory is None:
        return 0
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return total - memory.alias_size_in_bytes


def _begin(key, params, content, styles, init, *, config, spec, standardize):
    """The state before the first step, and the step's other arguments."""
    content, *styles = (jnp.asarray(image, parts.dtype_of(config)) for image in (content, *styles))
    content, styles = parts.recolored(content, styles, config.preserve_color)
    params = parts.network(params, content, styles, spec, precision=config.precision, standardize=standardize)
    mix = jnp.asarray(parse_mix(config.style_mix, len(styles)), content.dtype)
    targets = Targets(
        content=parts.content_targets(params, content, spec),
        style=objective.blend_grams([parts.style_grams(params, style, spec) for style in styles], mix),
    )
    rates = parts.rates(config)
    canvas = parts.start(key, content, params["mean"], config, init=init)
    state = optimize.init(canvas, rates, parts.optimizer_config(config))
    return state, (parts.prepared(params), targets, parts.weights(config), rates)


def _compile(key, state, arguments, spec, config):
    steps = () if most_steps() == 1 else (jnp.int32(1),)
    return compiler.compiled(
        _advance.lower(state, *arguments, *steps, key=key, spec=spec, config=parts.optimizer_config(config))
    )


def run(prepared: Prepared, *, callback: Callback | None = None) -> Result:
    """Drives a prepared run to its last step, or to where the callback or a loss that is not finite stops it."""
    config, state, trace = prepared.config, prepared.state, list(prepared.trace)
    done, stopped, bad_term = int(state.step), "", ""  # -1: not even the start is evaluated
    while done < config.steps and not stopped:
        count = min(prepared.chunk, next_stop(done, config) - done)
        extra = () if prepared.chunk == 1 else (jnp.int32(count),)
        state, terms = prepared.advance(state, *prepared.arguments, *extra)
        terms = {name: float(value) for name, value in jax.device_get(terms).items()}
        done = int(state.step)
        bad_term = first_bad(terms)
        if bad_term:
            stopped = "diverged"
            break
        wanted = is_row(done, config)
        if wanted:
            trace.append(row(done, terms))
        image = lambda canvas=state.canvas: _fetch(prepared, canvas)  # noqa: E731
        snapshot = lambda state=state: _snapshot(state, trace)  # noqa: E731
        if callback is not None and callback(Record(done, config.steps, terms, image, snapshot)):
            stopped = "interrupted" if done < config.steps else ""
        if stopped and not wanted:
            trace.append(row(done, terms))
    best_step = int(state.best_step)
    return Result(
        image=None if best_step < 0 else _fetch(prepared, state.best_canvas),
        best_step=best_step,
        trace=trace,
        stopped=stopped,
        bad_step=done if stopped == "diverged" else -1,
        bad_term=bad_term,
    )


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


def _fetch(prepared, canvas):
    return np.asarray(prepared.finish(canvas / prepared.config.canvas_scale), np.float32)


def _snapshot(state, trace):
    # Copies: on a CPU the host's arrays may be the device's own, which the next step overwrites.
    return Snapshot([np.array(leaf) for leaf in jax.tree.leaves(state)], list(trace))
