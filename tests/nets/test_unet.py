import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import translation_golden as golden
from flax.traverse_util import flatten_dict

from jnst.config import Pix2pixConfig, UnetSpec
from jnst.nets import unet

KEY = jax.random.key(0)
SPEC = UnetSpec(levels=4, width=2, dropout=0.5)
apply = jax.jit(unet.apply, static_argnames=("spec",))
init = jax.jit(unet.init, static_argnames=("spec",))


def _start(spec):
    """Normal numbers, with which every layer says something."""
    shapes = jax.eval_shape(lambda: unet.init(KEY, spec))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.3, shapes)


def _pictures(*shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["instance", "batch", "odd", "dropped"])
def test_pictures_are_those_of_pytorch(x64, case):
    """float64 on both sides, the file's numbers float32: to 1e-6. What is dropped is drawn from the same keys."""
    spec = dataclasses.replace(golden.UNET, norm="batch" if case == "batch" else "instance")
    if case == "dropped":
        spec = dataclasses.replace(spec, dropout=0.5)
    params = golden.start("pix2pix", np.float64)["generator"]
    images = golden.load()["pictures"][:2]
    if case == "odd":
        images = golden.enlarged(images[0], 37, 50)
    made = apply(KEY, params, golden.ranged(images), spec)
    assert made.shape == images.shape
    np.testing.assert_allclose(golden.few(made), golden.load()[f"unet/{case}"], rtol=0, atol=1e-6)


def test_its_depth_follows_the_size():
    assert [Pix2pixConfig(size=size).net.levels for size in (32, 64, 256, 512)] == [5, 6, 8, 9]
    assert unet.widths_of(UnetSpec()) == (64, 128, 256, 512, 512, 512, 512, 512)
    shapes = jax.eval_shape(lambda: unet.init(KEY, UnetSpec()))
    assert shapes["down_7"].shape == (4, 4, 512, 512)
    assert shapes["up_6"].shape == (4, 4, 1024, 512)
    assert shapes["up_0"].shape == (4, 4, 128, 3)
    # Normalized is everything but the first and the innermost map, and what comes out.
    norms = {path[0] for path in flatten_dict(shapes) if path[-1] == "scale"}
    assert norms == {f"norm_down_{level}" for level in range(1, 7)} | {f"norm_up_{level}" for level in range(1, 8)}


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (31, 33), (1, 1), (3, 200), (45, 17), (513, 511)])
def test_any_size_comes_out_as_it_went_in(size):
    spec = UnetSpec(levels=5, width=2)
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    made = jax.eval_shape(lambda images: unet.apply(KEY, unet.init(KEY, spec), images, spec), images)
    assert made.shape == (2, *size, 3)


@pytest.mark.slow
def test_what_moves_by_whole_pixels_of_the_innermost_map_comes_out_moved():
    """A blob on gray, so far from the border that nothing of it reaches there."""
    spec = UnetSpec(levels=3, width=2, dropout=0.0)
    params, blob = _start(spec), _pictures(16, 16, 3)
    side, at = 112, 48

    def made(shift):
        images = np.zeros((1, side, side, 3), np.float32)
        images[0, at : at + 16, at + shift : at + shift + 16] = blob
        return np.asarray(apply(None, params, images, spec))[0]

    still, whole, half = made(0), made(8), made(4)
    seen = slice(at - 24, at + 40)
    one = still[seen, seen]
    assert one.std() > 0.01
    np.testing.assert_allclose(whole[seen, at - 16 : at + 48], one, atol=1e-4)
    assert np.abs(half[seen, at - 20 : at + 44] - one).max() > 0.01  # half a pixel: another picture


@pytest.mark.slow
def test_each_skip_carries_the_picture_by_itself():
    """Kernels read the skip's channels first. With all ways cut there is no gradient; each way alone has one."""
    spec = dataclasses.replace(SPEC, dropout=0.0)
    widths, images = unet.widths_of(spec), _pictures(1, 16, 16, 3)
    start = _start(spec)

    @jax.jit
    def reach(params):
        return jnp.abs(jax.grad(lambda images: jnp.sum(unet.apply(None, params, images, spec) ** 2))(images)).max()

    def cut(but):
        params = dict(start)
        for level in range(spec.levels - 1):  # the skip into this level's way up
            if level != but:
                kernel = params[f"up_{level}"].copy()
                kernel[:, :, : widths[level]] = 0
                params[f"up_{level}"] = kernel
        if but != spec.levels - 1:  # the innermost map
            params[f"up_{spec.levels - 1}"] = np.zeros_like(params[f"up_{spec.levels - 1}"])
        return params

    assert float(reach(cut(None))) == 0
    for level in range(spec.levels):
        assert float(reach(cut(level))) > 1e-5, level


@pytest.mark.slow
def test_noise_hangs_on_the_key_and_the_pictures_number_alone():
    params, images = _start(SPEC), _pictures(2, 16, 16, 3)
    whole = apply(KEY, params, images, SPEC, first=0)
    np.testing.assert_array_equal(whole, apply(KEY, params, images, SPEC, first=0))
    assert np.abs(whole - apply(jax.random.key(1), params, images, SPEC, first=0)).max() > 1e-2
    # Number 1 is dropped from as number 1, also where it is a batch's first; as number 2 otherwise.
    other = apply(KEY, params, images[::-1], SPEC, first=1)
    np.testing.assert_allclose(other[0], whole[1], atol=1e-5)
    assert np.abs(other[1] - whole[0]).max() > 1e-2
    # Without a key nothing is dropped.
    still = apply(None, params, images, SPEC)
    assert np.abs(still - whole).max() > 1e-2
    np.testing.assert_array_equal(still, apply(None, params, images, dataclasses.replace(SPEC, dropout=0.0)))


@pytest.mark.slow
def test_half_precision_is_of_the_products_alone():
    params, images = init(KEY, SPEC), _pictures(1, 16, 16, 3)
    exact = apply(None, params, images, SPEC)
    made = apply(None, params, images, dataclasses.replace(SPEC, precision="bfloat16"))
    assert made.dtype == jnp.float32
    assert 0 < np.abs(made - exact).max() < 0.05
