import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads

from jnst import losses
from jnst.config import TOTAL_VARIATIONS
from jnst.normalizations import EPSILON, NORMALIZATIONS

content_loss = jax.jit(losses.content_loss, static_argnums=2)
style_gram = jax.jit(losses.style_gram, static_argnums=1)
style_loss = jax.jit(losses.style_loss, static_argnums=2)
tv_loss = jax.jit(losses.total_variation_loss, static_argnums=(1, 2))

every_normalization = pytest.mark.parametrize("kind", NORMALIZATIONS)


@pytest.fixture
def maps(x64, rng):
    """Features and a target of one size, and a style's of another."""
    return rng.standard_normal((4, 5, 6)), rng.standard_normal((4, 5, 6)), rng.standard_normal((7, 3, 6))


def test_the_table_is_the_contract():
    assert list(NORMALIZATIONS) == ["relative", "course", "gatys", "neural_style"]
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
    g, t = style_gram(f, kind), style_gram(s, kind)
    np.testing.assert_allclose(g, reference.gram(f, kind), rtol=1e-12, atol=1e-14)
    expected = reference.style_loss(reference.gram(f, kind), reference.gram(s, kind), kind)
    np.testing.assert_allclose(style_loss(g, t, kind), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["course", "gatys"])
def test_style_loss_at_equal_sizes_is_the_paper_s(maps, kind):
    f, p, _ = maps
    h, w, c = f.shape
    paper = np.sum((reference.raw_gram(f) - reference.raw_gram(p)) ** 2) / (4 * c**2 * (h * w) ** 2)
    np.testing.assert_allclose(style_loss(style_gram(f, kind), style_gram(p, kind), kind), paper, rtol=1e-12)


@every_normalization
@pytest.mark.parametrize("variation", TOTAL_VARIATIONS)
def test_total_variation_loss_equals_the_reference(x64, rng, variation, kind):
    image = rng.uniform(size=(5, 4, 3))
    np.testing.assert_allclose(tv_loss(image, variation, kind), reference.tv_loss(image, variation, kind), rtol=1e-12)


@every_normalization
def test_every_loss_at_its_own_target_is_zero(maps, kind):
    f, _, _ = maps
    g = style_gram(f, kind)
    assert content_loss(f, f, kind) == 0
    assert style_loss(g, g, kind) == 0


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


@every_normalization
def test_gradients_are_finite_differences(maps, kind):
    f, p, s = maps
    target = style_gram(s, kind)

    def both(f):
        return content_loss(f, p, kind) + style_loss(style_gram(f, kind), target, kind)

    check_grads(jax.jit(both), (jnp.asarray(f),), 1, ["rev"], atol=1e-6, rtol=1e-6)


@every_normalization
def test_float32_is_right_to_a_hundred_thousandth(rng, kind):
    f, p = (rng.standard_normal((16, 12, 5)).astype(np.float32) for _ in range(2))
    content, style = content_loss(f, p, kind), style_loss(style_gram(f, kind), style_gram(p, kind), kind)
    f, p = f.astype(np.float64), p.astype(np.float64)
    assert content.dtype == style.dtype == jnp.float32
    np.testing.assert_allclose(content, reference.content_loss(f, p, kind), rtol=1e-5)
    expected = reference.style_loss(reference.gram(f, kind), reference.gram(p, kind), kind)
    np.testing.assert_allclose(style, expected, rtol=1e-4)  # a difference of nearly equal sums


@every_normalization
def test_losses_of_bfloat16_features_are_summed_in_float32(rng, kind):
    f, p = (jnp.asarray(rng.standard_normal((24, 24, 4)), jnp.bfloat16) for _ in range(2))
    content, style = content_loss(f, p, kind), style_loss(style_gram(f, kind), style_gram(p, kind), kind)
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
            style_loss(*(style_gram(k * x, "relative") for x in (f, s)), "relative"),
        )
        for k in (1, 1000)
    )
    np.testing.assert_allclose(large, plain, rtol=1e-6)


def test_relative_means_the_same_when_the_picture_is_tiled(maps):
    f, p, s = maps
    f2, p2 = (np.tile(x, (2, 2, 1)) for x in (f, p))
    target = style_gram(s, "relative")
    np.testing.assert_allclose(content_loss(f2, p2, "relative"), content_loss(f, p, "relative"), rtol=1e-6)
    ours, single = (style_loss(style_gram(x, "relative"), target, "relative") for x in (f2, f))
    np.testing.assert_allclose(ours, single, rtol=1e-12)


@pytest.mark.parametrize("variation", TOTAL_VARIATIONS)
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


def test_an_unknown_normalization_is_refused():
    with pytest.raises(KeyError, match="mine"):
        losses.content_loss(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), "mine")
