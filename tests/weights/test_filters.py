import numpy as np

from jnst import weights
from weights import checks


def test_random_filters_are_orthogonal_within_their_sets():
    params = weights.random_backbone(0, ["conv2_1"]).params
    first = params["conv1_1"]["kernel"].reshape(27, 64)
    for columns in np.array_split(first, 3, axis=1):  # 26 directions for 64 filters: three sets
        np.testing.assert_allclose(columns.T @ columns, np.eye(columns.shape[1]), atol=1e-5)
    for name, width in (("conv1_2", 64), ("conv2_1", 128)):
        columns = params[name]["kernel"].reshape(-1, width)
        np.testing.assert_allclose(columns.T @ columns, np.eye(width), atol=1e-5)


def test_random_filters_sum_to_zero_and_have_no_bias():
    backbone = weights.random_backbone(0, ["conv2_1"])
    for name in backbone.convolutions:
        assert abs(backbone.params[name]["kernel"].sum((0, 1, 2))).max() < 1e-4
        assert not backbone.params[name]["bias"].any()
    assert backbone.standardize


def test_random_filters_follow_from_the_seed_alone():
    first, again, other = (weights.random_backbone(seed, ["conv1_2"]) for seed in (1, 1, 2))
    assert first.sha256 == again.sha256 != other.sha256
    checks.assert_equal_params(first.params, again.params)
    for name in first.convolutions:
        assert np.abs(first.params[name]["kernel"] - other.params[name]["kernel"]).max() > 0.1


def test_depth_changes_no_random_filter():
    shallow, deep = (weights.random_backbone(3, [layer]) for layer in ("relu1_1", "conv2_2"))
    assert shallow.convolutions == ("conv1_1",)
    assert deep.convolutions == ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    np.testing.assert_array_equal(shallow.params["conv1_1"]["kernel"], deep.params["conv1_1"]["kernel"])
