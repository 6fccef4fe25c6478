import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads

from jnst import losses
from jnst.config import TOTAL_VARIATIONS
from jnst.config.choices import STYLE_LOSSES
from jnst.normalizations import EPSILON, NORMALIZATIONS
from jnst.types import Gaussian

content_loss = jax.jit(losses.content_loss, static_argnums=2)
style_target = jax.jit(losses.style_target)
style_loss = jax.jit(losses.style_loss, static_argnums=2)
tv_loss = jax.jit(losses.total_variation_loss, static_argnums=(1, 2))

every_normalization = pytest.mark.parametrize("kind", NORMALIZATIONS)


@functools.partial(jax.jit, static_argnums=(1, 2))
def statistic(f, kind, how="gram"):
    return losses.style_statistic(losses.style_sums(f, how), f.shape, kind)


def target_of(s):
    return style_target(statistic(s, "relative", "wasserstein"))


def wasserstein(f, s, kind):
    """The loss of features against those of a style."""
    return style_loss(statistic(f, kind, "wasserstein"), target_of(s), kind)


@functools.partial(jax.jit, static_argnums=2)
def wasserstein_gradient(f, target, kind):
    return jax.grad(lambda f: style_loss(statistic(f, kind, "wasserstein"), target, kind))(f)


@pytest.fixture
def maps(x64, rng):
    """Features and a target of one size, and a style's of another."""
    return rng.standard_normal((4, 5, 6)), rng.standard_normal((4, 5, 6)), rng.standard_normal((7, 3, 6))


def test_the_table_is_the_contract():
    assert list(NORMALIZATIONS) == ["relative", "course", "gatys", "neural_style", "style_transfer_pytorch"]
    assert EPSILON == 1e-6
    assert "1e-6" in NORMALIZATIONS["relative"].source
    assert all(rule.source for rule in NORMALIZATIONS.values())


@every_normalization
def test_content_loss_equals_the_reference(maps, kind):
    f, p, _ = maps
    np.testing.assert_allclose(content_loss(f, p, kind), reference.content_loss(f, p, kind), rtol=1e-12)


@every_normalization
def test_style_loss_equals_the_reference(maps, kind):
    f, _, s = maps
    g, t = statistic(f, kind), statistic(s, kind)
    np.testing.assert_allclose(g, reference.gram(f, kind), rtol=1e-12, atol=1e-14)
    expected = reference.style_loss(reference.gram(f, kind), reference.gram(s, kind), kind)
    np.testing.assert_allclose(style_loss(g, t, kind), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["course", "gatys"])
def test_style_loss_at_equal_sizes_is_the_paper_s(maps, kind):
    f, p, _ = maps
    h, w, c = f.shape
    paper = np.sum((reference.raw_gram(f) - reference.raw_gram(p)) ** 2) / (4 * c**2 * (h * w) ** 2)
    np.testing.assert_allclose(style_loss(statistic(f, kind), statistic(p, kind), kind), paper, rtol=1e-12)


@every_normalization
@pytest.mark.parametrize("variation", TOTAL_VARIATIONS)
def test_total_variation_loss_equals_the_reference(x64, rng, variation, kind):
    image = rng.uniform(size=(5, 4, 3))
    np.testing.assert_allclose(tv_loss(image, variation, kind), reference.tv_loss(image, variation, kind), rtol=1e-12)


@every_normalization
def test_every_loss_at_its_own_target_is_zero(maps, kind):
    f, _, _ = maps
    g = statistic(f, kind)
    assert content_loss(f, f, kind) == 0
    assert style_loss(g, g, kind) == 0


@pytest.mark.slow
@every_normalization
@pytest.mark.parametrize("variation", TOTAL_VARIATIONS)
@pytest.mark.parametrize("unit", [1, 255])
def test_a_flat_picture_has_no_total_variation_and_is_not_pushed(variation, kind, unit):
    # Compiled: a multiplication fused with the subtraction once left rounding errors, whose sign l1 then followed.
    def loss(canvas):
        return losses.total_variation_loss(canvas / unit, variation, kind)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.full((5, 4, 3), 0.4 * unit))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
@every_normalization
def test_gradients_are_finite_differences(maps, kind):
    f, p, s = maps
    target = statistic(s, kind)

    def both(f):
        return content_loss(f, p, kind) + style_loss(statistic(f, kind), target, kind)

    check_grads(jax.jit(both), (jnp.asarray(f),), 1, ["rev"], atol=1e-6, rtol=1e-6)


@every_normalization
def test_float32_is_right_to_a_hundred_thousandth(rng, kind):
    f, p = (rng.standard_normal((16, 12, 5)).astype(np.float32) for _ in range(2))
    content, style = content_loss(f, p, kind), style_loss(statistic(f, kind), statistic(p, kind), kind)
    f, p = f.astype(np.float64), p.astype(np.float64)
    assert content.dtype == style.dtype == jnp.float32
    np.testing.assert_allclose(content, reference.content_loss(f, p, kind), rtol=1e-5)
    expected = reference.style_loss(reference.gram(f, kind), reference.gram(p, kind), kind)
    np.testing.assert_allclose(style, expected, rtol=1e-4)  # a difference of nearly equal sums


@every_normalization
def test_losses_of_bfloat16_features_are_summed_in_float32(rng, kind):
    f, p = (jnp.asarray(rng.standard_normal((24, 24, 4)), jnp.bfloat16) for _ in range(2))
    content, style = content_loss(f, p, kind), style_loss(statistic(f, kind), statistic(p, kind), kind)
    f, p = (np.asarray(x, np.float64) for x in (f, p))
    assert content.dtype == style.dtype == jnp.float32
    np.testing.assert_allclose(content, reference.content_loss(f, p, kind), rtol=1e-5)
    expected = reference.style_loss(reference.gram(f, kind), reference.gram(p, kind), kind)
    np.testing.assert_allclose(style, expected, rtol=1e-3)


def test_relative_means_the_same_when_features_are_scaled(maps):
    f, p, s = maps
    plain, large = (
        (
            content_loss(k * f, k * p, "relative"),
            style_loss(*(statistic(k * x, "relative") for x in (f, s)), "relative"),
        )
        for k in (1, 1000)
    )
    np.testing.assert_allclose(large, plain, rtol=1e-6)


def test_relative_means_the_same_when_the_picture_is_tiled(maps):
    f, p, s = maps
    f2, p2 = (np.tile(x, (2, 2, 1)) for x in (f, p))
    target = statistic(s, "relative")
    np.testing.assert_allclose(content_loss(f2, p2, "relative"), content_loss(f, p, "relative"), rtol=1e-6)
    ours, single = (style_loss(statistic(x, "relative"), target, "relative") for x in (f2, f))
    np.testing.assert_allclose(ours, single, rtol=1e-12)


@pytest.mark.parametrize("variation", ["l1", "l2"])  # l2_nine counts pairs beyond the border
def test_relative_total_variation_means_the_same_when_the_picture_is_mirrored_to_twice_its_size(x64, rng, variation):
    image = rng.uniform(size=(5, 4, 3))
    wide = np.concatenate([image, image[:, ::-1]], 1)  # no seam
    whole = np.concatenate([wide, wide[::-1]], 0)
    ours, single = (tv_loss(x, variation, "relative") for x in (whole, image))
    np.testing.assert_allclose(ours, single, rtol=1e-12)


def test_relative_against_zeros_is_divided_by_epsilon_alone(x64, rng):
    f = rng.standard_normal((2, 2, 3))
    assert np.isclose(content_loss(f, np.zeros_like(f), "relative"), np.sum(f**2) / 1e-6, rtol=1e-12)
    g = reference.gram(f, "relative")
    assert np.isclose(style_loss(g, np.zeros_like(g), "relative"), np.sum(g**2) / 1e-6, rtol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (4, 7)])
def test_nine_point_variation_equals_the_reference_at_every_border(x64, rng, size):
    image = rng.uniform(size=(*size, 3))
    expected = reference.tv_loss(image, "l2_nine", "style_transfer_pytorch")
    np.testing.assert_allclose(tv_loss(image, "l2_nine", "style_transfer_pytorch"), expected, rtol=1e-12)


@pytest.mark.slow
def test_nine_point_variation_by_hand(x64):
    # A lone pixel differs from four neighbors by the straight ones' weight and from four by the diagonal ones', whose
    # mean is over 20 x 20 pairs.
    dot = np.zeros((19, 19, 1))
    dot[9, 9] = 1
    kind = "style_transfer_pytorch"
    np.testing.assert_allclose(tv_loss(dot, "l2_nine", kind) * 19**2, 4 * 2 / 3 + 4 / 6 * 0.95**2, rtol=1e-12)


def test_an_unknown_normalization_is_refused():
    with pytest.raises(KeyError, match="mine"):
        losses.content_loss(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), "mine")


@pytest.fixture
def clouds(x64, rng):
    """Features and a style's: many pixels and few channels, so that twelve iterations give the roots exactly."""
    found = []
    for size in ((9, 8), (7, 12)):
        mixing = np.eye(4) + 0.2 * rng.standard_normal((4, 4))
        found.append(rng.standard_normal((*size, 4)) @ mixing + rng.uniform(-1, 1, 4))
    return found


def _expected(f, s, kind):
    return reference.wasserstein_loss(reference.moments(f), reference.moments(s), kind)


@pytest.mark.slow
@every_normalization
@pytest.mark.parametrize("spread", [1, 0.01])  # beside the smaller, the ridge and the epsilon count
def test_wasserstein_equals_the_reference(clouds, kind, spread):
    f, s = (spread * x for x in clouds)
    np.testing.assert_allclose(wasserstein(f, s, kind), _expected(f, s, kind), rtol=1e-10)


@pytest.mark.slow
def test_wasserstein_of_one_channel_is_that_of_means_and_deviations(x64, rng):
    f, s = rng.normal(0.3, 0.05, (6, 5, 1)), rng.normal(0.7, 0.02, (4, 8, 1))
    deviations = [np.sqrt(x.var() + 1e-4) for x in (f, s)]
    expected = (f.mean() - s.mean()) ** 2 + (deviations[0] - deviations[1]) ** 2
    np.testing.assert_allclose(wasserstein(f, s, "style_transfer_pytorch"), expected, rtol=1e-10)


@pytest.mark.slow
def test_wasserstein_gradient_is_a_finite_difference_of_the_reference(clouds, rng):
    f, s = clouds
    for kind in ("relative", "style_transfer_pytorch"):
        gradient = np.asarray(wasserstein_gradient(f, target_of(s), kind))
        for _ in range(3):
            direction = rng.standard_normal(f.shape)
            slope = reference.numeric_slope(lambda f, kind=kind: _expected(f, s, kind), f, direction, 1e-5)
            np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6)


def test_wasserstein_at_its_own_target_is_zero_and_pushes_nowhere(clouds):
    f, s = clouds
    assert abs(wasserstein(f, f, "relative")) < 1e-13 < 1e-2 < wasserstein(f, s, "relative")
    assert np.abs(wasserstein_gradient(f, target_of(f), "relative")).max() < 1e-13


def test_wasserstein_ignores_a_shuffle_of_pixels_but_not_of_channels(clouds, rng):
    f, s = clouds
    shuffled = rng.permutation(f.reshape(-1, 4)).reshape(6, 12, 4)
    once = wasserstein(f, s, "relative")
    np.testing.assert_allclose(wasserstein(shuffled, s, "relative"), once, rtol=1e-12)
    assert abs(wasserstein(f[..., ::-1], s, "relative") - once) > 0.01 * once


@pytest.mark.slow
def test_wasserstein_under_vmap_equals_a_loop(clouds):
    f, s = clouds
    many = np.stack([f, 0.5 * f + 1, f[::-1] ** 2]), np.stack([s, s**2, 2 * s])
    run = lambda f, s: (wasserstein(f, s, "relative"), wasserstein_gradient(f, target_of(s), "relative"))  # noqa: E731
    found = jax.jit(jax.vmap(run))(*many)
    for index, (one, style) in enumerate(zip(*many, strict=True)):
        for ours, alone in zip(found, run(one, style), strict=True):
            np.testing.assert_allclose(ours[index], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_wasserstein_in_float32_and_of_bfloat16_features_is_near_the_exact_one(clouds):
    for kind, tolerance in ((jnp.float32, 1e-4), (jnp.bfloat16, 1e-3)):
        f, s = (jnp.asarray(x, kind) for x in clouds)
        loss = wasserstein(f, s, "relative")
        assert loss.dtype == jnp.float32
        assert abs(wasserstein(f, f, "relative")) < 1e-6
        expected = _expected(*(np.asarray(x, np.float64) for x in (f, s)), "relative")
        np.testing.assert_allclose(loss, expected, rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("shades", [(0.5, 0.2), (0.0, 0.0), (0.5, 0.0)])
def test_wasserstein_of_features_that_never_change_is_that_of_their_means(shades):
    f, s = (jnp.full((4, 5, 6), shade) for shade in shades)
    loss, gradient = wasserstein(f, s, "gatys"), wasserstein_gradient(f, target_of(s), "gatys")
    np.testing.assert_allclose(loss, (shades[0] - shades[1]) ** 2, rtol=1e-5, atol=1e-9)
    # Of a mean over 20 pixels of 6 channels.
    np.testing.assert_allclose(gradient, 2 * (shades[0] - shades[1]) / 120, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_style_target_is_the_gram_matrix_itself_or_a_distribution_with_its_root(clouds):
    _, s = clouds
    gram = statistic(s, "gatys")
    assert losses.style_target(gram) is gram
    target = losses.style_target(statistic(s, "gatys", "wasserstein"))
    assert isinstance(target, Gaussian)
    flat = s.reshape(-1, 4)
    np.testing.assert_allclose(target.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(target.covariance, np.cov(flat.T, ddof=0) + 1e-4 * np.eye(4), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(target.root @ target.root, target.covariance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", STYLE_LOSSES)
def test_style_sums_of_parts_add_up_to_the_whole_s(clouds, how):
    f, _ = clouds
    parts = [losses.style_sums(f[:, a:b], how) for a, b in ((0, 3), (3, 4), (4, 8))]
    whole = losses.style_sums(f, how)
    assert jax.tree.structure(whole) == jax.tree.structure(parts[0])
    for ours, added in zip(
        jax.tree.leaves(whole), jax.tree.leaves(jax.tree.map(lambda *x: sum(x), *parts)), strict=True
    ):
        np.testing.assert_allclose(ours, added, rtol=1e-12)
