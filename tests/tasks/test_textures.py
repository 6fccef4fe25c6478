"""Several textures in one program against each alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import loop
from jnst.config import TextureConfig
from jnst.tasks.stylize import texture, textures

CONFIG = TextureConfig(layers="relu1_1,pool1", steps=3, print_every=1, scales="2", preconditioner="none")
SIZES = [(8, 6), (16, 12)]
LANES = [dataclasses.replace(CONFIG, seed=seed, tv_weight=weight) for seed, weight in ((1, 0.0), (2, 5.0))]


@pytest.fixture(scope="module")
def given(tiny):
    params = {name: tiny[name] for name in ("mean", "conv1_1", "conv1_2")}
    return params, [reference.smooth_picture(10, 9, seed=1), reference.smooth_picture(20, 18, seed=1)], SIZES


def _together(given, lanes=LANES, **more):
    return textures.prepare(jnp.stack([jax.random.key(lane.seed) for lane in lanes]), *given, lanes, **more)


@pytest.mark.slow
@pytest.mark.parametrize("tileable", [False, True])
def test_lanes_are_the_textures_that_they_would_be_alone(given, tileable):
    lanes = [dataclasses.replace(lane, tileable=tileable) for lane in LANES]
    together = loop.run(_together(given, lanes))
    assert together.image.shape == (2, 12, 16, 3)
    for lane, image in zip(lanes, together.image, strict=True):
        alone = loop.run(texture.prepare(jax.random.key(lane.seed), *given, lane))
        np.testing.assert_allclose(image, alone.image, atol=2e-3)  # float32 under vmap, along several steps
    assert np.abs(together.image[0] - together.image[1]).mean() > 0.02


@pytest.mark.slow
def test_they_go_on_from_every_step_to_the_same_bytes(given):
    found = {}

    def keep(record):
        snapshot = record.snapshot()
        found[record.step, record.size] = snapshot._replace(leaves=[np.array(leaf) for leaf in snapshot.leaves])

    whole = loop.run(_together(given), callback=keep)
    for step, size in ((2, (6, 8)), (3, (12, 16)), (5, (12, 16))):
        again = loop.run(_together(given, snapshot=found[step, size]))
        np.testing.assert_array_equal(again.image, whole.image)
        assert again.trace == whole.trace
