import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import train
from jnst.config import SCHEDULES, TrainConfig
from jnst.types import Rates

KEY = jax.random.key(3)
GOAL = {"kernel": np.linspace(-1, 1, 6).reshape(2, 3), "bias": np.array([0.3, -0.2])}


def quadratic(key, params, extra, batch):
    """Its gradient is `2 (params - GOAL - batch)`; extra counts the calls."""
    apart = jax.tree.map(lambda leaf, goal: leaf - jnp.asarray(goal, leaf.dtype) - batch, params, GOAL)
    total = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(apart))
    return total, ({"total": total}, {"calls": extra["calls"] + 1, "key": jax.random.key_data(key)})


def noisy(key, params, extra, batch):
    return quadratic(key, params, extra, batch + 0.1 * jax.random.normal(key))


step = jax.jit(train.step, static_argnames=("loss", "config"))
donating_step = jax.jit(train.step, static_argnames=("loss", "config"), donate_argnames="state")


def _start(dtype=jnp.float32, learning_rate=0.05, value=0.5, **options):
    config = TrainConfig(**{"steps": 12, **options})
    params = jax.tree.map(lambda goal: jnp.full(goal.shape, value, dtype), GOAL)
    extra = {"calls": jnp.int32(0), "key": jax.random.key_data(KEY)}
    rates = Rates(jnp.asarray(learning_rate, dtype))
    return train.init(params, extra, rates, config), rates, config


def _walk(start, steps, loss=quadratic, batch=0.0):
    """The states after each of so many steps."""
    state, rates, config = start
    states = []
    for _ in range(steps):
        state, _ = step(KEY, state, loss, batch, rates, config)
        states.append(state)
    return states


def _assert_same_bytes(one, other):
    for ours, theirs in zip(train.leaves(one), train.leaves(other), strict=True):
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


def _rate(done, warmup, steps):
    """The cosine schedule of rate 1 after `done` updates, from the paper's formula."""
    rise = min(1, (done + 1) / warmup) if warmup else 1
    share = min(1, max(0, (done - warmup) / (steps - warmup)))
    return rise * 0.5 * (1 + np.cos(np.pi * share))


@pytest.mark.slow
def test_adam_follows_the_paper_along_the_schedule(x64):
    start = _start(jnp.float64, 0.05, schedule="cosine", warmup=4)
    x, m, v = np.full((2, 3), 0.5), 0.0, 0.0
    for done, state in enumerate(_walk(start, 12)):
        rate = 0.05 * _rate(done, 4, 12)
        x, m, v = reference.adam_step(x, 2 * (x - GOAL["kernel"]), m, v, done + 1, rate)
        # The schedule itself is float32, whatever the parameters are.
        np.testing.assert_allclose(state.params["kernel"], x, rtol=1e-7, err_msg=f"step {done}")


def test_sgd_is_descent_with_momentum(x64):
    x, velocity = np.full(2, 0.5), 0.0
    for state in _walk(_start(jnp.float64, 0.02, optimizer="sgd"), 10):
        velocity = 2 * (x - GOAL["bias"]) + 0.9 * velocity
        x = x - 0.02 * velocity
        np.testing.assert_allclose(state.params["bias"], x, rtol=1e-12)


def test_the_batch_reaches_the_loss_and_terms_are_those_before_the_update(x64):
    start = _start(jnp.float64)
    for batch in (0.0, 0.7):
        _, terms = step(KEY, start[0], quadratic, batch, *start[1:])
        expected = sum(np.sum((0.5 - goal - batch) ** 2) for goal in GOAL.values())
        np.testing.assert_allclose(terms["total"], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, {0: 1, 1: 1, 50: 1, 100: 1}),
        ("constant", 4, {0: 0.25, 1: 0.5, 3: 1, 4: 1, 100: 1}),
        ("cosine", 0, {0: 1, 25: 0.5 + 0.5**1.5, 50: 0.5, 100: 0, 130: 0}),
        ("cosine", 20, {0: 0.05, 9: 0.5, 19: 1, 20: 1, 60: 0.5, 100: 0}),
        ("cosine", 100, {0: 0.01, 99: 1}),  # as long as the training: nothing is left to fall
        ("cosine", 300, {0: 1 / 300, 99: 1 / 3}),
        ("linear", 0, {0: 1, 50: 1, 75: 0.5, 99: 0.02, 100: 0, 130: 0}),
        ("linear", 20, {0: 0.05, 20: 1, 50: 1, 60: 0.8, 100: 0}),
    ],
)
def test_the_learning_rate_at_key_points(schedule, warmup, expected):
    config = TrainConfig(steps=100, schedule=schedule, warmup=warmup)
    for done, rate in expected.items():
        found = train.learning_rate(jnp.int32(done), Rates(jnp.float32(0.2)), config)
        np.testing.assert_allclose(found, 0.2 * rate, rtol=1e-5, atol=1e-8, err_msg=f"after {done}")


def test_every_schedule_is_known():
    for schedule in SCHEDULES:
        rates = [
            float(train.learning_rate(jnp.int32(n), Rates(1.0), TrainConfig(steps=9, schedule=schedule)))
            for n in (0, 5)
        ]
        assert rates == ([1, 1] if schedule == "constant" else sorted(rates, reverse=True))


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_the_average_follows_its_recurrence(x64, decay):
    start = _start(jnp.float64, average_decay=decay)
    average = np.full((2, 3), 0.5)
    for done, state in enumerate(_walk(start, 8)):
        share = min(decay, (1 + done) / (10 + done))
        average = share * average + (1 - share) * np.asarray(state.params["kernel"])
        np.testing.assert_allclose(train.averaged(state)["kernel"], average, rtol=1e-6)
    assert np.array_equal(average, state.params["kernel"]) == (decay == 0)


@pytest.mark.slow
def test_what_the_loss_learns_by_the_way_goes_in_and_comes_out():
    states = _walk(_start(), 3)
    assert [int(state.extra["calls"]) for state in states] == [1, 2, 3]


def test_each_step_s_key_is_folded_with_its_number_and_nothing_else():
    keys = [np.asarray(state.extra["key"]).tolist() for state in _walk(_start(), 4)]
    assert keys == [jax.random.key_data(jax.random.fold_in(KEY, number)).tolist() for number in range(4)]
    # Other parameters and another past: the third step's key is the same.
    other = _start(value=-2.0)
    state = other[0]._replace(step=jnp.int32(2))
    assert np.asarray(_walk((state, *other[1:]), 1)[0].extra["key"]).tolist() == keys[2]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_state_that_was_put_away_goes_on_to_the_same_bytes(optimizer, stop):
    start = _start(optimizer=optimizer, schedule="cosine", warmup=3)
    whole = _walk(start, 9, noisy)[-1]
    state = _walk(start, stop, noisy)[-1] if stop else start[0]
    found = [np.frombuffer(leaf.tobytes(), leaf.dtype).reshape(leaf.shape) for leaf in train.leaves(state)]
    blank = _start(value=0.0, optimizer=optimizer)[0]
    _assert_same_bytes(_walk((train.restore(blank, found), *start[1:]), 9 - stop, noisy)[-1], whole)


def test_a_state_of_another_network_is_refused():
    state = _start()[0]
    good = train.leaves(state)
    bad = [
        good[:-1],
        [*good, good[-1]],
        [leaf[..., :1] if leaf.ndim else leaf for leaf in good],
        [leaf.astype(np.float16) if leaf.dtype == np.float32 else leaf for leaf in good],
        train.leaves(_start(optimizer="sgd")[0]),
    ]
    for leaves in bad:
        with pytest.raises(ValueError, match="another network"):
            train.restore(state, leaves)


def test_one_trace_serves_all_steps_and_rates_and_a_restored_state():
    traces = []

    def counted(key, params, extra, batch):
        traces.append(1)
        return quadratic(key, params, extra, batch)

    state, _, config = _start(schedule="cosine", warmup=2)
    for rate in (0.1, 0.2, 0.3):
        state, _ = donating_step(KEY, state, counted, jnp.float32(0), Rates(jnp.float32(rate)), config)
    state = train.restore(_start()[0], train.leaves(state))
    donating_step(KEY, state, counted, jnp.float32(1), Rates(jnp.float32(0.1)), config)
    assert len(traces) == 1


@pytest.mark.slow
def test_no_two_leaves_share_a_buffer_and_the_callers_arrays_live_on():
    params = jax.tree.map(lambda goal: jnp.zeros(goal.shape), GOAL)
    rates, config = Rates(jnp.float32(0.1)), TrainConfig(steps=9)
    extra = {"calls": jnp.int32(0), "key": jax.random.key_data(KEY)}
    state = train.init(params, extra, rates, config)
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, params, extra))]
    assert len(set(places)) == len(places)
    new, _ = donating_step(KEY, state, quadratic, jnp.float32(0), rates, config)
    assert state.params["kernel"].is_deleted()
    np.testing.assert_array_equal(params["kernel"], 0)
    assert int(extra["calls"]) == 0
    # What `leaves` and `restore` give are copies: the next step writes over neither side.
    taken = train.leaves(new)
    before = [leaf.copy() for leaf in taken]
    restored = train.restore(_start()[0], taken)
    for leaf in taken:
        leaf[...] = 0
    _assert_same_bytes(restored, new)
    donating_step(KEY, restored, quadratic, jnp.float32(0), rates, config)
    assert [leaf.tobytes() for leaf in train.leaves(new)] == [leaf.tobytes() for leaf in before]


@pytest.mark.parametrize(("hold", "expected"), [(0.0, {0: 1, 50: 0.5}), (0.9, {90: 1, 95: 0.5}), (1.0, {99: 1})])
def test_the_line_begins_where_it_is_told(hold, expected):
    config = TrainConfig(steps=100, schedule="linear", hold=hold)
    for done, rate in expected.items():
        np.testing.assert_allclose(train.learning_rate(jnp.int32(done), Rates(0.2), config), 0.2 * rate, rtol=1e-5)


def _two(key, params, extra, batch):
    """A game whose losses and gradients are known; each network's loss has a part that is only the other's business."""
    g, d = params.generator["w"], params.discriminator["w"]
    losses = train.Pair(jnp.sum(g * d) + jnp.sum(d**2) + batch, jnp.sum(d**2) - jnp.sum(g * d) + 100 * jnp.sum(g))
    terms = {"generator": losses.generator, "key": jax.random.key_data(key)[0].astype(float)}
    return losses, (terms, train.Pair(extra.generator + 1, extra.discriminator + 2))


def _pair(learning_rate=0.1, beta1=None, **options):
    configs = train.Pair(TrainConfig(steps=9, average_decay=0.5, **options), TrainConfig(steps=9, average_decay=0.0))
    beta1 = None if beta1 is None else jnp.float32(beta1)
    rates = train.Pair(
        Rates(jnp.float32(learning_rate), beta1=beta1), Rates(jnp.float32(learning_rate / 2), beta1=beta1)
    )
    starts = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([0.5, 3.0])}
    return train.Pair(*map(train.init, starts, (jnp.int32(0), jnp.int32(0)), rates, configs)), rates, configs


step_pair = jax.jit(train.step_pair, static_argnames=("loss", "configs"), donate_argnames="states")


@pytest.mark.slow
def test_a_pair_learns_at_once_each_from_its_own_loss():
    """At the parameters before the update, by Adam with the asked beta1, at rates of their own."""
    states, rates, configs = _pair(beta1=0.3)
    found = {"generator": [np.array([1.0, -2.0]), 0, 0], "discriminator": [np.array([0.5, 3.0]), 0, 0]}
    for done in range(3):
        states, terms = step_pair(KEY, states, _two, jnp.float32(7), rates, configs)
        g, d = found["generator"][0], found["discriminator"][0]
        assert float(terms["generator"]) == pytest.approx(np.sum(g * d) + np.sum(d**2) + 7, rel=1e-5)
        slopes = {"generator": d, "discriminator": 2 * d - g}
        for side, rate in (("generator", 0.1), ("discriminator", 0.05)):
            x, m, v = found[side]
            m, v = 0.3 * m + 0.7 * slopes[side], 0.999 * v + 0.001 * slopes[side] ** 2
            x = x - rate * (m / (1 - 0.3 ** (done + 1))) / (np.sqrt(v / (1 - 0.999 ** (done + 1))) + 1e-8)
            found[side] = [x, m, v]
            np.testing.assert_allclose(getattr(states, side).params["w"], x, rtol=1e-4)
    assert [int(state.extra) for state in states] == [3, 6]
    assert [int(state.step) for state in states] == [3, 3]
    assert states.discriminator.average is None
    assert train.averaged(states.discriminator) is states.discriminator.params
    assert not np.allclose(states.generator.average["w"], states.generator.params["w"], rtol=1e-3)


@pytest.mark.slow
def test_a_pair_that_was_put_away_goes_on_to_the_same_bytes():
    states, rates, configs = _pair(beta1=0.5)
    for _ in range(2):
        states, _ = step_pair(KEY, states, _two, jnp.float32(0), rates, configs)
    taken = train.leaves(states)
    whole, _ = step_pair(KEY, states, _two, jnp.float32(0), rates, configs)
    rest, _ = step_pair(KEY, train.restore(_pair(beta1=0.5)[0], taken), _two, jnp.float32(0), rates, configs)
    _assert_same_bytes(rest, whole)


def test_beta1_is_the_optimizers_own_where_none_is_asked_for():
    state = _start(jnp.float32)
    asked = (state[0], state[1]._replace(beta1=jnp.float32(0.9)), state[2])
    one, other = (_walk(start, 3)[-1].params["kernel"] for start in (state, asked))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_devices_are_spread_over_networks_first():
    devices = list(range(4))
    shape = lambda nets, batch: dict(train.spread_over(devices, nets, batch).shape)  # noqa: E731
    assert shape(8, 3) == {"nets": 4, "batch": 1}
    assert shape(1, 6) == {"nets": 1, "batch": 3}
    assert shape(3, 5) == {"nets": 1, "batch": 1}
