"""The exact loss and gradient of a style transfer objective over an image whose feature maps are too large to hold.

`tiling.py` says how the image is cut, `passes.py` computes.
"""

from jnst.tiles.passes import (
    Content,
    Passes,
    compile_passes,
    content_of,
    evaluate,
    everywhere,
    make_mesh,
    spread,
    style_statistics,
)
from jnst.tiles.tiling import Tiling, cut, halo_of, make_tiling, stride_of

__all__ = [
    "Content",
    "Passes",
    "Tiling",
    "compile_passes",
    "content_of",
    "cut",
    "evaluate",
    "everywhere",
    "halo_of",
    "make_mesh",
    "make_tiling",
    "spread",
    "stride_of",
    "style_statistics",
]
