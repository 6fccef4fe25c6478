import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from images.files import smooth, write
from jnst import images
from jnst.errors import InputError
from jnst.images import Picture, writing

ENDINGS = [".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff"]


@pytest.mark.parametrize("ending", [".png", ".webp", ".tif"])
def test_alpha_is_kept_and_put_back(tmp_path, ending):
    alpha = np.linspace(0, 1, 32 * 24, dtype=np.float32).reshape(32, 24)
    images.save(tmp_path / f"a{ending}", Picture(smooth(), alpha))
    found = images.load(tmp_path / f"a{ending}")
    np.testing.assert_allclose(found.alpha, alpha, atol=0.51 / 255)
    np.testing.assert_allclose(found.rgb[8:], smooth()[8:], atol=0.04 if ending == ".webp" else 0.51 / 255)


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


@pytest.mark.parametrize("name", ["a.bmp", "a", "a.png.txt", ".png"])
def test_unknown_ending_names_the_known_ones(name):
    with pytest.raises(InputError, match=r"\.png, \.jpg, .*\.webp, \.avif, \.tif"):
        images.format_of(name)


def test_endings_are_read_in_either_case():
    assert images.format_of("A.JPG") == "JPEG"


def test_picture_too_large_for_its_format_is_an_input_error():
    wide = Picture(np.zeros((1, 16384, 3), np.float32))
    with pytest.raises(InputError, match="16383"):
        images.encode(wide, "WEBP")


# ---- 16 bits


def text_chunks(data):
    """Name and content of each chunk of a PNG but for the pixels'."""
    at, found = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert zlib.crc32(name + content) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        found += [(name, content)] if name not in (b"IDAT", b"IHDR", b"IEND") else []
        at += 12 + length
    return found


@pytest.mark.parametrize("text", ["a text", '{"style": "caf\\u00e9"}', "\u2603"])
def test_text_of_a_deep_png_is_that_of_a_flat_one(text):
    flat, deep = (images.encode(Picture(smooth()), "PNG", text, bit_depth=depth) for depth in (8, 16))
    assert text_chunks(flat) == text_chunks(deep) != []
    with Image.open(io.BytesIO(deep)) as image:
        image.load()
        assert image.text == {"jnst": text}
    assert text_chunks(images.encode(Picture(smooth()), "PNG", bit_depth=16)) == []


@pytest.mark.parametrize("with_alpha", [False, True])
def test_deep_png_is_read_by_others(tmp_path, with_alpha):
    picture = Picture(smooth(), smooth()[..., 0] if with_alpha else None)
    images.save(tmp_path / "a.png", picture, "text", bit_depth=16)
    expected = np.rint(np.float64(picture.rgb) * 65535)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == ("RGBA" if with_alpha else "RGB")
        np.testing.assert_array_equal(np.asarray(image)[..., :3], expected // 256)  # Pillow drops the lower byte


@pytest.mark.parametrize("with_alpha", [False, True])
def test_deep_tiff_is_read_by_others(tmp_path, with_alpha):
    picture = Picture(smooth(), smooth()[..., 0] if with_alpha else None)
    images.save(tmp_path / "a.tif", picture, bit_depth=16)
    expected = np.rint(np.float64(picture.rgb) * 65535)
    with Image.open(tmp_path / "a.tif") as image:  # by libtiff
        assert image.mode == ("RGBA" if with_alpha else "RGB")
        np.testing.assert_array_equal(np.asarray(image)[..., :3], expected // 256)
        assert not {270, 305, 306} & image.tag_v2.keys()  # no description, software or date


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_deep_pictures_are_equal_to_the_byte_whatever_their_layout(format):
    picture = Picture(smooth(), smooth()[..., 0])
    other = Picture(np.asfortranarray(picture.rgb), picture.alpha[::-1][::-1])
    data = images.encode(picture, format, "text", bit_depth=16)
    assert data == images.encode(other, format, "text", bit_depth=16)
    assert data != images.encode(picture, format, "text")


def test_deep_pixels_are_clipped_and_rounded(tmp_path):
    values = np.array([[[-1, 2, 100.6 / 65535], [0.5, 100.4 / 65535, 65534.6 / 65535]]])
    for ending in (".png", ".tif"):
        images.save(tmp_path / f"a{ending}", Picture(values), bit_depth=16)
        found = np.rint(images.load(tmp_path / f"a{ending}").rgb * 65535)
        np.testing.assert_array_equal(found, [[[0, 65535, 101], [32768, 100, 65535]]])


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif"])
def test_sixteen_bits_are_refused_where_eight_fit(tmp_path, name):
    with pytest.raises(InputError, match=r"--bit_depth=16: \w+ holds 8; expected --output to end in .png, .tif, .tiff"):
        images.save(tmp_path / name, Picture(smooth()), bit_depth=16)
    assert not list(tmp_path.iterdir())


# ---- What a format can hold

LIMITS = [
    # format, depth, the longest side, where it is known that one more fails
    ("WEBP", 8, 16383),
    ("JPEG", 8, 65500),
    ("AVIF", 8, 32768),
    ("PNG", 16, 1_000_000),
]


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize(("format", "depth", "most"), LIMITS)
def test_limit_of_a_format_is_where_it_says(tmp_path, monkeypatch, format, depth, most, upright):
    def line(length):
        rgb = np.zeros((1, length, 3), np.float32)
        return Picture(rgb.swapaxes(0, 1) if upright else rgb)

    (tmp_path / "a").write_bytes(images.encode(line(most), format, bit_depth=depth))
    assert max(images.load(tmp_path / "a").size) == most
    with pytest.raises(InputError, match=rf"pixels: {format} holds at most {most} on a side; expected \.") as caught:
        images.encode(line(most + 1), format, bit_depth=depth)
    assert ("x1 " in str(caught.value)) != upright
    # The limit is not one of our own making: without it the encoder or the reader fails.
    monkeypatch.setattr(writing, "check_encodable", lambda *_, **__: None)
    try:
        (tmp_path / "b").write_bytes(images.encode(line(most + 1), format, bit_depth=depth))
        images.load(tmp_path / "b")
    except Exception:  # each encoder has its own
        return
    raise AssertionError(f"{format} holds more than {most}")


@pytest.mark.parametrize(
    ("size", "format", "depth", "words"),
    [
        ((0, 5), "PNG", 8, "0x5 pixels: expected at least one"),
        ((16385, 16384), "AVIF", 8, "AVIF holds at most 268435456 in all; expected .png or .tif"),
        ((40000, 30000), "TIFF", 8, "TIFF holds at most 4 GiB; expected .png"),
        ((30000, 20000), "TIFF", 16, "TIFF holds at most 4 GiB; expected .png"),
        ((1_000_001, 1), "PNG", 16, "expected .tif, or --bit_depth=8"),
    ],
)
def test_sizes_beyond_a_format_are_said(size, format, depth, words):
    with pytest.raises(InputError) as caught:
        images.check_encodable(size, format, bit_depth=depth)
    assert words in str(caught.value)


def test_sizes_within_a_format_pass():
    for size, format, depth in [((1_000_001, 1), "PNG", 8), ((30000, 20000), "TIFF", 8), ((16384, 16384), "AVIF", 8)]:
        images.check_encodable(size, format, bit_depth=depth)


def test_format_that_this_pillow_lacks_is_said_before_the_work(monkeypatch):
    monkeypatch.setattr(writing.features, "check", lambda name: False)
    for name in ("a.avif", "a.webp"):
        with pytest.raises(InputError, match=f"--output={name}: this Pillow writes no"):
            images.format_of(name)
    assert images.format_of("a.png") == "PNG"


def test_avif_keeps_edges_between_colors(tmp_path):
    """Full chroma at high quality: with a quarter of it this red and blue would mix."""
    rgb = np.zeros((16, 16, 3), np.float32)
    rgb[:, ::2, 0] = rgb[:, 1::2, 2] = 1
    images.save(tmp_path / "a.avif", Picture(rgb))
    np.testing.assert_allclose(images.load(tmp_path / "a.avif").rgb, rgb, atol=0.1)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not let a process choose its cores")
def test_avif_is_the_same_on_one_core_and_on_many():
    picture = Picture(np.tile(smooth(), (20, 30, 1)))  # large enough for several tiles
    data, cores = images.encode(picture, "AVIF"), os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert images.encode(picture, "AVIF") == data
    finally:
        os.sched_setaffinity(0, cores)
