import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jnst.config import DCGAN_SIZES, DcganSpec
from jnst.config.choices import DISCRIMINATORS
from jnst.nets import dcgan

KEY = jax.random.key(0)
SPEC = DcganSpec(size=28, width=2, latent=3)
init = jax.jit(dcgan.init, static_argnames=("spec",))
generate = jax.jit(dcgan.generate, static_argnames=("spec", "train"))
discriminate = jax.jit(dcgan.discriminate, static_argnames=("spec",))
measured = jax.jit(dcgan.measured, static_argnames=("spec",))


@pytest.mark.slow
@pytest.mark.parametrize("size", DCGAN_SIZES)
@pytest.mark.parametrize("norm", DISCRIMINATORS)
def test_shapes_and_ranges(size, norm):
    spec = DcganSpec(size=size, width=2, latent=3, norm=norm)

    def both(key):
        generator, discriminator = dcgan.init(key, spec)
        pictures = dcgan.generate(generator, dcgan.latents(key, 5, spec), spec)
        return pictures, dcgan.discriminate(key, discriminator, pictures, spec)

    pictures, logits = jax.eval_shape(both, KEY)
    assert pictures.shape == (5, size, size, 3)
    assert logits.shape == (5,)
    assert dcgan.widths_of(spec)[0] == 2


@pytest.mark.slow
def test_weights_begin_as_the_paper_says():
    generator, discriminator = init(KEY, DcganSpec(width=16))
    kinds = {"scale": [], "weights": [], "zero": []}
    for path, leaf in flatten_dict({"g": generator["params"], "d": discriminator["params"]}).items():
        zero = path[-1].startswith("bias") or path[-1] == "shift"
        kinds["zero" if zero else "scale" if path[-1] == "scale" else "weights"].append(np.ravel(leaf))
    weights, scales = np.concatenate(kinds["weights"]), np.concatenate(kinds["scale"])
    assert abs(weights.mean()) < 1e-3
    assert weights.std() == pytest.approx(0.02, rel=0.02)
    assert scales.mean() == pytest.approx(1, abs=0.01)
    assert scales.std() == pytest.approx(0.02, rel=0.3)
    assert not np.concatenate(kinds["zero"]).any()
    # The two networks, and two keys, have nothing in common.
    assert len({float(found[0]) for found in kinds["weights"]}) == len(kinds["weights"])
    assert not np.array_equal(
        init(jax.random.key(1), DcganSpec(width=16))[0]["params"]["last"], generator["params"]["last"]
    )


@pytest.mark.slow
def test_moments_are_those_of_the_noise_that_they_were_measured_on():
    generator, z = init(KEY, SPEC)[0], dcgan.latents(KEY, 8, SPEC)
    ready = measured(generator, z, SPEC)
    by_batch = generate(generator, z, SPEC, train=True)
    np.testing.assert_allclose(generate(ready, z, SPEC), by_batch, atol=1e-5)
    # In use a picture hangs on its own noise alone, in training on the whole batch.
    np.testing.assert_allclose(generate(ready, z[:3], SPEC), by_batch[:3], atol=1e-5)
    assert np.abs(generate(generator, z[:3], SPEC, train=True) - by_batch[:3]).max() > 1e-3


@pytest.mark.slow
def test_what_is_dropped_hangs_on_the_pictures_number_alone():
    spec = dataclasses.replace(SPEC, norm="dropout")
    discriminator = init(KEY, spec)[1]
    pictures = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (6, 28, 28, 3)), jnp.float32)
    whole = discriminate(KEY, discriminator, pictures, spec)
    np.testing.assert_allclose(discriminate(KEY, discriminator, pictures[4:], spec, first=4), whole[4:], rtol=1e-4)
    assert not np.allclose(discriminate(KEY, discriminator, pictures[4:], spec), whole[4:], rtol=1e-4)
    assert not np.allclose(discriminate(jax.random.key(1), discriminator, pictures, spec), whole, rtol=1e-4)


@pytest.mark.slow
def test_the_share_that_is_dropped_is_the_one_asked_for_and_the_mean_stays():
    """A picture of ones in all places, through layers that leave it as it is."""
    spec = DcganSpec(size=28, width=64, norm="dropout", dropout=0.3)
    (first, second) = dcgan._kept(jax.random.split(KEY, 4), spec)  # noqa: SLF001
    assert first.shape == (4, 14, 14, 64)
    assert second.shape == (4, 7, 7, 128)
    for kept in (first, second):
        assert float(kept.mean()) == pytest.approx(1 - 77 / 256, abs=0.01)

    def mean(share):
        own, pictures = dataclasses.replace(spec, dropout=share), jnp.ones((2, 28, 28, 3))
        said = [discriminate(jax.random.key(number), _plain(spec), pictures, own) for number in range(40)]
        return np.mean(said)

    assert mean(0.3) == pytest.approx(mean(0.0), rel=0.05)


def _plain(spec):
    """Positive weights only: no rectifier does anything, and the logit is linear."""
    shapes = jax.eval_shape(lambda: dcgan.init(KEY, spec))[1]
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)


@pytest.mark.slow
def test_half_precision_is_of_the_products_alone():
    one, half = SPEC, dataclasses.replace(SPEC, precision="bfloat16")
    generator, discriminator = init(KEY, one)
    z = dcgan.latents(KEY, 4, one)
    pictures = generate(generator, z, half, train=True)
    assert pictures.dtype == jnp.float32
    exact = generate(generator, z, one, train=True)
    assert 0 < np.abs(pictures - exact).max() < 0.05
    assert discriminate(KEY, discriminator, exact, half).dtype == jnp.float32
