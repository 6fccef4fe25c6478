import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from images import files
from images.files import LINEAR, SWAPPED, cmyk_profile, gray_profile, noise, smooth, srgb_encode, write
from jnst import images


def test_linear_profile_becomes_srgb(tmp_path):
    values = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 2, 3))
    picture = images.load(write(tmp_path / "a.png", Image.fromarray(values), icc_profile=LINEAR))
    np.testing.assert_allclose(picture.rgb, srgb_encode(values / 255.0), atol=3 / 255)


@pytest.mark.parametrize(
    ("ending", "mode"),
    [(".jpg", "RGB"), *((ending, mode) for ending in (".png", ".tif") for mode in ("RGB", "RGBA", "P"))],
)
def test_profile_with_swapped_primaries_swaps_colors(tmp_path, mode, ending):
    image = Image.new("RGB", (16, 16), (255, 0, 0)).convert(mode)
    if mode == "RGBA":
        image.putalpha(128)
    options = {"quality": 100} if ending == ".jpg" else {}
    picture = images.load(write(tmp_path / f"a{ending}", image, icc_profile=SWAPPED, **options))
    np.testing.assert_allclose(picture.rgb, np.broadcast_to([0, 0, 1.0], (16, 16, 3)), atol=0.02)
    assert (picture.alpha is not None) == (mode == "RGBA")


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_linear_gray_profile_becomes_srgb(tmp_path, mode):
    image = Image.new("L", (2, 2), 55)
    if mode == "LA":
        image.putalpha(128)
    picture = images.load(write(tmp_path / "a.png", image, icc_profile=gray_profile(1.0)))
    np.testing.assert_allclose(picture.rgb, srgb_encode(np.full((2, 2, 3), 55 / 255)), atol=3 / 255)


def test_cmyk_goes_through_its_profile(tmp_path):
    path = write(tmp_path / "a.tif", Image.new("CMYK", (2, 2), (255, 0, 0, 0)), icc_profile=cmyk_profile())
    rgb = images.load(path).rgb
    assert rgb[..., 0].min() > 0.95
    assert rgb[..., 1:].max() < 0.25


@pytest.mark.parametrize("profile", [b"not a profile", gray_profile(1.0), LINEAR[:200]])
def test_unusable_profile_leaves_the_pixels_as_they_are(tmp_path, profile):
    values = noise(4, 4, 3)
    path = write(tmp_path / "a.png", Image.fromarray(values), icc_profile=profile)
    np.testing.assert_array_equal(images.load(path).rgb * 255, values)


def test_cmyk_without_profile_is_white_without_ink(tmp_path):
    for ending in (".tif", ".jpg"):
        blank = images.load(write(tmp_path / f"a{ending}", Image.new("CMYK", (8, 8), (0, 0, 0, 0))))
        inked = images.load(write(tmp_path / f"b{ending}", Image.new("CMYK", (8, 8), (0, 0, 0, 255))))
        assert blank.rgb.min() > 0.98
        assert inked.rgb.max() < 0.02


# ---- 16 bits and more

EXACT = 2 / 65535  # what LittleCMS rounds on its way
# Between these primaries and those of LittleCMS's own sRGB lie half a step of 8 bits in the darkest colors.
OTHER_SRGB = 150 / 65535


def with_profile(values, profile, ending):
    """A file of uint16 or float32 pixels with this profile."""
    if ending == ".tif":
        photometric = {1: 1, 2: 1, 3: 2, 4: 5}[values.shape[2]]
        extra = (2,) if values.shape[2] == 2 else ()
        return files.tiff(values, photometric, extra=extra, tags={34675: ("B", list(profile))})
    chunk = files.chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))
    return files.png(values, {1: 0, 2: 4, 3: 2}[values.shape[2]], 16, before=chunk)


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize(("primaries", "exponent"), [(files.P3_PRIMARIES, 2.2), (files.SRGB_PRIMARIES[::-1], 1.8)])
def test_profile_of_sixteen_bits_is_followed_to_more_than_eight(tmp_path, ending, primaries, exponent):
    values = noise(64, 65, 3, dtype=np.uint16)
    values[:32] //= 16  # dark colors, where the shortcuts of LittleCMS are off by 17/255
    profile = files.rgb_profile(primaries, exponent)
    found = images.load(write(tmp_path / f"a{ending}", with_profile(values, profile, ending))).rgb
    expected = files.to_srgb(values / 65535, primaries, exponent)
    assert np.abs(found - expected).max() < OTHER_SRGB
    assert np.abs(found - expected).mean() < 10 / 65535
    assert len(np.unique(np.rint(found * 65535))) > 5000


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("exponent", [1.0, 2.2])
def test_gray_of_sixteen_bits_keeps_profile_and_alpha(tmp_path, ending, channels, exponent):
    values = noise(40, 50, channels, dtype=np.uint16)
    path = write(tmp_path / f"a{ending}", with_profile(values, gray_profile(exponent), ending))
    found = images.load(path)
    expected = srgb_encode((values[..., :1] / 65535) ** (round(exponent * 256) / 256))
    np.testing.assert_allclose(found.rgb, np.repeat(expected, 3, 2), rtol=0, atol=EXACT)
    if channels == 2:
        np.testing.assert_allclose(found.alpha, values[..., 1] / 65535, rtol=0, atol=1e-7)


@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_gray_keeps_its_profile(tmp_path, depth):
    values = np.arange(12).reshape(3, 4, 1) * (2**depth // 12)
    before = files.chunk(b"iCCP", b"x\0\0" + zlib.compress(gray_profile(1.0)))
    before += files.chunk(b"tRNS", struct.pack(">H", values[1, 2, 0]))
    found = images.load(write(tmp_path / "a.png", files.png(values, 0, depth, before=before)))
    expected = srgb_encode(np.repeat(values / (2**depth - 1), 3, 2))
    np.testing.assert_allclose(found.rgb, expected, rtol=0, atol=EXACT if depth == 16 else 1 / 255)
    np.testing.assert_array_equal(found.alpha, values[..., 0] != values[1, 2, 0])


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 3), (2, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_profiles_do_not_mind_the_shape(tmp_path, size, channels):
    values = noise(*size, channels, dtype=np.uint16)
    profile = LINEAR if channels == 3 else gray_profile(1.0)
    found = images.load(write(tmp_path / "a.tif", with_profile(values, profile, ".tif"))).rgb
    np.testing.assert_allclose(found, np.broadcast_to(srgb_encode(values / 65535), (*size, 3)), rtol=0, atol=OTHER_SRGB)


def test_float_tiff_follows_its_profile(tmp_path):
    values = np.random.default_rng(0).random((9, 9, 3), np.float32)
    found = images.load(write(tmp_path / "a.tif", with_profile(values, LINEAR, ".tif"))).rgb
    np.testing.assert_allclose(found, srgb_encode(values.astype(np.float64)), rtol=0, atol=OTHER_SRGB)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_cmyk_tiff_of_any_depth_goes_through_its_profile(tmp_path, kind):
    values = np.zeros((2, 2, 4), kind)
    values[0, :, 0] = np.iinfo(kind).max
    found = images.load(write(tmp_path / "a.tif", with_profile(values, cmyk_profile(), ".tif"))).rgb
    assert found[0, :, 0].min() > 0.95
    assert found[0, :, 1:].max() < 0.25
    assert found[1].min() > 0.98


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("profile", [b"not a profile", gray_profile(1.0), LINEAR[:200]])
def test_unusable_profile_of_sixteen_bits_leaves_the_pixels_as_they_are(tmp_path, ending, profile, capfd):
    values = noise(4, 4, 3, dtype=np.uint16)
    found = images.load(write(tmp_path / f"a{ending}", with_profile(values, profile, ending))).rgb
    np.testing.assert_allclose(found, values / 65535, rtol=0, atol=1e-7)
    assert capfd.readouterr().err == ""


def test_lab_becomes_srgb(tmp_path):
    from PIL import ImageCms

    image = Image.fromarray(np.uint8(smooth(16, 16) * 60 + 100))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    path = write(tmp_path / "a.tif", ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB"))
    np.testing.assert_allclose(images.load(path).rgb * 255, np.asarray(image, float), rtol=0, atol=4)
