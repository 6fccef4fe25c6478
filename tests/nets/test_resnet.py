import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import translation_golden as golden

from jnst.config import CycleganConfig, ResnetSpec
from jnst.config.choices import UPSAMPLES
from jnst.nets import resnet

KEY = jax.random.key(0)
apply = jax.jit(resnet.apply, static_argnames=("spec",))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["instance", "batch", "odd", "transpose"])
def test_pictures_are_those_of_pytorch(x64, case):
    """float64 on both sides, the file's numbers float32: to 1e-6."""
    spec = dataclasses.replace(
        golden.RESNET,
        norm="batch" if case == "batch" else "instance",
        upsample="transpose" if case == "transpose" else "resize",
    )
    images = golden.load()["pictures"][:2]
    if case == "odd":
        images = golden.enlarged(images[0], 30, 21)
    made = apply(golden.start("cyclegan", np.float64)["generator"]["AtoB"], golden.ranged(images), spec)
    assert made.shape == images.shape
    np.testing.assert_allclose(golden.few(made), golden.load()[f"resnet/{case}"], rtol=0, atol=1e-6)


def test_its_blocks_follow_the_size():
    assert [CycleganConfig(size=size).net.blocks for size in (64, 128, 256, 512)] == [6, 6, 9, 9]
    assert CycleganConfig(size=256, blocks=2).net.blocks == 2
    shapes = jax.eval_shape(lambda: resnet.init(KEY, ResnetSpec()))
    assert shapes["first"].shape == (7, 7, 3, 64)
    assert shapes["down_1"].shape == (3, 3, 128, 256)
    assert shapes["block_8_1"].shape == (3, 3, 256, 256)
    assert shapes["up_1"].shape == (3, 3, 256, 128)
    assert shapes["last"].shape == (7, 7, 64, 3)
    assert "block_9_0" not in shapes


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (31, 33), (4, 200), (45, 17), (513, 511)])
@pytest.mark.parametrize("upsample", UPSAMPLES)
def test_any_size_comes_out_as_it_went_in(size, upsample):
    spec = ResnetSpec(blocks=1, width=2, upsample=upsample)
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    made = jax.eval_shape(lambda images: resnet.apply(resnet.init(KEY, spec), images, spec), images)
    assert made.shape == (2, *size, 3)


@pytest.mark.slow
def test_a_block_adds_to_what_goes_through_it():
    """A block whose last normalization gives 0 leaves all as it is: as with none; of two, the other one is left."""
    params = dict(golden.start("cyclegan")["generator"]["AtoB"])
    images = golden.ranged(golden.load()["pictures"][:1], np.float32)
    none, one = (dataclasses.replace(golden.RESNET, blocks=blocks) for blocks in (0, 1))
    without = apply(params, images, none)
    assert np.abs(apply(params, images, one) - without).max() > 0.01
    params["norm_block_0_1"] = jax.tree.map(np.zeros_like, params["norm_block_0_1"])
    np.testing.assert_allclose(apply(params, images, one), without, atol=1e-6)


@pytest.mark.slow
def test_half_precision_is_of_the_products_alone():
    params = golden.start("cyclegan")["generator"]["AtoB"]
    images = golden.ranged(golden.load()["pictures"][:1], np.float32)
    exact = apply(params, images, golden.RESNET)
    made = apply(params, images, dataclasses.replace(golden.RESNET, precision="bfloat16"))
    assert made.dtype == jnp.float32
    assert 0 < np.abs(made - exact).max() < 0.1
