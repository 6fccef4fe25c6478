import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from reference import stylenet as reference

from jnst import compiler, convs, winograd
from jnst import conv as conv3x3
from jnst.config.choices import STYLENET_BORDERS

conv = jax.jit(convs.conv, static_argnames=("stride", "border"))
up_conv = jax.jit(convs.up_conv)
each_border = pytest.mark.parametrize("border", STYLENET_BORDERS)


def _with_gradients(of):
    """`f(x, kernel, change)`: the sum, and its gradients."""

    def run(x, kernel, change):
        found, back = jax.vjp(of, x, kernel)
        return found, *back(change)

    return jax.jit(run)


def _close(ours, expected):
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


# Height, width, kernel, stride. Odd and even sides, both of a pair after a stride, and maps no larger than a kernel.
@pytest.mark.parametrize("case", [(5, 8, 3, 1), (7, 6, 3, 2), (8, 5, 3, 2), (6, 9, 5, 1), (1, 1, 3, 2), (2, 3, 9, 1)])
@each_border
def test_a_convolution_equals_the_reference(x64, rng, border, case):
    height, width, side, stride = case
    x, kernel = rng.standard_normal((2, height, width, 3)), rng.standard_normal((side, side, 3, 5))
    expected = reference.correlation(x, kernel, border, stride)
    assert expected.shape[1:3] == (-(-height // stride), -(-width // stride))
    _close(conv(x, kernel, stride=stride, border=border), expected)


@each_border
def test_few_channels_out_are_convolved_by_rows(x64, rng, border):
    x, kernel = rng.standard_normal((2, 7, 6, convs.FEW + 2)), rng.standard_normal((5, 5, convs.FEW + 2, convs.FEW))
    expected = reference.correlation(x, kernel, border)
    _close(conv(x, kernel, border=border), expected)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), {"reflect": "reflect", "replicate": "edge"}[border])
    _close(convs._by_rows(jnp.asarray(padded), jnp.asarray(kernel)), expected)


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1), (1, 4)])
@each_border
def test_up_is_enlarging_and_then_convolving(x64, rng, border, size):
    # The enlarged map's border may be reflected or repeated: it is the same pixels.
    x, kernel = rng.standard_normal((2, *size, 3)), rng.standard_normal((3, 3, 3, 5))
    large = x.repeat(2, axis=1).repeat(2, axis=2)
    _close(up_conv(x, kernel), reference.correlation(large, kernel, border))


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
def test_a_transposed_convolution_equals_the_reference(x64, rng, size):
    x, kernel = rng.standard_normal((2, *size, 3)), rng.standard_normal((3, 3, 3, 5))
    _close(jax.jit(convs.transposed_conv)(x, kernel), reference.transposed(x, kernel))


def test_up_in_float32_is_right_to_a_millionth(rng):
    x, kernel = rng.standard_normal((1, 6, 5, 8)), rng.standard_normal((3, 3, 8, 6))
    expected = reference.correlation(x.repeat(2, axis=1).repeat(2, axis=2), kernel, "reflect")
    with jax.default_matmul_precision("highest"):
        ours = up_conv(x.astype(np.float32), kernel.astype(np.float32))
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.slow
@each_border
def test_wide_maps_are_convolved_by_winograd(rng, border):
    x, kernel = (rng.standard_normal(shape).astype(np.float32) for shape in [(2, 41, 43, 64), (3, 3, 64, 64)])
    find = jax.jit(convs.conv, static_argnames=("border",))
    ours, expected = find(x, kernel, border=border), reference.correlation(x.astype(float), kernel, border)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    if compiler.platform() in conv3x3.LEAST_CHANNELS:
        text = find.lower(x, kernel, border=border).as_text()
        assert "convolution" not in text  # it is the other sum


@pytest.mark.slow
def test_few_channels_out_of_many_equal_the_reference_with_gradients(x64, rng):
    """By planes, and as the library has it."""
    x, kernel = rng.standard_normal((2, 9, 8, 33)), rng.standard_normal((7, 7, 33, 2))
    change = rng.standard_normal((2, 9, 8, 2))
    around = lambda x: jnp.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")  # noqa: E731
    library = lambda x, kernel: convs._sum(around(x), kernel, 1)  # noqa: E731, SLF001
    (found, *ours), (_, *plain) = (_with_gradients(of)(x, kernel, change) for of in (convs.conv, library))
    _close(found, reference.correlation(x, kernel, "reflect"))
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("outputs", "by_winograd"), [(1, False), (5, False), (5, True)])
def test_even_kernels_equal_the_reference_with_gradients(x64, rng, monkeypatch, outputs, by_winograd):
    if by_winograd:
        monkeypatch.setattr(convs, "LEAST_PLACES", 1)
        monkeypatch.setattr(convs, "LEAST_WIDTH", 1)
    gradient, used = winograd.kernel_gradient, []
    monkeypatch.setattr(winograd, "kernel_gradient", lambda *args: used.append(1) or gradient(*args))
    x, kernel = rng.standard_normal((2, 6, 5, 3)), rng.standard_normal((4, 4, 3, outputs))
    change = rng.standard_normal((2, 5, 4, outputs))
    found, of_x, of_kernel = _with_gradients(convs.even_conv)(x, kernel, change)
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = np.stack([around[:, i : i + 5, j : j + 4] for i in range(4) for j in range(4)])
    patches = patches.reshape(4, 4, *patches.shape[1:])  # [4, 4, N, h, w, in]
    _close(found, np.einsum("ijnhwc,ijcd->nhwd", patches, kernel))
    _close(of_kernel, np.einsum("ijnhwc,nhwd->ijcd", patches, change))
    expected = np.zeros_like(around)
    for i in range(4):
        for j in range(4):
            expected[:, i : i + 5, j : j + 4] += change @ kernel[i, j].T
    _close(of_x, expected[:, 1:-1, 1:-1])
    assert bool(used) == by_winograd


def test_even_kernels_gradients_of_few_digits_go_without_sums_of_tiles(rng, monkeypatch):
    """The transforms' sums and differences would lose most of bfloat16's 8 bits."""
    monkeypatch.setattr(convs, "LEAST_PLACES", 1)
    monkeypatch.setattr(convs, "LEAST_WIDTH", 1)
    short = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.bfloat16)  # noqa: E731
    x, kernel, change = short(2, 12, 12, 3), short(4, 4, 3, 5), short(2, 11, 11, 5)
    *_, of_kernel = _with_gradients(convs.even_conv)(x, kernel, change)
    exact = [np.asarray(each, np.float32) for each in (x, kernel, change)]
    *_, expected = _with_gradients(convs.even_conv)(*exact)
    np.testing.assert_allclose(np.asarray(of_kernel, np.float32), expected, rtol=0, atol=0.01 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv", "strided", "rows", "up", "transposed"])
def test_gradients_equal_finite_differences(x64, rng, name):
    run, inputs, outputs = {
        "conv": (convs.conv, 3, 5),
        "strided": (lambda x, kernel: convs.conv(x, kernel, stride=2), 3, 5),
        "rows": (convs.conv, convs.FEW + 1, 2),
        "up": (convs.up_conv, 3, 5),
        "transposed": (convs.transposed_conv, 3, 5),
    }[name]
    x, kernel = rng.standard_normal((1, 4, 5, inputs)), rng.standard_normal((3, 3, inputs, outputs))
    check_grads(jax.jit(run), (x, kernel), order=1, modes=["rev"])
