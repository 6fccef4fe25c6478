"""The host's loop: rows and stops, stages whose pictures are kept, lanes, and losses that are not finite."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import loop, stages
from jnst.config import OptimizerConfig
from jnst.types import Rates

KEY = jax.random.key(1)
SGD = OptimizerConfig(optimizer="sgd", preconditioner="none")
SHAPE = (2, 3, 3)


class Pace(NamedTuple):
    steps: int = 3
    print_every: int = 2
    save_every: int = 0
    checkpoint_every: int = 0


@dataclasses.dataclass(frozen=True)
class Near:
    """Half the squared distance from `shared`, whose second part is not finite where an aim says so."""

    def __call__(self, key, image, shared, own):
        near = jnp.sum((image - shared) ** 2) / 2
        # The third step of a stage that walks to 2 leaves the logarithm's domain.
        log = 0 * jnp.log(0.98 - jnp.max(image)) if self.fragile else 0 * near
        return near + log, {"total": near + log, "near": near, "log": log}

    fragile: bool = False


def _prepare(
    aims=(0.1, 0.6, 0.9), *, lanes=0, begin=0, fragile=False, pace=None, snapshot=None, keeping=True, keeps="best"
):
    pace, carried, made = pace or Pace(), [], []

    def make(number):
        made.append(number)
        start = jnp.full((lanes, *SHAPE) if lanes else SHAPE, 0.5, jnp.float32)
        aim = jnp.full(SHAPE, aims[number], jnp.float32)
        rates = Rates(jnp.float32(0.25))
        goal = Near(fragile)
        return stages.make_stage(KEY, goal, aim, lambda: start, rates, SGD, steps=pace.steps, lanes=lanes)

    number = snapshot.scale if snapshot else 0
    stage = make(number)
    run = loop.Prepared(
        stage=stage,
        number=number,
        counts=(pace.steps,) * len(aims),
        sizes=(SHAPE[:2],) * len(aims),
        make=make,
        begin=stage.begin,
        finish=lambda canvas: canvas,
        config=pace,
        summands=("near", "log"),
        trace=[],
        keeping=keeping,
        keeps=keeps,
        carry=lambda state: carried.append(state),
    )
    return loop.restore(run, snapshot) if snapshot else run, carried, made


def _run(prepared, stop=None):
    found = {}

    def callback(record):
        snapshot = record.snapshot()
        found[record.step] = snapshot._replace(leaves=[np.array(leaf) for leaf in snapshot.leaves])
        return record.step == stop

    return loop.run(prepared, callback=callback), found


def _after(steps, aim):
    """Gradient descent with momentum 0.9 from 0.5."""
    value, speed = 0.5, 0.0
    for _ in range(steps):
        speed = 0.9 * speed + value - aim
        value = value - 0.25 * speed
    return value


# ---- Rows


def test_the_first_term_that_is_not_finite_is_named():
    terms = {"total": 1.0, "a": 0.5, "b": 0.5}
    assert loop.first_bad(terms, ("a", "b")) == ""
    bad = {"total": math.nan, "a": math.inf, "b": math.nan}
    assert loop.first_bad(bad, ("a", "b")) == "a"
    assert loop.first_bad(bad, ("b", "a")) == "b"
    assert loop.first_bad({"total": math.inf, "a": 3e38, "b": 3e38}, ("a", "b")) == "total"
    assert loop.first_bad({"total": math.inf, "a": 1.0}, ()) == "total"


def test_a_row_s_total_is_its_sum_or_of_no_summands_what_it_is():
    terms = {"total": 0.3, "b": 0.1, "a": 0.2}
    assert loop.row(4, terms, ("a", "b")) == {"step": 4, "total": 0.2 + 0.1, "a": 0.2, "b": 0.1}
    assert list(loop.row(4, terms, ("a", "b"))) == ["step", "total", "a", "b"]
    assert loop.row(4, terms, ()) == {"step": 4, "total": 0.3, "b": 0.1, "a": 0.2}


def test_rows_are_the_first_the_last_and_every_so_many():
    rows = [step for step in range(3, 9) if loop.is_row(step, Pace(print_every=4), first=3, last=7)]
    assert rows == [3, 4, 7, 8]
    assert [step for step in range(6) if loop.is_row(step, Pace(steps=5, print_every=0))] == [0, 5]


@pytest.mark.parametrize(
    ("done", "pace", "last", "expected"),
    [
        (-1, Pace(), None, 0),
        (0, Pace(steps=9), None, 2),
        (2, Pace(steps=9, save_every=3), None, 3),
        (3, Pace(steps=9, print_every=0, checkpoint_every=5), None, 5),
        (8, Pace(steps=9), None, 9),
        (8, Pace(steps=9), 12, 10),
        (0, Pace(print_every=0), None, 3),
    ],
)
def test_the_next_stop_is_the_nearest_that_somebody_asked_for(done, pace, last, expected):
    assert loop.next_stop(done, pace, last=last) == expected


# ---- Stages whose pictures are kept


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [0, 2])
def test_every_stage_leaves_its_picture_and_begins_anew(lanes):
    prepared, carried, made = _prepare(lanes=lanes)
    result, _ = _run(prepared)
    assert made == [0, 1, 2]
    assert len(carried) == 2
    for picture, aim in zip(result.kept, (0.1, 0.6, 0.9), strict=True):
        assert picture.dtype == np.float32
        np.testing.assert_allclose(picture, np.full((lanes, *SHAPE) if lanes else SHAPE, _after(3, aim)), rtol=1e-5)
    np.testing.assert_array_equal(result.image, result.kept[-1])
    assert [row["step"] for row in result.trace] == [0, 2, 3, 3, 4, 6, 6, 8, 9]
    near = [np.prod(SHAPE) * (_after(step, 0.6) - 0.6) ** 2 / 2 for step in (0, 1, 3)]
    np.testing.assert_allclose([row["near"] for row in result.trace[3:6]], near, rtol=1e-4)


def test_what_is_kept_is_the_best_of_a_stage_and_not_the_last():
    way = [_after(step, 0.6) for step in range(6)]
    best = min(range(6), key=lambda step: abs(way[step] - 0.6))
    assert best < 5  # with momentum it runs past
    result, _ = _run(_prepare((0.6, 0.6), pace=Pace(steps=5))[0])
    for picture in result.kept:
        np.testing.assert_allclose(picture, np.full(SHAPE, way[best]), rtol=1e-5)
    assert result.best_step == 5 + best


def test_without_keeping_there_is_the_last_picture_alone():
    prepared, *_ = _prepare(keeping=False)
    result, _ = _run(prepared)
    assert result.kept == ()
    np.testing.assert_allclose(result.image, np.full(SHAPE, _after(3, 0.9)), rtol=1e-5)


@pytest.mark.parametrize("stop", range(9))
def test_a_stopped_run_has_what_is_done_and_goes_on_to_the_same(stop):
    whole, _ = _run(_prepare()[0])
    part, found = _run(_prepare()[0], stop)
    assert part.stopped == "interrupted"
    assert len(part.kept) == len(found[stop].kept) + 1
    for one, other in zip(found[stop].kept, whole.kept, strict=False):
        np.testing.assert_array_equal(one, other)
    assert part.trace[-1]["step"] == stop
    again, _ = _run(_prepare(snapshot=found[stop])[0])
    for one, other in zip(again.kept, whole.kept, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.best_step == whole.best_step == 9


@pytest.mark.parametrize("keeps", ["best", "last"])
@pytest.mark.parametrize("aims", [(0.1,), (0.1, 0.6)])
@pytest.mark.parametrize("steps", [3, 4])
def test_gone_on_from_its_last_step_a_run_is_what_it_was(keeps, aims, steps):
    """As after a kill between the last checkpoint and the record."""
    pace = Pace(steps=steps)
    whole, found = _run(_prepare(aims, pace=pace, keeps=keeps)[0])
    again, none = _run(_prepare(aims, pace=pace, keeps=keeps, snapshot=found[steps * len(aims)])[0])
    assert not none
    np.testing.assert_array_equal(again.image, whole.image)
    assert (again.best_step, again.trace, again.stopped) == (whole.best_step, whole.trace, "")


def test_a_stop_at_the_last_step_stops_nothing():
    result, _ = _run(_prepare()[0], 9)
    assert (result.stopped, len(result.kept)) == ("", 3)


def test_of_several_lanes_a_record_has_the_mean():
    prepared, *_ = _prepare(lanes=2)
    seen = []
    loop.run(prepared, callback=lambda record: seen.append((record.terms, record.image().shape)))
    assert seen[0][1] == (2, *SHAPE)
    np.testing.assert_allclose(seen[0][0]["near"], np.prod(SHAPE) * 0.4**2 / 2, rtol=1e-5)


# ---- Losses that are not finite


def test_a_stage_that_fails_on_the_way_leaves_its_best_picture():
    result, _ = _run(_prepare((0.1, 2.0, 0.6), fragile=True)[0])
    assert (result.stopped, result.bad_step, result.bad_term) == ("diverged", 5, "log")
    assert len(result.kept) == 2
    np.testing.assert_allclose(result.image, np.full(SHAPE, _after(1, 2.0)), rtol=1e-5)
    assert result.best_step == 4


@pytest.mark.parametrize(("keeping", "picture"), [(True, _after(3, 0.1)), (False, 0.5)])
def test_a_stage_that_fails_at_once_leaves_what_went_before(keeping, picture):
    """Where pictures are kept its own start is none; where stages are steps on a way it comes from the one before."""
    result, _ = _run(_prepare((0.1, np.nan), keeping=keeping)[0])
    assert (result.stopped, result.bad_step, result.bad_term) == ("diverged", 3, "near")
    assert len(result.kept) == keeping
    np.testing.assert_allclose(result.image, np.full(SHAPE, picture), rtol=1e-5)
    assert result.best_step == 3


def test_a_run_that_fails_at_once_leaves_nothing():
    result, _ = _run(_prepare((np.nan, 0.1))[0])
    assert (result.image, result.kept, result.best_step, result.bad_step) == (None, (), -1, 0)
