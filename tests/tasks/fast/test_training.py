"""Stylenets that are trained: what is learned, that several at once are what each alone is, and that it goes on
exactly."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import objective, train
from jnst.config import ObjectiveSpec, StyleNetSpec, TrainConfig
from jnst.nets import stylenet
from jnst.tasks.fast import painting, training
from jnst.types import Rates, Snapshot, Targets, Weights

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
LOSS = ObjectiveSpec(content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"), pooling="avg")
# A tiny network with another head stays in its first gray for long.
NET = StyleNetSpec(widths=(3, 4), blocks=1, kernel=3, head="residual")
SPEC = training.Spec(net=NET, objective=LOSS, training=TrainConfig(steps=6, average_decay=0.5))


def _spec(*, net=None, together="auto", **options):
    return dataclasses.replace(
        SPEC,
        net=dataclasses.replace(NET, **(net or {})),
        training=dataclasses.replace(SPEC.training, **options),
        together=together,
    )


@pytest.fixture(scope="module")
def backbone(tiny):
    needed = ("conv1_1", "conv1_2", "conv2_1")
    return jax.tree.map(jnp.asarray, {"mean": tiny["mean"], **{name: tiny[name] for name in needed}})


@pytest.fixture(scope="module")
def source():
    photos = [reference.smooth_picture(16, 16, seed) for seed in range(6)]
    return lambda index: np.stack([photos[(2 * index + place) % 6] for place in range(2)])


def _choice(backbone, *seeds, style_weight=1.0, rate=0.01, apart=False, darker=1.0):
    """`darker`: what all but the first style are multiplied by."""
    pictures = [reference.smooth_picture(12, 20, seed) * (darker if place else 1) for place, seed in enumerate(seeds)]
    weights = Weights(*map(jnp.float32, (1.0, style_weight, 0.1)), jnp.ones(1), jnp.full(2, 0.5))
    mix = None if apart else [1 / len(seeds)] * len(seeds)
    return training.style_choice(backbone, pictures, mix, weights, Rates(jnp.float32(rate)), LOSS)


def _begin(backbone, choices, spec=SPEC, devices=None, batch=2, **more):
    mesh = train.spread_over(devices or jax.devices()[:1], len(choices), batch)
    return training.prepare(KEY, backbone, choices, spec, mesh=mesh, **more)


def _run(backbone, choices, source, spec=SPEC, **more):
    return training.run(KEY, _begin(backbone, choices, spec, **more), source, print_every=1)


def _assert_close(one, other, tolerance):
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_loss_falls(backbone, source, norm):
    """On photos that are always the same, so that nothing else moves it."""
    spec = _spec(net={"norm": norm}, steps=30)
    rows = _run(backbone, [_choice(backbone, 7, style_weight=10.0, rate=0.02)], lambda index: source(0), spec).trace
    assert rows[-1]["total"] < 0.5 * rows[0]["total"]


def test_terms_are_the_objectives_of_what_the_network_paints(backbone, source):
    prepared = _begin(backbone, [_choice(backbone, 7)])
    variables = {"params": jax.tree.map(lambda leaf: np.array(leaf[0]), prepared.state.params)}
    row = training.run(KEY, prepared, source).trace[0]
    painted, _ = stylenet.apply(variables, source(0), np.ones((2, 1)), NET)
    choice = _choice(backbone, 7)
    style = jax.tree.map(lambda leaf: leaf[0], choice.styles)
    found = [
        objective.style_objective(
            backbone,
            image,
            Targets(objective.content_targets(backbone, jnp.asarray(photo), LOSS), style),
            choice.weights,
            LOSS,
        )[1]
        for image, photo in zip(painted, source(0), strict=True)
    ]
    for name in training.TERMS:
        np.testing.assert_allclose(row[name], np.mean([terms[name] for terms in found]), rtol=1e-5)


@pytest.mark.parametrize("together", ["turn", "vmap"])
def test_several_at_once_are_what_each_alone_is(backbone, source, together):
    choices = [_choice(backbone, 7), _choice(backbone, 8, style_weight=3.0), _choice(backbone, 7, rate=0.02)]
    several = _run(backbone, choices, source, _spec(together=together))
    for index, choice in enumerate(choices):
        alone = _run(backbone, [choice], source)
        _assert_close(several.variables[index], alone.variables[0], 2e-4)
        rows = [row for row in several.trace if row["net"] == index]
        assert [row["step"] for row in rows] == [row["step"] for row in alone.trace]
        np.testing.assert_allclose([r["total"] for r in rows], [r["total"] for r in alone.trace], rtol=1e-4)
    # They are three networks, not one thrice.
    assert len({row["total"] for row in several.trace if row["step"] == 6}) == 3


def test_it_goes_on_to_the_same_bytes(backbone, source):
    choices = [_choice(backbone, 7), _choice(backbone, 8)]
    spec = _spec(net={"norm": "batch"}, schedule="cosine", warmup=2)
    whole = _run(backbone, choices, source, spec)
    kept = []

    def callback(record):
        kept.append(record.snapshot())
        return record.step == 3

    first = training.run(KEY, _begin(backbone, choices, spec), source, print_every=1, callback=callback)
    assert first.stopped
    assert first.step == 3
    seen = []
    rest = training.run(
        KEY,
        _begin(backbone, choices, spec, snapshot=kept[-1]),
        lambda index: seen.append(index) or source(index),
        print_every=1,
    )
    assert seen == [3, 4, 5]
    assert rest.trace == whole.trace
    for ours, theirs in zip(jax.tree.leaves(rest.variables), jax.tree.leaves(whole.variables), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_another_trainings_snapshot_is_refused(backbone, source):
    kept = []
    training.run(KEY, _begin(backbone, [_choice(backbone, 7)]), source, callback=lambda r: kept.append(r.snapshot()))
    with pytest.raises(ValueError, match="another network"):
        _begin(backbone, [_choice(backbone, 7)], _spec(net={"blocks": 2}), snapshot=kept[0])
    with pytest.raises(ValueError, match="another network"):
        _begin(backbone, [_choice(backbone, 7)] * 2, snapshot=Snapshot(kept[0].leaves, []))


def test_one_network_learns_several_styles_apart(backbone, source):
    spec = _spec(net={"styles": 2}, steps=60, schedule="cosine")
    choice = _choice(backbone, 7, 9, style_weight=30.0, rate=0.03, apart=True, darker=0.3)
    # Each photo comes in both places of a batch, so that it is painted in both styles.
    photos = [source(index)[place] for index in range(3) for place in range(2)]
    mixed = lambda index: np.stack([photos[(index + place) % 6] for place in range(2)])  # noqa: E731
    found = _run(backbone, [choice], mixed, spec).variables[0]
    scales = found["params"]["downs_0"]["scale"]
    assert scales.shape == (2, 3)
    assert not np.allclose(scales[0], scales[1])

    def style_term(mix, target):
        painted = painting.paint(found, np.stack(photos), np.array(mix, np.float32), spec.net)
        style = jax.tree.map(lambda leaf: leaf[target], choice.styles)
        terms = [
            objective.style_objective(
                backbone, image, Targets(objective.content_targets(backbone, image, LOSS), style), choice.weights, LOSS
            )[1]
            for image in painted
        ]
        return np.mean([term["style"] for term in terms])

    assert style_term([1, 0], 0) < style_term([0, 1], 0)
    assert style_term([0, 1], 1) < style_term([1, 0], 1)


def test_a_network_goes_on_from_another(backbone, source):
    first = _run(backbone, [_choice(backbone, 7)], source).variables[0]
    prepared = _begin(backbone, [_choice(backbone, 8)], start=first)
    _assert_close(jax.tree.map(lambda leaf: leaf[0], prepared.state.params), first["params"], 0)


def test_evaluate_is_of_each_photo_by_itself(backbone, source):
    choice = _choice(backbone, 7)
    found = _run(backbone, [choice], source).variables[0]
    photos = source(0)
    both = training.evaluate(found, backbone, choice, photos, SPEC)
    assert both[1] == training.evaluate(found, backbone, choice, photos[1:], SPEC)[0]
    assert both[0]["total"] != both[1]["total"]
    assert all(row["total"] == pytest.approx(row["content"] + row["style"] + row["tv"], rel=1e-5) for row in both)


_SPREAD = """
import sys, numpy as np, jax
sys.path.insert(0, sys.argv[1])
from tasks.fast import test_training as t
import reference
backbone = jax.tree.map(jax.numpy.asarray, {n: p for n, p in reference.random_params((4, 5, 6, 7, 8), seed=0).items()
                        if n in ("mean", "conv1_1", "conv1_2", "conv2_1")})
photos = [reference.smooth_picture(16, 16, seed) for seed in range(6)]
source = lambda index: np.stack([photos[(index + place) % 6] for place in range(4)])
# Batch normalization sees all of a spread batch; so does what paints each photo of it in a style in turn.
for norm, styles, count in (("batch", 2, 1), ("instance", 1, 4)):
    choices = [t._choice(backbone, 7 + i, *range(styles - 1), apart=styles > 1) for i in range(count)]
    spec = t._spec(net={"norm": norm, "styles": styles}, steps=2)
    runs = []
    for devices in (jax.devices()[:1], jax.devices()[:4]):
        mesh = t.train.spread_over(devices, count, 4)
        assert mesh.size == len(devices), mesh
        prepared = t.training.prepare(t.KEY, backbone, choices, spec, mesh=mesh)
        runs.append(t.training.run(t.KEY, prepared, source, print_every=1))
    t._assert_close(runs[0].variables, runs[1].variables, 2e-4)
    totals = [[row["total"] for row in run.trace] for run in runs]
    np.testing.assert_allclose(*totals, rtol=1e-4)
print("same")
"""


def test_over_several_devices_it_is_the_same_training():
    """Networks are spread where there are as many, else the batch; batch normalization sees all of it."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SPREAD, folder],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip().endswith("same"), done.stderr[-2000:]
