import numpy as np
import pytest

from jnst import distances


def _sets(rng, shift=0.0):
    mix = rng.standard_normal((4, 4))
    return rng.standard_normal((60, 4)) @ mix, rng.standard_normal((50, 4)) @ mix + shift


def test_frechet_is_the_formula(rng):
    """By the eigenvalues of the product itself, which is not symmetric."""
    one, other = _sets(rng, 0.5)
    first, second = np.cov(one.T), np.cov(other.T)
    roots = np.sqrt(np.linalg.eigvals(first @ second).real)
    expected = np.sum((one.mean(0) - other.mean(0)) ** 2) + np.trace(first) + np.trace(second) - 2 * roots.sum()
    assert distances.frechet(one, other) == pytest.approx(expected, rel=1e-9)
    assert distances.frechet(other, one) == pytest.approx(expected, rel=1e-9)
    assert distances.frechet(one, one) == pytest.approx(0, abs=1e-9)


def test_frechet_of_normal_distributions_that_are_known(rng):
    """Independent coordinates: squares of the differences of means and of deviations."""
    draw = rng.standard_normal((20000, 2))
    found = distances.frechet(draw, draw * [2.0, 3.0] + [1.0, 0.0])
    assert found == pytest.approx(1 + 1 + 4, rel=0.05)


def test_frechet_of_fewer_vectors_than_numbers_is_finite(rng):
    assert distances.frechet(rng.standard_normal((3, 8)), rng.standard_normal((3, 8))) > 0


def test_kernel_is_the_estimate_without_bias(rng):
    one, other = _sets(rng, 0.5)
    k = lambda x, y: (np.dot(x, y) / 4 + 1) ** 3  # noqa: E731
    within = lambda found: np.mean([k(x, y) for i, x in enumerate(found) for j, y in enumerate(found) if i != j])  # noqa: E731
    between = np.mean([k(x, y) for x in one for y in other])
    expected = within(one) + within(other) - 2 * between
    assert distances.kernel(one, other)["distance"] == pytest.approx(expected, rel=1e-9)


def test_kernel_is_about_0_between_samples_of_the_same_and_its_error_says_how_nearly():
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found.append(distances.kernel(rng.standard_normal((40, 3)), rng.standard_normal((40, 3)))["distance"])
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(40)
    assert min(found) < 0 < max(found)
    rng = np.random.default_rng(0)
    apart = distances.kernel(rng.standard_normal((200, 3)), rng.standard_normal((200, 3)) + 1)
    assert apart["distance"] > 5 * apart["error"] > 0
    assert np.isnan(distances.kernel(np.eye(3), np.eye(3))["error"])


@pytest.mark.parametrize("wrong", [np.zeros((1, 3)), np.zeros(3)])
def test_what_is_no_set_is_refused(wrong):
    with pytest.raises(ValueError, match="at least two vectors"):
        distances.frechet(wrong, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least two vectors"):
        distances.kernel(np.zeros((2, 3)), wrong)
