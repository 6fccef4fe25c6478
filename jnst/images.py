"""Picture files <-> numpy, by Pillow: orientation, color profile, alpha; whole files or none.

In memory a picture is float32 sRGB in [0, 1], `[H, W, 3]`, with its alpha channel `[H, W]` beside it where it has one.
"""

import dataclasses
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from jnst import bundled
from jnst.errors import InputError
from jnst.files import write_atomically

__all__ = [
    "FORMATS",
    "Picture",
    "check_encodable",
    "contact_sheet",
    "encode",
    "fit",
    "format_of",
    "load",
    "resize",
    "save",
]

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""What is written, by the file name's ending."""

# 4:4:4 chroma: style transfer lives on saturated edges, which subsampling smears.
_OPTIONS = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 6},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}


# Longest side in pixels.
_MOST = {"WEBP": 16383, "JPEG": 65500}


@dataclasses.dataclass(frozen=True)
class Picture:
    """`rgb` is `[H, W, 3]` float32 sRGB in [0, 1]; `alpha` is `[H, W]` float32 in [0, 1], or None where opaque."""

    rgb: np.ndarray
    alpha: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as pictures are named."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def opaque(self) -> np.ndarray:
        """`rgb` over white where the picture is transparent, `[H, W, 3]`."""
        if self.alpha is None:
            return self.rgb
        alpha = self.alpha[..., None]
        return self.rgb * alpha + (1 - alpha)


def load(name: str | Path) -> Picture:
    """Reads a picture file, or a bundled picture by name, upright and in sRGB.

    Raises:
        InputError: not there, no picture, truncated, or too large to be meant.
    """
    path = bundled.find(str(name), "examples", ("", ".jpg", ".png"))
    if path is None:
        raise InputError(f"{name}: no such file")
    try:
        # No warnings of damaged tags or many pixels: the one line below says enough.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        kind = "an empty file" if path.stat().st_size == 0 else "not a picture that can be read"
        raise InputError(f"{name}: {kind}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {error}") from error
    except PermissionError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    except Exception as error:  # Pillow's decoders raise anything on damaged data, RuntimeError and KeyError too
        raise InputError(f"{name}: damaged or truncated picture ({error})") from error
    try:
        return _picture(image)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def _picture(image):
    alpha = None
    if image.mode.startswith("I") or image.mode == "F":
        return Picture(np.repeat(_deep_gray(image)[..., None], 3, 2))
    if image.has_transparency_data:
        image = _keep_profile(image, "LA" if image.mode in ("LA", "La") else "RGBA")
        alpha = _unit(image.getchannel("A"))
        alpha = None if (alpha == 1).all() else alpha
        image = _keep_profile(image, "L" if image.mode == "LA" else "RGB")
    if image.mode in ("1", "P"):
        image = _keep_profile(image, "RGB")
    return Picture(_unit(_to_srgb(image)), alpha)


def _keep_profile(image, mode):
    converted = image.convert(mode)
    converted.info["icc_profile"] = image.info.get("icc_profile")
    return converted


def _deep_gray(image):
    """Modes I;16, I and F: convert() would clip them to 8 bits instead of scaling."""
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite")
    top = 65535 if image.mode.startswith("I") else 1.0 if values.max() <= 1 else 255
    return np.clip(values / top, 0, 1)


def _to_srgb(image):
    """RGB by the embedded profile where there is a usable one, else by Pillow's plain conversion."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "L", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: the pixels are still a picture
    return image.convert("RGB")


def _unit(image):
    return np.asarray(image, np.float32) / 255


def fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Width and height with this longest side and the same shape; 0 keeps them.

    >>> fit((1024, 683), 512)
    (512, 342)
    """
    if longest == 0:
        return size
    scale = longest / max(size)
    return tuple(max(1, round(side * scale)) for side in size)


def resize(picture: Picture, size: tuple[int, int]) -> Picture:
    """`picture` at width and height `size`: Lanczos, with the filter widened when it shrinks (no aliasing)."""
    if picture.size == size:
        return picture
    if picture.alpha is None:
        return Picture(_resize_planes(picture.rgb, size))
    # Weighted by alpha: the color hidden in transparent pixels must not bleed into the edge.
    alpha = _resize_plane(picture.alpha, size)
    weighted = _resize_planes(picture.rgb * picture.alpha[..., None], size)
    shown = alpha[..., None] > 1 / 512
    rgb = np.where(shown, weighted / np.where(shown, alpha[..., None], 1), _resize_planes(picture.rgb, size))
    return Picture(np.clip(rgb, 0, 1), alpha)


def _resize_planes(rgb, size):
    return np.stack([_resize_plane(rgb[..., channel], size) for channel in range(3)], -1)


def _resize_plane(plane, size):
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.clip(np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32), 0, 1)


def format_of(path: str | Path) -> str:
    """The format that `path`'s ending names.

    Raises:
        InputError: another ending.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise InputError(f"--output={path}: expected a name ending in {', '.join(FORMATS)}")
    return FORMATS[ending]


def check_encodable(size: tuple[int, int], format: str) -> None:  # noqa: A002 - Pillow's word
    """Raises `InputError` where a format cannot hold this width and height."""
    most = _MOST.get(format, max(size))
    if max(size) > most:
        raise InputError(f"{size[0]}x{size[1]} pixels: {format} holds at most {most} on a side; expected .png or .tif")


def encode(picture: Picture, format: str, text: str | None = None) -> bytes:  # noqa: A002 - Pillow's word
    """The bytes of a picture file; equal pictures give equal bytes.

    Args:
        picture: Clipped to [0, 1] and rounded to 8 bits.
        format: One of `FORMATS`' values. JPEG has no alpha: the picture is laid over white.
        text: Kept under the key `jnst` in a PNG; other formats leave it out.
    """
    check_encodable(picture.size, format)
    keep_alpha = picture.alpha is not None and format != "JPEG"
    image = Image.fromarray(_bytes(picture.rgb if keep_alpha else picture.opaque()))
    if keep_alpha:
        image.putalpha(Image.fromarray(_bytes(picture.alpha)))
    options = dict(_OPTIONS[format])
    if format == "PNG" and text is not None:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("jnst", text)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def save(path: str | Path, picture: Picture, text: str | None = None) -> None:
    """Writes a picture file, whole or not at all; the ending of `path` names the format."""
    write_atomically(path, encode(picture, format_of(path), text))


def _bytes(values):
    if not np.isfinite(values).all():
        raise ValueError("a picture with pixels that are not finite is not written")
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def contact_sheet(tiles: Sequence[np.ndarray], *, gap: int = 8, columns: int = 0) -> np.ndarray:
    """Pictures of one size side by side on white, row by row.

    Args:
        tiles: Each `[h, w, 3]`.
        gap: Pixels between and around them.
        columns: How many in a row; 0: as many as make the sheet about square.

    Returns:
        `[H, W, 3]` float32.

    >>> contact_sheet([np.zeros((4, 6, 3))] * 5, gap=1).shape
    (16, 15, 3)
    """
    height, width = tiles[0].shape[:2]
    columns = columns or max(1, round(math.sqrt(len(tiles) * (height + gap) / (width + gap))))
    rows = -(-len(tiles) // columns)
    sheet = np.ones((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), np.float32)
    for index, tile in enumerate(tiles):
        top, left = (
            gap + place * (side + gap) for place, side in zip(divmod(index, columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = tile
    return sheet
