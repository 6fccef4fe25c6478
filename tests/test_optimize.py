import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from jnst import optimize
from jnst.config import OPTIMIZERS, OptimizerConfig
from jnst.types import Rates

QUICK = ("adam", "lbfgs")
each_optimizer = pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS if name not in QUICK)]
)
KEY = jax.random.key(7)
GOAL = np.linspace(0.2, 0.8, 2 * 3 * 3).reshape(2, 3, 3)


def quadratic(key, image):
    loss = jnp.sum((image - jnp.asarray(GOAL, image.dtype)) ** 2)
    return loss, {"total": loss}


def noisy(key, image):
    return quadratic(key, image + 0.1 * jax.random.normal(key, image.shape, image.dtype))


step = jax.jit(optimize.step, static_argnames=("objective", "config"))
donating_step = jax.jit(optimize.step, static_argnames=("objective", "config"), donate_argnames="state")
minimize = jax.jit(optimize.minimize, static_argnames=("objective", "config"))


def _start(name="adam", learning_rate=0.05, value=0.5, dtype=jnp.float32, **options):
    config, rates = OptimizerConfig(optimizer=name, **options), Rates(jnp.asarray(learning_rate, dtype))
    return optimize.init(jnp.full(GOAL.shape, value, dtype), rates, config), rates, config


def _loop(state, rates, config, steps, objective=quadratic):
    states, totals = [], []
    for _ in range(steps):
        state, terms = step(KEY, state, objective, rates, config)
        states.append(state)
        totals.append(float(terms["total"]))
    return states, totals


def test_the_table_names_optimizers_of_optax():
    assert "adam" in OPTIMIZERS
    assert all(callable(getattr(optax, name)) for name in OPTIMIZERS)


@each_optimizer
def test_the_first_step_only_evaluates(name):
    state, rates, config = _start(name)
    new, terms = step(KEY, state, quadratic, rates, config)
    np.testing.assert_array_equal(new.canvas, state.canvas)
    for old, now in zip(jax.tree.leaves(state.opt_state), jax.tree.leaves(new.opt_state), strict=True):
        np.testing.assert_array_equal(old, now)
    np.testing.assert_allclose(terms["total"], np.sum((0.5 - GOAL) ** 2), rtol=1e-6)
    np.testing.assert_allclose(new.gradient, 2 * (0.5 - GOAL), rtol=1e-5, atol=1e-7)
    assert (int(state.step), int(new.step), int(new.best_step)) == (-1, 0, 0)


@each_optimizer
def test_the_loss_falls_and_the_best_canvas_is_kept(name):
    states, totals = _loop(*_start(name), steps=25)
    best = int(np.argmin(totals))
    assert totals[best] < 0.5 * totals[0]
    assert int(states[-1].best_step) == best
    assert float(states[-1].best_total) == totals[best]
    np.testing.assert_array_equal(states[-1].best_canvas, states[best].canvas)


@each_optimizer
def test_a_canvas_without_gradient_stays_where_it_is(name):
    states, _ = _loop(*_start(name), steps=3, objective=_flat)
    np.testing.assert_array_equal(states[-1].canvas, 0.5)


def _flat(key, image):
    loss = 0 * jnp.sum(image)
    return loss, {"total": loss}


@each_optimizer
def test_the_state_can_be_donated(name):
    state, rates, config = _start(name)
    expected = _loop(state, rates, config, 3)[0][-1]
    canvas = state.canvas
    for _ in range(3):
        state, _ = donating_step(KEY, state, quadratic, rates, config)
    assert canvas.is_deleted()
    np.testing.assert_allclose(state.canvas, expected.canvas, rtol=1e-6)


@each_optimizer
def test_vmapped_over_learning_rates_equals_looped(name):
    _, _, config = _start(name)
    learning_rates = jnp.array([0.01, 0.08], jnp.float32)
    canvas = jnp.full(GOAL.shape, 0.5, jnp.float32)

    def run(learning_rate):
        rates = Rates(learning_rate)
        return optimize.minimize(KEY, optimize.init(canvas, rates, config), quadratic, rates, config, 6)[0]

    many = jax.jit(jax.vmap(run))(learning_rates)
    for index, learning_rate in enumerate(learning_rates):
        single = _loop(*_start(name, learning_rate), steps=6)[0][-1]
        np.testing.assert_allclose(many.canvas[index], single.canvas, rtol=1e-5)
        assert int(many.best_step[index]) == int(single.best_step)


def test_adam_follows_the_paper_step_by_step(x64):
    state, rates, config = _start("adam", 0.05, dtype=jnp.float64, projection="none")
    states, _ = _loop(state, rates, config, 12)
    x, m, v = np.full(GOAL.shape, 0.5), 0.0, 0.0
    for t, state in enumerate(states):
        if t:
            x, m, v = reference.adam_step(x, 2 * (x - GOAL), m, v, t, 0.05)
        np.testing.assert_allclose(state.canvas, x, rtol=1e-12, err_msg=f"step {t}")


def test_minimize_equals_as_many_steps():
    start = _start()
    states, totals = _loop(*start, steps=7, objective=noisy)
    state, terms = minimize(KEY, start[0], noisy, *start[1:], 7)
    assert int(state.step) == 6
    np.testing.assert_allclose(state.canvas, states[-1].canvas, rtol=1e-5)
    np.testing.assert_allclose(terms["total"], totals[-1], rtol=1e-4)


def test_chunks_equal_the_whole():
    state, rates, config = _start()
    whole, terms = minimize(KEY, state, noisy, rates, config, 7)
    first, _ = minimize(KEY, state, noisy, rates, config, 3)
    both, last = minimize(KEY, first, noisy, rates, config, 4)
    for ours, theirs in zip(jax.tree.leaves((both, last)), jax.tree.leaves((whole, terms)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_each_step_has_its_own_noise():
    _, totals = _loop(*_start(learning_rate=1e-30), steps=4, objective=noisy)
    assert len(set(totals)) == 4


def test_the_best_iterate_is_kept_when_the_loss_goes_up():
    states, totals = _loop(*_start("sgd", 0.05, value=0.0), steps=10)  # momentum carries it past the goal
    best = int(np.argmin(totals))
    assert 0 < best < 9
    assert totals[-1] > 10 * totals[best]
    assert int(states[-1].best_step) == best
    np.testing.assert_array_equal(states[-1].best_canvas, states[best].canvas)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_total_that_is_not_finite_is_never_the_best_and_ends_the_loop(bad):
    start = _start("sgd", learning_rate=0.1, value=0.0)
    goal = _breaking(bad)
    state, terms = minimize(KEY, start[0], goal, *start[1:], 50)
    broken = int(state.step)
    assert 1 <= broken < 40
    np.testing.assert_equal(float(terms["total"]), bad)
    assert np.isfinite(state.best_total)
    assert np.isfinite(state.best_canvas).all()
    assert int(state.best_step) == broken - 1
    again, _ = step(KEY, state, goal, *start[1:])
    assert int(again.best_step) == broken - 1


@functools.cache
def _breaking(bad):
    def objective(key, image):
        loss = jnp.where(image[1, 2, 2] > 0.3, bad, jnp.sum((image - 1) ** 2))
        return loss, {"total": loss}

    return objective


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_start_that_is_not_finite_leaves_no_best_step(bad):
    start = _start(value=0.9)
    state, _ = step(KEY, start[0], _breaking(bad), *start[1:])
    assert int(state.best_step) == -1
    assert np.isposinf(state.best_total)


@pytest.mark.parametrize("scale", [1, 255])
def test_clip_keeps_the_canvas_in_the_displayable_range(scale):
    states, _ = _loop(*_start("sgd", 30.0 * scale**2, value=0.5 * scale, canvas_scale=scale), steps=4)
    canvases = np.stack([state.canvas for state in states])
    assert (canvases.min(), canvases.max()) == (0, scale)


def test_none_lets_the_canvas_leave_the_range():
    states, _ = _loop(*_start("sgd", 30.0, projection="none"), steps=4)
    assert np.abs(states[-1].canvas).max() > 2


def test_a_canvas_of_255_with_255_times_the_rate_takes_adam_the_same_way(x64):
    ones, _ = _loop(*_start("adam", 0.02, dtype=jnp.float64), steps=10, objective=_steep)
    bytes_, _ = _loop(
        *_start("adam", 0.02 * 255, value=0.5 * 255, dtype=jnp.float64, canvas_scale=255), steps=10, objective=_steep
    )
    for one, byte in zip(ones, bytes_, strict=True):
        np.testing.assert_allclose(byte.canvas / 255, one.canvas, rtol=1e-6)
    assert np.abs(np.asarray(ones[-1].canvas) - 0.5).max() > 0.1


def _steep(key, image):
    # Large gradients: beside them Adam's epsilon, which has no unit, is nothing.
    loss = 1e6 * quadratic(key, image)[0]
    return loss, {"total": loss}


def test_the_image_is_the_canvas_over_its_scale():
    np.testing.assert_allclose(optimize.image_of(jnp.full((1, 1, 3), 51.0), OptimizerConfig(canvas_scale=255)), 0.2)


def test_one_trace_serves_the_first_step_and_all_others():
    traces = []

    def counted(key, image):
        traces.append(1)
        return quadratic(key, image)

    state, rates, config = _start()
    for rate in (0.1, 0.2, 0.3, 0.4):
        state, _ = donating_step(KEY, state, counted, Rates(jnp.float32(rate)), config)
    assert len(traces) == 1


def test_one_trace_serves_chunks_of_every_length():
    traces = []

    def counted(key, image):
        traces.append(1)
        return quadratic(key, image)

    state, rates, config = _start()
    state, _ = minimize(KEY, state, counted, rates, config, jnp.int32(1))
    once = len(traces)
    for count in (2, 5, 3):
        state, _ = minimize(KEY, state, counted, rates, config, jnp.int32(count))
    assert len(traces) == once
    assert int(state.step) == 10
