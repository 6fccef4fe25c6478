"""The flags of `dream`."""

import dataclasses

from jnst.config.choices import NORMALIZES
from jnst.config.grid import swept
from jnst.config.options import check, option
from jnst.config.picture import PictureConfig
from jnst.config.values import parse_channels
from jnst.errors import InputError

__all__ = ["DREAMS", "DREAM_AXES", "FILMS", "DreamConfig", "check_dream"]

DREAMS = {
    "square": "half the mean square of the activations: their gradient is the activation itself, as in the original",
    "mean": "the mean of the activations, as in TensorFlow's tutorial",
}

DREAM_AXES = ("seed", "step_size")
"""Flags that are traced, so that their values share one program."""

FILMS = (".gif", ".webp", ".mp4")
"""What `--zoom` writes, by its ending; .mp4 by ffmpeg."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamConfig(PictureConfig):
    """The flags of `dream`, their defaults, ranges and help."""

    image: str = option("", "The picture to dream on: a file, the name of a bundled picture, or noise.")
    guide: str = option("", "A second picture, whose features shall appear. Empty: whatever the layers see.")
    output: str = option("", "The picture to write; with --zoom a film: .gif, .webp, or .mp4 where ffmpeg is there.")
    layers: str = option("relu4_1", "Layers to amplify; with channels, such as relu3_1,relu4_1:12,87, only those.")
    objective: str = option("square", "What grows.", choices=DREAMS)
    size: int = option(512, "Longest side of the output in pixels; 0 keeps the picture's.", lower=0, upper=65535)
    octaves: int = option(4, "Sizes to dream at, the smallest first.", lower=1, upper=32)
    octave_scale: float = option(1.4, "From one size to the next.", above=1.0, upper=8.0)
    steps: int = option(10, "Steps at each size.", lower=1, upper=1_000_000)
    step_size: float = option(1.5, "Mean change of a pixel in a step, of 255.", above=0.0, upper=255.0)
    normalize: str = option("mean", "What a gradient is divided by.", choices=NORMALIZES)
    jitter: int = option(32, "Most pixels that the picture is rolled by before a step, and back after it.", lower=0)
    tile: int = option(0, "Longest side of a tile in pixels, for large pictures; the same dream. 0: whole.", lower=0)
    zoom: int = option(0, "Frames of a film, each the last one enlarged and dreamed on; 0: a picture.", lower=0)
    zoom_scale: float = option(1.05, "How much a frame is enlarged.", above=1.0, upper=2.0)
    frame_rate: float = option(12.0, "Frames a second.", above=0.0, upper=120.0)
    axis: tuple[str, ...] = option(
        (),
        "An axis over seed or step_size, such as step_size=0.5,1.5,4: all in one program, on one sheet. Repeat.",
    )
    print_every: int = option(
        10, "Steps between printed activations and rows of the trace; 0: the first and last only.", lower=0
    )


def check_dream(config: DreamConfig) -> None:
    """Raises `InputError` for everything that can be wrong before a file is read."""
    check(config)
    for name in ("image", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing: expected a picture file (no arguments at all show an example)")
    parse_channels("layers", config.layers)
    if config.image == "noise" and config.size == 0:
        raise InputError("--size=0: noise has no size; expected a number of pixels")
    if 0 < config.tile < 16:
        raise InputError(f"--tile={config.tile}: expected 0, or a whole number from 16")
    if config.tile and config.padding == "wrap":
        raise InputError(f"--tile={config.tile}: has no --padding=wrap; expected --tile=0, or another padding")
    if config.normalize == "none":
        raise InputError("--normalize=none: expected mean or deviation")
    if config.axis:
        if config.zoom:
            raise InputError(f"--axis={config.axis[0]}: a film has no axes; expected --zoom=0")
        axes, runs = swept(config, DREAM_AXES)
        if config.image == "noise" and any(axis.flag == "seed" for axis in axes):
            raise InputError("--axis=seed: the noise that is dreamed on is of one seed; expected a picture as --image")
        for run in runs:
            check(run)
    is_film = config.output.lower().endswith(FILMS)
    if config.zoom and not is_film:
        raise InputError(f"--output={config.output}: expected {', '.join(FILMS)} with --zoom")
    if not config.zoom and config.output.lower().endswith((".gif", ".mp4")):
        raise InputError(f"--output={config.output}: is a film; expected --zoom with a number of frames")
