"""DeepDream's formulas against NumPy, its steps, octaves and tiles."""

import dataclasses
import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import loop, ops, tiles
from jnst.config import DreamConfig, parse_channels
from jnst.errors import InputError
from jnst.nets import vgg
from jnst.tasks import dream as task

KEY = jax.random.key(3)
BASE = {"layers": "relu1_2", "steps": 3, "print_every": 2, "jitter": 4}
SIZES = ((17, 12), (24, 17))


def _goal(layers, **options):
    return task.Dream(layers=parse_channels("layers", layers), **options)


def _scores(found, layers, kind, guide=None):
    """The activation in NumPy."""
    parts = []
    for name, chosen in parse_channels("layers", layers):
        x = found[name][..., list(chosen)] if chosen else found[name]
        if guide is not None:
            flat = x.reshape(-1, x.shape[-1])
            rows = guide[name].reshape(-1, x.shape[-1])
            parts.append((flat * rows[(flat @ rows.T).argmax(1)]).sum() / x.size)
        else:
            parts.append((x**2 / 2 if kind == "square" else x).mean())
    return np.mean(parts)


def _params(tiny):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), tiny)


def _picture(height, width, seed=0):
    return np.float64(np.float32(np.random.default_rng(seed).uniform(0.1, 0.9, (height, width, 3))))


CASES = [
    ("relu2_1", "square", "avg", False),
    ("relu1_1,relu2_2", "mean", "max", False),
    ("conv2_1:1,3,pool1", "square", "max", False),
    ("relu2_1:4,0", "mean", "avg", False),
    ("relu2_1,relu1_2", "square", "avg", True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "kind", "pooling", "guided"), CASES)
def test_value_and_gradient_are_what_numpy_finds(x64, tiny, layers, kind, pooling, guided):
    picture, names = _picture(12, 10), [name for name, _ in parse_channels("layers", layers)]
    seen = _features(tiny, _picture(8, 6, seed=1), names, pooling) if guided else None
    given = {name: jnp.asarray(map_.reshape(-1, map_.shape[-1])) for name, map_ in (seen or {}).items()}
    goal = _goal(layers, kind=kind, pooling=pooling, guided=guided)
    shared = _params(tiny), given
    (loss, terms), gradient = jax.jit(jax.value_and_grad(lambda image: goal(KEY, image, shared), has_aux=True))(picture)

    def by_hand(image):
        return _scores(_features(tiny, image, names, pooling), layers, kind, seen)

    np.testing.assert_allclose(terms["activation"], by_hand(picture), rtol=1e-10)
    assert float(loss) == float(terms["total"]) == -float(terms["activation"])
    way = np.random.default_rng(2).standard_normal(picture.shape)
    step = 1e-6
    slope = (by_hand(picture + step * way) - by_hand(picture - step * way)) / (2 * step)
    np.testing.assert_allclose(-np.sum(gradient * way), slope, rtol=1e-5)


def _features(params, image, names, pooling):
    """The reference has no layers after a pooling."""
    bases = [name if name[:4] != "pool" else {"pool1": "relu1_2"}[name] for name in names]
    found = reference.features(params, image, bases, pooling, "zeros")
    return {
        name: found[base] if name == base else reference.pool(found[base], pooling)
        for name, base in zip(names, bases, strict=True)
    }


def test_the_gradient_at_the_layer_is_the_activation(x64, tiny):
    """The original's formula; one number, the mean's count, stands between."""
    params, picture = _params(tiny), jnp.asarray(_picture(12, 10))
    shown = lambda image: vgg.features(params, image, ["conv2_1"], pooling="avg", padding="zeros")["conv2_1"]  # noqa: E731
    goal = _goal("conv2_1")

    @jax.jit
    def both(picture):
        found, back = jax.vjp(shown, picture)
        return back(found)[0] / found.size, jax.grad(lambda image: -goal(KEY, image, (params, {}))[0])(picture)

    expected, gradient = both(picture)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-18)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [0, 8])
def test_with_jitter_the_gradient_is_that_of_the_rolled_picture_rolled_back(x64, tiny, tile):
    params, picture = _params(tiny), jnp.asarray(_picture(22, 19))
    still = jax.jit(jax.grad(lambda image: _goal("relu2_1", tile=tile)(KEY, image, (params, {}))[0]))
    moving = jax.jit(jax.grad(lambda image, key: _goal("relu2_1", jitter=5, tile=tile)(key, image, (params, {}))[0]))
    for key in jax.random.split(KEY, 3):
        offset = np.asarray(jax.random.randint(key, (2,), -5, 6))
        expected = np.roll(still(jnp.roll(picture, offset, (0, 1))), -offset, (0, 1))
        np.testing.assert_allclose(moving(picture, key), expected, rtol=1e-12, atol=1e-18)


@pytest.fixture(scope="module")
def prepare(tiny):
    def prepare(pictures=None, *, given=None, key=KEY, **options):
        config = DreamConfig(**{**BASE, **options})
        layers = [name for name, _ in parse_channels("layers", config.layers)]
        params = {name: tiny[name] for name in ("mean", *vgg.convolutions(layers))}
        pictures = [reference.smooth_picture(*size, seed=1) for size in SIZES] if pictures is None else pictures
        return task.prepare(key, params, pictures, config, **(given or {}))

    return prepare


def _run(prepared):
    """The result, and of every step its size and its canvas as it is, which `image` would clip."""
    found = []

    def callback(record):
        snapshot = record.snapshot()
        snapshot = snapshot._replace(leaves=[np.array(leaf) for leaf in snapshot.leaves])
        found.append((record.step, record.size, snapshot.leaves[0], snapshot))

    return loop.run(prepared, callback=callback), found


@pytest.mark.slow
def test_every_pixel_stays_in_range_at_every_step(prepare):
    result, found = _run(prepare(step_size=150.0))
    for *_, canvas, _ in found:
        assert 0 <= canvas.min() <= canvas.max() <= 1
    last = found[-1][2]
    assert ((last == 0) | (last == 1)).mean() > 0.05  # so the step would have left it
    np.testing.assert_array_equal(result.image, last)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["square", "mean"])
def test_a_step_changes_pixels_by_the_step_size_on_average(prepare, objective):
    picture = reference.smooth_picture(24, 17, seed=1)
    _, found = _run(prepare([picture], objective=objective, steps=2, step_size=1.5))
    canvases = [np.float64(canvas) for *_, canvas, _ in found]
    assert len(canvases) == 3
    for before, after in zip(canvases, canvases[1:], strict=False):
        np.testing.assert_allclose(np.abs(after - before).mean(), 1.5 / 255, rtol=1e-4)


@pytest.mark.slow
def test_by_deviation_a_step_s_spread_is_the_step_size(prepare):
    _, found = _run(prepare([reference.smooth_picture(24, 17, seed=1)], normalize="deviation", steps=1))
    (*_, before, _), (*_, after, _) = found
    np.testing.assert_allclose(np.std(np.float64(after) - before), 1.5 / 255, rtol=1e-4)


def test_the_activation_grows(prepare):
    result, _ = _run(prepare())
    assert [(row["step"], row["size"]) for row in result.trace] == [
        (0, 17),
        (2, 17),
        (3, 17),
        (3, 24),
        (4, 24),
        (6, 24),
    ]
    for first, last in ((0, 2), (3, 5)):
        assert result.trace[last]["activation"] > result.trace[first]["activation"]


def test_steps_of_no_effect_leave_the_picture(prepare):
    result, _ = _run(prepare(step_size=1e-6))
    np.testing.assert_allclose(result.image, reference.smooth_picture(*SIZES[1], seed=1), atol=1e-6)


def test_detail_is_carried_to_the_next_octave(prepare):
    small, large = (reference.smooth_picture(*size, seed=1) for size in SIZES)
    _, found = _run(prepare())
    (*_, ended, _), (*_, began, _) = found[3], found[4]
    assert ended.shape[:2] == SIZES[0]
    assert np.abs(ended - small).mean() > 1e-3
    expected = np.clip(large + np.asarray(ops.resize(jnp.asarray(ended - small), SIZES[1], "cubic")), 0, 1)
    np.testing.assert_allclose(began, expected, atol=1e-6)


def test_octaves_are_the_smallest_first_and_none_is_too_small():
    assert task.octave_sizes((512, 384), 4, 1.4, 16) == [(187, 140), (261, 196), (366, 274), (512, 384)]
    assert task.octave_sizes((40, 20), 4, 1.4, 16) == [(40, 20)]
    assert task.octave_sizes((40, 24), 4, 1.4, 16) == [(29, 17), (40, 24)]
    assert task.octave_sizes((8, 8), 2, 1.4, 16) == [(8, 8)]  # the picture itself always


def _of_tiles(tiny, goal, picture, tile):
    params, given = _params(tiny), {}
    with_tiles = dataclasses.replace(goal, tile=tile)
    function = jax.jit(jax.value_and_grad(lambda image: with_tiles(KEY, image, (params, given))[0]))
    value, gradient = function(picture)
    return float(value), np.asarray(gradient)


TILED = [
    ("relu2_1", "square", "avg", (53, 37), 8),
    pytest.param("relu3_1:1,4,relu1_2", "square", "max", (53, 71), 12, marks=pytest.mark.slow),
    pytest.param("pool2,conv2_1", "mean", "max", (45, 67), 16, marks=pytest.mark.slow),
    pytest.param("relu3_1", "mean", "avg", (91, 38), 16, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "kind", "pooling", "shape", "tile"), TILED)
def test_tiles_give_the_whole_picture_s_value_and_gradient(x64, tiny, layers, kind, pooling, shape, tile, monkeypatch):
    picture, goal = (
        jnp.asarray(_picture(*shape)),
        _goal(layers, kind=kind, pooling=pooling, jitter=7, padding="reflect"),
    )
    assert tiles.make_tiling(shape, goal.names, tile).total > 3
    value, gradient = _of_tiles(tiny, goal, picture, 0)
    found, of_tiles = _of_tiles(tiny, goal, picture, tile)
    np.testing.assert_allclose(found, value, rtol=1e-12)
    assert np.abs(of_tiles - gradient).max() < 1e-10 * np.abs(gradient).max()
    # And a halo that is smaller by a stride would not do.
    less = tiles.halo_of(goal.names) - tiles.stride_of(goal.names)
    monkeypatch.setattr(task, "make_tiling", functools.partial(tiles.make_tiling, halo=less))
    _, of_less = _of_tiles(tiny, goal, picture, tile)
    assert np.abs(of_less - gradient).max() > 1e-4 * np.abs(gradient).max()


@pytest.mark.slow
def test_a_guided_dream_in_tiles_is_the_whole_one(x64, tiny):
    picture, guide = jnp.asarray(_picture(37, 29)), _picture(8, 6, seed=1)
    goal = _goal("relu1_2", guided=True)
    given = {"relu1_2": jnp.asarray(_features(tiny, guide, ["relu1_2"], "avg")["relu1_2"].reshape(-1, 4))}
    found = []
    for tile in (0, 9):
        of_tile = dataclasses.replace(goal, tile=tile)
        found.append(
            jax.jit(jax.value_and_grad(lambda image, of=of_tile: of(KEY, image, (_params(tiny), given))[0]))(picture)
        )
    (value, gradient), (in_tiles, of_tiles) = found
    np.testing.assert_allclose(in_tiles, value, rtol=1e-12)
    np.testing.assert_allclose(of_tiles, gradient, rtol=1e-10, atol=1e-16)


@pytest.mark.slow
def test_a_guide_is_looked_through_in_blocks(rng, monkeypatch):
    flat, guide = (jnp.asarray(rng.standard_normal((n, 6)), jnp.float32) for n in (37, 11))
    expected = np.argmax(np.asarray(flat) @ np.asarray(guide).T, 1)
    np.testing.assert_array_equal(task._nearest(flat, guide), expected)
    monkeypatch.setattr(task, "_MOST_PRODUCTS", 8 * 11)
    np.testing.assert_array_equal(task._nearest(flat, guide), expected)


@pytest.mark.slow
def test_of_a_large_guide_every_so_many_rows_are_seen(tiny, monkeypatch):
    monkeypatch.setattr(task, "_MOST_SEEN", 20)
    guide = jnp.asarray(reference.smooth_picture(12, 14, seed=4))
    goal = _goal("conv1_1", guided=True, padding="reflect")
    whole = vgg.features(tiny, guide, ["conv1_1"], pooling="avg", padding="reflect")["conv1_1"]
    np.testing.assert_allclose(
        task._seen(tiny, guide, goal=goal)["conv1_1"], whole[1::3, 1::3].reshape(-1, 4), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_a_guided_dream_comes_nearer_to_its_guide(prepare):
    guide = reference.smooth_picture(16, 16, seed=9)
    result, _ = _run(prepare(given={"guide": guide}))
    assert result.trace[-1]["activation"] > result.trace[3]["activation"]


def test_it_goes_on_from_every_step_to_the_same_bytes(prepare):
    whole, found = _run(prepare())
    for place in (0, 2, 3, 4, 6):
        again = loop.run(prepare(given={"snapshot": found[place][-1]}))
        np.testing.assert_array_equal(again.image, whole.image)
        assert again.trace == whole.trace, place


def test_a_snapshot_of_another_dream_is_refused(prepare):
    _, found = _run(prepare(steps=1))
    with pytest.raises(ValueError, match="shapes"):
        prepare(given={"snapshot": found[0][-1]._replace(scale=1)})
    with pytest.raises(ValueError, match="more octaves"):
        prepare(given={"snapshot": found[0][-1]._replace(scale=2)})


def test_a_second_picture_of_the_same_size_compiles_nothing(prepare):
    heard = []

    def listen(name, seconds, **more):
        heard.append(name)

    guide = reference.smooth_picture(16, 16, seed=9)
    loop.run(prepare(given={"guide": guide}))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        others = [reference.smooth_picture(*size, seed=7) for size in SIZES]
        loop.run(prepare(others, given={"guide": guide}))
        compiled = [name for name in heard if "backend_compile" in name]
        jax.jit(lambda x: x + 41)(1.0)
        assert [name for name in heard if "backend_compile" in name], "a compilation would not be heard"
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


@pytest.mark.slow
def test_too_little_memory_names_the_tiles(prepare):
    with pytest.raises(InputError, match="--size: 12x17 pixels need .* or --tile=512"):
        prepare(given={"room": 1})
    with pytest.raises(InputError, match="expected a smaller --size$"):
        prepare(tile=16, given={"room": 1})


@pytest.mark.slow
def test_lanes_are_the_runs_that_they_would_be_alone(prepare):
    config = DreamConfig(**BASE)
    lanes = [dataclasses.replace(config, seed=seed, step_size=size) for seed, size in ((3, 1.5), (5, 40.0))]
    keys = jnp.stack([jax.random.key(lane.seed) for lane in lanes])
    together = loop.run(prepare(key=keys, given={"lanes": lanes}))
    for lane, image in zip(lanes, together.image, strict=True):
        alone = loop.run(prepare(key=jax.random.key(lane.seed), step_size=lane.step_size))
        np.testing.assert_allclose(image, alone.image, atol=2e-3)  # float32 under vmap, along several steps
    assert np.abs(together.image[0] - together.image[1]).mean() > 0.02
