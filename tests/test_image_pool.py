import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import image_pool

PLACES = 5
query = jax.jit(image_pool.query)


def _numbered(numbers):
    """Flat pictures that tell their number."""
    return jnp.asarray(np.asarray(numbers, np.float32)[:, None, None, None] * np.ones((1, 2, 2, 3), np.float32))


def _plain(key, pool, numbers):
    """In plain Python, of numbers: what is shown, and the pool."""
    pool, shown = list(pool), []
    for number, own in zip(numbers, jax.random.split(key, len(numbers)), strict=True):
        chance, place = jax.random.split(own)
        if len(pool) < PLACES:
            pool.append(number)
            shown.append(number)
        elif jax.random.bernoulli(chance):
            at = int(jax.random.randint(place, (), 0, PLACES))
            shown.append(pool[at])
            pool[at] = number
        else:
            shown.append(number)
    return pool, shown


@pytest.mark.slow
def test_it_is_the_plain_one_with_the_same_chance():
    """Three pictures at a time: the pool fills in the middle of the second batch."""
    pool, plain, exchanged = image_pool.init(PLACES, 2), [], 0
    for step in range(8):
        key, numbers = jax.random.key(step), np.arange(3 * step, 3 * step + 3)
        pool, shown = query(key, pool, _numbered(numbers))
        plain, expected = _plain(key, plain, numbers)
        np.testing.assert_array_equal(shown, _numbered(expected))
        np.testing.assert_array_equal(pool.pictures[: len(plain)], _numbered(plain))
        assert not pool.pictures[len(plain) :].any()
        assert int(pool.taken) == len(plain)
        exchanged += int(np.sum(np.asarray(expected) != numbers))
    assert 3 <= exchanged <= 16  # the comparison was about something


@pytest.mark.slow
def test_once_it_is_full_half_are_shown_from_it_and_every_place_has_its_turn():
    count = 2000
    pool, shown = query(jax.random.key(0), image_pool.init(PLACES, 2), _numbered(np.arange(count)))
    shown = np.asarray(shown[:, 0, 0, 0]).astype(int)
    np.testing.assert_array_equal(shown[:PLACES], np.arange(PLACES))
    ages = (np.arange(count) - shown)[PLACES:]
    assert ages.min() == 0
    assert (ages > 0).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(count))
    # A picture leaves with a chance of half in PLACES at each step: it stays ten steps on average.
    stays = ages[ages > 0]
    assert stays.mean() == pytest.approx(2 * PLACES, rel=0.15)
    assert len(np.unique(pool.pictures[:, 0, 0, 0])) == PLACES
    # Each is shown once when it is new or taken out, but those that filled the pool: they are shown as new, too.
    kept = np.asarray(pool.pictures[:, 0, 0, 0]).astype(int)
    numbers = np.concatenate([shown[PLACES:], kept])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(count))


@pytest.mark.slow
def test_other_keys_are_other_chances():
    full = image_pool.Pool(_numbered(np.arange(PLACES) - 100), jnp.int32(PLACES))
    images = _numbered(np.arange(24))
    first, other = (query(jax.random.key(number), full, images)[1] for number in (0, 1))
    assert (first != other).any()
    np.testing.assert_array_equal(first, query(jax.random.key(0), full, images)[1])
