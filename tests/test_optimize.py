import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from jnst import optimize
from jnst.config import HAVE_BETA2, OPTIMIZERS, OptimizerConfig
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


def _start(name="adam", learning_rate=0.05, value=0.5, dtype=jnp.float32, decay=0.0, **options):
    config = OptimizerConfig(optimizer=name, average=decay > 0, **options)
    rates = Rates(jnp.asarray(learning_rate, dtype), jnp.asarray(decay, dtype))
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


@pytest.mark.slow
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


@pytest.mark.slow
@each_optimizer
def test_a_canvas_without_gradient_stays_where_it_is(name):
    states, _ = _loop(*_start(name), steps=3, objective=_flat)
    np.testing.assert_array_equal(states[-1].canvas, 0.5)


def _flat(key, image):
    loss = 0 * jnp.sum(image)
    return loss, {"total": loss}


@pytest.mark.slow
@each_optimizer
def test_the_state_can_be_donated(name):
    state, rates, config = _start(name)
    expected = _loop(state, rates, config, 3)[0][-1]
    canvas = state.canvas
    for _ in range(3):
        state, _ = donating_step(KEY, state, quadratic, rates, config)
    assert canvas.is_deleted()
    np.testing.assert_allclose(state.canvas, expected.canvas, rtol=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def keyed(key, image):
    loss = (1 + jax.random.key_data(key)[1] % 5) * quadratic(key, image)[0]
    return loss, {"total": loss}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "decay"), [("adam", 0.9), pytest.param("lbfgs", 0.0, marks=pytest.mark.slow)])
def test_a_step_is_a_move_an_evaluation_and_a_judgement(name, decay):
    state, rates, config = _start(name, decay=decay)

    @jax.jit
    def by_hand(state):
        state = optimize.move(state, rates, config)
        key = jax.random.fold_in(KEY, state.step)
        loss = lambda canvas: keyed(key, optimize.image_of(canvas, config))[0]  # noqa: E731
        return optimize.judge(state, *jax.value_and_grad(loss)(state.canvas))

    for _ in range(4):
        whole, _ = step(KEY, state, keyed, rates, config)
        parts = by_hand(state)
        assert jax.tree.structure(parts) == jax.tree.structure(whole)
        for ours, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
        state = whole
    assert int(state.step) == 3


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.6, 0.99])
def test_the_outcome_is_the_weighted_mean_of_all_iterates(x64, decay):
    # Clipped ones: a rate this high runs into the bounds.
    start = _start("adam", 0.3, dtype=jnp.float64, decay=decay)
    states, _ = _loop(*start, steps=6)
    canvases = np.stack([state.canvas for state in states])
    assert (canvases.min(), canvases.max()) == (0, 1)
    for last, state in enumerate(states):  # from the first evaluation on, which leaves the start as it is
        shares = decay ** np.arange(last, -1, -1.0)
        expected = np.average(canvases[: last + 1], 0, shares)
        np.testing.assert_allclose(optimize.outcome(state, *start[1:]), expected, rtol=1e-12)


def test_without_averaging_the_outcome_is_the_best_canvas_and_no_average_is_held():
    start = _start("sgd", 0.05, value=0.0)
    states, totals = _loop(*start, steps=10)
    assert all(state.average is None for state in states)
    best = states[int(np.argmin(totals))].canvas
    assert np.abs(best - states[-1].canvas).max() > 0.01
    np.testing.assert_array_equal(optimize.outcome(states[-1], *start[1:]), best)


@pytest.mark.slow
def test_the_decays_of_averages_are_traced():
    state, rates, config = _start(decay=0.5)
    state, _ = minimize(KEY, state, quadratic, rates, config, 4)
    outcomes = jax.vmap(lambda decay: optimize.outcome(state, rates._replace(average_decay=decay), config))
    np.testing.assert_allclose(outcomes(jnp.array([0.5, 0.0]))[1], state.average, rtol=1e-6)


def test_beta2_reaches_adam(x64):
    states, _ = _loop(*_start("adam", 0.05, dtype=jnp.float64, projection="none", beta2=0.9), steps=8)
    x, m, v = np.full(GOAL.shape, 0.5), 0.0, 0.0
    for t, state in enumerate(states):
        if t:
            x, m, v = reference.adam_step(x, 2 * (x - GOAL), m, v, t, 0.05, b2=0.9)
        np.testing.assert_allclose(state.canvas, x, rtol=1e-12, err_msg=f"step {t}")


def test_beta2_is_of_the_optimizers_that_have_one_in_optax():
    having = {name for name in OPTIMIZERS if "b2" in inspect.signature(getattr(optax, name)).parameters}
    assert set(HAVE_BETA2) == having
    for name in HAVE_BETA2:
        optimize.make_optimizer(Rates(0.1), OptimizerConfig(optimizer=name, beta2=0.5))


LARGER = (5, 4)
GROWN_GOAL = np.linspace(0.9, 0.1, 5 * 4 * 3).reshape(5, 4, 3)


def grown_quadratic(key, image):
    loss = jnp.sum((image - jnp.asarray(GROWN_GOAL, image.dtype)) ** 2)
    return loss, {"total": loss}


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [False, True], ids=["best", "average"])
def test_adam_goes_on_at_a_larger_size_with_its_moments_and_its_count(x64, averaged):
    state, rates, config = _start(
        "adam", 0.05, dtype=jnp.float64, projection="none", beta2=0.99, decay=0.7 if averaged else 0.0
    )
    states, _ = _loop(state, rates, config, 6)
    x, m, v, canvases = np.full(GOAL.shape, 0.5), 0.0, 0.0, []
    for t in range(6):
        if t:
            x, m, v = reference.adam_step(x, 2 * (x - GOAL), m, v, t, 0.05, b2=0.99)
        canvases.append(x)
    if averaged:
        x = np.average(canvases, 0, 0.7 ** np.arange(5, -1, -1.0))
    x, m, v = (reference.resize(*pair) for pair in ((x, LARGER, "cubic"), (m, LARGER, "cubic"), (v, LARGER, "linear")))
    grown = optimize.grow(states[-1], LARGER, rates, config)
    assert (int(grown.step), int(grown.best_step), float(grown.best_total)) == (-1, -1, np.inf)
    canvases = []
    for t, state in enumerate(_loop(grown, rates, config, 5, grown_quadratic)[0]):
        if t:  # the sixth update, the seventh and so on: five were made before
            x, m, v = reference.adam_step(x, 2 * (x - GROWN_GOAL), m, v, 5 + t, 0.05, b2=0.99)
        np.testing.assert_allclose(state.canvas, x, rtol=1e-11, err_msg=f"step {t}")
        canvases.append(x)
        if averaged:  # an average of this size's iterates alone
            expected = np.average(canvases, 0, 0.7 ** np.arange(t, -1, -1.0))
            np.testing.assert_allclose(optimize.outcome(state, rates, config), expected, rtol=1e-11)


@pytest.mark.parametrize("scale", [1, 255])
def test_a_grown_canvas_is_clipped_where_the_interpolation_overshoots(x64, scale):
    state, rates, config = _start("adam", dtype=jnp.float64, canvas_scale=scale)
    edge = np.zeros(GOAL.shape)
    edge[:, 1:] = scale
    states = [state._replace(best_canvas=jnp.asarray(edge)) for _ in range(2)]
    exact = reference.resize(edge, LARGER, "cubic")
    assert exact.min() < 0 < scale < exact.max()
    clipped = optimize.grow(states[0], LARGER, rates, config)
    np.testing.assert_allclose(clipped.canvas, np.clip(exact, 0, scale), rtol=0, atol=1e-12 * scale)
    free = optimize.grow(states[1], LARGER, rates, dataclasses.replace(config, projection="none"))
    np.testing.assert_allclose(free.canvas, exact, rtol=0, atol=1e-12 * scale)


@pytest.mark.slow
@each_optimizer
@pytest.mark.parametrize("size", [LARGER, GOAL.shape[:2]], ids=["larger", "same"])
def test_every_optimizer_goes_on_at_the_next_size(name, size):
    state, rates, config = _start(name, 0.02, value=0.4)
    before = _loop(state, rates, config, 4)[0][-1]
    goal = grown_quadratic if size == LARGER else quadratic
    grown = optimize.grow(before, size, rates, config)
    like = optimize.init(jnp.zeros((*size, 3), jnp.float32), rates, config)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (grown, like)]
    assert shapes[0] == shapes[1]  # one program serves a first scale and a later one of its size
    moments = [leaf for leaf in jax.tree.leaves(grown.opt_state) if leaf.shape == (*size, 3)]
    assert moments or name == "lbfgs"
    totals = []
    for _ in range(6):
        grown, terms = donating_step(KEY, grown, goal, rates, config)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grown))
        totals.append(float(terms["total"]))
    assert min(totals) < totals[0]


def test_second_moments_are_enlarged_without_falling_below_zero():
    # Of one pixel among zeros, where cubic interpolation would be negative beside it.
    dot = jnp.zeros(GOAL.shape).at[0, 0].set(1.0)
    for name, fields in (("adam", ["nu"]), ("amsgrad", ["nu", "nu_max"]), ("rmsprop", ["nu"]), ("adabelief", ["nu"])):
        state, rates, config = _start(name)
        state = state._replace(opt_state=jax.tree.map(lambda x: dot if x.shape == dot.shape else x, state.opt_state))
        grown = optimize.grow(state, LARGER, rates, config)
        found = dict(_named(grown.opt_state))
        for field in fields:
            np.testing.assert_allclose(found[field], reference.resize(dot, LARGER, "linear"), rtol=1e-6, atol=1e-7)
        if "mu" in found:
            np.testing.assert_allclose(found["mu"], reference.resize(dot, LARGER, "cubic"), rtol=1e-5, atol=1e-6)


def _named(state):
    return [(getattr(path[-1], "name", ""), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]


@pytest.mark.parametrize("search", ["none", pytest.param("zoom", marks=pytest.mark.slow)])
def test_lbfgs_begins_anew_at_the_next_size(search):
    state, rates, config = _start("lbfgs", 1.0, line_search=search)
    before = _loop(state, rates, config, 4)[0][-1]
    grown = optimize.grow(before, LARGER, rates, config)
    new = optimize.init(grown.canvas, rates, config)
    for ours, theirs in zip(jax.tree.leaves(grown), jax.tree.leaves(new), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(grown.canvas, reference.resize(before.best_canvas, LARGER, "cubic"), rtol=1e-5)


def test_a_total_that_is_not_finite_leaves_something_to_grow_from():
    start = _start("sgd", learning_rate=0.1, value=0.0)
    state, _ = minimize(KEY, start[0], _breaking(np.nan), *start[1:], 50)
    assert np.isnan(state.total)
    assert np.isfinite(optimize.grow(state, LARGER, *start[1:]).canvas).all()


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_no_step_holds_a_fast_fourier_transform(optimizer):
    # On a CPU its last bits depend on which of XLA's threads are free: a run would not give the same bytes twice.
    config = OptimizerConfig(optimizer=optimizer)
    state = optimize.init(jnp.zeros((8, 8, 3)), Rates(jnp.float32(1)), config)
    goal = lambda key, image: (jnp.sum(image**2), {"total": jnp.sum(image**2)})  # noqa: E731
    step = lambda state: optimize.step(jax.random.key(0), state, goal, Rates(jnp.float32(1)), config)  # noqa: E731
    assert "fft" not in jax.jit(step).lower(state).as_text()
