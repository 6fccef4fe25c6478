"""Matching distributions: against their definition, one pixel at a time."""

from fractions import Fraction

import numpy as np
import pytest
import reference

from jnst.images import match_histogram


def _quantile(values, share):
    """The least value that at least this share of the values do not exceed."""
    return min(value for value in values if Fraction(sum(other <= value for other in values), len(values)) >= share)


def _expected(image, sample):
    """From the definitions, with whole fractions."""
    out = np.zeros(image.shape)
    for channel in range(3):
        pixels, values = image[..., channel].ravel().tolist(), sample[..., channel].ravel().tolist()
        for place, pixel in enumerate(pixels):
            below = sum(other < pixel for other in pixels) + pixels[:place].count(pixel)
            share = Fraction(2 * below + 1, 2 * len(pixels))
            out[..., channel].flat[place] = _quantile(values, share)
    return out


# Ties in the picture, in the sample; larger, smaller, equal, multiples.
@pytest.mark.parametrize("size", [(4, 5), (7, 3), (2, 5), (8, 5), (1, 1)])
@pytest.mark.parametrize("levels", [3, 1000])
def test_each_pixel_gets_the_quantile_of_its_rank(rng, size, levels):
    image = (rng.integers(levels, size=(*size, 3)) / levels).astype(np.float32)
    sample = (rng.integers(levels, size=(4, 5, 3)) / levels).astype(np.float32)
    found = match_histogram(image, sample)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, _expected(image, sample))


def test_at_equal_counts_the_sorted_values_are_the_samples(rng):
    image, sample = rng.random((6, 10, 3), np.float32), rng.random((12, 5, 3), np.float32)
    found = match_histogram(image, sample)
    assert found.shape == image.shape
    np.testing.assert_array_equal(np.sort(found.reshape(-1, 3), 0), np.sort(sample.reshape(-1, 3), 0))


def test_a_multiple_of_the_sample_has_each_value_as_often(rng):
    sample = rng.random((4, 5, 3), np.float32)
    found = match_histogram(rng.random((12, 10, 3), np.float32), sample)
    for channel in range(3):
        values, counts = np.unique(found[..., channel], return_counts=True)
        np.testing.assert_array_equal(values, np.sort(sample[..., channel].ravel()))
        assert (counts == 6).all()


def test_the_order_of_values_is_kept(rng):
    image = rng.integers(6, size=(9, 8, 3)).astype(np.float32)
    found = match_histogram(image, rng.random((5, 7, 3), np.float32))
    for channel in range(3):
        a, b = image[..., channel].ravel(), found[..., channel].ravel()
        assert (b[:, None] <= b[None])[a[:, None] < a[None]].all()
        for value in np.unique(a):  # and equal ones go row by row
            assert (np.diff(b[a == value]) >= 0).all()


@pytest.mark.parametrize("size", [(9, 8), (40, 31)])
def test_twice_is_once(rng, size):
    sample = np.round(reference.smooth_picture(20, 15, seed=1), 1)
    once = match_histogram(np.round(rng.random((*size, 3), np.float32), 1), sample)
    np.testing.assert_array_equal(match_histogram(once, sample), once)


def test_a_picture_matched_to_itself_stays():
    picture = np.round(reference.smooth_picture(20, 15, seed=1), 1)
    np.testing.assert_array_equal(match_histogram(picture, picture), picture)


def test_the_arguments_are_left_alone(rng):
    image, sample = rng.random((4, 5, 3), np.float32), rng.random((3, 3, 3), np.float32)
    before = image.copy(), sample.copy()
    match_histogram(image, sample)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(sample, before[1])
