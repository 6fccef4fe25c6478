"""What `explore` draws: everything at its place, and the same twice."""

import numpy as np
import pytest

from jnst.images import plots

RED, BLUE = np.array([1, 0, 0], np.float32), np.array([0, 0, 1], np.float32)


def plain(color, height=40, width=40):
    return np.tile(color, (height, width, 1)).astype(np.float32)


def box(sheet, color):
    """Top, left, bottom and right of where a color stands, which is a whole rectangle."""
    rows, columns = np.nonzero(np.abs(sheet - color).max(-1) < 0.01)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    assert len(rows) == (bottom - top) * (right - left)
    return top, left, bottom, right


def test_a_small_picture_is_enlarged_in_squares():
    tile = np.arange(12, dtype=np.float32).reshape(2, 2, 3) / 12
    found = plots.enlarged(tile, 9)
    assert found.shape == (8, 8, 3)
    np.testing.assert_array_equal(found[::4, ::4], tile)
    np.testing.assert_array_equal(found[3::4, 3::4], tile)
    assert plots.enlarged(plain(RED), 9).shape == (40, 40, 3)


def test_tiles_stand_in_rows_under_their_headings():
    tiles = [("a", plain(RED)), ("b", plain(0.5 * BLUE)), ("c", plain(BLUE, 20, 40))]
    sheet = plots.captioned_sheet([("first", tiles[:2]), ("second", tiles[2:])], side=40, columns=2)
    red, dim, blue = (box(sheet, color) for color in (RED, 0.5 * BLUE, BLUE))
    assert red[0] == dim[0]
    assert dim[1] == red[3] + 8
    assert blue[0] > red[2]
    assert (blue[2] - blue[0], blue[3] - blue[1]) == (20, 40)  # a low picture makes a low row
    between = sheet[red[2] : blue[0]]
    assert between.min() < 0.5  # captions and a heading
    np.testing.assert_array_equal(plots.captioned_sheet([("first", tiles)]), plots.captioned_sheet([("first", tiles)]))


def test_large_pictures_shrink_and_long_captions_are_cut():
    sheet = plots.captioned_sheet([("", [("x" * 500, plain(RED, 90, 180))])], side=60)
    assert sheet.shape[1] == 60 + 2 * 8
    top, left, bottom, right = box(sheet, RED)
    assert (bottom - top, right - left) == (30, 60)


def test_thumbnails_stand_at_their_places_and_keep_one_scale():
    places = np.array([[0, 0], [4, 2]])
    sheet = plots.thumbnail_map(places, [plain(RED, 8, 8), plain(BLUE, 8, 8)], ["", ""], side=400)
    red, blue = box(sheet, RED), box(sheet, BLUE)
    assert sheet.shape[1] == 400
    assert blue[1] - red[1] == 2 * (blue[0] - red[0]) > 0


@pytest.mark.slow
def test_frames_and_legend_have_the_color_of_the_label():
    places, tiles = np.array([[0, 0], [3, 0], [0, 3]]), [plain(RED, 40, 40)] * 3
    framed = plots.thumbnail_map(places, tiles, ["b", "a", "b"], side=300)
    bare = plots.thumbnail_map(places, tiles, ["b", "b", "b"], side=300)
    assert framed.shape[0] > bare.shape[0]
    colors = {tuple(np.round(color, 2)) for color in framed[: bare.shape[0]].reshape(-1, 3)}
    colors -= {(1, 1, 1), (1, 0, 0)}
    assert len(colors) == 2
    legend = {tuple(np.round(color, 2)) for color in framed[bare.shape[0] :].reshape(-1, 3)}
    close = lambda one, other: np.abs(np.subtract(one, other)).max() < 0.02  # noqa: E731
    assert all(any(close(color, other) for other in legend) for color in colors)


def test_many_labels_are_counted_in_the_legend():
    count = 60
    places = np.stack([np.arange(count), np.arange(count)], -1)
    names = [f"label {index}" for index in range(count)]
    sheet = plots.thumbnail_map(places, [plain(RED, 4, 4)] * count, names, side=300)
    assert sheet.shape[0] < 700


@pytest.mark.parametrize("place", [np.nan, np.inf])
def test_places_that_are_none_are_refused(place):
    with pytest.raises(ValueError, match="not finite"):
        plots.thumbnail_map(np.array([[0, place]]), [plain(RED)], [""])
    with pytest.raises(ValueError, match="2 thumbnails"):
        plots.thumbnail_map(np.zeros((1, 2)), [plain(RED)] * 2, ["", ""])


def test_all_at_one_place_are_drawn():
    assert plots.thumbnail_map(np.zeros((3, 2)), [plain(RED, 8, 8)] * 3, [""] * 3, side=300).min() == 0


def test_the_curve_passes_where_the_rates_are():
    accepts, rejects = np.array([0, 0, 1.0]), np.array([1.0, 0, 0])  # nothing is ever wrong
    sheet = plots.roc_plot(accepts, rejects, 0.0)
    blue = np.abs(sheet - np.array([31, 95, 170]) / 255).max(-1) < 0.1
    assert blue[40:380, 58:63].any(1).mean() > 0.9  # up along the left
    assert blue[:40, 80:440].any(0).mean() > 0.9  # and along the top
    assert not blue[100:, 100:].any()


def test_stacked_pictures_are_white_beside_the_narrow_ones():
    found = plots.stacked([plain(RED, 2, 3), plain(BLUE, 1, 5)])
    np.testing.assert_array_equal(found[:2, :3], plain(RED, 2, 3))
    np.testing.assert_array_equal(found[:2, 3:], 1)
    np.testing.assert_array_equal(found[2], plain(BLUE, 1, 5)[0])
