"""Seeded: files of all modes, depths and options made by hand, against what was meant, computed in float64."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from images import files
from jnst import images
from jnst.images import Picture

SIZES = [(1, 1), (1, 9), (9, 1), (3, 5), (8, 8), (17, 4), (2, 33)]
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by PNG's color type
ASSOCIATED, UNASSOCIATED = 1, 2


def check(path, rgb, alpha=None, *, turn=lambda a: a, atol=1e-6):
    """The file holds `rgb` `[H, W, 1 or 3]` and `alpha` `[H, W]`; opaque alpha is none."""
    found = images.load(path)
    expected = turn(np.broadcast_to(rgb, (*rgb.shape[:2], 3)))
    assert found.rgb.dtype == np.float32
    assert found.rgb.flags.c_contiguous
    np.testing.assert_allclose(found.rgb, expected, rtol=0, atol=atol)
    if alpha is None or (alpha == 1).all():
        assert found.alpha is None
    else:
        assert found.alpha.dtype == np.float32
        np.testing.assert_allclose(found.alpha, turn(alpha), rtol=0, atol=atol)
    return found


@pytest.mark.parametrize("seed", range(240))
def test_png_of_every_kind(tmp_path, seed):
    rng = np.random.default_rng(seed)
    color_type = (0, 2, 3, 4, 6)[seed % 5]
    depth = int(rng.choice(DEPTHS[color_type]))
    height, width = SIZES[rng.integers(len(SIZES))]
    top = 2**depth - 1
    values = rng.integers(0, top, (height, width, files.CHANNELS[color_type]), endpoint=True)
    before, alpha, rgb = b"", None, values[..., :3] / top
    if color_type == 3:
        palette = rng.integers(0, 256, (top + 1, 3), dtype=np.uint8)
        before, rgb = files.chunk(b"PLTE", palette.tobytes()), palette[values[..., 0]] / 255
        if rng.random() < 0.5:
            shown = rng.integers(0, 256, rng.integers(1, top + 2), dtype=np.uint8)  # fewer than colors: the rest is 255
            before += files.chunk(b"tRNS", shown.tobytes())
            alpha = np.r_[shown, np.full(top + 1 - len(shown), 255)][values[..., 0]] / 255
    elif color_type in (4, 6):
        rgb, alpha = values[..., :-1] / top, values[..., -1] / top
    elif rng.random() < 0.5:
        key = values[rng.integers(height), rng.integers(width)]
        before = files.chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
        alpha = (values != key).any(-1) * 1.0
    orientation = int(rng.integers(1, 9))
    exif = files.chunk(b"eXIf", files.exif(orientation))
    before, after = (before + exif, b"") if rng.random() < 0.5 else (before, exif)
    data = files.png(values, color_type, depth, interlaced=rng.random() < 0.4, before=before, after=after)
    path = files.write(tmp_path / "a.png", data)
    check(path, rgb, alpha, turn=files.UPRIGHT[orientation])


@pytest.mark.parametrize("seed", range(240))
def test_tiff_of_every_kind(tmp_path, seed):
    rng = np.random.default_rng(seed)
    photometric = (0, 1, 2, 5)[seed % 4]
    count = {0: 1, 1: 1, 2: 3, 5: 4}[photometric]
    kind = rng.choice(["u1", "u2", "u4", "u8", "f2", "f4", "f8"])
    height, width = SIZES[rng.integers(len(SIZES))]
    extra = [(), (), (0,), (ASSOCIATED,), (UNASSOCIATED,), (0, UNASSOCIATED)][rng.integers(6)]
    shape = (height, width, count + len(extra))
    if kind[0] == "f":
        values = rng.random(shape).astype(kind)
        unit = values.astype(np.float64)
    else:
        values = rng.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)
        values.flat[0] = np.iinfo(kind).max  # more than 16 bits are used, where there are more
        unit = values / np.float64(np.iinfo(kind).max)
    colors, alpha = unit[..., :count], None
    colors = 1 - colors if photometric == 0 else colors
    for index, meaning in enumerate(extra):
        if meaning:
            alpha = unit[..., count + index]
            if meaning == ASSOCIATED:
                colors = np.clip(colors / np.maximum(alpha, 1e-300)[..., None], 0, 1) * (alpha > 0)[..., None]
    if photometric == 5:
        colors = (1 - colors[..., :3]) * (1 - colors[..., 3:])
    orientation = int(rng.integers(1, 9))
    options = {
        "order": rng.choice(["<", ">"]),
        "planar": rng.random() < 0.4,
        "deflate": rng.random() < 0.5,
        "predictor": kind[0] == "u" and rng.random() < 0.3,
        "rows": int(rng.integers(0, height + 1)),
    }
    options["predictor"] &= options["deflate"]
    data = files.tiff(values, photometric, extra=extra, tags={274: ("H", [orientation])}, **options)
    check(files.write(tmp_path / "a.tif", data), colors, alpha, turn=files.UPRIGHT[orientation])


@pytest.mark.parametrize("seed", range(40))
def test_tiff_of_the_encoder_that_others_use(tmp_path, seed):
    rng = np.random.default_rng(seed)
    kind = rng.choice(["u1", "u2", "f4"])
    height, width = rng.integers(1, 60, 2)
    channels = (1, 3, 4)[seed % 3]
    values = rng.random((height, width, channels))
    values = values.astype(kind) if kind == "f4" else np.rint(values * np.iinfo(kind).max).astype(kind)
    unit = values / (1 if kind == "f4" else np.float64(np.iinfo(kind).max))
    codec = rng.choice(["none", "lzw", "zlib", "packbits", "zstd", "lzma"])
    tile = (16, 32) if rng.random() < 0.5 else None
    planar = "separate" if channels > 1 and rng.random() < 0.4 else "contig"
    options = {
        "compression": None if codec == "none" else codec,
        "predictor": bool(codec != "none" and rng.random() < 0.5),
        "tile": tile,
        "rowsperstrip": None if tile else int(rng.integers(1, height + 1)),
        "bigtiff": bool(rng.random() < 0.3),
        "byteorder": str(rng.choice(["<", ">"])),
        "photometric": "minisblack" if channels == 1 else "rgb",
        "planarconfig": planar if channels > 1 else None,
        "extrasamples": ["unassalpha"] if channels == 4 else None,
    }
    stored = np.moveaxis(values, -1, 0) if planar == "separate" else values[..., 0] if channels == 1 else values
    tifffile.imwrite(tmp_path / "a.tif", stored, metadata=None, **options)
    check(tmp_path / "a.tif", unit[..., :3], unit[..., 3] if channels == 4 else None)


def ycbcr(values):
    """JFIF's formula."""
    y, cb, cr = np.moveaxis(values.astype(np.float64), -1, 0)
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    return np.clip(rgb / 255, 0, 1)


# Pillow's mode: how many channels it has, what color they mean, where alpha is, at which tolerance.
STEP = 1 / 255
MODES = {
    "1": (1, lambda v: v / 255.0, None, 0),
    "L": (1, lambda v: v / 255, None, 0),
    "LA": (2, lambda v: v[..., :1] / 255, 1, 0),
    "RGB": (3, lambda v: v / 255, None, 0),
    "RGBA": (4, lambda v: v[..., :3] / 255, 3, 0),
    "CMYK": (4, lambda v: (1 - v[..., :3] / 255) * (1 - v[..., 3:] / 255), None, STEP),
    "YCbCr": (3, ycbcr, None, 1.5 * STEP),
}
HOLDS = {
    "PNG": ("1", "L", "LA", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"),
    "BMP": ("1", "L", "RGB"),
    "TGA": ("1", "L", "LA", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB"),
    "SGI": ("L", "RGB", "RGBA"),
    "PCX": ("1", "L", "RGB"),
    "GIF": ("1", "L"),
    "WEBP": ("RGB", "RGBA"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA"),
    "ICO": ("RGBA",),
    "QOI": ("RGB", "RGBA"),
}
LOSSLESS = {"WEBP": {"lossless": True, "exact": True}, "ICO": {"sizes": [(16, 16)]}}


@pytest.mark.parametrize(("format", "mode"), [(format, mode) for format, modes in HOLDS.items() for mode in modes])
def test_every_mode_of_every_format_that_pillow_writes(tmp_path, format, mode):
    channels, color, alpha_at, atol = MODES[mode]
    rng = np.random.default_rng([len(format), channels])
    for size in [(16, 16)] if format == "ICO" else SIZES:
        values = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
        values = (values > 127) * np.uint8(255) if mode == "1" else values
        image = Image.frombytes("L" if mode == "1" else mode, size[::-1], values.tobytes())
        image = image.convert("1") if mode == "1" else image
        image.save(tmp_path / "a.bin", format, **LOSSLESS.get(format, {}))
        check(
            tmp_path / "a.bin",
            color(values),
            None if alpha_at is None else values[..., alpha_at] / 255,
            atol=atol + 1e-6,
        )


@pytest.mark.parametrize("seed", range(60))
def test_lossless_formats_give_back_what_was_saved(tmp_path, seed):
    rng = np.random.default_rng(seed)
    ending = (".png", ".tif", ".tiff")[seed % 3]
    depth = int(rng.choice([8, 16]))
    height, width = SIZES[rng.integers(len(SIZES))]
    top = 2**depth - 1
    values = rng.integers(0, top, (height, width, 4), endpoint=True)
    values[0, 0, 3] = 0
    unit = (values / top).astype(np.float32)
    picture = Picture(unit[..., :3], unit[..., 3] if rng.random() < 0.5 else None)
    images.save(tmp_path / f"a{ending}", picture, bit_depth=depth)
    found = images.load(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(np.rint(found.rgb * np.float64(top)), values[..., :3])
    assert (found.alpha is None) == (picture.alpha is None)
    if found.alpha is not None:
        np.testing.assert_array_equal(np.rint(found.alpha * np.float64(top)), values[..., 3])
    again = images.encode(found, images.format_of(f"a{ending}"), bit_depth=depth)
    assert again == (tmp_path / f"a{ending}").read_bytes()


@pytest.mark.parametrize(
    ("ending", "depth"), [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".jpg", 8), (".webp", 8), (".avif", 8)]
)
@pytest.mark.parametrize("size", SIZES)
def test_any_picture_is_rounded_to_the_nearest_step(tmp_path, ending, depth, size):
    lossless = ending in (".png", ".tif")
    rgb = files.noise(*size, 3).astype(np.float32) / 255 if lossless else files.smooth(*size)
    rgb = rgb * np.float32(0.99) + np.float32(0.003)
    alpha = files.noise(*size, dtype=np.uint16) / np.float32(65535) * np.float32(0.99)
    images.save(tmp_path / f"a{ending}", Picture(rgb, alpha), bit_depth=depth)
    found = images.load(tmp_path / f"a{ending}")
    assert found.size == size[::-1]
    if lossless:
        for ours, theirs in ((found.rgb, rgb), (found.alpha, alpha)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.5 / (2**depth - 1) + 1e-7)
    elif ending != ".jpg":
        np.testing.assert_allclose(found.alpha, alpha, rtol=0, atol={".webp": 0.5 / 255, ".avif": 0.12}[ending] + 1e-6)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_deep_gray_modes(tmp_path, mode):
    values = np.array([[0, 1000, 32768, 65535]])
    kinds = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}
    image = Image.frombytes(mode, (4, 1), values.astype(kinds[mode]).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    check(files.write(tmp_path / "a.bin", buffer.getvalue()), values[..., None] / 65535)


def test_deep_gray_of_other_formats(tmp_path):
    values = np.array([[0, 1000, 32768, 65535]])
    expected = values[..., None] / 65535
    pgm = b"P5 4 1 65535\n" + values.astype(">u2").tobytes()
    check(files.write(tmp_path / "a.pgm", pgm), expected)
    pfm = b"Pf 4 1 -1\n" + (values / 65535).astype("<f4").tobytes()
    check(files.write(tmp_path / "a.pfm", pfm), expected)
    image = Image.frombytes("I;16", (4, 1), values.astype("<u2").tobytes())
    image.save(tmp_path / "a.jp2")
    check(tmp_path / "a.jp2", expected)
