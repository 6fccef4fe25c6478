"""An optax state loop over a canvas: any scalar objective of an image, minimized step by step.

The canvas is what the optimizer moves: the image times `canvas_scale`. Each step updates first and evaluates after,
so a state always holds a canvas with its own terms and gradient; the first step of a new state only evaluates.
One function serves the first step and all others: one program is compiled. `step` is `move`, an evaluation, and
`judge`: whoever evaluates in parts (`tiles`) calls the two by themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jnst import ops
from jnst.config import OPTIMIZERS, OptimizerConfig
from jnst.lbfgs import lbfgs
from jnst.types import Image, Rates, Terms

__all__ = [
    "Objective",
    "OptimState",
    "carried",
    "grow",
    "image_of",
    "init",
    "judge",
    "make_optimizer",
    "minimize",
    "move",
    "outcome",
    "step",
]

Objective = Callable[[jax.Array, Image], tuple[jax.Array, Terms]]
"""`objective(key, image) -> (loss, terms)`; a deterministic objective ignores the key."""


class OptimState(NamedTuple):
    """Everything the next step needs, and the best canvas so far."""

    canvas: jax.Array  # [H, W, 3], in units of canvas_scale
    total: jax.Array  # loss at the canvas
    gradient: jax.Array  # of the loss at the canvas
    opt_state: optax.OptState
    step: jax.Array  # int32: updates made; -1 before the first evaluation
    best_canvas: jax.Array
    best_total: jax.Array  # loss at best_canvas; infinite before the first evaluation
    best_step: jax.Array
    average: jax.Array | None  # of the canvases so far, not yet corrected for its start at 0; None without averaging


def make_optimizer(rates: Rates, config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """The named optimizer, built inside the traced function: its learning rate may be traced."""
    if config.normalize != "none":
        return _holding(optax.chain(_normalized(config.normalize), optax.sgd(rates.learning_rate)))
    if config.optimizer != "lbfgs":
        more = {"b2": config.beta2} if config.beta2 else {}
        return _holding(getattr(optax, config.optimizer)(rates.learning_rate, **OPTIMIZERS[config.optimizer], **more))
    if config.line_search == "zoom":
        return _holding(optax.lbfgs(memory_size=config.history))
    box = (0, config.canvas_scale) if config.projection == "clip" else None
    precondition = ops.fourier_precondition if config.preconditioner == "fourier" else None
    return lbfgs(rates.learning_rate, history=config.history, box=box, precondition=precondition)


def _normalized(kind):
    """The gradient divided by one number, its mean size: steps have one length however steep the loss is."""

    def divided(gradient, params=None):
        size = jnp.std(gradient) if kind == "deviation" else jnp.mean(jnp.abs(gradient))
        return gradient / (size + jnp.finfo(gradient.dtype).tiny)

    return optax.stateless(divided)


def _holding(optimizer):
    """The optimizer with `hold`: where true, the update is 0 and the state stays."""
    optimizer = optax.with_extra_args_support(optimizer)

    def update(gradient, state, params, *, hold, **extra):
        stay = lambda: (jnp.zeros_like(params), state)  # noqa: E731
        # A line search computes gradients: not for nothing.
        return lax.cond(hold, stay, lambda: optimizer.update(gradient, state, params, **extra))

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def init(canvas: jax.Array, rates: Rates, config: OptimizerConfig) -> OptimState:
    """The state before the first evaluation. No two leaves share a buffer: the state can be donated."""
    return OptimState(
        canvas=canvas,
        total=jnp.zeros((), canvas.dtype),
        gradient=jnp.zeros_like(canvas),
        # Some of optax's leaves are one array.
        opt_state=jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), make_optimizer(rates, config).init(canvas)),
        step=jnp.int32(-1),
        best_canvas=jnp.array(canvas, copy=True),
        best_total=jnp.array(jnp.inf, canvas.dtype),
        best_step=jnp.int32(-1),
        average=(1 - jnp.asarray(rates.average_decay, canvas.dtype)) * canvas if config.average else None,
    )


def image_of(canvas: jax.Array, config: OptimizerConfig) -> Image:
    """The image `[H, W, 3]` in [0, 1] that a canvas stands for."""
    return canvas / config.canvas_scale


def step(
    key: jax.Array, state: OptimState, objective: Objective, rates: Rates, config: OptimizerConfig
) -> tuple[OptimState, Terms]:
    """One update with the stored gradient, then loss and gradient at the new canvas; the first call only evaluates.

    A total that is not finite never becomes the best one.

    Args:
        key: Folded with the step's number before the objective gets it, so chunks and resuming change nothing.
        state: From `init` or `step`.
        objective: Of the image, not of the canvas.
        rates: Traced numbers.
        config: Static choices.

    Returns:
        The new state, and the terms at its canvas.
    """
    key = jax.random.fold_in(key, state.step + 1)
    loss = lambda canvas: objective(key, image_of(canvas, config))  # noqa: E731
    state = move(state, rates, config, value_fn=lambda canvas: loss(canvas)[0])
    (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.canvas)
    return judge(state, total, gradient), terms


def move(
    state: OptimState,
    rates: Rates,
    config: OptimizerConfig,
    *,
    value_fn: Callable[[jax.Array], jax.Array] | None = None,
) -> OptimState:
    """The first half of a step: the update, of the canvas and what follows from it alone.

    Args:
        state: As `judge` left it.
        rates: Traced numbers.
        config: Static choices.
        value_fn: The loss of a canvas; only a line search asks for it.
    """
    updates, opt_state = make_optimizer(rates, config).update(
        state.gradient,
        state.opt_state,
        state.canvas,
        hold=state.step < 0,
        value=state.total,
        grad=state.gradient,
        value_fn=value_fn,
    )
    canvas = optax.apply_updates(state.canvas, updates)
    if config.projection == "clip":
        canvas = jnp.where(state.step < 0, canvas, jnp.clip(canvas, 0, config.canvas_scale))
    average = state.average
    if config.average:
        decay = jnp.asarray(rates.average_decay, canvas.dtype)
        average = jnp.where(state.step < 0, average, decay * average + (1 - decay) * canvas)
    return state._replace(canvas=canvas, opt_state=opt_state, step=state.step + 1, average=average)


def judge(state: OptimState, total: jax.Array, gradient: jax.Array) -> OptimState:
    """The second half: what the loss and its gradient at the canvas say."""
    better = jnp.isfinite(total) & (total < state.best_total)
    return state._replace(
        total=total,
        gradient=gradient,
        best_canvas=jnp.where(better, state.canvas, state.best_canvas),
        best_total=jnp.where(better, total, state.best_total),
        best_step=jnp.where(better, state.step, state.best_step),
    )


def outcome(state: OptimState, rates: Rates, config: OptimizerConfig) -> jax.Array:
    """The canvas that a run is made for: the last one or the average over all iterates where the config says so, else
    the best one.

    The average is exponential, with its bias towards 0 taken off (Kingma & Ba 2015, section 3, do so with gradients).
    """
    if config.last:
        return state.canvas
    if not config.average:
        return state.best_canvas
    return state.average / (1 - jnp.asarray(rates.average_decay, state.canvas.dtype) ** (state.step + 1))


def carried(state: OptimState, config: OptimizerConfig) -> OptimState:
    """What `grow` needs of a state: without the pairs of L-BFGS, which are most of it, so that they make room."""
    return state._replace(opt_state=()) if config.optimizer == "lbfgs" else state


def grow(state: OptimState, size: tuple[int, int], rates: Rates, config: OptimizerConfig) -> OptimState:
    """The state with which the next scale of a pyramid begins, before its first evaluation.

    Its canvas is this one's outcome, enlarged. An optimizer's moments are enlarged with it (the second ones linearly,
    so that they stay positive) and its count of steps goes on, as in style-transfer-pytorch. Pairs of L-BFGS are of
    no use at another size: it begins anew.

    Args:
        state: Of a scale that has ended; as `carried` leaves it will do.
        size: Rows and columns of the next one.
        rates: Traced numbers.
        config: Static choices.
    """
    canvas = ops.resize(outcome(state, rates, config), size, "cubic")
    if config.projection == "clip":
        canvas = jnp.clip(canvas, 0, config.canvas_scale)
    grown = init(canvas, rates, config)
    if config.optimizer == "lbfgs":
        return grown
    before = state.canvas.shape

    def larger(path, leaf):
        if leaf.shape != before:
            return jnp.array(leaf, copy=True)
        if str(getattr(path[-1], "name", "")).startswith("nu"):  # optax's word for second moments
            return jnp.maximum(ops.resize(leaf, size, "linear"), 0)
        return ops.resize(leaf, size, "cubic")

    return grown._replace(opt_state=jax.tree_util.tree_map_with_path(larger, state.opt_state))


def minimize(
    key: jax.Array,
    state: OptimState,
    objective: Objective,
    rates: Rates,
    config: OptimizerConfig,
    steps: jax.Array,
) -> tuple[OptimState, Terms]:
    """`steps` (traced, at least 1) steps in one compiled loop, ended early by a total that is not finite.

    A number of steps that is traced lets one program serve chunks of every length.

    Returns:
        The state and the terms of the last step made.
    """
    evaluate = lambda state: step(key, state, objective, rates, config)  # noqa: E731
    _, terms = jax.eval_shape(evaluate, state)
    terms = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), terms)

    def unfinished(carry):
        index, _, terms = carry
        return (index < steps) & jnp.isfinite(terms["total"])

    def body(carry):
        index, state, _ = carry
        return (index + 1, *evaluate(state))

    _, state, terms = lax.while_loop(unfinished, body, (jnp.int32(0), state, terms))
    return state, terms
