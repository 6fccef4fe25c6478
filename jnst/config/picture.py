"""The flags that all tasks have which optimize one picture without a style."""

import dataclasses

from jnst.config.choices import BORDERS, POOLINGS, SOURCES
from jnst.config.options import option

__all__ = ["PictureConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """Flags of `dream`, `invert`, `texture` and `maximize`, as `stylize` has them."""

    output: str = option("", "The picture to write: .png, .jpg, .webp, .avif or .tif.")
    weights: str = option(
        "mini", "Backbone: mini (bundled), vgg19 (downloaded once), a file, a converted name, or random[:SEED]."
    )
    source: str = option(
        "auto", "What the network of a weights file was fed, where its numbers do not show it.", choices=SOURCES
    )
    pooling: str = option("avg", "Pooling between the network's blocks.", choices=POOLINGS)
    padding: str = option(
        "auto", "What stands beyond the picture's border; auto: as the weights have it.", choices=("auto", *BORDERS)
    )
    seed: int = option(0, "Seed of everything that is random.", lower=0, upper=2**32 - 1)
    print_every: int = option(
        20, "Steps between printed losses and rows of the trace; 0: the first and last only.", lower=0
    )
    save_every: int = option(0, "Also write OUTPUT-000100.png and so on, every so many steps; 0: never.", lower=0)
    checkpoint_every: int = option(
        50, "Also write OUTPUT's stem + .ckpt, every so many steps, for --resume; 0: never.", lower=0
    )
    precision: str = option("float32", "Arithmetic.", choices=("float32", "float64"))
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")
