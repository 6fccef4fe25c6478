import h5py
import numpy as np
import pytest
import scipy.io

from jnst import weights
from jnst.errors import InputError
from weights import checks, formats
from weights.checks import refusal

LAYERS = formats.planted("oxford", order="rgb")
MEAN = np.array([120.5, 110.25, 101.0])
GENERATIONS = ("oldest", "old", "new")
generations = pytest.mark.parametrize("generation", GENERATIONS)


def rgb(mean):
    return lambda image: 255 * image - np.asarray(mean)


@generations
@pytest.mark.parametrize("compress", [True, False])
def test_every_generation_is_read_with_its_own_mean(tmp_path, rng, generation, compress):
    path = formats.write_mat(tmp_path / "a.mat", LAYERS, MEAN, generation=generation, compress=compress)
    found = weights.load(path)
    checks.assert_deeper_layers_equal(found, LAYERS)
    np.testing.assert_allclose(found.params["mean"], MEAN / 255, rtol=1e-5)
    assert (found.padding, found.licence) == ("zeros", "CC BY 4.0")
    assert found.source == "matconvnet (kernels lie height first, as conv1_1 shows)"
    image = rng.uniform(size=(7, 6, 3))
    checks.assert_same_features(checks.first_features(found, image), formats.by_hand(LAYERS, image, rgb(MEAN)))


@generations
def test_the_test_writes_structs_as_matconvnet_does(tmp_path, generation):
    path = formats.write_mat(tmp_path / "a.mat", LAYERS, MEAN, generation=generation)
    content = scipy.io.loadmat(path)
    layer = content["layers"][0, 0]
    assert content["layers"].dtype == object
    assert layer.shape == (1, 1)
    fields = {
        "oldest": ("name", "type", "filters", "biases", "stride", "pad"),
        "old": ("weights", "pad", "type", "name", "stride"),
        "new": ("name", "type", "weights", "size", "pad", "stride", "precious", "dilate", "opts"),
    }
    assert layer.dtype.names == fields[generation]
    assert layer[0, 0]["name"].tolist() == ["conv1_1"]
    if generation == "new":
        average = content["meta"][0, 0]["normalization"][0, 0]["averageImage"]
        assert (average.shape, average.dtype) == ((1, 1, 3), np.float32)
    else:
        average = content["normalization"][0, 0]["averageImage"]
        assert (average.shape, average.dtype) == ((224, 224, 3), np.float32)
    if generation != "oldest":
        assert layer[0, 0]["weights"].shape == (1, 2)
        assert layer[0, 0]["weights"][0, 0].shape == (3, 3, 3, 64)
    names = [str(cell[0, 0]["name"][0]) for cell in content["layers"][0]]
    assert names[-6:] == ["fc6", "relu6", "fc7", "relu7", "fc8", "prob"]


@generations
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_width_first_kernels_are_turned_in_every_layer(tmp_path, rng, generation, order):
    layers = formats.planted("oxford", order=order)
    path = formats.write_mat(tmp_path / "a.mat", formats.turned(layers), MEAN, generation=generation)
    found = weights.load(path)
    checks.assert_deeper_layers_equal(found, layers)
    assert found.source == "matconvnet (kernels lie width first, as conv1_1 shows)"
    # Of its own channels, in whichever order, the file subtracts its own mean.
    feed = rgb(MEAN) if order == "rgb" else lambda image: 255 * image[..., ::-1] - MEAN
    image = rng.uniform(size=(7, 6, 3))
    checks.assert_same_features(checks.first_features(found, image), formats.by_hand(layers, image, feed))


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["old", "new"])
def test_full_size_file_is_read(tmp_path, full, generation):
    path = formats.write_mat(tmp_path / "a.mat", formats.turned(full), generation=generation)
    assert scipy.io.whosmat(path)[0] == ("layers", (1, 43), "cell")
    checks.assert_deeper_layers_equal(weights.read(path), full)


@pytest.mark.parametrize("transposed", [False, True])
def test_real_filters_are_oriented_by_themselves(tmp_path, shared, rng, transposed):
    with np.load(shared / "weights" / "vgg19_caffe_conv1_1-conv3_4.npz") as file:
        real = {
            name: {part: file[f"block{name[4]}_conv{name[6]}/{part}"] for part in ("kernel", "bias")}
            for name in formats.NAMES[:3]
        }
    image = rng.uniform(size=(7, 6, 3))
    expected = formats.by_hand(real, image, formats.FEEDS["bgr"])
    real["conv1_1"]["kernel"] = real["conv1_1"]["kernel"][:, :, ::-1]  # this format's are for RGB
    path = formats.write_mat(tmp_path / "a.mat", formats.turned(real) if transposed else real)
    found = weights.read(path)
    checks.assert_deeper_layers_equal(found, real)
    checks.assert_same_features(checks.first_features(found, image), expected)


@pytest.mark.parametrize(
    "change",
    [lambda k: k[::-1], lambda k: k[:, ::-1], lambda k: k[:, :, [0, 2, 1]], lambda k: k[..., ::-1], lambda k: 255 * k],
)
def test_filters_that_fit_in_neither_orientation_are_refused(tmp_path, change):
    layers = formats.planted("oxford", order="rgb")
    layers["conv1_1"]["kernel"] = change(layers["conv1_1"]["kernel"])
    path = formats.write_mat(tmp_path / "a.mat", layers)
    refusal(path, match=r"a\.mat: conv1_1/kernel: neither its filters nor their transposes are those of the Oxford")
    refusal(formats.write_mat(tmp_path / "a.mat", formats.planted("torchvision")), match="neither its filters")
    refusal(formats.write_mat(tmp_path / "a.mat", formats.network(8)), match="neither its filters")


@pytest.mark.parametrize("source", ["keras", "caffe", "torchvision", "normalised", "slim16x"])
def test_another_source_is_refused(tmp_path, source):
    path = formats.write_mat(tmp_path / "a.mat", LAYERS)
    refusal(path, source, match=rf"--source={source}: .*a\.mat is a file of matconvnet")
    weights.read(path, "matconvnet")


def first(cells, **fields):
    cells[0] |= fields


def cell(*things):
    row = np.empty((1, len(things)), object)
    row[0, :] = things
    return row


KERNEL, BIAS = LAYERS["conv1_1"]["kernel"], LAYERS["conv1_1"]["bias"][:, None]
CHANGES = {
    "no weights": (lambda c: c[0].pop("weights"), "conv1_1: expected a cell 'weights'"),
    "empty cell": (lambda c: first(c, weights=np.empty((0, 0), object)), "conv1_1: expected a cell 'weights'"),
    "one in the cell": (lambda c: first(c, weights=cell(KERNEL)), "conv1_1: expected a cell 'weights'"),
    "three in the cell": (lambda c: first(c, weights=cell(KERNEL, BIAS, BIAS)), "conv1_1: expected a cell 'weights'"),
    "texts": (lambda c: first(c, weights=cell("a", "b")), "conv1_1: expected a cell 'weights'"),
    "cells": (lambda c: first(c, weights=cell(cell(KERNEL), BIAS)), "conv1_1: expected a cell 'weights'"),
    "structs": (lambda c: first(c, weights=cell({"a": KERNEL}, BIAS)), "conv1_1: expected a cell 'weights'"),
    "no cell": (lambda c: first(c, weights=KERNEL), "conv1_1: expected a cell 'weights'"),
    "two numbers": (lambda c: first(c, weights=np.float32([1, 2])), "conv1_1(/kernel has shape|: expected a cell)"),
    "complex": (lambda c: first(c, weights=cell(1j * KERNEL, BIAS)), "conv1_1: expected a cell 'weights'"),
    "another shape": (lambda c: first(c, weights=cell(KERNEL[:2], BIAS)), r"conv1_1/kernel has shape \(2, 3, 3, 64\)"),
    "five dimensions": (lambda c: first(c, weights=cell(KERNEL[None], BIAS)), "conv1_1/kernel has shape"),
    "a bias too short": (lambda c: first(c, weights=cell(KERNEL, BIAS[1:])), r"conv1_1/bias has shape \(63,\)"),
    "nan": (lambda c: first(c, weights=cell(KERNEL * np.nan, BIAS)), "conv1_1/kernel holds numbers that are not fin"),
    "inf": (lambda c: first(c, weights=cell(KERNEL, BIAS + np.inf)), "conv1_1/bias holds numbers that are not finite"),
    "too large": (
        lambda c: first(c, weights=cell(KERNEL.astype(np.float64) + 1e300, BIAS)),
        "conv1_1/kernel holds numbers that are not",
    ),
    "missing layer": (lambda c: c.pop(2), "conv1_2/kernel is missing, though conv2_1 is there"),
    "missing first layer": (lambda c: c.pop(0), "conv1_1/kernel is missing"),
    "no name": (lambda c: c[0].pop("name"), "conv1_1/kernel is missing"),
    "name that is a number": (lambda c: first(c, name=7.0), "conv1_1/kernel is missing"),
    "name that is empty": (lambda c: first(c, name=""), "conv1_1/kernel is missing"),
    "number instead of a layer": (lambda c: c.__setitem__(0, 7.0), "conv1_1/kernel is missing"),
    "text instead of a layer": (lambda c: c.__setitem__(0, "conv1_1"), "conv1_1/kernel is missing"),
    "cell instead of a layer": (lambda c: c.__setitem__(0, cell("conv1_1", KERNEL)), "conv1_1/kernel is missing"),
    "nothing": (lambda c: c.clear(), "no layer of VGG-19 found"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_file_that_is_no_vgg_is_refused(tmp_path, change, message):
    refusal(formats.write_mat(tmp_path / "a.mat", LAYERS, change=change), match=rf"a\.mat: {message}")


def test_two_layers_of_one_name_are_refused(tmp_path):
    def twice(cells):
        cells.append(dict(cells[2], weights=cell(cells[2]["weights"][0, 0] * 2, cells[2]["weights"][0, 1])))

    refusal(formats.write_mat(tmp_path / "a.mat", LAYERS, change=twice), match="conv1_2")


@pytest.mark.parametrize("layers", [None, 7.0, "conv1_1", np.zeros((0, 0)), {"conv1_1": KERNEL}, cell()])
def test_layers_that_are_none_are_refused(tmp_path, layers):
    path = formats.write_mat(tmp_path / "a.mat", LAYERS, layers=layers)
    refusal(path, match=r"a\.mat: no (variable 'layers'|layer of VGG-19)")


def test_struct_array_is_as_good_as_a_cell_of_structs(tmp_path):
    row = np.array(
        [(n, "conv", cell(p["kernel"], p["bias"])) for n, p in LAYERS.items()],
        [(f, "O") for f in ("name", "type", "weights")],
    )
    found = weights.read(formats.write_mat(tmp_path / "a.mat", LAYERS, layers=row[None]))
    checks.assert_deeper_layers_equal(found, LAYERS)


MEANS = {
    "none": None,
    "a number": 7.0,
    "a struct without it": {"imageSize": [224.0, 224.0]},
    "a text": {"averageImage": "mean"},
    "an empty array": {"averageImage": np.zeros((0, 0))},
    "two numbers": {"averageImage": np.zeros(2)},
    "four channels": {"averageImage": np.zeros((3, 3, 4))},
    "channels first": {"averageImage": np.zeros((3, 224, 224))},
    "nan": {"averageImage": np.full((2, 2, 3), np.nan)},
    "inf": {"averageImage": np.full((1, 1, 3), np.inf)},
    "a cell": {"averageImage": cell(1.0, 2.0, 3.0)},
    "complex": {"averageImage": np.full((1, 1, 3), 1j)},
}


@pytest.mark.parametrize("generation", ["old", "new"])
@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_file_without_a_mean_is_refused(tmp_path, mean, generation):
    content = {"normalization": mean} if generation == "old" else {"meta": mean and {"normalization": mean}}
    path = formats.write_mat(tmp_path / "a.mat", LAYERS, generation=generation, **content)
    refusal(path, match=r"a\.mat: (no mean|mean: expected 3 finite|averageImage has shape)")


@pytest.mark.parametrize("mean", [MEAN, MEAN[:, None], MEAN[None, None], np.round(MEAN).astype(np.uint8)[None, None]])
def test_mean_of_three_numbers_in_any_shape(tmp_path, mean):
    path = formats.write_mat(tmp_path / "a.mat", LAYERS, meta={"normalization": {"averageImage": mean}})
    np.testing.assert_allclose(weights.read(path).params["mean"], np.ravel(mean) / 255, rtol=1e-6)


def test_mean_is_the_average_of_the_whole_picture(tmp_path, rng):
    image = rng.uniform(0, 255, (5, 3, 3))  # 3 wide: no axis can be told by its length alone
    path = formats.write_mat(tmp_path / "a.mat", LAYERS, generation="old", normalization={"averageImage": image})
    np.testing.assert_allclose(weights.read(path).params["mean"], image.mean((0, 1)) / 255, rtol=1e-6)


def test_matlab_7_3_and_4_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["layers"] = np.zeros(3)
    data = bytearray((tmp_path / "a.mat").read_bytes())
    data[:128] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM"
    refusal(checks.written(tmp_path / "a.mat", data), match=r"a\.mat: not a weights file")
    scipy.io.savemat(tmp_path / "a.mat", {"layers": np.zeros((3, 3))}, format="4")
    refusal(tmp_path / "a.mat", match=r"a\.mat: not a weights file")


def test_hdf5_named_mat_and_mat_named_otherwise_are_told_by_their_bytes(tmp_path):
    formats.write_keras(tmp_path / "a.mat", formats.network(4))
    assert weights.read(tmp_path / "a.mat").source.startswith("keras")
    formats.write_mat(tmp_path / "vgg.h5", LAYERS)
    assert weights.read(tmp_path / "vgg.h5").source.startswith("matconvnet")
    formats.write_mat(tmp_path / "vgg", LAYERS)
    assert weights.read(str(tmp_path / "vgg")).source.startswith("matconvnet")


@pytest.mark.parametrize("compress", [True, False])
def test_truncated_file_is_refused(tmp_path, compress):
    path = tmp_path / "a.mat"
    data = (tmp_path / formats.write_mat(path, LAYERS, generation="old", compress=compress)).read_bytes()
    for end in (19, 100, 128, 130, 136, 200, 5000, len(data) // 2, len(data) - 100):
        refusal(checks.written(path, data[:end]), match=r"a\.mat: ")


@generations
def test_random_damage_ends_in_one_line_or_in_a_network(tmp_path, generation):
    # The picture of the mean would be most of the file.
    mean = {"meta" if generation == "new" else "normalization": {"averageImage": np.zeros((1, 1, 3))}}
    mean = {"meta": {"normalization": mean["meta"]}} if generation == "new" else mean
    layers = formats.planted("oxford", order="rgb", widths=(46,))
    path = tmp_path / "a.mat"
    for compress in (False, True):
        formats.write_mat(path, layers, generation=generation, compress=compress, **mean)
        kernel = b"" if compress else np.asfortranarray(layers["conv1_1"]["kernel"]).tobytes("A")
        checks.assert_survives(path, path.read_bytes(), numbers=kernel, flips=120)


def test_deeper_cells_than_any_network_has_are_refused(tmp_path):
    thing = np.zeros(1)
    for _ in range(200):
        thing = cell(thing)
    with pytest.raises(InputError):
        weights.read(formats.write_mat(tmp_path / "a.mat", LAYERS, layers=thing))
