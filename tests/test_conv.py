import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads

from jnst import conv
from jnst.config import PADDINGS

conv3x3 = jax.jit(conv.conv3x3, static_argnames="padding")


def _arrays(rng, dtype=np.float64, shape=(5, 7, 3), out=4):
    arrays = rng.standard_normal(shape), rng.standard_normal((3, 3, shape[-1], out)), rng.standard_normal(out)
    return tuple(array.astype(dtype) for array in arrays)


@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 2, 1)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_equals_the_reference(x64, rng, padding, shape):
    x, kernel, bias = _arrays(rng, shape=shape)
    ours = conv3x3(*map(jnp.asarray, (x, kernel, bias)), padding=padding)
    np.testing.assert_allclose(ours, reference.conv3x3(x, kernel, bias, padding), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
def test_float32_is_right_to_a_millionth(rng, padding):
    x, kernel, bias = _arrays(rng, np.float32)
    with jax.default_matmul_precision("highest"):
        ours = conv3x3(*map(jnp.asarray, (x, kernel, bias)), padding=padding)
    expected = reference.conv3x3(*(array.astype(np.float64) for array in (x, kernel, bias)), padding)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_is_a_cross_correlation(rng):
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 1].set(1)  # looks at the pixel above
    x = jnp.asarray(rng.standard_normal((4, 4, 1)), jnp.float32)
    y = conv3x3(x, kernel, jnp.zeros(1))
    np.testing.assert_allclose(y[1:], x[:-1], rtol=1e-6)
    np.testing.assert_array_equal(y[0], 0)


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients_are_finite_differences(x64, rng, padding):
    arrays = tuple(map(jnp.asarray, _arrays(rng, shape=(4, 3, 2), out=2)))
    function = lambda *arrays: conv3x3(*arrays, padding=padding)  # noqa: E731
    check_grads(function, arrays, 1, ["rev"], atol=1e-7, rtol=1e-7)


def test_the_default_padding_is_zeros(rng):
    arrays = tuple(map(jnp.asarray, _arrays(rng, np.float32)))
    np.testing.assert_array_equal(conv3x3(*arrays), conv3x3(*arrays, padding="zeros"))


def test_unknown_padding_is_refused(rng):
    with pytest.raises(KeyError, match="wrap"):
        conv3x3(*map(jnp.asarray, _arrays(rng, np.float32)), padding="wrap")
