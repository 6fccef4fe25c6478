import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import gan_layers

KEY = jax.random.key(0)


def _norm(x, kind, axis_name=None, scale=None, shift=None):
    width = x.shape[-1]
    scale = np.ones(width) if scale is None else scale
    shift = np.zeros(width) if shift is None else shift
    return gan_layers.Norm(width, kind).apply({"params": {"scale": scale, "shift": shift}}, x, axis_name)


@pytest.mark.parametrize(("kind", "axes"), [("instance", (1, 2)), ("batch", (0, 1, 2))])
def test_moments_are_taken_off(x64, rng, kind, axes):
    x, scale, shift = 3 + 2 * rng.standard_normal((3, 4, 5, 2)), np.array([2.0, -1.0]), np.array([0.5, 7.0])
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * scale + shift
    np.testing.assert_allclose(_norm(x, kind, scale=scale, shift=shift), expected, rtol=1e-12)
    assert gan_layers.EPSILON == 1e-5


def test_of_one_picture_both_normalizations_are_the_same(rng):
    x = rng.standard_normal((1, 4, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(_norm(x, "instance"), _norm(x, "batch"), atol=1e-6)
    two = rng.standard_normal((2, 4, 5, 2)).astype(np.float32) + np.array([0, 5])[:, None, None, None]
    assert np.abs(_norm(two, "instance") - _norm(two, "batch")).max() > 0.1
    np.testing.assert_allclose(_norm(two, "instance")[1:], _norm(two[1:], "instance"), atol=1e-5)


@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_a_spread_batch_is_normalized_as_a_whole_one(x64, rng, kind):
    x = rng.standard_normal((4, 3, 3, 2)) + np.arange(4.0)[:, None, None, None]
    parts = x.reshape(2, 2, 3, 3, 2)
    spread = jax.vmap(lambda part: _norm(part, kind, "parts"), axis_name="parts")(parts)
    np.testing.assert_allclose(spread.reshape(x.shape), _norm(x, kind), rtol=1e-12, atol=1e-12)


def test_half_precision_is_normalized_in_full():
    x = jnp.ones((1, 2, 2, 1), jnp.bfloat16)
    assert _norm(x, "instance").dtype == jnp.float32
    assert gan_layers.arithmetic(jnp.ones(2), "bfloat16").dtype == jnp.bfloat16
    assert gan_layers.arithmetic(jnp.ones(2), "float32").dtype == jnp.float32


def test_the_leaky_rectifier_lets_a_fifth_through():
    x = jnp.array([-5.0, -0.5, 0.0, 3.0])
    np.testing.assert_allclose(gan_layers.leaky(x), [-1.0, -0.1, 0.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(gan_layers.leaky))(x[jnp.array([0, 3])]), [0.2, 1.0], rtol=1e-6)


@pytest.fixture(scope="module")
def dropped():
    """From ones: of four pictures from number `first` on."""

    @jax.jit
    def of(key, first, layer):
        keys = gan_layers.keys_of(key, 4, first=first)
        return gan_layers.dropped(keys, jnp.ones((4, 16, 16, 8)), 0.3, layer)

    return of


@pytest.mark.slow
def test_the_share_that_is_dropped_is_the_one_asked_for_and_the_mean_stays(dropped):
    found = np.stack([dropped(jax.random.key(number), 0, 0) for number in range(8)])
    least = 77 / 256  # 0.3 in 256ths
    kept = found > 0
    assert kept.mean() == pytest.approx(1 - least, abs=4 * np.sqrt(least * (1 - least) / kept.size))
    np.testing.assert_allclose(found[kept], 1 / (1 - least), rtol=1e-6)
    # By chance in every place: no column, row or channel has a share of its own.
    for axis in (2, 3, 4):
        others = tuple(place for place in range(5) if place != axis)
        assert kept.mean(others) == pytest.approx(1 - least, abs=0.05)


@pytest.mark.slow
def test_what_is_dropped_hangs_on_key_number_and_layer(dropped):
    whole = np.asarray(dropped(KEY, 0, 0))
    np.testing.assert_array_equal(dropped(KEY, 0, 0), whole)
    np.testing.assert_array_equal(dropped(KEY, 2, 0)[:2], whole[2:])
    each = [*whole, *dropped(jax.random.key(1), 0, 0), *dropped(KEY, 4, 0), *dropped(KEY, 0, 1)]
    for place, one in enumerate(each):
        for other in each[:place]:  # alike in as many places as chance has it
            assert ((one > 0) == (other > 0)).mean() == pytest.approx(0.58, abs=0.06)


@pytest.mark.slow
def test_first_numbers_are_the_papers():
    shapes = {
        "layer": {
            "scale": jax.ShapeDtypeStruct((2000,), jnp.float32),
            "shift": jax.ShapeDtypeStruct((9,), jnp.float32),
        },
        "kernel": jax.ShapeDtypeStruct((4, 4, 10, 20), jnp.float32),
        "other": jax.ShapeDtypeStruct((4, 4, 10, 20), jnp.float32),
        "bias": jax.ShapeDtypeStruct((3,), jnp.float32),
    }
    found = gan_layers.drawn(KEY, shapes)
    assert jax.tree.map(lambda leaf: leaf.shape, found) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    assert not found["layer"]["shift"].any()
    assert not found["bias"].any()
    for name in ("kernel", "other"):
        assert float(found[name].mean()) == pytest.approx(0, abs=0.002)
        assert float(found[name].std()) == pytest.approx(0.02, rel=0.06)
    assert float(found["layer"]["scale"].mean()) == pytest.approx(1, abs=0.002)
    assert float(found["layer"]["scale"].std()) == pytest.approx(0.02, rel=0.1)
    # No numbers twice.
    assert not np.intersect1d(found["kernel"], found["other"]).size > 20
    assert np.abs(found["kernel"] - gan_layers.drawn(jax.random.key(1), shapes)["kernel"]).max() > 0.01
