import dataclasses
import itertools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from reference import smooth_picture
from reference import stylenet as reference

from jnst.config import StyleNetSpec
from jnst.config.choices import HEADS, NORMS, STYLENET_BORDERS, UPSAMPLES
from jnst.nets import stylenet

SPEC = StyleNetSpec(widths=(4, 6), blocks=1, kernel=5, head="residual")
init = jax.jit(stylenet.init, static_argnames=("spec",))
apply = jax.jit(stylenet.apply, static_argnames=("spec", "train"))


def _variables(spec, dtype=np.float64, seed=0):
    """A network with nothing left at 0 or 1, and a picture that is not nearly the photo."""
    rng = np.random.default_rng(seed)
    variables = jax.eval_shape(lambda: stylenet.init(jax.random.key(0), spec))

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape)
        name = path[-1].key
        if name in ("scale", "variance"):
            return (0.3 + np.abs(noise)).astype(dtype)
        return (noise / (np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim == 4 and name != "mean" else 4)).astype(dtype)

    return jax.tree_util.tree_map_with_path(draw, variables)


def _photos(height, width, count=2, dtype=np.float64):
    return np.stack([smooth_picture(height, width, seed) for seed in range(count)]).astype(dtype)


CASES = [
    *itertools.product(NORMS, STYLENET_BORDERS, UPSAMPLES, ["residual"]),
    *(("instance", "reflect", "resize", head) for head in HEADS if head != "residual"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "border", "upsample", "head"), CASES)
def test_equals_the_reference(x64, norm, border, upsample, head):
    spec = StyleNetSpec(
        widths=(3, 4, 5), blocks=2, kernel=5, norm=norm, border=border, upsample=upsample, head=head, styles=2
    )
    variables, photos, mix = _variables(spec), _photos(11, 14), np.array([[0.3, 0.7], [1.0, 0.0]])
    ours, _ = apply(variables, photos, mix, spec)
    expected = reference.painted(variables, photos, mix, spec)
    assert np.abs(expected - photos).max() > 0.1
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_float32_is_right_to_a_hundred_thousandth():
    variables, photos, mix = _variables(SPEC, np.float32), _photos(9, 6, dtype=np.float32), np.ones((2, 1), np.float32)
    with jax.default_matmul_precision("highest"):
        ours, running = apply(variables, photos, mix, SPEC)
    expected = reference.painted(variables, photos, mix, SPEC)
    assert ours.dtype == jnp.float32
    assert not running
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("upsample", UPSAMPLES)
def test_a_picture_has_the_size_of_the_photo(upsample):
    spec = StyleNetSpec(widths=(2, 3, 4), blocks=1, upsample=upsample)
    variables = jax.eval_shape(lambda: stylenet.init(jax.random.key(0), spec))
    for height, width in [(1, 1), (2, 3), (5, 1), (7, 8), (12, 9), (13, 13), (64, 31), (203, 157)]:
        photos = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
        found, _ = jax.eval_shape(lambda *a: stylenet.apply(*a, spec), variables, photos, jnp.ones((2, 1)))  # noqa: B023
        assert found.shape == photos.shape
        assert found.dtype == jnp.float32


def test_sizes_are_halved_and_rounded_up():
    assert stylenet.sizes_of((203, 1), StyleNetSpec(widths=(1, 1, 1, 1))) == ((203, 1), (102, 1), (51, 1), (26, 1))


@pytest.mark.slow
def test_a_new_network_begins_near_the_photo():
    photos = _photos(32, 32, dtype=np.float32)
    variables = init(jax.random.key(0), SPEC)
    near, _ = apply(variables, photos, jnp.ones((2, 1)), SPEC)
    added = np.abs(near - photos).mean()
    assert 0 < added < 0.2 < np.abs(photos - photos[::-1]).max()
    linear, _ = apply(variables, photos, jnp.ones((2, 1)), dataclasses.replace(SPEC, head="linear"))
    np.testing.assert_allclose(np.abs(linear - 0.45).mean(), added, rtol=1e-4)


@pytest.mark.slow
def test_instance_normalization_ignores_the_other_photos_and_contrast():
    variables, mix = _variables(SPEC, np.float32), jnp.ones((1, 1))
    photos = np.random.default_rng(0).random((2, 9, 6, 3), np.float32)  # so rough that EPSILON is little
    alone, _ = apply(variables, photos[:1], mix, SPEC)
    together, _ = apply(variables, photos, jnp.ones((2, 1)), SPEC)
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6)
    # What the network adds is the same for a photo of half the contrast, but for EPSILON.
    pale = 0.45 + 0.5 * (photos[:1] - 0.45)
    painted, _ = apply(variables, pale, mix, SPEC)
    np.testing.assert_allclose(painted - pale, alone - photos[:1], atol=5e-3)


def test_instance_normalization_is_the_same_in_training():
    variables, photos = _variables(SPEC, np.float32), _photos(9, 6, dtype=np.float32)
    trained, running = apply(variables, photos, jnp.ones((2, 1)), SPEC, train=True)
    np.testing.assert_array_equal(trained, apply(variables, photos, jnp.ones((2, 1)), SPEC)[0])
    assert not running


@pytest.mark.slow
def test_batch_normalization_trains_by_the_batch_and_paints_by_the_running_moments(x64):
    spec = dataclasses.replace(SPEC, norm="batch")
    variables, photos, mix = _variables(spec), _photos(9, 6), np.ones((2, 1))
    ours, running = apply(variables, photos, mix, spec, train=True)
    expected, found = reference.painted(variables, photos, mix, spec, train=True)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)
    assert running.keys() == found.keys() == variables["running"].keys()
    for name, moments in found.items():
        for part, value in zip(("mean", "variance"), moments, strict=True):
            kept = 0.9 * variables["running"][name][part].ravel() + 0.1 * value
            np.testing.assert_allclose(running[name][part].ravel(), kept, rtol=1e-12, err_msg=name)
    painted, same = apply(variables, photos, mix, spec)
    np.testing.assert_allclose(painted, reference.painted(variables, photos, mix, spec), rtol=0, atol=1e-12)
    assert np.abs(painted - ours).max() > 0.01
    jax.tree.map(np.testing.assert_array_equal, dict(same), variables["running"])


@pytest.mark.slow
def test_a_mix_is_linear_in_scale_and_shift():
    """Half of each of two styles is the network of one style that has the mean of their scales and shifts."""
    spec = dataclasses.replace(SPEC, styles=2)
    two, photos = _variables(spec, np.float32), _photos(9, 6, dtype=np.float32)

    def one(rows):
        mixed = jnp.asarray(rows, jnp.float32)[None]
        pick = lambda path, x: mixed @ x if path[-1].key in ("scale", "shift") else x  # noqa: E731
        return jax.tree_util.tree_map_with_path(pick, two)

    for rows in [(1, 0), (0, 1), (0.5, 0.5), (0.2, 0.8)]:
        mixed, _ = apply(two, photos, jnp.tile(jnp.asarray(rows, jnp.float32), (2, 1)), spec)
        alone, _ = apply(one(rows), photos, jnp.ones((2, 1)), SPEC)
        np.testing.assert_allclose(mixed, alone, atol=1e-5, err_msg=str(rows))
    each, _ = apply(two, np.repeat(photos[:1], 2, 0), jnp.eye(2), spec)
    assert np.abs(each[0] - each[1]).max() > 0.05


def test_a_network_uses_all_of_its_variables():
    """Whichever array is changed, another picture results: nothing is read and then lost."""
    spec = dataclasses.replace(SPEC, norm="batch")
    variables, photos = _variables(spec, np.float32), _photos(9, 6, 1, np.float32)
    before, _ = apply(variables, photos, jnp.ones((1, 1)), spec)
    leaves, tree = jax.tree.flatten(variables)
    for place, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(variables)):
        changed = [*leaves]
        changed[place] = leaf + np.float32(0.1)
        after, _ = apply(jax.tree.unflatten(tree, changed), photos, jnp.ones((1, 1)), spec)
        assert np.abs(after - before).max() > 1e-4, path


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_equal_finite_differences(x64, norm):
    spec = StyleNetSpec(widths=(2, 3), blocks=1, kernel=3, norm=norm, styles=2)
    variables, photos, mix = _variables(spec), _photos(5, 4), np.array([[0.3, 0.7], [1.0, 0.0]])

    def sums(params, photos):
        painted, _ = stylenet.apply({**variables, "params": params}, photos, mix, spec, train=True)
        return jnp.sum(painted**2)

    check_grads(jax.jit(sums), (variables["params"], photos), order=1, modes=["rev"], eps=1e-7, atol=1e-4, rtol=1e-4)


_SPREAD = """
import functools, json, jax, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
jax.config.update("jax_enable_x64", True)
from nets.test_stylenet import SPEC, _photos, _variables
import dataclasses
from jnst.nets import stylenet
spec = dataclasses.replace(SPEC, norm="batch")
variables, photos, mix = _variables(spec), _photos(9, 6, 8), np.ones((8, 1))
def loss(variables, photos, mix, axis_name):
    painted, running = stylenet.apply(variables, photos, mix, spec, train=True, axis_name=axis_name)
    return (painted ** 2).mean(), (painted, running)
def spread(variables, photos, mix):
    gradient, (painted, running) = jax.grad(loss, has_aux=True)(variables, photos, mix, "batch")
    return jax.lax.pmean(gradient["params"], "batch"), painted, running
mesh = Mesh(np.array(jax.devices()), ("batch",))
each = P("batch")
many = jax.jit(jax.shard_map(
    spread, mesh=mesh, in_specs=(P(), each, each), out_specs=(P(), each, P()), check_vma=False
))(variables, photos, mix)
gradient, (painted, running) = jax.jit(jax.grad(loss, has_aux=True), static_argnums=3)(variables, photos, mix, None)
one = gradient["params"], painted, running
differ = jax.tree.map(lambda a, b: float(abs(np.asarray(a) - np.asarray(b)).max()), many, one)
print(json.dumps([len(jax.devices()), max(jax.tree.leaves(differ)), float(abs(one[1]).max())]))
"""


@pytest.mark.slow
def test_a_batch_spread_over_devices_is_one_batch():
    """Batch normalization's moments, pictures and gradients: eight devices with a photo each are one with eight."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SPREAD], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    devices, difference, size = json.loads(done.stdout)
    assert devices == 8
    assert size > 0.1
    assert difference < 1e-12
