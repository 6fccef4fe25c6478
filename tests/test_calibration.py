"""Distances, the ROC curve and the equal error rate against counting by hand."""

import numpy as np
import pytest

from jnst import calibration


def by_hand(same, different, threshold):
    """False accepts and false rejects, counted."""
    wrong = sum(one <= threshold for one in different) / len(different)
    return wrong, sum(one > threshold for one in same) / len(same)


def test_pairs_are_all_pairs_once(rng):
    features = rng.standard_normal((9, 4))
    labels = list("aabbbcaad")
    same, different = calibration.pair_distances(features, labels)
    expected = {True: [], False: []}
    for i in range(9):
        for j in range(i + 1, 9):
            distance = np.sqrt(sum((features[i, k] - features[j, k]) ** 2 for k in range(4)))
            expected[labels[i] == labels[j]].append(distance)
    np.testing.assert_allclose(np.sort(same), np.sort(expected[True]), rtol=1e-12)
    np.testing.assert_allclose(np.sort(different), np.sort(expected[False]), rtol=1e-12)


def test_one_picture_has_no_pairs():
    assert [len(part) for part in calibration.pair_distances(np.ones((1, 3)), ["a"])] == [0, 0]


def test_rates_are_those_counted_at_each_threshold(rng):
    same, different = rng.integers(0, 12, 30) / 10, rng.integers(4, 20, 50) / 10  # with ties, within and across
    curve = calibration.roc(same, different)
    found = list(zip(curve.false_accepts, curve.false_rejects, strict=True))
    np.testing.assert_allclose(found, [by_hand(same, different, at) for at in curve.thresholds], atol=1e-12)
    assert found[0] == (0, 1)
    assert found[-1] == (1, 0)
    assert (np.diff(curve.thresholds) > 0).all()
    assert (np.diff(curve.false_accepts) >= 0).all()
    assert (np.diff(curve.false_rejects) <= 0).all()


def test_every_way_to_tell_the_distances_apart_is_there_once():
    curve = calibration.roc([1, 2, 2], [2, 3])
    np.testing.assert_allclose(curve.thresholds, [0, 1.5, 2.5, 4])


def test_what_is_apart_has_no_error_and_a_threshold_in_the_gap():
    threshold, rate = calibration.equal_error(calibration.roc([0.1, 0.2], [0.6, 0.9, 1.2]))
    assert rate == 0
    assert threshold == pytest.approx(0.4)


def test_equal_error_is_where_both_rates_cross():
    # Four of ten on the wrong side, on both.
    same, different = np.r_[np.full(6, 0.1), np.full(4, 0.9)], np.r_[np.full(4, 0.2), np.full(6, 0.8)]
    threshold, rate = calibration.equal_error(calibration.roc(same, different))
    assert rate == pytest.approx(0.4)
    assert 0.2 < threshold < 0.8


def test_distances_that_say_nothing_err_half_of_the_time(rng):
    same, different = rng.random(2000), rng.random(3000)
    assert calibration.equal_error(calibration.roc(same, different)).rate == pytest.approx(0.5, abs=0.03)
    assert calibration.equal_error(calibration.roc([0.5], [0.5])).rate == pytest.approx(0.5)


def test_two_normal_distributions_err_as_their_overlap_says(rng):
    from math import erf

    same, different = rng.normal(0, 1, 40000), rng.normal(2, 1, 40000)
    expected = 0.5 * (1 - erf(1 / np.sqrt(2)))  # both are one deviation from the middle
    found = calibration.equal_error(calibration.roc(same, different))
    assert found.rate == pytest.approx(expected, abs=0.005)
    assert found.threshold == pytest.approx(1, abs=0.02)


def test_the_rate_does_not_depend_on_the_unit(rng):
    same, different = rng.random(40), rng.random(60) + 0.3
    first = calibration.equal_error(calibration.roc(same, different))
    second = calibration.equal_error(calibration.roc(1000 * same, 1000 * different))
    assert second.rate == first.rate
    assert second.threshold == pytest.approx(1000 * first.threshold)


def test_decorrelation_is_the_ridged_whitening_of_numpy(rng):
    mixed = rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6)) + 3
    centered = mixed - mixed.mean(0)
    u, s, v = np.linalg.svd(centered, full_matrices=False)
    expected = u * (s / np.sqrt(s**2 + 0.04 * s[0] ** 2)) @ v
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(calibration.decorrelation(mixed)(mixed), expected, atol=1e-10)


def test_decorrelation_finds_what_a_common_direction_hides(rng):
    """Two kinds that differ in a quiet channel, beside two loud ones that say nothing of them."""
    kind = np.repeat([0, 1], 40)
    loud = 5 + rng.standard_normal((2, 80))
    features = np.stack([*loud, 0.3 * kind + 0.02 * rng.standard_normal(80)], -1)

    def agreement(table):
        distances = np.linalg.norm(table[:, None] - table[None], axis=-1) + 1e9 * np.eye(80)
        return (kind[distances.argmin(1)] == kind).mean()

    assert agreement(calibration.decorrelation(features)(features)) == 1
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert agreement(unit) < 1


@pytest.mark.parametrize("features", [np.eye(3)[:2], np.ones((5, 3))], ids=["two", "all alike"])
def test_nothing_is_learned_from_too_little(features):
    np.testing.assert_array_equal(calibration.decorrelation(features)(np.arange(3)), np.arange(3.0))


@pytest.mark.parametrize(
    ("same", "different", "words"),
    [([], [1.0], "0 pairs of the same"), ([1.0], [], "0 of different"), ([np.nan], [1.0], "not finite")],
)
def test_without_pairs_of_both_kinds_there_is_no_curve(same, different, words):
    with pytest.raises(ValueError, match=words):
        calibration.roc(same, different)
