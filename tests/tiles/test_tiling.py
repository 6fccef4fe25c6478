"""How an image is cut, by counting; how far a feature sees, by numpy."""

import functools
import itertools
from typing import NamedTuple

import numpy as np
import pytest
import reference

from jnst.tiles import halo_of, make_tiling, stride_of

DEEPEST = ("relu1_1", "relu1_2", "relu2_1", "relu3_1", "relu4_2", "relu5_1")
PRIMES = (2, 17, 31, 97, 127, 251)


def _reach(layer):
    """How many pixels beyond its own a feature changes with, at most: one pixel after another of a dark strip is lit.

    No kernel has a weight of 0 or a minus that would hide a pixel, and in the dark nothing is too weak to be seen.
    """
    params = {name: {"kernel": np.ones((3, 3, 1, 1)), "bias": 0} for name in reference.LAYERS} | {"mean": np.zeros(1)}
    stride = stride_of([layer])
    found, base = (
        [],
        layer if layer[:4] != "pool" else {"pool1": "relu1_2", "pool2": "relu2_2", "pool4": "relu4_4"}[layer],
    )
    for place in range(10 * stride, 11 * stride):
        image = np.zeros((stride, 21 * stride, 1))
        image[:, place] = 1
        lit = reference.features(params, image, [base], "avg", "zeros")[base]
        lit = (lit if base == layer else reference.pool(lit, "avg")).any((0, 2))
        assert not lit[0]
        assert not lit[-1]
        first, last = np.flatnonzero(lit)[[0, -1]]
        found += [last * stride - place, place - ((first + 1) * stride - 1)]
    return max(found)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [*DEEPEST, "pool1", "pool2", "pool4"])
def test_the_halo_is_what_a_feature_sees_and_less_than_a_stride_more(layer):
    halo, stride = halo_of([layer]), stride_of([layer])
    assert halo % stride == 0
    assert halo - stride < _reach(layer) <= halo


def test_the_deepest_layer_says_how_far():
    assert halo_of(["relu5_1"]) == halo_of(["conv5_1", "relu1_1"]) == halo_of(["relu3_4", "relu5_1", "conv4_2"]) == 80
    assert stride_of(["relu5_1"]) == stride_of(["relu3_4", "conv5_3", "conv1_1"]) == 16
    assert halo_of(["pool2", "relu2_2"]) == halo_of(["pool2"]) == 8
    assert stride_of(["pool2", "relu2_2"]) == stride_of(["relu3_1"]) == 4


class Side(NamedTuple):
    """One side of a tiling, with its tiles' (start, first, end)."""

    length: int
    tile: int
    window: int
    count: int
    halo: int
    stride: int
    asked: int
    places: np.ndarray


@functools.cache
def _cuts():
    """Tilings of random shapes, of primes, of flat pictures; tiles as small as they may be, at random, and larger than
    the picture."""
    rng = np.random.default_rng(0)
    shapes = [tuple(rng.integers(16, 300, 2).tolist()) for _ in range(80)]
    shapes += list(itertools.product(PRIMES, PRIMES)) + [(16, 900), (900, 16), (1, 1), (320, 320)]
    found = []
    for shape in shapes:
        for tile in (max(shape) // 16, int(rng.integers(8, 150)), 512):
            layer = DEEPEST[rng.integers(len(DEEPEST))]
            found.append((tile, stride_of([layer]), make_tiling(shape, [layer], tile)))
    return found


@functools.cache
def _sides():
    found = []
    for asked, stride, tiling in _cuts():
        places = tiling.places
        assert places.dtype == np.int32
        assert places.shape == (tiling.total, 2, 3)
        for axis in (0, 1):
            numbers = (each[axis] for each in (tiling.shape, tiling.tile, tiling.window, tiling.counts))
            found.append(Side(*numbers, tiling.halo, stride, asked, np.unique(places[:, axis], axis=0)))
    return found


def test_the_cuts_are_of_every_kind():
    kinds = {(side.stride, side.count == 1, side.length % side.stride == 0) for side in _sides()}
    assert len(kinds) == 5 * 2 * 2 - 2  # all but a rest over a stride of 1
    assert max(side.count for side in _sides()) > 8


def test_every_feature_of_every_layer_belongs_to_one_tile():
    for _, deepest, tiling in _cuts():
        for stride in 2 ** np.arange(deepest.bit_length()):
            owners = np.zeros([length // stride for length in tiling.shape], int)
            for (top, *rows), (left, *columns) in tiling.places // stride:
                owners[top + rows[0] : top + rows[1], left + columns[0] : left + columns[1]] += 1
            assert (owners == 1).all(), (tiling, stride)


def test_windows_lie_in_the_image_where_pooling_has_the_same_cells():
    for side in _sides():
        starts = side.places[:, 0]
        assert (starts >= 0).all()
        assert (starts + side.window <= side.length).all()
        assert (starts % side.stride == 0).all()


def test_windows_reach_a_halo_further_or_to_the_border():
    for side in _sides():
        start, first, end = side.places.T
        assert ((first >= 0) & (first < end) & (end <= side.window)).all()
        assert ((first >= side.halo) | (start == 0)).all()
        assert ((side.window - end >= side.halo) | (start + side.window == side.length)).all()


def test_tiles_and_windows_are_no_larger_than_asked_for():
    for side in _sides():
        sizes, asked = np.diff(side.places[:, 1:])[:, 0], max(side.stride, side.asked)
        assert len(sizes) == side.count
        assert sizes[-1] <= side.tile
        assert (sizes[:-1] == side.tile).all()
        assert side.window <= asked + 2 * side.halo + side.stride - 1
        assert side.tile <= asked if side.count > 1 else side.tile == side.window == side.length


def test_a_picture_that_fits_is_not_cut():
    for shape in [(512, 512), (17, 300)]:
        tiling = make_tiling(shape, ["relu5_1"], 512)
        assert tiling.window == tiling.tile == shape
        assert tiling.places.tolist() == [[[0, 0, shape[0]], [0, 0, shape[1]]]]


def test_another_halo_is_taken_as_it_is():
    usual, smaller = (make_tiling((400, 400), ["relu5_1"], 64, halo=halo) for halo in (None, 64))
    assert (usual.halo, smaller.halo) == (80, 64)
    assert usual.tile == smaller.tile
    assert usual.window[0] - smaller.window[0] == 32
