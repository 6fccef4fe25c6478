import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jnst import optimize
from jnst.config import OptimizerConfig
from jnst.lbfgs import LEAST_CURVATURE, LONGEST, lbfgs
from jnst.types import Rates

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(12, 12))
MATRIX = MATRIX @ MATRIX.T / 12 + 0.2 * np.eye(12)
START = 3 * RNG.normal(size=12)


def slope(x):
    """Of x A x / 2 + sum cos x: a hilly bowl."""
    return MATRIX @ x - np.sin(x)


def value(x):
    return 0.5 * x @ (MATRIX @ x) + jnp.sum(jnp.cos(x))


def reference(start, steps, history, rate=1.0, gradient=slope):
    """Iterates by lists and loops, as the textbook has them, in float64 NumPy."""
    x, pairs, scale, found = np.array(start), [], 1.0, [np.array(start)]
    before = move = None
    for step in range(steps):
        g = gradient(x)
        if before is not None:
            s, y = move, g - before
            if y @ s > 1e-10:
                pairs = [*pairs, (s, y)][-history:]
                scale = (y @ s) / (y @ y)
        q, alphas = -g, []
        for s, y in reversed(pairs):
            alphas.append(s @ q / (y @ s))
            q = q - alphas[-1] * y
        q = scale * q
        for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
            q = q + (alpha - y @ q / (y @ s)) * s
        move = (min(1, 1 / np.abs(g).sum()) if step == 0 else 1) * rate * q
        before, x = g, x + move
        found.append(x)
    return np.array(found)


def iterates(start, steps, gradient=slope, **options):
    solver = lbfgs(**options)
    update = jax.jit(solver.update)
    x, state, found = jnp.asarray(start), solver.init(jnp.asarray(start)), [np.array(start)]
    for _ in range(steps):
        move, state = update(jnp.asarray(gradient(np.asarray(x))), state, x)
        x = x + move
        found.append(np.asarray(x))
    return np.array(found), state


@pytest.mark.slow
@pytest.mark.parametrize("history", [1, 3, 50])
def test_iterates_are_the_textbooks(x64, history):
    found, state = iterates(START, 20, history=history)
    np.testing.assert_allclose(found, reference(START, 20, history), rtol=1e-7, atol=1e-9)
    assert state.moves.shape == (history, 12)


@pytest.mark.slow
def test_a_learning_rate_scales_every_step(x64):
    found, _ = iterates(START, 8, history=5, learning_rate=0.5)
    np.testing.assert_allclose(found, reference(START, 8, 5, rate=0.5), rtol=1e-9)


@pytest.mark.slow
def test_the_first_step_is_short(x64):
    found, _ = iterates(START, 1)
    g = slope(START)
    np.testing.assert_allclose(found[1] - found[0], -g * min(1, 1 / np.abs(g).sum()), rtol=1e-12)
    small = 1e-3 * np.ones(12)  # |g|_1 < 1: the whole gradient
    move, _ = lbfgs().update(jnp.asarray(small), lbfgs().init(jnp.zeros(12)))
    np.testing.assert_allclose(move, -small, rtol=1e-12)


@pytest.mark.slow
def test_pairs_without_curvature_are_not_kept(x64):
    solver = lbfgs(history=4)
    state = solver.init(jnp.zeros(3))
    gradient = jnp.array([0.1, -0.2, 0.3])
    for _ in range(3):  # a plane: y = 0
        move, state = solver.update(gradient, state)
    assert (int(state.pairs), int(state.count)) == (0, 3)
    np.testing.assert_allclose(move, -gradient)
    _, state = solver.update(2 * gradient, state)  # a dome: the slope grew as we went down it, y.s < 0
    assert int(state.pairs) == 0
    _, state = solver.update(gradient * (1 - 2 * LEAST_CURVATURE), state)
    kept = int(state.pairs)
    assert kept == 1
    assert np.isfinite(np.asarray(state.rho)).all()


@pytest.mark.slow
def test_hold_changes_nothing():
    solver = lbfgs(history=3)
    start = solver.init(jnp.ones(4))
    move, state = solver.update(jnp.full(4, jnp.nan), start, hold=True)
    np.testing.assert_array_equal(move, 0)
    for old, new in zip(start, state, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_a_box_is_never_left_and_its_minimum_is_found(x64):
    box = (0.0, 1.0)
    goal = np.array([-1.0, 0.25, 0.5, 2.0, 0.75, 3.0])
    weights = np.array([1.0, 10, 3, 1, 30, 5])
    found, _ = iterates(np.full(6, 0.5), 40, lambda x: weights * (x - goal), history=5, box=box)
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found[-1], np.clip(goal, *box), atol=1e-9)


@pytest.mark.slow
def test_vmapped_runs_are_the_looped_ones(x64):
    starts = np.stack([START, -START, 0.1 * START])
    rates = jnp.array([1.0, 0.5, 0.7])

    def run(start, rate):
        def body(carry, _):
            x, state = carry
            move, state = lbfgs(rate, history=4).update(jax.grad(value)(x), state)
            return (x + move, state), x + move

        return jax.lax.scan(body, (start, lbfgs(rate, history=4).init(start)), length=10)[1]

    together = jax.jit(jax.vmap(run))(starts, rates)
    alone = np.stack([jax.jit(run)(start, rate) for start, rate in zip(starts, rates, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_buffers_are_written_in_place():
    """The pairs of a large picture are hundreds of megabytes: donated, they are not copied."""
    solver = lbfgs(history=50)
    shape = jax.ShapeDtypeStruct((64, 64, 3), jnp.float32)
    state = jax.eval_shape(solver.init, shape)
    compiled = jax.jit(solver.update, donate_argnums=1).lower(shape, state).compile().memory_analysis()
    buffers = 2 * 50 * 64 * 64 * 3 * 4
    assert compiled.temp_size_in_bytes < buffers / 4
    assert compiled.alias_size_in_bytes >= buffers


@pytest.mark.slow
def test_a_preconditioner_is_a_change_of_coordinates(x64):
    root = np.diag(np.geomspace(0.5, 2, 12)) + 0.02 * MATRIX  # x = root z, P = root root^T
    start = 1e-3 * START  # so small a slope that the first step has its whole length in either
    through, _ = iterates(start, 12, history=4, precondition=lambda v: (root @ root.T) @ v)
    z = reference(np.linalg.solve(root, start), 12, 4, gradient=lambda z: root.T @ slope(root @ z))
    np.testing.assert_allclose(through, z @ root.T, rtol=1e-7, atol=1e-10)
    plain, _ = iterates(start, 12, history=4)
    assert np.abs(plain[-1] - through[-1]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("preconditioner", "same"), [("none", True), ("fourier", False)])
def test_the_canvas_is_preconditioned_where_that_is_asked_for(x64, preconditioner, same):
    config = OptimizerConfig(preconditioner=preconditioner, history=3, projection="none")
    canvas = jnp.asarray(RNG.normal(size=(6, 8, 3)))
    states = []
    for solver in (optimize.make_optimizer(Rates(jnp.float64(1)), config), lbfgs(history=3)):
        x, state = canvas, solver.init(canvas)
        for _ in range(4):
            move, state = solver.update(jnp.sin(x) + x, state, x, hold=False)
            x = x + move
        states.append(x)
    assert np.allclose(*states, rtol=0, atol=1e-12) == same


@pytest.mark.slow
def test_one_step_function_serves_both_line_searches(x64):
    def objective(key, image):
        loss = jnp.sum((image - 0.3) ** 4) + 10 * jnp.sum((image[1:] - image[:-1] - 0.05) ** 2)
        return loss, {"total": loss}

    ends = {}
    for search in ("none", "zoom"):
        config = OptimizerConfig(optimizer="lbfgs", line_search=search, history=5)
        rates = Rates(jnp.asarray(1.0))
        state = optimize.init(jnp.linspace(0, 1, 27).reshape(3, 3, 3), rates, config)
        step = jax.jit(optimize.step, static_argnames=("objective", "config"))
        totals = []
        for _ in range(15):
            state, terms = step(jax.random.key(0), state, objective, rates, config)
            totals.append(float(terms["total"]))
        ends[search] = totals
        assert totals[-1] < 1e-2 * totals[0]
        assert int(state.step) == 14
    assert ends["zoom"][0] == ends["none"][0]
    assert all(after <= before for before, after in zip(ends["zoom"], ends["zoom"][1:], strict=False))  # Wolfe's first


@pytest.mark.slow
def test_zoom_is_optaxs(x64):
    """Without a projection the iterates are those of optax.lbfgs driven as its documentation drives it."""
    config = OptimizerConfig(optimizer="lbfgs", line_search="zoom", history=6, projection="none")
    rates = Rates(jnp.asarray(1.0))
    objective = lambda key, image: (value(image.ravel()), {"total": value(image.ravel())})  # noqa: E731
    start = jnp.asarray(START.reshape(2, 2, 3))
    state, found = optimize.init(start, rates, config), []
    for _ in range(8):
        state, _ = optimize.step(jax.random.key(0), state, objective, rates, config)
        found.append(np.asarray(state.canvas))
    solver, x = optax.lbfgs(memory_size=6), start
    goal, memory = lambda x: value(x.ravel()), optax.lbfgs(memory_size=6).init(start)
    for index in range(8):
        np.testing.assert_allclose(found[index], x, rtol=1e-8, atol=1e-10)
        loss, gradient = jax.value_and_grad(goal)(x)
        move, memory = solver.update(gradient, memory, x, value=loss, grad=gradient, value_fn=goal)
        x = x + move


@pytest.mark.slow
def test_within_a_box_a_step_is_bounded_and_outside_of_one_it_is_not():
    """A pair of almost no curvature asks for an enormous step."""
    wanted = {}
    for box in (None, (0.0, 255.0)):
        solver = lbfgs(history=3, box=box)
        x = jnp.full((4, 4, 3), 128.0)
        state = solver.init(x)
        for gradient in (1.0, 1.0 - 1e-4):
            update, state = solver.update(jnp.full(x.shape, gradient), state, x)
            x = x + update
        wanted[box] = float(jnp.sqrt(jnp.mean(update**2)))
    assert wanted[None] > 200
    np.testing.assert_allclose(wanted[(0.0, 255.0)], LONGEST * 255, rtol=1e-5)
