"""Style transfer by optimizing an image (Gatys, Ecker & Bethge 2016), compiled.

`prepare` computes targets and compiles the step; `run` drives it; `stylize` is both.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnst import objective, ops, optimize
from jnst.config import ObjectiveSpec, OptimizerConfig, StylizeConfig, parse_layers, parse_mix, parse_rate
from jnst.nets import vgg
from jnst.types import Image, Params, Rates, Snapshot, Targets, Terms, Weights

__all__ = [
    "Callback",
    "Prepared",
    "Record",
    "Result",
    "footprint",
    "objective_spec",
    "prepare",
    "restore",
    "run",
    "stylize",
]

ON_DEVICE = 10
"""Most steps that a GPU or TPU makes between two looks of the host: enough that the host costs nothing, few enough
that Ctrl-C is answered soon."""


class Record(NamedTuple):
    """What a callback sees after a chunk of steps."""

    step: int
    """Updates made."""
    steps: int
    """Updates that were asked for."""
    terms: dict[str, float]
    """Weighted `total`, `content`, `style` and `tv` at this step."""
    image: Callable[[], np.ndarray]
    """Fetches the image at this step, `[H, W, 3]` in [0, 1]; only while the callback runs."""
    snapshot: Callable[[], Snapshot]
    """Fetches all that `restore` needs to go on from here; only while the callback runs."""


Callback = Callable[[Record], bool | None]
"""Called between chunks; a true answer stops the run after this step."""


class Result(NamedTuple):
    """What a run leaves."""

    image: np.ndarray | None
    """The best iterate, `[H, W, 3]` float32 in [0, 1]; None where not even the start had a finite loss."""
    best_step: int
    """The step that `image` is from."""
    trace: list[dict[str, float]]
    """Rows of step, total, content, style, tv: step 0, each `print_every`, and the last step made."""
    stopped: str
    """Empty, `interrupted` or `diverged`."""
    bad_step: int
    """The step whose loss was not finite, -1 where none was."""
    bad_term: str
    """The first term that was not finite at that step."""


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


def objective_spec(config: StylizeConfig, padding: str) -> ObjectiveSpec:
    """The static half of the objective that a configuration means for weights with this padding."""
    return ObjectiveSpec(
        content_layers=parse_layers("content_layers", config.content_layers)[0],
        style_layers=parse_layers("style_layers", config.style_layers)[0],
        pooling=config.pooling,
        padding=padding,
        normalization=config.normalization,
        tv=config.tv,
    )


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
    spec = objective_spec(config, padding)
    begin = functools.partial(_begin, config=config, spec=spec, standardize=standardize)
    state, arguments = begin(key, params, content, styles, init)
    compiled = _compile(key, state, arguments, spec, config)
    return Prepared(
        advance=functools.partial(compiled, key=key),
        arguments=arguments,
        state=state,
        finish=functools.partial(_finish, original=jnp.asarray(content, state.canvas.dtype), config=config),
        config=config,
        chunk=_chunk(),
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
    if rows and not _is_row(rows[-1]["step"], prepared.config):
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
    spec = objective_spec(config, padding)
    begin = functools.partial(_begin, config=config, spec=spec, standardize=standardize)
    state, arguments = jax.eval_shape(begin, key, params, content, styles, init)
    memory = _compile(key, state, arguments, spec, config).memory_analysis()
    if memory is None:
        return 0
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return total - memory.alias_size_in_bytes


def _begin(key, params, content, styles, init, *, config, spec, standardize):
    """The state before the first step, and the step's other arguments."""
    dtype = jnp.float64 if config.precision == "float64" else jnp.float32
    content, *styles = (jnp.asarray(image, dtype) for image in (content, *styles))
    content, styles = _recolored(content, styles, config.preserve_color)
    params = _network(params, content, styles, spec, config.precision, standardize)
    mix = jnp.asarray(parse_mix(config.style_mix, len(styles)), dtype)
    targets = Targets(
        content=_content_targets(params, content, spec),
        style=objective.blend_grams([_style_grams(params, style, spec) for style in styles], mix),
    )
    weights = Weights(
        *(jnp.asarray(value, dtype) for value in (config.content_weight, config.style_weight, config.tv_weight)),
        jnp.asarray(parse_layers("content_layers", config.content_layers)[1], dtype),
        jnp.asarray(parse_layers("style_layers", config.style_layers)[1], dtype),
    )
    rates = Rates(learning_rate=jnp.asarray(parse_rate(config), dtype))
    start = _start(key, content, params["mean"], config) if init is None else jnp.asarray(init, dtype)
    # A buffer of its own: the state is donated.
    canvas = jnp.array(start * config.canvas_scale, copy=True)
    return optimize.init(canvas, rates, _optimizer(config)), (params, targets, weights, rates)


def _optimizer(config):
    fields = ("optimizer", "history", "line_search", "projection", "canvas_scale")
    return OptimizerConfig(**{name: getattr(config, name) for name in fields})


def _compile(key, state, arguments, spec, config):
    steps = () if _chunk() == 1 else (jnp.int32(1),)
    return _advance.lower(state, *arguments, *steps, key=key, spec=spec, config=_optimizer(config)).compile()


def _chunk():
    return 1 if _platform() == "cpu" else ON_DEVICE


def run(prepared: Prepared, *, callback: Callback | None = None) -> Result:
    """Drives a prepared run to its last step, or to where the callback or a loss that is not finite stops it."""
    config, state, trace = prepared.config, prepared.state, list(prepared.trace)
    done, stopped, bad_term = int(state.step), "", ""  # -1: not even the start is evaluated
    while done < config.steps and not stopped:
        count = min(prepared.chunk, _next_stop(done, config) - done)
        extra = () if prepared.chunk == 1 else (jnp.int32(count),)
        state, terms = prepared.advance(state, *prepared.arguments, *extra)
        terms = {name: float(value) for name, value in jax.device_get(terms).items()}
        done = int(state.step)
        if not math.isfinite(terms["total"]):
            # A sum of finite terms may still overflow: then it is the total that is named.
            bad_term = next((name for name in ("content", "style", "tv") if not math.isfinite(terms[name])), "total")
            stopped = "diverged"
            break
        wanted = _is_row(done, config)
        if wanted:
            trace.append(_row(done, terms))
        image = lambda canvas=state.canvas: _fetch(prepared, canvas)  # noqa: E731
        snapshot = lambda state=state: _snapshot(state, trace)  # noqa: E731
        if callback is not None and callback(Record(done, config.steps, terms, image, snapshot)):
            stopped = "interrupted" if done < config.steps else ""
        if stopped and not wanted:
            trace.append(_row(done, terms))
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


@functools.partial(jax.jit, static_argnames=("spec",))
def _content_targets(params, content, spec):
    return objective.content_targets(params, content, spec)


@functools.partial(jax.jit, static_argnames=("spec",))
def _style_grams(params, style, spec):
    return objective.style_grams(params, style, spec)


@functools.partial(jax.jit, static_argnames=("layers", "pooling", "padding"))
def _standardize(params, images, layers, pooling, padding):
    return vgg.standardize(params, images, layers, pooling=pooling, padding=padding)


def _network(params, content, styles, spec, precision, standardize):
    """The layers that are needed, on the device, in the precision asked for."""
    layers = spec.content_layers + spec.style_layers
    needed = {name: params[name] for name in ("mean", *vgg.convolutions(layers))}
    needed = jax.tree.map(lambda leaf: jnp.asarray(leaf, content.dtype), needed)
    if standardize:
        needed = _standardize(needed, [content, *styles], layers, spec.pooling, spec.padding)
    if precision == "bfloat16":
        kernels = {name: needed[name] for name in needed if name != "mean"}
        needed = {"mean": needed["mean"], **jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), kernels)}
    return needed


def _recolored(content, styles, mode):
    """Content and styles as the network shall see them; the canvas starts from this content."""
    if mode == "match":
        return content, [ops.match_color(style, content) for style in styles]
    if mode == "luminance":
        luma = ops.luminance(content)
        matched = [ops.match_luminance(ops.luminance(style), luma) for style in styles]
        return _gray(luma), [_gray(style) for style in matched]
    return content, styles


def _gray(luma):
    return jnp.repeat(luma[..., None], 3, -1)


def _finish(image, *, original, config):
    """From the optimized image to the one that is shown."""
    image = jnp.clip(image, 0, 1)
    if config.preserve_color == "luminance":
        return ops.replace_luminance(original, ops.luminance(image))
    return image


def _start(key, content, mean, config):
    if config.init == "content":
        return content
    width = config.noise_width / 255
    noise = mean[None, None] + jax.random.uniform(key, content.shape, content.dtype, -width, width)
    if config.init == "noise":
        return noise
    return config.noise_ratio * noise + (1 - config.noise_ratio) * content


def _fetch(prepared, canvas):
    return np.asarray(prepared.finish(canvas / prepared.config.canvas_scale), np.float32)


def _snapshot(state, trace):
    # Copies: on a CPU the host's arrays may be the device's own, which the next step overwrites.
    return Snapshot([np.array(leaf) for leaf in jax.tree.leaves(state)], list(trace))


def _is_row(step, config):
    return step in (0, config.steps) or (config.print_every > 0 and step % config.print_every == 0)


def _next_stop(done, config):
    """The next step that somebody wants to see: the start, one to be printed or kept, or the last."""
    if done < 0:
        return 0
    each = (every for every in (config.print_every, config.save_every, config.checkpoint_every) if every > 0)
    return min([config.steps, *(done - done % every + every for every in each)])


def _row(step, terms):
    # The sum again, in double precision: in the record the total is what its terms add up to.
    return {"step": step, "total": terms["content"] + terms["style"] + terms["tv"]} | {
        name: terms[name] for name in ("content", "style", "tv")
    }


def _platform():
    """Of the device that computes by default here."""
    return next(iter(jnp.zeros(()).devices())).platform
