import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax
from jax.test_util import check_grads

from jnst import ops
from jnst.config import POOLINGS, TOTAL_VARIATIONS

# Compiled whole: op by op, compiling would take most of the time.
pool = jax.jit(ops.pool, static_argnums=1)
pool_gradient = jax.jit(jax.grad(lambda x, kind: ops.pool(x, kind).sum()), static_argnums=1)
tv_and_gradient = jax.jit(jax.value_and_grad(ops.total_variation), static_argnums=1)
match_color = jax.jit(ops.match_color)
match_luminance = jax.jit(ops.match_luminance)


@pytest.mark.parametrize("shape", [(6, 8, 3), (7, 5, 2)])
@pytest.mark.parametrize("kind", POOLINGS)
def test_pool_equals_the_reference(x64, rng, kind, shape):
    x = rng.standard_normal(shape)
    np.testing.assert_allclose(pool(jnp.asarray(x), kind), reference.pool(x, kind), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", POOLINGS)
def test_pool_of_one_row_is_empty(kind):
    assert ops.pool(jnp.ones((1, 4, 2)), kind).shape == (0, 2, 2)


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_nan_passes_every_pooling_from_every_place(kind, place):
    x = jnp.arange(32.0).reshape(4, 4, 2).at[(*place, 1)].set(jnp.nan)
    bad = np.isnan(pool(x, kind))
    assert bad[0, 0].tolist() == [False, True]
    assert bad.sum() == 1


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling='min': expected max, avg or l2"):
        ops.pool(jnp.ones((2, 2, 1)), "min")


@pytest.mark.slow
@pytest.mark.parametrize("equal", [[0, 1, 2, 3], [1, 2], [1, 3], [2, 3], [0, 3]])
def test_max_pooling_gives_the_gradient_to_the_first_of_equals(equal):
    x = jnp.zeros(4).at[jnp.array(equal)].set(1).reshape(2, 2, 1)
    gradient = np.ravel(pool_gradient(x, "max"))
    assert gradient.tolist() == [float(place == equal[0]) for place in range(4)]


@pytest.mark.slow
def test_max_pooling_gradient_equals_that_of_reduce_window(rng):
    x = jnp.asarray(rng.integers(0, 3, (8, 10, 4)), jnp.float32)  # ties everywhere
    weight = jnp.asarray(rng.standard_normal((4, 5, 4)), jnp.float32)
    window = lambda x: lax.reduce_window(x, -np.inf, lax.max, (2, 2, 1), (2, 2, 1), "VALID")  # noqa: E731
    ours, theirs = (
        jax.jit(jax.grad(lambda x, pool=pool: jnp.sum(weight * pool(x))))(x)
        for pool in (lambda x: ops.pool(x, "max"), window)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_l2_pooling_has_a_finite_gradient_at_zeros():
    np.testing.assert_array_equal(pool_gradient(jnp.zeros((4, 4, 2)), "l2"), 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", POOLINGS)
def test_pooling_gradients_are_finite_differences(x64, rng, kind):
    x = jnp.asarray(rng.standard_normal((5, 6, 2)))
    check_grads(jax.jit(lambda x: ops.pool(x, kind)), (x,), 1, ["fwd", "rev"], atol=1e-7, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOTAL_VARIATIONS)
def test_total_variation_equals_the_reference(x64, rng, kind):
    image = rng.uniform(size=(5, 7, 3))
    ours, _ = tv_and_gradient(jnp.asarray(image), kind)
    np.testing.assert_allclose(ours, reference.total_variation(image, kind), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOTAL_VARIATIONS)
@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 3, 2)])
def test_total_variation_of_a_torus_goes_across_its_edges(x64, rng, kind, shape):
    image = rng.uniform(size=shape)
    height, width, _ = shape
    expected = 0.0
    for row, column in np.ndindex(height, width):
        for down, across, share in ((1, 0, 2 / 3), (0, 1, 2 / 3), (1, 1, 1 / 6), (1, -1, 1 / 6)):
            difference = image[(row + down) % height, (column + across) % width] - image[row, column]
            if kind == "l2_nine":
                expected += share * np.sum(difference**2)
            elif share > 0.5:
                expected += np.sum(np.abs(difference) if kind == "l1" else difference**2)
    run = jax.jit(jax.value_and_grad(lambda image: ops.total_variation(image, kind, wrap=True)))
    ours, gradient = run(jnp.asarray(image))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    rolled, rolled_gradient = run(jnp.roll(image, (2, 1), (0, 1)))
    np.testing.assert_allclose(rolled, ours, rtol=1e-12)
    np.testing.assert_allclose(rolled_gradient, jnp.roll(gradient, (2, 1), (0, 1)), rtol=1e-12, atol=1e-14)
    assert ours > ops.total_variation(jnp.asarray(image), kind)


@pytest.mark.parametrize("kind", TOTAL_VARIATIONS)
def test_total_variation_of_a_constant_is_zero_with_zero_gradient(kind):
    value, gradient = tv_and_gradient(jnp.full((4, 5, 3), 0.3), kind)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_l1_total_variation_pushes_by_the_sign_of_each_difference():
    image = jnp.zeros((1, 4, 1)).at[0, 2:, 0].set(1.0)  # 0 0 1 1
    _, gradient = tv_and_gradient(image, "l1")
    assert np.ravel(gradient).tolist() == [0, -1, 1, 0]


@pytest.mark.parametrize("kind", TOTAL_VARIATIONS)
def test_nan_passes_total_variation(kind):
    assert np.isnan(tv_and_gradient(jnp.full((4, 5, 3), 0.3).at[1, 1, 1].set(jnp.nan), kind)[0])


def test_gram_equals_the_reference(x64, rng):
    f = rng.standard_normal((5, 7, 6))
    np.testing.assert_allclose(ops.gram(jnp.asarray(f), 0.25), 0.25 * reference.raw_gram(f), rtol=1e-12, atol=1e-13)


def test_gram_ignores_a_shuffle_of_pixels(x64, rng):
    f = rng.standard_normal((6, 4, 5))
    shuffled = rng.permutation(f.reshape(-1, 5)).reshape(4, 6, 5)
    np.testing.assert_allclose(ops.gram(jnp.asarray(f), 1.0), ops.gram(jnp.asarray(shuffled), 1.0), rtol=1e-12)


def test_gram_is_symmetric_and_positive_semidefinite(x64, rng):
    g = np.asarray(ops.gram(jnp.asarray(rng.standard_normal((2, 2, 7))), 0.5))  # rank 4 of 7
    np.testing.assert_allclose(g, g.T, rtol=1e-14)
    assert np.linalg.eigvalsh(g).min() > -1e-12


# 1/3 has no short binary form: rounded to bfloat16, it alone would be wrong by 0.2%.
@pytest.mark.parametrize("scale", [1 / 3, 1 / (40 * 50)])
def test_gram_of_bfloat16_features_is_computed_in_float32(rng, scale):
    f = jnp.asarray(rng.standard_normal((40, 50, 4)), jnp.bfloat16)
    g = ops.gram(f, scale)
    expected = scale * reference.raw_gram(np.asarray(f, np.float64))
    assert g.dtype == jnp.float32
    np.testing.assert_allclose(g, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_gram_asks_for_the_highest_precision():
    # A CPU ignores it; a GPU or TPU would round to TF32 or bfloat16 without.
    jaxpr = str(jax.make_jaxpr(lambda f: ops.gram(f, 1.0))(jnp.ones((2, 2, 3))))
    assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in jaxpr


def test_gram_gradient_is_one_product_more_at_the_highest_precision():
    jaxpr = str(jax.make_jaxpr(lambda f, change: jax.vjp(ops.gram, f, 1.0)[1](change))(jnp.ones((2, 2, 3)), jnp.eye(3)))
    assert jaxpr.count("dot_general[") == 2
    assert jaxpr.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 2


def _gram_vjp(f, change, gram=ops.gram):
    return jax.vjp(lambda f: gram(f, 0.3), f)[1](change)[0]


def _plain_gram(f, scale):
    flat = f.reshape(-1, f.shape[-1])
    return scale * flat.T @ flat


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [(3, 4, 5), *(pytest.param(s, marks=pytest.mark.slow) for s in [(1, 1, 4), (2, 5, 1)])]
)
def test_gram_gradient_equals_that_of_a_plain_product_whatever_comes_back(x64, rng, shape):
    f, change = (
        jnp.asarray(rng.standard_normal(shape)),
        jnp.asarray(rng.standard_normal(2 * shape[-1:])),
    )  # not symmetric
    ours, plain = jax.jit(_gram_vjp)(f, change), _gram_vjp(f, change, _plain_gram)
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-13 * np.abs(plain).max())


@pytest.mark.slow
def test_gram_gradient_under_vmap_equals_a_loop(x64, rng):
    f, change = jnp.asarray(rng.standard_normal((3, 2, 4, 5))), jnp.asarray(rng.standard_normal((3, 5, 5)))
    ours = jax.jit(jax.vmap(_gram_vjp))(f, change)
    one_change = jax.jit(jax.vmap(_gram_vjp, (0, None)))(f, change[0])
    for i in range(3):
        for mine, theirs in ((ours[i], change[i]), (one_change[i], change[0])):
            np.testing.assert_allclose(mine, _gram_vjp(f[i], theirs, _plain_gram), rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_gram_gradient_of_a_vmap_equals_that_of_a_loop(x64, rng):
    f, change = jnp.asarray(rng.standard_normal((3, 2, 4, 5))), jnp.asarray(rng.standard_normal((3, 5, 5)))
    ours = jax.jit(jax.grad(lambda f: jnp.sum(change * jax.vmap(lambda f: ops.gram(f, 0.3))(f))))(f)
    for i in range(3):
        np.testing.assert_allclose(ours[i], _gram_vjp(f[i], change[i], _plain_gram), rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_gram_of_bfloat16_features_has_a_gradient_of_their_kind(rng):
    f, change = jnp.asarray(rng.standard_normal((6, 7, 5)), jnp.bfloat16), jnp.asarray(rng.standard_normal((5, 5)))
    ours, exact = jax.jit(_gram_vjp)(f, change), _gram_vjp(f.astype(jnp.float32), change, _plain_gram)
    assert ours.dtype == jnp.bfloat16
    # Summed in float32, and rounded once.
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6 * np.abs(exact).max())


@pytest.mark.slow
def test_gram_gradient_at_nothing_is_nothing():
    np.testing.assert_array_equal(_gram_vjp(jnp.zeros((3, 4, 5)), jnp.ones((5, 5))), 0)


@pytest.mark.slow
def test_gram_gradient_is_a_finite_difference(x64, rng):
    f = jnp.asarray(rng.standard_normal((3, 4, 5)))
    check_grads(jax.jit(lambda f: ops.gram(f, 0.1)), (f,), 1, ["rev"], atol=1e-7, rtol=1e-7)


def _moments(image):
    pixels = np.asarray(image, np.float64).reshape(-1, 3)
    return pixels.mean(0), np.cov(pixels, rowvar=False, ddof=0)


def test_match_color_gives_the_target_mean_and_covariance(x64, rng):
    mixing = rng.uniform(-1, 1, (3, 3)) * 0.03
    image = 0.5 + rng.standard_normal((12, 9, 3)) @ mixing
    target = 0.4 + rng.standard_normal((8, 11, 3)) * np.array([0.05, 0.02, 0.08])
    matched = np.asarray(match_color(jnp.asarray(image), jnp.asarray(target)))
    assert 0 < matched.min() < matched.max() < 1  # nothing clipped
    for ours, theirs in zip(_moments(matched), _moments(target), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_match_color_to_itself_changes_nothing(x64, rng):
    image = jnp.asarray(rng.uniform(0.1, 0.9, (8, 8, 3)))
    np.testing.assert_allclose(match_color(image, image), image, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("gray", ["image", "target", "both"])
@pytest.mark.parametrize("kind", ["constant", "shades"])
def test_match_color_of_gray_is_finite(rng, gray, kind):
    shades = rng.uniform(0.2, 0.8, (6, 6, 1)) if kind == "shades" else np.full((6, 6, 1), 0.25)
    flat = jnp.asarray(np.repeat(shades, 3, 2), jnp.float32)
    color = jnp.asarray(rng.uniform(0.2, 0.8, (6, 6, 3)), jnp.float32)
    image, target = (flat if gray in (name, "both") else color for name in ("image", "target"))
    matched = np.asarray(match_color(image, target))
    assert np.isfinite(matched).all()
    np.testing.assert_allclose(matched.mean((0, 1)), np.asarray(target).mean((0, 1)), atol=0.02)
    if gray != "image":
        assert np.ptp(matched, axis=-1).max() < 2e-3  # a gray target takes the color away


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [((1, 1), (4, 4)), ((4, 4), (1, 1))])
def test_match_color_of_a_single_pixel_is_finite(rng, sizes):
    image, target = (jnp.asarray(rng.uniform(size=(*size, 3)), jnp.float32) for size in sizes)
    matched = match_color(image, target)
    np.testing.assert_allclose(matched.mean((0, 1)), target.mean((0, 1)), atol=1e-5)


@pytest.mark.slow
def test_luminance_is_rec_601(x64):
    colors = jnp.eye(3)[None]
    np.testing.assert_allclose(ops.luminance(colors), [[0.299, 0.587, 0.114]], rtol=1e-12)
    np.testing.assert_allclose(ops.luminance(jnp.full((2, 2, 3), 0.7)), 0.7, rtol=1e-12)


def test_match_luminance_gives_the_target_mean_and_deviation(x64, rng):
    luma, target = rng.uniform(size=(5, 6)), rng.normal(0.3, 0.1, (9, 4))
    matched = np.asarray(match_luminance(jnp.asarray(luma), jnp.asarray(target)))
    np.testing.assert_allclose([matched.mean(), matched.std()], [target.mean(), target.std()], rtol=1e-12)
    np.testing.assert_array_equal(np.argsort(matched.ravel()), np.argsort(luma.ravel()))


def test_match_luminance_of_a_constant_is_the_target_mean(rng):
    target = jnp.asarray(rng.uniform(size=(4, 4)), jnp.float32)
    np.testing.assert_allclose(match_luminance(jnp.full((3, 3), 0.25), target), target.mean(), rtol=1e-6)


def _chroma(image):
    r, g, b = np.moveaxis(np.asarray(image, np.float64), -1, 0)
    return np.stack([0.5959 * r - 0.2746 * g - 0.3213 * b, 0.2115 * r - 0.5227 * g + 0.3112 * b])  # YIQ's I and Q


def test_replace_luminance_keeps_chroma(x64, rng):
    image, luma = rng.uniform(0.3, 0.7, (6, 7, 3)), rng.uniform(0.4, 0.6, (6, 7))
    replaced = np.asarray(ops.replace_luminance(jnp.asarray(image), jnp.asarray(luma)))
    np.testing.assert_allclose(ops.luminance(jnp.asarray(replaced)), luma, rtol=1e-12)
    np.testing.assert_allclose(_chroma(replaced), _chroma(image), atol=1e-4)  # the matrix has four digits


@pytest.mark.slow
def test_replace_luminance_stays_in_range():
    image = jnp.eye(3)[None]
    replaced = ops.replace_luminance(image, jnp.ones((1, 3)))
    assert (replaced.min(), replaced.max()) >= (0, 1)
    assert replaced.max() <= 1


def _cosine(length, order):
    return np.cos(np.pi / length * order * (np.arange(length) + 0.5))


@pytest.mark.slow
def test_precondition_multiplies_each_frequency(x64):
    # A picture that goes on as in a mirror has cosines of k/2 periods on each side: f = k / (2 n) cycles a pixel.
    factors = {
        (0, 0): 0.03 * 128,
        (0, 6): 0.03 * 64,
        (4, 0): 0.03 * 64,
        (3, 4): 0.03 / np.hypot(3 / 256, 4 / 384),
        (0, 12): 1 + np.sin(np.pi / 32) ** 4 / 2,
        (64, 0): 1 + np.sin(np.pi / 4) ** 4 / 2,
        (64, 96): 1 + 1 / 2,
        (120, 180): 1 + (2 * np.sin(np.pi * 120 / 256) ** 2) ** 2 / 2,
    }
    for (down, across), factor in factors.items():
        # The slow ones are also a little rough.
        rough = np.sin(np.pi * down / 256) ** 2 + np.sin(np.pi * across / 384) ** 2
        factor = factor + rough**2 / 2 if max(down / 256, across / 384) < 0.03 else factor
        wave = _cosine(128, down)[:, None] * _cosine(192, across)
        image = np.stack([wave, -2 * wave, 0 * wave], -1)
        np.testing.assert_allclose(ops.fourier_precondition(jnp.asarray(image)), factor * image, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(7, 5), (6, 9), (1, 4), (3, 1), (1, 1)])
def test_precondition_is_symmetric_and_positive(x64, rng, size):
    a, b = (jnp.asarray(rng.standard_normal((*size, 3))) for _ in range(2))
    through = ops.fourier_precondition
    assert through(a).dtype == a.dtype
    np.testing.assert_allclose(jnp.vdot(a, through(b)), jnp.vdot(through(a), b), rtol=1e-12)
    assert jnp.vdot(a, a) * (1 - 1e-12) <= jnp.vdot(a, through(a)) <= 3.84 * jnp.vdot(a, a) * (1 + 1e-12)
