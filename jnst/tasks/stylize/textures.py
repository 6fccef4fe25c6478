"""Several textures in one program: lanes that differ in traced numbers, each as `texture` would make it alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnst import objective, ops
from jnst.config import ObjectiveSpec, TextureConfig
from jnst.loop import Prepared, restore
from jnst.network import prepared
from jnst.stages import make_stage
from jnst.tasks.stylize import parts, texture
from jnst.types import Image, Params, Snapshot, Targets, Terms

__all__ = ["Likeness", "prepare"]


@dataclasses.dataclass(frozen=True)
class Likeness:
    """What is minimized: how far an image's statistics are from the sample's. A `stages.Goal`."""

    spec: ObjectiveSpec

    def __call__(self, key: jax.Array, image: Image, shared: Any, own: Any) -> tuple[jax.Array, Terms]:
        """The loss of `[H, W, 3]` and its terms.

        Args:
            key: Not used.
            image: In [0, 1].
            shared: The network and the sample's `Targets`.
            own: The lane's `Weights`.
        """
        params, targets = shared
        return objective.style_objective(params, image, targets, own, self.spec)


def prepare(
    keys: jax.Array,
    params: Params,
    samples: Sequence[Image],
    sizes: Sequence[tuple[int, int]],
    lanes: Sequence[TextureConfig],
    *,
    padding: str = "zeros",
    standardize: bool = False,
    room: int | None = None,
    snapshot: Snapshot | None = None,
) -> Prepared:
    """Syntheses, their first scale compiled; pictures are `[lanes, H, W, 3]`.

    Args:
        keys: Of each lane's noise.
        params: Backbone.
        samples: The sample at every scale, `[h, w, 3]`.
        sizes: Width and height of every scale, from `texture.sizes_of`.
        lanes: Configs that differ in traced numbers (`config.TEXTURE_AXES`).
        padding: The backbone's; tileable textures have their own.
        standardize: Scale the backbone to unit variance on the sample first (random filters).
        room: Bytes that the device has left; None: not asked for.
        snapshot: Where a run was left that now goes on.

    Raises:
        InputError: there is not enough memory.
        ValueError: the snapshot is of another run.

    >>> from jnst import loop
    >>> from jnst.weights import random_backbone
    >>> lanes = [TextureConfig(layers="relu1_1", steps=2, scales="1", tv_weight=weight) for weight in (0.0, 1.0)]
    >>> params = random_backbone(0, ["relu1_1"]).params
    >>> sample = np.random.default_rng(0).uniform(size=(8, 8, 3)).astype(np.float32)
    >>> loop.run(prepare(jax.random.split(jax.random.key(0)), params, [sample], [(12, 9)], lanes)).image.shape
    (2, 9, 12, 3)
    """
    config, painting = lanes[0], lanes[0].painting()
    spec = parts.objective_spec(painting, "wrap" if config.tileable else padding)
    if standardize:
        params = texture.scaled(params, samples[-1], config, spec)
    dtype = parts.dtype_of(painting)
    samples = [jnp.asarray(sample, dtype) for sample in samples]
    net = parts.network(params, samples[-1], [], spec, precision=config.precision, standardize=False)
    optimizer, rates = parts.optimizer_config(painting), parts.rates(painting)
    own = jax.tree.map(lambda *each: jnp.stack(each), *(parts.weights(lane.painting()) for lane in lanes))

    def make(number):
        (width, height), sample = sizes[number], samples[number]
        style = objective.blend([parts.style_statistics(net, sample, spec)], jnp.ones(1, dtype))
        blank = jnp.full((height, width, 3), 0.5, dtype)

        def start():
            begun = lambda place, lane: parts.start(keys[place], blank, net["mean"], lane.painting(), init=None)  # noqa: E731
            return jnp.stack([begun(place, lane) for place, lane in enumerate(lanes)])

        def grown(canvas):
            larger = texture.enlarged(canvas, (height, width)) if config.tileable else None
            return jnp.clip(ops.resize(canvas, (height, width), "cubic") if larger is None else larger, 0, 1)

        return make_stage(
            keys,
            Likeness(spec),
            (prepared(net), Targets(content={}, style=style)),
            start,
            rates,
            optimizer,
            steps=config.steps,
            own=own,
            lanes=len(lanes),
            grow=(lambda state: jax.vmap(grown)(state.best_canvas)) if number else None,
            room=room,
        )

    number = snapshot.scale if snapshot else 0
    if number >= len(sizes):
        raise ValueError("a snapshot of a run with more scales")
    stage = make(number)
    width, height = sizes[-1]
    resized = jax.vmap(lambda canvas: ops.resize(canvas, (height, width), "cubic"))
    run = Prepared(
        stage=stage,
        number=number,
        counts=(config.steps,) * len(sizes),
        sizes=tuple((height, width) for width, height in sizes),
        make=make,
        begin=stage.begin,
        finish=lambda canvas: np.clip(resized(jnp.asarray(canvas)), 0, 1),
        config=config,
        summands=("style", "tv"),
        trace=[],
    )
    return restore(run, snapshot) if snapshot else run
