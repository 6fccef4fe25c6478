"""The flags of `texture`."""

import dataclasses

from jnst.config.choices import PRECONDITIONERS
from jnst.config.grid import swept
from jnst.config.layers import halvings_of
from jnst.config.options import check, option
from jnst.config.picture import PictureConfig
from jnst.config.stylize import StylizeConfig
from jnst.config.values import parse_layers
from jnst.errors import InputError
from jnst.normalizations import NORMALIZATIONS

__all__ = ["HISTOGRAMS", "METHODS", "TEXTURE_AXES", "TextureConfig", "check_texture"]

METHODS = {
    "gram": "a picture with the sample's Gram matrices (Gatys et al. 2015)",
    "patches": "patches of the sample side by side, with the best cut between them (Efros & Freeman 2001)",
}
HISTOGRAMS = {
    "none": "colors as they are found",
    "match": "each channel's distribution made the sample's at the end, as Gatys et al. 2015 do",
}


TEXTURE_AXES = ("seed", "noise_width", "tv_weight")
"""Flags that are traced, so that their values share one program."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextureConfig(PictureConfig):
    """The flags of `texture`, their defaults, ranges and help."""

    image: str = option("", "The sample: a file, or the name of a bundled picture.")
    size: str = option("512", "Of the output in pixels: a side of a square, or width x height such as 768x512.")
    sample_size: int = option(
        0, "Longest side that the sample is brought to, the scale of its grain; 0: as it is.", lower=0, upper=65535
    )
    method: str = option("gram", "How the texture is made.", choices=METHODS)
    tileable: bool = option(False, "Whether the left edge shall meet the right one, and the top the bottom.")
    layers: str = option(
        "conv1_1,pool1,pool2,pool3,pool4", "Layers whose Gram matrices are the texture, such as conv1_1,pool4:0.5."
    )
    steps: int = option(300, "Updates, at each of the scales.", lower=1, upper=10_000_000)
    scales: str = option("2", "Sizes to go through, each half the next: a number of them.", choices=tuple("12345678"))
    axis: tuple[str, ...] = option(
        (), "An axis over seed, noise_width or tv_weight, such as seed=0,1,2: all in one program, on one sheet. Repeat."
    )
    histogram: str = option("none", "What happens to the colors at the end.", choices=HISTOGRAMS)
    noise_width: float = option(64.0, "Half width of the noise that it starts from, of 255.", lower=0.0, upper=255.0)
    tv_weight: float = option(0.0, "Weight of the total variation.", lower=0.0, upper=1e12)
    normalization: str = option("relative", "How differences become terms.", choices=NORMALIZATIONS)
    history: int = option(20, "Pairs that L-BFGS remembers.", lower=1, upper=1000)
    preconditioner: str = option(
        "fourier", "What L-BFGS takes for granted of the loss; with --tileable always none.", choices=PRECONDITIONERS
    )
    tile: str = option("auto", "Longest side of a tile in pixels, as of stylize; 0: none; auto: as the memory allows.")
    patch: int = option(48, "Of --method=patches: side of a patch in pixels.", lower=4, upper=4096)
    tolerance: float = option(
        0.1, "Of --method=patches: how much worse than the best a patch may fit, over the best.", lower=0.0, upper=100.0
    )

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of the output."""
        width, _, height = self.size.lower().partition("x")
        return int(width), int(height or width)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers."""
        return parse_layers("layers", self.layers)[0]

    @property
    def stride(self) -> int:
        """What a tileable picture's sides must be multiples of."""
        return 2 ** max(map(halvings_of, self.names))

    def painting(self) -> StylizeConfig:
        """The same as a style transfer without a content."""
        return StylizeConfig(
            content_layers="",
            style_layers=self.layers,
            content_weight=0.0,
            style_weight=100.0,  # with 1, L-BFGS takes the first changes for rounding, and learns nothing of them
            tv_weight=self.tv_weight,
            steps=self.steps,
            init="noise",
            noise_width=self.noise_width,
            normalization=self.normalization,
            pooling=self.pooling,
            padding="wrap" if self.tileable else self.padding,
            history=self.history,
            preconditioner="none" if self.tileable else self.preconditioner,  # it mirrors the picture at its edges
            tile="0" if self.tileable and self.tile == "auto" else self.tile,
            seed=self.seed,
            print_every=self.print_every,
            save_every=self.save_every,
            checkpoint_every=self.checkpoint_every,
            precision=self.precision,
            device=self.device,
        )


def check_texture(config: TextureConfig) -> None:
    """Raises `InputError` for everything that can be wrong before a file is read."""
    check(config)
    for name in ("image", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing: expected a picture file (no arguments at all show an example)")
    sides = config.size.lower().split("x")
    if not (1 <= len(sides) <= 2 and all(side.isdecimal() and 1 <= int(side) <= 65535 for side in sides)):
        raise InputError(f"--size={config.size}: expected a side in pixels, or width x height such as 768x512")
    parse_layers("layers", config.layers)
    if config.tile not in ("auto", "0") and not (config.tile.isdecimal() and 16 <= int(config.tile) <= 65535):
        raise InputError(f"--tile={config.tile}: expected auto, 0, or a whole number from 16 to 65535")
    if config.axis:
        if config.method == "patches":
            raise InputError(f"--axis={config.axis[0]}: is of --method=gram; expected none with --method=patches")
        if config.tile not in ("auto", "0"):
            raise InputError(f"--tile={config.tile}: textures of an axis are computed whole; expected 0, or auto")
        for run in swept(config, TEXTURE_AXES)[1]:
            check(run)
    if not config.tileable or config.method == "patches":
        return
    if config.padding not in ("auto", "wrap"):
        raise InputError(f"--padding={config.padding}: a tileable texture is padded with itself; expected auto")
    if config.tile not in ("auto", "0"):
        raise InputError(f"--tile={config.tile}: a tileable texture is computed whole; expected 0, or auto")
    if any(side % config.stride for side in config.shape):
        raise InputError(
            f"--size={config.size}: expected multiples of {config.stride} with --tileable, as --layers={config.layers} "
            f"see cells of {config.stride} pixels"
        )
