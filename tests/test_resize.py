import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import ops

resize = jax.jit(ops.resize, static_argnums=(1, 2))
both_kinds = pytest.mark.parametrize("kind", ["linear", "cubic"])


@both_kinds
@pytest.mark.parametrize(
    ("before", "after"), [((4, 5), (7, 9)), ((2, 3), (3, 9)), ((1, 3), (4, 5)), ((5, 2), (5, 3)), ((6, 4), (5, 4))]
)
def test_resize_equals_the_reference(x64, rng, before, after, kind):
    image = rng.standard_normal((*before, 2))
    np.testing.assert_allclose(resize(image, after, kind), reference.resize(image, after, kind), rtol=1e-12, atol=1e-14)


# By PyTorch 2.13: torch.nn.functional.interpolate(torch.tensor([[[[0.0, 1, 4], [2, 0, 1]]]]), (3, 5), mode="bilinear",
# align_corners=False), and mode="bicubic".
PYTORCH = {
    "linear": [[0, 0.4, 1, 2.8, 4], [1, 0.8, 0.5, 1.7, 2.5], [2, 1.2, 0, 0.6, 1]],
    "cubic": [
        [-0.294611, 0.086931, 1.086806, 3.119806, 4.565083],
        [1.048, 0.662, 0.5, 1.688, 2.692],
        [2.390611, 1.237069, -0.086806, 0.256194, 0.818917],
    ],
}


@both_kinds
def test_resize_equals_pytorch(x64, kind):
    image = np.array([[0.0, 1, 4], [2, 0, 1]])[..., None]
    np.testing.assert_allclose(resize(image, (3, 5), kind)[..., 0], PYTORCH[kind], rtol=0, atol=6e-7)


@both_kinds
def test_the_same_size_is_the_same_picture(rng, kind):
    image = jnp.asarray(rng.uniform(size=(3, 4, 3)), jnp.float32)
    np.testing.assert_array_equal(ops.resize(image, (3, 4), kind), image)


@pytest.mark.slow
@both_kinds
def test_a_constant_stays_one_in_its_type(kind):
    for dtype in (jnp.float32, jnp.bfloat16):
        grown = resize(jnp.full((3, 4, 2), 0.3, dtype), (7, 5), kind)
        assert grown.dtype == dtype
        np.testing.assert_allclose(grown.astype(jnp.float32), 0.3, rtol=3e-7 if dtype == jnp.float32 else 0.02)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_ramp_stays_a_ramp_but_for_the_border(x64, axis):
    ramp = np.moveaxis(np.arange(8.0)[:, None, None] * np.ones((8, 2, 1)), 0, axis)
    size = (16, 2) if axis == 0 else (2, 16)
    places = (np.arange(16) + 0.5) / 2 - 0.5
    along = lambda kind: np.moveaxis(np.asarray(resize(ramp, size, kind)), axis, 0)[:, 0, 0]  # noqa: E731
    np.testing.assert_allclose(along("linear"), np.clip(places, 0, 7), rtol=1e-12)
    # Keys' kernel has straight lines straight at a = -1/2 alone; at -3/4, t of the way are t^3 - 3/2 t^2 + 3/2 t.
    whole, t = np.divmod(places, 1)
    np.testing.assert_allclose(along("cubic")[3:-3], (whole + t**3 - 1.5 * t**2 + 1.5 * t)[3:-3], rtol=1e-12)


def test_cubic_overshoots_at_an_edge_and_linear_does_not(x64):
    edge = np.repeat([0.0, 1.0], 4).reshape(1, 8, 1)
    linear, cubic = (np.asarray(resize(edge, (1, 16), kind)) for kind in ("linear", "cubic"))
    assert (linear.min(), linear.max()) == (0, 1)
    assert cubic.min() < -0.05 < 1.05 < cubic.max()
