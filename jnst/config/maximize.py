"""The flags of `explore maximize`."""

import dataclasses

from jnst.config.options import check, option
from jnst.config.picture import PictureConfig
from jnst.config.values import parse_channels
from jnst.errors import InputError

__all__ = ["MAXIMIZE", "ROBUST", "MaximizeConfig", "check_maximize"]

MAXIMIZE = "maximize"
"""The word of `explore` that has these flags."""

ROBUST = {
    "standard": "jittered, scaled and turned a little before each step (Olah et al. 2017)",
    "none": "as it is: patterns that the network answers to and eyes do not",
}
"""How a picture is seen before each step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaximizeConfig(PictureConfig):
    """The flags of `explore maximize`, their defaults, ranges and help."""

    look: str = option(MAXIMIZE, "The word, for flagfiles.", choices=(MAXIMIZE,))
    output: str = option("", "The sheet to write, a picture for each channel.")
    layers: str = option("relu3_1", "Layers; with channels, such as relu3_1:5,17,relu4_1, only those.")
    channels: int = option(16, "The first so many channels of a layer that is named without.", lower=1, upper=4096)
    size: int = option(128, "Side of each picture in pixels.", lower=16, upper=4096)
    steps: int = option(256, "Updates, of all pictures at once.", lower=1, upper=10_000_000)
    learning_rate: float = option(0.05, "Adam's, in units of the spectrum.", above=0.0, upper=1e6)
    decay: float = option(
        1.0, "The power of its frequency by which a wave counts less; 0 leaves all alike.", lower=0.0, upper=4.0
    )
    robust: str = option("standard", "How a picture is changed before it is looked at.", choices=ROBUST)
    print_every: int = option(
        32, "Steps between printed activations and rows of the trace; 0: the first and last only.", lower=0
    )


def check_maximize(config: MaximizeConfig) -> None:
    """Raises `InputError` for everything that can be wrong before a file is read."""
    check(config)
    if not config.output:
        raise InputError("--output is missing: expected a picture file (no arguments at all show an example)")
    parse_channels("layers", config.layers)
