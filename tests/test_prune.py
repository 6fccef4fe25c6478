import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst.config import PADDINGS
from jnst.nets import vgg
from jnst.prune import prune, select

pytestmark = pytest.mark.slow

CONVOLUTIONS = ("conv1_1", "conv1_2", "conv2_1")
MEAN = np.array([0.5, 0.45, 0.4])


def _mixed(rng, channels=6, factors=6, places=500):
    """`[places, channels]` that depend on each other."""
    return (
        rng.standard_normal((places, factors))
        @ rng.standard_normal((factors, channels))
        * rng.uniform(0.2, 5, channels)
    )


def _covariance(data):
    return np.cov(data, rowvar=False, ddof=0)


# ---- Which channels


def test_equals_a_greedy_search_by_least_squares(rng):
    """The same choice by brute force: each channel over the root of its deviation, all but the chosen regressed."""
    for _ in range(5):
        data = _mixed(rng)
        data = data - data.mean(0)
        scaled = data / (data.var(0) + 1e-3 * data.var(0).mean()) ** 0.25
        chosen = []
        for _ in range(4):
            left = {}
            for channel in set(range(6)) - set(chosen):
                some = scaled[:, [*chosen, channel]]
                left[channel] = np.sum((scaled - some @ np.linalg.lstsq(some, scaled, rcond=None)[0]) ** 2)
            chosen.append(min(left, key=left.get))
        assert select(_covariance(data), 4).tolist() == chosen


def test_a_duplicate_is_chosen_last(rng):
    data = rng.standard_normal((300, 3)) * [1, 2, 3]
    data = np.c_[data, data[:, 2]]
    found = select(_covariance(data), 4).tolist()
    assert sorted(found[:3]) in ([0, 1, 2], [0, 1, 3])
    assert sorted(found) == [0, 1, 2, 3]


def test_a_sum_of_the_others_leaves_one_of_them_nothing_to_tell(rng):
    """However loud channels are: once three of four dependent ones are chosen, an independent quiet one comes next."""
    data = 10 * rng.standard_normal((300, 3))
    data = np.c_[data, data.sum(1), 0.1 * rng.standard_normal(300)]
    assert 4 in select(_covariance(data), 4)


def test_a_channel_that_tells_many_goes_before_a_louder_one_that_tells_none(rng):
    common = rng.standard_normal((400, 1))
    data = np.c_[1.5 * rng.standard_normal(400), common + 0.3 * rng.standard_normal((400, 4)), common]
    assert select(_covariance(data), 1).tolist() == [5]


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_a_larger_count_only_adds_and_the_unit_does_not_matter(rng, scale):
    covariance = _covariance(_mixed(rng))
    whole = select(scale * covariance, 6).tolist()
    assert sorted(whole) == list(range(6))
    for count in range(1, 6):
        assert select(covariance, count).tolist() == whole[:count]


def test_a_zero_channel_comes_last_and_zeros_alone_are_no_trouble(rng):
    data = np.insert(rng.standard_normal((100, 3)), 1, 0, 1)
    assert select(_covariance(data), 4).tolist()[-1] == 1
    with np.errstate(all="raise"):
        assert sorted(select(np.zeros((4, 4)), 3).tolist()) == [0, 1, 2]


# ---- The narrow network


@pytest.fixture(scope="module")
def images():
    """Noise: neighbors differ, so that every tap of a kernel can be told."""
    return list(np.random.default_rng(4).random((2, 24, 24, 3)).astype(np.float32))


def _wide(params, images, padding, pooling="max"):
    found = [reference.features(params, image, CONVOLUTIONS, pooling, padding) for image in images]
    return {name: [maps[name] for maps in found] for name in CONVOLUTIONS}


def _prune(wide, images, widths, pooling="max", padding="zeros"):
    names = dict(zip(CONVOLUTIONS, widths, strict=True))
    return prune(images, wide, names, MEAN, pooling=pooling, padding=padding)


def _rectified(params, image, padding, pooling="max"):
    layers = ["relu" + name[4:] for name in CONVOLUTIONS]
    return vgg.features(params, jnp.asarray(image), layers, pooling=pooling, padding=padding)


@pytest.mark.parametrize("padding", PADDINGS)
def test_as_wide_as_the_wide_one_it_is_the_same_but_for_order_and_scale(tiny, images, padding):
    wide = _wide(tiny, images, padding)
    narrow = _prune(wide, images, (4, 4, 5), padding=padding)
    np.testing.assert_array_equal(narrow["mean"], MEAN.astype(np.float32))
    fresh = np.random.default_rng(9).random((24, 24, 3)).astype(np.float32)  # a picture that it was not fitted to
    truth = _wide(tiny, [fresh], padding)
    for name, maps in _rectified(narrow, fresh, padding).items():
        goal = np.maximum(truth["conv" + name[4:]][0], 0).reshape(-1, maps.shape[-1])
        ours = np.asarray(maps).reshape(goal.shape)
        # Of unit vectors, the one that comes closest.
        cosines = (ours / np.linalg.norm(ours, axis=0)).T @ (goal / np.linalg.norm(goal, axis=0))
        order = cosines.argmax(1)
        assert sorted(order) == list(range(goal.shape[1])), name
        scale = np.sum(ours * goal[:, order]) / np.sum(goal**2)
        np.testing.assert_allclose(ours / scale, goal[:, order], rtol=0, atol=0.02 * goal.max(), err_msg=name)


@pytest.mark.parametrize(("padding", "pooling"), [("zeros", "avg"), ("reflect", "max"), ("replicate", "avg")])
def test_widths_are_respected_and_each_layer_has_unit_deviation(tiny, images, padding, pooling):
    narrow = _prune(_wide(tiny, images, padding), images, (2, 3, 4), pooling, padding)
    shapes = {name: narrow[name]["kernel"].shape for name in CONVOLUTIONS}
    assert shapes == {"conv1_1": (3, 3, 3, 2), "conv1_2": (3, 3, 2, 3), "conv2_1": (3, 3, 3, 4)}
    found = [_rectified(narrow, image, padding, pooling) for image in images]
    for name in found[0]:
        # Over the places of each picture, the mean over channels and pictures.
        variance = np.mean([np.var(np.asarray(maps[name], np.float64), (0, 1)) for maps in found])
        np.testing.assert_allclose(variance, 1, rtol=1e-3, err_msg=name)


def test_kernels_come_as_close_as_least_squares_can(tiny, images):
    """The first layer sees what the wide one sees: its kept kernels are the wide one's, times one scale."""
    narrow = _prune(_wide(tiny, images, "zeros"), images, (2, 2, 2))
    ours = np.asarray(narrow["conv1_1"]["kernel"]).reshape(27, 2)
    goal = tiny["conv1_1"]["kernel"].reshape(27, 4)
    cosines = (ours / np.linalg.norm(ours, axis=0)).T @ (goal / np.linalg.norm(goal, axis=0))
    np.testing.assert_allclose(cosines.max(1), 1, atol=1e-3)


def test_a_picture_without_contrast_and_a_dead_layer_leave_finite_numbers(tiny):
    images = [np.full((16, 16, 3), 0.5, np.float32)]
    wide = _wide(tiny, images, "replicate")
    wide["conv1_2"] = [-1 - np.abs(maps) for maps in wide["conv1_2"]]  # all of it below the rectifier
    narrow = _prune(wide, images, (2, 2, 2), padding="replicate")
    for name in CONVOLUTIONS:
        assert all(np.isfinite(narrow[name][part]).all() for part in ("kernel", "bias")), name


def test_equal_inputs_give_equal_bytes(tiny, images):
    wide = _wide(tiny, images, "zeros")
    one, other = (_prune(wide, images, (2, 3, 4)) for _ in range(2))
    for name in CONVOLUTIONS:
        for part in ("kernel", "bias"):
            assert np.asarray(one[name][part]).tobytes() == np.asarray(other[name][part]).tobytes()
