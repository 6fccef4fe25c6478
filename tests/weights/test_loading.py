import hashlib
import zipfile

import numpy as np
import pytest

from jnst import weights
from jnst.errors import InputError
from jnst.weights import loading
from weights import checks, formats
from weights.checks import refusal, saved


def test_keras_file_sees_the_image_as_it_was_trained_to(tmp_path, rng):
    layers, image = formats.network(4), rng.uniform(size=(7, 6, 3)).astype(np.float32)
    found = weights.load(saved(tmp_path / "a.npz", formats.keras(layers)))
    expected = formats.by_hand(layers, image, formats.FEEDS["bgr"])
    checks.assert_same_features(checks.first_features(found, image), expected)


def test_folding_touches_the_first_kernel_only(tmp_path):
    params = formats.params(4, 5, 6)
    found = weights.load(saved(tmp_path / "a.npz", formats.keras(params))).params
    np.testing.assert_allclose(found["mean"], formats.MEAN_RGB / 255, rtol=1e-6)
    np.testing.assert_array_equal(found["conv1_1"]["kernel"], params["conv1_1"]["kernel"][:, :, ::-1] * 255)
    np.testing.assert_array_equal(found["conv1_1"]["bias"], params["conv1_1"]["bias"])
    for name in ("conv1_2", "conv2_1"):
        np.testing.assert_array_equal(found[name]["kernel"], params[name]["kernel"])


@pytest.mark.parametrize("widths", [(1,), (64, 64), (2, 9, 5)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_widths_are_read_from_npz(tmp_path, widths, save):
    found = weights.load(saved(tmp_path / "a.npz", formats.keras(formats.params(*widths)), save))
    assert tuple(found.params[name]["kernel"].shape[3] for name in found.convolutions) == widths
    assert found.sha256 == hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()


def broken(**changes):
    arrays = formats.keras(formats.params(4, 5, 6)) | {
        name.replace("__", "/"): array for name, array in changes.items()
    }
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
    data = (tmp_path / saved(tmp_path / "a.npz", formats.keras(formats.params(4, 5)), save)).read_bytes()
    for end in (5, len(data) // 2, len(data) - 10):
        (tmp_path / "a.npz").write_bytes(data[:end])
        with pytest.raises(InputError, match=r"a\.npz: not a whole \.npz"):
            weights.load(str(tmp_path / "a.npz"))


def test_damaged_npz_is_refused(tmp_path):
    path = tmp_path / saved(tmp_path / "a.npz", formats.keras(formats.params(4)), np.savez_compressed)
    data = path.read_bytes()
    method = data.rindex(b"PK\x01\x02") + 10  # of compression, in the last entry of the table
    for position, value in ((method, 99), (method - 2, 1), (len(data) // 3, data[len(data) // 3] ^ 0xFF)):
        damaged = bytearray(data)
        damaged[position] = value
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.npz: not a whole \.npz"):
            weights.load(str(path))


def test_text_file_missing_file_and_folder_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("These are words, and more words.\n")
    with pytest.raises(InputError, match=r"a\.txt: not a weights file"):
        weights.load(str(tmp_path / "a.txt"))
    for name in (str(tmp_path / "nothing"), str(tmp_path), "nothing", "a" * 300):
        with pytest.raises(InputError, match=r"no such file; names: mini, vgg19, random"):
            weights.load(name)


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
    weights.save_safetensors("random", formats.params(4))
    assert weights.load("random", ["conv1_1"]).name == "random:0"
    assert weights.load("./random").convolutions == ("conv1_1",)


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


@pytest.mark.slow
def test_full_size_npz_is_read(tmp_path, full):
    path = saved(tmp_path / "a.npz", formats.keras(full))
    found = weights.load(path)
    checks.assert_deeper_layers_equal(found, full)


def planted_entry(path, name, data, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2**62,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }",
        "{'descr': [['<f4'], 3], 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': '" + 20_000 * "x" + "'}",
        "(" * 90 + ")" * 90,
        "'",
        " \n  {\n {",
        "",
    ],
    ids=range(13),
)
def test_npz_whose_header_is_nonsense_is_refused_in_one_line(tmp_path, header):
    data = b"\x93NUMPY\x01\x00" + len(header.encode()).to_bytes(2, "little") + header.encode() + bytes(12)
    path = planted_entry(tmp_path / "a.npz", "block1_conv1/kernel.npy", data)
    checks.refusal(path, match=r"a\.npz: ")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_with_damage_in_a_rare_compression_is_refused(tmp_path, method):
    path = planted_entry(tmp_path / "a.npz", "block1_conv1/kernel.npy", bytes(1000), method)
    data = bytearray(path.read_bytes())
    data[60:80] = bytes(20)
    checks.refusal(checks.written(path, data), match=r"a\.npz: ")


@pytest.mark.parametrize("make", [np.savez, np.savez_compressed, "canonical"])
def test_random_damage_ends_in_one_line_or_in_a_network(tmp_path, make):
    path = tmp_path / "a.npz"
    if make == "canonical":
        weights.save_safetensors(path, formats.params(2, 2), origin="ours")
    else:
        saved(path, formats.keras(formats.network(2, 2)), make)
    checks.assert_survives(path, path.read_bytes())


def test_asking_for_a_source_that_jnsts_own_file_does_not_need_changes_nothing(tmp_path):
    weights.save_safetensors(tmp_path / "a", formats.params(4))
    for source in ("auto", "caffe"):
        checks.assert_equal_params(weights.read(tmp_path / "a", source).params, formats.params(4))


def test_npz_that_unpacks_to_more_than_any_network_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_MOST", 2**24)
    path = tmp_path / "a.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (17 * 2**18,)})
        for _ in range(17):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**16
    refusal(path, match="unpacked it has 0.0 GiB")
