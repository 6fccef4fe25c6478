"""The flags of `explore`."""

import dataclasses
import math

from jnst.config.choices import POOLINGS, SOURCES
from jnst.config.options import check, option
from jnst.config.values import parse_layers
from jnst.errors import InputError

__all__ = ["LOOKS", "ExploreConfig", "check_explore", "parse_threshold"]

LOOKS = {
    "filters": "the kernels of the first layer",
    "activations": "the feature maps of a picture",
    "maximize": "pictures that excite channels as much as possible; has flags of its own",
    "neighbors": "the pictures of a folder that are nearest to a picture",
    "verify": "whether two pictures are of the same thing",
    "identify": "which of a folder's subfolders a picture belongs to",
    "tsne": "a map of a folder, like pictures side by side",
}
"""What can be looked at: the command's first word."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """The flags of `explore`."""

    look: str = option("", f"What to look at, where no word says it: {', '.join(LOOKS)}.")
    pictures: str = option("", "Pictures and folders, a comma list, where they are not named without a flag.")
    output: str = option("", "The picture to write; neighbors, verify and identify print their answer anyhow.")
    weights: str = option(
        "mini", "Backbone: mini (bundled), vgg19 (downloaded once), a file, a converted name, or random[:SEED]."
    )
    source: str = option(
        "auto", "What the network of a weights file was fed, where its numbers do not show it.", choices=SOURCES
    )
    layers: str = option(
        "", "Layers, such as relu3_1, a comma list; none: relu3_1 for activations, else the last that the weights have."
    )
    pooling: str = option("avg", "Pooling between the network's blocks.", choices=POOLINGS)
    size: int = option(
        0,
        "Longest side of the picture for activations, else the side of the square that is looked at; 0: 256 and 96.",
        lower=0,
        upper=4096,
    )
    channels: int = option(64, "Feature maps shown of each layer, the strongest first.", lower=1, upper=4096)
    count: int = option(8, "Neighbors shown.", lower=1, upper=1000)
    threshold: str = option("", "For verify and identify: the largest distance at which two are the same.")
    calibrate: str = option(
        "", "For verify and identify: a folder with a subfolder for each identity, which sets the threshold."
    )
    perplexity: float = option(
        30.0, "Of t-SNE: about how many neighbors count; lowered for small folders.", lower=1.0, upper=10000.0
    )
    side: int = option(1600, "Longest side of t-SNE's map in pixels.", lower=256, upper=16384)
    seed: int = option(0, "Seed of t-SNE.", lower=0, upper=2**32 - 1)
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")


def check_explore(config: ExploreConfig) -> None:
    """Everything about the flags that can be wrong before a file is read, but for what each look needs.

    Raises:
        InputError: naming the flag.
    """
    check(config)
    if config.layers:
        names, _ = parse_layers("layers", config.layers)
        if ":" in config.layers:
            raise InputError(f"--layers={config.layers}: expected layers without numbers, such as {','.join(names)}")
    parse_threshold(config)
    if config.threshold and config.calibrate:
        raise InputError(f"--threshold={config.threshold}: expected none with --calibrate, which sets it")


def parse_threshold(config: ExploreConfig) -> float | None:
    """`--threshold` as a number; None where there is none.

    >>> parse_threshold(ExploreConfig(threshold="0.25"))
    0.25
    """
    if not config.threshold.strip():
        return None
    try:
        value = float(config.threshold)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 2:  # false for NaN
        raise InputError(f"--threshold={config.threshold}: expected a number from 0 to 2")
    return value
