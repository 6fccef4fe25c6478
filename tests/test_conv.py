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


# ---- Training: gradients of kernel and bias, over many images at once


def _kernel_gradient(x, weight, padding):
    """Of `sum(weight * conv3x3(x))`: each tap meets each place once; a loop in float64."""
    mode = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}[padding]
    around = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode)
    found = np.zeros((3, 3, x.shape[-1], weight.shape[-1]))
    for row, column in np.ndindex(x.shape[:2]):
        for i, j in np.ndindex(3, 3):
            found[i, j] += np.outer(around[row + i, column + j], weight[row, column])
    return found


@pytest.mark.parametrize("padding", PADDINGS)
def test_kernel_and_bias_gradients_equal_a_loop_over_places_and_images(x64, rng, padding):
    _, kernel, bias = _arrays(rng, shape=(4, 5, 2), out=3)
    images, weights = rng.standard_normal((3, 4, 5, 2)), rng.standard_normal((3, 4, 5, 3))

    def weighted(kernel, bias):
        one = lambda x: conv3x3(x, kernel, bias, padding=padding)  # noqa: E731
        return jnp.sum(jnp.asarray(weights) * jax.vmap(one)(jnp.asarray(images)))

    found, shift = jax.grad(weighted, (0, 1))(jnp.asarray(kernel), jnp.asarray(bias))
    expected = sum(_kernel_gradient(x, weight, padding) for x, weight in zip(images, weights, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(shift, weights.sum((0, 1, 2)), rtol=1e-10)


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients_over_many_images_are_finite_differences(x64, rng, padding):
    _, kernel, bias = map(jnp.asarray, _arrays(rng, shape=(4, 3, 2), out=2))
    images = jnp.asarray(rng.standard_normal((2, 4, 3, 2)))
    many = jax.vmap(lambda x, *rest: conv3x3(x, *rest, padding=padding), (0, None, None))
    check_grads(many, (images, kernel, bias), 1, ["rev"], atol=1e-7, rtol=1e-7)
