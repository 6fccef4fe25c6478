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
from jnst.nets import vgg

NAMES = ("conv1_1", "conv1_2", "conv2_1")
MEAN_BGR = np.array([103.939, 116.779, 123.68])


def network(*widths, seed=0):
    rng, params, channels = np.random.default_rng(seed), {"mean": np.float32([0.5, 0.25, 0.125])}, 3
    for name, width in zip(NAMES, widths, strict=False):
        kernel = rng.normal(size=(3, 3, channels, width)).astype(np.float32)
        params[name] = {"kernel": kernel, "bias": rng.normal(size=width).astype(np.float32)}
        channels = width
    return params


def keras(params):
    """The same layers under Keras' names, as in the files that go around."""
    arrays = {}
    for name in params.keys() - {"mean"}:
        for part, array in params[name].items():
            arrays[f"block{name[4]}_conv{name[6]}/{part}"] = array
    return arrays


def saved(path, arrays, save=np.savez):
    save(path, **arrays)
    return str(path)


def assert_equal_params(found, expected):
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["mean"], expected["mean"])
    for name in expected.keys() - {"mean"}:
        for part in ("kernel", "bias"):
            np.testing.assert_array_equal(found[name][part], expected[name][part])


def test_canonical_file_is_read_back(tmp_path):
    params, path = network(4, 5, 6), str(tmp_path / "net.safetensors")
    weights.save_safetensors(path, params, padding="reflect", origin="ours", licence="Apache-2.0")
    found = weights.load(path)
    assert_equal_params(found.params, params)
    assert (found.name, found.padding, found.origin, found.licence) == (path, "reflect", "ours", "Apache-2.0")
    assert found.convolutions == NAMES
    assert not found.standardize
    assert found.sha256 == hashlib.sha256((tmp_path / "net.safetensors").read_bytes()).hexdigest()


def test_canonical_files_bytes_repeat(tmp_path):
    contents = set()
    for i in range(8):  # several metadata keys would come out in another order sooner or later
        params = dict(reversed(network(4, 5).items())) if i % 2 else network(4, 5)
        weights.save_safetensors(tmp_path / "a", params, origin="ours", licence="x", source_sha256="00")
        contents.add((tmp_path / "a").read_bytes())
    assert len(contents) == 1


def test_metadata_is_one_key_of_sorted_json(tmp_path):
    weights.save_safetensors(tmp_path / "a", network(4, 5), origin="ours", licence="free", source_sha256="12ab")
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
    params = network(3, 3)
    params["conv1_1"]["kernel"] = params["conv1_1"]["kernel"].transpose(1, 0, 3, 2)
    params["conv1_2"]["bias"] = params["conv1_2"]["bias"][::-1]
    params["mean"] = params["mean"][::-1]
    assert not params["conv1_1"]["kernel"].flags.c_contiguous
    weights.save_safetensors(tmp_path / "a", params)
    assert_equal_params(weights.load(str(tmp_path / "a")).params, params)


def test_incomplete_network_is_not_written(tmp_path):
    params = network(4, 5, 6)
    del params["conv1_2"]
    with pytest.raises(InputError, match=r"conv1_2/kernel is missing, though conv2_1 is there"):
        weights.save_safetensors(tmp_path / "a", params)
    assert os.listdir(tmp_path) == []


def conv_with_caffe_input(image, kernel, bias):
    """conv1_1 as it was trained: `255 * bgr - mean`, then a border of zeros, all in float64."""
    bgr = image[..., ::-1].astype(np.float64) * 255 - MEAN_BGR
    padded = np.pad(bgr, ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    out = np.zeros((height, width, kernel.shape[3]))
    for dy in range(3):
        for dx in range(3):
            out += padded[dy : dy + height, dx : dx + width] @ kernel[dy, dx].astype(np.float64)
    return out + bias


def test_keras_file_sees_the_image_as_it_was_trained_to(tmp_path, rng):
    params = network(4)
    found = weights.load(saved(tmp_path / "a.npz", keras(params))).params
    image = rng.uniform(size=(7, 6, 3)).astype(np.float32)
    expected = conv_with_caffe_input(image, params["conv1_1"]["kernel"], params["conv1_1"]["bias"])
    out = np.asarray(vgg.features(found, image, ["conv1_1"])["conv1_1"])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(out[1:-1, 1:-1] / scale, expected[1:-1, 1:-1] / scale, atol=2e-6)
    np.testing.assert_allclose(out / scale, expected / scale, atol=2e-6)  # the border too


def test_folding_touches_the_first_kernel_only(tmp_path):
    params = network(4, 5, 6)
    found = weights.load(saved(tmp_path / "a.npz", keras(params))).params
    np.testing.assert_allclose(found["mean"], MEAN_BGR[::-1] / 255, rtol=1e-6)
    np.testing.assert_array_equal(found["conv1_1"]["kernel"], params["conv1_1"]["kernel"][:, :, ::-1] * 255)
    np.testing.assert_array_equal(found["conv1_1"]["bias"], params["conv1_1"]["bias"])
    for name in ("conv1_2", "conv2_1"):
        np.testing.assert_array_equal(found[name]["kernel"], params[name]["kernel"])


@pytest.mark.parametrize("widths", [(1,), (64, 64), (2, 9, 5)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_widths_are_read_from_npz(tmp_path, widths, save):
    found = weights.load(saved(tmp_path / "a.npz", keras(network(*widths)), save))
    assert tuple(found.params[name]["kernel"].shape[3] for name in found.convolutions) == widths
    assert found.sha256 == hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()


def test_npz_becomes_the_same_canonical_file(tmp_path):
    found = weights.load(saved(tmp_path / "a.npz", keras(network(4, 5))))
    weights.save_safetensors(tmp_path / "b", found.params)
    assert_equal_params(weights.load(str(tmp_path / "b")).params, found.params)


def broken(**changes):
    arrays = keras(network(4, 5, 6)) | {name.replace("__", "/"): array for name, array in changes.items()}
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"block1_conv2__kernel": None, "block1_conv2__bias": None},
            "conv1_2/kernel is missing, though conv2_1",
        ),
        ({"block1_conv2__bias": None}, "conv1_2/bias is missing"),
        ({"block1_conv1__kernel": None, "block1_conv1__bias": None}, "conv1_1/kernel is missing"),
        ({"block1_conv1__kernel": np.zeros((4, 3, 3, 3))}, r"conv1_1/kernel has shape \(4, 3, 3, 3\)"),
        ({"block1_conv1__kernel": np.zeros((3, 3, 1, 4))}, r"expected \(3, 3, 3, out\)"),
        ({"block1_conv2__kernel": np.zeros((3, 3, 3, 5))}, r"expected \(3, 3, 4, out\)"),
        ({"block1_conv1__kernel": np.zeros((3, 3, 3, 0))}, "conv1_1/kernel has shape"),
        ({"block1_conv1__kernel": np.zeros(())}, "conv1_1/kernel has shape"),
        ({"block1_conv1__bias": np.zeros(3)}, r"conv1_1/bias has shape \(3,\): expected \(4,\)"),
        ({"block1_conv1__bias": np.zeros(())}, "conv1_1/bias has shape"),
        ({"block2_conv1__bias": np.full(6, np.nan)}, "conv2_1/bias holds numbers that are not finite"),
        ({"block1_conv1__kernel": np.full((3, 3, 3, 4), np.inf)}, "conv1_1/kernel holds numbers"),
        ({"block1_conv1__kernel": np.array(["words"])}, "conv1/kernel holds <U5"),
    ],
)
def test_npz_that_is_no_vgg_is_refused(tmp_path, changes, message):
    path = saved(tmp_path / "a.npz", broken(**changes))
    with pytest.raises(InputError, match=rf"a\.npz: .*{message}|a\.npz: {message}"):
        weights.load(path)


def test_npz_without_a_layer_says_what_was_expected(tmp_path):
    path = saved(tmp_path / "a.npz", {"other": np.zeros(3)})
    with pytest.raises(InputError, match=r"a\.npz: no layer found; expected arrays such as block1_conv1/kernel"):
        weights.load(path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickle_in_npz_is_refused_and_never_run(tmp_path):
    marker = tmp_path / "executed"
    arrays = broken(block1_conv1__kernel=np.array([Bomb(str(marker))], object))
    path = saved(tmp_path / "a.npz", arrays)
    with pytest.raises(InputError, match=r"a\.npz: not a whole \.npz file of plain arrays"):
        weights.load(path)
    assert not marker.exists()
    with np.load(path, allow_pickle=True) as file:  # the bomb is live
        file["block1_conv1/kernel"]
    assert marker.exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_npz_is_refused(tmp_path, save):
    data = (tmp_path / saved(tmp_path / "a.npz", keras(network(4, 5)), save)).read_bytes()
    for end in (5, len(data) // 2, len(data) - 10):
        (tmp_path / "a.npz").write_bytes(data[:end])
        with pytest.raises(InputError, match=r"a\.npz: not a whole \.npz"):
            weights.load(str(tmp_path / "a.npz"))


def test_damaged_npz_is_refused(tmp_path):
    path = tmp_path / saved(tmp_path / "a.npz", keras(network(4)), np.savez_compressed)
    data = path.read_bytes()
    method = data.rindex(b"PK\x01\x02") + 10  # of compression, in the last entry of the table
    for position, value in ((method, 99), (method - 2, 1), (len(data) // 3, data[len(data) // 3] ^ 0xFF)):
        damaged = bytearray(data)
        damaged[position] = value
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.npz: not a whole \.npz"):
            weights.load(str(path))


def test_truncated_canonical_file_is_refused(tmp_path):
    weights.save_safetensors(tmp_path / "net", network(4, 5))
    data = (tmp_path / "net").read_bytes()
    for end in (0, 4, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "net").write_bytes(data[:end])
        with pytest.raises(InputError, match="net: not a (weights|whole safetensors) file"):
            weights.load(str(tmp_path / "net"))


def test_text_file_missing_file_and_folder_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("These are words, and more words.\n")
    with pytest.raises(InputError, match=r"a\.txt: not a weights file"):
        weights.load(str(tmp_path / "a.txt"))
    for name in (str(tmp_path / "nothing"), str(tmp_path), "nothing", "a" * 300):
        with pytest.raises(InputError, match=r"no such file; names: random"):
            weights.load(name)


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


def test_layers_too_deep_name_flag_layer_and_file():
    backbone = weights.random_backbone(0, ["conv1_2"])
    backbone.require("style_layers", ["relu1_1", "conv1_2"])
    with pytest.raises(InputError, match=r"--style_layers: relu2_1 is not in --weights=random:0, .* conv1_2"):
        backbone.require("style_layers", ["relu1_1", "relu2_1"])


def test_random_filters_are_orthogonal_within_their_sets():
    params = weights.random_backbone(0, ["conv2_1"]).params
    first = params["conv1_1"]["kernel"].reshape(27, 64)
    for columns in np.array_split(first, 3, axis=1):  # 26 directions for 64 filters: three sets
        np.testing.assert_allclose(columns.T @ columns, np.eye(columns.shape[1]), atol=1e-5)
    for name, width in (("conv1_2", 64), ("conv2_1", 128)):
        columns = params[name]["kernel"].reshape(-1, width)
        np.testing.assert_allclose(columns.T @ columns, np.eye(width), atol=1e-5)


def test_random_filters_sum_to_zero_and_have_no_bias():
    backbone = weights.random_backbone(0, ["conv2_1"])
    for name in backbone.convolutions:
        assert abs(backbone.params[name]["kernel"].sum((0, 1, 2))).max() < 1e-4
        assert not backbone.params[name]["bias"].any()
    assert backbone.standardize


def test_random_filters_follow_from_the_seed_alone():
    first, again, other = (weights.random_backbone(seed, ["conv1_2"]) for seed in (1, 1, 2))
    assert first.sha256 == again.sha256 != other.sha256
    assert_equal_params(first.params, again.params)
    for name in first.convolutions:
        assert np.abs(first.params[name]["kernel"] - other.params[name]["kernel"]).max() > 0.1


def test_depth_changes_no_random_filter():
    shallow, deep = (weights.random_backbone(3, [layer]) for layer in ("relu1_1", "conv2_2"))
    assert shallow.convolutions == ("conv1_1",)
    assert deep.convolutions == ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    np.testing.assert_array_equal(shallow.params["conv1_1"]["kernel"], deep.params["conv1_1"]["kernel"])


def test_random_is_seed_zero():
    named = [weights.load(name, ["conv1_1"]) for name in ("random", "random:0", "random:", "random:00")]
    assert {backbone.name for backbone in named[:2]} == {"random:0"}
    assert len({backbone.sha256 for backbone in named}) == 1
    assert weights.load("random:7", ["conv1_1"]).sha256 != named[0].sha256


@pytest.mark.parametrize("seed", ["x", "-1", "1.5", "1e3", " 1", "0x1", "9" * 30, "9" * 5000, "²"])
def test_random_with_a_seed_that_is_no_number_is_refused(seed):
    with pytest.raises(InputError, match="expected random or random:SEED|no such file"):
        weights.load(f"random:{seed}")


def test_random_is_a_word_beside_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights.save_safetensors("random", network(4))
    assert weights.load("random", ["conv1_1"]).name == "random:0"
    assert weights.load("./random").convolutions == ("conv1_1",)


def test_unknown_padding_is_not_written(tmp_path):
    with pytest.raises(InputError, match="padding 'bogus': expected one of zeros"):
        weights.save_safetensors(tmp_path / "a.safetensors", network(4), padding="bogus")
    assert not list(tmp_path.iterdir())


def test_bundled_folder_named_random_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random").mkdir()
    assert weights.load("random", ["conv1_1"]).name == "random:0"


def test_real_oxford_weights_are_read(shared):
    path = shared / "weights" / "vgg19_caffe_conv1_1-conv3_4.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    found = weights.load(str(path))
    widths = [found.params[name]["kernel"].shape[3] for name in found.convolutions]
    assert found.convolutions[-1] == "conv3_4"
    assert widths == [64, 64, 128, 128, 256, 256, 256, 256]
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with np.load(path) as file:
        original = file["block1_conv1/kernel"]
    np.testing.assert_array_equal(found.params["conv1_1"]["kernel"], original[:, :, ::-1] * np.float32(255))
