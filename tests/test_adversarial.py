import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import adversarial
from jnst.config import ADVERSARIAL_LOSSES

REAL = np.array([2.0, -0.3, 0.1, -4.0])
FAKE = np.array([-1.0, 0.4, 3.0])


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


DISCRIMINATOR = {
    "bce": np.mean(-np.log(_sigmoid(REAL))) + np.mean(-np.log(1 - _sigmoid(FAKE))),
    "lsgan": np.mean((REAL - 1) ** 2) + np.mean(FAKE**2),
}
DISCRIMINATOR["saturating"] = DISCRIMINATOR["bce"]
GENERATOR = {
    "bce": np.mean(-np.log(_sigmoid(FAKE))),
    "saturating": np.mean(np.log(1 - _sigmoid(FAKE))),
    "lsgan": np.mean((FAKE - 1) ** 2),
}


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_losses_are_their_formulas(x64, kind):
    np.testing.assert_allclose(
        adversarial.discriminator_loss(jnp.array(REAL), jnp.array(FAKE), kind), DISCRIMINATOR[kind], rtol=1e-12
    )
    np.testing.assert_allclose(adversarial.generator_loss(jnp.array(FAKE), kind), GENERATOR[kind], rtol=1e-12)


@pytest.mark.parametrize("kind", ["bce", "saturating"])
def test_nothing_overflows_and_a_sure_discriminator_leaves_the_plain_loss_its_gradient(kind):
    logits = jnp.array([-200.0, 200.0])
    both = adversarial.discriminator_loss(logits, logits, kind)
    assert float(both) == pytest.approx(200)
    slope = jax.grad(lambda x: adversarial.generator_loss(x, kind))(logits)
    np.testing.assert_allclose(slope, [-0.5, 0] if kind == "bce" else [0, -0.5], atol=1e-6)


def test_sums_are_float32_of_half_precision():
    half = jnp.full((3000,), 0.3, jnp.bfloat16)
    assert adversarial.generator_loss(half, "lsgan").dtype == jnp.float32
    assert float(adversarial.l1(half, jnp.zeros(3000))) == pytest.approx(float(half[0]), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"), [("bce", (0.5, 1 / 3)), ("saturating", (0.5, 1 / 3)), ("lsgan", (0.25, 2 / 3))]
)
def test_accuracies_count_what_is_right(kind, expected):
    np.testing.assert_allclose(adversarial.accuracies(jnp.array(REAL), jnp.array(FAKE), kind), expected, rtol=1e-6)


def test_patches_count_alike():
    patches = jnp.arange(12.0).reshape(2, 2, 3)
    flat = adversarial.discriminator_loss(patches.ravel(), -patches.ravel(), "bce")
    np.testing.assert_allclose(adversarial.discriminator_loss(patches, -patches, "bce"), flat, rtol=1e-6)


def test_l1_is_the_mean_absolute_difference():
    assert float(adversarial.l1(jnp.array([1.0, -2.0]), jnp.array([0.0, 2.0]))) == 2.5
