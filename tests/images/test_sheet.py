import itertools

import numpy as np
import pytest

from images.files import noise
from jnst import images
from jnst.images import sheet

ABOVE_CELLS = [("style_weight", ["1e2", "1e3", "1e4"]), ("style", ["starry", "wave"])]


def plain(index, height=40, width=60):
    """A picture in one color that no other index has, and that is none of the sheet's own."""
    return np.full((height, width, 3), (0.2, 0.3, (index + 1) / 64), np.float32)


def boxes(found, count):
    """Top, left, bottom, right of where each of `plain`'s colors stands; by index."""
    marked = np.abs(found[..., :2] - (0.2, 0.3)).max(-1) < 1e-3
    places = {}
    for index in range(count):
        rows, columns = np.nonzero(marked & (np.abs(found[..., 2] - (index + 1) / 64) < 1e-3))
        if len(rows):
            places[index] = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
            assert len(rows) == np.ptp(places[index][::2]) * np.ptp(places[index][1::2])
    return places


def labels_written(monkeypatch):
    """What the next sheets write, as (text, left, top)."""
    written = []
    original = sheet._write

    def spy(draw, place, text, letters, anchor, *fill):
        box = draw.textbbox(place, text, font=sheet._font(letters), anchor=anchor)
        assert box[0] >= 0, text
        assert box[1] >= 0, text
        assert box[2] <= draw.im.size[0], text
        assert box[3] <= draw.im.size[1], text
        written.append((text, *box))
        original(draw, place, text, letters, anchor, *fill)

    monkeypatch.setattr(sheet, "_write", spy)
    return written


def test_first_axis_across_second_down_each_of_the_others_a_page():
    axes = [*ABOVE_CELLS, ("seed", ["0", "1"]), ("pooling", ["max", "avg"])]
    order = list(itertools.product(range(3), range(2), range(2), range(2)))
    places = boxes(images.labelled_sheet(axes, [plain(index) for index in range(24)]), 24)
    assert len(places) == 24
    lefts = sorted({place[1] for place in places.values()})
    tops = sorted({place[0] for place in places.values()})
    assert (len(lefts), len(tops)) == (3, 2 * 4)
    for index, (weight, style, seed, pooling) in enumerate(order):
        assert places[index][:2] == (tops[(2 * seed + pooling) * 2 + style], lefts[weight])


def test_labels_stand_at_their_columns_rows_and_pages(monkeypatch):
    written = labels_written(monkeypatch)
    axes = [*ABOVE_CELLS, ("seed", ["0", "1"]), ("pooling", ["max"])]
    found = images.labelled_sheet(axes, [plain(index, 256, 256) for index in range(12)])
    places, texts = boxes(found, 12), [text for text, *_ in written]
    assert texts.count("style_weight=1e3") == texts.count("style=wave") == 2
    assert [text for text in texts if text.startswith("seed")] == ["seed=0   pooling=max", "seed=1   pooling=max"]
    page = {text: box for text, *box in written[:6]}
    top, left, bottom, right = places[4]  # style_weight=1e3, style=starry, seed=0
    across, down, heading = page["style_weight=1e3"], page["style=starry"], page["seed=0   pooling=max"]
    assert abs(across[0] + across[2] - left - right) <= 2
    assert across[3] <= top
    assert down[2] <= places[0][1]
    assert top < down[1] < down[3] < bottom
    assert heading[3] <= across[1]


def test_one_axis_is_one_row_without_labels_at_its_left(monkeypatch):
    written = labels_written(monkeypatch)
    places = boxes(images.labelled_sheet(ABOVE_CELLS[:1], [plain(index, 128, 256) for index in range(3)]), 3)
    assert {place[0] for place in places.values()} == {places[0][0]}
    assert [text for text, *_ in written if text] == ["style_weight=1e2", "style_weight=1e3", "style_weight=1e4"]
    assert places[0][1] <= 16


def test_without_an_axis_there_is_one_picture():
    assert len(boxes(images.labelled_sheet([], [plain(0)]), 1)) == 1


@pytest.mark.parametrize("count", [5, 7])
def test_as_many_tiles_as_combinations(count):
    with pytest.raises(ValueError, match=f"{count} tiles for a grid of 3 x 2"):
        images.labelled_sheet(ABOVE_CELLS, ["not yet"] * count)


def test_pictures_shrink_by_lanczos_and_keep_their_shape_in_the_middle_of_their_cell():
    wide, tall = (noise(100, 300, 3) / 255).astype(np.float32), plain(0, 300, 150)
    found = images.labelled_sheet([("a", ["1", "2"])], [wide, tall], tile=120)
    ((top, left, bottom, right),) = boxes(found, 1).values()
    assert (bottom - top, right - left) == (120, 60)
    expected = images.resize(images.Picture(wide), (120, 40)).rgb
    start = left - 30 - 4 - 120  # cells are 120 wide: half of what is free, the gap, the first cell
    np.testing.assert_array_equal(found[top + 40 : top + 80, start : start + 120], expected)


def test_no_picture_is_enlarged_and_cells_are_as_small_as_the_pictures_allow():
    small = images.labelled_sheet([("a", ["1", "2"])], [plain(0, 50, 100), plain(1, 40, 90)], tile=256)
    places = boxes(small, 2)
    assert [(box[2] - box[0], box[3] - box[1]) for box in places.values()] == [(50, 100), (40, 90)]
    assert small.shape[1] <= 2 * (100 + 8)
    assert small.shape[0] < 50 + 40
    tiny = images.labelled_sheet([("a", ["1", "2"])], [plain(0, 8, 8), plain(1, 8, 8)])
    assert [(box[2] - box[0], box[3] - box[1]) for box in boxes(tiny, 2).values()] == [(8, 8), (8, 8)]


@pytest.mark.parametrize(("reason", "lines"), [("not yet", 1), ("diverged at step 12", 2)])
def test_a_reason_stands_in_a_gray_cell(monkeypatch, reason, lines):
    written = labels_written(monkeypatch)
    found = images.labelled_sheet([("a", ["1", "2"])], [plain(0, 64, 64), reason])
    ((top, left, _, _),) = boxes(found, 1).values()
    inside = found[top : top + 64, left + 68 : left + 68 + 64]
    edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    assert np.all(edge == edge[0])
    assert 0.8 < edge[0, 0] == edge[0, 1] == edge[0, 2] < 0.95
    assert inside.min() < 0.6, "no text"
    said = [text for text, *_ in written[2:] if text]
    assert len(said) == lines
    assert " ".join(said) == reason
    assert np.all(found[top - 1, left + 68 :] == 1)
    assert np.all(found[top + 64, left + 68 :] == 1)


def test_equal_arguments_give_equal_sheets():
    tiles = [(noise(30, 40, 3) / 255).astype(np.float32), "not yet"]
    first, second = (images.labelled_sheet([("a", ["1", "2"])], tiles) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() == 1


# ---- labels


@pytest.mark.parametrize("text", ["", "a", "style_weight=1e2", "x" * 5000, "…", "W" * 40])
@pytest.mark.parametrize("width", [12, 30, 77, 200])
def test_cut_fits_and_keeps_both_ends(text, width):
    found = sheet._cut(text, width, 10)
    assert sheet._width(found, 10) <= width
    if found != text:
        start, end = found.split("…")
        assert text.startswith(start)
        assert text.endswith(end)
        assert 0 <= len(start) - len(end) <= 1
        longer = f"{text[: len(start) + 1]}…{text[len(text) - len(end) :]}"
        assert sheet._width(longer, 10) > width - 10, "more would have fitted"


@pytest.mark.parametrize(
    ("name", "values", "width", "expected"),
    [
        ("style_weight", ["1e2", "1e3"], 300, ["style_weight=1e2", "style_weight=1e3"]),
        ("style_weight", ["1e2", "1e30"], 70, ["styl…ight=1e2", "styl…ight=1e30"]),
        ("style_weight", ["1e2", "1e3"], 28, ["1e2", "1e3"]),
        ("a", ["the_beginning_1.png", "the_beginning_2.png"], 100, ["a=the_be…ng_1.png", "a=the_be…ng_2.png"]),
        ("a", ["long_beginning_A_long_end", "long_beginning_B_long_end"], 60, ["…A…", "…B…"]),
        ("", [""], 30, [""]),
    ],
)
def test_labels_keep_what_differs(name, values, width, expected):
    found = sheet._labels(name, values, width, 10)
    assert found == expected
    assert all(sheet._width(label, 10) <= width for label in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", ["Gemälde", "星月夜", "Звёзды", "🌃", "line\nbreak\t\0", "\udcff\udc80", "", " ", "a" * 999]
)
def test_no_label_is_too_strange(monkeypatch, value):
    written = labels_written(monkeypatch)
    for axes in ([(value, [value, "b"])], [("a", ["1"]), (value, [value, "b"])], [(value, [value])] * 4):
        count = int(np.prod([len(values) for _, values in axes]))
        found = images.labelled_sheet(axes, [value] * count, tile=40)
        assert max(found.shape) < 1000
    assert written


def test_accents_fall_where_the_font_has_none(monkeypatch):
    written = labels_written(monkeypatch)
    images.labelled_sheet([("é", ["ÿ"])], [plain(0)])
    assert written[0][0] == "e=y"


# ---- too large


@pytest.fixture
def small_limits(monkeypatch):
    """The limits at a size that tests can afford."""
    monkeypatch.setattr(sheet, "_LONGEST", 600)
    monkeypatch.setattr(sheet, "_MOST_PIXELS", 600 * 600)


@pytest.mark.parametrize(
    ("counts", "shrunk_to"),
    [((2, 2), (128, 128)), ((6, 2), (88, 96)), ((2, 9), (55, 65)), ((2, 2, 3), (60, 85)), ((3, 3), (128, 128))],
)
def test_pictures_shrink_until_the_sheet_fits(small_limits, counts, shrunk_to):
    axes = [(name, [str(value) for value in range(count)]) for name, count in zip("abc", counts, strict=False)]
    tiles = [plain(index, 128, 128) for index in range(np.prod(counts))]
    found = images.labelled_sheet(axes, tiles)
    assert max(found.shape) <= 600
    places = boxes(found, len(tiles))
    assert len(places) == len(tiles)
    sides = {box[2] - box[0] for box in places.values()} | {box[3] - box[1] for box in places.values()}
    assert len(sides) == 1
    assert shrunk_to[0] <= sides.pop() <= shrunk_to[1]


def test_the_area_has_a_limit_too(monkeypatch):
    monkeypatch.setattr(sheet, "_MOST_PIXELS", 200 * 200)
    found = images.labelled_sheet(ABOVE_CELLS, ["not yet"] * 6)
    assert 150 * 150 < found.shape[0] * found.shape[1] <= 200 * 200


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((1, 2, 40), "and {p} more pages"),
        ((1, 2, 5), "and 1 more page"),
        ((2, 40), "and {r} more rows"),
        ((40,), "and {c} more columns"),
        ((40, 40), "and {c} more columns, {r} more rows"),
        ((30, 40, 3), "and {c} more columns, {r} more rows, 2 more pages"),
    ],
)
def test_what_does_not_fit_is_left_out_and_counted(small_limits, monkeypatch, counts, line):
    written = labels_written(monkeypatch)
    columns, rows, pages = (*counts, 1, 1)[:3]
    axes = [(name, [str(value) for value in range(count)]) for name, count in zip("abc", counts, strict=False)]
    order = list(itertools.product(range(columns), range(rows), range(pages)))
    # A tile's color is its column, row and page; letters are grays that no tile has.
    tiles = [np.full((32, 32, 3), [(place + 1) / 64 for place in places], np.float32) for places in order]
    found = images.labelled_sheet(axes, tiles)
    assert max(found.shape) <= 600
    colors = np.unique(found.reshape(-1, 3), axis=0)
    kept = {tuple(np.rint(color * 64).astype(int) - 1) for color in colors} & set(order)
    shown = [len({places[axis] for places in kept}) for axis in range(3)]
    assert kept == set(itertools.product(*map(range, shown)))
    assert written[-1][0] == line.format(c=columns - shown[0], r=rows - shown[1], p=pages - shown[2])
    assert found.shape[0] > 600 - 150 or found.shape[1] > 600 - 40


def test_real_limits_hold_for_a_thousand_columns_and_more_rows():
    found = images.labelled_sheet([("a", [str(value) for value in range(1000)])], ["not yet"] * 1000)
    assert 16000 < found.shape[1] <= 16384
    rows = 700
    found = images.labelled_sheet([("a", ["1"]), ("b", [str(value) for value in range(rows)])], ["not yet"] * rows)
    assert 16000 < found.shape[0] <= 16384
