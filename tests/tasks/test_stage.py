"""How a scale is computed: whole, in tiles, with fewer pairs of L-BFGS, or not at all, as the memory allows."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import reference

from jnst.config import StylizeConfig
from jnst.errors import InputError
from jnst.tasks import stylize as task
from jnst.tasks.stylize import stage

KEY = jax.random.key(0)
ROOT = Path(__file__).resolve().parents[2]
BASE = StylizeConfig(steps=3, print_every=1, content_layers="relu2_1", style_layers="relu1_1,relu2_1")
MIB = 2**20


def _config(**options):
    return StylizeConfig(**{**vars(BASE), **options})


@pytest.fixture(scope="module")
def params(tiny):
    return {name: tiny[name] for name in ("mean", "conv1_1", "conv1_2", "conv2_1")}


def _prepare(params, config, side=60, **options):
    pictures = [reference.smooth_picture(side, side + 7, seed=seed) for seed in (1, 2)]
    return task.prepare(KEY, params, pictures[0], pictures[1:], config, **options)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_run_in_tiles_is_the_whole_one(x64, params, optimizer):
    found = []
    for tile in ("0", "16"):
        config = _config(tile=tile, optimizer=optimizer, precision="float64", canvas_scale=255, average_decay=0.5)
        prepared = _prepare(params, config)
        assert (prepared.stage.plan.tile, bool(prepared.stage.note)) == (int(tile), tile != "0")
        found.append(task.run(prepared))
    np.testing.assert_allclose(found[1].image, found[0].image, atol=1e-7)  # float32 from float64
    for one, other in zip(*(result.trace for result in found), strict=True):
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-9, atol=1e-20)


@pytest.mark.slow
def test_a_tile_as_large_as_the_picture_is_the_picture(params):
    assert _prepare(params, _config(tile="4096"), side=16).stage.plan.tile == 0


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(stage, "AUTO_TILES", (48, 32, 16))


def _needs(params, **options):
    return _prepare(params, _config(**options), room=None).stage.bytes


@pytest.mark.slow
def test_auto_takes_the_largest_that_fits(params, small_tiles):
    whole, largest, smallest = (_needs(params, tile=tile) for tile in ("0", "48", "16"))
    assert whole > largest > smallest > 0
    plan = lambda room: _prepare(params, BASE, room=room).stage.plan  # noqa: E731
    assert plan(whole).tile == 0
    assert plan(whole - 1).tile == 48
    assert plan(smallest).tile == 16


@pytest.mark.slow
def test_pairs_of_l_bfgs_are_counted_and_given_up_last(params, small_tiles):
    needed = _needs(params, tile="16", history=20)
    pair = 2 * 60 * 67 * 3 * 4
    fewer = _prepare(params, BASE, room=needed - 5 * pair).stage
    assert (fewer.plan.tile, fewer.plan.history) == (16, 15)
    assert fewer.note.endswith("memory: L-BFGS remembers 15 pairs instead of 20")
    assert fewer.bytes <= needed - 5 * pair
    assert [leaf.shape[0] for leaf in (fewer.like.opt_state.moves, fewer.like.opt_state.rho)] == [15, 15]
    task.run(_prepare(params, BASE, room=needed - 5 * pair))  # and it runs
    with pytest.raises(InputError, match=r"67x60 pixels need .* GiB of memory, .* smaller --size, or --optimizer=adam"):
        _prepare(params, BASE, room=needed - 18 * pair)


@pytest.mark.slow
def test_whatever_is_asked_for_is_refused_where_it_does_not_fit(params):
    for tile in ("0", "16"):
        with pytest.raises(InputError, match="--size: 67x60 pixels need"):
            _prepare(params, _config(tile=tile, optimizer="adam"), room=MIB // 8)
    with pytest.raises(InputError, match="--size"):  # a search cannot be made in tiles
        _prepare(params, _config(line_search="zoom", learning_rate=0.0), room=MIB // 8)


def test_without_knowing_the_memory_nothing_is_cut(params, small_tiles):
    assert _prepare(params, BASE, room=None).stage.plan.tile == 0


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_plan(params, small_tiles):
    room = _needs(params, tile="16", history=20) - 5 * 2 * 60 * 67 * 3 * 4
    kept = []
    whole = task.run(
        _prepare(params, BASE, room=room),
        callback=lambda r: kept.append(r.snapshot()._replace(leaves=[np.array(leaf) for leaf in r.snapshot().leaves])),
    )
    again = _prepare(params, BASE, room=None, snapshot=kept[1])
    assert again.stage.plan == (16, 15)
    np.testing.assert_array_equal(task.run(again).image, whole.image)


SEVERAL = """
import sys
sys.path.insert(0, "tests")
import jax
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np, reference
from jnst.config import StylizeConfig
from jnst.errors import InputError
from jnst.tasks import stylize as task
jax.config.update("jax_enable_x64", True)
params = reference.random_params((4, 5, 6, 7, 8), seed=0)
params = {name: params[name] for name in ("mean", "conv1_1", "conv1_2", "conv2_1")}
pictures = [reference.smooth_picture(120, 131, seed=seed) for seed in (1, 2)]
config = StylizeConfig(steps=3, print_every=1, content_layers="relu2_1", style_layers="relu1_1,relu2_1", tile="32",
                       precision="float64", history=40)
prepare = lambda devices, room: task.prepare(
    jax.random.key(0), params, pictures[0], pictures[1:], config, devices=devices, room=room)
devices = jax.devices()
one, several = prepare(devices[:1], None), prepare(devices, None)
room = several.stage.bytes
assert room < 0.3 * one.stage.bytes  # the pairs are spread, the picture and the network are not
assert several.stage.plan.history == 40 and "8 devices" in several.stage.note, several.stage.note
try:
    assert prepare(devices[:1], room).stage.plan.history < 40  # that is not the run that was asked for
except InputError as error:
    assert "need" in str(error)
found, alone = task.run(several), task.run(one)
np.testing.assert_allclose(found.image, alone.image, atol=1e-7)
np.testing.assert_allclose([list(row.values()) for row in found.trace],
                           [list(row.values()) for row in alone.trace], rtol=1e-9, atol=1e-20)
"""


@pytest.mark.slow
def test_a_picture_too_large_for_one_device_fits_several():
    process = subprocess.run([sys.executable, "-c", SEVERAL], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_a_style_too_large_for_the_room_is_looked_at_in_tiles(params, small_tiles, monkeypatch):
    calls, original = [], stage.tiles.style_statistics
    monkeypatch.setattr(stage.tiles, "style_statistics", lambda *a, **k: calls.append(1) or original(*a, **k))
    content, style = reference.smooth_picture(40, 40, seed=1), reference.smooth_picture(170, 150, seed=2)
    room = 2 * _needs(params, tile="0")
    rows = []
    for given in (None, room):
        rows.append(task.run(task.prepare(KEY, params, content, [style], BASE, room=given)).trace)
        assert bool(calls) == (given is not None)
    for one, other in zip(*rows, strict=True):
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-3, atol=1e-12)
