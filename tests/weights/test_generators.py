"""A generator's file: what goes in comes out, bytes repeat, and what is wrong with a file is said."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from jnst import weights
from jnst.config import DcganSpec
from jnst.errors import InputError
from jnst.nets import dcgan
from jnst.weights import generators

SPEC = DcganSpec(size=28, width=2, latent=3)


def _variables(spec=SPEC):
    rng, nested = np.random.default_rng(0), {}
    for name, shape in generators.shapes(spec).items():
        *outer, last = name.split("/")
        place = nested
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = rng.uniform(0.1, 1, shape).astype(np.float32)
    return nested


@pytest.fixture
def path(tmp_path):
    generators.save(tmp_path / "g.safetensors", _variables(), spec=SPEC, record={"step": 3})
    return tmp_path / "g.safetensors"


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_shapes_are_the_networks_own(size):
    spec = DcganSpec(size=size, width=3, latent=5)
    shapes = jax.eval_shape(lambda: dcgan.init(jax.random.key(0), spec)[0])
    found = jax.tree_util.tree_flatten_with_path(shapes)[0]
    assert {"/".join(part.key for part in path): leaf.shape for path, leaf in found} == generators.shapes(spec)


def test_what_is_saved_is_loaded(path):
    found = generators.load(path)
    assert (found.spec, found.record) == (SPEC, {"step": 3})
    for one, other in zip(jax.tree.leaves(found.variables), jax.tree.leaves(_variables()), strict=True):
        assert np.array_equal(one, other)
    before = path.read_bytes()
    generators.save(path, found.variables, spec=found.spec, record=found.record)
    assert path.read_bytes() == before


def test_only_a_generator_says_that_it_is_one(path, tmp_path):
    assert generators.is_generator(path)
    (tmp_path / "text").write_text("text")
    other = tmp_path / "other.safetensors"
    other.write_bytes(safetensors.numpy.save({"a": np.zeros(1, np.float32)}, {"stylenet": "{}"}))
    assert not any(map(generators.is_generator, (tmp_path / "text", other, tmp_path / "none")))


def test_numbers_that_are_not_finite_and_other_shapes_are_not_saved(path):
    before, variables = path.read_bytes(), _variables()
    variables["params"]["bias"][0] = np.nan
    with pytest.raises(InputError, match="params/bias: expected finite"):
        generators.save(path, variables, spec=SPEC)
    with pytest.raises(ValueError, match="not of this architecture"):
        generators.save(path, _variables(), spec=dataclasses.replace(SPEC, width=3))
    assert path.read_bytes() == before


def _changed(path, *, facts=lambda found: found, arrays=lambda found: found):
    with safetensors.safe_open(path, "np") as file:
        text = facts(json.loads(file.metadata()["generator"]))
        found = arrays({name: file.get_tensor(name) for name in file.keys()})
    path.write_bytes(safetensors.numpy.save(found, {"generator": text if isinstance(text, str) else json.dumps(text)}))


def _spec(**changes):
    return lambda facts: {**facts, "spec": {**facts["spec"], **changes}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"facts": lambda facts: "no JSON"}, "not a generator"),
        ({"facts": lambda facts: "[" * 100_000}, "not a generator"),
        ({"facts": lambda facts: {**facts, "kind": "unet"}}, "not a generator"),
        ({"facts": lambda facts: {**facts, "spec": 3}}, "its architecture has 3"),
        ({"facts": _spec(more=1)}, "its architecture has"),
        ({"facts": _spec(size=30)}, "size 30"),
        ({"facts": _spec(size=28.0)}, "size 28.0"),
        ({"facts": _spec(width=10**9)}, "width 1000000000"),
        ({"facts": _spec(latent=True)}, "latent True"),
        ({"facts": _spec(norm={})}, "norm"),
        ({"facts": _spec(dropout="much")}, "dropout 'much'"),
        ({"facts": _spec(width=3)}, "has shape"),
        ({"arrays": lambda arrays: {**arrays, "params/more": arrays["params/bias"]}}, "params/more is no part"),
        ({"arrays": lambda arrays: {**arrays, "params/bias": np.zeros(3, np.float16)}}, "is of F16"),
        ({"arrays": lambda arrays: {**arrays, "params/bias": np.full(3, np.inf, np.float32)}}, "not finite"),
        (
            {"arrays": lambda arrays: {**arrays, "moments/norm_0/variance": -arrays["moments/norm_0/variance"]}},
            "expected variances",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(path, changes, words):
    _changed(path, **changes)
    with pytest.raises(InputError, match=words) as caught:
        generators.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_cut_or_another_network_is_said(path, tmp_path, tiny_file):
    with pytest.raises(InputError, match="no such file"):
        generators.load(tmp_path / "none")
    with pytest.raises(InputError, match="not a generator"):
        generators.load(tiny_file)
    assert weights.load(tiny_file)  # which is whole
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        generators.load(path)
