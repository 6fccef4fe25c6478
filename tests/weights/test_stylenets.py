import contextlib
import dataclasses
import hashlib
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import stylenet_files

from jnst import bundled
from jnst.config import StyleNetSpec
from jnst.errors import InputError
from jnst.nets import stylenet
from jnst.weights import stylenets

SPEC = StyleNetSpec(widths=(4, 8), blocks=1, norm="batch", styles=2)


def variables(spec=SPEC):
    return stylenet_files.variables(spec)


def leaves(tree):
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(key.key for key in path): leaf for path, leaf in paths}


def save(path, tree=None, **options):
    options = {"spec": SPEC, "styles": ["waves", "stars"], "record": {"steps": 5}, "licence": "CC0-1.0"} | options
    stylenets.save(path, variables(options["spec"]) if tree is None else tree, **options)


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_shapes_are_those_of_the_network(norm):
    for widths, blocks, styles in itertools.product([(4,), (4, 8), (4, 6, 8)], [0, 2], [1, 3]):
        spec = StyleNetSpec(widths=widths, blocks=blocks, styles=styles, norm=norm, kernel=3)
        made = jax.eval_shape(lambda key, spec=spec: stylenet.init(key, spec), jax.random.key(0))
        assert {name: leaf.shape for name, leaf in leaves(made).items()} == stylenets.shapes(spec)


# ---- Saving


def test_a_network_is_read_back(path):
    found = stylenets.load(str(path))
    assert (found.name, found.path) == (str(path), str(path))
    assert (found.spec, found.styles, found.record, found.licence) == (
        SPEC,
        ("waves", "stars"),
        {"steps": 5},
        "CC0-1.0",
    )
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    expected, got = leaves(variables()), leaves(found.variables)
    assert got.keys() == expected.keys()
    for name, array in got.items():
        assert array.dtype == np.float32
        half = expected[name].ndim == 4 and name.startswith("params/")
        kept = expected[name].astype(np.float16) if half else expected[name]
        np.testing.assert_array_equal(array, kept.astype(np.float32), name)


def test_float32_is_read_back_exactly(tmp_path):
    save(tmp_path / "a.safetensors", dtype="float32")
    found = leaves(stylenets.load(str(tmp_path / "a.safetensors")).variables)
    for name, array in leaves(variables()).items():
        np.testing.assert_array_equal(found[name], array)


def test_equal_networks_give_equal_bytes(tmp_path):
    contents = set()
    for turn in range(6):
        tree, record = variables(), {"a": 1, "b": [2.5, None]}
        if turn % 2:
            tree = {name: dict(reversed(part.items())) for name, part in reversed(tree.items())}
            record = dict(reversed(record.items()))
        save(tmp_path / "a", tree, record=record)
        contents.add((tmp_path / "a").read_bytes())
    assert len(contents) == 1


def test_a_transposed_view_is_kept_as_it_looks(tmp_path):
    tree = variables()
    last = tree["params"]["last"]
    tree["params"]["last"] = np.ascontiguousarray(last.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    save(tmp_path / "a.safetensors", tree, dtype="float32")
    found = stylenets.load(str(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(found.variables["params"]["last"], last)


def test_metadata_is_one_key_of_sorted_json(path):
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    assert list(metadata) == ["stylenet"]
    facts = json.loads(metadata["stylenet"])
    assert metadata["stylenet"] == json.dumps(facts, sort_keys=True)
    assert facts["spec"] == {**dataclasses.asdict(SPEC), "widths": [4, 8]}


@pytest.mark.parametrize("value", [1e6, np.inf, np.nan])
def test_numbers_that_16_bits_do_not_hold_are_refused(tmp_path, value):
    tree = variables()
    tree["params"]["downs_1"]["kernel"][0, 0, 0, 0] = value
    with pytest.raises(InputError, match="params/downs_1/kernel: expected finite numbers that float16 holds"):
        save(tmp_path / "a.safetensors", tree)
    assert not list(tmp_path.iterdir())


def test_what_is_not_of_the_architecture_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not of this architecture"):
        save(tmp_path / "a", variables(dataclasses.replace(SPEC, blocks=2)))
    with pytest.raises(ValueError, match="1 names for 2 styles"):
        save(tmp_path / "a", styles=["waves"])


# ---- Names


def test_a_bare_name_is_a_bundled_one_and_a_path_wins(tmp_path, monkeypatch):
    folder = tmp_path / "root/weights/stylenets"
    folder.mkdir(parents=True)
    save(folder / "starry_night.safetensors")
    monkeypatch.setattr(bundled, "_ROOTS", (tmp_path / "root",))
    monkeypatch.chdir(tmp_path)
    assert stylenets.names() == ["starry_night"]
    assert stylenets.load("starry_night").path == str(folder / "starry_night.safetensors")
    save(tmp_path / "starry_night", record={"steps": 6})
    assert stylenets.load("starry_night").record == {"steps": 6}


def test_an_unknown_name_lists_those_that_are_there(tmp_path, monkeypatch):
    folder = tmp_path / "weights/stylenets"
    folder.mkdir(parents=True)
    save(folder / "waves.safetensors")
    monkeypatch.setattr(bundled, "_ROOTS", (tmp_path,))
    with pytest.raises(InputError, match=r"wave: no such network file, .*those are: waves"):
        stylenets.load("wave")
    with pytest.raises(InputError, match="no such network file"):
        stylenets.load("../stylenets/waves")


# ---- Damage


def rewrite(path, facts=None, arrays=None, text=None):
    """The file with other metadata or arrays."""
    with safetensors.safe_open(path, "np") as file:
        known = json.loads(file.metadata()["stylenet"])
    arrays = {**safetensors.numpy.load_file(path), **(arrays or {})}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    known = {**known, **(facts or {})}
    known["spec"] = {name: value for name, value in known["spec"].items() if value != "gone"}
    metadata = {"stylenet": json.dumps(known) if text is None else text}
    path.write_bytes(safetensors.numpy.save(arrays, metadata))


def test_rewriting_alone_breaks_nothing(path):
    rewrite(path)
    assert stylenets.load(str(path)).spec == SPEC


@pytest.mark.parametrize("keep", [0, 5, 200, 5000, -1])
def test_a_cut_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"net\.safetensors: not a whole safetensors file"):
        stylenets.load(str(path))


def test_every_flipped_byte_of_the_header_is_refused_or_harmless(path):
    data, rng = path.read_bytes(), np.random.default_rng(0)
    length = 8 + int.from_bytes(data[:8], "little")
    for place in rng.choice(length, 200, replace=False):
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        with contextlib.suppress(InputError):
            assert stylenets.load(str(path)).spec.widths


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "1", "null", "[" * 100_000])
def test_metadata_that_are_no_object_are_refused(path, text):
    rewrite(path, text=text)
    with pytest.raises(InputError, match=r"net\.safetensors: .*holds no JSON object"):
        stylenets.load(str(path))


def test_another_safetensors_file_is_refused(path):
    path.write_bytes(safetensors.numpy.save({"a": np.ones(3, np.float32)}))
    with pytest.raises(InputError, match="no metadata key 'stylenet'"):
        stylenets.load(str(path))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("norm", "layer", "norm 'layer': expected one of instance, batch"),
        ("head", 3, "head 3: expected one of"),
        ("border", "zeros", "border 'zeros': expected one of reflect, replicate"),
        ("upsample", ["resize"], "upsample .*: expected one of resize, transpose"),
        ("widths", [], "widths"),
        ("widths", [4, 10**9], "widths"),
        ("widths", [4, -8], "widths"),
        ("widths", [4] * 7, "widths"),
        ("widths", 16, "widths 16"),
        ("widths", [4, True], "widths"),
        ("widths", [4, 8.0], "widths"),
        ("blocks", -1, "blocks -1"),
        ("blocks", 10**9, "blocks"),
        ("blocks", False, "blocks False"),
        ("kernel", 4, "kernel 4: expected an odd number"),
        ("kernel", "5", "kernel '5'"),
        ("styles", 0, "styles 0"),
        ("styles", 3, "its styles are"),
        ("norm", "gone", "its architecture has"),
        ("depth", 5, "its architecture has"),
        # Allowed, but not what the arrays are.
        ("widths", [4, 9], r"has shape .*: expected"),
        ("blocks", 2, "params/blocks_1_0/kernel is missing"),
        ("blocks", 0, "params/blocks_0_0/kernel is no part of its architecture"),
        ("norm", "instance", "running/blocks_0_0/mean is no part of its architecture"),
    ],
)
def test_an_architecture_that_is_none_is_refused(path, name, value, words):
    rewrite(path, {"spec": {**dataclasses.asdict(SPEC), name: value}})
    with pytest.raises(InputError, match=rf"net\.safetensors: .*{words}"):
        stylenets.load(str(path))


@pytest.mark.parametrize("styles", [None, "ab", ["a"], ["a", 2], {"a": 1, "b": 2}])
def test_names_that_are_none_are_refused(path, styles):
    rewrite(path, {"styles": styles})
    with pytest.raises(InputError, match="its styles are .*: expected 2 names"):
        stylenets.load(str(path))


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("params/last", None, "params/last is missing"),
        ("params/../../x", np.ones(3, np.float32), "is no part of its architecture"),
        ("params/bias", np.ones(4, np.float32), r"params/bias has shape \(4,\): expected \(3,\)"),
        ("params/bias", np.array([1, np.nan, 1], np.float32), "params/bias holds numbers that are not finite"),
        ("params/bias", np.ones(3, np.int32), "params/bias is of I32: expected F16 or F32"),
        ("params/bias", np.ones(3, np.float64), "params/bias is of F64"),
        ("running/downs_0/variance", np.full((1, 1, 1, 4), -1, np.float32), "below 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(path, name, array, words):
    rewrite(path, arrays={name: array})
    with pytest.raises(InputError, match=rf"net\.safetensors: .*{words}"):
        stylenets.load(str(path))


def test_a_record_of_any_kind_is_no_obstacle(path):
    rewrite(path, {"record": "lost", "licence": 7, "more": {}})
    found = stylenets.load(str(path))
    assert (found.record, found.licence) == ({}, "")


@pytest.mark.parametrize("name", stylenets.names())
def test_the_bundled_networks_load_by_name_and_are_on_the_card(name):
    net = stylenets.load(name)
    path = Path(net.path)
    assert path.stat().st_size < 1_000_000
    assert net.licence
    assert net.record["weights"]["name"] == "mini"
    card = (path.parent / "README.md").read_text()
    score = net.record["held_out"]
    assert f"| `{name}` |" in card
    assert f"| {score['content']:.2f}, {score['style']:.2f}, {score['tv']:.2f} |" in card


def test_there_are_bundled_networks():
    assert "starry_night" in stylenets.names()


@pytest.mark.slow
@pytest.mark.parametrize("name", stylenets.names())
def test_a_bundled_network_paints(name):
    """Its picture is neither the photo nor flat."""
    from jnst import images
    from jnst.tasks.fast import painting

    net = stylenets.load(name)
    photo = images.resize(images.load("harbor"), (96, 72)).rgb[None]
    painted = np.asarray(painting.paint(net.variables, photo, np.ones(1, np.float32), net.spec))
    assert np.abs(painted - photo).mean() > 0.05
    assert painted.std() > 0.1
