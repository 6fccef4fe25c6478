"""The options of `pix2pix combine`: two folders become one of pairs."""

import dataclasses
import math

from jnst.config.options import option
from jnst.config.values import split_list
from jnst.errors import InputError

__all__ = ["PARTS", "CombineConfig", "check_combine", "parse_split"]

PARTS = ("train", "val", "test")
"""What pairs are for, and the folders that hold them."""

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CombineConfig:
    """The flags of `pix2pix combine`, their defaults, ranges and help."""

    a: str = option("", "Folder of the pictures on the left.")
    b: str = option("", "Folder of those on the right, with the same names but for their endings.")
    output: str = option("", "Folder for the pairs: train, val and test in it.")
    split: str = option(
        "0.8,0.1,0.1", "Shares of train, val and test, by chance. Where A and B have such folders, these are kept."
    )
    seed: int = option(0, "Seed of that chance; a pair keeps its place when others come or go.", lower=0)
    fit: bool = option(False, "Bring B to A's size where both differ; else that is an error.")
    format: str = option(".png", "Ending of the pairs.", choices=_ENDINGS)


def parse_split(text: str) -> tuple[float, ...]:
    """Shares of train, val and test that sum to 1.

    Raises:
        InputError: not three numbers from 0, or all of them 0.

    >>> parse_split("8,1,1")
    (0.8, 0.1, 0.1)
    """
    try:
        shares = [float(part) for part in split_list(text)]
    except ValueError:
        shares = []
    total = sum(shares)
    if len(shares) != len(PARTS) or min(shares) < 0 or not 0 < total < math.inf:
        raise InputError(f"--split={text}: expected three shares, of {', '.join(PARTS)}, such as 0.8,0.1,0.1")
    return tuple(share / total for share in shares)


def check_combine(config: CombineConfig) -> None:
    """Raises `InputError` for what can be wrong before a folder is looked at, but for ranges (see `check`)."""
    for name in ("a", "b", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing (no arguments at all show an example)")
    parse_split(config.split)
