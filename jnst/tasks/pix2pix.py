"""Pix2pix as a game (Isola et al. 2017, https://arxiv.org/abs/1611.07004): a U-Net that turns a picture into its
counterpart, against a PatchGAN that sees both; and its use. How it is trained is in `jnst.games`."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jnst import adversarial, train
from jnst.config import PatchSpec, UnetSpec
from jnst.nets import patchgan, unet
from jnst.types import Terms

__all__ = ["Game", "translate"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Game:
    """See `games.Game`; a batch is pictures that go in, and what should come out."""

    net: UnetSpec
    judge: PatchSpec
    """With 6 channels where it sees what goes in, too, else 3."""
    objective: str = "l1+cgan"
    """One of `config.PIX2PIX_LOSSES`: the paper's ablation."""
    kind: str = "bce"
    """One of `config.ADVERSARIAL_LOSSES`."""
    l1_weight: float = 100.0

    @property
    def plays(self) -> bool:
        """Whether there is a discriminator."""
        return "gan" in self.objective

    @property
    def terms(self) -> tuple[str, ...]:
        """Losses, and accuracies over patches."""
        return ("generator", "discriminator", "l1", "real", "fake") if self.plays else ("generator", "l1")

    def begin(self, key: jax.Array) -> tuple[train.Pair, train.Pair]:
        """Both networks' parameters; nothing is learnt beside them."""
        one, other = jax.random.split(key)
        judge = patchgan.init(other, self.judge) if self.plays else {}
        return train.Pair(unet.init(one, self.net), judge), train.Pair({}, {})

    def loss(
        self,
        key: jax.Array,
        params: train.Pair,
        extra: train.Pair,
        batch: tuple[jax.Array, jax.Array],
        *,
        axis_name: str | None = None,
    ) -> tuple[train.Pair, tuple[Terms, train.Pair]]:
        """Of both networks, on pairs `[B, S, S, 3]`. The discriminator's is halved, as the paper slows it down."""
        given, target = batch
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(given)
        made = unet.apply(key, params.generator, given, self.net, first=first, axis_name=axis_name)
        apart = adversarial.l1(made, target)
        if not self.plays:
            loss = self.l1_weight * apart
            return train.Pair(loss, jnp.float32(0)), ({"generator": loss, "l1": apart}, extra)

        def judged(images):
            seen = jnp.concatenate([given, images], -1) if self.judge.channels == 6 else images
            return patchgan.apply(params.discriminator, seen, self.judge, axis_name=axis_name)

        real, fake = judged(target), judged(made)
        loss = adversarial.generator_loss(fake, self.kind)
        if "l1" in self.objective:
            loss = loss + self.l1_weight * apart
        losses = train.Pair(loss, adversarial.discriminator_loss(real, fake, self.kind) / 2)
        terms = (*losses, apart, *adversarial.accuracies(real, fake, self.kind))
        return losses, (dict(zip(self.terms, terms, strict=True)), extra)

    def taken(self, key: jax.Array, params: object) -> object:
        """As they are."""
        return {"params": params}


def translate(key: jax.Array | None, variables: Mapping[str, object], images: jax.Array, spec: UnetSpec) -> jax.Array:
    """What a trained generator makes of pictures, each by its own moments.

    Args:
        key: Of the noise; None: none.
        variables: See `Game.taken`.
        images: `[N, H, W, 3]` sRGB in [0, 1], of any size.
        spec: Static.

    Returns:
        `[N, H, W, 3]` sRGB in [0, 1].
    """
    return _translated(key, variables, images, dataclasses.replace(spec, norm="instance"))


@functools.partial(jax.jit, static_argnames=("spec",))
def _translated(key, variables, images, spec):
    return jnp.clip((unet.apply(key, variables["params"], 2 * images - 1, spec) + 1) / 2, 0, 1)
