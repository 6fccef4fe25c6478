"""The flags of `invert`."""

import dataclasses

from jnst.config.grid import swept
from jnst.config.options import check, option
from jnst.config.picture import PictureConfig
from jnst.config.values import parse_layers
from jnst.errors import InputError

__all__ = ["INVERT_AXES", "InvertConfig", "check_invert"]


INVERT_AXES = ("seed", "alpha", "alpha_weight", "tv_weight", "tv_beta")
"""Flags that are traced, so that their values share one program."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertConfig(PictureConfig):
    """The flags of `invert`, their defaults, ranges and help."""

    image: str = option("", "The picture whose features are inverted: a file, or the name of a bundled picture.")
    output: str = option("", "The strip to write: the picture, then what each layer knows of it.")
    layers: str = option(
        "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "Layers to invert, each by itself, in the strip's order."
    )
    size: int = option(224, "Longest side of each picture in pixels; 0 keeps the picture's.", lower=0, upper=4096)
    steps: int = option(300, "Updates, for each of the layers.", lower=1, upper=10_000_000)
    restarts: int = option(
        1, "Starts from different noise, all in one program; the strip gets a row for each.", lower=1, upper=64
    )
    axis: tuple[str, ...] = option(
        (), "An axis over seed, alpha, alpha_weight, tv_weight or tv_beta: all in one program, a row each. Repeat."
    )
    alpha: float = option(6.0, "The power of the norm that keeps pixels near gray.", lower=1.0, upper=64.0)
    alpha_weight: float = option(1e-4, "Weight of that norm.", lower=0.0, upper=1e12)
    tv_weight: float = option(0.1, "Weight of the total variation.", lower=0.0, upper=1e12)
    tv_beta: float = option(2.0, "Power of a pixel's gradient in the total variation.", lower=1.0, upper=8.0)
    jitter: int = option(0, "Most pixels that both pictures are rolled by before a step.", lower=0, upper=4096)
    history: int = option(20, "Pairs that L-BFGS remembers.", lower=1, upper=1000)
    tile: int = option(256, "Longest side of a picture on the strip in pixels.", lower=32, upper=4096)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers."""
        return parse_layers("layers", self.layers)[0]


def check_invert(config: InvertConfig) -> None:
    """Raises `InputError` for everything that can be wrong before a file is read."""
    check(config)
    for name in ("image", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing: expected a picture file (no arguments at all show an example)")
    if config.axis:
        for run in swept(config, INVERT_AXES)[1]:
            check(run)
        if config.restarts > 1:
            raise InputError(f"--restarts={config.restarts}: expected 1 with --axis; --axis=seed=0,1,2 starts anew")
    parse_layers("layers", config.layers)
    if ":" in config.layers:
        raise InputError(f"--layers={config.layers}: each layer is inverted by itself; expected names without weights")
