"""Picture files <-> numpy: every kind of file in, upright sRGB out; whole files or none. Host only: no jax.

In memory a picture is float32 sRGB in [0, 1], `[H, W, 3]`, with its alpha channel `[H, W]` beside it where it has one.
`reading` and `writing` are the doors. Pillow does the work but for what it rounds to 8 bits in silence: `png` and
`tiff` keep more, by imagecodecs and tifffile, which are loaded only when a file needs them.
"""

from jnst.images.crops import Ahead, Crops, find
from jnst.images.datasets import Batches, Dataset, read_dataset
from jnst.images.histogram import match_histogram
from jnst.images.pairs import Pairs, Unpaired
from jnst.images.picture import Picture, contact_sheet, fit, resize
from jnst.images.reading import MOST_PIXELS, is_named_like_a_picture, load, text_of
from jnst.images.sheet import labelled_sheet
from jnst.images.writing import FORMATS, check_encodable, encode, format_of, save

__all__ = [
    "Ahead",
    "Batches",
    "Crops",
    "Dataset",
    "FORMATS",
    "MOST_PIXELS",
    "Pairs",
    "Picture",
    "Unpaired",
    "check_encodable",
    "contact_sheet",
    "encode",
    "find",
    "fit",
    "format_of",
    "is_named_like_a_picture",
    "labelled_sheet",
    "load",
    "match_histogram",
    "read_dataset",
    "resize",
    "save",
    "text_of",
]
