"""Picture files out: equal pictures give equal bytes, and a file appears whole or not at all."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, features

from jnst.errors import InputError
from jnst.files import write_atomically
from jnst.images import png, tiff
from jnst.images.picture import Picture

__all__ = ["FORMATS", "check_encodable", "encode", "format_of", "save"]

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""What is written, by the file name's ending."""

# 4:4:4 chroma: style transfer lives on saturated edges, which subsampling smears.
_OPTIONS = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 6},
    # One thread: how the picture is cut into tiles, and with it the bytes, would depend on how many there are.
    "AVIF": {"quality": 95, "subsampling": "4:4:4", "speed": 8, "max_threads": 1},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
_DEEP = {"PNG": png.encode, "TIFF": lambda pixels, text: tiff.encode(pixels)}
# Pillow may have been built without them.
_FEATURES = {"WEBP": "webp", "AVIF": "avif"}

# Longest side in pixels. JPEG's header would hold 65,535, but libjpeg stops here; AVIF is what libavif reads again.
_MOST = {"WEBP": 16383, "JPEG": 65500, "AVIF": 32768}
_MOST_AVIF_PIXELS = 16384**2
# TIFF counts bytes in 32 bits; some are left for tags, and for what deflate adds to noise.
_MOST_TIFF_BYTES = 2**32 - 2**24


def format_of(path: str | Path, *, bit_depth: int = 8) -> str:
    """The format that `path`'s ending names.

    Raises:
        InputError: another ending, or one whose format does not hold `bit_depth`.

    >>> format_of("out/picture.TIF", bit_depth=16)
    'TIFF'
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise InputError(f"--output={path}: expected a name ending in {', '.join(FORMATS)}")
    found = FORMATS[ending]
    if found in _FEATURES and not features.check(_FEATURES[found]):
        raise InputError(f"--output={path}: this Pillow writes no {found}; expected .png or .tif")
    if bit_depth != 8 and found not in _DEEP:
        deep = ", ".join(ending for ending, name in FORMATS.items() if name in _DEEP)
        raise InputError(f"--bit_depth={bit_depth}: {found} holds 8; expected --output to end in {deep}")
    return found


def check_encodable(size: tuple[int, int], format: str, *, bit_depth: int = 8) -> None:  # noqa: A002 - Pillow's word
    """Raises `InputError` where a format cannot hold this width and height."""
    width, height = size
    most = png.MOST if format == "PNG" and bit_depth == 16 else _MOST.get(format, max(size))
    problem = None
    if min(size) < 1:
        problem = "expected at least one"
    elif max(size) > most:
        other = ".tif, or --bit_depth=8" if format == "PNG" else ".png or .tif"
        problem = f"{format} holds at most {most} on a side; expected {other}"
    elif format == "AVIF" and width * height > _MOST_AVIF_PIXELS:
        problem = f"AVIF holds at most {_MOST_AVIF_PIXELS} in all; expected .png or .tif"
    elif format == "TIFF" and width * height * 4 * bit_depth // 8 > _MOST_TIFF_BYTES:  # 4 channels, to be safe
        problem = "TIFF holds at most 4 GiB; expected .png"
    if problem:
        raise InputError(f"{width}x{height} pixels: {problem}")


def encode(
    picture: Picture,
    format: str,  # noqa: A002 - Pillow's word
    text: str | None = None,
    *,
    bit_depth: int = 8,
    rounding: str = "nearest",
) -> bytes:
    """The bytes of a picture file; equal pictures give equal bytes.

    Args:
        picture: Clipped to [0, 1] and rounded to `bit_depth` bits.
        format: One of `FORMATS`' values. JPEG has no alpha: the picture is laid over white.
        text: Kept under the key `jnst` in a PNG; other formats leave it out.
        bit_depth: 8, or 16 in PNG and TIFF.
        rounding: One of `config.ROUNDINGS`.

    >>> encode(Picture(np.ones((2, 3, 3), np.float32)), "PNG", bit_depth=16)[16:25].hex(" ")
    '00 00 00 03 00 00 00 02 10'
    """
    check_encodable(picture.size, format, bit_depth=bit_depth)
    keep_alpha = picture.alpha is not None and format != "JPEG"
    pixels = _integers(picture.rgb if keep_alpha else picture.opaque(), bit_depth, rounding)
    if keep_alpha:
        pixels = np.concatenate([pixels, _integers(picture.alpha, bit_depth)[..., None]], -1)
    if bit_depth == 16:
        return _DEEP[format](pixels, text)
    options = dict(_OPTIONS[format])
    if format == "PNG" and text is not None:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("jnst", text)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def save(
    path: str | Path, picture: Picture, text: str | None = None, *, bit_depth: int = 8, rounding: str = "nearest"
) -> None:
    """Writes a picture file, whole or not at all; the ending of `path` names the format."""
    format_ = format_of(path, bit_depth=bit_depth)
    write_atomically(path, encode(picture, format_, text, bit_depth=bit_depth, rounding=rounding))


def _integers(values, bits, rounding="nearest"):
    if not np.isfinite(values).all():
        raise ValueError("a picture with pixels that are not finite is not written")
    round_ = np.floor if rounding == "down" else np.rint
    return round_(np.clip(values, 0, 1) * (2**bits - 1)).astype(np.uint16 if bits == 16 else np.uint8)
