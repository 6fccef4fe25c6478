import h5py
import numpy as np
import pytest

from jnst import weights
from jnst.weights import hdf5
from weights import checks, formats
from weights.checks import refusal

LAYERS = formats.network(4, 5, 6)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("within", ["", "model_weights"])
def test_every_generation_of_keras_files_is_read(tmp_path, rng, old, top, within):
    path = formats.write_keras(tmp_path / "a.h5", LAYERS, old=old, top=top, within=within)
    found = weights.load(path)
    checks.assert_deeper_layers_equal(found, LAYERS)
    assert (found.padding, found.source.split()[0]) == ("zeros", "keras")
    image = rng.uniform(size=(7, 6, 3))
    checks.assert_same_features(
        checks.first_features(found, image), formats.by_hand(LAYERS, image, formats.FEEDS["bgr"])
    )


@pytest.mark.parametrize("old", [True, False])
def test_the_test_writes_the_names_of_real_files(tmp_path, old):
    formats.write_keras(tmp_path / "a.h5", LAYERS, old=old, top=True)
    letters = ("block1_conv1_W_1:0", "block1_conv1_b_1:0") if old else ("block1_conv1/kernel:0", "block1_conv1/bias:0")
    with h5py.File(tmp_path / "a.h5") as file:
        assert [name.decode() for name in file["block1_conv1"].attrs["weight_names"]] == list(letters)
        assert file[f"block1_conv1/{letters[0]}"].shape == (3, 3, 3, 4)
        assert b"block1_conv1" in file.attrs["layer_names"]
        assert {"fc1", "fc2", "predictions"} < set(file)


@pytest.mark.slow
def test_full_size_file_is_read(tmp_path_factory, full):
    path = formats.write_keras(tmp_path_factory.mktemp("full") / "a.h5", full, top=True)
    found = weights.read(path)
    checks.assert_deeper_layers_equal(found, full)
    assert "Simonyan" in found.source
    assert "BGR" in found.source


@pytest.mark.parametrize("kind", ["f2", "f8", ">f4", "i4"])
def test_other_types_of_numbers_and_compression_are_no_matter(tmp_path, kind):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, array in formats.keras(LAYERS).items():
            file.create_dataset(f"{key.split('/')[0]}/{key}:0", data=(9 * array).astype(kind), compression="gzip")
    found = weights.read(tmp_path / "a.h5").params["conv1_2"]["kernel"]
    np.testing.assert_array_equal(found, (9 * LAYERS["conv1_2"]["kernel"]).astype(kind).astype(np.float32))


def changed(path, **changes):
    """A file whose first layer's datasets are other ones, or missing."""
    formats.write_keras(path, LAYERS, old=False)
    with h5py.File(path, "a") as file:
        for name, value in changes.items():
            key = f"block{name[0]}_conv{name[1]}/block{name[0]}_conv{name[1]}/{name[3:]}:0"
            del file[key]
            if value is not None:
                file[key] = value
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"12_kernel": None, "12_bias": None}, "conv1_2/kernel is missing, though conv2_1"),
        ({"21_bias": None}, "conv2_1/bias is missing"),
        ({"11_kernel": None, "11_bias": None}, "conv1_1/kernel is missing"),
        ({"11_kernel": np.zeros((4, 3, 3, 3))}, r"conv1_1/kernel has shape \(4, 3, 3, 3\): expected \(3, 3, 3, out\)"),
        ({"12_kernel": np.zeros((3, 3, 3, 5))}, r"conv1_2/kernel has shape .*: expected \(3, 3, 4, out\)"),
        ({"12_kernel": np.zeros((3, 3, 4))}, "conv1_2/kernel is missing"),
        ({"21_bias": np.zeros(5)}, r"conv2_1/bias has shape \(5,\): expected \(6,\)"),
        ({"21_bias": np.full(6, np.nan)}, "conv2_1/bias holds numbers that are not finite"),
        ({"11_kernel": np.full((3, 3, 3, 4), -np.inf)}, "conv1_1/kernel holds numbers that are not finite"),
        ({"11_kernel": np.full((3, 3, 3, 4), 1e300)}, "conv1_1/kernel holds numbers that are not finite"),
        ({"11_kernel": np.full((3, 3, 3, 4), 3e38)}, "conv1_1/kernel holds numbers that are not finite"),
        ({"11_bias": np.array([b"a"] * 4)}, "block1_conv1.* holds .*S1: expected numbers"),
        ({"11_bias": np.zeros(4, complex)}, "block1_conv1.* holds complex128: expected numbers"),
        ({"11_kernel": np.zeros((3, 3, 3, 0))}, "conv1_1/kernel has shape"),
        ({"11_kernel": h5py.Empty("f4")}, "conv1_1/kernel is missing"),
    ],
)
def test_file_that_is_no_vgg_is_refused(tmp_path, changes, message):
    refusal(changed(tmp_path / "a.h5", **changes), match=rf"a\.h5: .*{message}|a\.h5: {message}")


def test_file_without_its_layers_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dense/kernel:0"] = np.zeros((3, 3))
    refusal(tmp_path / "a.h5", match=r"a\.h5: no layer found")


def test_vgg16_is_not_taken_for_vgg19(tmp_path):
    """Its third block has three convolutions, so the fourth is missing."""
    layers = dict(zip(formats.NAMES, formats.network(*(2,) * 9).values(), strict=False))
    del layers["conv3_4"]
    formats.write_keras(tmp_path / "a.h5", layers)
    refusal(tmp_path / "a.h5", match="conv3_4/kernel is missing, though conv4_1 is there")


def test_state_of_an_optimizer_is_not_taken_for_the_weights(tmp_path):
    """`model.save` keeps both; which array is the layer's must not hang on the order of their names."""
    formats.write_keras(tmp_path / "a.h5", LAYERS, old=False, within="model_weights")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        for key, array in formats.keras(LAYERS).items():
            for moment in ("m", "v"):
                file[f"optimizer_weights/training/Adam/{key}/{moment}:0"] = 0 * array
    checks.assert_deeper_layers_equal(weights.read(tmp_path / "a.h5"), LAYERS)


def test_two_arrays_for_one_kernel_are_refused(tmp_path):
    path = formats.write_keras(tmp_path / "a.h5", LAYERS)
    with h5py.File(path, "a") as file:
        file["block1_conv2/block1_conv2/kernel:0"] = 2 * LAYERS["conv1_2"]["kernel"]
    refusal(tmp_path / "a.h5", match="block1_conv2")


def victim(tmp_path):
    """A file that another one would like to read."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["block1_conv1/kernel"] = LAYERS["conv1_1"]["kernel"]
        file["block1_conv1/bias"] = LAYERS["conv1_1"]["bias"]
    LAYERS["conv1_1"]["kernel"].tofile(tmp_path / "secret.bin")
    return tmp_path / "secret.h5"


def linked(tmp_path, **links):
    secret = victim(tmp_path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, link in links.items():
            file[key.replace("__", "/")] = link(str(secret))
    return tmp_path / "a.h5"


def test_links_out_of_the_file_are_not_followed(tmp_path):
    path = linked(tmp_path, block1_conv1=lambda secret: h5py.ExternalLink(secret, "/block1_conv1"))
    with h5py.File(path) as file:  # the link is live
        assert file["block1_conv1/kernel"].shape == (3, 3, 3, 4)
    assert hdf5.read(path) == {}
    names = {"block1_conv1__kernel": "/block1_conv1/kernel", "block1_conv1__bias": "/block1_conv1/bias"}
    links = {key: lambda secret, name=name: h5py.ExternalLink(secret, name) for key, name in names.items()}
    refusal(linked(tmp_path, **links), match="no layer found")


def test_links_within_the_file_change_nothing(tmp_path):
    path = formats.write_keras(tmp_path / "a.h5", LAYERS)
    with h5py.File(path, "a") as file:
        file["block1_conv2/again/block1_conv1/kernel"] = h5py.SoftLink("/block2_conv1/block2_conv1_W_1:0")
        file["block2_conv1/around"] = h5py.SoftLink("/block2_conv1")
        file["block2_conv1/dangling"] = h5py.SoftLink("/nowhere")
        file["block2_conv1/around again"] = file["block2_conv1"]
    checks.assert_deeper_layers_equal(weights.read(path), LAYERS)


def test_numbers_in_another_file_are_refused(tmp_path):
    victim(tmp_path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        size = LAYERS["conv1_1"]["kernel"].nbytes
        outside = [(str(tmp_path / "secret.bin"), 0, size)]
        file.create_dataset("block1_conv1/kernel", (3, 3, 3, 4), "f4", external=outside)
    with h5py.File(tmp_path / "a.h5") as file:  # live
        np.testing.assert_array_equal(file["block1_conv1/kernel"], LAYERS["conv1_1"]["kernel"])
    refusal(tmp_path / "a.h5", match=r"a\.h5: block1_conv1/kernel refers to another file: refused")


def test_virtual_dataset_is_refused(tmp_path):
    secret = victim(tmp_path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout = h5py.VirtualLayout((3, 3, 3, 4), "f4")
        layout[...] = h5py.VirtualSource(str(secret), "block1_conv1/kernel", (3, 3, 3, 4))
        file.create_virtual_dataset("block1_conv1/kernel", layout)
    with h5py.File(tmp_path / "a.h5") as file:  # live
        np.testing.assert_array_equal(file["block1_conv1/kernel"], LAYERS["conv1_1"]["kernel"])
    refusal(tmp_path / "a.h5", match=r"a\.h5: block1_conv1/kernel refers to another file: refused")


@pytest.mark.parametrize("shape", [(3, 3, 2**20, 2**20), (2**42,)])
def test_array_that_is_larger_than_any_layer_is_not_made(tmp_path, shape):
    with h5py.File(tmp_path / "a.h5", "w") as file:  # two kB: none of its chunks was ever written
        file.create_dataset("block1_conv1/kernel", shape, "f4", chunks=tuple(min(n, 64) for n in shape))
    refusal(tmp_path / "a.h5", match="block1_conv1")


def test_name_with_a_line_break_is_refused_in_one_line(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a\nb\x1b[2J/block1_conv1/kernel"] = np.array([b"a"])
    refusal(tmp_path / "a.h5", match="expected numbers")


def test_truncated_file_is_refused(tmp_path):
    data = (tmp_path / formats.write_keras(tmp_path / "a.h5", LAYERS)).read_bytes()
    for end in (8, 20, 96, 600, len(data) // 2, len(data) - 1):
        refusal(checks.written(tmp_path / "a.h5", data[:end]), match=r"a\.h5: not a whole HDF5 file")


@pytest.mark.slow
@pytest.mark.parametrize("old", [True, False])
def test_random_damage_ends_in_one_line_or_in_a_network(tmp_path, old):
    path = tmp_path / "a.h5"
    formats.write_keras(path, formats.network(2, 2), old=old)
    checks.assert_survives(path, path.read_bytes())


def test_layers_that_no_vgg_has_are_passed_over_unread(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for block in range(6, 60):  # claimed, not written: a small file
            file.create_dataset(f"block{block}_conv1/kernel:0", (64, 64, 32, 32), "f4", chunks=(8, 8, 32, 32))
        file.create_dataset("block1_conv1/kernel:0", data=np.ones((3, 3, 3, 2), np.float32))
    assert list(hdf5.read(tmp_path / "a.h5")) == ["block1_conv1/kernel"]
