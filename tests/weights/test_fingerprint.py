import numpy as np
import pytest

from jnst import weights
from jnst.weights import fingerprint
from jnst.weights.fingerprint import TOLERANCE, TRAININGS, Match, match, measure
from weights import formats

each = pytest.mark.parametrize("training", TRAININGS)


def first(layers):
    return layers["conv1_1"]["kernel"], layers["conv1_1"]["bias"]


@each
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("transposed", [False, True])
def test_planted_filters_are_known_in_both_orders_and_orientations(training, order, transposed):
    for seed in range(5):
        layers = formats.planted(training, order=order, transposed=transposed, seed=seed)
        assert match(*first(layers)) == Match(training, order, transposed)


def test_measure_is_what_its_words_say(rng):
    kernel, bias = rng.standard_normal((3, 3, 3, 4)), rng.standard_normal(4)
    by_bias, by_norm = measure(kernel, bias, "bias"), measure(kernel, bias, "norm")
    for index in range(4):
        taps = kernel[..., index]
        norm = np.sqrt(sum(tap**2 for tap in taps.flat))
        expected = [
            sum(taps[y, 2, c] - taps[y, 0, c] for y in range(3) for c in range(3)) / norm,
            sum(taps[2, x, c] - taps[0, x, c] for x in range(3) for c in range(3)) / norm,
            *(taps[:, :, c].sum() / norm for c in range(3)),
        ]
        np.testing.assert_allclose(by_bias[index], [*expected, bias[index] / norm])
        np.testing.assert_allclose(by_norm[index], [*expected, norm])


def test_rescaled_channels_are_still_oxfords_but_not_torchvisions(rng):
    scales = rng.uniform(0.01, 100, 64).astype(np.float32)
    for training, expected in (("oxford", Match("oxford", "bgr", False)), ("torchvision", None)):
        kernel, bias = first(formats.planted(training))
        assert match(kernel * scales, bias * scales) == expected


def test_another_scale_of_the_input_is_another_training():
    for training in TRAININGS:
        kernel, bias = first(formats.planted(training))
        for factor in (255, 1 / 255, 1.05):
            assert match(kernel * np.float32(factor), bias) is None


@each
def test_turned_upside_down_mirrored_or_negated_filters_are_not_known(training):
    kernel, bias = first(formats.planted(training))
    for other in (
        kernel[::-1],
        kernel[:, ::-1],
        kernel[::-1, ::-1],
        -kernel,
        kernel[:, :, [1, 0, 2]],
        kernel[..., ::-1],
    ):
        assert match(other, bias) is None


@each
def test_every_row_counts(training):
    for index in TRAININGS[training].rows:
        kernel, bias = first(formats.planted(training))
        kernel[..., index] = formats.planted(training, seed=9)["conv1_1"]["kernel"][..., 0 if index else 5]
        assert match(kernel, bias) is None


@each
def test_other_filters_miss_by_far(training, rng):
    rows = np.array(list(TRAININGS[training].rows.values()))
    for _ in range(200):
        kernel, bias = rng.standard_normal((3, 3, 3, 64)), rng.standard_normal(64)
        assert match(kernel, bias) is None
        found = measure(kernel, bias, TRAININGS[training].scale)[list(TRAININGS[training].rows)]
        assert np.abs(found - rows).max() > 20 * TOLERANCE


@each
def test_half_precision_is_still_known(training):
    kernel, bias = first(formats.planted(training))
    assert match(kernel.astype(np.float16), bias.astype(np.float16)) == match(kernel, bias) is not None


@pytest.mark.parametrize(
    "shape", [(3, 3, 3, 45), (3, 3, 3, 16), (3, 3, 3, 0), (1, 1, 3, 64), (5, 5, 3, 64), (3, 3, 4, 64)]
)
def test_other_shapes_are_not_known(shape):
    assert match(np.zeros(shape, np.float32), np.zeros(shape[3], np.float32)) is None


@each
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38, 0])
def test_numbers_that_are_none_are_not_known(training, value):
    kernel, bias = first(formats.planted(training))
    assert match(np.full_like(kernel, value), bias) is None
    kernel[0, 0, 0, next(iter(TRAININGS[training].rows))] = value if value else 9
    assert match(kernel, bias) is None


def real(shared, name, key):
    with np.load(shared / "weights" / name) as file:
        return file[f"{key}/kernel"], file[f"{key}/bias"]


def test_committed_numbers_are_those_of_the_real_filters(shared):
    kernel, bias = real(shared, "vgg19_caffe_conv1_1-conv3_4.npz", "block1_conv1")
    rows = TRAININGS["oxford"].rows
    np.testing.assert_allclose(measure(kernel, bias, "bias")[list(rows)], list(rows.values()), rtol=0, atol=5.1e-5)
    for reverse in (1, -1):
        for axes in ((0, 1, 2, 3), (1, 0, 2, 3)):
            found = match(kernel.transpose(axes)[:, :, ::reverse], bias)
            assert found == Match("oxford", "bgr" if reverse == 1 else "rgb", axes[0] == 1)
    assert match(kernel[::-1, ::-1], bias) is None


def test_no_other_real_filters_have_the_numbers(shared):
    kernel, bias = real(shared, "vgg19_caffe_conv1_1-conv3_4.npz", "block1_conv1")
    index = list(TRAININGS["oxford"].rows)
    found = measure(kernel, bias, "bias")
    # Far between: two filters of the network itself differ by more than the tolerance many times over.
    for row in index:
        others = np.delete(found, row, 0)
        assert np.abs(others - found[row]).max(1).min() > 10 * TOLERANCE
    # And each is far from its own transpose, or at least one is, which settles all.
    turned = measure(kernel.transpose(1, 0, 2, 3), bias, "bias")
    assert np.abs(turned - found)[index].max() > 50 * TOLERANCE
    slim = weights.read(shared / "weights" / "vgg19_slim16x_relu5_1.npz")
    assert fingerprint.match(slim.params["conv1_1"]["kernel"], slim.params["conv1_1"]["bias"]) is None


def test_the_normalised_file_has_the_same_filters_rescaled(shared):
    found = weights.read(shared / "weights" / "vgg_normalised_conv3_1.pth").params["conv1_1"]
    assert match(found["kernel"] / 255, found["bias"]) == Match("oxford", "rgb", False)
