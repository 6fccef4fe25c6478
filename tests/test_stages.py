"""Stages of any goal: compiled once, alone or in lanes, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import loop, stages
from jnst.config import OptimizerConfig
from jnst.errors import InputError
from jnst.types import Rates

KEY = jax.random.key(1)
SGD = OptimizerConfig(optimizer="sgd", preconditioner="none")
RATES = Rates(jnp.float32(0.25))
SHAPE = (2, 3, 3)
TRACES = []


@dataclasses.dataclass(frozen=True)
class Near:
    """Half the squared distance from `shared + own`, and a slope that the key draws."""

    noise: float = 0.0

    def __call__(self, key, image, shared, own):
        TRACES.append(self)
        aim = shared if isinstance(own, tuple) else shared + own
        slope = self.noise * jax.random.normal(key, image.shape)
        terms = {"near": jnp.sum((image - aim) ** 2) / 2, "noise": jnp.sum(slope * image)}
        total = terms["near"] + terms["noise"]
        return total, {"total": total, **terms}


def _aim(value=0.8):
    return jnp.full(SHAPE, value, jnp.float32)


def _start(lanes=0):
    return lambda: jnp.full((lanes, *SHAPE) if lanes else SHAPE, 0.5, jnp.float32)


def _make(goal=None, *, key=KEY, shared=None, lanes=0, rates=RATES, steps=4, config=SGD, **more):
    shared = _aim() if shared is None else shared
    return stages.make_stage(
        key, goal or Near(), shared, _start(lanes), rates, config, steps=steps, lanes=lanes, **more
    )


def _states(stage, count, begin=None):
    """Canvases after each of so many calls; they are donated, so copies."""
    state, found = (begin or stage.begin)(), []
    for _ in range(count):
        state, terms = stage.advance(state, 1)
        found.append(np.array(state.canvas))
    return state, terms, found


def _by_hand(steps, aim=0.8, slopes=None):
    """Gradient descent with momentum 0.9, kept in range."""
    canvas, speed = np.full(SHAPE, 0.5), 0.0
    for number in range(steps):
        slope = 0 if slopes is None else slopes[number]
        speed = 0.9 * speed + canvas - aim + slope
        canvas = np.clip(canvas - 0.25 * speed, 0, 1)
    return canvas


@pytest.mark.slow
def test_the_first_call_only_evaluates_and_the_others_step():
    state, terms, found = _states(_make(), 4)
    assert int(state.step) == 3
    for number, canvas in enumerate(found):
        np.testing.assert_allclose(canvas, _by_hand(number), rtol=1e-5)
    np.testing.assert_allclose(terms["near"], np.sum((_by_hand(3) - 0.8) ** 2) / 2, rtol=1e-5)


@pytest.mark.slow
def test_the_goal_is_given_its_key_folded_with_the_step():
    slopes = [0.2 * np.asarray(jax.random.normal(jax.random.fold_in(KEY, number), SHAPE)) for number in range(4)]
    _, _, found = _states(_make(Near(0.2)), 4)
    for number, canvas in enumerate(found):
        np.testing.assert_allclose(canvas, _by_hand(number, slopes=slopes), rtol=1e-5)


@pytest.mark.slow
def test_equal_goals_are_one_program_and_others_are_not(monkeypatch):
    compiled, count = stages.compiler.compiled, []
    monkeypatch.setattr(stages.compiler, "compiled", lambda lowered: count.append(1) or compiled(lowered))
    _make(Near(0.1))
    assert len(count) == 1
    before = len(TRACES)
    stage = _make(Near(0.1), key=jax.random.key(2), shared=_aim(0.3), rates=Rates(jnp.float32(0.125)), steps=9)
    _states(stage, 2)
    assert (len(TRACES), len(count)) == (before, 1)
    for number, other in enumerate(
        (
            lambda: _make(Near(0.1), config=dataclasses.replace(SGD, projection="none")),
            lambda: _make(Near(0.1), shared=jnp.full((1, 1, 3), 0.8, jnp.float32)),
        )
    ):
        other()
        assert len(count) == 2 + number


@pytest.mark.slow
def test_one_traced_lane_serves_all():
    before = len(TRACES)
    _make(Near(0.2), lanes=2)
    few = len(TRACES) - before
    assert few > 0
    _make(Near(0.2), lanes=7)
    assert len(TRACES) - before == 2 * few


@pytest.mark.slow
def test_lanes_are_the_single_runs():
    own = jnp.asarray([-0.5, 0.0, 0.1], jnp.float32)
    _, terms, found = _states(_make(Near(0.2), lanes=3, own=own), 4)
    assert terms["total"].shape == (3,)
    for lane in range(3):
        single = _make(Near(0.2), key=jax.random.fold_in(KEY, lane), own=own[lane])
        _, alone, canvases = _states(single, 4)
        np.testing.assert_allclose(found[-1][lane], canvases[-1], rtol=1e-6)
        np.testing.assert_allclose(terms["total"][lane], alone["total"], rtol=1e-5)


@pytest.mark.slow
def test_lanes_may_have_their_own_keys_and_rates():
    keys, rates = jax.random.split(KEY, 2), jnp.asarray([0.25, 0.125], jnp.float32)
    _, _, found = _states(_make(Near(0.2), key=keys, lanes=2, rates=Rates(rates)), 3)
    for lane in range(2):
        _, _, alone = _states(_make(Near(0.2), key=keys[lane], rates=Rates(rates[lane])), 3)
        np.testing.assert_allclose(found[-1][lane], alone[-1], rtol=1e-6)


def test_what_is_shared_may_be_made_when_it_is_needed_and_only_once():
    calls = []

    def shared():
        calls.append(1)
        return _aim()

    stage = _make(shared=shared)
    _states(stage, 3)
    given, own, rates = stage.arguments()
    assert len(calls) == 1
    np.testing.assert_array_equal(given, _aim())
    assert (own, rates) == ((), RATES)


@pytest.mark.slow
def test_a_stage_says_what_it_is():
    stage = _make(lanes=2)
    assert (stage.steps, stage.size, stage.chunk) == (4, SHAPE[:2], loop.most_steps())
    assert stage.bytes > 2 * 3 * 72  # two lanes of three canvases at least
    begun = stage.begin()
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), begun) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), stage.like
    )


@pytest.mark.parametrize(("lanes", "words"), [(0, "3x2 pixels need"), (2, "3x2 pixels 2 times need")])
def test_too_little_memory_is_refused_before_anything_is_computed(lanes, words):
    needed = _make(lanes=lanes).bytes
    _make(lanes=lanes, room=needed)
    with pytest.raises(InputError, match=f"--size: {words} .* GiB are free; expected a smaller --size$"):
        _make(lanes=lanes, room=needed - 1)


def test_a_stage_begins_anew_or_from_what_the_one_before_left():
    state, *_ = _states(_make(), 3)
    anew = _make().grow(state)
    np.testing.assert_array_equal(anew.canvas, _start()())
    grown = _make(grow=lambda state: state.canvas + 0.125).grow(state)
    np.testing.assert_array_equal(grown.canvas, state.canvas + 0.125)
    assert int(grown.step) == int(anew.step) == -1


@pytest.mark.parametrize("lanes", [0, 2])
def test_the_outcome_is_the_best_canvas_or_the_last(lanes):
    climbing = Rates(jnp.float32(-0.25))
    for last in (False, True):
        stage = _make(lanes=lanes, rates=climbing, config=dataclasses.replace(SGD, last=last))
        state, *_ = _states(stage, 3)
        expected = state.canvas if last else _start(lanes)()
        np.testing.assert_array_equal(stage.outcome(state), expected)
        assert np.asarray(state.canvas).max() < 0.4
