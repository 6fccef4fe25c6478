"""CycleGAN as a game (Zhu et al. 2017, https://arxiv.org/abs/1703.10593): two generators that translate between two
kinds of pictures of which no two belong together, against a discriminator of each kind; and their use. How it is
trained is in `jnst.games`."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jnst import adversarial, games, image_pool, train
from jnst.config import PatchSpec, ResnetSpec
from jnst.nets import patchgan, resnet
from jnst.types import Terms

__all__ = ["TERMS", "Game", "translate"]

TERMS = ("generator", "discriminator", "cycle", "identity", "real", "fake")
"""Losses of both generators and of both discriminators, two parts of the former, before their weights, and accuracies
over patches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Game:
    """See `games.Game`; a batch is pictures of the kind A, and of the kind B. Of the parameters, the generators' are
    `AtoB` and `BtoA`, the discriminators' `A` and `B`, by the kind that they know."""

    net: ResnetSpec
    judge: PatchSpec
    size: int
    """Side of the pictures."""
    kind: str = "lsgan"
    """One of `config.ADVERSARIAL_LOSSES`."""
    cycle_weight: float = 10.0
    identity_weight: float = 0.5
    """In parts of `cycle_weight`."""
    pool: int = 50
    """Places of each image pool; 0: none."""

    @property
    def terms(self) -> tuple[str, ...]:
        """`TERMS`."""
        return TERMS

    def begin(self, key: jax.Array) -> tuple[train.Pair, train.Pair]:
        """Of all four networks; the discriminators have their pools beside."""
        keys = jax.random.split(key, 4)
        generators = {name: resnet.init(own, self.net) for name, own in zip(("AtoB", "BtoA"), keys[:2], strict=True)}
        judges = {name: patchgan.init(own, self.judge) for name, own in zip("AB", keys[2:], strict=True)}
        pools = {name: image_pool.init(self.pool, self.size) for name in "AB"} if self.pool else {}
        return train.Pair(generators, judges), train.Pair({}, pools)

    def loss(
        self,
        key: jax.Array,
        params: train.Pair,
        extra: train.Pair,
        batch: tuple[jax.Array, jax.Array],
        *,
        axis_name: str | None = None,
    ) -> tuple[train.Pair, tuple[Terms, train.Pair]]:
        """Of all networks, on pictures `[B, S, S, 3]` of each kind. The discriminators' is halved, as in the paper."""
        real = dict(zip("AB", batch, strict=True))
        made, same = self._first_pass(params.generator, real, axis_name)
        back = {
            to: resnet.apply(params.generator[way], made[of], self.net, axis_name=axis_name)
            for to, of, way in (("A", "B", "BtoA"), ("B", "A", "AtoB"))
        }
        judged = lambda name, images: patchgan.apply(  # noqa: E731
            params.discriminator[name], images, self.judge, axis_name=axis_name
        )
        fakes = {name: judged(name, made[name]) for name in "AB"}
        pools, shown = self._shown(key, extra.discriminator, made, axis_name)
        # Without a pool what is shown is what was made.
        seen = {name: judged(name, shown[name]) if pools else fakes[name] for name in "AB"}
        reals = {name: judged(name, real[name]) for name in "AB"}

        total = lambda each: sum(each[name] for name in "AB")  # noqa: E731
        cycle = total({name: adversarial.l1(back[name], real[name]) for name in "AB"})
        alike = total({name: adversarial.l1(same[name], real[name]) for name in "AB"}) if same else jnp.float32(0)
        generator = total({name: adversarial.generator_loss(fakes[name], self.kind) for name in "AB"})
        generator = generator + self.cycle_weight * (cycle + self.identity_weight * alike)
        apart = total({name: adversarial.discriminator_loss(reals[name], seen[name], self.kind) for name in "AB"}) / 2
        right = [adversarial.accuracies(reals[name], seen[name], self.kind) for name in "AB"]
        shares = [sum(each) / 2 for each in zip(*right, strict=True)]
        terms = dict(zip(TERMS, (generator, apart, cycle, alike, *shares), strict=True))
        return train.Pair(generator, apart), (terms, train.Pair(extra.generator, pools))

    def _first_pass(self, generators, real, axis_name):
        """What is made of the pictures, by kind; and what of those that are of the target's kind already."""
        made, same = {}, {}
        for to, of, way in (("B", "A", "AtoB"), ("A", "B", "BtoA")):
            ours = functools.partial(resnet.apply, generators[way], spec=self.net, axis_name=axis_name)
            if not self.identity_weight:
                made[to] = ours(real[of])
            elif self.net.norm == "instance":  # each by itself whatever stands beside it: one pass
                made[to], same[to] = jnp.split(ours(jnp.concatenate([real[of], real[to]])), 2)
            else:
                made[to], same[to] = ours(real[of]), ours(real[to])
        return made, same

    def _shown(self, key, pools, made, axis_name):
        """The pools, and what the discriminators are shown. All devices have one pool, which sees the whole batch."""
        if not self.pool:
            return pools, made
        found, shown = {}, {}
        for number, name in enumerate("AB"):
            whole = games.gather(jax.lax.stop_gradient(made[name]), axis_name)
            found[name], all_shown = image_pool.query(jax.random.fold_in(key, number), pools[name], whole)
            count = len(made[name])
            at = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
            shown[name] = jax.lax.dynamic_slice_in_dim(all_shown, at, count)
        return found, shown

    def taken(self, key: jax.Array, params: object) -> object:
        """As they are, by direction."""
        return {way: {"params": params[way]} for way in ("AtoB", "BtoA")}


def translate(variables: Mapping[str, object], images: jax.Array, spec: ResnetSpec) -> jax.Array:
    """What a trained generator makes of pictures, each by its own moments.

    Args:
        variables: Of one direction, see `Game.taken`.
        images: `[N, H, W, 3]` sRGB in [0, 1], of any size.
        spec: Static.

    Returns:
        `[N, H, W, 3]` sRGB in [0, 1].
    """
    return _translated(variables, images, dataclasses.replace(spec, norm="instance"))


@functools.partial(jax.jit, static_argnames=("spec",))
def _translated(variables, images, spec):
    return jnp.clip((resnet.apply(variables["params"], 2 * images - 1, spec) + 1) / 2, 0, 1)
