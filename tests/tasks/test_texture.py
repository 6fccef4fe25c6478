"""Texture synthesis: its residuals against NumPy, its loss, its sizes, and that a tileable picture has no seam."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import reference

from jnst import loop
from jnst.config import TextureConfig, check_texture, parse_layers
from jnst.errors import InputError
from jnst.tasks.stylize import texture as task
from jnst.weights import random_backbone

KEY = jax.random.key(1)
LAYERS = "conv1_1,relu1_2:0.25,pool1:0.5"
BASE = {"image": "a.png", "output": "b.png", "layers": LAYERS, "print_every": 0, "padding": "zeros"}


def _config(**options):
    config = TextureConfig(**{**BASE, **options})
    check_texture(config)
    return config


def _run(params, sample, config, *, callback=None, **more):
    sizes = task.sizes_of(config, 4)
    samples = [sample] * len(sizes)
    return loop.run(task.prepare(KEY, params, samples, sizes, config, **more), callback=callback)


def _wide(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def _features(params, image, padding):
    """Of the layers above in NumPy; a torus is the middle of nine copies, since zeros do not reach it from there."""
    height, width, _ = image.shape
    torus = padding == "wrap"
    found = reference.features(
        params,
        np.tile(image, (3, 3, 1)) if torus else image,
        ("conv1_1", "relu1_2"),
        "avg",
        "zeros" if torus else padding,
    )
    if torus:
        found = {name: map_[height : 2 * height, width : 2 * width] for name, map_ in found.items()}
    return {**found, "pool1": reference.pool(found["relu1_2"], "avg")}


def _grams(params, image, padding):
    return {name: reference.gram(map_, "relative") for name, map_ in _features(params, image, padding).items()}


def _residuals(params, image, sample, padding):
    found, target = _grams(params, image, padding), _grams(params, sample, "reflect" if padding == "wrap" else padding)
    return {name: math.sqrt(np.sum((found[name] - target[name]) ** 2) / np.sum(target[name] ** 2)) for name in found}


# ---- Residuals


@pytest.mark.slow
@pytest.mark.parametrize("tileable", [False, True])
def test_the_residuals_are_numpys(x64, tiny, pictures, tileable):
    sample, image = _wide((pictures[1], pictures[0]))
    config = _config(size="16", tileable=tileable, precision="float64", padding="auto")
    found = task.gram_residuals(tiny, image, sample, config)
    expected = _residuals(tiny, image, sample, "wrap" if tileable else "zeros")
    assert tuple(found) == parse_layers("layers", LAYERS)[0]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10)
        assert value > 0.05


@pytest.mark.slow
def test_the_sample_itself_leaves_nothing(tiny, pictures):
    assert set(task.gram_residuals(tiny, pictures[0], pictures[0], _config(size="16")).values()) == {0.0}


@pytest.mark.slow
def test_of_a_picture_in_tiles_they_are_the_same(x64, tiny, pictures):
    image, sample = reference.smooth_picture(33, 40, 3), pictures[1]
    whole, cut = (
        task.gram_residuals(tiny, image, sample, _config(size="40x33", tile=tile, precision="float64"))
        for tile in ("0", "16")
    )
    for name, value in whole.items():
        np.testing.assert_allclose(cut[name], value, rtol=1e-9)


def test_of_a_sample_that_no_filter_sees_they_are_numbers(tiny):
    params = {name: value if name == "mean" else {**value, "bias": 0 * value["bias"]} for name, value in tiny.items()}
    flat = np.broadcast_to(tiny["mean"], (8, 8, 3))
    config = _config(size="8", layers="pool1")
    assert task.gram_residuals(params, flat, flat, config) == {"pool1": 0.0}
    assert math.isfinite(task.gram_residuals(params, flat + 0.1, flat, config)["pool1"])


# ---- The loss


@pytest.fixture(scope="module", params=[False, True], ids=["trained", "random"])
def run(request, tiny, pictures):
    """A run of two scales, its pictures on the way, and whether its filters are scaled on the sample."""
    config, seen = _config(size="24x16", scales="2", steps=12, history=5), {}
    result = _run(
        tiny,
        pictures[1],
        config,
        standardize=request.param,
        callback=lambda record: seen.update({(record.step, record.size): (record.image(), dict(record.terms))}),
    )
    return config, result, seen, {"standardize": request.param}


@pytest.mark.slow
def test_the_loss_is_that_of_the_residuals(run, tiny, pictures):
    """Both see the same network: `relative` divides by the target, so that a layer's term is its residual squared."""
    config, result, seen, more = run
    weights = {"conv1_1": 1 / 3, "relu1_2": 0.25, "pool1": 0.5}
    for place in ((12, (16, 24)), (18, (16, 24)), (24, (16, 24))):
        image, terms = seen[place]
        found = task.gram_residuals(tiny, image, pictures[1], config, **more)
        expected = 100 * sum(weights[name] * value**2 for name, value in found.items())
        np.testing.assert_allclose(terms["style"], expected, rtol=2e-3)
        assert terms["total"] == terms["style"]


def test_the_loss_is_numpys(run, tiny, pictures):
    config, result, seen, more = run
    if more["standardize"]:
        pytest.skip("the reference has the trained filters")
    image, terms = seen[24, (16, 24)]
    weights = {"conv1_1": 1 / 3, "relu1_2": 0.25, "pool1": 0.5}
    found, target = (_grams(tiny, picture, "zeros") for picture in _wide((image, pictures[1])))
    parts = {name: reference.style_loss(found[name], target[name], "relative") for name in found}
    np.testing.assert_allclose(terms["style"], 100 * sum(weights[name] * parts[name] for name in parts), rtol=2e-3)


def test_residuals_fall_and_sizes_are_those_asked_for(run, tiny, pictures):
    config, result, seen, more = run
    assert result.image.shape == (16, 24, 3)
    assert (result.image.min() >= 0, result.image.max() <= 1) == (True, True)
    assert [(row["step"], row["size"]) for row in result.trace] == [(0, 12), (12, 12), (12, 24), (24, 24)]
    before = task.gram_residuals(tiny, seen[12, (16, 24)][0], pictures[1], config, **more)
    after = task.gram_residuals(tiny, result.image, pictures[1], config, **more)
    assert all(after[name] < 0.7 * before[name] for name in before)


def test_nothing_is_said_of_a_content(run):
    _, result, _, _ = run
    assert all(row.keys() == {"step", "total", "style", "tv", "size"} for row in result.trace)


# ---- Sizes


@pytest.mark.parametrize(
    ("size", "scales", "tileable", "least", "expected"),
    [
        ("64", "1", False, 16, [(64, 64)]),
        ("64", "3", False, 16, [(16, 16), (32, 32), (64, 64)]),
        ("64", "8", False, 16, [(16, 16), (32, 32), (64, 64)]),
        ("96x33", "2", False, 16, [(48, 16), (96, 33)]),
        ("96x31", "3", False, 16, [(48, 16), (96, 31)]),
        ("17", "2", False, 16, [(17, 17)]),
        ("96x64", "2", True, 2, [(48, 32), (96, 64)]),
        ("96x48", "3", True, 2, [(96, 48)]),  # half of it is no multiple of 16
    ],
)
def test_the_scales(size, scales, tileable, least, expected):
    config = TextureConfig(size=size, scales=scales, tileable=tileable, layers="pool4")
    assert task.sizes_of(config, least) == expected


@pytest.mark.parametrize(("layers", "stride"), [("conv1_1", 1), ("pool1", 2), ("relu2_1,conv1_1", 2), ("pool4", 16)])
def test_the_stride(layers, stride):
    assert TextureConfig(layers=layers).stride == stride


BAD = {
    "size is a word": ({"size": "large"}, "--size=large: expected a side in pixels, or width x height"),
    "size of nothing": ({"size": "0"}, "--size=0: expected"),
    "side of nothing": ({"size": "64x0"}, "--size=64x0: expected"),
    "half a size": ({"size": "64x"}, "--size=64x: expected"),
    "three sides": ({"size": "1x2x3"}, "--size=1x2x3: expected"),
    "negative": ({"size": "-5"}, "--size=-5: expected"),
    "huge": ({"size": "65536"}, "--size=65536: expected"),
    "tileable, no multiple": (
        {"size": "64x40", "tileable": True, "layers": "pool4", "padding": "auto"},
        "--size=64x40: expected multiples of 16 with --tileable",
    ),
    "tileable, padded": ({"size": "64", "tileable": True}, "--padding=zeros: a tileable texture"),
    "tileable, in tiles": ({"size": "64", "tileable": True, "padding": "auto", "tile": "32"}, "--tile=32: a tileable"),
    "tile too small": ({"tile": "8"}, "--tile=8: expected auto, 0, or a whole number from 16"),
    "unknown layer": ({"layers": "relu9_9"}, "--layers=relu9_9"),
    "no layer": ({"layers": ""}, "--layers="),
    "nine scales": ({"scales": "9"}, "--scales=9: expected one of 1, 2, 3"),
    "no image": ({"image": ""}, "--image is missing"),
    "no output": ({"output": ""}, "--output is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_by_name(name):
    options, words = BAD[name]
    with pytest.raises(InputError, match=f"^{words}"):
        _config(**options)


@pytest.mark.parametrize("size", ["64", "64X48", "1", "65535x1"])
def test_sizes_that_are_fine(size):
    _config(size=size)


def test_patches_need_no_multiples():
    _config(size="50x51", tileable=True, method="patches", layers="pool4")


# ---- A torus


@pytest.mark.slow
def test_a_rolled_texture_costs_the_same_on_a_torus_alone(x64, tiny, pictures):
    image, sample = _wide((reference.smooth_picture(16, 24, 4), pictures[1]))
    costs = []
    for tileable in (True, False):
        config = _config(size="24x16", tileable=tileable, precision="float64", padding="auto")
        found = [
            task.gram_residuals(tiny, np.roll(image, shift, (0, 1)), sample, config)
            for shift in ((0, 0), (config.stride, 0), (0, -3 * config.stride), (6, 10))
        ]
        costs.append([[one[name] / found[0][name] - 1 for name in one] for one in found[1:]])
    assert np.abs(costs[0]).max() < 1e-12
    assert np.abs(costs[1]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 12), (6, 9), (4, 6)])
def test_a_torus_is_enlarged_over_its_edges(x64, rng, size):
    image = rng.uniform(size=(4, 6, 3))
    found = task.enlarged(image, size)
    steps = size[0] // 2, size[1] // 3
    np.testing.assert_allclose(
        task.enlarged(np.roll(image, (2, 2), (0, 1)), size), np.roll(found, steps, (0, 1)), atol=1e-12
    )


@pytest.fixture(scope="module")
def converged():
    """Two textures of waves, alike but for the torus: no pixel is far from its neighbors', to 64 random filters."""
    y, x = np.mgrid[:32, :32] * (2 * np.pi / 16)
    waves = [np.sin(x + y), np.sin(x - y + 1), np.sin(x + 2) * np.sin(y)]
    sample = (0.5 + 0.2 * np.stack(waves, -1)).astype(np.float32)
    params, found = random_backbone(0, ["relu1_1"]).params, {}
    for tileable in (True, False):
        config = _config(size="32", tileable=tileable, layers="relu1_1", padding="auto", steps=150, scales="2")
        found[tileable] = _run(params, sample, config, standardize=True)
    return found


@pytest.mark.slow
def test_no_place_of_a_torus_is_special(x64, tiny, pictures):
    """From a start that is rolled, each step, and each scale, gives what is rolled: a seam could be anywhere."""
    config = _config(size="32", tileable=True, layers="conv1_1,pool1", padding="auto", scales="2", precision="float64")

    def ends(shift):
        run = task.prepare(KEY, tiny, [pictures[1]] * 2, task.sizes_of(config, 2), config)
        state = jax.tree.map(
            lambda leaf: np.roll(leaf, shift, (0, 1)) if leaf.shape == (16, 16, 3) else leaf, run.begin()
        )
        for stage in (run.stage, run.make(1)):
            if stage is not run.stage:
                state = stage.grow(state)
            for _ in range(6):
                state, _ = stage.advance(jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), state), 1)
        return np.asarray(state.canvas)

    straight, rolled = ends((0, 0)), ends((6, 2))
    np.testing.assert_allclose(np.roll(straight, (12, 4), (0, 1)), rolled, atol=1e-11)
    assert np.abs(straight - rolled).max() > 0.1


def _steps_across_the_wrap(image):
    """The mean difference across the wrap, in units of the mean inside; down and across."""
    ratios = []
    for axis in (0, 1):
        steps = np.abs(image - np.roll(image, 1, axis)).mean(axis=(1 - axis, 2))
        ratios.append(steps[0] / steps[1:].mean())
    return ratios


@pytest.mark.slow
def test_a_tileable_texture_has_no_seam_and_another_has(converged):
    for result in converged.values():
        assert result.trace[-1]["total"] < 1e-3 * result.trace[0]["total"]
    assert max(_steps_across_the_wrap(converged[True].image)) < 1.4
    assert min(_steps_across_the_wrap(converged[False].image)) > 1.6


# ---- As a style transfer


def test_it_is_a_style_transfer_without_a_content():
    painting = _config(tileable=True, padding="auto").painting()
    assert (painting.content_layers, painting.content_weight, painting.style_weight) == ("", 0.0, 100.0)
    assert (painting.padding, painting.tile, painting.init) == ("wrap", "0", "noise")
    shared = {field.name for field in dataclasses.fields(TextureConfig)}
    shared &= {field.name for field in dataclasses.fields(painting)} - {"output", "weights", "source", "size", "scales"}
    config = _config(steps=7, noise_width=3.0, tv_weight=2.0, history=9, seed=4, pooling="max", tile="64")
    assert {name: getattr(config, name) for name in shared} == {
        name: getattr(config.painting(), name) for name in shared
    }
