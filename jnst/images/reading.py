"""Picture files in: upright, in sRGB, with what should be said of them; or one line that says what is wrong."""

import logging
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jnst import bundled
from jnst.errors import InputError
from jnst.images import color, png, tiff
from jnst.images.picture import Picture, Refused

__all__ = ["MOST_PIXELS", "is_named_like_a_picture", "load", "text_of"]

MOST_PIXELS = 178_956_970
"""Width times height of the largest picture that is read; Pillow refuses as many by default (512 MiB of RGB)."""

# What each EXIF orientation asks for, of arrays [H, W, ...].
_UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
# By format, what a file of several pictures calls them. (In a PSD the first is the whole, its layers follow.)
_SEVERAL = {"TIFF": "pages", "MPO": "pictures", "GIF": "frames", "PNG": "frames", "WEBP": "frames", "AVIF": "frames"}

# Oddities in a file are for whoever listens; with nobody listening, logging would print them to stderr.
for _library in ("PIL", "imagecodecs", "tifffile"):
    logging.getLogger(_library).addHandler(logging.NullHandler())


def is_named_like_a_picture(path: Path) -> bool:
    """Whether `path` is a file that is not hidden, with an ending of a kind that is read."""
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return not path.name.startswith(".") and path.suffix.lower() in endings and path.is_file()


def text_of(path: str | Path) -> str:
    """What `save` kept in a PNG; empty where there is nothing, or no PNG."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get("jnst", ""))
    except (OSError, ValueError, SyntaxError):
        return ""


def load(name: str | Path) -> Picture:
    """Reads a picture file, or a bundled picture by name, upright and in sRGB.

    PNG and TIFF keep 16 bits (TIFF floats, too), everything else is read in 8. Of several pictures in a file the first
    is taken, and the picture's `note` says so.

    Raises:
        InputError: not there, no picture, truncated, or too large to be meant.
    """
    path = bundled.find(str(name), "examples", ("", ".jpg", ".png"))
    if path is None:
        raise InputError(f"{name}: no such file")
    try:
        # No warnings of damaged tags or many pixels: the one line below says enough.
        with warnings.catch_warnings(action="ignore"):
            picture, notes = _read(path)
    except UnidentifiedImageError as error:
        kind = "an empty file" if path.stat().st_size == 0 else "not a picture that can be read"
        raise InputError(f"{name}: {kind}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: its header claims more than {MOST_PIXELS:,} pixels; expected no more") from error
    except Refused as error:
        raise InputError(f"{name}: {error}") from error
    except PermissionError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise InputError(f"{name}: too large for the memory that is left") from error
    except Exception as error:  # decoders raise anything on damaged data, RuntimeError and KeyError too
        raise InputError(f"{name}: damaged or truncated picture ({' '.join(str(error).split())})") from error
    note = f"{name}: {'; '.join(notes)}" if notes else ""
    return Picture(picture.rgb, picture.alpha, note)


def _read(path):
    """A picture without its note, and the parts of it."""
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        if not tiff.is_tiff(path):
            raise
        return _from_samples(tiff.read(path, MOST_PIXELS))  # one of the many kinds that Pillow does not know
    with image:
        if image.width * image.height > MOST_PIXELS:  # whatever the program has set Pillow's limit to
            raise Image.DecompressionBombError
        if 0 in image.size:
            raise Refused("a picture without pixels")
        if image.format == "EPS":
            raise Refused("PostScript, a program that draws; expected a picture")
        if image.format == "TIFF" and tiff.is_ours(image):
            return _from_samples(tiff.read(path, MOST_PIXELS))
        image.load()
        depth = png.depth(path) if image.format == "PNG" else 8
        if depth == 16:
            picture, notes = _from_samples(png.read(path, image))
        else:
            if image.mode == "L" and 0 < depth < 8 and "transparency" in image.info:
                # Pillow spreads gray of 2 and 4 bits over 0..255, but not the gray that is transparent.
                image.info["transparency"] *= 255 // (2**depth - 1)
            picture, notes = _from_image(ImageOps.exif_transpose(image))
    count = _count(path)
    if count > 1 and image.format in _SEVERAL:
        notes = (f"{count} {_SEVERAL[image.format]}, the first is used", *notes)
    return picture, notes


def _count(path):
    """How many pictures are in the file; asked of a fresh image, because counting moves some."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1)
    except Exception:  # damaged behind the first, which is whole
        return 1


def _from_samples(samples):
    upright = _UPRIGHT.get(samples.orientation, lambda a: a)
    rgb = np.ascontiguousarray(upright(color.samples_to_srgb(samples.values, samples.profile, samples.bits)))
    alpha = samples.alpha
    if alpha is not None:
        alpha = None if (alpha == 1).all() else np.ascontiguousarray(upright(alpha))
    return Picture(rgb, alpha), samples.notes


def _from_image(image):
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_gray(image)
    alpha = None
    if image.has_transparency_data:
        # Gray stays gray: its profile is one of gray.
        gray = image.mode in ("1", "L", "LA", "La")
        image = _keep_profile(image, "LA" if gray else "RGBA")
        alpha = _unit(image.getchannel("A"))
        alpha = None if (alpha == 1).all() else alpha
        image = _keep_profile(image, "L" if gray else "RGB")
    return Picture(_unit(color.image_to_srgb(image)), alpha), ()


def _keep_profile(image, mode):
    converted = image.convert(mode)
    converted.info["icc_profile"] = image.info.get("icc_profile")
    return converted


def _from_deep_gray(image):
    """Modes I;16, I and F of other formats: convert() would clip them to 8 bits instead of scaling."""
    values = np.asarray(image)
    if image.mode == "F":
        gray, top = color.unit_floats(values)
        notes = (f"pixels up to {values.max():g} are read as 0..{top:g}",) if top > 1 else ()
    else:
        if values.min() < 0 or values.max() > 65535:
            raise Refused(f"pixels from {values.min()} to {values.max()}; expected 0..65535")
        gray, notes = color.unit_integers(values, 16), ()
    return Picture(color.samples_to_srgb(gray[..., None], image.info.get("icc_profile"), 16)), notes


def _unit(image):
    return np.asarray(image, np.float32) / 255
