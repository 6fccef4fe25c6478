"""PNG of 16 bits, which Pillow reads as 8 and cannot write, by libpng through imagecodecs."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from jnst.images.color import unit_integers
from jnst.images.picture import Refused, Samples

__all__ = ["MOST", "encode", "is_deep", "read"]

MOST = 1_000_000
"""The longest side that libpng takes."""

_HEADER = 33  # the signature and the chunk IHDR


def is_deep(path: Path) -> bool:
    """Whether this PNG holds 16 bits a channel, by its header."""
    with open(path, "rb") as file:
        start = file.read(_HEADER)
    return start[12:16] == b"IHDR" and start[24:25] == b"\x10"


def read(path: Path, image: Image.Image) -> Samples:
    """The pixels of a PNG of 16 bits.

    Args:
        path: The file.
        image: The same, opened and loaded by Pillow: damage is its business, and profile, orientation and the
            transparent color are read from it.
    """
    import imagecodecs

    if max(image.size) > MOST:
        raise Refused("{}x{} pixels: a PNG of 16 bits has at most {:,} on a side".format(*image.size, MOST))
    stored = imagecodecs.png_decode(_bare(path.read_bytes()))
    stored = stored.reshape(image.size[1], image.size[0], -1)
    colors, alpha = stored, None
    if stored.shape[-1] in (2, 4):
        colors, alpha = stored[..., :-1], unit_integers(stored[..., -1], 16)
    elif (transparent := image.info.get("transparency")) is not None:
        alpha = (stored != transparent).any(-1).astype(np.float32)
    return Samples(
        values=unit_integers(colors, 16),
        alpha=alpha,
        profile=image.info.get("icc_profile"),
        orientation=image.getexif().get(0x0112, 1),
        bits=16,
    )


def _bare(data):
    """The file with the pixels' chunks only: about odd others libpng would write to stderr."""
    kept, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] in (b"IHDR", b"IDAT", b"IEND"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def encode(pixels: np.ndarray, text: str | None = None) -> bytes:
    """The bytes of a PNG.

    Args:
        pixels: `[H, W, 3]` or `[H, W, 4]` uint16.
        text: Kept under the key `jnst`, in the same chunk that Pillow would write.
    """
    import imagecodecs

    data = imagecodecs.png_encode(np.ascontiguousarray(pixels))
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_text("jnst", text)
    # libpng could write texts, but imagecodecs does not let it.
    chunks = (_chunk(name, content) for name, content, *_ in info.chunks)
    return b"".join((data[:_HEADER], *chunks, data[_HEADER:]))


def _chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
