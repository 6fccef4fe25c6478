"""Curves of a training: where lines go, where they break, what a legend says."""

import numpy as np

from jnst.images.curves import Panel, curves_plot

SIZE = (300, 200)


def _ink(picture, row=slice(None), column=slice(None)):
    """How many pixels are colored: neither white, gray nor black."""
    part = picture[row, column]
    return int((np.ptp(part, axis=-1) > 0.3).sum())


def _plot(ys, xs=(0, 1, 2, 3), limits=(0.0, 1.0)):
    return curves_plot([Panel("p", [("a", list(xs), list(ys))], limits)], size=SIZE)


def test_a_line_is_where_its_numbers_are():
    low, high = _plot([0.1] * 4), _plot([0.9] * 4)
    assert _ink(low, slice(120, 200)) > 200 > 50 > _ink(low, slice(40, 120))
    assert _ink(high, slice(40, 120)) > 200 > 50 > _ink(high, slice(120, 200))


def test_it_breaks_where_a_number_is_not_finite():
    whole, broken = _plot([0.5] * 4), _plot([0.5, 0.5, float("nan"), 0.5])
    assert 0 < _ink(broken) < 0.7 * _ink(whole)


def test_one_point_is_seen():
    assert _ink(_plot([0.5], xs=[1]), slice(40, 160)) > 10


def test_nothing_finite_and_no_points_are_drawn_too():
    for ys, xs in (([float("nan")] * 4, (0, 1, 2, 3)), ([], [])):
        assert _ink(_plot(ys, xs, None), slice(40, 160)) == 0


def test_a_few_large_numbers_leave_room_for_the_others():
    ys = [1000.0, *np.linspace(1, 2, 99)]
    picture = _plot(ys, range(100), None)
    assert np.flatnonzero((np.ptp(picture[40:165], axis=-1) > 0.3).any(1)).size > 50  # the line goes up and down


def test_panels_stand_one_under_the_other_and_what_is_too_long_is_counted():
    lines = [(f"network with a long name {number}", [0, 1], [number, number]) for number in range(40)]
    picture = curves_plot([Panel("a", lines), Panel("b", lines[:1])], size=SIZE)
    assert picture.shape == (420, 300, 3)
    assert (picture[:25, -5:] == 1).all()  # no text runs out of it
    assert np.array_equal(picture, curves_plot([Panel("a", lines), Panel("b", lines[:1])], size=SIZE))
