"""Descriptors and feature maps against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst.tasks import explore

LAYERS = ("conv1_2", "relu2_1")


def by_hand(maps):
    """The descriptor in NumPy float64."""
    parts = []
    for one in maps:
        mean = np.asarray(one, np.float64).mean((0, 1))
        root = np.sign(mean) * np.sqrt(np.abs(mean))
        parts.append(root / np.linalg.norm(root))
    whole = np.concatenate(parts)
    return whole / np.linalg.norm(whole)


@pytest.mark.slow
def test_a_descriptor_is_what_numpy_makes_of_the_reference_network(tiny, pictures):
    (picture, _), pooling = pictures, "avg"
    maps = reference.features(tiny, picture.astype(np.float64), LAYERS, pooling, "reflect")
    found = explore.describe(tiny, picture[None], LAYERS, pooling=pooling, padding="reflect")
    np.testing.assert_allclose(found[0], by_hand([maps[layer] for layer in LAYERS]), atol=2e-6)


def test_each_picture_of_a_block_is_described_by_itself(tiny, rng):
    block = rng.random((3, 16, 16, 3), np.float32)
    found = np.asarray(explore.describe(tiny, block, ("relu2_1",)))
    assert found.shape == (3, 5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    other = np.array(block)
    other[1] = 0.5
    again = np.asarray(explore.describe(tiny, other, ("relu2_1",)))
    np.testing.assert_array_equal(again[[0, 2]], found[[0, 2]])
    assert not np.array_equal(again[1], found[1])


@pytest.mark.slow
def test_a_descriptor_does_not_see_scale_or_where_things_are(rng):
    maps = [rng.standard_normal((4, 6, 5)), rng.random((2, 3, 7))]
    found = explore.descriptor([jnp.asarray(one) for one in maps])
    np.testing.assert_allclose(found, by_hand(maps), atol=1e-6)
    moved = [np.roll(7 * maps[0], (1, 2), (0, 1)), 0.01 * maps[1][::-1, ::-1]]
    np.testing.assert_allclose(explore.descriptor([jnp.asarray(one) for one in moved]), found, atol=1e-6)


@pytest.mark.slow
def test_layers_count_alike():
    loud, quiet = jnp.ones((2, 2, 3)), 1e-3 * jnp.ones((2, 2, 8))
    found = explore.descriptor([loud, quiet])
    np.testing.assert_allclose([np.sum(found[:3] ** 2), np.sum(found[3:] ** 2)], 0.5, rtol=1e-5)


def test_a_silent_layer_has_no_direction_and_no_nan():
    np.testing.assert_array_equal(explore.descriptor([jnp.zeros((2, 2, 3))]), np.zeros(3))


def test_feature_maps_are_the_networks(tiny, pictures):
    _, picture = pictures
    found = explore.feature_maps(tiny, jnp.asarray(picture), LAYERS, pooling="avg", padding="zeros")
    expected = reference.features(tiny, picture.astype(np.float64), LAYERS, "avg", "zeros")
    for layer in LAYERS:
        np.testing.assert_allclose(found[layer], expected[layer], atol=1e-5)
    assert float(found["conv1_2"].min()) < 0 <= float(found["relu2_1"].min())


@pytest.mark.parametrize("scale", [0.5, 20])
def test_random_filters_of_another_scale_describe_alike(scale, rng):
    from jnst.weights import random_backbone

    params = random_backbone(0, ["relu1_2"]).params
    scaled = {
        name: layer if name == "mean" else {**layer, "kernel": scale * layer["kernel"]}
        for name, layer in params.items()
    }
    block = rng.random((2, 8, 8, 3), np.float32)
    first, second = (explore.describe(one, block, ("relu1_2",)) for one in (params, scaled))
    np.testing.assert_allclose(second, first, atol=1e-6)
