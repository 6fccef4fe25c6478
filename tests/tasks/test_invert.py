"""Feature inversion: its formula against NumPy, what it finds, starts in one program, and runs that go on."""

import dataclasses

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import images, loop, ops, transforms
from jnst.config import InvertConfig
from jnst.errors import InputError
from jnst.nets import vgg
from jnst.tasks import invert as task
from jnst.weights import random_backbone

KEY = jax.random.key(5)
BASE = {"layers": "relu1_1,relu2_1", "steps": 4, "print_every": 2, "history": 3}


# ---- The formula


def _variation(image, beta):
    """`sum (dx^2 + dy^2)^(beta / 2)` pixel by pixel, over the border 0."""
    height, width, channels = image.shape
    total = 0.0
    for y, x, c in np.ndindex(height, width, channels):
        down = image[y + 1, x, c] - image[y, x, c] if y + 1 < height else 0.0
        across = image[y, x + 1, c] - image[y, x, c] if x + 1 < width else 0.0
        total += (down**2 + across**2) ** (beta / 2)
    return total


def _picture(height, width, seed=0):
    return np.float64(np.float32(np.random.default_rng(seed).uniform(0.1, 0.9, (height, width, 3))))


def _slope(function, x, way):
    return (function(x + 1e-6 * way) - function(x - 1e-6 * way)) / 2e-6


_smooth = jax.jit(jax.value_and_grad(ops.smooth_variation))


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("shape", [(5, 6, 3), (1, 3, 1), (3, 1, 1)])
def test_smooth_variation_is_what_numpy_finds(x64, rng, beta, shape):
    image, way = rng.uniform(size=shape), rng.standard_normal(shape)
    value, gradient = _smooth(image, beta)
    np.testing.assert_allclose(value, _variation(image, beta), rtol=1e-12)
    slope = _slope(lambda image: _variation(image, beta), image, way)
    np.testing.assert_allclose(np.sum(gradient * way), slope, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_flat_pixels_have_no_slope_and_do_not_spoil_others(x64, rng, beta):
    # Not compiled as one: XLA would simplify 0 times infinity away.
    smooth = jax.value_and_grad(ops.smooth_variation)
    image = np.full((5, 6, 3), 0.3)
    value, gradient = smooth(jnp.asarray(image), beta)
    assert value == 0
    assert not gradient.any()
    image[:, 4:] += rng.uniform(size=(5, 2, 3))
    _, gradient = smooth(jnp.asarray(image), beta)
    assert np.isfinite(gradient).all()
    assert not gradient[:, :3].any()
    assert np.count_nonzero(gradient[:, 4:]) > 25  # at beta 1 slopes of +1 and -1 may cancel


def _shared(tiny, target, numbers):
    wide = lambda leaf: jnp.asarray(leaf, float)  # noqa: E731
    return jax.tree.map(wide, tiny), wide(target), tuple(map(wide, numbers))


CASES = [
    ("relu2_1", "avg", "zeros", (6.0, 0.3, 2.0, 0.7)),
    ("conv1_2", "max", "reflect", (2.0, 1.5, 1.5, 0.2)),
    ("relu2_1", "max", "replicate", (1.0, 0.4, 1.0, 1.1)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "pooling", "padding", "numbers"), CASES)
def test_value_and_gradient_are_what_numpy_finds(x64, tiny, layer, pooling, padding, numbers):
    image, given = _picture(9, 7), _picture(9, 7, seed=1)
    seen = lambda image: reference.features(tiny, image, [layer], pooling, padding)[layer]  # noqa: E731
    target, (alpha, alpha_weight, beta, tv_weight) = seen(given), numbers

    def by_hand(image):
        return {
            "features": np.sum((seen(image) - target) ** 2) / np.sum(target**2),
            "norm": alpha_weight * np.mean(np.abs(2 * image - 1) ** alpha),
            "tv": tv_weight * _variation(image, beta) / image.size,
        }

    goal = task.Inversion(layer=layer, pooling=pooling, padding=padding)
    shared = _shared(tiny, target, numbers)
    loss = jax.jit(jax.value_and_grad(lambda image: goal(KEY, image, shared), has_aux=True))
    (total, terms), gradient = loss(jnp.asarray(image))
    expected = by_hand(image)
    assert tuple(expected) == task.SUMMANDS
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(total, sum(expected.values()), rtol=1e-12)
    assert float(total) == float(terms["total"])
    way = np.random.default_rng(2).standard_normal(image.shape)
    slope = _slope(lambda image: sum(by_hand(image).values()), image, way)
    np.testing.assert_allclose(np.sum(gradient * way), slope, rtol=1e-5)


@pytest.mark.slow
def test_with_jitter_both_pictures_are_rolled_alike(x64, tiny):
    image, given = _picture(10, 8), _picture(10, 8, seed=1)
    goal = task.Inversion(layer="conv2_1", padding="reflect", jitter=3)
    shared = _shared(tiny, given, (6.0, 0.3, 2.0, 0.7))
    loss = jax.jit(lambda key, image: goal(key, image, shared)[1])
    seen = lambda image: reference.features(tiny, image, ["conv2_1"], "avg", "reflect")["conv2_1"]  # noqa: E731
    still = loss(KEY, jnp.asarray(image))
    for key in jax.random.split(KEY, 3):
        way = np.asarray(transforms.offset(key, 3))
        target, found = (seen(np.roll(one, way, (0, 1))) for one in (given, image))
        terms = loss(key, jnp.asarray(image))
        np.testing.assert_allclose(terms["features"], np.sum((found - target) ** 2) / np.sum(target**2), rtol=1e-10)
        assert terms["norm"] == still["norm"]  # of the picture as it is
        assert terms["tv"] == still["tv"]
        assert float(loss(key, jnp.asarray(given))["features"]) == 0


# ---- What a run finds


@pytest.fixture(scope="module")
def prepare(tiny):
    def prepare(picture=None, *, key=KEY, params=tiny, given=None, **options):
        config = InvertConfig(**{**BASE, **options})
        needed = {name: params[name] for name in ("mean", *vgg.convolutions(config.names))}
        picture = reference.smooth_picture(11, 13, seed=1) if picture is None else picture
        return task.prepare(key, needed, picture, config, **(given or {}))

    return prepare


def _run(prepared):
    """The result, and of every step its number, its canvas and all that is needed to go on."""
    found = []

    def callback(record):
        snapshot = record.snapshot()
        found.append((record.step, snapshot._replace(leaves=[np.array(leaf) for leaf in snapshot.leaves])))

    return loop.run(prepared, callback=callback), dict(found)


@pytest.fixture(scope="module")
def whole(prepare):
    return _run(prepare())


@pytest.mark.slow
def test_each_layer_s_picture_is_kept_and_the_trace_names_every_step(whole):
    result, _ = whole
    assert [row["step"] for row in result.trace] == [0, 2, 4, 4, 6, 8]
    assert len(result.kept) == 2
    np.testing.assert_array_equal(result.image, result.kept[-1])
    assert all(row["total"] == sum(row[name] for name in task.SUMMANDS) for row in result.trace)
    for first, last in ((0, 2), (3, 5)):
        assert result.trace[last]["features"] < 0.5 * result.trace[first]["features"]


@pytest.mark.slow
def test_it_begins_at_gray_with_noise(prepare):
    canvas = np.asarray(prepare(key=jax.random.key(4)).begin().canvas)
    assert 0 <= canvas.min() < canvas.max() <= 1
    np.testing.assert_allclose([canvas.mean(), canvas.std()], [0.5, 0.15], atol=0.02)


@pytest.mark.slow
def test_the_picture_of_a_shallow_layer_is_found_again(prepare):
    params, picture = random_backbone(0, ["relu1_1"]).params, reference.smooth_picture(11, 13, seed=1)
    options = {"layers": "relu1_1", "steps": 60, "tv_weight": 0.01}
    result = loop.run(prepare(params=params, **options))
    [[error]] = task.relative_errors(params, picture, result.kept, InvertConfig(**{**BASE, **options}))
    assert error < 0.01
    assert np.abs(result.kept[0] - picture).mean() < 0.01
    assert 0 <= result.kept[0].min() <= result.kept[0].max() <= 1


@pytest.mark.slow
def test_relative_errors_are_what_numpy_finds(tiny, rng):
    picture = reference.smooth_picture(8, 9, seed=1)
    found = [rng.uniform(size=(8, 9, 3)).astype(np.float32), rng.uniform(size=(2, 8, 9, 3)).astype(np.float32)]
    config = InvertConfig(layers="relu1_2,conv2_1", pooling="max")
    errors = task.relative_errors(tiny, picture, found, config, padding="reflect")
    for layer, pictures, each in zip(config.names, [found[0][None], found[1]], errors, strict=True):
        seen = lambda image, layer=layer: reference.features(tiny, image, [layer], "max", "reflect")[layer]  # noqa: E731
        target = seen(picture)
        expected = [np.linalg.norm(seen(one) - target) / np.linalg.norm(target) for one in pictures]
        np.testing.assert_allclose(each, expected, rtol=1e-5)
    assert task.relative_errors(tiny, picture, [picture], config) == [[0.0]]  # an interrupted run has fewer


def test_a_layer_s_picture_is_the_same_alone_and_in_a_list(prepare, whole):
    alone = loop.run(prepare(layers="relu2_1"))
    np.testing.assert_array_equal(alone.image, whole[0].kept[1])
    assert np.abs(loop.run(prepare(layers="relu2_1", steps=1, key=jax.random.key(6))).image - alone.image).max() > 0.1


JITTERED = {"layers": "relu1_1", "jitter": 2}


@pytest.mark.slow
def test_starts_are_lanes_of_one_program_and_the_first_is_the_single_run(prepare):
    alone, two = loop.run(prepare(**JITTERED)), loop.run(prepare(**JITTERED, restarts=2))
    assert two.kept[0].shape == (2, 11, 13, 3)
    np.testing.assert_allclose(two.image[0], alone.image, atol=1e-4)
    assert np.abs(two.image[1] - alone.image).max() > 0.1


@pytest.mark.slow
def test_with_jitter_it_is_found_too(prepare):
    result = loop.run(prepare(**JITTERED, steps=30))
    assert result.trace[-1]["features"] < 0.1 * result.trace[0]["features"]


@pytest.mark.slow
def test_in_float64_it_is_the_same_formula(x64, prepare):
    prepared = prepare(layers="conv1_1", steps=1, precision="float64")
    assert prepared.stage.like.canvas.dtype == np.float64
    assert loop.run(prepared).image.dtype == np.float32


def _compilations(work):
    heard = []
    listen = lambda name, seconds, **more: heard.append(name)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        work()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return [name for name in heard if "backend_compile" in name]


def test_another_picture_key_and_other_weights_compile_nothing(prepare, whole):
    other = reference.smooth_picture(11, 13, seed=3)
    numbers = {"alpha": 2.0, "alpha_weight": 1.0, "tv_weight": 0.5, "tv_beta": 1.5, "steps": 3}
    assert not _compilations(lambda: loop.run(prepare(other, key=jax.random.key(9), **numbers)))
    assert _compilations(lambda: jax.jit(lambda x: x + 43)(1.0)), "a compilation would not be heard"


# ---- Runs that go on


def test_it_goes_on_from_every_step_to_the_same_bytes(prepare, whole):
    result, found = whole
    for step in range(9):  # 4 is where the first layer ends as well as where the second begins
        again = loop.run(prepare(given={"snapshot": found[step]}))
        for one, other in zip(again.kept, result.kept, strict=True):
            np.testing.assert_array_equal(one, other)
        assert again.trace == result.trace, step


@pytest.mark.slow
def test_starts_with_jitter_go_on_to_the_same_bytes(prepare):
    result, found = _run(prepare(**JITTERED, restarts=2))
    for step in (0, 1, 3):
        again = loop.run(prepare(**JITTERED, restarts=2, given={"snapshot": found[step]}))
        np.testing.assert_array_equal(again.image, result.image)


def test_a_snapshot_of_another_run_is_refused(prepare, whole):
    snapshot = whole[1][6]
    assert (snapshot.scale, len(snapshot.kept)) == (1, 1)
    with pytest.raises(ValueError, match="more layers"):
        prepare(layers="relu2_1", given={"snapshot": snapshot})
    with pytest.raises(ValueError, match="keeps other pictures"):
        prepare(given={"snapshot": snapshot._replace(kept=())})
    with pytest.raises(ValueError, match="other shapes"):
        prepare(given={"snapshot": snapshot._replace(leaves=[leaf[None] for leaf in snapshot.leaves])})


# ---- What cannot be done


def test_too_little_memory_for_the_deepest_layer_shows_before_the_work(prepare, whole):
    needed = [prepare().make(number).bytes for number in (0, 1)]
    assert needed[0] < needed[1]
    prepare(given={"room": needed[1]})
    for layers in ("relu1_1,relu2_1", "relu2_1,relu1_1", "relu2_1"):
        with pytest.raises(InputError, match="--size: 13x11 pixels need .* expected a smaller --size$"):
            prepare(layers=layers, given={"room": needed[1] - 1})


@pytest.mark.parametrize(("bias", "size"), [(-1e4, "0"), (1e30, "inf")])
def test_a_layer_without_features_is_named_before_the_work(prepare, tiny, bias, size):
    broken = {**tiny["conv1_2"], "bias": np.full_like(tiny["conv1_2"]["bias"], bias)}
    with pytest.raises(InputError, match=f"--layers: relu1_2 has features .* add up to {size}; expected a number"):
        prepare(params={**tiny, "conv1_2": broken}, layers="relu1_1,relu1_2")


# ---- The real network


@pytest.mark.slow
def test_what_the_real_network_knows_of_a_photograph_falls_with_depth(shared, monkeypatch):
    from jnst import compiler, weights

    layers = ("relu1_1", "relu2_1", "relu3_1")
    path = shared / "weights" / "vgg19_caffe_conv1_1-conv3_4.npz"
    photo = shared / "images" / "content" / "kodim19.png"
    for file in (path, photo):
        if not file.is_file():
            pytest.skip(f"{file} is not here")
    picture = images.load(photo).rgb[330:394, 180:244]
    config = InvertConfig(layers=",".join(layers), steps=150)
    params = weights.load(str(path), layers).params
    # Hundreds of steps: what is compiled at level 0 takes three times as long.
    monkeypatch.setitem(compiler.OPTIONS, "cpu", compiler.OPTIONS["cpu"] | {"xla_backend_optimization_level": 1})
    result = loop.run(task.prepare(KEY, params, picture, config))
    errors = [each[0] for each in task.relative_errors(params, picture, result.kept, config)]
    pixels = [np.abs(found - picture).mean() for found in result.kept]
    assert errors[0] < 0.01
    assert errors[1] < 0.03
    assert errors == sorted(errors)
    assert pixels == sorted(pixels)
    assert pixels[0] < 0.01


@pytest.mark.slow
def test_lanes_are_the_runs_that_they_would_be_alone(prepare):
    more = {"layers": "relu1_1", "steps": 2}
    config = InvertConfig(**{**BASE, **more})
    lanes = [dataclasses.replace(config, seed=seed, tv_weight=weight) for seed, weight in ((1, 0.1), (2, 10.0))]
    keys = jnp.stack([jax.random.key(lane.seed) for lane in lanes])
    together = loop.run(prepare(**more, key=keys, given={"lanes": lanes}))
    for lane, image in zip(lanes, together.image, strict=True):
        alone = loop.run(prepare(**more, key=jax.random.key(lane.seed), tv_weight=lane.tv_weight))
        np.testing.assert_allclose(image, alone.image, atol=1e-4)
