from pathlib import Path

import jax
import numpy as np
import pytest
import reference
from PIL import Image

import jnst
from jnst import api, images
from jnst.config import StylizeConfig
from jnst.errors import InputError


@pytest.fixture(scope="module")
def options(tiny_file):
    return {
        "weights": tiny_file,
        "steps": 3,
        "content_layers": "relu2_1",
        "style_layers": "relu1_1,relu2_1",
        "size": 0,
        "optimizer": "adam",
        "learning_rate": 0.02,
    }


@pytest.fixture(scope="module")
def bytes_(pictures):
    """The two pictures as uint8."""
    return tuple(np.rint(picture * 255).astype(np.uint8) for picture in pictures)


def test_the_package_offers_it_by_name():
    assert jnst.stylize is api.stylize
    assert jnst.Result is api.Result
    assert set(jnst.__all__) == {"InputError", "Result", "__version__", "stylize"}
    with pytest.raises(AttributeError, match="no attribute 'styleize'"):
        jnst.styleize  # noqa: B018


@pytest.mark.slow
def test_floats_bytes_and_files_give_one_picture(bytes_, options, tmp_path):
    content, style = bytes_
    paths = []
    for index, array in enumerate(bytes_):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(array).save(paths[-1])
    whole = jnst.stylize(content, style, **options)
    assert whole.image.shape == (16, 16, 3)
    assert whole.image.dtype == np.float32
    assert 0 <= whole.image.min() < whole.image.max() <= 1
    assert [row["step"] for row in whole.trace] == [0, 3]
    for other in ((content / 255, style / 255), paths, [str(path) for path in paths]):
        np.testing.assert_allclose(jnst.stylize(*other, **options).image, whole.image, atol=1e-6)


def test_a_jax_array_is_a_picture_too(pictures, options):
    content, style = (jax.numpy.asarray(picture) for picture in pictures)
    assert jnst.stylize(content, style, **options).image.shape == (16, 16, 3)


@pytest.mark.slow
def test_size_is_the_longest_side_and_style_scale_that_of_the_style(pictures, options, tiny_file):
    result = jnst.stylize(pictures[1], pictures[0], **{**options, "size": 10})
    assert result.image.shape == (6, 10, 3)
    config = StylizeConfig(**{**options, "size": 10, "style_scale": 0.8})
    inputs = api.read_inputs(config, content=pictures[1], styles=[pictures[0]])
    assert inputs.styles[0].size == (8, 8)


def test_styles_are_blended_by_their_shares(pictures, options):
    content, style = pictures
    both = [style, style[::-1]]
    alone = jnst.stylize(content, style, **options)
    first = jnst.stylize(content, both, style_mix="1,0", **options)
    mixed = jnst.stylize(content, both, style_mix="0.3,0.7", **options)
    again = jnst.stylize(content, tuple(both), style_mix="3,7", **options)
    np.testing.assert_allclose(first.image, alone.image, atol=1e-5)
    assert np.abs(mixed.image - alone.image).max() > 1e-3
    np.testing.assert_array_equal(mixed.image, again.image)


def test_alpha_is_kept_and_put_back(bytes_, options, tmp_path):
    alpha = np.linspace(0, 255, 256).astype(np.uint8).reshape(16, 16)
    Image.fromarray(np.dstack([bytes_[0], alpha])).save(tmp_path / "content.png")
    result = jnst.stylize(tmp_path / "content.png", bytes_[1], **options)
    result.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(out)[..., 3], alpha)
        np.testing.assert_array_equal(np.asarray(out)[..., :3], np.rint(result.image * 255))


def test_the_same_seed_gives_the_same_bytes(bytes_, options):
    def run(seed):
        return images.encode(jnst.stylize(*bytes_, init="noise", seed=seed, **options).picture, "PNG")

    first = run(0)
    assert run(0) == first
    assert run(1) != first


def test_init_can_be_a_picture_and_is_brought_to_size(bytes_, options, tmp_path):
    Image.fromarray(bytes_[1]).save(tmp_path / "start.png")
    seen = []
    jnst.stylize(
        *bytes_, init=str(tmp_path / "start.png"), callback=lambda record: seen.append(record.image()), **options
    )
    picture = images.resize(images.load(tmp_path / "start.png"), (16, 16))
    np.testing.assert_allclose(seen[0], picture.rgb, atol=1e-6)


def test_the_callback_stops_the_run(pictures, options):
    result = jnst.stylize(*pictures, callback=lambda record: record.step == 1, **options)
    assert result.run.stopped == "interrupted"
    assert [row["step"] for row in result.trace] == [0, 1]


@pytest.mark.slow
def test_precision_float64_needs_no_setting_and_leaves_none_behind(pictures, options):
    plain = jnst.stylize(*pictures, **options)
    exact = jnst.stylize(*pictures, precision="float64", **options)
    assert not jax.config.jax_enable_x64
    assert exact.image.dtype == np.float32
    np.testing.assert_allclose(exact.trace[0]["style"], plain.trace[0]["style"], rtol=1e-4)
    assert exact.trace[0] != plain.trace[0]


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16, 3), (16, 16, 4), (0, 4, 3)], ids=str)
@pytest.mark.parametrize("side", ["content", "style"])
def test_a_wrong_shape_is_refused(pictures, options, shape, side):
    given = {"content": pictures[0], "style": pictures[1], side: np.zeros(shape)}
    with pytest.raises(InputError, match=rf"{side}: an array of shape \({shape[0]}, .*expected \[H, W, 3\]"):
        jnst.stylize(**given, **options)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, "float64"),
        (-0.1, "float32"),
        (np.nan, "float64"),
        (np.inf, "float16"),
        (200, "int64"),
        ("white", "<U5"),
        (0.5j, "complex128"),
        (None, "object"),
    ],
)
def test_wrong_numbers_are_refused_by_the_type_that_was_given(pictures, options, value, kind):
    array = np.full((16, 16, 3), value, kind)
    with pytest.raises(InputError, match=rf"content: an array of {kind}: expected uint8, or floats in \[0, 1\]"):
        jnst.stylize(array, pictures[1], **options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "--steps=0: expected a number not below 1"),
        ({"steps": 2.5}, "--steps=2.5: expected a whole number"),
        ({"style_weight": float("nan")}, "--style_weight=nan: expected a finite number"),
        ({"learning_rate": -1.0}, "--learning_rate=-1.0: expected a number not below 0"),
        ({"optimizer": "newton"}, "--optimizer=newton: expected one of adam"),
        ({"canvas_scale": 2}, "--canvas_scale=2: expected one of 1, 255"),
        ({"style_layers": "relu6_1"}, "'relu6_1' is no layer of VGG-19"),
        ({"style_mix": "1,2"}, "--style_mix=1,2: expected 1 numbers?, one for each style, found 2"),
        ({"weights": "nowhere.npz"}, "--weights=nowhere.npz: no such file"),
        ({"device": "tpu:99"}, "--device=tpu:99: "),
        ({"size": 1}, "--content: 1x1 pixels are too few: relu2_1 needs at least 2"),
        ({"style_scale": 0.05}, "--style: 1x1 pixels are too few: relu2_1 needs at least 2"),
        ({"init": "nowhere.png"}, "nowhere.png: no such file"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_named(pictures, options, changed, message):
    with pytest.raises(InputError, match=message):
        jnst.stylize(*pictures, **{**options, **changed})


def test_an_unknown_option_is_a_type_error(pictures, options):
    with pytest.raises(TypeError, match="styleweight"):
        jnst.stylize(*pictures, styleweight=3.0, **options)


@pytest.mark.parametrize(
    ("content", "style", "message"),
    [
        ("nowhere.png", None, "nowhere.png: no such file"),
        ("", None, "--content=: expected a picture file"),
        (None, [], "--style=: expected at least one style image"),
        (None, "", "--style=: expected a picture file"),
    ],
)
def test_a_picture_that_is_not_there_is_named(pictures, options, content, style, message):
    with pytest.raises(InputError, match=message):
        jnst.stylize(pictures[0] if content is None else content, pictures[1] if style is None else style, **options)


@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate"])
def test_a_picture_one_pixel_too_small_says_the_minimum(options, tiny, tmp_path, padding):
    from jnst import weights
    from jnst.nets import vgg

    weights.save_safetensors(tmp_path / "w.safetensors", tiny, padding=padding)
    least = vgg.min_size(["relu3_1"], padding)
    config = StylizeConfig(**{**options, "weights": str(tmp_path / "w.safetensors"), "content_layers": "relu3_1"})
    fits = reference.smooth_picture(least, least + 3, 1)
    assert api.read_inputs(config, content=fits, styles=[fits]).content.size == (least + 3, least)
    with pytest.raises(InputError, match=f"{least + 3}x{least - 1} pixels are too few: relu3_1 needs at least {least}"):
        api.read_inputs(config, content=fits[1:], styles=[fits])


def test_a_layer_deeper_than_the_weights_is_named(pictures, options, tiny, tmp_path):
    from jnst import weights

    path = tmp_path / "short.safetensors"
    weights.save_safetensors(path, {name: tiny[name] for name in ("mean", "conv1_1", "conv1_2")})
    with pytest.raises(InputError, match="--content_layers: relu2_1 is not in .*which ends at conv1_2"):
        jnst.stylize(*pictures, **{**options, "weights": str(path)})


def test_a_loss_that_is_not_finite_at_the_start_is_refused(pictures, options, tiny, tmp_path):
    from jnst import weights

    path = tmp_path / "huge.safetensors"
    huge = {"kernel": tiny["conv2_1"]["kernel"] * np.float32(1e30), "bias": tiny["conv2_1"]["bias"]}
    weights.save_safetensors(path, {**tiny, "conv2_1": huge})
    with pytest.raises(InputError, match="the style term is not finite at the start"):
        jnst.stylize(*pictures, **{**options, "weights": str(path)})


@pytest.mark.slow
def test_random_weights_are_standardized_and_run(pictures):
    result = jnst.stylize(
        *pictures, weights="random:3", size=0, steps=2, content_layers="relu1_1", style_layers="relu1_1"
    )
    assert np.isfinite(result.image).all()


def test_shrunk_inputs_keep_their_shape_and_never_grow(pictures, options):
    inputs = api.read_inputs(StylizeConfig(**options), content=pictures[0], styles=[pictures[1]])
    small = api.shrunk(inputs, 10)
    assert (small.content.size, small.styles[0].size, small.init) == ((10, 10), (10, 6), None)
    assert api.shrunk(inputs, 99).content.size == inputs.content.size


@pytest.mark.parametrize("name", ["auto:1", "cpu:x", "cuda", "cpu:9999", ""])
def test_a_device_that_is_none_is_refused(name):
    with pytest.raises(InputError, match=f"--device={name}: expected"):
        api.device_of(name)


def test_a_device_that_is_there_is_found():
    assert api.device_of("cpu").platform == api.device_of("cpu:0").platform == "cpu"
    assert api.device_of("auto") == jax.devices()[0]


def test_library_takes_paths_arrays_and_numpy_numbers(tiny_file, pictures):
    options = {"steps": np.int64(1), "style_weight": np.float32(3), "size": 0}
    layers = {"style_layers": "relu1_1", "content_layers": "conv1_1"}
    start = np.full((16, 16, 3), 0.5)
    found = api.stylize(
        pictures[0], list(pictures), weights=Path(tiny_file), init=start, style_mix=(0.3, 0.7), **options, **layers
    )
    written = {"weights": tiny_file, "style_mix": "0.3,0.7"}
    text = api.stylize(pictures[0], list(pictures), init=start, **written, **options, **layers)
    np.testing.assert_array_equal(found.image, text.image)


@pytest.mark.parametrize("name", ["output", "save_every", "checkpoint_every"])
def test_library_refuses_what_only_the_command_does(pictures, name):
    with pytest.raises(TypeError, match=f"{name}: only the command writes files"):
        api.stylize(pictures[0], pictures[1], **{name: 1})
