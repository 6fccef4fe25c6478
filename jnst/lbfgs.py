"""L-BFGS without a line search, as neural-style runs it, as a pure optax transformation that vmaps.

Nocedal 1980 (https://doi.org/10.1090/S0025-5718-1980-0572855-7), with the choices of torch.optim.LBFGS, as neural-style
has always run it: a first step of min(1, 1 / |g|_1) along -g, whole steps after it, a pair (s, y) kept only if
y.s > 1e-10, and H_0 = y.s / y.y of the last pair kept. Departures: torch stops at a direction that climbs; here the run
goes on, and whoever drives it keeps the best iterate. Within a box, a step that is too long to be meant is shortened.

The pairs lie in two buffers of fixed size, written in a circle: no shape depends on how many there are.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

__all__ = ["LEAST_CURVATURE", "LONGEST", "LbfgsState", "lbfgs"]

LEAST_CURVATURE = 1e-10
"""A pair with y.s no larger than this is not kept."""

LONGEST = 0.03
"""Within a box, the root mean square of a step over the box's width is no larger than this."""


class LbfgsState(NamedTuple):
    """What L-BFGS knows of the past; `x` stands for the shape of what is optimized."""

    count: jax.Array  # int32: updates made
    pairs: jax.Array  # int32: pairs kept, the overwritten ones too
    gradient: jax.Array  # x, before the last update
    update: jax.Array  # x, the last one
    moves: jax.Array  # [history, *x], s
    changes: jax.Array  # [history, *x], y
    rho: jax.Array  # [history], 1 / y.s
    scale: jax.Array  # [], of H_0


def lbfgs(
    learning_rate: jax.Array | float = 1.0,
    *,
    history: int = 100,
    box: tuple[float, float] | None = None,
    precondition: Callable[[jax.Array], jax.Array] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The transformation. Its `update` needs `params` only where there is a `box`.

    Args:
        learning_rate: Factor of every step; may be traced.
        history: How many pairs are kept at most.
        box: Bounds that the iterates must keep. A step is cut off at them, coordinates that lie on one and are pushed
            outwards stay, and what was cut off is no part of the pair.
        precondition: A linear map P, symmetric and positive, of which H_0 is a multiple; without it, of the identity.
            The updates are those of L-BFGS on z with x = P^(1/2) z, but for the length of the first one.

    >>> solver = lbfgs(history=5)
    >>> x, state = jnp.array([3.0, -2.0]), solver.init(jnp.zeros(2))
    >>> for _ in range(12):
    ...     update, state = solver.update(jnp.array([1.0, 10.0]) * x, state)
    ...     x = x + update
    >>> bool(jnp.abs(x).max() < 1e-3)
    True
    """

    precondition = precondition or (lambda x: x)

    def init(params):
        shape, dtype = jnp.shape(params), jnp.result_type(params)
        return LbfgsState(
            count=jnp.int32(0),
            pairs=jnp.int32(0),
            gradient=jnp.zeros(shape, dtype),
            update=jnp.zeros(shape, dtype),
            moves=jnp.zeros((history, *shape), dtype),
            changes=jnp.zeros((history, *shape), dtype),
            rho=jnp.zeros(history, dtype),
            scale=jnp.ones((), dtype),
        )

    def update(gradient, state, params=None, *, hold=False, **extra):
        """`hold`: nothing has been evaluated yet; the update is 0 and the state stays."""
        state = _remember(gradient, state, precondition)
        direction = -gradient
        if box is not None:
            free = ~(((params <= box[0]) & (gradient > 0)) | ((params >= box[1]) & (gradient < 0)))
            direction = jnp.where(free, direction, 0)
        direction = _inverse_hessian(direction, state, precondition)
        first = jnp.minimum(1.0, 1.0 / jnp.sum(jnp.abs(gradient)))
        move = jnp.where(state.count == 0, first, 1.0) * learning_rate * direction
        if box is not None:
            # Without a line search nothing else holds back a step that a bad pair makes far too long.
            length = jnp.sqrt(jnp.mean(move**2))
            longest = LONGEST * (box[1] - box[0])
            move = move * jnp.where(length > longest, longest / jnp.where(length > longest, length, 1), 1)
            move = jnp.where(free, jnp.clip(params + move, *box) - params, 0)
        move = jnp.where(hold, 0, move)
        return move, state._replace(
            count=state.count + jnp.where(hold, 0, 1),
            gradient=jnp.where(hold, state.gradient, gradient),
            update=jnp.where(hold, state.update, move),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _remember(gradient, state, precondition):
    """The state with the pair that the last update and this gradient make, where it is kept."""
    change = gradient - state.gradient
    curvature = jnp.vdot(change, state.update)
    kept = (state.count > 0) & (curvature > LEAST_CURVATURE)
    place = state.pairs % state.rho.shape[0]

    def put(buffer, row):  # the row alone is chosen, so that the buffer can be written in place
        old = lax.dynamic_index_in_dim(buffer, place, keepdims=False)
        return lax.dynamic_update_index_in_dim(buffer, jnp.where(kept, row, old), place, 0)

    safe = jnp.where(kept, curvature, 1)
    return state._replace(
        pairs=state.pairs + kept.astype(jnp.int32),
        moves=put(state.moves, state.update),
        changes=put(state.changes, change),
        rho=put(state.rho, 1 / safe),
        scale=jnp.where(kept, safe / jnp.where(kept, jnp.vdot(change, precondition(change)), 1), state.scale),
    )


def _inverse_hessian(direction, state, precondition):
    """The two-loop recursion: the inverse Hessian's estimate times `direction`."""
    history = state.rho.shape[0]
    used = jnp.minimum(state.pairs, history)

    def pair(back):
        place = (state.pairs - 1 - back) % history
        row = lambda buffer: lax.dynamic_index_in_dim(buffer, place, keepdims=False)  # noqa: E731
        return place, row(state.moves), row(state.changes), row(state.rho)

    def newest_first(back, carry):
        direction, alphas = carry
        place, move, change, rho = pair(back)
        alpha = rho * jnp.vdot(move, direction)
        return direction - alpha * change, alphas.at[place].set(alpha)

    def oldest_first(index, direction):
        place, move, change, rho = pair(used - 1 - index)
        beta = rho * jnp.vdot(change, direction)
        return direction + (alphas[place] - beta) * move

    direction, alphas = lax.fori_loop(0, used, newest_first, (direction, jnp.zeros_like(state.rho)))
    return lax.fori_loop(0, used, oldest_first, state.scale * precondition(direction))
