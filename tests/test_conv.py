import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax
from jax.test_util import check_grads

from jnst import conv
from jnst.config import PADDINGS
from jnst.config.choices import BORDERS

# By NumPy's names.
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "wrap": "wrap"}
each_padding = pytest.mark.parametrize("padding", MODES)

conv3x3 = jax.jit(conv.conv3x3, static_argnames=("padding", "rectify"))


def _arrays(rng, dtype=np.float64, shape=(5, 7, 3), out=4):
    arrays = rng.standard_normal(shape), rng.standard_normal((3, 3, shape[-1], out)), rng.standard_normal(out)
    return tuple(array.astype(dtype) for array in arrays)


def _reference(x, kernel, bias, padding):
    if padding != "wrap":
        return reference.conv3x3(x, kernel, bias, padding)
    around = np.pad(x, ((1, 1), (1, 1), (0, 0)), "wrap")
    return reference.conv3x3(around, kernel, bias, "zeros")[1:-1, 1:-1]


def test_the_paddings_are_all_that_a_border_can_be_made_of():
    assert set(MODES) == {*PADDINGS, "wrap"} == set(BORDERS) - {"replicate_first"}


@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 2, 1)])
@each_padding
def test_equals_the_reference(x64, rng, padding, shape):
    x, kernel, bias = _arrays(rng, shape=shape)
    ours = conv3x3(*map(jnp.asarray, (x, kernel, bias)), padding=padding)
    np.testing.assert_allclose(ours, _reference(x, kernel, bias, padding), rtol=1e-12, atol=1e-12)


@each_padding
def test_float32_is_right_to_a_millionth(rng, padding):
    x, kernel, bias = _arrays(rng, np.float32)
    with jax.default_matmul_precision("highest"):
        ours = conv3x3(*map(jnp.asarray, (x, kernel, bias)), padding=padding)
    expected = _reference(*(array.astype(np.float64) for array in (x, kernel, bias)), padding)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@each_padding
def test_rectified_it_is_never_negative(x64, rng, padding):
    x, kernel, bias = _arrays(rng)
    ours = conv3x3(*map(jnp.asarray, (x, kernel, bias)), padding=padding, rectify=True)
    expected = np.maximum(_reference(x, kernel, bias, padding), 0)
    assert (expected == 0).any()
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_is_a_cross_correlation(rng):
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 1].set(1)  # looks at the pixel above
    x = jnp.asarray(rng.standard_normal((4, 4, 1)), jnp.float32)
    y = conv3x3(x, kernel, jnp.zeros(1))
    np.testing.assert_allclose(y[1:], x[:-1], rtol=1e-6)
    np.testing.assert_array_equal(y[0], 0)


@pytest.mark.slow
@each_padding
def test_gradients_are_finite_differences(x64, rng, padding):
    arrays = tuple(map(jnp.asarray, _arrays(rng, shape=(4, 3, 2), out=2)))
    function = lambda *arrays: conv3x3(*arrays, padding=padding)  # noqa: E731
    check_grads(function, arrays, 1, ["rev"], atol=1e-7, rtol=1e-7)


def test_the_default_padding_is_zeros(rng):
    arrays = tuple(map(jnp.asarray, _arrays(rng, np.float32)))
    np.testing.assert_array_equal(conv3x3(*arrays), conv3x3(*arrays, padding="zeros"))


def test_unknown_padding_is_refused(rng):
    with pytest.raises(KeyError, match="circular"):
        conv3x3(*map(jnp.asarray, _arrays(rng, np.float32)), padding="circular")


def test_on_a_torus_one_row_is_its_own_neighbor(x64, rng):
    x, kernel, bias = _arrays(rng, shape=(1, 1, 2))
    ours = conv3x3(*map(jnp.asarray, (x, kernel, bias)), padding="wrap")
    np.testing.assert_allclose(ours[0, 0], x[0, 0] @ kernel.sum((0, 1)) + bias, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_on_a_torus_a_rolled_map_has_the_rolled_gradients(x64, rng, channels):
    x, kernel, bias = _arrays(rng, shape=(4, 5, channels), out=3)
    change = rng.standard_normal((4, 5, 3))
    arrays = [jnp.asarray(array) for array in (x, kernel, bias, change)]
    roll = lambda array: jnp.roll(array, (1, 3), (0, 1))  # noqa: E731
    plain = vjp(*arrays, "wrap", True)
    rolled = vjp(roll(arrays[0]), *arrays[1:3], roll(arrays[3]), "wrap", True)
    for ours, expected in zip(rolled, (roll(plain[0]), *plain[1:]), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


# ---- Training: gradients of kernel and bias, over many images at once


def _kernel_gradient(x, weight, padding):
    """Of `sum(weight * conv3x3(x))`: each tap meets each place once; a loop in float64."""
    around = np.pad(x, ((1, 1), (1, 1), (0, 0)), MODES[padding])
    found = np.zeros((3, 3, x.shape[-1], weight.shape[-1]))
    for row, column in np.ndindex(x.shape[:2]):
        for i, j in np.ndindex(3, 3):
            found[i, j] += np.outer(around[row + i, column + j], weight[row, column])
    return found


@pytest.mark.slow
@each_padding
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


@pytest.mark.slow
@each_padding
def test_gradients_over_many_images_are_finite_differences(x64, rng, padding):
    _, kernel, bias = map(jnp.asarray, _arrays(rng, shape=(4, 3, 2), out=2))
    images = jnp.asarray(rng.standard_normal((2, 4, 3, 2)))
    many = jax.vmap(lambda x, *rest: conv3x3(x, *rest, padding=padding), (0, None, None))
    check_grads(many, (images, kernel, bias), 1, ["rev"], atol=1e-7, rtol=1e-7)


# ---- The image's gradient, which a CPU computes by planes where channels are few


def _vjp(x, kernel, bias, change, padding, rectify):
    """Three VJPs of `conv3x3`."""
    pull = jax.vjp(lambda *args: conv.conv3x3(*args, padding=padding, rectify=rectify), x, kernel, bias)[1]
    return pull(change)


def _plain_vjp(x, kernel, bias, change, padding, rectify):
    """The same by the library's padding and its rules."""

    def plain(x, kernel, bias):
        x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), MODES[padding])
        y = lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        y = y[0] + bias[None, None]
        return jax.nn.relu(y) if rectify else y

    return jax.vjp(plain, x, kernel, bias)[1](change)


vjp, plain_vjp = (jax.jit(f, static_argnames=("padding", "rectify")) for f in (_vjp, _plain_vjp))


@functools.partial(jax.jit, static_argnames="padding")
def image_vjp(x, kernel, bias, change, padding):
    return _vjp(x, kernel, bias, change, padding, False)[0]


_CASES = [
    (padding, *case)
    for padding in MODES
    for case in [(3, (5, 7), True), (1, (2, 2), True), (4, (2, 9), False), (5, (5, 7), True)]  # five: not by planes
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padding", "channels", "size", "rectify"),
    [
        ("reflect", 3, (5, 7), True),
        ("zeros", 3, (1, 1), True),
        ("wrap", 3, (3, 2), True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [*_CASES, ("replicate", 3, (1, 6), True), ("wrap", 3, (1, 6), True)]
        ),
    ],
)
def test_gradients_equal_those_of_the_library(x64, rng, padding, channels, size, rectify):
    arrays = [
        *map(jnp.asarray, _arrays(rng, shape=(*size, channels), out=6)),
        jnp.asarray(rng.standard_normal((*size, 6))),
    ]
    pairs = zip(vjp(*arrays, padding, rectify), plain_vjp(*arrays, padding, rectify), strict=True)
    for ours, expected in pairs:
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
@each_padding
def test_rectified_gradients_are_finite_differences(x64, padding):
    arrays = tuple(map(jnp.asarray, _arrays(np.random.default_rng(1), shape=(4, 3, 2), out=2)))
    assert np.abs(conv3x3(*arrays, padding=padding)).min() > 0.005  # no rectifier flips within the difference
    function = lambda *arrays: conv3x3(*arrays, padding=padding, rectify=True)  # noqa: E731
    check_grads(function, arrays, 1, ["rev"], atol=1e-7, rtol=1e-7, eps=1e-5)


def test_nothing_passes_a_rectifier_at_zero(rng):
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 4)), jnp.float32)
    for gradient in vjp(jnp.zeros((4, 5, 3)), kernel, jnp.zeros(4), jnp.ones((4, 5, 4)), "zeros", True):
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_float32_gradients_of_the_image_are_right_to_a_millionth(x64, rng, channels):
    arrays = [*_arrays(rng, np.float32, (6, 9, channels), 64), rng.standard_normal((6, 9, 64)).astype(np.float32)]
    with jax.default_matmul_precision("highest"):
        ours = image_vjp(*map(jnp.asarray, arrays), "zeros")
    expected = plain_vjp(*(jnp.asarray(array, jnp.float64) for array in arrays), "zeros", False)[0]
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.slow
def test_bfloat16_gradients_by_planes_are_near_the_float32_ones(rng):
    arrays = [*_arrays(rng, np.float32, (6, 9, 3), 64), rng.standard_normal((6, 9, 64)).astype(np.float32)]
    half = [jnp.asarray(array, jnp.bfloat16) for array in arrays]
    ours = image_vjp(*half, "reflect")
    exact = image_vjp(*(array.astype(jnp.float32) for array in half), "reflect")
    assert ours.dtype == jnp.bfloat16
    error = np.abs(ours.astype(jnp.float32) - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.01  # what is summed is float32; the sums are rounded, those of the border thrice


@pytest.mark.slow
@each_padding
def test_gradients_by_planes_under_vmap_equal_a_loop(x64, rng, padding):
    shapes = (2, 5, 6, 3), (2, 3, 3, 3, 4), (2, 4), (2, 5, 6, 4)
    arrays = [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]
    ours = jax.jit(jax.vmap(lambda *arrays: _vjp(*arrays, padding, True)))(*arrays)
    for i in range(2):
        for mine, expected in zip(ours, plain_vjp(*(array[i] for array in arrays), padding, True), strict=True):
            np.testing.assert_allclose(mine[i], expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["reflect", "replicate", "wrap"])
@pytest.mark.parametrize("size", [(5, 7), (8, 12)])
def test_kernels_that_learn_have_the_gradients_of_the_direct_sum(x64, rng, padding, size):
    """float64, to rounding; of a batch, and of a batch of networks."""
    x, change = (jnp.asarray(rng.standard_normal((2, 2, *size, channels))) for channels in (3, 4))
    kernels = jnp.asarray(rng.standard_normal((2, 3, 3, 3, 4)))

    def direct(x, kernel):
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=MODES[padding])
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def both(of):
        def one(x, kernel, change):
            result, back = jax.vjp(of, x, kernel)
            return result, *back(change)

        return one

    ours = functools.partial(conv.conv3x3_trained, padding=padding)
    together = jax.jit(jax.vmap(both(ours)))(x, kernels, change)
    alone, expected = jax.jit(both(ours)), jax.jit(both(direct))
    for net, each in enumerate(zip(x, kernels, change, strict=True)):
        for one, several, other in zip(alone(*each), together, expected(*each), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-11)
            np.testing.assert_allclose(several[net], other, rtol=0, atol=1e-11)
