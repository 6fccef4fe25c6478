"""PNG of 16 bits, which Pillow reads as 8 and cannot write, by libpng through imagecodecs."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from jnst.images.color import unit_integers
from jnst.images.picture import Refused, Samples

__all__ = ["MOST", "depth", "encode", "read"]

MOST = 1_000_000
"""The longest side that libpng takes."""

_HEADER = 33  # the signature and the chunk IHDR


def depth(path: Path) -> int:
    """How many bits a channel (or a palette's index) has in this PNG, by its header; 0 where none is in its place."""
    with open(path, "rb") as file:
        start = file.read(_HEADER)
    return start[24] if start[12:16] == b"IHDR" and len(start) == _HEADER else 0


def read(path: Path, image: Image.Image) -> Samples:
    """The pixels of a PNG of 16 bits.

    Args:
        path: The file.
        image: The same, opened and loaded by Pillow: damage is its business; profile and orientation are read from it.
    """
    import imagecodecs

    if max(image.size) > MOST:
        raise Refused("{}x{} pixels: a PNG of 16 bits has at most {:,} on a side".format(*image.size, MOST))
    stored = imagecodecs.png_decode(path.read_bytes()).reshape(image.size[1], image.size[0], -1)
    has_alpha = stored.shape[-1] in (2, 4)  # the file's own, or made of its transparent color
    return Samples(
        values=unit_integers(stored[..., :-1] if has_alpha else stored, 16),
        alpha=unit_integers(stored[..., -1], 16) if has_alpha else None,
        profile=image.info.get("icc_profile"),
        orientation=image.getexif().get(0x0112, 1),
        bits=16,
    )


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
