"""Feature visualization: its objective against NumPy, and all channels as one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import loop, stages
from jnst.config import MaximizeConfig
from jnst.errors import InputError
from jnst.nets import vgg
from jnst.optimize import OptimizerConfig
from jnst.tasks import maximize as task
from jnst.types import Rates

KEY = jax.random.key(5)
BASE = {"layers": "relu1_2:3,0,relu1_1:2", "size": 16, "steps": 4, "print_every": 2}


def _params(tiny):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), tiny)


def _picture(spectrum, decay):
    """The image of a spectrum in NumPy, by its fast Fourier transform."""
    height, width, _ = spectrum.shape
    down, across = np.abs(np.fft.fftfreq(height)), np.abs(np.fft.fftfreq(width))
    frequency = np.maximum(np.hypot(down[:, None], across[None]), 1 / max(height, width))
    waves = spectrum / np.sqrt(8) / frequency[..., None] ** decay
    for axis in (0, 1):
        turned = np.fft.fft(waves, axis=axis, norm="ortho")
        waves = turned.real - turned.imag
    colors = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    colors /= np.linalg.norm(colors, axis=0).max()
    return 1 / (1 + np.exp(-waves @ colors.T))


CASES = {
    "three layers": (("relu2_1", "conv1_2", "pool1"), [(0, 4), (1, 3), (2, 1)], "avg", 1.0),
    "another decay": (("relu1_2",), [(0, 2)], "max", 0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "owns", "pooling", "decay"), CASES.values(), ids=CASES)
def test_value_and_slope_are_what_numpy_finds(x64, tiny, rng, layers, owns, pooling, decay):
    goal = task.Maximum(layers=layers, pooling=pooling, robust=False, decay=decay)
    params, spectrum = _params(tiny), rng.standard_normal((12, 10, 3))
    evaluate = jax.jit(jax.value_and_grad(lambda canvas, own: goal(KEY, canvas, params, own), has_aux=True))
    for which, channel in owns:
        (loss, terms), gradient = evaluate(jnp.asarray(spectrum), (jnp.int32(which), jnp.int32(channel)))
        by_hand = functools.partial(_mean, tiny, layers[which], channel, pooling, decay)
        assert abs(by_hand(spectrum)) > 1e-4
        np.testing.assert_allclose(terms["activation"], by_hand(spectrum), rtol=1e-10)
        assert float(loss) == float(terms["total"])
        np.testing.assert_allclose(-float(loss), by_hand(spectrum), rtol=1e-10)
        way, step = rng.standard_normal(spectrum.shape), 1e-6
        slope = (by_hand(spectrum + step * way) - by_hand(spectrum - step * way)) / (2 * step)
        np.testing.assert_allclose(-np.sum(gradient * way), slope, rtol=1e-5)


def _mean(params, layer, channel, pooling, decay, spectrum):
    base = {"pool1": "relu1_2"}.get(layer, layer)  # the reference has no layers after a pooling
    found = reference.features(params, _picture(spectrum, decay), (base,), pooling, "zeros")[base]
    return (found if layer == base else reference.pool(found, pooling))[..., channel].mean()


def test_a_silent_channel_rises_before_the_rectifier(x64, tiny, rng):
    params = _params(tiny)
    low = {**params["conv1_1"], "bias": params["conv1_1"]["bias"].at[2].add(-50.0)}
    params["conv1_1"] = low
    goal = task.Maximum(layers=("relu1_1",), robust=False)
    spectrum, own = rng.standard_normal((12, 10, 3)), (jnp.int32(0), jnp.int32(2))
    evaluate = jax.jit(jax.value_and_grad(lambda canvas: goal(KEY, canvas, params, own), has_aux=True))
    (loss, terms), gradient = evaluate(jnp.asarray(spectrum))
    before = reference.features(params, _picture(spectrum, 1.0), ("conv1_1",), "avg", "zeros")["conv1_1"][..., 2]
    assert before.max() < 0
    assert float(terms["activation"]) == 0
    np.testing.assert_allclose(-float(loss), before.mean(), rtol=1e-10)
    assert np.abs(gradient).max() > 1e-6


@pytest.fixture
def prepare(tiny):
    def prepare(*, given=None, **options):
        config = MaximizeConfig(**{**BASE, **options})
        params = {name: tiny[name] for name in ("mean", *vgg.convolutions(["relu1_2"]))}
        return task.prepare(KEY, params, config, **(given or {}))

    return prepare


@pytest.mark.slow
def test_all_channels_at_once_are_each_alone(x64, prepare, tiny):
    """Under the random transforms, with the keys that are promised."""
    at_once = loop.run(prepare(precision="float64")).image
    goal = task.Maximum(layers=("relu1_2", "relu1_1"))
    params = {name: _params(tiny)[name] for name in ("mean", *vgg.convolutions(["relu1_2"]))}
    for lane, own in enumerate([(0, 3), (0, 0), (1, 2)]):
        key = jax.random.fold_in(KEY, lane)
        start = lambda key=key: 0.01 * jax.random.normal(key, (16, 16, 3), jnp.float32).astype(float)  # noqa: E731
        optimizer = OptimizerConfig(optimizer="adam", projection="none", last=True)
        rates = Rates(jnp.asarray(0.05))
        own = tuple(np.int32(number) for number in own)
        stage = stages.make_stage(key, goal, params, start, rates, optimizer, steps=4, own=own)
        state = stage.begin()
        for _ in range(5):  # the first one only evaluates
            state, _ = stage.advance(state, 1)
        alone = _picture(np.asarray(state.canvas), 1.0)
        assert np.abs(alone - 0.5).max() > 0.05
        np.testing.assert_allclose(at_once[lane], alone, atol=1e-6)


@pytest.mark.slow
def test_the_adam_step_is_that_of_the_paper(x64, prepare, tiny):
    """Kingma & Ba 2015, on the gradient that JAX finds of the objective alone."""
    options = {"layers": "relu1_1:1", "robust": "none", "precision": "float64", "steps": 2}
    found = loop.run(prepare(**options)).image[0]
    goal = task.Maximum(layers=("relu1_1",), robust=False)
    params, own = _params(tiny), (jnp.int32(0), jnp.int32(1))
    slope = jax.jit(jax.grad(lambda canvas: goal(KEY, canvas, params, own)[0]))
    canvas = 0.01 * np.asarray(jax.random.normal(jax.random.fold_in(KEY, 0), (16, 16, 3), jnp.float32), float)
    m = v = np.zeros_like(canvas)
    for t in (1, 2):
        canvas, m, v = reference.adam_step(canvas, np.asarray(slope(jnp.asarray(canvas))), m, v, t, 0.05)
    np.testing.assert_allclose(found, _picture(canvas, 1.0), atol=1e-6)


@pytest.mark.slow
def test_one_program_serves_all_channels(prepare, monkeypatch):
    traced = []
    original = task.Maximum.__call__
    monkeypatch.setattr(task.Maximum, "__call__", lambda *given: (traced.append(1), original(*given))[1])
    # Other options than elsewhere: nothing that is compiled already serves.
    options = {"decay": 0.9, "robust": "none", "size": 12}
    prepare(layers="relu1_1:0", **options)
    for_one = len(traced)
    prepare(layers="relu1_1:0,1,2,3", **options)
    assert len(traced) == 2 * for_one  # no more for four
    before = stages._program.cache_info().misses
    prepare(layers="relu1_1:3,2,0,1", **options)
    assert len(traced) == 2 * for_one
    assert stages._program.cache_info().misses == before


@pytest.mark.slow
def test_the_activation_rises_and_is_what_numpy_finds(prepare, tiny):
    prepared = prepare(steps=12, robust="none")
    result = loop.run(prepared)
    assert result.image.shape == (3, 16, 16, 3)
    assert 0 <= result.image.min() <= result.image.max() <= 1
    rows = [row["activation"] for row in result.trace]
    assert rows == sorted(rows)
    found = task.activations(tiny, result.image, prepared.config)
    expected = []
    for image, (layer, channel) in zip(result.image, [("relu1_2", 3), ("relu1_2", 0), ("relu1_1", 2)], strict=True):
        expected.append(reference.features(tiny, image, (layer,), "avg", "zeros")[layer][..., channel].mean())
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.mean(found) == pytest.approx(rows[-1], rel=1e-4)
    gray = reference.features(tiny, np.full((16, 16, 3), 0.5), ("relu1_2", "relu1_1"), "avg", "zeros")
    assert found[0] > gray["relu1_2"][..., 3].mean()
    assert found[2] > gray["relu1_1"][..., 2].mean()


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bytes(prepare):
    seen = []
    whole = loop.run(prepare(), callback=lambda record: seen.append(record.image()) and None)
    # Losses under different transforms do not compare: the last picture is meant, not the one of the least loss.
    np.testing.assert_array_equal(whole.image, seen[-1])
    assert whole.best_step == 4
    kept = []

    def stop(record):
        if record.step == 2:
            snapshot = record.snapshot()
            kept.append(snapshot._replace(leaves=[np.array(leaf) for leaf in snapshot.leaves]))
        return record.step == 2

    assert loop.run(prepare(), callback=stop).stopped == "interrupted"
    result = loop.run(prepare(given={"snapshot": kept[0]}))
    assert result.image.tobytes() == whole.image.tobytes()
    assert result.trace == whole.trace
    with pytest.raises(ValueError, match="other parts"):
        prepare(given={"snapshot": kept[0]._replace(leaves=kept[0].leaves[1:])})


@pytest.mark.slow
def test_random_filters_are_scaled_whatever_the_key():
    from jnst.weights import random_backbone

    params = random_backbone(0, ["conv1_2"]).params
    pictures = np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)).astype(np.float32)
    config = MaximizeConfig(layers="conv1_2:0,1", size=16)
    scaled, plain = (np.array(task.activations(params, pictures, config, standardize=way)) for way in (True, False))
    ratio = scaled / plain  # there is no bias before conv1_2: one number for all channels
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-4)
    assert ratio[0] > 2


def test_channels_that_are_not_named_are_the_first(tiny):
    params = {name: tiny[name] for name in ("mean", "conv1_1", "conv1_2", "conv2_1")}
    config = MaximizeConfig(layers="relu1_2:3,1,relu2_1,pool1", channels=5)
    assert task.channels_of(params, config) == [
        ("relu1_2", (3, 1)),
        ("relu2_1", (0, 1, 2, 3, 4)),
        ("pool1", (0, 1, 2, 3)),
    ]
    with pytest.raises(InputError, match=r"--layers=relu1_2:0,4: relu1_2 has no channel 4; expected 0 to 3$"):
        task.channels_of(params, MaximizeConfig(layers="relu1_2:0,4"))


@pytest.mark.slow
def test_too_little_memory_is_said(prepare):
    with pytest.raises(InputError, match=r"--size: 16x16 pixels 3 times need .* a smaller --size, or fewer channels$"):
        prepare(given={"room": 10})
