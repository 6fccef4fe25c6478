import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import translation_golden as golden

from jnst.config import PatchSpec, TranslationConfig
from jnst.config.choices import PATCHES
from jnst.nets import patchgan

KEY = jax.random.key(0)
apply = jax.jit(patchgan.apply, static_argnames=("spec",))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("layers", [0, 3])
def test_logits_are_those_of_pytorch(x64, layers, norm):
    """float64 on both sides, the file's numbers float32: to 1e-6 of numbers around 1."""
    spec = dataclasses.replace(golden.JUDGE, layers=layers, norm=norm)
    params = golden.start("patchgan", np.float64)[str(layers)]
    logits = apply(params, golden.ranged(golden.load()["pictures"][:2]), spec)
    assert logits.shape == ((2, 2, 2) if layers else (2, 32, 32))
    np.testing.assert_allclose(golden.few(logits), golden.load()[f"patchgan/{layers}/{norm}"], rtol=0, atol=2e-6)


def test_a_patch_has_the_side_that_the_flag_says():
    for name in PATCHES:
        assert patchgan.receptive_field(TranslationConfig(patch=name).judge(3).layers) == int(name)


class _Affine(nn.Module):
    """A normalization without moments, which hang on the whole picture."""

    width: int
    kind: str

    @nn.compact
    def __call__(self, x, axis_name):
        scale, shift = (self.param(name, nn.initializers.zeros, (self.width,)) for name in ("scale", "shift"))
        return x * scale[None, None, None] + shift[None, None, None]


@pytest.mark.slow
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_a_logit_sees_just_a_patch(monkeypatch, layers):
    """All weights are positive, so nothing cancels: the gradient is positive on the patch, and 0 elsewhere. The next
    logit's patch lies as many pixels further as all strides make."""
    monkeypatch.setattr(patchgan, "Norm", _Affine)
    patch = patchgan.receptive_field(layers)
    spec = PatchSpec(layers=layers, width=1, channels=3)
    shapes = jax.eval_shape(lambda: patchgan.init(KEY, spec))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), shapes)
    side = max(8, 32 * 2**layers // 2)
    assert side > patch + 2**layers

    @jax.jit
    def seen(row, column):
        images = jnp.ones((1, side, side, 3))
        logit = lambda images: patchgan.apply(params, images, spec)[0, row, column]  # noqa: E731
        return jnp.all(jax.grad(logit)(images)[0] > 0, -1), jnp.any(jax.grad(logit)(images)[0] != 0, -1)

    middle = jax.eval_shape(lambda: patchgan.apply(params, jnp.ones((1, side, side, 3)), spec)).shape[1] // 2
    corners = []
    for at in (middle, middle + 1):
        all_channels, any_channel = (np.asarray(each) for each in seen(middle, at))
        np.testing.assert_array_equal(all_channels, any_channel)
        rows, columns = np.nonzero(any_channel)
        assert any_channel.sum() == patch**2
        assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == patch
        assert side > rows.max() + 1 or patch == 1
        corners.append((rows.min(), columns.min()))
    assert corners[1] == (corners[0][0], corners[0][1] + 2**layers)


@pytest.mark.parametrize(("layers", "expected"), [(0, 256), (1, 126), (3, 30), (5, 6)])
def test_how_many_patches_there_are(layers, expected):
    spec = PatchSpec(layers=layers, width=2, channels=6)
    logits = jax.eval_shape(lambda: patchgan.apply(patchgan.init(KEY, spec), jnp.ones((3, 256, 256, 6)), spec))
    assert logits.shape == (3, expected, expected)
    assert logits.dtype == jnp.float32


def test_widths_are_the_papers():
    shapes = jax.eval_shape(lambda: patchgan.init(KEY, PatchSpec(channels=6)))
    assert [shapes[f"layer_{layer}"].shape for layer in range(5)] == [
        (4, 4, 6, 64),
        (4, 4, 64, 128),
        (4, 4, 128, 256),
        (4, 4, 256, 512),
        (4, 4, 512, 1),
    ]
    assert {name for name in shapes if not name.startswith("layer")} == {
        *("bias_0", "norm_1", "norm_2", "norm_3", "bias_4")
    }
    deep = jax.eval_shape(lambda: patchgan.init(KEY, PatchSpec(layers=5)))
    assert deep["layer_5"].shape == (4, 4, 512, 512)


@pytest.mark.slow
def test_half_precision_is_of_the_products_alone():
    params = golden.start("patchgan")["3"]
    images = golden.ranged(golden.load()["pictures"][:1], np.float32)
    spec = dataclasses.replace(golden.JUDGE, layers=3)
    exact = apply(params, images, spec)
    said = apply(params, images, dataclasses.replace(spec, precision="bfloat16"))
    assert said.dtype == jnp.float32
    assert 0 < np.abs(said - exact).max() < 0.1 * np.abs(exact).max()
