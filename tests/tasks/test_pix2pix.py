"""Pix2pix trained: two updates against PyTorch, what each objective is made of, several at once as each alone, exact
resume, and its use."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import translation_golden as golden

from jnst import games, train
from jnst.config import PIX2PIX_LOSSES, PatchSpec, TrainConfig, UnetSpec
from jnst.tasks import pix2pix
from jnst.types import Rates

KEY = jax.random.key(0)
NET = UnetSpec(levels=3, width=2, dropout=0.5)
SIDE, WIDTH = 8, 2


def _game(*, objective="l1+cgan", norm="instance", **net):
    return pix2pix.Game(
        net=dataclasses.replace(NET, norm=norm, **net),
        judge=PatchSpec(layers=1, width=WIDTH, channels=6 if "cgan" in objective else 3, norm=norm),
        objective=objective,
    )


def _spec(game=None, *, steps=4, together="auto"):
    own = TrainConfig(steps=steps, average_decay=0.0)
    return games.Spec(game=game or _game(), generator=own, discriminator=own, together=together)


def _choice(seed=0, rate=2e-4, other=None):
    rates = Rates(jnp.float32(rate), beta1=jnp.float32(0.5))
    return games.Choice(jnp.uint32(seed), rates, rates._replace(learning_rate=jnp.float32(other or rate)))


def _begin(choices=None, spec=None, devices=None, batch=4, **more):
    choices = choices or [_choice()]
    mesh = train.spread_over(devices or jax.devices()[:1], len(choices), batch)
    return games.prepare(KEY, choices, spec or _spec(), mesh=mesh, **more)


def _pairs(count, side, seed=0):
    """Waves of color, and the same with colors inverted: what a network has to find out."""
    rng = np.random.default_rng(seed)
    places = np.linspace(0, 3, side)
    waves = np.sin(
        places[:, None, None] * rng.uniform(-2, 2, (count, 1, 1, 3))
        + places[None, :, None] * rng.uniform(-2, 2, (count, 1, 1, 3))
        + rng.uniform(0, 6, (count, 1, 1, 3))
    )
    given = np.round(127.5 + 110 * waves).astype(np.uint8)
    return given, 255 - given


def _run(prepared, **more):
    given, target = _pairs(12, SIDE)
    source = lambda step: tuple(each[4 * (step % 3) : 4 * (step % 3) + 4] for each in (given, target))  # noqa: E731
    return games.run(KEY, prepared, source, an_epoch=3, **more)


def _assert_close(one, other, tolerance):
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def _golden(norm, steps=2):
    game = pix2pix.Game(
        net=dataclasses.replace(golden.UNET, norm=norm),
        judge=dataclasses.replace(golden.JUDGE, norm=norm, channels=6),
    )
    return _spec(game, steps=steps)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_two_updates_are_those_of_pytorch(norm):
    """float32 here, float64 there: losses to 1e-5, Adam's moments to 1e-4 of each array's largest, and of the updates,
    which hang on the sign where a gradient is near 0, 99 % to a hundredth of the step size."""
    spec, count = _golden(norm), {"instance": 1, "batch": 4}[norm]
    prepared = golden.replaced(_begin(spec=spec, batch=count), "pix2pix")
    images = golden.load()["pictures"]
    pairs = [(each[:count], each[4 : 4 + count]) for each in (images, images[:, :, ::-1])]
    kept = []

    def callback(record):
        kept.append((record.terms()[0], record.snapshot()))

    games.run(KEY, prepared, lambda step: pairs[step], an_epoch=10, callback=callback)
    for (terms, _), expected in zip(kept, golden.load()[f"pix2pix/{norm}/terms"], strict=True):
        np.testing.assert_allclose([terms[name] for name in spec.game.terms], expected, rtol=1e-5)
    final = train.restore(_begin(spec=spec, batch=count).state, kept[-1][1].leaves).networks
    golden.assert_updated(final, f"pix2pix/{norm}")


@pytest.mark.slow
def test_it_learns_a_mapping_that_held_out_pictures_follow():
    """Inverted colors: gray, and a picture's mean inverted, are 0.27 off, leaving pictures as they are is 0.55 off."""
    given, target = _pairs(68, 32)
    source = lambda step: tuple(each[step % 64 :][:1] for each in (given, target))  # noqa: E731
    spec = _golden("instance", steps=400)
    result = games.run(KEY, _begin([_choice(rate=6e-3)], spec, batch=1), source, an_epoch=50)
    made = pix2pix.translate(None, result.variables[0], given[64:] / np.float32(255), spec.game.net)
    wanted = target[64:] / np.float32(255)
    assert np.abs(0.5 - wanted).mean() > 0.25
    assert np.abs(made - wanted).mean() < 0.17
    assert np.isfinite(list(result.trace[-1].values())).all()


@pytest.fixture(scope="module")
def objectives():
    """Terms of each objective for the same generator, and what the discriminator's loss hangs on: its largest gradient
    with respect to what goes in, when the generator makes the same of everything."""
    batch = tuple(jnp.asarray(each / np.float32(127.5) - 1) for each in _pairs(2, SIDE))
    spread = {"scale": 1.0, "shift": 0.3}

    def start(objective):
        shapes = jax.eval_shape(lambda: _game(objective=objective).begin(KEY)[0])
        rng = np.random.default_rng(0)
        draw = lambda path, leaf: spread.get(path[-1].key, 0) + 0.3 * rng.standard_normal(leaf.shape)  # noqa: E731
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), jax.tree_util.tree_map_with_path(draw, shapes))

    def of(params, objective):
        game, blind = _game(objective=objective, dropout=0.0), dict(params.generator)
        blind["up_0"] = jnp.zeros_like(blind["up_0"])

        def seen(given):
            losses, _ = game.loss(KEY, params._replace(generator=blind), train.Pair({}, {}), (given, batch[1]))
            return losses.discriminator

        losses, (terms, _) = game.loss(KEY, params, train.Pair({}, {}), batch)
        gradient = jax.grad(seen)(batch[0]) if game.plays else jnp.zeros(())
        return losses, terms, jnp.abs(gradient).max()

    starts = {objective: start(objective) for objective in PIX2PIX_LOSSES}
    with golden.quickly():
        found = jax.jit(lambda starts: {name: of(params, name) for name, params in starts.items()})(starts)
    return jax.device_get(found)


@pytest.mark.slow
def test_objectives_are_their_parts(objectives):
    l1 = objectives["l1"][1]["l1"]
    assert l1 > 0.1
    assert objectives["l1"][0].generator == pytest.approx(100 * l1, rel=1e-6)
    for name in ("gan", "cgan"):
        assert objectives[name][1]["l1"] == pytest.approx(l1, rel=1e-6)
        both = objectives[f"l1+{name}"][0]
        assert both.generator == pytest.approx(objectives[name][0].generator + 100 * l1, rel=1e-6)
        assert both.discriminator == pytest.approx(objectives[name][0].discriminator, rel=1e-6)
        assert 0.05 < objectives[name][0].generator < 20
        # Halved: a discriminator that knows nothing would have log 2.
        assert 0.1 < objectives[name][0].discriminator < 5


@pytest.mark.slow
def test_only_a_conditional_discriminator_sees_what_goes_in(objectives):
    for name in ("cgan", "l1+cgan"):
        assert objectives[name][2] > 1e-4
    for name in ("gan", "l1+gan"):
        assert objectives[name][2] == 0


@pytest.mark.slow
def test_with_l1_alone_there_is_no_discriminator():
    spec = _spec(_game(objective="l1"), steps=2)
    prepared = _begin(spec=spec)
    assert not jax.tree.leaves(prepared.state.networks.discriminator.params)
    assert spec.game.terms == ("generator", "l1")
    before = jax.device_get(prepared.state.networks.generator.params)
    kept = []
    with golden.quickly():
        result = _run(prepared, callback=lambda record: kept.append(record.terms()[0]))
    assert [set(terms) for terms in kept] == [{"generator", "l1"}] * 2
    assert kept[1]["generator"] == pytest.approx(100 * kept[1]["l1"], rel=1e-6)
    moved = [
        np.abs(new - old[0]).max()
        for new, old in zip(jax.tree.leaves(result.variables[0]["params"]), jax.tree.leaves(before), strict=True)
    ]
    assert min(moved) > 0


@pytest.mark.slow
def test_several_at_once_are_what_each_alone_is_and_it_goes_on_to_the_same_bytes():
    choices = [_choice(0), _choice(1, rate=1e-3, other=5e-4)]
    with golden.quickly():
        several = _run(_begin(choices))
        for net, choice in enumerate(choices):
            kept = []
            alone = _run(_begin([choice]), callback=lambda record, kept=kept: kept.append(record.snapshot()))
            _assert_close(several.variables[net], alone.variables[0], 1e-4)
            rows = [{**row, "net": 0} for row in several.trace if row["net"] == net]
            assert [row["step"] for row in rows] == [row["step"] for row in alone.trace] == [3, 4]
            for ours, theirs in zip(rows, alone.trace, strict=True):
                assert ours == pytest.approx(theirs, rel=1e-4)
        assert several.trace[0]["generator"] != several.trace[1]["generator"]  # they are two networks
        rest = _run(_begin([choice], snapshot=kept[1]))  # within an epoch
    assert rest.trace == alone.trace
    for ours, theirs in zip(jax.tree.leaves(rest.variables), jax.tree.leaves(alone.variables), strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("noise", [True, False])
def test_use_is_of_each_picture_alone_and_of_any_size(noise):
    net = dataclasses.replace(NET, norm="batch")
    shapes = jax.eval_shape(lambda: _game(norm="batch").begin(KEY)[0].generator)
    rng = np.random.default_rng(0)
    variables = {"params": jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape).astype("f"), shapes)}
    images = rng.uniform(0, 1, (2, 13, 22, 3)).astype(np.float32)
    key = KEY if noise else None
    made = np.asarray(pix2pix.translate(key, variables, images, net))
    assert made.shape == images.shape
    assert made.min() >= 0
    assert made.max() <= 1
    assert made.std() > 0.05
    # Though it was trained by the moments of batches.
    np.testing.assert_allclose(pix2pix.translate(key, variables, images[:1], net), made[:1], atol=1e-5)
    again = np.asarray(pix2pix.translate(jax.random.key(1) if noise else None, variables, images, net))
    assert np.array_equal(again, made) is not noise
    compiled = pix2pix._translated._cache_size()  # noqa: SLF001
    pix2pix.translate(key, variables, images[::-1], net)
    assert pix2pix._translated._cache_size() == compiled  # noqa: SLF001


_SPREAD = """
import sys, jax
sys.path[:0] = [sys.argv[1]]
from tasks import test_pix2pix as t
# Batch normalization sees all of a spread batch, and what is dropped from it is what is dropped from a whole one.
one, four = jax.devices()[:1], jax.devices()[:4]
spec = t._spec(t._game(norm="batch"), steps=3)
assert t._begin(devices=four).mesh.shape["batch"] == 4
whole, cut = (t._run(t._begin(spec=spec, devices=devices)) for devices in (one, four))
t._assert_close(whole.variables, cut.variables, 2e-4)
for ours, theirs in zip(whole.trace, cut.trace, strict=True):
    assert ours == t.pytest.approx(theirs, rel=1e-4), (ours, theirs)
print("same")
"""


@pytest.mark.slow
def test_over_several_devices_it_is_the_same_training():
    folder = os.path.dirname(os.path.dirname(__file__))
    own = {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SPREAD, folder],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip().endswith("same"), done.stderr[-2000:]
