import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jnst import conv, images, ops, weights, winograd
from jnst.config import BLOCKS, PADDINGS, POOLINGS
from jnst.errors import InputError
from jnst.nets import vgg

features = jax.jit(vgg.features, static_argnames=("layers", "pooling", "padding"))
standardize = jax.jit(vgg.standardize, static_argnames=("layers", "pooling", "padding"))
DEEP = ("conv1_1", "relu1_2", "relu2_1", "conv3_1", "relu3_1")


def _float64(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def _up_to(params, last):
    return {name: params[name] for name in ("mean", *vgg.convolutions([last]))}


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "padding"), [*zip(POOLINGS, PADDINGS, strict=True)])
def test_features_equal_the_reference(x64, tiny, pooling, padding):
    image = reference.smooth_picture(11, 13, seed=3)  # odd, and odd again once halved
    ours = features(_float64(_up_to(tiny, "relu3_1")), _float64(image), DEEP, pooling=pooling, padding=padding)
    expected = reference.features(tiny, image, DEEP, pooling, padding)
    assert ours.keys() == set(DEEP)
    for layer in DEEP:
        np.testing.assert_allclose(ours[layer], expected[layer], rtol=1e-11, atol=1e-12, err_msg=layer)


@pytest.mark.slow
def test_all_sixteen_layers_equal_the_reference(x64, tiny):
    image = reference.smooth_picture(17, 34, seed=4)
    names = tuple(kind + name[4:] for name in vgg.convolutions() for kind in ("conv", "relu"))
    assert len(names) == 32
    ours = features(_float64(tiny), _float64(image), names, pooling="max", padding="zeros")
    expected = reference.features(tiny, image, names, "max", "zeros")
    for layer in names:
        np.testing.assert_allclose(ours[layer], expected[layer], rtol=1e-9, atol=1e-10, err_msg=layer)


def test_float32_features_are_right_to_a_hundred_thousandth(tiny, pictures):
    with jax.default_matmul_precision("highest"):
        ours = features(_up_to(tiny, "relu3_1"), pictures[0], DEEP)
    expected = reference.features(tiny, pictures[0], DEEP, "max", "zeros")
    for layer in DEEP:
        assert ours[layer].dtype == jnp.float32
        np.testing.assert_allclose(ours[layer], expected[layer], rtol=0, atol=1e-5 * np.abs(expected[layer]).max())


@pytest.mark.slow
def test_real_weights_on_a_real_picture_equal_the_reference(shared):
    path = shared / "weights" / "vgg19_caffe_conv1_1-conv3_4.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    image = images.load(shared / "images" / "content" / "louvre.jpg")
    image = images.resize(image, images.fit(image.size, 64)).rgb
    layers = ("relu1_1", "relu2_1", "relu3_1", "conv3_4")
    with jax.default_matmul_precision("highest"):
        ours = features(weights.read(path).params, image, layers)
    # As the network was trained: blue first, 0..255, minus the published mean; nothing folded, nothing reversed.
    raw = {"mean": np.array([103.939, 116.779, 123.68])}
    with np.load(path) as arrays:
        for name in reference.LAYERS[:8]:
            keras = f"block{name[4]}_conv{name[6]}"
            raw[name] = {part: arrays[f"{keras}/{part}"] for part in ("kernel", "bias")}
    expected = reference.features(raw, 255 * image[..., ::-1].astype(np.float64), layers, "max", "zeros")
    for layer in layers:
        np.testing.assert_allclose(ours[layer], expected[layer], rtol=0, atol=1e-5 * np.abs(expected[layer]).max())


def test_shapes_halve_from_block_to_block_and_odd_sides_floor():
    widths = (4, 5, 6, 7, 8)
    params = reference.random_params(widths, seed=0)
    layers = [f"{kind}{block}_{BLOCKS[block - 1]}" for block in range(1, 6) for kind in ("conv", "relu")]
    found = jax.eval_shape(lambda x: vgg.features(params, x, layers), jax.ShapeDtypeStruct((35, 64, 3), jnp.float32))
    sides = dict(zip(range(1, 6), [(35, 64), (17, 32), (8, 16), (4, 8), (2, 4)], strict=True))
    for layer in layers:
        block = int(layer[4])
        assert found[layer].shape == (*sides[block], widths[block - 1]), layer
    pools = [f"pool{block}" for block in range(1, 5)]
    found = jax.eval_shape(lambda x: vgg.features(params, x, pools), jax.ShapeDtypeStruct((35, 64, 3), jnp.float32))
    assert [found[pool].shape for pool in pools] == [(*sides[block + 1], widths[block - 1]) for block in range(1, 5)]


@pytest.mark.slow
def test_conv_is_before_the_rectifier_and_relu_after_it(tiny, pictures):
    found = features(_up_to(tiny, "relu4_1"), pictures[0], ("conv4_1", "relu4_1"))
    assert found["conv4_1"].min() < 0
    np.testing.assert_array_equal(found["relu4_1"], np.maximum(found["conv4_1"], 0))


@pytest.mark.slow
def test_asking_for_one_layer_gives_what_asking_for_many_gives(x64, tiny, pictures):
    params, image = _float64(_up_to(tiny, "relu3_1")), _float64(pictures[0])
    many = features(params, image, DEEP)
    alone = features(params, image, ("relu2_1",))
    assert list(alone) == ["relu2_1"]
    np.testing.assert_allclose(alone["relu2_1"], many["relu2_1"], rtol=1e-12)


@pytest.mark.parametrize(
    ("layers", "count"),
    [(["conv1_1"], 1), (["relu2_2"], 4), (["relu4_2", "conv1_2"], 10), (["relu5_4"], 16), (["relu1_1", "relu1_2"], 2)]
    + [(["pool4"], 12), (["pool1", "relu1_1"], 2), (["pool1", "conv2_1"], 3), ([], 0)],
)
def test_computes_no_deeper_than_asked_and_needs_no_more_weights(tiny, layers, count):
    params = {name: tiny[name] for name in ("mean", *vgg.convolutions(layers))}
    assert len(params) == count + 1
    image = jax.ShapeDtypeStruct((16, 16, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda params, x: vgg.features(params, x, layers))(params, image)
    assert str(jaxpr).count("= conv_general_dilated[") == count


@pytest.mark.parametrize(
    ("layers", "count"),
    [(["relu1_2"], 0), (["pool1"], 1), (["conv2_1"], 1), (["pool4", "pool1"], 4), (["relu5_4"], 4)],
)
def test_pools_no_more_than_asked(tiny, monkeypatch, layers, count):
    calls, pool = [], ops.pool
    monkeypatch.setattr(ops, "pool", lambda *args: calls.append(args) or pool(*args))
    jax.eval_shape(lambda x: vgg.features(tiny, x, layers), jax.ShapeDtypeStruct((16, 16, 3), jnp.float32))
    assert len(calls) == count


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["l2", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("max", "avg"))])
def test_a_pool_layer_is_the_pooled_block(x64, tiny, pooling):
    image = reference.smooth_picture(11, 13, seed=3)
    layers = ("pool2", "relu2_2", "pool1")
    ours = features(_float64(_up_to(tiny, "pool2")), _float64(image), layers, pooling=pooling)
    blocks = reference.features(tiny, image, ["relu1_2", "relu2_2"], pooling, "zeros")
    assert list(ours) == sorted(layers)
    for layer, expected in [
        ("relu2_2", blocks["relu2_2"]),
        *((f"pool{block}", reference.pool(blocks[f"relu{block}_2"], pooling)) for block in (1, 2)),
    ]:
        np.testing.assert_allclose(ours[layer], expected, rtol=1e-11, atol=1e-12, err_msg=layer)


@pytest.mark.slow
def test_a_pool_layer_is_what_the_next_block_s_first_convolution_reads(x64, tiny):
    found = features(
        _float64(_up_to(tiny, "conv2_1")), _float64(reference.smooth_picture(8, 6, 3)), ("pool1", "conv2_1")
    )
    kernel, bias = (np.asarray(tiny["conv2_1"][part], np.float64) for part in ("kernel", "bias"))
    expected = reference.conv3x3(np.asarray(found["pool1"]), kernel, bias, "zeros")
    np.testing.assert_allclose(found["conv2_1"], expected, rtol=1e-11, atol=1e-12)


def test_random_filters_and_files_know_which_convolutions_a_pool_layer_needs():
    backbone = weights.random_backbone(0, ["pool1"])
    assert backbone.convolutions == ("conv1_1", "conv1_2")
    backbone.require("style_layers", ["pool1", "relu1_2"])
    with pytest.raises(
        InputError, match=r"^--style_layers: pool2 is not in --weights=random:0, which ends at conv1_2 "
    ):
        backbone.require("style_layers", ["pool1", "pool2"])


def test_missing_weights_are_named(tiny):
    params = {name: tiny[name] for name in tiny if name != "conv2_1"}
    with pytest.raises(KeyError, match="conv2_1"):
        jax.eval_shape(lambda x: vgg.features(params, x, ["relu2_2"]), jax.ShapeDtypeStruct((8, 8, 3), jnp.float32))


def test_convolutions_without_layers_are_all_sixteen_in_order():
    assert list(vgg.convolutions()) == reference.LAYERS


@pytest.mark.slow
def test_vmapped_over_images_equals_looped(x64, tiny):
    params = _float64(_up_to(tiny, "relu2_1"))
    batch = jnp.stack([_float64(reference.smooth_picture(8, 10, seed)) for seed in (5, 6, 7)])
    run = lambda image: vgg.features(params, image, ("relu2_1",))["relu2_1"]  # noqa: E731
    looped = jnp.stack([features(params, image, ("relu2_1",))["relu2_1"] for image in batch])
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(batch), looped, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_vmapped_over_params_equals_looped(x64):
    nets = [_float64(_up_to(reference.random_params((4, 5, 6, 7, 8), seed), "relu2_1")) for seed in (1, 2)]
    image = _float64(reference.smooth_picture(8, 10, seed=5))
    run = lambda params: vgg.features(params, image, ("relu2_1",))["relu2_1"]  # noqa: E731
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets)
    looped = jnp.stack([features(params, image, ("relu2_1",))["relu2_1"] for params in nets])
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(stacked), looped, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_gradient_with_respect_to_the_image_is_a_finite_difference(x64, tiny, rng):
    params = _float64(_up_to(tiny, "relu2_1"))
    image = reference.smooth_picture(8, 10, seed=5).astype(np.float64)
    weight = jnp.asarray(rng.standard_normal((4, 5, 5)))
    score = lambda image: jnp.sum(weight * vgg.features(params, image, ("relu2_1",))["relu2_1"])  # noqa: E731
    gradient = np.asarray(jax.jit(jax.grad(score))(jnp.asarray(image)))
    direction = rng.standard_normal(image.shape)

    def slow(image):
        return np.sum(np.asarray(weight) * reference.features(tiny, image, ["relu2_1"], "max", "zeros")["relu2_1"])

    slope = reference.numeric_slope(slow, image, direction)
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6)


@pytest.mark.slow
def test_bfloat16_kernels_give_bfloat16_features_near_the_float32_ones(tiny, pictures):
    params = _up_to(tiny, "relu3_1")
    exact = features(params, pictures[0], DEEP)
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params) | {"mean": params["mean"]}
    rounded = features(half, pictures[0], DEEP)
    for layer in DEEP:
        assert rounded[layer].dtype == jnp.bfloat16
        error = np.abs(np.asarray(rounded[layer], np.float32) - exact[layer]).max() / np.abs(exact[layer]).max()
        assert 0 < error < 0.05, layer


def test_the_mean_is_subtracted_before_the_padding(x64, tiny):
    image = reference.smooth_picture(6, 6, seed=8)
    ours = np.asarray(features(_float64(_up_to(tiny, "conv1_1")), _float64(image), ("conv1_1",))["conv1_1"])
    right = reference.features(tiny, image, ["conv1_1"], "max", "zeros")["conv1_1"]
    kernel, bias = (np.asarray(tiny["conv1_1"][part], np.float64) for part in ("kernel", "bias"))
    folded = reference.conv3x3(
        image.astype(float), kernel, bias - np.einsum("ijco,c->o", kernel, tiny["mean"]), "zeros"
    )
    border = np.ones((6, 6), bool)
    border[1:-1, 1:-1] = False
    np.testing.assert_allclose(folded[~border], right[~border], rtol=1e-5)  # the test's own check: same inside
    assert np.abs(folded[border] - right[border]).min(axis=0).max() > 0.01  # and wrong along the border
    np.testing.assert_allclose(ours, right, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("layers", [("relu1_1",), ("conv2_2", "relu1_1"), ("relu4_1",)])
def test_min_size_is_exact(tiny, layers, padding):
    least = vgg.min_size(layers, padding)
    found = jax.eval_shape(
        lambda x: vgg.features(tiny, x, layers, padding=padding), jax.ShapeDtypeStruct((least, least, 3), jnp.float32)
    )
    assert all(min(found[layer].shape) >= 1 for layer in layers)
    reference.features(tiny, np.zeros((least, least, 3)), layers, "max", padding)
    if least > 1:
        with pytest.raises(ValueError, match="no pixel left|nothing to reflect"):
            reference.features(tiny, np.zeros((least - 1, least, 3)), layers, "max", padding)


def test_min_size_looks_at_the_deepest_layer():
    assert vgg.min_size(["relu5_1", "relu1_1"]) == 16
    assert vgg.min_size(["relu1_1", "conv5_4"], "reflect") == 32


@pytest.mark.parametrize("padding", ["zeros", "reflect", "wrap"])
@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_min_size_of_a_pool_layer_leaves_one_cell(tiny, block, padding):
    layer, least = f"pool{block}", 2**block
    assert vgg.min_size([layer], padding) == vgg.min_size([layer, f"relu{block}_1"], padding) == least

    def shape(side):
        image = jax.ShapeDtypeStruct((side, side, 3), jnp.float32)
        return jax.eval_shape(lambda x: vgg.features(tiny, x, [layer], padding=padding)[layer], image).shape[:2]

    assert shape(least) == (1, 1)
    assert shape(least - 1 or 1) == (0, 0)


def test_min_size_of_a_reflected_map_beside_a_pool_layer():
    assert vgg.min_size(["pool4", "conv5_1"], "reflect") == 32
    assert vgg.min_size(["pool4", "conv5_1"]) == 16


# ---- A torus


@pytest.mark.parametrize("layer", ["relu1_1", "pool1", pytest.param("relu2_1", marks=pytest.mark.slow)])
def test_wrapped_features_are_those_amid_copies_of_the_picture(x64, tiny, layer):
    # In one copy's middle nothing is seen of the border around nine, nor of another copy beyond those beside it.
    image = reference.smooth_picture(8, 12, seed=3)
    ours = features(_float64(_up_to(tiny, layer)), _float64(image), (layer,), pooling="avg", padding="wrap")[layer]
    whole = np.tile(image, (3, 3, 1))
    base = "relu1_2" if layer == "pool1" else layer
    expected = reference.features(tiny, whole, [base], "avg", "zeros")[base]
    expected = reference.pool(expected, "avg") if layer == "pool1" else expected
    height, width = ours.shape[:2]
    expected = expected[height : 2 * height, width : 2 * width]
    np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-12)


def _rolls(params, rng, pooling, layers):
    """Features and gradient of a picture and of the rolled one, each rolled likewise: pairs that are to be equal."""
    image, shifts = _float64(reference.smooth_picture(16, 8, seed=3)), (12, 4)  # multiples of the deepest stride
    stride = {"relu1_1": 1, "pool1": 2, "conv2_2": 2, "pool2": 4, "relu3_1": 4}.get
    roll = lambda x, by: jnp.roll(x, (shifts[0] // by, shifts[1] // by), (0, 1))  # noqa: E731
    run = lambda image: vgg.features(params, image, layers, pooling=pooling, padding="wrap")  # noqa: E731
    shapes = jax.eval_shape(run, image)
    changes = {layer: jnp.asarray(rng.standard_normal(shapes[layer].shape)) for layer in layers}

    @jax.jit
    def both(image, changes):
        found, pull = jax.vjp(run, image)
        return found, pull(changes)[0]

    (found, gradient), (rolled, rolled_gradient) = (
        both(image, changes),
        both(roll(image, 1), {layer: roll(change, stride(layer)) for layer, change in changes.items()}),
    )
    yield roll(gradient, 1), rolled_gradient
    for layer in layers:
        yield roll(found[layer], stride(layer)), rolled[layer]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "count"),
    [("avg", 2), *(pytest.param(kind, 5, marks=pytest.mark.slow) for kind in POOLINGS)],
)
def test_a_rolled_picture_has_the_rolled_features_and_gradient(x64, tiny, rng, pooling, count):
    layers = ("relu1_1", "pool1", "conv2_2", "pool2", "relu3_1")[:count]
    for expected, ours in _rolls(_float64(_up_to(tiny, layers[-1])), rng, pooling, layers):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
def test_by_winograd_too_a_rolled_picture_has_the_rolled_features_and_gradient(x64, narrow, tiny, rng):
    params = vgg.prepare(_float64(_up_to(tiny, "relu3_1")), "cpu")
    assert "winograd" in params["conv3_1"]
    for expected, ours in _rolls(params, rng, "avg", ("relu1_1", "pool1", "relu3_1")):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.slow
def test_padding_by_zeros_is_no_torus(x64, tiny):
    """Else the tests above could not fail."""
    params, image = _float64(_up_to(tiny, "relu1_1")), _float64(reference.smooth_picture(4, 6, seed=3))
    one, other = (features(params, each, ("relu1_1",))["relu1_1"] for each in (image, jnp.roll(image, 2, 0)))
    assert np.abs(jnp.roll(one, 2, 0) - other).max() > 0.01


@pytest.fixture(scope="module")
def uneven():
    return [reference.smooth_picture(*size, seed=9) for size in ((12, 9), (8, 16))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "padding", "last"),
    [("avg", "zeros", "conv1_2"), pytest.param("max", "reflect", "conv2_1", marks=pytest.mark.slow)],
)
def test_standardize_gives_unit_variance_over_all_pictures_in_a_later_call(x64, tiny, uneven, pooling, padding, last):
    how = {"pooling": pooling, "padding": padding}
    params, uneven, layers = _float64(_up_to(tiny, last)), _float64(uneven), vgg.convolutions([last])
    scaled = standardize(params, uneven, (last,), **how)
    assert jax.tree.structure(scaled) == jax.tree.structure(params)
    runs = [features(scaled, image, layers, **how) for image in uneven]
    for layer in layers:
        values = np.concatenate([np.asarray(run[layer]).reshape(-1, run[layer].shape[-1]) for run in runs])
        np.testing.assert_allclose(values.var(0).mean(), 1, rtol=1e-10, err_msg=layer)
        np.testing.assert_array_equal(scaled[layer]["bias"], tiny[layer]["bias"])
        ratio = np.asarray(scaled[layer]["kernel"]) / tiny[layer]["kernel"]
        assert np.ptp(ratio) < 1e-9 * ratio.max()  # one factor for the whole kernel


@pytest.mark.slow
def test_standardize_leaves_filters_that_see_nothing_finite(tiny, uneven):
    params = _up_to(tiny, "conv2_1")
    params["conv1_2"] = jax.tree.map(np.zeros_like, params["conv1_2"])
    scaled = standardize(params, uneven, ("conv2_1",))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scaled))


def test_whole_numbers_are_no_image(tiny):
    with pytest.raises(TypeError, match="image: an array of uint8: expected floats in"):
        vgg.features(tiny, jnp.zeros((8, 8, 3), jnp.uint8), ["relu1_1"])


# ---- Prepared params: Winograd where it is faster


@pytest.fixture
def narrow(monkeypatch):
    """Winograd on a CPU for however few channels and pixels."""
    monkeypatch.setattr(conv, "LEAST_CHANNELS", {"cpu": (1, 1)})
    monkeypatch.setattr(conv, "LEAST_WORK", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "padding", "last"),
    [
        ("avg", "reflect", "relu1_2"),
        *(pytest.param(*how, "relu3_1", marks=pytest.mark.slow) for how in zip(POOLINGS, PADDINGS, strict=True)),
    ],
)
def test_prepared_params_give_the_same_features_and_gradient(x64, narrow, tiny, rng, pooling, padding, last):
    params, image = _float64(_up_to(tiny, last)), _float64(reference.smooth_picture(11, 13, seed=3))
    layers = tuple(layer for layer in DEEP if layer[4:] <= last[4:])
    shapes = jax.eval_shape(lambda x: vgg.features(params, x, layers), image)
    changes = {layer: jnp.asarray(rng.standard_normal(shapes[layer].shape)) for layer in layers}

    def run(params):
        how = {"pooling": pooling, "padding": padding}
        found, pull = jax.vjp(lambda image: vgg.features(params, image, layers, **how), image)
        return found, pull(changes)[0]

    run = jax.jit(run)
    prepared = vgg.prepare(params, "cpu")
    assert all("winograd" in prepared[name] for name in vgg.convolutions(layers))
    for ours, plain in zip(*map(jax.tree.leaves, (run(prepared), run(params))), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-10 * np.abs(plain).max())


@pytest.mark.slow
def test_prepare_adds_the_transform_and_touches_nothing_else(narrow, tiny):
    params = _up_to(tiny, "conv2_1")
    kept = {name: params[name] if name == "mean" else dict(params[name]) for name in params}
    prepared = vgg.prepare(params, "cpu")
    for name in ("conv1_1", "conv1_2", "conv2_1"):
        np.testing.assert_array_equal(
            prepared[name].pop("winograd"), winograd.transform(params[name]["kernel"]), err_msg=name
        )
    for found in (prepared, params):  # what is given is left as it was
        assert jax.tree.structure(found) == jax.tree.structure(kept)
        assert all(a is b for a, b in zip(*map(jax.tree.leaves, (found, kept)), strict=True))
    prepared["conv1_1"]["bias"] = None  # its records are its own
    assert params["conv1_1"]["bias"] is kept["conv1_1"]["bias"]


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_prepare_leaves_out_what_is_no_faster(platform):
    widths = (64, 64, 8, 64, 64)
    channels = [3, *(widths[int(name[4]) - 1] for name in reference.LAYERS)]
    kernels = {name: (3, 3, *channels[i : i + 2]) for i, name in enumerate(reference.LAYERS)}
    params = {
        name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32), "bias": jax.ShapeDtypeStruct(shape[3:], jnp.float32)}
        for name, shape in kernels.items()
    } | {"mean": jax.ShapeDtypeStruct((3,), jnp.float32)}
    prepared = jax.eval_shape(lambda params: vgg.prepare(params, platform), params)
    chosen = [name for name in vgg.convolutions() if "winograd" in prepared[name]]
    wide = [name for name in reference.LAYERS if name[4] != "3" and name not in ("conv1_1", "conv4_1")]
    assert chosen == (wide if platform == "cpu" else [])
    rest = {name: {k: v for k, v in prepared[name].items() if k != "winograd"} for name in params if name != "mean"}
    assert rest | {"mean": prepared["mean"]} == params
    assert prepared.keys() == params.keys()


@pytest.mark.parametrize(("size", "used"), [(32, False), (128, True)])
def test_a_small_map_is_convolved_directly(size, used):
    # 48 to 48 channels: 4.2e7 and 6.8e8 multiplications and additions; the bound is 1e8.
    params = {"mean": jnp.zeros(3)}
    for name, inputs, outputs in (("conv1_1", 3, 48), ("conv1_2", 48, 48)):
        params[name] = {"kernel": jnp.ones((3, 3, inputs, outputs)), "bias": jnp.zeros(outputs)}
    prepared = vgg.prepare(params, "cpu")
    assert "winograd" in prepared["conv1_2"]
    program = jax.make_jaxpr(lambda image: vgg.features(prepared, image, ["relu1_2"]))(jnp.zeros((size, size, 3)))
    assert ("dot_general" in str(program)) is used


def _gradient(params, image, aim, pooling):
    """Of three Gram matrices' and one layer's distances from another picture's."""
    layers = ("relu1_1", "relu2_1", "conv3_1")
    run = lambda image: vgg.features(params, image, layers, pooling=pooling)  # noqa: E731

    def loss(image):
        found, goal = run(image), jax.lax.stop_gradient(run(aim))
        grams = [(ops.gram(each[layer], 1 / each[layer][..., 0].size) for each in (found, goal)) for layer in layers]
        terms = [jnp.sum((a - b) ** 2) / jnp.sum(b**2) for a, b in grams]
        content = jnp.sum((found["conv3_1"] - goal["conv3_1"]) ** 2) / jnp.sum(goal["conv3_1"] ** 2)
        return sum(terms) + content

    return jax.grad(loss)(image)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_whole_gradients_of_wide_layers_are_near_the_float64_ones(x64, pooling):
    # Rounding flips rectifiers (and maxima), in whatever way the sums are made: the error is of that kind for both.
    params = _up_to(reference.random_params((64, 128, 256, 1, 1), seed=0), "conv3_1")
    pictures = [jnp.asarray(reference.smooth_picture(64, 64, seed)) for seed in (1, 2)]
    run = jax.jit(lambda params, *pictures: _gradient(params, *pictures, pooling))
    with jax.default_matmul_precision("highest"):
        exact = np.asarray(run(*_float64((params, *pictures))))
        direct, winograd = (
            np.asarray(run(each, *pictures), np.float64) for each in (params, vgg.prepare(params, "cpu"))
        )
    errors = [np.linalg.norm(ours - exact) / np.linalg.norm(exact) for ours in (direct, winograd)]
    cosines = [np.sum(ours * exact) / np.linalg.norm(ours) / np.linalg.norm(exact) for ours in (direct, winograd)]
    print(f"{pooling}: relative errors {errors}, cosines - 1 {[cosine - 1 for cosine in cosines]}")
    assert min(cosines) > 0.9999
    assert 0 < min(errors) < max(errors) < 5e-3  # seen: 5e-7 and 1.4e-6; but one flip may be worth 2e-3
