import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import grid, optimize
from jnst.config import OptimizerConfig
from jnst.types import Rates

TERMS = ("total", "content")
GOALS = jnp.linspace(0.2, 0.8, 3)


def objective(shared, choice, key, image):
    """A bowl around `choice`, not the same in all directions; past 1.5 it is not finite."""
    slope = shared["slope"][:, None, None]
    total = jnp.sum(slope * (image - choice) ** 2) + jnp.where(jnp.max(image) > 1.5, jnp.nan, 0)
    return total, {"total": total, "content": total / 2}


SHARED = {"slope": jnp.array([1.0, 3.0, 9.0, 2.0])}


def _lanes(config, rates, goals=GOALS, mesh=None):
    count = len(goals)
    canvases = jnp.linspace(0, 1, 16 * 4 * 5 * 3).reshape(16, 4, 5, 3)[:count] * config.canvas_scale
    keys = jax.random.split(jax.random.key(0), 16)[:count]
    return grid.begin(
        keys, canvases, goals, Rates(rates), config, terms=TERMS, mesh=mesh or grid.make_mesh(jax.devices())
    )


def _program(lanes, config, loop=False, mesh=None):
    mesh = mesh or grid.make_mesh(jax.devices())
    return grid.compile_steps(lanes, SHARED, objective=objective, config=config, mesh=mesh, loop=loop)


def _alone(config, rate, lane, steps):
    """One lane's run without the grid."""
    state, terms = optimize.init(jnp.array(lane.state.canvas, copy=True), Rates(rate), config), None
    goal = lambda key, image: objective(SHARED, lane.choice, key, image)  # noqa: E731
    step = jax.jit(lambda state: optimize.step(lane.key, state, goal, Rates(rate), config))
    best = None
    for _ in range(steps + 1):
        state, terms = step(state)
        if int(state.best_step) == int(state.step):
            best = terms
    return state, terms, best


CONFIGS = [OptimizerConfig(optimizer="adam"), OptimizerConfig(history=3), OptimizerConfig(canvas_scale=255)]


def test_product_has_the_last_axis_fastest():
    runs = grid.product({"a": [1, 2], "b": "xy", "c": [0]})
    assert runs == [{"a": a, "b": b, "c": 0} for a in (1, 2) for b in "xy"]
    assert grid.product({}) == [{}]


@pytest.mark.slow
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=["adam", "lbfgs", "lbfgs 255"])
def test_lanes_are_the_runs_alone(x64, config, loop):
    rates = jnp.array([0.01, 0.05, 0.2]) * (1 if config.optimizer == "adam" else 5)
    first = _lanes(config, rates)
    alone = [_alone(config, rates[i], jax.tree.map(lambda leaf, i=i: leaf[i], first), 9) for i in range(3)]
    program = _program(first, config, loop)
    lanes = first
    for count in (1, 4, 5) if loop else [None] * 10:
        lanes = program.advance(lanes, SHARED, *([] if count is None else [jnp.int32(count)]))
    for i, (state, terms, best) in enumerate(alone):
        ours = grid.lane_of((lanes.state, lanes.terms, lanes.best_terms), i)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves((state, terms, best)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    assert float(jnp.max(lanes.terms["total"] / jnp.array([one[1]["total"] for one in alone]))) < 1.001


@pytest.mark.slow
def test_a_lane_that_is_not_finite_keeps_its_best_and_harms_no_other():
    config = OptimizerConfig(optimizer="sgd", projection="none")
    rates = jnp.array([0.01, 10.0, 0.01])  # the second one leaps out of the bowl
    lanes = _lanes(config, rates)
    start = grid.lane_of(lanes.state.canvas, 1)
    program = _program(lanes, config)
    for _ in range(6):
        lanes = program.advance(lanes, SHARED)
    assert lanes.bad_step.tolist() == [-1, 1, -1]
    assert np.isnan(lanes.bad_terms["total"][1])
    assert lanes.state.best_step.tolist()[1] == 0
    assert min(lanes.state.best_step.tolist()[::2]) > 2
    np.testing.assert_array_equal(grid.lane_of(lanes.state.best_canvas, 1), start)
    assert np.isfinite(grid.lane_of(lanes.best_terms["content"], 1))


@pytest.mark.slow
def test_a_lane_that_comes_back_has_ended_all_the_same():
    """As a run alone does: it stops at the first total that is not finite."""
    config = OptimizerConfig(optimizer="adam", projection="none")

    def through_a_wall(shared, choice, key, image):
        total = objective(shared, choice, key, image)[0]
        total += jnp.where(jnp.abs(image[0, 0, 0] - 0.5) < 0.2, jnp.inf, 0)
        return total, {"total": total, "content": total}

    lanes = _lanes(config, jnp.array([0.1] * 3), goals=jnp.full(3, 0.9))
    program = grid.compile_steps(
        lanes, SHARED, objective=through_a_wall, config=config, mesh=grid.make_mesh(jax.devices()), loop=False
    )
    totals = []
    for _ in range(12):
        lanes = program.advance(lanes, SHARED)
        totals.append(float(lanes.terms["total"][0]))
    bad = int(lanes.bad_step[0])
    assert 0 < bad < 11
    assert min(totals[bad:]) < min(totals[:bad])  # it came back, and lower than ever
    assert int(lanes.state.best_step[0]) < bad
    assert float(lanes.best_terms["total"][0]) == min(totals[:bad])


@pytest.mark.slow
def test_states_that_were_kept_go_on_where_they_stood():
    config = OptimizerConfig(history=3)
    rates = jnp.array([0.5, 0.7, 1.0])
    lanes = _lanes(config, rates)
    program = _program(lanes, config)
    for _ in range(4):
        lanes = program.advance(lanes, SHARED)
    states = {i: [np.array(leaf) for leaf in jax.tree.leaves(grid.lane_of(lanes.state, i))] for i in (0, 2)}
    terms = {i: grid.lane_of(lanes.best_terms, i) for i in (0, 2)}
    again = grid.put_states(_lanes(config, rates), states, terms)
    assert again.state.step.tolist() == [3, -1, 3]
    for _ in range(3):
        lanes, again = program.advance(lanes, SHARED), program.advance(again, SHARED)
    for i in (0, 2):
        for a, b in zip(
            *map(jax.tree.leaves, (grid.lane_of(lanes.state, i), grid.lane_of(again.state, i))), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert int(again.state.step[1]) == 2
    with pytest.raises(ValueError, match="other shapes"):
        grid.put_states(_lanes(OptimizerConfig(history=4), rates), states, terms)


@pytest.mark.slow
def test_the_program_is_traced_once(monkeypatch):
    traces = []

    def counted(shared, choice, key, image):
        traces.append(1)
        return objective(shared, choice, key, image)

    config = OptimizerConfig()
    for loop in (False, True):
        lanes = _lanes(config, jnp.ones(3))
        mesh = grid.make_mesh(jax.devices())
        program = grid.compile_steps(lanes, SHARED, objective=counted, config=config, mesh=mesh, loop=loop)
        extra = [jnp.int32(2)] if loop else []
        for goals in (GOALS * 1, GOALS / 2):
            with jax.no_tracing():
                lanes = program.advance(lanes, SHARED, *extra)._replace(choice=goals)
        assert len(traces) == 1 + loop
        assert program.bytes > 0


@pytest.mark.slow
def test_eight_devices_do_the_same_without_a_word_to_each_other():
    """In a process of its own: how many devices a CPU has is settled at the start."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__], env=environment, check=True, timeout=300)


def _on_eight_devices():
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 8
    goals = jnp.linspace(0.1, 0.9, 16)
    for config in CONFIGS[:2]:
        rates = jnp.linspace(0.1, 1, 16)
        found = []
        for count, lanes_of_all in ((1, 16), (8, 16), (8, 8)):
            mesh = grid.make_mesh(jax.devices()[:count])
            lanes = _lanes(config, rates[:lanes_of_all], goals[:lanes_of_all], mesh)
            assert len(lanes.state.canvas.sharding.device_set) == count
            program = _program(lanes, config, loop=count == 8, mesh=mesh)
            text = program.advance.as_text()
            assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))
            for _ in range(12):
                lanes = program.advance(lanes, SHARED, *([jnp.int32(1)] if program.loops else []))
            assert len(lanes.state.canvas.sharding.device_set) == count
            found.append([np.array(leaf)[:8] for leaf in jax.tree.leaves(lanes.state)])
        for ours in found[1:]:
            for a, b in zip(ours, found[0], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


if __name__ == "__main__":
    _on_eight_devices()
    assert Path(__file__).name == "test_grid.py"
