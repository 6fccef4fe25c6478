import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jnst import strided


def _down(x, kernel):
    """The definition, pixel by pixel, in NumPy."""
    n, height, width, _ = x.shape
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((n, height // 2, width // 2, kernel.shape[-1]))
    for row in range(height // 2):
        for column in range(width // 2):
            patch = x[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
            out[:, row, column] = np.einsum("nijc,ijcd->nd", patch, kernel)
    return out


def _up(x, kernel):
    """Each pixel adds a patch of 4x4 to a picture with a pixel more on each side."""
    n, height, width, _ = x.shape
    out = np.zeros((n, 2 * height + 2, 2 * width + 2, kernel.shape[-1]))
    for row in range(height):
        for column in range(width):
            patch = np.einsum("nc,ijcd->nijd", x[:, row, column], kernel)
            out[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += patch
    return out[:, 1:-1, 1:-1]


# Maps `[N, h, w]` of the smaller side, inputs and outputs that a CPU takes each of the ways for.
WAYS = {
    "by_pixels": (2, 2, 4, 3, 5),
    "whole": (3, 4, 6, 3, 5),
    "wide": (70, 1, 1, 16, 2),
    "by_tiles": (8, 8, 10, 16, 17),
}
BOTH = {"down": (strided.down, _down), "up": (strided.up, _up)}


def _given(rng, name, n, height, width, inputs, outputs):
    times = 2 if name == "down" else 1
    return rng.standard_normal((n, times * height, times * width, inputs)), rng.standard_normal((4, 4, inputs, outputs))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BOTH)
def test_equals_the_definition_and_so_do_its_gradients(x64, rng, name, way):
    convolve, reference = BOTH[name]
    x, kernel = _given(rng, name, *WAYS[way])
    assert strided._way(*WAYS[way][:3], kernel) == way.replace("wide", "whole")  # noqa: SLF001
    convolve = jax.jit(convolve)
    np.testing.assert_allclose(convolve(x, kernel), reference(x, kernel), atol=1e-11)
    check_grads(convolve, (jnp.asarray(x), jnp.asarray(kernel)), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_nine_products_lose_no_more_than_float32_does(rng, name):
    convolve, reference = BOTH[name]
    x, kernel = _given(rng, name, *WAYS["by_tiles"])
    found, exact = jax.jit(convolve)(np.float32(x), np.float32(kernel)), reference(x, kernel)
    assert np.abs(found - exact).max() < 1e-6 * np.abs(exact).max()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["by_pixels", "whole", "by_tiles"])
@pytest.mark.parametrize("name", BOTH)
def test_several_networks_at_once_are_each_alone(x64, rng, name, way):
    convolve = BOTH[name][0]
    x, kernels = (np.stack(each) for each in zip(*(_given(rng, name, *WAYS[way]) for _ in range(3)), strict=True))
    squares = lambda x, kernel: jnp.sum(convolve(x, kernel) ** 2)  # noqa: E731
    gradient = jax.grad(squares, 1)
    found, alone = jax.jit(jax.vmap(gradient))(x, kernels), jax.jit(gradient)
    for place in range(3):
        np.testing.assert_allclose(found[place], alone(x[place], kernels[place]), rtol=1e-9, atol=1e-8)


def test_half_precision_makes_no_sums_of_its_own():
    kernel = jnp.ones((4, 4, 16, 16), jnp.bfloat16)
    assert {strided._way(n, 8, 8, kernel) for n in (1, 64)} == {"whole"}  # noqa: SLF001


@pytest.mark.slow
def test_a_large_batch_has_the_gradient_of_its_parts(x64, rng):
    """They are computed in parts of 64 on a CPU; of 130, two and a rest."""
    x, kernel = jnp.asarray(rng.standard_normal((130, 2, 2, 16))), jnp.asarray(rng.standard_normal((4, 4, 16, 2)))
    squares = lambda kernel, x: jnp.sum(strided.down(x, kernel) ** 2)  # noqa: E731
    gradient = jax.jit(jax.grad(squares))
    whole, parts = gradient(kernel, x), [gradient(kernel, x[at : at + 13]) for at in range(0, 130, 13)]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-10)
