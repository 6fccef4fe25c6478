import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from images import files
from images.files import UPRIGHT, noise, write
from jnst import images
from jnst.errors import InputError


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, ending):
    stored, exif = noise(4, 6, 3), Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / f"a{ending}", Image.fromarray(stored), exif=exif)
    np.testing.assert_array_equal(images.load(path).rgb * 255, UPRIGHT[orientation](stored))


def test_exif_orientation_turns_a_photo_and_its_alpha(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 255
    photo = images.load(write(tmp_path / "a.jpg", Image.fromarray(stored), exif=exif, quality=95))
    assert photo.size == (16, 32)
    assert photo.rgb[:12].min() > 0.9
    assert photo.rgb[20:].max() < 0.1
    stored = noise(4, 6, 4)
    picture = images.load(write(tmp_path / "a.png", Image.fromarray(stored), exif=exif))
    np.testing.assert_array_equal(picture.alpha * 255, np.rot90(stored[..., 3], -1))


@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg"])
def test_grayscale_has_three_equal_channels(tmp_path, ending):
    picture = images.load(write(tmp_path / f"a{ending}", Image.new("L", (8, 4), 100)))
    np.testing.assert_allclose(picture.rgb, np.full((4, 8, 3), 100 / 255), atol=1e-3)


def test_one_bit_is_black_and_white(tmp_path):
    bits = noise(8, 8) > 127
    picture = images.load(write(tmp_path / "a.png", Image.fromarray(bits)))
    np.testing.assert_array_equal(picture.rgb, np.repeat(bits[..., None], 3, 2))


def palette_image():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    return image


def test_palette_is_looked_up(tmp_path):
    picture = images.load(write(tmp_path / "a.png", palette_image()))
    np.testing.assert_array_equal(picture.rgb, [[[1, 0, 0], [0, 0, 1]]])
    assert picture.alpha is None


@pytest.mark.parametrize("ending", [".png", ".gif"])
def test_palette_keeps_its_transparent_color(tmp_path, ending):
    picture = images.load(write(tmp_path / f"a{ending}", palette_image(), transparency=1))
    np.testing.assert_array_equal(picture.rgb[0, 0], [1, 0, 0])
    np.testing.assert_array_equal(picture.alpha, [[1, 0]])


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 1000, 32768, 65535]], np.uint16)
    for ending in (".png", ".tif"):
        picture = images.load(write(tmp_path / f"a{ending}", Image.fromarray(values)))
        np.testing.assert_allclose(picture.rgb[..., 1], values / 65535, atol=1e-6)


def test_float_tiff_is_read_and_nan_refused(tmp_path):
    values = np.array([[0, 0.25, 1]], np.float32)
    picture = images.load(write(tmp_path / "a.tif", Image.fromarray(values)))
    np.testing.assert_allclose(picture.rgb[..., 0], values)
    write(tmp_path / "b.tif", Image.fromarray(values * np.nan))
    with pytest.raises(InputError, match=r"b\.tif: .*not finite"):
        images.load(tmp_path / "b.tif")


def test_opaque_alpha_channel_is_dropped(tmp_path):
    image = Image.fromarray(noise(4, 4, 3))
    image.putalpha(255)
    assert images.load(write(tmp_path / "a.png", image)).alpha is None


def test_gray_with_alpha_is_read(tmp_path):
    values = noise(4, 4, 2)
    picture = images.load(write(tmp_path / "a.png", Image.fromarray(values, "LA")))
    np.testing.assert_array_equal(picture.rgb[..., 2] * 255, values[..., 0])
    np.testing.assert_array_equal(picture.alpha * 255, values[..., 1])


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.jpg: no such file"):
        images.load(tmp_path / "nothing.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png: "):
        images.load(tmp_path / "folder.png")
    with pytest.raises(InputError, match="aaa"):
        images.load("a" * 300 + ".png")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.jpg", b"", r"empty\.jpg: an empty file"),
        ("text.png", b"These are words.\n", r"text\.png: not a picture"),
        ("page.png", b"<!doctype html><html></html>", r"page\.png: not a picture"),
    ],
)
def test_file_without_picture_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        images.load(tmp_path / name)


# ---- Several pictures in one file


def pictures(count, mode="RGB"):
    return [Image.fromarray(noise(5 + count, 7, 3) // 2 + index).convert(mode) for index in range(count)]


def several(path, count, **options):
    first, *rest = pictures(count)
    first.save(path, save_all=True, append_images=rest, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options", "words", "atol"),
    [
        ("a.gif", {}, "frames", 0.5),  # its palette has 256 colors
        ("a.webp", {"lossless": True}, "frames", 0),
        ("a.png", {}, "frames", 0),
        ("a.avif", {"quality": 100, "subsampling": "4:4:4"}, "frames", 0.02),
        ("a.tif", {}, "pages", 0),
        ("a.jpg", {"format": "MPO", "quality": 100, "subsampling": 0}, "pictures", 0.02),
    ],
)
def test_first_of_several_is_used_and_it_is_said(tmp_path, name, options, words, atol):
    path = several(tmp_path / name, 3, **options)
    found = images.load(path)
    assert found.note == f"{path}: 3 {words}, the first is used"
    first = np.asarray(pictures(3)[0])
    np.testing.assert_allclose(found.rgb, first / 255, rtol=0, atol=atol + 1e-6)
    assert images.resize(found, (3, 3)).note == found.note
    assert images.load(several(tmp_path / f"one{path.suffix}", 1, **options)).note == ""


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_first_page_of_deep_pages_is_used_and_it_is_said(tmp_path, kind):
    pages = noise(4, 5, 6, 3, dtype=np.uint16).astype(kind) / (kind(65535) if kind == np.float32 else kind(1))
    tifffile.imwrite(tmp_path / "a.tif", pages.astype(kind), photometric="rgb")
    found = images.load(tmp_path / "a.tif")
    assert found.note == f"{tmp_path / 'a.tif'}: 4 pages, the first is used"
    top = 1 if kind == np.float32 else np.iinfo(kind).max
    np.testing.assert_allclose(found.rgb, pages[0] / top, rtol=0, atol=1e-6)


def test_animated_png_of_sixteen_bits_keeps_them(tmp_path):
    values = noise(4, 6, 3, dtype=np.uint16)
    control = struct.pack(">IIIIIHHBB", 0, 6, 4, 0, 0, 1, 10, 0, 0)
    frames = files.chunk(b"acTL", struct.pack(">II", 2, 0)) + files.chunk(b"fcTL", control)
    still = files.png(values, 2, 16)
    second = files.chunk(b"fcTL", struct.pack(">I", 1) + control[4:])
    second += files.chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(4 * 37)))
    path = write(tmp_path / "a.png", files.png(values, 2, 16, before=frames, after=second))
    found = images.load(path)
    np.testing.assert_array_equal(found.rgb, images.load(write(tmp_path / "b.png", still)).rgb)
    np.testing.assert_allclose(found.rgb, values / 65535, rtol=0, atol=1e-7)
    assert found.note == f"{path}: 2 frames, the first is used"


def test_damage_behind_the_first_picture_is_no_matter(tmp_path):
    path = several(tmp_path / "a.gif", 3)
    whole = images.load(path)
    cut = images.load(write(tmp_path / "b.gif", path.read_bytes()[:-60]))
    np.testing.assert_array_equal(cut.rgb, whole.rgb)


# ---- What is read as something else, or not


@pytest.mark.parametrize(
    ("values", "top"), [([0, 0.5, 1.25], 1), ([-1, 0.5, 2], 1), ([0, 100, 200.5], 255), ([0, 40000, 65535], 65535)]
)
def test_floats_are_read_by_their_range_and_it_is_said(tmp_path, values, top):
    stored = np.float32(values).reshape(1, 3, 1)
    path = write(tmp_path / "a.tif", files.tiff(stored, 1))
    found = images.load(path)
    np.testing.assert_allclose(found.rgb[..., :1], np.clip(stored / top, 0, 1), rtol=0, atol=1e-6)
    assert found.note == ("" if top == 1 else f"{path}: pixels up to {stored.max():g} are read as 0..{top}")


@pytest.mark.parametrize("kind", [np.int32, np.uint32])
def test_sixteen_bits_in_a_wider_box_are_not_read_as_black(tmp_path, kind):
    stored = np.array([0, 1000, 65535], kind).reshape(1, 3, 1)
    path = write(tmp_path / "a.tif", files.tiff(stored, 1))
    found = images.load(path)
    np.testing.assert_allclose(found.rgb[..., :1], stored / 65535, rtol=0, atol=1e-6)
    assert found.note == f"{path}: 32-bit pixels are read as 0..65535"


REFUSED = {
    "infinite": (files.tiff(np.float32([[[np.inf]]]), 1), "pixels that are not finite"),
    "too bright": (files.tiff(np.float32([[[1e6]]]), 1), "pixels up to 1e+06: expected [0, 1], 0..255 or 0..65535"),
    "signed 16": (files.tiff(np.int16([[[5]]]), 1), "pixels of 16 bits in sample format"),
    "signed 32": (files.tiff(np.int32([[[-5]]]), 1), "signed pixels from -5 to -5; expected 0..65535"),
    "complex": (files.tiff(np.complex64([[[1]]]), 1), "pixels of 64 bits in sample format"),
    "LAB": (files.tiff(np.ones((1, 1, 3), np.uint16), 8), "color space CIELAB in 16 bits; expected gray, RGB or CMYK"),
    "palette": (files.tiff(np.ones((1, 1, 1), np.uint16), 3), "color space PALETTE in 16 bits"),
    "no width": (files.tiff(np.ones((1, 1, 3), np.uint16), 2, tags={256: ("I", [0])}), "a picture without pixels"),
    "no height": (files.tiff(np.ones((1, 1, 3), np.uint8), 6, tags={257: ("I", [0])}), "a picture without pixels"),
    "neither": (b"P5 0 0 255\n", "not a picture"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path, capfd, case):
    data, message = REFUSED[case]
    path = write(tmp_path / "a.bin", data)
    with pytest.raises(InputError) as caught:
        images.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("channels", [3, 4, 5])
def test_channels_beyond_color_and_alpha_are_left_out(tmp_path, channels):
    values = noise(3, 3, channels, dtype=np.uint16)
    extra = (0,) * (channels - 3)
    found = images.load(write(tmp_path / "a.tif", files.tiff(values, 2, extra=extra)))
    assert found.alpha is None
    np.testing.assert_allclose(found.rgb, values[..., :3] / 65535, rtol=0, atol=1e-7)


def test_fourth_channel_of_unsaid_meaning_is_alpha(tmp_path):
    values = noise(3, 3, 4, dtype=np.uint16)
    found = images.load(write(tmp_path / "a.tif", files.tiff(values, 2)))
    np.testing.assert_allclose(found.alpha, values[..., 3] / 65535, rtol=0, atol=1e-7)


def test_libraries_for_deep_pictures_are_loaded_only_for_them(tmp_path):
    eight, deep = (write(tmp_path / f"{depth}.png", files.png(noise(2, 2, 3), 2, depth)) for depth in (8, 16))
    code = (
        "import sys; from jnst import images;"
        "loaded = lambda: print({'jax', 'tifffile', 'imagecodecs'} & set(sys.modules));"
        "images.save(sys.argv[1], images.load(sys.argv[1])); loaded(); images.load(sys.argv[2]); loaded()"
    )
    command = [sys.executable, "-P", "-c", code, str(eight), str(deep)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["set()", "{'imagecodecs'}"]
