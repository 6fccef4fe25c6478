import io
import tarfile

import numpy as np
import pytest
import reference
from PIL import Image
from scipy import ndimage

from jnst import comparisons

COLORS = np.array([[0, 48, 255], [0, 0, 222], [253, 80, 1], [192, 255, 63], [173, 0, 1]]) / 255


def _ssim(x, y):
    """By SciPy's filter, as scikit-image has it."""
    x, y = (picture @ [0.299, 0.587, 0.114] for picture in (x, y))
    blur = lambda plane: ndimage.gaussian_filter(plane, 1.5, truncate=3.5)  # noqa: E731 - 11 taps
    ux, uy = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - ux * ux, blur(y * y) - uy * uy, blur(x * y) - ux * uy
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))
    return found[5:-5, 5:-5].mean()


def test_l1_is_the_mean_difference(rng):
    x, y = rng.random((2, 5, 7, 3))
    assert comparisons.l1(x, y) == pytest.approx(np.abs(x - y).sum() / 105, rel=1e-12)


@pytest.mark.parametrize("shape", [(11, 11), (16, 23)])
def test_ssim_is_that_of_another_implementation(rng, shape):
    x, y = rng.random((2, *shape, 3))
    for other in (y, 0.7 * x + 0.3 * y, x * 0.5):
        assert comparisons.ssim(x, other) == pytest.approx(_ssim(x, other), rel=1e-9)
        assert comparisons.ssim(x, other) == pytest.approx(comparisons.ssim(other, x), rel=1e-12)
    assert comparisons.ssim(x, x) == pytest.approx(1, abs=1e-12)


def test_ssim_of_flat_pictures_is_known():
    """Without structure only the means count."""
    x, y = np.full((12, 12, 3), 0.5), np.full((12, 12, 3), 0.25)
    assert comparisons.ssim(x, y) == pytest.approx((2 * 0.125 + 1e-4) / (0.3125 + 1e-4), rel=1e-9)


def test_lab_has_the_values_that_are_known():
    known = {
        (1, 1, 1): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (1, 0, 0): (53.24, 80.09, 67.20),
        (0, 1, 0): (87.73, -86.18, 83.18),
        (0, 0, 1): (32.30, 79.19, -107.86),
        (119 / 255,) * 3: (50.03, 0, 0),
        (2 / 255,) * 3: (0.548, 0, 0),  # linear in both formulas
    }
    found = comparisons.lab(np.array(list(known)))
    np.testing.assert_allclose(found, list(known.values()), rtol=0, atol=0.006)


def test_histogram_intersection_is_that_of_plain_histograms(rng):
    x, y = rng.random((3, 6, 5, 3)), rng.random((2, 8, 4, 3)) ** 2
    found = comparisons.histogram_intersection(list(x), list(y))
    for place, (channel, low, high, bins) in enumerate(
        (("L", 0, 100, 100), ("a", -110, 110, 110), ("b", -110, 110, 110))
    ):
        edges = np.linspace(low, high, bins + 1)
        p, q = (np.histogram(comparisons.lab(z)[..., place].ravel(), edges)[0] / (z.size / 3) for z in (x, y))
        assert found[channel] == pytest.approx(np.minimum(p, q).sum(), abs=1e-9)


def test_histogram_intersection_tells_gray_from_color(rng):
    colors = rng.random((2, 16, 16, 3))
    gray = [np.repeat(picture.mean(-1, keepdims=True), 3, -1) for picture in colors]
    same = comparisons.histogram_intersection(colors, colors)
    assert all(value == pytest.approx(1) for value in same.values())
    assert comparisons.histogram_intersection(gray, colors)["a"] < 0.1
    # By order and number of pictures nothing changes.
    again = comparisons.histogram_intersection([*colors, *colors[::-1]], (picture for picture in colors))
    assert again == pytest.approx(same)
    whites = comparisons.histogram_intersection([np.ones((2, 2, 3))], [np.full((2, 2, 3), 0.999)])
    assert whites["a"] == whites["b"] == 1
    # Gray has no color: a rounding error on either side of zero puts none of it into another bin.
    grays = [np.repeat(np.arange(256)[:, None, None] / 255, 3, -1)]
    shares = comparisons.histogram_intersection(grays, [np.zeros((2, 2, 3))])
    assert shares["a"] == shares["b"] == 1


def _label_map(rng, side=64):
    """Boxes over boxes, as of facades."""
    labels = np.zeros((side, side), int)
    for label in range(1, len(COLORS)):
        for _ in range(3):
            top, left = rng.integers(0, side - 12, 2)
            labels[top : top + 12, left : left + rng.integers(6, 20)] = label
    return labels


def _jpeg(picture):
    buffer = io.BytesIO()
    Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(buffer, "JPEG", quality=85, subsampling=0)
    return np.asarray(Image.open(buffer), np.float64) / 255


def _sorted(colors):
    return colors[np.lexsort(np.round(colors, 1).T)]


def test_label_colors_are_found_through_jpeg_and_the_border_is_passed_over(rng):
    maps = [_label_map(rng) for _ in range(12)]
    pictures = [_jpeg(COLORS[labels]) for labels in maps]
    for picture in pictures:
        picture[:, 0] = [0.0, 1.0, 1.0]  # what a neighbor left there
    found = comparisons.palette_of(iter(pictures))
    assert found.shape == (len(COLORS), 3)
    np.testing.assert_allclose(_sorted(found), _sorted(COLORS), rtol=0, atol=6 / 255)
    np.testing.assert_allclose(found[0], COLORS[0], rtol=0, atol=6 / 255)  # the most frequent
    scores = comparisons.label_scores(pictures, [COLORS[labels] for labels in maps], found)
    assert 0.9 < scores.pixel_accuracy < 1


def test_a_color_needs_its_share():
    picture = np.repeat(COLORS[None, :1], 40, 0)[:, [0] * 40]
    picture[5:7, 5:8] = COLORS[2]
    picture[20:] = COLORS[3]
    assert len(comparisons.palette_of([picture])) == 3
    np.testing.assert_allclose(_sorted(comparisons.palette_of([picture], least_share=0.01)), _sorted(COLORS[[0, 3]]))


def test_what_is_no_label_map_has_no_palette(rng):
    assert len(comparisons.palette_of([rng.random((40, 40, 3))])) == 0
    assert len(comparisons.palette_of([reference.smooth_picture(48, 48, seed=seed) for seed in range(4)])) == 0
    assert len(comparisons.palette_of([np.full((8, 8, 3), 0.5)])) == 0  # one color says nothing


def test_label_scores_are_counted_pixel_by_pixel(rng):
    truth = rng.integers(0, 4, (3, 9, 8))
    made = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 5, truth.shape))
    blurred = COLORS[made] + rng.uniform(-0.05, 0.05, (*made.shape, 3))
    found = comparisons.label_scores(list(blurred), list(COLORS[truth]), COLORS)
    assert found.pixel_accuracy == pytest.approx((made == truth).mean())
    there = range(4)  # the fifth is nowhere in the truth
    own = [((made == k) & (truth == k)).sum() for k in there]
    assert found.class_accuracy == pytest.approx(np.mean([own[k] / (truth == k).sum() for k in there]))
    either = [((made == k) | (truth == k)).sum() for k in there]
    assert found.class_iou == pytest.approx(np.mean([own[k] / either[k] for k in there]))
    assert found.confusion.sum() == truth.size
    assert found.confusion[1, 2] == ((truth == 1) & (made == 2)).sum()
    assert comparisons.label_scores(COLORS[truth], COLORS[truth], COLORS)[:3] == (1, 1, 1)


def test_what_does_not_fit_is_refused(rng):
    x = rng.random((12, 12, 3))
    for measure in (comparisons.l1, comparisons.ssim):
        with pytest.raises(ValueError, match="expected one shape"):
            measure(x, x[:11])
        with pytest.raises(ValueError, match="of uint8; expected"):
            measure(x, (x * 255).astype(np.uint8))
    with pytest.raises(ValueError, match="12x10 pixels; expected at least 11x11"):
        comparisons.ssim(x[:10], x[:10])
    for call in (
        lambda: comparisons.histogram_intersection([], [x]),
        lambda: comparisons.palette_of([]),
        lambda: comparisons.label_scores([], [], COLORS),
    ):
        with pytest.raises(ValueError, match="no pictures"):
            call()
    with pytest.raises(ValueError, match="no label"):
        comparisons.label_scores([x], [x], np.zeros((0, 3)))
    with pytest.raises(ValueError, match="shorter|longer"):
        comparisons.label_scores([x, x], [x], COLORS)


@pytest.mark.slow
def test_the_twelve_labels_of_real_facades(shared):
    archive = shared / "data" / "facades.tar.gz"
    if not archive.is_file():
        pytest.skip("no facades here")
    photos, labels = [], []
    with tarfile.open(archive) as file:
        for member in file:
            if member.isfile() and "/val/" in member.name:
                found = np.asarray(Image.open(file.extractfile(member)), np.float32) / 255
                photos.append(found[:, :256])
                labels.append(found[:, 256:])
            if len(labels) == 30:
                break
    found = np.round(comparisons.palette_of(labels) * 255)
    assert len(found) == 12
    known = [(0, 48, 255), (0, 0, 222), (0, 127, 255), (254, 80, 0), (192, 255, 64), (34, 255, 226), (174, 0, 0)]
    known += [(255, 160, 0), (112, 255, 144), (250, 0, 0), (0, 207, 255), (255, 240, 0)]
    distances = np.linalg.norm(found[:, None] - np.array(known), axis=-1)
    assert sorted(distances.argmin(0)) == list(range(12))
    assert distances.min(0).max() < 12
    assert len(comparisons.palette_of(photos)) == 0
