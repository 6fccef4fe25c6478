import numpy as np
import pytest

from images.files import noise
from jnst import images
from jnst.images import Picture


@pytest.mark.parametrize("size", [(1024, 683), (683, 1024), (5, 5), (3000, 2), (7, 6)])
@pytest.mark.parametrize("longest", [1, 16, 512, 4000])
def test_fit_gives_the_longest_side_and_keeps_the_shape(size, longest):
    width, height = images.fit(size, longest)
    assert max(width, height) == longest
    assert min(width, height) >= 1
    exact = min(size) * longest / max(size)
    assert abs(min(width, height) - max(1, exact)) <= 0.5


def test_fit_zero_keeps_the_size():
    assert images.fit((7, 9), 0) == (7, 9)


def lanczos_matrix(before, after):
    """`[after, before]` weights of Lanczos-3, widened by the scale where it shrinks."""
    scale = before / after
    width = max(scale, 1.0)
    centers = (np.arange(after)[:, None] + 0.5) * scale
    x = (np.arange(before) + 0.5 - centers) / width
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [(9, 13), (20, 40), (48, 31)])
def test_resize_is_lanczos_with_a_widened_filter(size):
    rgb = (noise(31, 20, 3) / 255).astype(np.float32)
    expected = np.einsum("yh,xw,hwc->yxc", lanczos_matrix(31, size[1]), lanczos_matrix(20, size[0]), rgb)
    found = images.resize(Picture(rgb), size).rgb
    assert found.shape == (size[1], size[0], 3)
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=2e-5)


def test_shrinking_a_checkerboard_gives_gray():
    board = np.repeat((np.indices((64, 64)).sum(0) % 2).astype(np.float32)[..., None], 3, 2)
    assert np.abs(images.resize(Picture(board), (16, 16)).rgb - 0.5).max() < 0.02


def test_resize_keeps_constants_and_does_nothing_at_its_own_size():
    picture = Picture(np.full((8, 8, 3), 0.3, np.float32), np.full((8, 8), 0.7, np.float32))
    assert images.resize(picture, (8, 8)) is picture
    larger = images.resize(picture, (20, 11))
    np.testing.assert_allclose(larger.rgb, np.full((11, 20, 3), 0.3), atol=1e-6)
    np.testing.assert_allclose(larger.alpha, np.full((11, 20), 0.7), atol=1e-6)


def test_hidden_colors_do_not_bleed_into_the_edge():
    rgb, alpha = np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), np.float32)
    rgb[:, :15], alpha[:, :15] = (1, 0.5, 0.5), 1  # opaque pink beside transparent black
    picture = Picture(rgb, alpha)
    expected = images.resize(Picture(picture.opaque()), (12, 12)).rgb
    np.testing.assert_allclose(images.resize(picture, (12, 12)).opaque(), expected, atol=0.1)  # lobes are clipped
