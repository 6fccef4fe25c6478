import jax
import numpy as np
import pytest
from reference import smooth_picture

from jnst import tiles
from jnst.config import StyleNetSpec
from jnst.nets import stylenet
from jnst.tasks.fast import painting, tiled

SMALL = StyleNetSpec(widths=(3, 4), blocks=1, kernel=3)


def _variables(spec, dtype, seed=0):
    """A network whose pictures differ from the photo, and lie between black and white."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise, name = rng.standard_normal(leaf.shape), path[-1].key
        if name in ("scale", "variance"):
            return (0.5 + np.abs(noise)).astype(dtype)
        return ((0.1 if name == "last" else 1) * noise / np.sqrt(np.prod(leaf.shape[:-1]) + 9)).astype(dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(lambda: stylenet.init(jax.random.key(0), spec)))


def _problem(size, spec, dtype=np.float64):
    """Variables, a photo with detail at every scale, a mix."""
    noise = 0.05 * np.random.default_rng(1).standard_normal((*size, 3))
    image = np.clip(smooth_picture(*size, seed=3) + noise, 0, 1).astype(dtype)
    return _variables(spec, dtype), image, np.full(spec.styles, 1 / spec.styles, dtype)


def _both(size, spec, tile, dtype=np.float64, **options):
    """The photo, and the picture whole and in tiles."""
    variables, image, mix = _problem(size, spec, dtype)
    whole = np.asarray(painting.paint(variables, image[None], mix, spec, **options))[0]
    return image, whole, tiled.paint_tiled(variables, image, mix, spec, tile=tile, **options)


def _tiling(size, spec, tile):
    return tiles.cut(size, tile, halo=tiled.halo_of(spec), stride=2 ** (len(spec.widths) - 1))


# Size, tile, network. Sides that are odd once or twice halved, a strip that is cut one way, one level alone, four.
CASES = {
    "instance": ((203, 157), 64, StyleNetSpec(widths=(3, 4, 5), blocks=1)),
    "batch": ((203, 157), 64, StyleNetSpec(widths=(3, 4, 5), blocks=1, norm="batch", border="replicate", head="tanh")),
    "transpose": ((67, 90), 24, StyleNetSpec(widths=(3, 4, 5), blocks=1, kernel=3, upsample="transpose")),
    "two levels": ((51, 86), 16, StyleNetSpec(widths=(3, 4), blocks=2, kernel=9, border="replicate", head="residual")),
    "two styles": ((51, 86), 16, StyleNetSpec(widths=(3, 4), blocks=0, styles=2, upsample="transpose", norm="batch")),
    "strip": ((10, 90), 24, StyleNetSpec(widths=(3, 4), blocks=1)),
    "one level": ((21, 40), 8, StyleNetSpec(widths=(3,), blocks=1)),
    "four levels": ((70, 99), 16, StyleNetSpec(widths=(2, 2, 3, 3), blocks=1, kernel=1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_tiles_are_the_whole_picture(x64, case):
    size, tile, spec = CASES[case]
    image, whole, ours = _both(size, spec, tile)
    assert _tiling(size, spec, tile).total > 1
    assert np.mean((whole > 0) & (whole < 1)) > 0.8  # clipping would hide a difference
    assert np.abs(whole - image).max() > 0.05
    np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["instance", "batch"])
def test_float32_is_right_to_a_hundred_thousandth_and_shows_no_seam(case):
    size, tile, spec = CASES[case]
    _, whole, ours = _both(size, spec, tile, np.float32)
    assert ours.dtype == np.float32
    difference = np.abs(ours - whole)
    assert difference.max() < 1e-5
    at_border = np.zeros(size, bool)
    for axis, (side, length) in enumerate(zip(_tiling(size, spec, tile).tile, size, strict=True)):
        for border in range(side, length, side):
            np.moveaxis(at_border, axis, 0)[border - 1 : border + 1] = True
    assert at_border.any()
    assert difference[at_border].mean() <= 1.2 * difference[~at_border].mean()


@pytest.mark.slow
def test_a_small_picture_is_one_tile():
    _, whole, ours = _both((9, 6), SMALL, 64, np.float32)
    np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["instance", "two styles", "four levels"])
def test_a_smaller_halo_would_show(x64, case, monkeypatch):
    size, tile, spec = CASES[case]
    enough = tiled.halo_of(spec)
    monkeypatch.setattr(tiled, "halo_of", lambda spec: enough - 2 ** (len(spec.widths) - 1))
    _, whole, ours = _both(size, spec, tile)
    assert np.abs(ours - whole).max() > 1e-6


@pytest.mark.slow
def test_strength_and_colors_are_as_of_the_whole(x64):
    options = {"strength": 0.4, "preserve_color": "luminance"}
    image, whole, ours = _both((40, 30), SMALL, 16, **options)
    np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-7)  # strength itself is float32
    _, plain, _ = _both((40, 30), SMALL, 16)
    assert np.abs(whole - plain).max() > 0.02


@pytest.mark.slow
def test_each_pass_is_one_program_and_progress_counts_tiles(monkeypatch):
    spec, traced = StyleNetSpec(widths=(3, 4, 5), blocks=1, kernel=3, head="tanh"), []
    for name in ("down", "middle", "up"):
        real = getattr(stylenet, name)
        counted = lambda *a, real=real, name=name, **named: traced.append(name) or real(*a, **named)  # noqa: E731
        monkeypatch.setattr(stylenet, name, counted)
    variables, image, mix = _problem((103, 90), spec, np.float32)
    told = []
    tiled.paint_tiled(variables, image, mix, spec, tile=32, progress=lambda *numbers: told.append(numbers))
    assert traced == ["down"] * 3 + ["middle"] + ["up"] * 3
    total = tiled.passes_of(spec) * _tiling(image.shape[:2], spec, 32).total
    assert told == [(number + 1, total) for number in range(total)]
    assert total == 6 * 12


def test_moments_of_parts_join_to_those_of_all(rng):
    x = (1000 + rng.standard_normal((60, 5))).astype(np.float32)
    parts = []
    for part in np.split(x, [7, 8, 40]):
        mean = part.astype(float).mean(0)
        parts.append((len(part), mean.astype(np.float32), ((part - mean) ** 2).sum(0).astype(np.float32)))
    mean, variance = tiled._joined(parts)
    np.testing.assert_allclose(mean[0, 0, 0], x.astype(float).mean(0), rtol=1e-7)
    np.testing.assert_allclose(variance[0, 0, 0], x.astype(float).var(0), rtol=1e-4)
    assert mean.dtype == variance.dtype == np.float32


@pytest.mark.parametrize(
    ("widths", "kernel", "halo"), [((3,), 1, 0), ((3,), 5, 2), ((3, 4), 3, 2), ((3, 4), 9, 6), ((3, 4, 5), 13, 12)]
)
def test_a_halo_is_what_the_network_sees_rounded_up(widths, kernel, halo):
    assert tiled.halo_of(StyleNetSpec(widths=widths, kernel=kernel)) == halo
