import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import losses, objective
from jnst.config import POOLINGS, TOTAL_VARIATIONS, ObjectiveSpec
from jnst.config.choices import BORDERS, STYLE_LOSSES
from jnst.nets import vgg
from jnst.normalizations import NORMALIZATIONS
from jnst.types import Targets, Weights

CONTENT, STYLE = ("conv2_1", "relu1_2"), ("relu1_1", "relu2_1")

# Every normalization, every pooling, every padding, every total variation.
SPECS = [
    ObjectiveSpec(
        content_layers=CONTENT, style_layers=STYLE, normalization=kind, pooling=pooling, padding=padding, tv=tv
    )
    for kind, pooling, padding, tv in [
        ("relative", "max", "zeros", "l2"),
        ("course", "avg", "zeros", "l1"),
        ("gatys", "l2", "reflect", "l2"),
        ("neural_style", "max", "replicate", "l1"),
        ("style_transfer_pytorch", "max", "replicate_first", "l2_nine"),
    ]
]
# Layers whose covariances have roots that twelve iterations find.
SPECS.append(dataclasses.replace(SPECS[-1], style_loss="wasserstein", style_layers=("conv1_2", "conv2_2")))
SLOW = set(NORMALIZATIONS) - {"relative", "gatys"}  # their formulas are in test_losses.py too
every_spec = pytest.mark.parametrize(
    "spec",
    [pytest.param(spec, marks=[pytest.mark.slow] if spec.normalization in SLOW else []) for spec in SPECS],
    ids=lambda spec: f"{spec.normalization}-{spec.style_loss}",
)
both_losses = pytest.mark.parametrize("how", STYLE_LOSSES)
WEIGHTS = Weights(1.5, 40.0, 0.25, np.array([0.3, 0.9]), np.array([0.2, 0.8]))

targets_of = jax.jit(objective.style_targets, static_argnames="spec")
terms_and_gradient = jax.jit(
    jax.value_and_grad(objective.style_objective, argnums=1, has_aux=True), static_argnames="spec"
)


@functools.partial(jax.jit, static_argnames="spec")
def whole(params, content, styles, mix, image, weights, spec):
    """Targets, terms and gradient in one program: compiling takes most of these tests' time."""
    targets = objective.style_targets(params, content, styles, mix, spec)
    run = jax.value_and_grad(objective.style_objective, argnums=1, has_aux=True)
    return run(params, image, targets, weights, spec)


def terms_of(*arguments, spec):
    return terms_and_gradient(*arguments, spec=spec)[0]


def _float64(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


@pytest.fixture(scope="module")
def params(tiny):
    return {name: tiny[name] for name in ("mean", *vgg.convolutions(["conv2_2"]))}


@pytest.fixture(scope="module")
def scene():
    """A content image, two styles of one size, their shares, and an image to judge."""
    picture = reference.smooth_picture
    return picture(7, 9, 1), [picture(8, 6, 2), picture(8, 6, 3)], np.array([0.3, 0.7]), picture(7, 9, 4)


def _run(params, scene, spec):
    return whole(_float64(params), *_float64(scene), _float64(WEIGHTS), spec=spec)


def _slow(params, scene, spec):
    content, styles, mix, image = scene
    return reference.objective(params, image, content, styles, mix, WEIGHTS, spec)


def test_the_specs_reach_every_choice():
    assert {spec.normalization for spec in SPECS} == set(NORMALIZATIONS)
    assert {spec.style_loss for spec in SPECS} == set(STYLE_LOSSES)
    borders = set(BORDERS) - {"wrap"}  # of a torus: tests/nets/test_vgg.py, and below
    for field, choices in (("pooling", POOLINGS), ("padding", borders), ("tv", TOTAL_VARIATIONS)):
        assert {getattr(spec, field) for spec in SPECS} == set(choices)


@pytest.mark.slow
@every_spec
def test_terms_equal_the_reference_and_add_up(x64, params, scene, spec):
    (loss, terms), _ = _run(params, scene, spec)
    expected = _slow(params, scene, spec)
    assert set(terms) == {"total", "content", "style", "tv"}
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(terms["total"], sum(expected.values()), rtol=1e-10)
    assert loss == terms["total"]


@every_spec
def test_gradient_is_a_finite_difference_of_the_reference(x64, params, scene, spec, rng):
    content, styles, mix, image = scene
    image = image.astype(np.float64)
    _, gradient = _run(params, scene, spec)
    total = lambda image: sum(_slow(params, (content, styles, mix, image), spec).values())  # noqa: E731
    for _ in range(3):
        direction = rng.standard_normal(image.shape)
        slope = reference.numeric_slope(total, image, direction)
        np.testing.assert_allclose(np.sum(np.asarray(gradient) * direction), slope, rtol=1e-5)


@pytest.mark.slow
def test_float32_is_right_to_a_ten_thousandth(params, scene):
    content, styles, mix, image = scene
    spec = SPECS[0]
    with jax.default_matmul_precision("highest"):
        (_, terms), _ = whole(params, content, styles, mix.astype(np.float32), image, WEIGHTS, spec=spec)
    for name, value in _slow(params, scene, spec).items():
        assert terms[name].dtype == jnp.float32
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_the_content_image_in_its_own_style_costs_nothing_but_variation(x64, params, scene):
    image, spec = scene[0], SPECS[0]
    found = reference.features(params, image, (*CONTENT, *STYLE), spec.pooling, spec.padding)
    targets = Targets(
        content={layer: found[layer] for layer in CONTENT},
        style={layer: reference.gram(found[layer], spec.normalization) for layer in STYLE},
    )
    _, terms = terms_of(*_float64((params, image, targets, WEIGHTS)), spec=spec)
    assert terms["content"] < 1e-20
    assert terms["style"] < 1e-20
    assert terms["tv"] > 0


@pytest.mark.slow
def test_linear_in_each_weight(x64, params, scene):
    spec = SPECS[0]
    wide, (content, styles, mix, image) = _float64((params, scene))
    targets = targets_of(wide, content, styles, mix, spec=spec)
    nothing = jax.tree.map(jnp.zeros_like, _float64(WEIGHTS))
    ones = jax.tree.map(jnp.ones_like, nothing)
    run = lambda **changed: terms_of(wide, image, targets, ones._replace(**changed), spec=spec)[1]  # noqa: E731
    base = run()
    assert float(terms_of(wide, image, targets, nothing, spec=spec)[0]) == 0
    for name in ("content", "style", "tv"):
        tripled = run(**{name: jnp.float64(3)})
        for term in ("content", "style", "tv"):
            np.testing.assert_allclose(tripled[term], base[term] * (3 if term == name else 1), rtol=1e-12)
    for name in ("content", "style"):
        each = [run(**{name + "_layers": jnp.zeros(2).at[layer].set(2.0)})[name] for layer in (0, 1)]
        assert min(each) > 0
        np.testing.assert_allclose(sum(each), 2 * base[name], rtol=1e-12)


def test_styles_blend_by_the_weighted_sum_of_their_grams(x64, params, scene):
    spec = SPECS[0]
    content, styles, mix, _ = scene
    ours = targets_of(*_float64((params, content, styles, mix)), spec=spec).style
    for layer in STYLE:
        grams = [
            reference.gram(reference.features(params, style, [layer], "max", "zeros")[layer], "relative")
            for style in styles
        ]
        np.testing.assert_allclose(ours[layer], 0.3 * grams[0] + 0.7 * grams[1], rtol=1e-10)


@pytest.mark.slow
@both_losses
def test_vmapped_over_styles_and_weights_equals_looped(x64, params, scene, how):
    spec = dataclasses.replace(SPECS[0], style_loss=how)
    wide, (content, styles, _, image) = _float64((params, scene))
    grams = [targets_of(wide, content, styles, mix, spec=spec).style for mix in jnp.eye(2)]
    aim = targets_of(wide, content, styles, jnp.ones(2) / 2, spec=spec).content
    weights = _float64(WEIGHTS)._replace(style=jnp.array([1.0, 5.0]))
    axes = (
        Targets(content=None, style=0),
        weights._replace(content=None, style=0, tv=None, content_layers=None, style_layers=None),
    )
    run = lambda targets, weights: objective.style_objective(wide, image, targets, weights, spec)[1]  # noqa: E731
    stacked = Targets(content=aim, style=jax.tree.map(lambda *each: jnp.stack(each), *grams))
    many = jax.jit(jax.vmap(run, in_axes=axes))(stacked, weights)
    for index, gram in enumerate(grams):
        one_weight = weights._replace(style=weights.style[index])
        _, single = terms_of(wide, image, Targets(content=aim, style=gram), one_weight, spec=spec)
        for name, value in single.items():
            np.testing.assert_allclose(many[name][index], value, rtol=1e-11)


@pytest.mark.slow
@both_losses
def test_a_blend_by_shares_of_pixels_is_the_style_of_the_pictures_side_by_side(x64, rng, how):
    # Of Gram matrices and of raw moments alike; covariances alone would miss what lies between the two means.
    maps = [rng.standard_normal((4, width, 3)) + mean for width, mean in ((3, 0.5), (6, -2.0))]
    statistics = [{"conv1_1": _statistic(f, how)} for f in maps]
    mixed = objective.blend(statistics, jnp.array([1 / 3, 2 / 3]))["conv1_1"]
    whole = losses.style_target(_statistic(np.concatenate(maps, 1), how))
    assert type(mixed) is type(whole)
    for ours, theirs in zip(jax.tree.leaves(mixed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def _statistic(f, how):
    return losses.style_statistic(losses.style_sums(jnp.asarray(f), how), f.shape, "relative")


@pytest.mark.slow
@both_losses
def test_sums_over_parts_of_a_picture_add_up_to_the_whole_s(x64, rng, how):
    spec = ObjectiveSpec(content_layers=("conv1_1",), style_layers=("conv1_1", "relu1_1"), style_loss=how)
    found, content = ({name: rng.standard_normal((4, 6, 3)) for name in spec.style_layers} for _ in range(2))
    cut = lambda maps, a, b: {name: jnp.asarray(map_[:, a:b]) for name, map_ in maps.items()}  # noqa: E731
    sums = lambda a, b: objective.sums_of(cut(found, a, b), cut(content, a, b), spec)  # noqa: E731
    added = jax.tree.map(lambda one, other: one + other, sums(0, 2), sums(2, 6))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), added, sums(0, 6))
    assert list(added.content) == ["conv1_1"]
    assert set(added.style) == {"conv1_1", "relu1_1"}


@pytest.mark.slow
def test_replicate_first_repeats_the_picture_s_border_and_no_map_s(x64, params):
    image = reference.smooth_picture(4, 5, 1)
    run = functools.partial(vgg.features, _float64(params), jnp.asarray(image, jnp.float64), ["conv1_1", "conv1_2"])
    found, other = run(padding="replicate_first"), run(padding="replicate")
    expected = reference.features(params, image, ["conv1_1", "conv1_2"], "max", "replicate_first")
    for layer, values in expected.items():
        np.testing.assert_allclose(found[layer], values, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found["conv1_1"], other["conv1_1"])
    assert np.abs(found["conv1_2"] - other["conv1_2"]).min(-1)[0].min() > 0  # everywhere in the first row


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gram", pytest.param("wasserstein", marks=pytest.mark.slow)])
def test_without_content_layers_there_is_style_and_variation_alone(x64, params, scene, how):
    spec = dataclasses.replace(SPECS[-1 if how == "wasserstein" else 0], content_layers=())
    content, styles, mix, image = scene
    weights = WEIGHTS._replace(content_layers=np.zeros(0))
    (loss, terms), gradient = whole(*_float64((params, content, styles, mix, image, weights)), spec=spec)
    expected = reference.objective(params, image, content, styles, mix, weights, spec)
    assert terms["content"] == expected["content"] == 0
    for name in ("style", "tv"):
        np.testing.assert_allclose(terms[name], expected[name], rtol=1e-10, err_msg=name)
    assert loss == terms["total"] == terms["style"] + terms["tv"]
    assert np.abs(gradient).max() > 0


def test_without_content_layers_nothing_of_the_content_is_looked_at(params):
    spec = dataclasses.replace(SPECS[0], content_layers=())
    picture = jax.ShapeDtypeStruct((7, 9, 3), jnp.float32)
    program = jax.make_jaxpr(lambda params, content: objective.content_targets(params, content, spec))(params, picture)
    assert program.eqns == []
    assert program.out_avals == []


@pytest.mark.slow
def test_on_a_torus_a_rolled_image_costs_the_same_but_for_its_variation(x64, params, scene):
    spec = dataclasses.replace(SPECS[0], padding="wrap", content_layers=("pool1", "relu1_2"), style_layers=("pool1",))
    wide, (content, styles, mix, image) = _float64((params, scene))
    weights, roll = _float64(WEIGHTS._replace(style_layers=np.ones(1))), lambda x: jnp.roll(x, (4, 2), (0, 1))
    terms = []
    for each in (lambda x: x, roll):
        pictures = [each(jnp.pad(x, ((0, 1), (0, 1), (0, 0)))) for x in (content, image)]  # to even sides
        terms.append(whole(wide, pictures[0], styles, mix, pictures[1], weights, spec=spec)[0][1])
    for name in ("content", "style"):
        np.testing.assert_allclose(*(each[name] for each in terms), rtol=1e-12)
        assert terms[0][name] > 0
    assert abs(terms[0]["tv"] - terms[1]["tv"]) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["max", pytest.param("l2", marks=pytest.mark.slow)])
def test_relative_on_one_gray_is_finite_with_a_finite_gradient(pooling):
    spec = ObjectiveSpec(content_layers=("relu2_1",), style_layers=STYLE, pooling=pooling, tv="l1")
    weights = Weights(*(np.float32(1) for _ in range(3)), np.ones(1, np.float32), np.ones(2, np.float32))
    for bias in (0.0, 0.3):
        params = reference.random_params((4, 5, 6, 7, 8), seed=0, bias=bias)
        params = {name: params[name] for name in ("mean", *vgg.convolutions(["relu2_1"]))}
        params["mean"] = np.full(3, 0.5, np.float32)
        for shade in (0.5, 0.2):  # exactly the mean: with no bias, every feature of content and style is 0
            gray = np.full((7, 9, 3), shade, np.float32)
            for image in (gray, gray + np.float32(0.1), reference.smooth_picture(7, 9, 1)):
                (_, terms), gradient = whole(params, gray, [gray], np.ones(1, np.float32), image, weights, spec=spec)
                assert np.isfinite([float(value) for value in terms.values()]).all()
                assert np.isfinite(gradient).all()
                if image is gray:
                    assert terms["content"] == terms["tv"] == 0
                    assert terms["style"] < 1e-6


@pytest.mark.slow
def test_bfloat16_features_give_float32_terms_near_the_exact_ones(params, scene):
    content, styles, mix, image = scene
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params) | {"mean": params["mean"]}
    (_, terms), _ = whole(half, content, styles, mix.astype(np.float32), image, WEIGHTS, spec=SPECS[0])
    for name, value in _slow(params, scene, SPECS[0]).items():
        assert terms[name].dtype == jnp.float32
        np.testing.assert_allclose(terms[name], value, rtol=0.05, err_msg=name)
