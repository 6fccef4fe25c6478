"""Two passes over tiles beside the whole image's loss and gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import conv, objective, tiles
from jnst.config import ObjectiveSpec, choices
from jnst.nets import vgg
from jnst.normalizations import NORMALIZATIONS
from jnst.types import Weights
from tiles.problem import (
    SHALLOW,
    STYLE_LAYERS,
    Problem,
    assert_equal,
    distance,
    in_tiles,
    make,
    memory_of_whole,
    passes,
    whole,
)


def _spec(pooling, style_loss, padding, normalization, tv, content=("relu4_2",), style=STYLE_LAYERS):
    return ObjectiveSpec(
        content_layers=content,
        style_layers=style,
        pooling=pooling,
        style_loss=style_loss,
        padding=padding,
        normalization=normalization,
        tv=tv,
    )


UNLIKE = ("relu1_1", "conv3_2", "relu4_2")
CASES = {
    # Shape, longest side of a tile, spec.
    "quick": ((37, 29), 8, _spec("avg", "gram", "zeros", "relative", "l2", ("conv2_1",), STYLE_LAYERS[:2])),
    "flat": ((19, 83), 16, _spec("max", "wasserstein", "reflect", "course", "l1", ("relu2_2",), STYLE_LAYERS[:3])),
    "average": ((512, 512), 128, _spec("avg", "gram", "replicate", "neural_style", "l2_nine")),
    "maximum": ((512, 512), 128, _spec("max", "gram", "zeros", "relative", "l2", UNLIKE)),
    "distances": ((512, 512), 128, _spec("avg", "wasserstein", "zeros", "relative", "l1")),
    "all else": ((512, 512), 128, _spec("max", "wasserstein", "replicate_first", "style_transfer_pytorch", "l2_nine")),
    "odd": ((301, 277), 64, _spec("l2", "gram", "reflect", "gatys", "l2", UNLIKE)),
    "pools": ((43, 38), 8, _spec("avg", "gram", "replicate", "relative", "l2", ("pool1",), ("pool2", "relu1_1"))),
    "deepest pool": ((301, 209), 32, _spec("max", "gram", "zeros", "gatys", "l2", ("pool4",), ("pool2", "relu4_2"))),
    "no content": ((37, 29), 8, _spec("l2", "gram", "zeros", "relative", "l2", (), ("relu1_1", "pool1"))),
    "narrow": ((97, 419), 48, _spec("max", "gram", "replicate", "course", "l1", ("conv1_2", "relu5_1"), UNLIKE)),
}
FAST = ("quick", "no content")
every_case = pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in CASES]
)


def test_the_cases_reach_every_choice():
    specs = [spec for _, _, spec in CASES.values()]
    assert {spec.pooling for spec in specs} == set(choices.POOLINGS)
    assert {spec.padding for spec in specs} == set(choices.BORDERS) - {"wrap"}
    assert {spec.style_loss for spec in specs} == set(choices.STYLE_LOSSES)
    assert {spec.tv for spec in specs} == set(choices.TOTAL_VARIATIONS)
    assert {spec.normalization for spec in specs} == set(NORMALIZATIONS)


@pytest.mark.slow
@every_case
def test_terms_and_gradient_are_the_whole_images(x64, case):
    shape, tile, spec = CASES[case]
    problem = make(shape, spec)
    expected, programs = whole(problem), passes(problem, tile)
    assert programs.tiling.total > 3
    assert_equal(in_tiles(programs, problem, expected.styles), expected, 1e-13)


@pytest.mark.slow
def test_without_content_memory_is_known_too(x64):
    shape, tile, spec = CASES["no content"]
    problem = make(shape, spec)
    assert passes(problem, tile).bytes > 8 * problem.image.size


def test_a_torus_is_not_cut(tiny):
    spec, style = dataclasses.replace(SHALLOW, padding="wrap"), jnp.zeros((64, 48, 3))
    tiling, mesh = tiles.make_tiling(style.shape[:2], ["relu3_1"], 32), tiles.make_mesh(jax.devices()[:1])
    weights = Weights(*(jnp.ones(()) for _ in range(3)), jnp.ones(1), jnp.ones(3))
    for build in (
        lambda: tiles.compile_passes(tiny, tiling, spec, weights, mesh=mesh),
        lambda: tiles.style_statistics(tiny, style, tiling, spec, mesh=mesh),
    ):
        with pytest.raises(ValueError, match="padding='wrap': expected a tiling of one tile"):
            build()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "shape", "tile"),
    [
        ("relu1_2", (14, 11), 4),
        pytest.param("pool1", (23, 18), 6, marks=pytest.mark.slow),
        pytest.param("relu2_1", (23, 18), 6, marks=pytest.mark.slow),
        pytest.param("pool2", (61, 41), 16, marks=pytest.mark.slow),
        pytest.param("relu3_1", (61, 41), 16, marks=pytest.mark.slow),
        pytest.param("conv4_2", (150, 16), 24, marks=pytest.mark.slow),
        pytest.param("relu5_1", (220, 32), 16, marks=pytest.mark.slow),
    ],
)
def test_one_stride_less_of_a_halo_would_be_wrong(x64, layer, shape, tile):
    """Else the tests above could not fail."""
    problem = make(shape, ObjectiveSpec(content_layers=(layer,), style_layers=(layer,), pooling="avg"))
    problem = problem._replace(weights=problem.weights._replace(tv=jnp.float64(0)))
    expected, halo = whole(problem), tiles.halo_of([layer])
    right, wrong = (
        distance(in_tiles(passes(problem, tile, halo=each), problem, expected.styles).gradient, expected.gradient)
        for each in (halo, halo - tiles.stride_of([layer]))
    )
    assert right < 1e-13
    assert wrong > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("style_loss", "layers", "shape", "tile"),
    [
        ("wasserstein", STYLE_LAYERS[:2], (37, 29), 8),
        pytest.param("gram", UNLIKE, (205, 231), 64, marks=pytest.mark.slow),
    ],
)
def test_statistics_of_a_style_in_tiles(x64, tiny, rng, style_loss, layers, shape, tile):
    spec = dataclasses.replace(SHALLOW, style_layers=layers, style_loss=style_loss, padding="reflect")
    params = jax.tree.map(jnp.float64, tiny)
    style = jnp.asarray(rng.random((*shape, 3)))
    expected = jax.jit(objective.style_statistics, static_argnames="spec")(params, style, spec=spec)
    tiling, mesh = tiles.make_tiling(shape, layers, tile), tiles.make_mesh(jax.devices()[:1])
    assert tiling.total > 3
    found = tiles.style_statistics(params, style, tiling, spec, mesh=mesh)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert distance(ours, theirs) < 1e-13


def _float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def _sums(programs, problem):
    """What the first pass adds up."""
    content, (sums, _) = tiles.content_of(programs, problem.params, problem.content), programs.zeros()
    for place, target in zip(programs.tiling.places, content.targets, strict=True):
        sums = programs.first(problem.params, problem.image, jnp.asarray(place)[None], target, sums)
    return jax.tree.map(lambda leaf: leaf[0], sums)


@jax.jit
def _sums_at_once(params, content, image):
    found = vgg.features(params, image, objective.layers_of(SHALLOW), pooling="avg")
    return objective.sums_of(found, objective.content_targets(params, content, SHALLOW), SHALLOW)


@pytest.mark.slow
def test_float32_rounds_no_more_than_the_whole_image_does():
    """By Winograd, whose blocks lie otherwise in a window; where they do not pay there, they may in the whole image."""
    with jax.enable_x64(True):
        exact = make((440, 424), SHALLOW, widths=(16, 32, 32, 8, 8))
        expected, sums = whole(exact), _sums_at_once(exact.params, exact.content, exact.image)
    problem = Problem(*_float32(exact[:-1]), SHALLOW)
    problem = problem._replace(params=vgg.prepare(problem.params, "cpu"))
    with jax.default_matmul_precision("highest"):
        programs, plain = passes(problem, 224), whole(problem)
    maps = [np.zeros((*(length // 2 for length in size), 16)) for size in (programs.tiling.window, (440, 424))]
    assert "winograd" in problem.params["conv2_1"]
    assert all(conv.pays(each, problem.params["conv2_1"]["kernel"]) for each in maps)
    assert programs.tiling.total == 4

    for ours, theirs in zip(jax.tree.leaves(_sums(programs, problem)), jax.tree.leaves(sums), strict=True):
        assert ours.dtype == jnp.float32
        assert distance(ours, theirs) < 3e-6
    tiled = in_tiles(programs, problem, _float32(expected.styles))
    # Not the norm: that is of the few pixels where rounding turns a feature's sign, here or there by luck.
    off = [np.quantile(np.abs(each.gradient - np.asarray(expected.gradient)), 0.99) for each in (tiled, plain)]
    assert off[0] < 1.5 * off[1] < 1e-5 * np.abs(expected.gradient).max()


@pytest.mark.slow
def test_bfloat16_kernels_give_float32_terms_and_nearly_the_same_gradient():
    exact = make((70, 53), SHALLOW)
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), exact.params) | {"mean": exact.params["mean"]}
    problem = exact._replace(params=half)
    expected = whole(exact)
    found = in_tiles(passes(problem, 16), problem, expected.styles)
    assert all(term.dtype == jnp.float32 for term in found.terms.values())
    for name, term in expected.terms.items():
        np.testing.assert_allclose(found.terms[name], term, rtol=0.05, err_msg=name)
    one, other = (np.asarray(each.gradient, np.float64).ravel() for each in (found, expected))
    assert one @ other > 0.99 * np.linalg.norm(one) * np.linalg.norm(other)


@pytest.mark.slow
def test_who_watches_gets_rising_shares_and_the_same_numbers_once_more(x64):
    shape, tile, spec = CASES["quick"]
    problem = make(shape, spec)
    programs, shares = passes(problem, tile), []
    styles = whole(problem).styles
    alone, watched = in_tiles(programs, problem, styles), in_tiles(programs, problem, styles, tick=shares.append)
    assert len(shares) == 2 * programs.tiling.total
    assert 0 < shares[0]
    assert (np.diff(shares) > 0).all()
    assert shares[-1] == 1
    np.testing.assert_array_equal(alone.gradient, watched.gradient)


@pytest.mark.slow
def test_memory_grows_with_the_tile_and_not_with_the_picture():
    """But for the picture itself; without tiles by all of it."""
    problems = [make((side, side), SHALLOW) for side in (128, 384)]
    small, large = (passes(problem, 64).second.memory_analysis().temp_size_in_bytes for problem in problems)
    assert 0 < large < 1.05 * small
    small, large = (memory_of_whole(problem) for problem in problems)
    assert large > 7 * small
    assert passes(problems[1], 64).bytes < large / 2
