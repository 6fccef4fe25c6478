"""The losses by which a generator and a discriminator learn against each other, from logits; each a mean, a scalar.

A logit is what a discriminator says before the sigmoid: above 0 it takes a picture for real. The logits have any shape:
one a picture, or one a patch.
"""

import jax
import jax.numpy as jnp

__all__ = ["accuracies", "discriminator_loss", "generator_loss", "l1"]

_MIDDLE = {"bce": 0.0, "saturating": 0.0, "lsgan": 0.5}  # above it a logit says real


def discriminator_loss(real: jax.Array, fake: jax.Array, kind: str) -> jax.Array:
    """What the discriminator gets wrong, about real pictures plus about made ones.

    `bce` and `saturating`: `-log D(x) - log(1 - D(G(z)))`, each from its logit, so that nothing overflows (Goodfellow
    et al. 2014, https://arxiv.org/abs/1406.2661). `lsgan`: `(D(x) - 1)^2 + D(G(z))^2` (Mao et al. 2017,
    https://arxiv.org/abs/1611.04076).

    Args:
        real: Logits of real pictures.
        fake: Logits of made ones.
        kind: One of `config.ADVERSARIAL_LOSSES`.

    >>> round(float(discriminator_loss(jnp.zeros(4), jnp.zeros(4), "bce")), 4)
    1.3863
    """
    real, fake = _wide(real), _wide(fake)
    if kind == "lsgan":
        return jnp.mean((real - 1) ** 2) + jnp.mean(fake**2)
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def generator_loss(fake: jax.Array, kind: str) -> jax.Array:
    """What the generator wants less of: being found out.

    `bce`: `-log D(G(z))`, whose gradient stays when the discriminator is sure. `saturating`: `log(1 - D(G(z)))`.
    `lsgan`: `(D(G(z)) - 1)^2`.

    >>> round(float(generator_loss(jnp.zeros(4), "bce")), 4)
    0.6931
    """
    fake = _wide(fake)
    if kind == "lsgan":
        return jnp.mean((fake - 1) ** 2)
    if kind == "saturating":
        return -jnp.mean(jax.nn.softplus(fake))
    return jnp.mean(jax.nn.softplus(-fake))


def accuracies(real: jax.Array, fake: jax.Array, kind: str) -> tuple[jax.Array, jax.Array]:
    """The share of real pictures, and of made ones, that the discriminator is right about.

    >>> [float(share) for share in accuracies(jnp.array([1.0, -1.0]), jnp.array([-1.0, -2.0]), "bce")]
    [0.5, 1.0]
    """
    middle = _MIDDLE[kind]
    return jnp.mean(_wide(real > middle)), jnp.mean(_wide(fake <= middle))


def l1(x: jax.Array, target: jax.Array) -> jax.Array:
    """The mean absolute difference.

    >>> float(l1(jnp.zeros(3), jnp.full(3, -2.0)))
    2.0
    """
    return jnp.mean(jnp.abs(_wide(x) - _wide(target)))


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
