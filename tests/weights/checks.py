"""What the tests of weight files share: how a refusal looks, when params are equal, conv1_1 on an image."""

import random
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnst import weights
from jnst.errors import InputError
from jnst.nets import vgg
from jnst.weights.backbone import check


def written(path, data):
    path.write_bytes(data)
    return path


def saved(path, arrays, save=np.savez):
    save(path, **arrays)
    return str(path)


def refusal(path, source="auto", match=None):
    """The one line that a file is refused with; nothing else is said on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=match) as error:
            weights.read(path, source)
    line = str(error.value)
    assert line.isprintable(), line
    assert Path(path).name in line
    assert len(line) < 1200
    return line


def assert_equal_params(found, expected):
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["mean"], expected["mean"])
    for name in expected.keys() - {"mean"}:
        for part in ("kernel", "bias"):
            np.testing.assert_array_equal(found[name][part], expected[name][part])


def assert_deeper_layers_equal(found, layers):
    """All but conv1_1, into which the input rule goes, are as they were, in order."""
    assert found.convolutions == tuple(layers)
    for name in found.convolutions:
        for part in ("kernel", "bias"):
            assert found.params[name][part].dtype == np.float32
            if (name, part) != ("conv1_1", "kernel"):
                np.testing.assert_array_equal(found.params[name][part], layers[name][part], err_msg=name)


def first_features(found, image):
    """conv1_1 of a backbone, by the network's own function in float64."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), dict(found.params))
        image = jnp.asarray(image, jnp.float64)
        return np.asarray(vgg.features(params, image, ["conv1_1"], padding=found.padding)["conv1_1"])


def assert_same_features(ours, expected):
    """To float32's rounding of kernels and mean, interior and border alike."""
    assert expected.shape == ours.shape
    scale = np.abs(expected).max()
    border = np.ones(ours.shape[:2], bool)
    border[1:-1, 1:-1] = False
    assert 0 < border.sum() < border.size
    for part in (border, ~border):
        np.testing.assert_allclose(ours[part] / scale, expected[part] / scale, rtol=0, atol=2e-6)


def assert_survives(path, data, source="auto", *, numbers=b"", cuts=60, flips=240, seed=0):
    """Cut short anywhere or changed anywhere but in `numbers`, a file is refused in one line or is another network."""
    rng, start = random.Random(seed), data.index(numbers)
    places = [place for place in range(len(data)) if not start <= place < start + len(numbers)]
    damaged = [data[:end] for end in rng.sample(range(len(data)), cuts)]
    for _ in range(flips):
        copy = bytearray(data)
        for place in rng.sample(places, rng.choice([1, 1, 2, 5])):
            copy[place] = rng.choice([0, 255, copy[place] ^ 1 << rng.randrange(8), rng.randrange(256)])
        damaged.append(bytes(copy))
    refused = 0
    for copy in damaged:
        line = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = weights.read(written(path, copy), source)
        except (InputError, OSError) as error:  # the latter: a place in the file that is none
            line = f"{error} {path}" if isinstance(error, OSError) else str(error)
        if line:
            refused += 1
            assert line.isprintable(), line
            assert path.name in line
        else:
            check(path, found.params)
        assert list(path.parent.iterdir()) == [path]
    assert cuts / 2 < refused
