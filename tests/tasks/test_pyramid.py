"""One run by way of smaller sizes: what is carried on, what its trace says, and that it goes on from anywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import ops, optimize
from jnst.config import StylizeConfig
from jnst.tasks import stylize as task
from jnst.tasks.stylize import parts
from jnst.types import Rates

KEY = jax.random.key(0)
BASE = StylizeConfig(
    steps=4,
    print_every=3,
    content_layers="relu2_1",
    style_layers="relu1_1,relu2_1",
    optimizer="adam",
    learning_rate=0.05,
)
SIZES = ((12, 16), (17, 23), (24, 32))
STEPS = (5, 3, 4)


def _config(**options):
    return StylizeConfig(**{**vars(BASE), **options})


@pytest.fixture(scope="module")
def levels():
    pictures = [(reference.smooth_picture(*size, seed=1), reference.smooth_picture(*size, seed=2)) for size in SIZES]
    return [task.Level(content, (style,), None, steps) for (content, style), steps in zip(pictures, STEPS, strict=True)]


@pytest.fixture(scope="module")
def prepare(tiny, levels):
    def prepare(config=BASE, **options):
        *smaller, last = levels
        params = {name: tiny[name] for name in ("mean", "conv1_1", "conv1_2", "conv2_1")}
        more = {"smaller": smaller, "steps": last.steps, **options}
        return task.prepare(KEY, params, last.content, last.styles, config, **more)

    return prepare


def _records(prepared):
    found = []
    result = task.run(
        prepared, callback=lambda r: found.append((r.step, r.size, r.share, r.image(), _copied(r.snapshot())))
    )
    return result, found


def _copied(snapshot):
    return snapshot._replace(leaves=[np.array(leaf) for leaf in snapshot.leaves])


@pytest.mark.slow
def test_each_scale_begins_with_the_step_that_the_one_before_ended_with(prepare):
    result, records = _records(prepare())
    expected = [(step, (12, 16)) for step in range(6)] + [(step, (17, 23)) for step in range(5, 9)]
    expected += [(step, (24, 32)) for step in range(8, 13)]
    assert [(step, size) for step, size, *_ in records] == expected
    assert [(row["step"], row["size"]) for row in result.trace] == [
        *[(0, 16), (3, 16), (5, 16), (5, 23), (6, 23), (8, 23), (8, 32), (9, 32), (12, 32)]
    ]
    shares = [share for _, _, share, *_ in records]
    assert shares == sorted(shares)
    assert (0 < shares[0] < 0.05, shares[-1]) == (True, 1)
    assert result.image.shape == (24, 32, 3)
    assert all(image.shape == (24, 32, 3) for *_, image, _ in records)  # whoever looks sees the size asked for


@pytest.mark.slow
def test_a_scale_starts_from_the_enlarged_picture_of_the_one_before(prepare):
    _, records = _records(prepare())
    (*_, before), (*_, after) = records[5], records[6]
    state, _ = _state(prepare, before)
    best = ops.resize(state.best_canvas, (17, 23), "cubic")
    np.testing.assert_allclose(_state(prepare, after)[0].canvas, jnp.clip(best, 0, 1), atol=1e-6)


def _state(prepare, snapshot):
    prepared = prepare(snapshot=snapshot)
    return prepared.begin(), prepared


def test_adam_s_moments_and_count_go_on(prepare):
    _, records = _records(prepare())
    before, after = (_state(prepare, records[place][-1])[0].opt_state[0] for place in (5, 6))
    assert (int(before.count), int(after.count)) == (5, 5)
    np.testing.assert_allclose(after.mu, ops.resize(before.mu, (17, 23), "cubic"), atol=1e-7)
    np.testing.assert_allclose(after.nu, ops.resize(before.nu, (17, 23), "linear"), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"optimizer": "lbfgs", "learning_rate": 0.0, "history": 3}])
def test_a_run_goes_on_from_every_step_to_the_same_bytes(prepare, options):
    config = _config(average_decay=0.9, **options)
    whole, records = _records(prepare(config))
    for place in (0, 4, 5, 6, 9, 10, 14):
        again = task.run(prepare(config, snapshot=records[place][-1]))
        np.testing.assert_array_equal(again.image, whole.image)
        assert again.trace == whole.trace, place


def test_a_snapshot_of_another_scale_is_refused(prepare):
    _, records = _records(prepare())
    with pytest.raises(ValueError, match="shapes"):
        prepare(snapshot=records[0][-1]._replace(scale=1))
    with pytest.raises(ValueError, match="scales"):
        prepare(snapshot=records[0][-1]._replace(scale=3))


@pytest.mark.slow
def test_the_average_is_the_result_and_starts_the_next_scale(prepare):
    config = _config(average_decay=0.8)
    result, records = _records(prepare(config))
    rates, optimizer = Rates(jnp.float32(0.05), jnp.float32(0.8)), parts.optimizer_config(config)
    states = [prepare(config, snapshot=records[place][-1]).begin() for place in (5, 6, 14)]
    averages = [optimize.outcome(state, rates, optimizer) for state in states]
    np.testing.assert_allclose(states[1].canvas, np.clip(ops.resize(averages[0], (17, 23), "cubic"), 0, 1), atol=1e-6)
    np.testing.assert_allclose(result.image, np.clip(averages[2], 0, 1), atol=1e-6)
    assert result.best_step == 12
    assert np.abs(result.image - np.asarray(states[2].best_canvas)).max() > 1e-3


def test_a_stop_in_an_early_scale_gives_its_picture_at_full_size(prepare):
    result = task.run(prepare(), callback=lambda record: record.step == 3)
    assert (result.stopped, result.image.shape, result.trace[-1]["step"]) == ("interrupted", (24, 32, 3), 3)


def test_a_scale_that_fails_at_once_leaves_what_the_one_before_made(prepare):
    prepared = prepare()

    def make(number):
        stage = prepared.make(number)
        bad = {"total": np.nan, "content": np.nan, "style": 1.0, "tv": 1.0}
        return stage._replace(advance=lambda state, *_: (state._replace(step=state.step + 1), bad))

    result = task.run(prepared._replace(make=make))
    assert (result.stopped, result.bad_step, result.bad_term, result.best_step) == ("diverged", 5, "content", 5)
    assert np.isfinite(result.image).all()
    alone = task.run(prepared, callback=lambda record: record.step == 5)
    np.testing.assert_allclose(result.image, alone.image, atol=0.05)


@pytest.mark.slow
def test_random_filters_are_the_same_at_every_scale(prepare):
    prepared = prepare(standardize=True)
    one, other = (prepared.stage.arguments()[0], prepared.make(2).arguments()[0])
    np.testing.assert_array_equal(one["conv2_1"]["kernel"], other["conv2_1"]["kernel"])
