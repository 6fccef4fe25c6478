"""Winograd's convolution beside plain ones: its matrices exactly, float64, the rounding that is promised of float32; in
bands; under vmap; its gradients."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax
from jax.test_util import check_grads

from jnst import conv, winograd

SIZES = [(1, 1), (1, 9), (2, 3), (5, 7), (37, 22)]  # multiples of nothing

# As users compile, whatever conftest sets.
users_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
        "xla_cpu_use_fusion_emitters": True,
    },
)

# By NumPy's names.
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "wrap": "wrap"}


def _mostly_slow(cases, *fast):
    """`cases`, all but some of them marked."""
    return [case if case in fast else pytest.param(*_tuple(case), marks=pytest.mark.slow) for case in cases]


def _tuple(case):
    return case if isinstance(case, tuple) else (case,)


def _winograd(x, kernel, bias, padding="zeros", rectify=False):
    return conv.conv3x3(x, kernel, bias, padding=padding, rectify=rectify, winograd=winograd.transform(kernel))


def _plain(x, kernel, bias, padding="zeros", rectify=False):
    """The library's padding and convolution; differentiated by its own rules."""
    x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), MODES[padding])
    y = lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]
    y = y + bias[None, None]
    return jax.nn.relu(y) if rectify else y


def _reference(x, kernel, bias, padding):
    if padding != "wrap":
        return reference.conv3x3(x, kernel, bias, padding)
    around = np.pad(x, ((1, 1), (1, 1), (0, 0)), "wrap")
    return reference.conv3x3(around, kernel, bias, "zeros")[1:-1, 1:-1]


def _with_gradients(function, **static):
    """`f(change, x, kernel, bias)`: what the function gives, and its three VJPs."""

    def run(change, *args):
        y, pull = jax.vjp(lambda *args: function(*args, **static), *args)
        return y, *pull(change)

    return run


def _arrays(rng, size=(5, 7), inputs=3, outputs=4, lead=()):
    shapes = (*size, outputs), (*size, inputs), (3, 3, inputs, outputs), (outputs,)
    return [jnp.asarray(rng.standard_normal((*lead, *shape))) for shape in shapes]


def _close(ours, expected, error):
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=error * np.abs(expected).max())


def _all_close(ours, expected, error=1e-12):
    for one, other in zip(ours, expected, strict=True):
        _close(one, other, error)


# ---- The matrices


def _exact(matrix):
    """The fractions that a matrix of floats stands for."""
    exact = [[Fraction(float(value)).limit_denominator(10**6) for value in row] for row in matrix]
    np.testing.assert_allclose(np.array(exact, float), matrix, rtol=1e-14, atol=1e-15)
    return exact


def _dot(a, b):
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def _by_winograd(outputs, taps, inputs, signal, kernel):
    transformed = [_dot(row, kernel) for row in taps], [_dot(row, signal) for row in inputs]
    products = [a * b for a, b in zip(*transformed, strict=True)]
    return [_dot(row, products) for row in outputs]


def _whole(rng, count):
    return [Fraction(int(value)) for value in rng.integers(-99, 99, count)]


def test_the_matrices_are_a_correlation_in_exact_arithmetic(rng):
    outputs, taps, inputs = map(_exact, winograd.matrices(4))
    for _ in range(5):
        signal, kernel = _whole(rng, 6), _whole(rng, 3)
        expected = [_dot(signal[i : i + 3], kernel) for i in range(4)]
        assert _by_winograd(outputs, taps, inputs, signal, kernel) == expected


def test_the_turned_matrices_are_one_with_the_taps_reversed(rng):
    outputs, _, inputs = winograd.turned()
    matrices = [*map(_exact, (outputs, winograd.matrices(4)[1], inputs))]
    for _ in range(5):
        signal, kernel = _whole(rng, 6), _whole(rng, 3)
        expected = [_dot(signal[i : i + 3], kernel[::-1]) for i in range(4)]
        assert _by_winograd(*matrices, signal, kernel) == expected


def test_the_transform_is_taken_of_rows_and_columns(x64, rng):
    kernel = rng.standard_normal((3, 3, 2, 5))
    taps = winograd.matrices(4)[1]
    expected = np.stack([np.einsum("i,j,ijcd->cd", rows, columns, kernel) for rows in taps for columns in taps])
    np.testing.assert_allclose(winograd.transform(jnp.asarray(kernel)), expected, rtol=1e-12, atol=1e-13)


# ---- Exactness


@pytest.mark.parametrize(
    ("padding", "sizes"),
    _mostly_slow(
        [("zeros", SIZES), ("reflect", SIZES[2:]), ("replicate", SIZES), ("wrap", SIZES), ("wrap", [(8, 4)])],
        ("zeros", SIZES),
        ("wrap", [(8, 4)]),  # nothing to fill up
    ),
)
def test_equals_the_reference(x64, rng, padding, sizes):
    cases = [_arrays(rng, size)[1:] for size in sizes]
    found = jax.jit(lambda cases: [_winograd(*args, padding) for args in cases])(cases)
    for args, ours in zip(cases, found, strict=True):
        _close(ours, _reference(*map(np.asarray, args), padding), 1e-12)


EVERY = [(padding, rectify) for padding in MODES for rectify in (False, True)]


EVERY_SIZE = [(*each, size) for each in EVERY for size in SIZES if each[0] != "reflect" or min(size) > 1]


@pytest.mark.slow
@pytest.mark.parametrize(("padding", "rectify", "size"), _mostly_slow(EVERY_SIZE, ("reflect", True, (5, 7))))
def test_output_and_gradients_equal_those_of_a_plain_convolution(x64, rng, padding, rectify, size):
    arrays = _arrays(rng, size)
    how = {"padding": padding, "rectify": rectify}
    ours, plain = (jax.jit(_with_gradients(function, **how))(*arrays) for function in (_winograd, _plain))
    _all_close(ours, plain)


@pytest.mark.slow
def test_nothing_passes_a_rectifier_at_zero(rng):
    args = jnp.zeros((5, 6, 3)), jnp.asarray(rng.standard_normal((3, 3, 3, 4)), jnp.float32), jnp.zeros(4)
    _, *gradients = jax.jit(_with_gradients(_winograd, rectify=True))(jnp.ones((5, 6, 4)), *args)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


def _layer(rng, size, channels):
    """One of a rectifier network: what comes in is not negative, what comes back was cut by the rectifier."""
    change = rng.standard_normal((*size, channels)) * rng.integers(0, 2, (*size, channels))
    x = np.maximum(rng.standard_normal((*size, channels)), 0)
    kernel = rng.standard_normal((3, 3, channels, channels)) * math.sqrt(2 / (9 * channels))
    return [array.astype(np.float32) for array in (change, x, kernel, 0.3 * rng.standard_normal(channels))]


@pytest.mark.slow
@pytest.mark.parametrize("jit", _mostly_slow([jax.jit, users_jit], jax.jit))
@pytest.mark.parametrize("padding", _mostly_slow(list(MODES), "zeros"))
def test_float32_with_512_channels_is_right_to_2e_5(x64, rng, padding, jit):
    # Seen: outputs 2e-6, the image's gradient 6e-6, the kernel's and the bias's 3e-7; of the direct one all 4e-7.
    arrays = _layer(rng, (5, 6), 512)
    with jax.default_matmul_precision("highest"):
        ours = jit(_with_gradients(_winograd, padding=padding))(*map(jnp.asarray, arrays))
    exact = jax.jit(_with_gradients(_plain, padding=padding))(*(jnp.asarray(array, jnp.float64) for array in arrays))
    assert all(one.dtype == jnp.float32 for one in ours)
    _all_close(ours, exact, 2e-5)


# ---- Bands


@pytest.fixture
def band_bytes(monkeypatch):
    """Sets BAND_BYTES and returns the set of shapes that `_band` will be called with."""

    def set_to(value):
        conv._winograd.cache_clear()
        monkeypatch.setattr(conv, "BAND_BYTES", value)
        seen, band = set(), conv._band
        monkeypatch.setattr(conv, "_band", lambda x, *rest: seen.add(x.shape) or band(x, *rest))
        return seen

    yield set_to
    conv._winograd.cache_clear()


def _bytes(images, rows, columns, channels):
    """That so many rows of tiles take in float64."""
    return images * 36 * rows * columns * channels * 8


BANDS = [  # height, rows of tiles that fit, rows of tiles in a band
    (23, 6, 6),  # one band
    (23, 4, 3),  # two
    (23, 1, 1),  # six
    (24, 3, 3),  # two, and nothing to fill up
    (25, 4, 4),  # seven rows in two bands: eight
    (28, 3, 3),  # seven rows, all full, in three bands: nine
    (20, 2, 1),  # five in no less than three: five
]


@pytest.mark.slow
@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize(("height", "fit", "rows"), BANDS)
def test_bands_change_nothing(x64, rng, band_bytes, padding, height, fit, rows):
    args = _arrays(rng, (height, 6))[1:]
    seen = band_bytes(_bytes(1, fit, 2, 3 + 4))
    ours = jax.jit(lambda *args: _winograd(*args, padding))(*args)
    assert seen == {(1, 4 * rows + 2, 4 * 2 + 2, 3)}
    _close(ours, _reference(*map(np.asarray, args), padding), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padding", "height", "fit"),
    _mostly_slow([(p, *case[:2]) for p in MODES for case in BANDS[1:]], ("replicate", 25, 4), ("wrap", 28, 3)),
)
def test_bands_change_no_gradient(x64, rng, band_bytes, padding, height, fit):
    arrays = _arrays(rng, (height, 6))
    seen = band_bytes(_bytes(1, fit, 2, 3 + 4))
    ours = jax.jit(_with_gradients(_winograd, padding=padding, rectify=True))(*arrays)
    assert len(seen) == 2  # forward and backward, whose channels differ
    assert max(shape[1] for shape in seen) <= 4 * fit + 2
    _all_close(ours, jax.jit(_with_gradients(_plain, padding=padding, rectify=True))(*arrays))


TOGETHER = [  # images, how many fit, how many go together
    (4, 4, 4),
    (4, 2, 2),
    (6, 4, 3),
    (9, 4, 3),
    (5, 2, 1),
    (3, 1, 1),
    (5, 4, 1),  # no divisor between: each alone, none lost
    (7, 3, 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "fit", "together"), _mostly_slow(TOGETHER, (6, 4, 3), (7, 3, 1)))
def test_several_images_go_together(x64, rng, band_bytes, count, fit, together):
    change, x, kernel, bias = _arrays(rng, (5, 7))
    many = jnp.stack([x + i for i in range(count)])
    seen = band_bytes(_bytes(fit, 2, 2, 3 + 4))
    ours = jax.jit(jax.vmap(lambda x: _winograd(x, kernel, bias, "replicate")))(many)
    assert max(seen) == (together, 4 * 2 + 2, 4 * 2 + 2, 3)  # besides one alone, before it is mapped
    expected = [reference.conv3x3(*map(np.asarray, (x, kernel, bias)), "replicate") for x in many]
    _close(ours, np.stack(expected), 1e-12)


@pytest.mark.slow
def test_several_images_in_bands(x64, rng, band_bytes):
    change, x, kernel, bias = _arrays(rng, (11, 5))
    many = jnp.stack([x, 2 * x, x - 1])
    seen = band_bytes(_bytes(1, 2, 2, 3 + 4))
    ours = jax.jit(jax.vmap(lambda x: _winograd(x, kernel, bias)))(many)
    assert seen == {(1, 4 + 2, 4 * 2 + 2, 3)}  # three rows in three bands
    _close(ours, np.stack([reference.conv3x3(*map(np.asarray, (x, kernel, bias)), "zeros") for x in many]), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("fit", _mostly_slow([8, 1], 1))
def test_other_numbers_are_no_other_trace(rng, band_bytes, fit):
    traces = []
    change, *args = (array.astype(jnp.float32) for array in _arrays(rng, (9, 6)))
    seen = band_bytes(_bytes(1, fit, 2, 3 + 4) / 2)

    @jax.jit
    def gradient(*args):
        traces.append(1)
        return jax.grad(lambda *args: jnp.sum(change * _winograd(*args)))(*args)

    for factor in (1, 2, 3):
        gradient(*(factor * arg for arg in args))
    assert len(traces) == 1
    assert {(shape[1] - 2) // 4 for shape in seen} == {min(fit, 3)}  # of three rows


# ---- Maps


def _loop(function, in_axes, *args):
    size = next(arg.shape[0] for arg, axis in zip(args, in_axes, strict=True) if axis == 0)
    picked = ([arg if axis is None else arg[i] for arg, axis in zip(args, in_axes, strict=True)] for i in range(size))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(function(*each) for each in picked))


MAPPED = [(0, 0, None, None), (0, 0, 0, 0), (0, None, 0, None), (0, None, None, 0), (None, 0, 0, None)]


@pytest.mark.slow
@pytest.mark.parametrize("in_axes", [MAPPED[0], *(pytest.param(axes, marks=pytest.mark.slow) for axes in MAPPED[1:])])
def test_vmap_equals_a_loop(x64, rng, in_axes):
    # Gradients within: a map of the gradient.
    stacked = _arrays(rng, (5, 6), lead=(3,))
    args = [array if axis == 0 else array[0] for array, axis in zip(stacked, in_axes, strict=True)]
    how = {"padding": "reflect", "rectify": True}
    ours = jax.jit(jax.vmap(_with_gradients(_winograd, **how), in_axes))(*args)
    _all_close(ours, _loop(jax.jit(_with_gradients(_plain, **how)), in_axes, *args))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [None, 0])
def test_the_gradient_of_a_vmap_equals_that_of_a_loop(x64, rng, kernels):
    change, x, kernel, bias = _arrays(rng, (5, 6), lead=(3,))
    args = (x, *((kernel, bias) if kernels == 0 else (kernel[0], bias[0])))

    def loss(function, *args):
        return jnp.sum(change * function(*args))

    axes = (0, kernels, kernels)
    mapped = lambda *args: jax.vmap(_winograd, axes)(*args)  # noqa: E731
    looped = lambda *args: _loop(_plain, axes, *args)  # noqa: E731
    ours, plain = (jax.jit(jax.grad(functools.partial(loss, f), (0, 1, 2)))(*args) for f in (mapped, looped))
    _all_close(ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [None, 0])
def test_nested_vmaps_equal_a_loop(x64, rng, kernels):
    _, x, kernel, bias = _arrays(rng, (5, 6), lead=(2,))
    many = jnp.stack([x, x + 1, 2 * x])
    rest, axes = ((kernel, bias), (0, 0, 0)) if kernels == 0 else ((kernel[0], bias[0]), (0, None, None))
    ours = jax.jit(jax.vmap(jax.vmap(_winograd, axes), (0, None, None)))(many, *rest)
    assert ours.shape == (3, 2, 5, 6, 4)
    _close(ours, jnp.stack([_loop(_plain, axes, row, *rest) for row in many]), 1e-12)


# ---- Gradients


@pytest.mark.slow
@pytest.mark.parametrize(("padding", "rectify"), EVERY)
def test_gradients_are_finite_differences(x64, padding, rectify):
    args = _arrays(np.random.default_rng(0), (3, 5), 2, 2)[1:]
    assert np.abs(_plain(*args, padding)).min() > 0.01  # no rectifier flips within the difference
    function = jax.jit(lambda *args: _winograd(*args, padding, rectify))
    check_grads(function, args, 1, ["rev"], atol=1e-7, rtol=1e-7, eps=1e-5)


@pytest.mark.slow
def test_the_copy_makes_output_and_image_gradient_and_gets_none_of_its_own(x64, rng):
    # The kernel is not read, but its gradient is whole; a copy of another kernel shows which is used.
    change, x, kernel, bias = _arrays(rng)
    copy = winograd.transform(kernel)
    function = lambda x, kernel, bias, copy: conv.conv3x3(x, kernel, bias, winograd=copy)  # noqa: E731
    *ours, of_copy = jax.jit(_with_gradients(function))(change, x, 0 * kernel, bias, copy)
    _all_close(ours, jax.jit(_with_gradients(_plain))(change, x, kernel, bias))
    assert of_copy.shape == copy.shape
    np.testing.assert_array_equal(of_copy, 0)


# ---- Where it is chosen


def _prepared(platform, shape, dtype=jnp.float32):
    return jax.eval_shape(lambda kernel: conv.prepare(kernel, platform), jax.ShapeDtypeStruct(shape, dtype))


def test_wide_kernels_are_prepared_for_a_cpu(x64):
    for dtype in (jnp.float32, jnp.float64):
        found = _prepared("cpu", (3, 3, 64, 96), dtype)
        assert (found.shape, found.dtype) == ((36, 64, 96), dtype)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 64), (15, 32), (16, 31)])
def test_narrow_kernels_are_not(inputs, outputs):
    assert _prepared("cpu", (3, 3, inputs, outputs)) is None


@pytest.mark.parametrize("platform", ["gpu", "tpu", "metal"])
def test_nothing_is_prepared_where_nothing_was_measured(platform):
    assert _prepared(platform, (3, 3, 512, 512)) is None


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_kernels_of_16_bits_are_not_prepared(dtype):
    assert _prepared("cpu", (3, 3, 64, 64), dtype) is None


def test_what_is_prepared_is_the_transform(monkeypatch, rng):
    monkeypatch.setattr(conv, "LEAST_CHANNELS", {"gpu": (2, 5)})
    kernel = jnp.asarray(rng.standard_normal((3, 3, 2, 5)), jnp.float32)
    np.testing.assert_array_equal(conv.prepare(kernel, "gpu"), winograd.transform(kernel))
    assert conv.prepare(kernel, "cpu") is None
