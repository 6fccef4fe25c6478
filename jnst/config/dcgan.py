"""The flags of `dcgan train` and `dcgan sample`."""

import dataclasses

from jnst.config.choices import ADVERSARIAL_LOSSES, DISCRIMINATORS, SOURCES
from jnst.config.gan import LAST_SEED, GanConfig
from jnst.config.options import option
from jnst.config.specs import DcganSpec

__all__ = ["DCGAN_SIZES", "DcganConfig", "DcganSampleConfig"]

DCGAN_SIZES = (28, 32, 64)
"""Sides of pictures that there is a network for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DcganConfig(GanConfig):
    """The flags of `dcgan train`, their defaults, ranges and help."""

    data: str = option("", "A folder: CIFAR-10's python or binary batches, or pictures.")
    size: int = option(32, "Side of the pictures in pixels.", choices=DCGAN_SIZES)
    flips: bool = option(False, "Mirror half of the pictures, by chance.")
    batch: int = option(256, "Pictures in a step.", lower=2, upper=65536)
    epochs: int = option(50, "Passes over the pictures, where --steps does not say.", lower=1, upper=1_000_000)
    width: int = option(64, "Channels of the largest maps; each halving of the side doubles them.", lower=1, upper=1024)
    latent: int = option(100, "Numbers that a picture is made from.", lower=1, upper=65536)
    discriminator: str = option("batch", "What keeps the discriminator in check.", choices=DISCRIMINATORS)
    dropout: float = option(0.3, "The share that it drops, where it does.", lower=0.0, upper=0.9)
    loss: str = option("bce", "By what the two learn.", choices=ADVERSARIAL_LOSSES)
    average_decay: float = option(
        0.999, "Of the average over the generator's iterates, which is the result.", lower=0.0, upper=1.0
    )
    weights: str = option("mini", "Backbone that distances to held-out pictures are measured by, as of stylize.")
    source: str = option(
        "auto", "What the network of a weights file was fed, where its numbers do not show it.", choices=SOURCES
    )
    distance_pictures: int = option(
        2000, "Pictures of each side that distances are measured on; 0: they are not.", lower=0, upper=1_000_000
    )

    @property
    def net(self) -> DcganSpec:
        """The networks' architecture."""
        return DcganSpec(
            size=self.size,
            width=self.width,
            latent=self.latent,
            norm=self.discriminator,
            dropout=self.dropout,
            precision=self.precision,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DcganSampleConfig:
    """The flags of `dcgan sample`, their defaults, ranges and help."""

    output: str = option("", "The picture to write: a sheet of samples, or with --walk .gif or .png of a walk.")
    count: int = option(64, "Pictures.", lower=1, upper=65536)
    walk: int = option(0, "Steps of a walk from one picture to the next, along an arc; 0: none.", lower=0, upper=1000)
    net: str = option("", "Of several networks: which, by name or by number from 1. Empty: the first.")
    scale: int = option(2, "Each pixel so many pixels wide and high.", lower=1, upper=64)
    seed: int = option(0, "Seed of the noise.", lower=0, upper=LAST_SEED)
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")
