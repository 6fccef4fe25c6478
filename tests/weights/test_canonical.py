import hashlib
import json
import os
import struct

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from jnst import weights
from jnst.errors import InputError
from weights import checks, formats

NAMES = ("conv1_1", "conv1_2", "conv2_1")


def test_canonical_file_is_read_back(tmp_path):
    params, path = formats.params(4, 5, 6), str(tmp_path / "net.safetensors")
    weights.save_safetensors(path, params, padding="reflect", origin="ours", licence="Apache-2.0")
    found = weights.load(path)
    checks.assert_equal_params(found.params, params)
    assert (found.name, found.padding, found.origin, found.licence) == (path, "reflect", "ours", "Apache-2.0")
    assert found.convolutions == NAMES
    assert not found.standardize
    assert found.sha256 == hashlib.sha256((tmp_path / "net.safetensors").read_bytes()).hexdigest()


def test_canonical_files_bytes_repeat(tmp_path):
    contents = set()
    for i in range(8):  # several metadata keys would come out in another order sooner or later
        params = dict(reversed(formats.params(4, 5).items())) if i % 2 else formats.params(4, 5)
        weights.save_safetensors(tmp_path / "a", params, origin="ours", licence="x", source_sha256="00")
        contents.add((tmp_path / "a").read_bytes())
    assert len(contents) == 1


def test_metadata_is_one_key_of_sorted_json(tmp_path):
    weights.save_safetensors(tmp_path / "a", formats.params(4, 5), origin="ours", licence="free", source_sha256="12ab")
    with safetensors.safe_open(tmp_path / "a", "np") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"jnst"}
    facts = json.loads(metadata["jnst"])
    assert list(facts) == sorted(facts)
    assert facts == {
        "origin": "ours",
        "licence": "free",
        "layers": ["conv1_1", "conv1_2"],
        "widths": [4, 5],
        "padding": "zeros",
        "mean": [0.5, 0.25, 0.125],
        "source_sha256": "12ab",
    }


def test_transposed_view_is_stored_as_it_reads(tmp_path):
    params = formats.params(3, 3)
    params["conv1_1"]["kernel"] = params["conv1_1"]["kernel"].transpose(1, 0, 3, 2)
    params["conv1_2"]["bias"] = params["conv1_2"]["bias"][::-1]
    params["mean"] = params["mean"][::-1]
    assert not params["conv1_1"]["kernel"].flags.c_contiguous
    weights.save_safetensors(tmp_path / "a", params)
    checks.assert_equal_params(weights.load(str(tmp_path / "a")).params, params)


def test_incomplete_network_is_not_written(tmp_path):
    params = formats.params(4, 5, 6)
    del params["conv1_2"]
    with pytest.raises(InputError, match=r"conv1_2/kernel is missing, though conv2_1 is there"):
        weights.save_safetensors(tmp_path / "a", params)
    assert os.listdir(tmp_path) == []


def test_npz_becomes_the_same_canonical_file(tmp_path):
    found = weights.load(checks.saved(tmp_path / "a.npz", formats.keras(formats.params(4, 5))))
    weights.save_safetensors(tmp_path / "b", found.params)
    checks.assert_equal_params(weights.load(str(tmp_path / "b")).params, found.params)


def test_truncated_canonical_file_is_refused(tmp_path):
    weights.save_safetensors(tmp_path / "net", formats.params(4, 5))
    data = (tmp_path / "net").read_bytes()
    for end in (0, 4, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "net").write_bytes(data[:end])
        with pytest.raises(InputError, match="net: not a (weights|whole safetensors) file"):
            weights.load(str(tmp_path / "net"))


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"jnst": "words"}, {"jnst": "[1]"}, {"jnst": '{"padding": "zeros"}'}],
)
def test_foreign_safetensors_file_is_refused(tmp_path, metadata):
    safetensors.numpy.save_file({"mean": np.zeros(3, np.float32)}, tmp_path / "a", metadata)
    with pytest.raises(InputError, match="a: not a weights file of jnst"):
        weights.load(str(tmp_path / "a"))


def canonical(path, **changes):
    facts = {"padding": "zeros", "origin": "", "licence": ""}
    facts |= {name: value for name, value in changes.items() if name in facts}
    arrays = {"mean": np.zeros(3, np.float32)}
    arrays |= {"conv1_1/kernel": np.zeros((3, 3, 3, 4), np.float32), "conv1_1/bias": np.zeros(4, np.float32)}
    arrays |= {name.replace("__", "/"): array for name, array in changes.items() if name not in facts}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    safetensors.numpy.save_file(arrays, path, {"jnst": json.dumps(facts)})
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": None}, "not a weights file of jnst"),
        ({"mean": np.zeros(4, np.float32)}, "mean: expected 3 finite numbers"),
        ({"mean": np.full(3, np.nan, np.float32)}, "mean: expected 3 finite numbers"),
        ({"padding": "wrap"}, "padding 'wrap': expected one of zeros, reflect, replicate"),
        ({"padding": [1]}, "padding"),
        ({"conv1_1__bias": None}, "conv1_1/bias is missing"),
        ({"conv1_1__kernel": None, "conv1_1__bias": None}, "no layer of VGG-19 found"),
        ({"conv1_1__kernel": np.full((3, 3, 3, 4), np.nan, np.float32)}, "not finite"),
    ],
)
def test_canonical_file_with_a_fault_is_refused(tmp_path, changes, message):
    weights.load(canonical(tmp_path / "good"))
    path = canonical(tmp_path / "bad", **changes)
    with pytest.raises(InputError, match=f"bad: {message}|bad: .*{message}"):
        weights.load(path)


def test_number_type_that_numpy_lacks_is_refused(tmp_path):
    facts = json.dumps({"padding": "zeros", "origin": "", "licence": ""})
    entry = {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}
    header = json.dumps({"__metadata__": {"jnst": facts}, "mean": entry}).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + bytes(3))
    with pytest.raises(InputError, match="a: "):
        weights.load(str(tmp_path / "a"))


def test_unknown_padding_is_not_written(tmp_path):
    with pytest.raises(InputError, match="padding 'bogus': expected one of zeros"):
        weights.save_safetensors(tmp_path / "a.safetensors", formats.params(4), padding="bogus")
    assert not list(tmp_path.iterdir())
