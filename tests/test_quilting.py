"""Quilting: which patches, where they are cut, and that a tile has no seam."""

import itertools

import numpy as np
import pytest
import reference

from jnst import images, quilting
from jnst.quilting import quilt

PATCH, OVERLAP = 12, 3


def _quilt(sample, size, *, seed=0, patch=PATCH, overlap=OVERLAP, **options):
    return quilt(np.random.default_rng(seed), sample, size, patch=patch, overlap=overlap, **options)


def _addresses(height, width):
    """A sample that tells where each pixel was: its row in red, its column in green, in 1/256. Noise in blue."""
    noise = np.random.default_rng(9).random((height, width))
    return np.stack([*np.mgrid[:height, :width] / 256, noise], -1).astype(np.float32)


def _grid(length, tileable):
    """Where patches start, by the rule of the docstring, and how long they are together."""
    step = PATCH - OVERLAP
    if not tileable:
        starts = [0]
        while starts[-1] + PATCH < length:
            starts.append(starts[-1] + step)
        return starts, starts[-1] + PATCH
    count = int(np.ceil(length / step))
    return [int(np.floor(index * length / count)) for index in range(count)], length


def _offsets(out, top, left, height, width):
    """Where the patch at `top`, `left` was in the sample, if it is what each of its pixels shows; `[H, W, 2]`."""
    address = np.round(out[..., :2] * 256).astype(int)
    rows, columns = np.indices(out.shape[:2])
    return address - np.stack([(rows - top) % height, (columns - left) % width], -1)


# ---- Which patch


@pytest.mark.parametrize(("height", "width"), [(30, 41), (12, 12), (29, 12), (37, 31)])
@pytest.mark.parametrize("overlaps", [(0, 0, 0, 0), (0, 0, 3, 0), (3, 0, 0, 0), (4, 3, 5, 2)])
def test_the_errors_are_the_sums_of_squared_differences(rng, height, width, overlaps):
    sample = rng.random((height, width, 3), np.float32)
    above, below, before, after = overlaps
    hole = (slice(above, PATCH - below), slice(before, PATCH - after))
    old = rng.random((PATCH, PATCH, 3), np.float32)
    old[hole] = 0
    known = np.ones((PATCH, PATCH), bool)
    known[hole] = False
    expected = np.zeros((height - PATCH + 1, width - PATCH + 1))
    for y, x in np.ndindex(expected.shape):
        difference = sample[y : y + PATCH, x : x + PATCH].astype(np.float64) - old
        expected[y, x] = np.sum(difference[known] ** 2)
    found = quilting._Search(sample, PATCH).errors(old, hole)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.5])
def test_a_patch_is_drawn_among_those_within_the_tolerance(rng, tolerance):
    errors = rng.uniform(1, 2, (9, 13))
    good = {tuple(map(int, place)) for place in np.argwhere(errors <= errors.min() * (1 + tolerance))}
    found = [quilting._draw(rng, errors, tolerance) for _ in range(40 * len(good))]
    assert set(found) == good
    counts = [found.count(place) for place in good]
    assert min(counts) > 10  # 40 are expected of each


def test_places_that_fit_exactly_are_all_drawn(rng):
    errors = np.ones((3, 4))
    errors[[0, 2], [1, 3]] = 3e-11, 0  # rounding makes no best of them
    assert {quilting._draw(rng, errors, 0.1) for _ in range(50)} == {(0, 1), (2, 3)}


@pytest.mark.parametrize("tileable", [False, True])
@pytest.mark.parametrize("size", [(40, 31), (13, 57), (12, 20)])
def test_each_patch_is_a_copy_from_the_sample_but_for_its_overlaps(size, tileable):
    out = _quilt(_addresses(25, 33), size, tileable=tileable)
    assert out.shape == (*size, 3)
    assert out.dtype == np.float32
    grids = [_grid(length, tileable) for length in size]
    # Which lines each patch lies on, and on which lines only one does, by the axis.
    lines = [[(start + np.arange(PATCH)) % extent for start in starts] for starts, extent in grids]
    alone = [np.bincount(np.concatenate(those)) == 1 for those in lines]
    pairs = [list(zip(grid[0], those, strict=True)) for grid, those in zip(grids, lines, strict=True)]
    seen = 0
    for (top, rows), (left, columns) in itertools.product(*pairs):
        rows = [at for at in rows[alone[0][rows]] if at < size[0]]
        columns = [at for at in columns[alone[1][columns]] if at < size[1]]
        inside = _offsets(out, top, left, grids[0][1], grids[1][1])[np.ix_(rows, columns)].reshape(-1, 2)
        assert (inside == inside[:1]).all()
        assert ((inside >= 0) & (inside <= (25 - PATCH, 33 - PATCH))).all()
        seen += len(inside)
    assert seen == alone[0][: size[0]].sum() * alone[1][: size[1]].sum()


def test_a_result_within_one_patch_is_a_piece_of_the_sample():
    out = np.round(_quilt(_addresses(20, 30), (7, 11))[..., :2] * 256)
    np.testing.assert_array_equal(out - out[:1, :1], np.moveaxis(np.indices((7, 11)), 0, -1))


# ---- The cut


def _best_cut(error, most):
    """By trying all paths."""
    length, width = error.shape
    best = np.inf, None
    for start in range(width):
        for steps in itertools.product((-1, 0, 1), repeat=length - 1):
            path = start + np.concatenate([[0], np.cumsum(steps, dtype=int)])
            if path.min() >= 0 and path.max() < width and (path <= most).all():
                best = min(best, (error[np.arange(length), path].sum(), tuple(path)))
    return best


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("limited", [False, True])
def test_the_cut_is_the_least_of_all_paths(rng, width, limited):
    for _ in range(8):
        error = rng.random((7, width))
        most = np.full(7, width - 1)
        if limited:
            most[2:4] = rng.integers(width)
        least, path = _best_cut(error, most)
        found = quilting._cut(error, most if limited else None)
        assert tuple(found) == path
        np.testing.assert_allclose(error[np.arange(7), found].sum(), least)


def test_a_cut_that_is_known_is_found():
    error = np.ones((5, 4))
    path = [3, 2, 2, 1, 0]
    error[np.arange(5), path] = 0
    assert quilting._cut(error).tolist() == path
    assert quilting._cut(error[::-1]).tolist() == path[::-1]


@pytest.mark.parametrize("overlaps", [(3, 0, 0, 0), (0, 0, 2, 0), (3, 0, 3, 0), (0, 3, 3, 2), (3, 2, 3, 3)])
def test_a_patch_is_laid_within_its_four_cuts(rng, overlaps):
    side = 7
    above, below, before, after = overlaps
    most = {"above": np.full(side, above - 1), "below": np.full(side, below - 1)}
    for _ in range(6):
        old, new = rng.random((2, side, side, 3), np.float32)
        # The row's first patch and the one before this one: only where they begin and end counts.
        first, last = rng.integers(max(1, above), size=(2, side)), rng.integers(max(1, below), size=(2, side))
        cuts = [[first[0], last[0]], [first[1], last[1]]]
        if before:  # on both sides of that one's edge, and in a circle of the edge of the first
            most["above"][before - 1 : before + 1], most["below"][before - 1 : before + 1] = first[1][-1], last[1][-1]
        if after:
            for name, line in (("above", first), ("below", last)):
                for place in (side - after - 1, side - after):
                    both = (line[1][-1], line[0][0]) if before and place in (before - 1, before) else (line[0][0],)
                    most[name][place] = min(both)
        error = np.sum((new - old.astype(np.float64)) ** 2, -1)
        expected = np.ones((side, side), bool)
        for strip, mask, limits in (
            (error[:above], expected, most["above"]),
            (error[::-1][:below], expected[::-1], most["below"]),
            (error.T[:before], expected.T, side),
            (error.T[::-1][:after], expected.T[::-1], side),
        ):
            if len(strip):
                for place, cut in enumerate(_best_cut(strip.T, limits)[1]):
                    mask[:cut, place] = False
        np.testing.assert_array_equal(quilting._mask(old, new, overlaps, cuts)[0], expected)


@pytest.mark.parametrize("tileable", [False, True])
def test_no_patch_ends_uncut_against_another(tileable):
    """Beyond each side of a patch lies what it was cut to, or one that was laid later."""
    size, uncut = (46, 64), 0
    for seed in range(3):
        out = _quilt(_addresses(40, 44), size, tileable=tileable, seed=seed)
        (tops, height), (lefts, width) = (_grid(length, tileable) for length in size)
        order = np.full(size, -1)  # which patch each pixel is of
        for number, (top, left) in enumerate(itertools.product(tops, lefts)):
            offsets = _offsets(out, top, left, height, width)
            middle = offsets[min(top + PATCH // 2, size[0] - 1), min(left + PATCH // 2, size[1] - 1)]
            rows, columns = np.indices(size)
            inside = ((rows - top) % height < PATCH) & ((columns - left) % width < PATCH)
            order[inside & (offsets == middle).all(-1)] = number
        assert (order >= 0).all()
        row_of, column_of = np.divmod(order, len(lefts))
        # Right of a patch's last column: none of a row above, which lay there before. (The last column is cut there.)
        for column, left in enumerate(lefts[:-1]):
            here, beyond = left + PATCH - 1, (left + PATCH) % width
            uncut += np.sum((column_of[:, here] == column) & (row_of[:, beyond] < row_of[:, here]))
        if tileable:  # left of the first column: the same
            uncut += np.sum((column_of[:, 0] == 0) & (row_of[:, -1] < row_of[:, 0]))
    assert uncut == 0


# ---- What comes out


@pytest.mark.parametrize("tileable", [False, True])
def test_a_periodic_sample_goes_on_exactly(tileable):
    """Stripes down and a checker: with whole periods in the sample there is always a patch that fits."""
    rows, columns = np.indices((26, 28))
    sample = np.stack([rows // 2 % 2, columns // 3 % 2, (rows + columns) % 2], -1).astype(np.float32)
    out = _quilt(sample, (36, 48), tileable=tileable)  # whole periods too
    np.testing.assert_array_equal(out[4:], out[:-4])
    np.testing.assert_array_equal(out[:, 6:], out[:, :-6])
    assert len(np.unique(out[:4, :6].reshape(-1, 3), axis=0)) == 8
    if tileable:
        np.testing.assert_array_equal(np.roll(out, 4, 0), out)
        np.testing.assert_array_equal(np.roll(out, 6, 1), out)


def _steps_over_the_edge(out):
    """The mean difference over the wrap, in units of the mean inside; down and across."""
    found = []
    for axis in (0, 1):
        steps = np.abs(np.diff(out, axis=axis, append=np.take(out, [0], axis))).mean((1 - axis, 2))
        found.append(steps[-1] / steps[:-1].mean())
    return np.array(found)


@pytest.mark.parametrize("size", [(60, 47), (12, 12), (17, 80)])
def test_a_tile_has_no_seam(size):
    sample = reference.smooth_picture(48, 40, seed=3)
    assert (_steps_over_the_edge(_quilt(sample, size, tileable=True)) < 1.7).all()


def test_what_is_no_tile_has_seams():
    sample = reference.smooth_picture(48, 40, seed=3)
    assert (_steps_over_the_edge(_quilt(sample, (60, 47))) > 3).all()


@pytest.mark.parametrize("overlap", [1, 2, 4, 6])
@pytest.mark.parametrize("side", range(12, 31, 3))
def test_patches_of_a_tile_lie_evenly_around_it(side, overlap):
    places, extent = quilting._axis(side, PATCH, overlap, True)
    assert extent == side
    starts = np.array([start for start, _, _ in places])
    steps = np.diff(starts, append=side)
    assert np.ptp(steps) <= 1
    assert [places[-1][2], *(before for _, before, _ in places[1:])] == (PATCH - np.roll(steps, 1)).tolist()
    assert places[0][1] == 0
    assert not any(after for _, _, after in places[:-1])
    # Those before and after never meet, or where they do, neither cut would hold.
    assert all(before + after <= PATCH for _, before, after in places)
    assert PATCH - steps.max() >= (overlap if overlap <= PATCH // 4 else PATCH // 4)


@pytest.mark.parametrize("tileable", [False, True])
def test_a_seed_gives_the_same_bytes_and_another_does_not(tileable):
    sample = reference.smooth_picture(31, 29, seed=4)
    first, again, other = (_quilt(sample, (33, 45), tileable=tileable, seed=seed).tobytes() for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_sample_of_another_type_or_order_in_memory_counts_the_same():
    sample = reference.smooth_picture(31, 29, seed=4)
    expected = _quilt(sample, (33, 45))
    np.testing.assert_array_equal(_quilt(np.asfortranarray(sample.astype(np.float64)), (33, 45)), expected)


def test_the_default_overlap_is_a_sixth():
    sample = reference.smooth_picture(31, 29, seed=4)
    np.testing.assert_array_equal(_quilt(sample, (33, 45), overlap=None), _quilt(sample, (33, 45), overlap=2))
    assert _quilt(sample, (9, 11), patch=2, overlap=None).shape == (9, 11, 3)


def test_progress_counts_the_patches():
    told = []
    _quilt(reference.smooth_picture(31, 29, seed=4), (21, 30), progress=lambda *counts: told.append(counts))
    assert told == [(number, 6) for number in range(1, 7)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 30}, "patch=30 for a sample of 31 x 29: expected 2 to its shorter side"),
        ({"patch": 1}, "patch=1 for a sample of 31 x 29"),
        ({"overlap": 7}, "overlap=7 for patch=12: expected 1 to 6, half a patch"),
        ({"overlap": 0}, "overlap=0 for patch=12"),
        ({"size": (0, 20)}, "a result of 0 x 20 pixels: expected at least 1 a side"),
        ({"size": (40, 11), "tileable": True}, "a result of 40 x 11 pixels: expected at least patch=12 a side"),
        ({"tolerance": -0.5}, "tolerance=-0.5: expected 0 or more"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"sample": np.zeros((31, 29), np.float32)}, r"a sample of shape \(31, 29\): expected \[h, w, 3\]"),
    ],
)
def test_numbers_out_of_range_are_named(options, message):
    options = {"sample": reference.smooth_picture(31, 29, seed=4), "size": (20, 20)} | options
    with pytest.raises(ValueError, match=message):
        _quilt(**options)


@pytest.mark.slow
def test_a_real_texture_tiles(shared):
    path = shared / "images" / "texture" / "gatys_pebbles.jpg"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here: pictures of others are not part of the repo")
    sample = images.load(path).opaque()[:128, :128]
    out = _quilt(sample, (150, 170), patch=32, overlap=None, tileable=True)
    assert (_steps_over_the_edge(out) < 1.5).all()
    known = {tuple(color) for color in sample.reshape(-1, 3).tolist()}
    assert {tuple(color) for color in out.reshape(-1, 3).tolist()} <= known
