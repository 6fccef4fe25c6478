"""An optax state loop over a canvas: any scalar objective of an image, minimized step by step.

The canvas is what the optimizer moves: the image times `canvas_scale`. Each step updates first and evaluates after,
so a state always holds a canvas with its own terms and gradient; the first step of a new state only evaluates.
One function serves the first step and all others: one program is compiled.
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

__all__ = ["Objective", "OptimState", "image_of", "init", "make_optimizer", "minimize", "step"]

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


def make_optimizer(rates: Rates, config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """The named optimizer, built inside the traced function: its learning rate may be traced."""
    if config.optimizer != "lbfgs":
        return _holding(getattr(optax, config.optimizer)(rates.learning_rate, **OPTIMIZERS[config.optimizer]))
    if config.line_search == "zoom":
        return _holding(optax.lbfgs(memory_size=config.history))
    box = (0, config.canvas_scale) if config.projection == "clip" else None
    precondition = ops.fourier_precondition if config.preconditioner == "fourier" else None
    return lbfgs(rates.learning_rate, history=config.history, box=box, precondition=precondition)


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
    count = state.step + 1
    key = jax.random.fold_in(key, count)
    loss = lambda canvas: objective(key, image_of(canvas, config))  # noqa: E731
    updates, opt_state = make_optimizer(rates, config).update(
        state.gradient,
        state.opt_state,
        state.canvas,
        hold=state.step < 0,
        value=state.total,
        grad=state.gradient,
        value_fn=lambda canvas: loss(canvas)[0],
    )
    canvas = optax.apply_updates(state.canvas, updates)
    if config.projection == "clip":
        canvas = jnp.where(state.step < 0, canvas, jnp.clip(canvas, 0, config.canvas_scale))
    (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(canvas)
    better = jnp.isfinite(total) & (total < state.best_total)
    new = OptimState(
        canvas=canvas,
        total=total,
        gradient=gradient,
        opt_state=opt_state,
        step=count,
        best_canvas=jnp.where(better, canvas, state.best_canvas),
        best_total=jnp.where(better, total, state.best_total),
        best_step=jnp.where(better, count, state.best_step),
    )
    return new, terms


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
