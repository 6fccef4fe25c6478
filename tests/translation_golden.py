"""What data/translation.npz holds, see data/make_translation.py: pix2pix's and CycleGAN's networks by PyTorch."""

import contextlib
import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jnst.config import PatchSpec, ResnetSpec, UnetSpec
from jnst.nets import patchgan, resnet, unet

__all__ = [
    "JUDGE",
    "RESNET",
    "SIZE",
    "UNET",
    "assert_updated",
    "enlarged",
    "few",
    "load",
    "quickly",
    "ranged",
    "replaced",
    "start",
]

_RATE = 2e-4

SIZE = 32
UNET = UnetSpec(levels=5, width=2, dropout=0.0)
RESNET = ResnetSpec(blocks=1, width=2)
JUDGE = PatchSpec(layers=1, width=2)


@functools.cache
def load():
    """Arrays by name."""
    with np.load(Path(__file__).parent / "data" / "translation.npz") as file:
        return {name: file[name] for name in file.files}


def _shapes():
    key = jax.random.key(0)
    judge = lambda **how: patchgan.init(key, dataclasses.replace(JUDGE, **how))  # noqa: E731
    return {
        "pix2pix": {"generator": unet.init(key, UNET), "discriminator": judge(channels=6)},
        "cyclegan": {
            "generator": {way: resnet.init(key, RESNET) for way in ("AtoB", "BtoA")},
            "discriminator": {name: judge() for name in "AB"},
        },
        "patchgan": {str(layers): judge(layers=layers) for layers in (0, 3)},
    }


def start(name, dtype=np.float32):
    """First parameters of `pix2pix`, `cyclegan`, or `patchgan`, by jnst's names."""
    vector, flat, at = load()[f"start/{name}"], flatten_dict(jax.eval_shape(_shapes)[name], sep="/"), 0
    found = {}
    for path in sorted(flat):
        size = flat[path].size
        found[path] = vector[at : at + size].reshape(flat[path].shape).astype(dtype)
        at += size
    assert at == len(vector)
    return unflatten_dict(found, sep="/")


def few(array):
    """What the file has of an array."""
    stride, large = load()["stride"]
    array = np.asarray(array)
    return array.ravel()[::stride] if array.size > large else array


def replaced(prepared, name):
    """A training of one network that begins with the file's numbers."""
    networks = prepared.state.networks
    for side, params in start(name).items():
        state = getattr(networks, side)
        # Where they were: elsewhere, the program would be another one.
        params = jax.tree.map(lambda leaf, old: jax.device_put(leaf[None], old.sharding), params, state.params)
        copy = jax.tree.map(lambda leaf: leaf.copy(), params)
        networks = networks._replace(**{side: state._replace(params=params, average=state.average and copy)})
    return prepared._replace(state=prepared.state._replace(networks=networks))


def assert_updated(networks, name, updates=2):
    """Adam's moments to 1e-4 of each array's largest; of the updates, which hang on the sign where a gradient is 0 but
    for rounding, 99 % to a hundredth of the step size, and none is further off than that many steps."""
    sides, counted = networks._asdict(), []
    for kind in ("mu", "nu"):
        tree = {side: getattr(state.opt_state[0], kind) for side, state in sides.items()}
        pairs = _pairs(f"{name}/{kind}", tree)
        largest = max(np.abs(expected).max() for _, _, expected in pairs)
        for path, ours, expected in pairs:
            scale = np.abs(expected).max()
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * scale + 1e-6 * largest, err_msg=path)
            if kind == "mu":  # a shift that another normalization takes off again has no gradient
                counted.append(np.full(expected.shape, scale > 1e-6 * largest))
    tree = {side: state.params for side, state in sides.items()}
    apart = np.concatenate([np.abs(ours - theirs) for _, ours, theirs in _pairs(f"{name}/params", tree)])
    counted = np.concatenate(counted)
    assert counted.mean() > 0.9
    assert apart.max() <= 2.1 * updates * _RATE
    assert (apart[counted] <= 0.01 * _RATE).mean() > 0.99


@contextlib.contextmanager
def quickly():
    """Programs are compiled in half the time, to run slower."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _pairs(name, tree):
    """`(path, ours, expected)` of each array, as far as the file has it."""
    vector, flat, at, found = load()[name], flatten_dict(jax.device_get(tree), sep="/"), 0, []
    for path in sorted(flat):
        ours = few(flat[path][0]).ravel()
        found.append((path, ours, vector[at : at + ours.size]))
        at += ours.size
    assert at == len(vector)
    return found


def enlarged(picture, height, width):
    """A picture beside and below itself, cut: `[1, height, width, 3]`."""
    return np.tile(picture, (2, 2, 1))[None, :height, :width]


def ranged(images, dtype=np.float64):
    """Bytes as [-1, 1]."""
    return np.asarray(images, dtype) / 127.5 - 1
