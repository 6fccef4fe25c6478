"""TIFF by tifffile: more than 8 bits, which Pillow reads as 8 or not at all and cannot write, and the common others."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from jnst.images.color import unit_floats, unit_integers
from jnst.images.picture import Refused, Samples

__all__ = ["encode", "is_ours", "is_tiff", "read"]

_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _PROFILE = 258, 259, 262, 274, 34675
# By PhotometricInterpretation: MinIsWhite, MinIsBlack, RGB, Separated.
_COLORS = {0: 1, 1: 1, 2: 3, 5: 4}
# By Compression: none, LZW, deflate (two numbers), PackBits.
_COMMON = (1, 5, 8, 32946, 32773)
_ASSOCIATED, _UNASSOCIATED = 1, 2


def is_tiff(path: Path) -> bool:
    """Whether the file begins as a TIFF or BigTIFF does."""
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_ours(image: Image.Image) -> bool:
    """Whether this TIFF, opened by Pillow, is one for `read`.

    Of 8 bits and less so are all that it can read without more decoders than the few common ones: libtiff, behind
    Pillow, writes to stderr what it finds wrong.
    """
    tags = image.tag_v2
    common = tags.get(_PHOTOMETRIC) in _COLORS and tags.get(_COMPRESSION, 1) in _COMMON
    return common or max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8


def read(path: Path, most: int) -> Samples:
    """The first page of a TIFF of any depth in gray, RGB or CMYK.

    Raises:
        Refused: more than `most` pixels by its tags, or of a kind that is not read.
        Exception: of tifffile or of a decoder, on damaged data.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        _check(page, path.stat().st_size, most)
        # [planes, depth, H, W, samples]: planes and samples are the channels, one of them is 1
        stored = np.concatenate(list(page.asarray(squeeze=False)[:, 0]), -1)
        count, extra = _COLORS[page.photometric], tuple(page.extrasamples)
        tags = page.tags
        orientation, profile = tags.valueof(_ORIENTATION, 1), tags.valueof(_PROFILE)
        kind, bits = page.dtype.kind, page.bitspersample
        notes = (f"{len(file.pages)} pages, the first is used",) if len(file.pages) > 1 else ()
        is_inverted = page.photometric == 0
    values, note = _unit(stored[..., :count], kind, bits)
    values = 1 - values if is_inverted else values
    alpha = None
    if not extra and count == 3 and stored.shape[-1] == 4:
        extra = (_UNASSOCIATED,)  # not said, but meant: as Pillow reads 8 bits
    index = next((i for i, meaning in enumerate(extra) if meaning in (_ASSOCIATED, _UNASSOCIATED)), None)
    if index is not None:
        alpha, _ = _unit(stored[..., count + index], kind, bits)
        if extra[index] == _ASSOCIATED:
            shown = alpha[..., None] > 0
            values = np.clip(np.where(shown, values / np.where(shown, alpha[..., None], 1), 0), 0, 1)
    return Samples(
        values=values,
        alpha=alpha,
        profile=profile if isinstance(profile, bytes) else None,
        orientation=orientation,
        bits=bits,
        notes=(*notes, *note),
    )


def _check(page, file_size, most):
    """Everything that the tags say, before anything is allocated for what they claim."""
    areas = (page.imagewidth * page.imagelength * page.imagedepth, page.tilewidth * page.tilelength * page.tiledepth)
    if max(areas) > most or areas[0] * page.samplesperpixel > 4 * most:
        raise Refused(f"its header claims more than {most:,} pixels; expected no more")
    if 0 in areas[:1]:
        raise Refused("a picture without pixels")
    if page.photometric not in _COLORS or page.imagedepth != 1:
        name = getattr(page.photometric, "name", page.photometric)
        raise Refused(f"a TIFF of color space {name} in {page.bitspersample} bits; expected gray, RGB or CMYK")
    if page.dtype is None or page.dtype.kind not in "buif" or (page.dtype.kind == "i" and page.bitspersample != 32):
        raise Refused(f"pixels of {page.bitspersample} bits in sample format {page.sampleformat!r}; expected unsigned")
    if page.samplesperpixel < _COLORS[page.photometric]:
        raise ValueError(f"{page.samplesperpixel} channels")
    ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if len(ends) < math.prod(page.chunked) or 0 in page.databytecounts or max(ends) > file_size:
        raise ValueError("a part of the pixels is missing")  # tifffile would put zeros there


def _unit(values, kind, bits):
    """Float32 in [0, 1], and what is to be said of it."""
    if kind == "f":
        unit, top = unit_floats(values)
        note = f"pixels up to {values.max():g} are read as 0..{top:g}"
        return unit, (note,) if top > 1 else ()
    if kind in "iu" and bits == 32 and values.min() >= 0 and values.max() <= 65535:
        return unit_integers(values, 16), ("32-bit pixels are read as 0..65535",)  # Pillow's mode I, for one
    if kind == "i":
        raise Refused(f"signed pixels from {values.min()} to {values.max()}; expected 0..65535")
    return unit_integers(values, bits), ()


def encode(pixels: np.ndarray) -> bytes:
    """The bytes of a TIFF, `[H, W, 3]` or `[H, W, 4]` uint16, without loss."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels,
        byteorder="<",
        bigtiff=False,
        photometric="rgb",
        extrasamples=["unassalpha"] if pixels.shape[-1] == 4 else None,
        compression="zlib",
        predictor=True,
        metadata=None,
        software=False,  # neither a version nor a date: equal pictures, equal bytes
    )
    return buffer.getvalue()
