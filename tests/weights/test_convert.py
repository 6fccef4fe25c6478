import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import safetensors.numpy

from jnst import weights
from jnst.config import SOURCES
from jnst.nets import vgg
from jnst.weights import convert
from weights import checks, formats
from weights.checks import refusal, saved, written

LAYERS = formats.network(4, 5, 6)
PLANTED = {name: formats.planted(name) for name in ("oxford", "torchvision")}
BGR_LAYER = (255 * np.eye(3)[::-1], -formats.MEAN_RGB[::-1])
MIXING = (np.array([[0.5, 2.0, -1.0], [3.0, 0.25, 0.75], [-0.5, 1.0, 4.0]]), np.array([-0.5, 1.5, -2.0]))


def torch_file(path, arrays, write=formats.zip_file):
    return written(path, write(formats.tensors(arrays)))


def first_layer(matrix, offset):
    matrix, offset = np.float32(matrix).astype(np.float64), np.float32(offset).astype(np.float64)
    return lambda image: image @ matrix.T + offset


def assert_sees(found, layers, image, feed, padding="zeros"):
    assert found.padding == padding
    checks.assert_deeper_layers_equal(found, layers)
    checks.assert_same_features(checks.first_features(found, image), formats.by_hand(layers, image, feed, padding))


# What each kind of file was fed, against float64 arithmetic on the image as that kind's programs prepare it.


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["features.", "", "named", "module.features.", "state_dict.vgg.features.", "model."])
@pytest.mark.parametrize("write", [formats.zip_file, formats.old_file])
def test_caffes_filters_are_known_by_their_numbers(tmp_path, rng, layout, write):
    path = torch_file(tmp_path / "a.pth", formats.state_dict(PLANTED["oxford"], layout), write)
    for source in ("auto", "caffe"):
        found = weights.read(path, source)
        assert_sees(found, PLANTED["oxford"], rng.uniform(size=(7, 6, 3)), formats.FEEDS["bgr"])
        assert found.source.startswith("caffe (conv1_1 holds the numbers")
        assert "BGR" in found.source


@pytest.mark.parametrize("source", ["auto", "caffe"])
def test_caffes_filters_in_the_other_order_are_known_too(tmp_path, rng, source):
    layers = formats.planted("oxford", order="rgb")
    found = weights.read(torch_file(tmp_path / "a.pth", formats.state_dict(layers)), source)
    assert_sees(found, layers, rng.uniform(size=(7, 6, 3)), formats.FEEDS["rgb"])
    assert "RGB" in found.source


@pytest.mark.parametrize("layout", ["features.", "", "named"])
@pytest.mark.parametrize("source", ["auto", "torchvision"])
def test_torchvisions_filters_are_known_by_their_numbers(tmp_path, rng, layout, source):
    path = torch_file(tmp_path / "a.pth", formats.state_dict(PLANTED["torchvision"], layout))
    found = weights.read(path, source)
    assert_sees(found, PLANTED["torchvision"], rng.uniform(size=(7, 6, 3)), formats.FEEDS["torchvision"])
    assert found.source.startswith("torchvision (conv1_1 holds the numbers")
    assert found.licence == "BSD-3-Clause"


def test_torchvisions_filters_in_the_other_order(tmp_path, rng):
    layers = formats.planted("torchvision", order="bgr")
    found = weights.read(torch_file(tmp_path / "a.pth", formats.state_dict(layers)))
    assert_sees(
        found, layers, rng.uniform(size=(7, 6, 3)), lambda image: formats.FEEDS["torchvision"](image)[..., ::-1]
    )


@pytest.mark.slow
@pytest.mark.parametrize(("source", "feed"), [("caffe", "bgr"), ("torchvision", "torchvision")])
def test_what_is_asked_for_is_done_where_numbers_say_nothing(tmp_path, rng, source, feed):
    path = torch_file(tmp_path / "a.pth", formats.state_dict(LAYERS))
    found = weights.read(path, source)
    assert_sees(found, LAYERS, rng.uniform(size=(7, 6, 3)), formats.FEEDS[feed])
    assert found.source == f"{source} (asked for by --source)"


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "source"), [("normalised", "normalised"), ("slim", "slim16x")])
@pytest.mark.parametrize("first", [BGR_LAYER, MIXING], ids=["bgr", "mixing"])
@pytest.mark.parametrize("asked", [True, False])
def test_a_first_layer_of_its_own_says_what_follows_is_fed(tmp_path, rng, layout, source, first, asked):
    path = torch_file(tmp_path / "a.pth", formats.state_dict(LAYERS, layout, first))
    found = weights.read(path, source if asked else "auto")
    assert_sees(found, LAYERS, rng.uniform(size=(7, 6, 3)), first_layer(*first), "reflect")
    assert found.source == f"{source} (its own first layer says what it is fed)"


@pytest.mark.parametrize(("training", "feed"), [("oxford", "bgr"), ("torchvision", "torchvision")])
def test_keras_names_do_not_overrule_the_numbers(tmp_path, rng, training, feed):
    found = weights.read(saved(tmp_path / "a.npz", formats.keras(PLANTED[training])))
    assert_sees(found, PLANTED[training], rng.uniform(size=(7, 6, 3)), formats.FEEDS[feed])


def test_keras_names_alone_mean_bgr_and_say_so(tmp_path, rng):
    path = saved(tmp_path / "a.npz", formats.keras(LAYERS))
    found = weights.read(path)
    assert_sees(found, LAYERS, rng.uniform(size=(7, 6, 3)), formats.FEEDS["bgr"])
    assert found.source == "keras (its layers are named as Keras names them)"
    assert_sees(weights.read(path, "torchvision"), LAYERS, rng.uniform(size=(7, 6, 3)), formats.FEEDS["torchvision"])


@pytest.mark.parametrize("save", ["npz", "safetensors"])
def test_state_dicts_that_somebody_saved_otherwise_are_read(tmp_path, rng, save):
    arrays, path = formats.state_dict(PLANTED["torchvision"]), tmp_path / "a"
    if save == "npz":
        np.savez(tmp_path / "a.npz", **arrays)
        path = tmp_path / "a.npz"
    else:
        safetensors.numpy.save_file(arrays, path)
    found = weights.read(path)
    assert_sees(found, PLANTED["torchvision"], rng.uniform(size=(7, 6, 3)), formats.FEEDS["torchvision"])


@pytest.mark.parametrize("kind", ["f2", "f8", "bfloat16"])
def test_other_precisions_become_float32(tmp_path, kind):
    arrays = formats.state_dict(PLANTED["oxford"])
    if kind == "bfloat16":
        content = {name: formats.bfloat16(array) for name, array in arrays.items()}
        exact = {name: (a.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, a in arrays.items()}
    else:
        exact = {name: array.astype(kind) for name, array in arrays.items()}
        content = formats.tensors(exact)
    for write in (formats.zip_file, formats.old_file):
        found = weights.read(written(tmp_path / "a.pth", write(content)))
        assert found.source.startswith("caffe (conv1_1 holds the numbers")
        for name, number in (("conv1_2", 2), ("conv2_1", 5)):
            kernel = found.params[name]["kernel"]
            assert kernel.dtype == np.float32
            np.testing.assert_array_equal(
                kernel.transpose(3, 2, 0, 1), exact[f"features.{number}.weight"].astype(np.float32)
            )


@pytest.mark.slow
@pytest.mark.parametrize("write", [formats.zip_file, formats.old_file])
def test_full_size_file_is_read(tmp_path, full, write):
    arrays = formats.state_dict(full)
    arrays |= {
        f"classifier.{n}.{part}": np.ones((4, 4)[: 1 + (part == "weight")], np.float32)
        for n, part in itertools.product((0, 3, 6), ("weight", "bias"))
    }
    found = weights.read(torch_file(tmp_path / "a.pth", arrays, write))
    checks.assert_deeper_layers_equal(found, full)
    assert found.source.startswith("caffe")


@pytest.mark.parametrize("layout", ["normalised", "slim"])
def test_all_sixteen_layers_of_the_other_layouts_find_their_places(tmp_path, layout):
    layers = formats.network(*(2,) * 16)
    found = weights.read(torch_file(tmp_path / "a.pth", formats.state_dict(layers, layout, BGR_LAYER)))
    checks.assert_deeper_layers_equal(found, layers)
    assert len(found.convolutions) == 16


# Never guessed.


@pytest.mark.parametrize("layout", ["features.", "", "named", "state_dict.features."])
@pytest.mark.parametrize("widths", [(4,), (64, 4, 5)])
def test_numbers_that_say_nothing_need_source(tmp_path, layout, widths):
    path = torch_file(tmp_path / "a.pth", formats.state_dict(formats.network(*widths), layout))
    line = refusal(path, match="its numbers do not show what the network was fed")
    for source in ("caffe", "torchvision"):
        assert f"--source={source}: {SOURCES[source]}" in line
    assert "keras" not in line


@pytest.mark.parametrize(("training", "source"), [("oxford", "torchvision"), ("torchvision", "caffe")])
def test_source_that_contradicts_the_numbers_is_refused(tmp_path, training, source):
    path = torch_file(tmp_path / "a.pth", formats.state_dict(PLANTED[training]))
    refusal(path, source, match=rf"--source={source}: the numbers of conv1_1 in .*a\.pth are those of")
    path = saved(tmp_path / "a.npz", formats.keras(PLANTED[training]))
    refusal(path, source, match=rf"--source={source}: the numbers of conv1_1 in .*a\.npz are those of")


FILES = {
    "features.": {"auto", "caffe", "torchvision"},
    "": {"auto", "caffe", "torchvision"},
    "named": {"auto", "caffe", "torchvision"},
    "normalised": {"auto", "normalised"},
    "slim": {"auto", "slim16x"},
    "keras": {"auto", "keras", "caffe", "torchvision"},
}


@pytest.mark.parametrize(
    ("layout", "source"),
    [(layout, source) for layout, fitting in FILES.items() for source in SOURCES if source not in fitting],
)
def test_source_that_contradicts_the_names_is_refused(tmp_path, layout, source):
    if layout == "keras":
        path = saved(tmp_path / "a.npz", formats.keras(LAYERS))
    else:
        first = BGR_LAYER if layout in ("normalised", "slim") else None
        path = torch_file(tmp_path / "a.pth", formats.state_dict(LAYERS, layout, first))
    refusal(path, source, match=rf"--source={source}: .* is named like ({'|'.join(FILES[layout] - {'auto'})})")


def test_transposed_filters_outside_matconvnet_are_refused(tmp_path):
    for training in PLANTED:
        layers = formats.planted(training, transposed=True)
        path = torch_file(tmp_path / "a.pth", formats.state_dict(layers))
        refusal(path, match=f"{training}, but transposed; expected height first")


@pytest.mark.parametrize("other", ["state_dict.features.", "module.features.", "ema.features."])
def test_two_networks_in_one_file_are_not_mixed(tmp_path, other):
    """The second, with other numbers, is told by its longer names: nothing says which one is meant."""
    both = formats.state_dict(PLANTED["oxford"]) | formats.state_dict(formats.planted("oxford", seed=1), other)
    path = torch_file(tmp_path / "a.pth", both)
    if other == "ema.features.":  # a name that is none of ours
        checks.assert_deeper_layers_equal(weights.read(path), PLANTED["oxford"])
    else:
        refusal(path)


# Other networks, and damage: the line names key or layer, and file.


def torchvision_numbers(*counts, norm):
    """The names and shapes of torchvision's VGGs."""
    arrays, index, channels = {}, 0, 3
    for block, count in enumerate(counts):
        for _ in range(count):
            width = 2 + block
            arrays[f"features.{index}.weight"] = np.ones((width, channels, 3, 3), np.float32)
            arrays[f"features.{index}.bias"] = np.ones(width, np.float32)
            if norm:
                for part in ("weight", "bias", "running_mean", "running_var"):
                    arrays[f"features.{index + 1}.{part}"] = np.ones(width, np.float32)
                arrays[f"features.{index + 1}.num_batches_tracked"] = np.array(0)
            index, channels = index + (3 if norm else 2), width
        index += 1
    return arrays


@pytest.mark.parametrize(
    ("counts", "norm", "key"),
    [
        ((2, 2, 3, 3, 3), False, r"features\.17\.weight \(5, 4, 3, 3\)"),  # VGG-16
        ((2, 2, 3, 3, 3), True, r"features\.1\.weight \(2,\)"),
        ((2, 2, 4, 4, 4), True, r"features\.1\.weight \(2,\)"),  # VGG-19 with batch normalization
        ((2, 2, 2, 2, 2), False, r"features\.15\.weight"),  # VGG-13
        ((1, 1, 2, 2, 2), False, r"features\.3\.weight"),  # VGG-11
    ],
)
@pytest.mark.parametrize("source", ["auto", "caffe", "torchvision"])
def test_other_networks_are_refused_by_a_key(tmp_path, counts, norm, key, source):
    path = torch_file(tmp_path / "a.pth", torchvision_numbers(*counts, norm=norm))
    refusal(path, source, match=rf"a\.pth: {key} .*is no convolution of VGG-19")


def test_the_helper_makes_vgg19_too(tmp_path):
    arrays = torchvision_numbers(2, 2, 4, 4, 4, norm=False)
    assert [key for key in arrays if key.endswith("weight")] == [f"features.{n}.weight" for n in formats.PLAIN]
    assert len(weights.read(torch_file(tmp_path / "a.pth", arrays), "torchvision").convolutions) == 16


def test_layers_of_other_names_are_refused(tmp_path):
    arrays = formats.state_dict(LAYERS, "named")
    for key in ("conv6_1.weight", "conv1_3.weight", "conv5_5.bias"):
        line = refusal(torch_file(tmp_path / "a.pth", arrays | {key: np.ones((2, 6, 3, 3), np.float32)}))
        assert key in line
    arrays = {"layer1.0.conv1.weight": np.ones((4, 3, 3, 3), np.float32)}
    refusal(torch_file(tmp_path / "a.pth", arrays), match="no layer found")


@pytest.mark.parametrize("write", [formats.zip_file, formats.old_file])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"2.weight": None, "2.bias": None}, "conv1_2/kernel is missing, though conv2_1 is there"),
        ({"2.bias": None}, "conv1_2/bias is missing"),
        ({"0.weight": None, "0.bias": None}, "conv1_1/kernel is missing"),
        ({"0.weight": np.ones((4, 3, 5, 5))}, r"conv1_1/kernel has shape \(5, 5, 3, 4\): expected \(3, 3, 3, out\)"),
        ({"0.weight": np.ones((4, 1, 3, 3))}, r"conv1_1/kernel has shape"),
        ({"0.weight": np.ones(4)}, r"conv1_1/kernel has shape"),
        ({"2.weight": np.ones((5, 5, 3, 3))}, r"conv1_2/kernel has shape .*: expected \(3, 3, 4, out\)"),
        ({"2.bias": np.ones((1, 5, 1, 1))}, r"conv1_2/bias has shape"),
        ({"5.bias": np.full(6, np.nan)}, "conv2_1/bias holds numbers that are not finite"),
        ({"5.weight": np.full((6, 5, 3, 3), np.inf)}, "conv2_1/kernel holds numbers that are not finite"),
        ({"5.weight": np.full((6, 5, 3, 3), 1e300)}, "conv2_1/kernel holds numbers that are not finite"),
        ({"0.weight": np.full((4, 3, 3, 3), 3e38)}, "conv1_1/kernel holds numbers that are not finite"),
    ],
)
def test_damaged_network_is_refused_by_layer_and_file(tmp_path, write, changes, message):
    arrays = formats.state_dict(LAYERS) | {f"features.{key}": array for key, array in changes.items()}
    arrays = {key: array for key, array in arrays.items() if array is not None}
    refusal(torch_file(tmp_path / "a.pth", arrays, write), "caffe", match=rf"a\.pth: {message}")


@pytest.mark.parametrize(
    "first",
    [
        {"weight": None},
        {"bias": None},
        {"weight": np.ones((4, 3, 1, 1))},
        {"bias": np.ones(4)},
        {"weight": np.ones((3, 3, 1, 1))},
        {"weight": np.zeros((3, 3, 1, 1))},
        {"weight": np.full((3, 3, 1, 1), np.nan)},
        {"weight": np.diag([1, 1, 1e-9])[:, :, None, None]},
        {"weight": np.diag([1e300, 1, 1])[:, :, None, None]},
        {"bias": np.array([0, np.inf, 0])},
        {"bias": np.array([0, 1e300, 0])},
    ],
)
@pytest.mark.parametrize(("layout", "name"), [("normalised", "0"), ("slim", "conv0")])
def test_first_layer_that_says_nothing_is_refused(tmp_path, first, layout, name):
    arrays = formats.state_dict(LAYERS, layout, BGR_LAYER) | {f"{name}.{part}": a for part, a in first.items()}
    arrays = {key: array for key, array in arrays.items() if array is not None}
    refusal(torch_file(tmp_path / "a.pth", arrays), match=r"a\.pth: ")


# The real part.


def real(shared, name):
    path = shared / "weights" / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return weights.read(path)


@pytest.mark.parametrize(
    ("name", "source", "padding", "widths"),
    [
        ("vgg19_caffe_conv1_1-conv3_4.npz", "keras (conv1_1 holds", "zeros", [64, 64, 128, 128, *[256] * 4]),
        ("vgg_normalised_conv3_1.pth", "normalised (its own", "reflect", [64, 64, 128, 128, 256]),
        ("vgg19_slim16x_relu5_1.pth", "slim16x (its own", "reflect", [16, 16, 32, 32, *[64] * 4, *[128] * 5]),
        ("vgg19_slim16x_relu5_1.npz", "slim16x (its own", "reflect", [16, 16, 32, 32, *[64] * 4, *[128] * 5]),
    ],
)
def test_real_files_are_recognized(shared, name, source, padding, widths):
    found = real(shared, name)
    assert found.source.startswith(source)
    assert found.padding == padding
    assert [found.params[layer]["kernel"].shape[3] for layer in found.convolutions] == widths
    np.testing.assert_allclose(found.params["mean"], formats.MEAN_RGB / 255, atol=0.01)


def test_real_slim_networks_from_both_files_are_one(shared):
    one, other = (real(shared, f"vgg19_slim16x_relu5_1.{end}").params for end in ("pth", "npz"))
    checks.assert_equal_params(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_two_sources_of_one_training_give_the_same_features_up_to_channel_scales(shared, padding):
    layers = ("relu1_1", "relu2_1", "relu3_1")
    image = reference.smooth_picture(26, 22, seed=5)

    def features(params):
        with jax.enable_x64(True):
            params = {name: params[name] for name in ("mean", *vgg.convolutions(layers))}
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
            found = vgg.features(params, jnp.asarray(image, jnp.float64), layers, padding=padding)
            return {layer: np.asarray(found[layer]) for layer in layers}

    def misfit(one, other):
        """Of each channel, after its best scale; over the channel's largest number. And the scales."""
        scales = (one * other).sum((0, 1)) / np.maximum((one**2).sum((0, 1)), 1e-30)
        largest = np.maximum(np.abs(other).max((0, 1)), 1e-30)
        return np.abs(scales * one - other) / largest, scales

    oxford = real(shared, "vgg19_caffe_conv1_1-conv3_4.npz").params
    normalised = real(shared, "vgg_normalised_conv3_1.pth").params
    ours, theirs = features(oxford), features(normalised)
    for layer in layers:
        errors, scales = misfit(ours[layer], theirs[layer])
        alive = ours[layer].max((0, 1)) > 0
        np.testing.assert_array_equal(alive, theirs[layer].max((0, 1)) > 0)
        assert alive.mean() > 0.8
        assert (scales[alive] > 0).all()
        assert np.ptp(scales[alive]) > 0.01 * scales[alive].max()  # they were rescaled, and not all alike
        border = np.ones(errors.shape[:2], bool)
        border[1:-1, 1:-1] = False
        for part in (border, ~border):
            assert errors[part][:, alive].max() < 1e-4, layer
    first = oxford["conv1_1"]
    for wrong in (
        oxford | {"conv1_1": first | {"kernel": first["kernel"][:, :, ::-1]}},  # the other order of channels
        oxford | {"conv1_1": first | {"kernel": first["kernel"].transpose(1, 0, 2, 3)}},
        oxford | {"mean": oxford["mean"][::-1]},
    ):
        errors, _ = misfit(features(wrong)["relu1_1"], theirs["relu1_1"])
        assert errors.max() > 0.01


def test_what_is_asked_for_says_nothing_of_the_origin():
    arrays = {"features.0.weight": np.ones((4, 3, 3, 3), np.float32), "features.0.bias": np.zeros(4, np.float32)}
    for source in ("caffe", "torchvision"):
        found = convert.convert("a.pth", arrays, source)
        assert (found.source, found.origin, found.licence) == (source, "", "")
