import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jnst import images
from jnst.errors import InputError
from jnst.images import Picture

# What each EXIF orientation does to the stored pixels, from the standard's table (not from Pillow).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
D50 = (0.9642, 1.0, 0.8249)
SRGB_PRIMARIES = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
ENDINGS = [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"]


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def smooth(height=32, width=24):
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([y / height, x / width, 1 - y / height], -1)


def srgb_encode(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def icc_profile(space, kind, tags, pcs=b"XYZ "):
    """The bytes of a version 2 ICC profile."""
    text = b"text\0\0\0\0test\0"
    tags = {b"cprt": text, b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"t\0" + bytes(78), **tags}
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x02400000, kind, space, pcs)
    header += bytes(12) + b"acsp" + bytes(28) + xyz(*D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(*values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def rgb_profile(primaries, exponent):
    tags = {name + b"XYZ": xyz(*primary) for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= {name + b"TRC": gamma(exponent) for name in (b"r", b"g", b"b")} | {b"wtpt": xyz(*D50)}
    return icc_profile(b"RGB ", b"mntr", tags)


def gray_profile(exponent):
    return icc_profile(b"GRAY", b"mntr", {b"kTRC": gamma(exponent), b"wtpt": xyz(*D50)})


def cmyk_profile():
    """Full cyan alone is red, full everything else black, no ink white: no plain conversion would say so."""
    white, red, black = (255, 128, 128), (136, 208, 195), (0, 128, 128)  # L a b in 8 bits
    corners = [white if i == 0 else red if i == 8 else black for i in range(16)]  # the first ink varies slowest
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + bytes(sum(corners, ())) + ramp * 3
    return icc_profile(b"CMYK", b"prtr", {b"A2B0": lut, b"wtpt": xyz(*D50)}, pcs=b"Lab ")


LINEAR = rgb_profile(SRGB_PRIMARIES, 1.0)
SWAPPED = rgb_profile(SRGB_PRIMARIES[::-1], 2.2)


def write(path, image, **options):
    image.save(path, **options)
    return path


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


def test_linear_profile_becomes_srgb(tmp_path):
    values = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 2, 3))
    picture = images.load(write(tmp_path / "a.png", Image.fromarray(values), icc_profile=LINEAR))
    np.testing.assert_allclose(picture.rgb, srgb_encode(values / 255.0), atol=3 / 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg"])
def test_profile_with_swapped_primaries_swaps_colors(tmp_path, mode, ending):
    if ending == ".jpg" and mode != "RGB":
        pytest.skip("JPEG has neither alpha nor a palette")
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


def test_cmyk_without_profile_is_white_without_ink(tmp_path):
    for ending in (".tif", ".jpg"):
        blank = images.load(write(tmp_path / f"a{ending}", Image.new("CMYK", (8, 8), (0, 0, 0, 0))))
        inked = images.load(write(tmp_path / f"b{ending}", Image.new("CMYK", (8, 8), (0, 0, 0, 255))))
        assert blank.rgb.min() > 0.98
        assert inked.rgb.max() < 0.02


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


@pytest.mark.parametrize("ending", [".png", ".webp", ".tif"])
def test_alpha_is_kept_and_put_back(tmp_path, ending):
    alpha = np.linspace(0, 1, 32 * 24, dtype=np.float32).reshape(32, 24)
    images.save(tmp_path / f"a{ending}", Picture(smooth(), alpha))
    found = images.load(tmp_path / f"a{ending}")
    np.testing.assert_allclose(found.alpha, alpha, atol=0.51 / 255)
    np.testing.assert_allclose(found.rgb[8:], smooth()[8:], atol=0.04 if ending == ".webp" else 0.51 / 255)


def test_gray_with_alpha_is_read(tmp_path):
    values = noise(4, 4, 2)
    picture = images.load(write(tmp_path / "a.png", Image.fromarray(values, "LA")))
    np.testing.assert_array_equal(picture.rgb[..., 2] * 255, values[..., 0])
    np.testing.assert_array_equal(picture.alpha * 255, values[..., 1])


def test_jpeg_is_laid_over_white(tmp_path):
    red = np.broadcast_to(np.float32([1, 0, 0]), (16, 16, 3))
    images.save(tmp_path / "a.jpg", Picture(red, np.full((16, 16), 0.5, np.float32)))
    found = images.load(tmp_path / "a.jpg")
    np.testing.assert_allclose(found.rgb, np.broadcast_to([1, 0.5, 0.5], (16, 16, 3)), atol=0.02)
    assert found.alpha is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_back(tmp_path, ending):
    images.save(tmp_path / f"a{ending}", Picture(smooth()))
    found = images.load(tmp_path / f"a{ending}")
    lossless = ending in (".png", ".tif", ".tiff")
    np.testing.assert_allclose(found.rgb, smooth(), atol=0.51 / 255 if lossless else 0.06)
    with Image.open(tmp_path / f"a{ending}") as image:
        assert image.format == images.FORMATS[ending]


def test_every_byte_survives_a_round_trip(tmp_path):
    values = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 1, 3))
    path = write(tmp_path / "a.png", Image.fromarray(values))
    for _ in range(2):
        images.save(path, images.load(path))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), values)


@pytest.mark.parametrize("format", sorted(set(images.FORMATS.values())))
def test_equal_pictures_give_equal_bytes(format):
    picture = Picture(smooth(), smooth()[..., 0])
    assert images.encode(picture, format, "text") == images.encode(picture, format, "text")


def test_text_is_kept_in_png_and_left_out_elsewhere():
    with Image.open(io.BytesIO(images.encode(Picture(smooth()), "PNG", "a text"))) as image:
        assert image.text == {"jnst": "a text"}
    for format in ("JPEG", "WEBP", "TIFF"):
        assert b"a text" not in images.encode(Picture(smooth()), format, "a text")


def test_out_of_range_pixels_are_clipped_and_the_rest_rounded():
    values = np.float32([[[-1, 2, 100.6 / 255]]])
    with Image.open(io.BytesIO(images.encode(Picture(values), "PNG"))) as image:
        assert image.getpixel((0, 0)) == (0, 255, 101)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_not_written(tmp_path, value):
    rgb = smooth()
    rgb[3, 4, 1] = value
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(ValueError, match="not finite"):
        images.save(tmp_path / "a.png", Picture(rgb))
    assert (tmp_path / "a.png").read_bytes() == b"old"
    alpha = np.full(rgb.shape[:2], value, np.float32)
    with pytest.raises(ValueError, match="not finite"):
        images.encode(Picture(smooth(), alpha), "PNG")


@pytest.mark.parametrize("format", sorted(set(images.FORMATS.values())))
def test_truncated_file_is_one_clear_error(tmp_path, format, recwarn):
    data = images.encode(Picture(noise(32, 32, 3) / np.float32(255)), format)
    for end in (12, len(data) // 2, len(data) * 9 // 10):
        (tmp_path / "cut.bin").write_bytes(data[:end])
        with pytest.raises(InputError, match=r"cut\.bin: (damaged or truncated|not a picture)") as caught:
            images.load(tmp_path / "cut.bin")
        assert "\n" not in str(caught.value)
    assert not recwarn.list  # a warning would be further lines


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


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.jpg: no such file"):
        images.load(tmp_path / "nothing.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png: "):
        images.load(tmp_path / "folder.png")
    with pytest.raises(InputError, match="aaa"):
        images.load("a" * 300 + ".png")


@pytest.mark.filterwarnings("error")
def test_damaged_avif_is_an_input_error(tmp_path):
    buffer = io.BytesIO()
    try:
        Image.fromarray(noise(20, 20, 3)).save(buffer, "AVIF")
    except (KeyError, OSError):
        pytest.skip("this Pillow reads no AVIF")
    data = bytearray(buffer.getvalue())
    data[-20:] = bytes(20)
    for position in range(40, len(data), 7):
        (tmp_path / "a.avif").write_bytes(data[:position] + bytes(8) + data[position + 8 :])
        try:
            images.load(tmp_path / "a.avif")
        except InputError:
            pass


def test_header_of_a_bomb_is_refused_before_memory_is_taken(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(InputError, match=r"bomb\.png: Image size .*pixels"):
        images.load(tmp_path / "bomb.png")


@pytest.mark.parametrize("size", [(1024, 683), (683, 1024), (5, 5), (3000, 2), (7, 6)])
@pytest.mark.parametrize("longest", [1, 16, 512, 4000])
def test_fit_gives_the_longest_side_and_keeps_the_shape(size, longest):
    width, height = images.fit(size, longest)
    assert max(width, height) == longest
    assert min(width, height) >= 1
    exact = min(size) * longest / max(size)
    assert abs(min(width, height) - max(1, exact)) <= 0.5


def test_fit_zero_keeps_the_size():
    assert images.fit((7, 9), 0) == (7, 9)


def lanczos_matrix(before, after):
    """`[after, before]` weights of Lanczos-3, widened by the scale where it shrinks."""
    scale = before / after
    width = max(scale, 1.0)
    centers = (np.arange(after)[:, None] + 0.5) * scale
    x = (np.arange(before) + 0.5 - centers) / width
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [(9, 13), (20, 40), (48, 31)])
def test_resize_is_lanczos_with_a_widened_filter(size):
    rgb = (noise(31, 20, 3) / 255).astype(np.float32)
    expected = np.einsum("yh,xw,hwc->yxc", lanczos_matrix(31, size[1]), lanczos_matrix(20, size[0]), rgb)
    found = images.resize(Picture(rgb), size).rgb
    assert found.shape == (size[1], size[0], 3)
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=2e-5)


def test_shrinking_a_checkerboard_gives_gray():
    board = np.repeat((np.indices((64, 64)).sum(0) % 2).astype(np.float32)[..., None], 3, 2)
    assert np.abs(images.resize(Picture(board), (16, 16)).rgb - 0.5).max() < 0.02


def test_resize_keeps_constants_and_does_nothing_at_its_own_size():
    picture = Picture(np.full((8, 8, 3), 0.3, np.float32), np.full((8, 8), 0.7, np.float32))
    assert images.resize(picture, (8, 8)) is picture
    larger = images.resize(picture, (20, 11))
    np.testing.assert_allclose(larger.rgb, np.full((11, 20, 3), 0.3), atol=1e-6)
    np.testing.assert_allclose(larger.alpha, np.full((11, 20), 0.7), atol=1e-6)


def test_hidden_colors_do_not_bleed_into_the_edge():
    rgb, alpha = np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), np.float32)
    rgb[:, :15], alpha[:, :15] = (1, 0.5, 0.5), 1  # opaque pink beside transparent black
    picture = Picture(rgb, alpha)
    expected = images.resize(Picture(picture.opaque()), (12, 12)).rgb
    np.testing.assert_allclose(images.resize(picture, (12, 12)).opaque(), expected, atol=0.1)  # lobes are clipped


@pytest.mark.parametrize("name", ["a.bmp", "a", "a.png.txt", ".png"])
def test_unknown_ending_names_the_known_ones(name):
    with pytest.raises(InputError, match=r"\.png, \.jpg, .*\.webp, \.tif"):
        images.format_of(name)


def test_endings_are_read_in_either_case():
    assert images.format_of("A.JPG") == "JPEG"


def test_picture_too_large_for_its_format_is_an_input_error():
    wide = Picture(np.zeros((1, 16384, 3), np.float32))
    with pytest.raises(InputError, match="16383"):
        images.encode(wide, "WEBP")
