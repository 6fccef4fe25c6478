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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference"), [("down", _down), ("up", _up)])
def test_equals_the_definition_and_so_do_its_gradients(x64, rng, name, reference):
    convolve = getattr(strided, name)
    x, kernel = rng.standard_normal((2, 4, 6, 3)), rng.standard_normal((4, 4, 3, 5))
    np.testing.assert_allclose(convolve(x, kernel), reference(x, kernel), atol=1e-12)
    check_grads(convolve, (jnp.asarray(x), jnp.asarray(kernel)), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["down", "up"])
def test_several_networks_at_once_are_each_alone(x64, rng, name):
    convolve = getattr(strided, name)
    x, kernels = rng.standard_normal((3, 2, 4, 4, 2)), rng.standard_normal((3, 4, 4, 2, 3))
    squares = lambda x, kernel: jnp.sum(convolve(x, kernel) ** 2)  # noqa: E731
    found = jax.vmap(jax.grad(squares, 1))(x, kernels)
    for place in range(3):
        np.testing.assert_allclose(found[place], jax.grad(squares, 1)(x[place], kernels[place]), atol=1e-9)


@pytest.mark.slow
def test_a_large_batch_has_the_gradient_of_its_parts(x64, rng):
    """They are computed in parts of 64 on a CPU; of 130, two and a rest."""
    x, kernel = jnp.asarray(rng.standard_normal((130, 4, 4, 1))), jnp.asarray(rng.standard_normal((4, 4, 1, 2)))
    squares = lambda kernel, x: jnp.sum(strided.down(x, kernel) ** 2)  # noqa: E731
    whole = jax.jit(jax.grad(squares))(kernel, x)
    parts = [jax.grad(squares)(kernel, x[at : at + 13]) for at in range(0, 130, 13)]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-10)
