import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst.sqrtm import sqrtm


@jax.jit
def root_and_gradient(matrix, change):
    """The root, and what the matrix gets of a change of the root."""
    root, back = jax.vjp(sqrtm, matrix)
    return root, back(change)[0]


def _matrix(rng, size, condition):
    """Symmetric and positive, with its eigenvalues and eigenvectors."""
    vectors, _ = np.linalg.qr(rng.standard_normal((size, size)))
    values = 3 * np.geomspace(1, 1 / condition, size)
    return vectors * values @ vectors.T, values, vectors


def _lyapunov(values, vectors, change):
    """The X of R X + X R = change, R the root: in R's own axes a division."""
    roots = np.sqrt(values)
    return vectors @ ((vectors.T @ change @ vectors) / (roots[:, None] + roots)) @ vectors.T


@pytest.mark.slow
@pytest.mark.parametrize(("size", "condition"), [(1, 1), (2, 50), (7, 10), (7, 100)])
def test_the_root_and_its_gradient_are_exact(x64, rng, size, condition):
    matrix, values, vectors = _matrix(rng, size, condition)
    for change in (np.eye(size), rng.standard_normal((size, size))):  # the second is not symmetric
        root, gradient = root_and_gradient(matrix, change)
        np.testing.assert_allclose(root @ root, matrix, rtol=0, atol=1e-13)
        np.testing.assert_allclose(root, vectors * np.sqrt(values) @ vectors.T, rtol=0, atol=1e-13)
        np.testing.assert_allclose(gradient, _lyapunov(values, vectors, change), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_the_root_of_a_multiple_is_a_multiple_of_the_root(x64, rng, factor):
    matrix, values, vectors = _matrix(rng, 4, 20)
    root, gradient = root_and_gradient(factor * matrix, np.eye(4))
    np.testing.assert_allclose(root, np.sqrt(factor) * (vectors * np.sqrt(values) @ vectors.T), rtol=1e-10)
    np.testing.assert_allclose(gradient, _lyapunov(values, vectors, np.eye(4)) / np.sqrt(factor), rtol=1e-10)


@pytest.mark.slow
def test_fewer_iterations_are_made_where_they_are_asked_for(x64, rng):
    matrix, values, vectors = _matrix(rng, 5, 100)
    exact = vectors * np.sqrt(values) @ vectors.T
    few, many = (np.abs(jax.jit(sqrtm, static_argnums=1)(matrix, iterations) - exact).max() for iterations in (2, 12))
    assert 0.1 < few < 0.3
    assert many < 1e-12


def test_the_gradient_keeps_none_of_the_loop_s_matrices():
    # Automatic differentiation would keep those of all twelve iterations, and is worse where an eigenvalue is small.
    jaxpr = str(jax.make_jaxpr(lambda m: jax.vjp(sqrtm, m)[1](m))(jnp.eye(5)))
    assert "f32[5,5]" in jaxpr
    assert "[12,5,5]" not in jaxpr


def test_every_product_asks_for_the_highest_precision():
    # A CPU ignores it; on a GPU or TPU a root of rounded products would not be one.
    jaxpr = str(jax.make_jaxpr(lambda m: jax.vjp(sqrtm, m)[1](m))(jnp.eye(5)))
    products = jaxpr.count("dot_general[")
    assert products >= 8
    assert jaxpr.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


@pytest.mark.slow
def test_vmapped_equals_looped(x64, rng):
    many = np.stack([_matrix(rng, 4, condition)[0] for condition in (2, 20, 200)])
    changes = rng.standard_normal((3, 4, 4))
    roots, gradients = jax.jit(jax.vmap(root_and_gradient))(many, changes)
    for index in range(3):
        root, gradient = root_and_gradient(many[index], changes[index])
        np.testing.assert_allclose(roots[index], root, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(gradients[index], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "rank"), [(8, 0), (8, 1), (64, 2)])
def test_a_nearly_singular_matrix_in_float32_has_a_finite_root_and_gradient(rng, size, rank):
    # As of features whose channels hang together: only the ridge makes them positive.
    parts = rng.standard_normal((size, rank))
    matrix = (parts @ parts.T + 1e-4 * np.eye(size)).astype(np.float32)
    root, gradient = root_and_gradient(matrix, np.eye(size, dtype=np.float32))
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    assert root.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(root, vectors * np.sqrt(values) @ vectors.T, rtol=0, atol=0.012)  # the ridge's is 0.01
    assert np.linalg.eigvalsh(gradient).min() > 0
    assert np.abs(gradient).max() < 51  # 1 / (2 * 0.01), of the exact one
