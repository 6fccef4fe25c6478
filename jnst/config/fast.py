"""The flags of `fast train` and `fast apply`."""

import dataclasses

from jnst.config.choices import (
    HEADS,
    NORMS,
    SCHEDULES,
    STYLE_LOSSES,
    STYLENET_BORDERS,
    TOGETHER,
    TOTAL_VARIATIONS,
    UPSAMPLES,
)
from jnst.config.grid import Axis, swept
from jnst.config.options import check, option
from jnst.config.picture import PictureConfig
from jnst.config.specs import ObjectiveSpec, StyleNetSpec, TrainConfig
from jnst.config.values import parse_layers, parse_mix, split_list
from jnst.errors import InputError
from jnst.normalizations import NORMALIZATIONS

__all__ = ["FAST_AXES", "ApplyConfig", "FastConfig", "check_apply", "check_fast", "fast_runs"]

FAST_AXES = ("style", "style_size", "content_weight", "style_weight", "tv_weight", "learning_rate")
"""Flags that are traced, so that their values share one program."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastConfig(PictureConfig):
    """The flags of `fast train`, their defaults, ranges and help."""

    style: str = option("", "Style image; a comma list is blended, or with --conditional learned apart.")
    style_mix: str = option("", "Share of each style, such as 0.3,0.7; normalized to sum 1. Empty: equal shares.")
    conditional: bool = option(False, "One network that learns every style of --style, and is told which at use.")
    photos: str = option("", "Folders of photos to train on, a comma list.")
    output: str = option("", "The network to write: .safetensors; a folder, where there is an --axis.")
    start: str = option("", "A network to go on from, a file or a bundled name; its shape counts. Empty: random.")
    axis: tuple[str, ...] = option(
        (),
        "An axis, such as style=a.jpg,b.jpg or style_weight=30,100: a network for each value, all of them trained in "
        "one program. Repeat.",
    )
    together: str = option("auto", "How several networks go through that program.", choices=TOGETHER)
    widths: str = option("16,32,64", "Channels at full size, half, a quarter and so on.")
    blocks: int = option(4, "Residual blocks at the smallest size.", lower=0, upper=64)
    kernel: int = option(5, "Side of the first and the last kernels, odd.", lower=1, upper=15)
    norm: str = option("instance", "Normalization.", choices=NORMS)
    border: str = option("reflect", "What stands beyond the border of the network's maps.", choices=STYLENET_BORDERS)
    upsample: str = option("resize", "How maps become larger again.", choices=UPSAMPLES)
    head: str = option("linear", "How the last maps become a picture.", choices=HEADS)
    size: int = option(256, "Side of the crops of photos in pixels.", lower=16, upper=4096)
    zoom: float = option(2.0, "Side of the largest crop that is brought to that size.", lower=1.0, upper=64.0)
    style_size: int = option(
        384, "Longest side of the style image in pixels, the scale of the strokes; 0: its own.", lower=0, upper=65535
    )
    batch: int = option(4, "Photos in a step.", lower=1, upper=4096)
    steps: int = option(2000, "Updates.", lower=1, upper=100_000_000)
    learning_rate: float = option(0.004, "Adam's largest step size.", above=0.0, upper=1e6)
    schedule: str = option("cosine", "How it changes.", choices=SCHEDULES)
    warmup: int = option(50, "Steps in which it rises.", lower=0, upper=100_000_000)
    average_decay: float = option(0.99, "Of the average over the iterates, which is the result.", lower=0.0, upper=1.0)
    content_weight: float = option(1.0, "Weight of the content term.", lower=0.0, upper=1e12)
    style_weight: float = option(40.0, "Weight of the style term.", lower=0.0, upper=1e12)
    tv_weight: float = option(30.0, "Weight of the total variation.", lower=0.0, upper=1e12)
    content_layers: str = option("relu3_3", "Layers that hold the content, as of stylize.")
    style_layers: str = option(
        "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "Layers whose Gram matrices are the style, as of stylize."
    )
    style_loss: str = option("gram", "What of the style is compared.", choices=STYLE_LOSSES)
    normalization: str = option("relative", "How differences become terms (see the README).", choices=NORMALIZATIONS)
    tv: str = option("l2", "Total variation: absolute or squared differences.", choices=TOTAL_VARIATIONS)
    licence: str = option("", "Terms of the network, which are kept in its file.")
    save_every: int = option(500, "Steps between sheets of held-out photos, NET-000500.jpg; 0: at the end.", lower=0)
    checkpoint_every: int = option(100, "Steps between checkpoints, for --resume; 0: none.", lower=0)
    precision: str = option("float32", "Arithmetic.", choices=("float32",))

    @property
    def net(self) -> StyleNetSpec:
        """The network's architecture."""
        return StyleNetSpec(
            widths=tuple(int(width) for width in split_list(self.widths)),
            blocks=self.blocks,
            kernel=self.kernel,
            norm=self.norm,
            border=self.border,
            upsample=self.upsample,
            head=self.head,
            styles=len(split_list(self.style)) if self.conditional else 1,
        )

    def objective(self, padding: str) -> ObjectiveSpec:
        """The static half of the loss; `padding` is the weights' own, where the flag says `auto`."""
        return ObjectiveSpec(
            content_layers=parse_layers("content_layers", self.content_layers, may_be_empty=True)[0],
            style_layers=parse_layers("style_layers", self.style_layers)[0],
            pooling=self.pooling,
            padding=padding if self.padding == "auto" else self.padding,
            normalization=self.normalization,
            tv=self.tv,
            style_loss=self.style_loss,
        )

    @property
    def training(self) -> TrainConfig:
        """The static half of the training."""
        return TrainConfig(
            steps=self.steps, schedule=self.schedule, warmup=self.warmup, average_decay=self.average_decay
        )


def fast_runs(config: FastConfig) -> tuple[list[Axis], list[FastConfig]]:
    """The axes, none perhaps, and a configuration for each network."""
    return swept(config, FAST_AXES) if config.axis else ([], [config])


def check_fast(config: FastConfig) -> None:
    """Raises `InputError` for everything that can be wrong before a file is read."""
    check(config)
    axes, runs = fast_runs(config)
    named = {axis.flag for axis in axes}
    for name in ("style", "photos", "output"):
        if not getattr(config, name) and name not in named:
            raise InputError(f"--{name} is missing (no arguments at all show an example)")
    if "style" in named and config.style:
        raise InputError(f"--style={config.style}: expected none where style is an axis")
    if "style" in named and config.conditional:
        raise InputError("--conditional: learns all styles in one network; expected --style, not an axis of styles")
    widths = split_list(config.widths)
    if not widths or not all(width.isdecimal() and 0 < int(width) <= 4096 for width in widths):
        raise InputError(f"--widths={config.widths}: expected whole numbers from 1 to 4096, such as 16,32,64")
    if len(widths) > 6:
        raise InputError(f"--widths={config.widths}: expected no more than 6 sizes")
    if config.kernel % 2 == 0:
        raise InputError(f"--kernel={config.kernel}: expected an odd number")
    if config.conditional and config.style_mix:
        raise InputError(f"--style_mix={config.style_mix}: of a conditional network it is chosen at use; expected none")
    if config.conditional and len(split_list(config.style)) < 2:
        raise InputError(f"--style={config.style}: expected several styles with --conditional")
    if not config.axis and not config.output.endswith(".safetensors"):
        raise InputError(f"--output={config.output}: expected a name that ends in .safetensors")
    if config.axis and config.output.endswith(".safetensors"):
        raise InputError(f"--output={config.output}: expected a folder's name where there is an --axis")
    for flag in ("content_layers", "style_layers"):
        parse_layers(flag, getattr(config, flag), may_be_empty=flag == "content_layers")
    for run in runs:
        check(run)
        parse_mix(run.style_mix, len(split_list(run.style)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApplyConfig:
    """The flags of `fast apply`, their defaults, ranges and help."""

    size: int = option(0, "Longest side of the output in pixels; 0 keeps the picture's.", lower=0, upper=65535)
    style: str = option("", "Of a network of several styles: which, by name or by number from 1. Empty: the first.")
    style_mix: str = option("", "Of a network of several styles: the share of each, such as 0.3,0.7.")
    strength: float = option(1.0, "From the photo, 0, to the network's picture, 1.", lower=0.0, upper=1.0)
    preserve_color: str = option("none", "luminance: the photo's colors are put back.", choices=("none", "luminance"))
    tile: str = option(
        "auto", "Longest side of a tile in pixels, for large pictures; the same picture. 0: whole; auto: as needed."
    )
    format: str = option("", "Of a folder: the ending of what is written, such as .jpg. Empty: .png.")
    processes: int = option(1, "Of a folder: so many processes share it.", lower=1, upper=256)
    frames_at_once: int = option(4, "Of a film: frames in one pass.", lower=1, upper=256)
    bit_depth: int = option(8, "Bits of each channel of a picture; 16 in .png and .tif.", choices=(8, 16))
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")


def check_apply(config: ApplyConfig) -> None:
    """Raises `InputError` for everything that can be wrong before a file is read."""
    check(config)
    if config.style and config.style_mix:
        raise InputError(f"--style_mix={config.style_mix}: expected it, or --style, not both")
    if config.tile not in ("auto", "0") and not (config.tile.isdecimal() and 64 <= int(config.tile[:9]) <= 65535):
        raise InputError(f"--tile={config.tile}: expected auto, 0, or a whole number from 64 to 65535")
