"""The flags of `pix2pix` and `cyclegan`."""

import dataclasses

from jnst.config.choices import (
    ADVERSARIAL_LOSSES,
    DIRECTIONS,
    GAN_NORMS,
    PAIRED,
    PATCHES,
    PIX2PIX_LOSSES,
    SCHEDULES,
    SOURCES,
    UPSAMPLES,
)
from jnst.config.gan import LAST_SEED, GanConfig
from jnst.config.options import option
from jnst.config.specs import PatchSpec, ResnetSpec, UnetSpec

__all__ = [
    "TRANSLATION_SIZES",
    "CycleganConfig",
    "EvaluateConfig",
    "Pix2pixConfig",
    "TranslateConfig",
    "TranslationConfig",
]

TRANSLATION_SIZES = (32, 64, 128, 256, 512)
"""Sides that networks can be trained at; they are used at any size."""

_STRIDED = {"1": 0, "16": 1, "34": 2, "70": 3, "142": 4, "286": 5}  # layers of a PatchGAN, by --patch
_LEAST_BATCH = 4  # that is normalized by batch
_LARGE = 256  # pixels from which on CycleGAN has nine blocks, not six


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationConfig(GanConfig):
    """What both trainings have: pictures to pictures."""

    size: int = option(256, "Side of the pictures in pixels.", choices=TRANSLATION_SIZES)
    width: int = option(64, "Channels of the generator's largest maps.", lower=1, upper=1024)
    discriminator_width: int = option(0, "Of the discriminator's; 0: as many.", lower=0, upper=1024)
    patch: str = option("70", "Side of the patches that the discriminator judges, in pixels.", choices=PATCHES)
    norm: str = option("auto", "How networks normalize.", choices=GAN_NORMS)
    jitter: bool = option(True, "Pictures are read a little larger, 286 pixels for 256, and cut at random places.")
    flips: bool = option(True, "Mirror half of the pictures, by chance.")

    @property
    def normalization(self) -> str:
        """`instance` or `batch`.

        >>> [TranslationConfig(batch=batch).normalization for batch in (1, 4)]
        ['instance', 'batch']
        """
        if self.norm != "auto":
            return self.norm
        return "batch" if self.batch >= _LEAST_BATCH else "instance"

    def judge(self, channels: int) -> PatchSpec:
        """The discriminator's architecture, of pictures with so many channels."""
        return PatchSpec(
            layers=_STRIDED[self.patch],
            width=self.discriminator_width or self.width,
            channels=channels,
            norm=self.normalization,
            precision=self.precision,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pix2pixConfig(TranslationConfig):
    """The flags of `pix2pix train`, their defaults, ranges and help."""

    data: str = option("", "A folder of A|B pictures, or one with train/ in it.")
    direction: str = option("AtoB", "From which half to which.", choices=DIRECTIONS)
    loss: str = option("l1+cgan", "By what the generator learns.", choices=PIX2PIX_LOSSES)
    l1_weight: float = option(100.0, "Weight of the mean absolute difference.", lower=0.0, upper=1e6)
    adversarial: str = option("bce", "By what the two play.", choices=ADVERSARIAL_LOSSES)
    dropout: float = option(0.5, "The share of the innermost maps that is dropped, as noise.", lower=0.0, upper=0.9)

    @property
    def net(self) -> UnetSpec:
        """The generator's architecture: as many levels as the side can be halved.

        >>> [Pix2pixConfig(size=size).net.levels for size in (64, 256)]
        [6, 8]
        """
        return UnetSpec(
            levels=self.size.bit_length() - 1,
            width=self.width,
            norm=self.normalization,
            dropout=self.dropout,
            precision=self.precision,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CycleganConfig(TranslationConfig):
    """The flags of `cyclegan train`, their defaults, ranges and help."""

    a: str = option("", "A folder of pictures of one kind.")
    b: str = option("", "A folder of pictures of another.")
    schedule: str = option("linear", "How the step size changes.", choices=SCHEDULES)
    adversarial: str = option("lsgan", "By what they play.", choices=ADVERSARIAL_LOSSES)
    blocks: int = option(0, "Residual blocks; 0: 6 below 256 pixels, else 9.", lower=0, upper=64)
    upsample: str = option("resize", "How maps get larger.", choices=UPSAMPLES)
    cycle_weight: float = option(10.0, "Weight of coming back to where it began.", lower=0.0, upper=1e6)
    identity_weight: float = option(
        0.5,
        "Weight, in parts of --cycle_weight, of leaving alone what is of the target's kind.",
        lower=0.0,
        upper=1e6,
    )
    pool: int = option(50, "Made pictures that the discriminators are shown again, by chance.", lower=0, upper=10_000)
    weights: str = option("mini", "Backbone that distances to held-out pictures are measured by, as of stylize.")
    source: str = option(
        "auto", "What the network of a weights file was fed, where its numbers do not show it.", choices=SOURCES
    )
    distance_pictures: int = option(
        100, "Pictures of each side that distances are measured on; 0: they are not.", lower=0, upper=1_000_000
    )

    @property
    def net(self) -> ResnetSpec:
        """The generators' architecture."""
        return ResnetSpec(
            blocks=self.blocks or (9 if self.size >= _LARGE else 6),
            width=self.width,
            norm=self.normalization,
            upsample=self.upsample,
            precision=self.precision,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslateConfig:
    """The flags of `pix2pix test` and `cyclegan test`, their defaults, ranges and help."""

    direction: str = option("AtoB", "Of a CycleGAN: from which kind to which; pix2pix has its own.", choices=DIRECTIONS)
    size: int = option(0, "Longest side in pixels; 0: the picture's.", lower=0, upper=65536)
    pairs: str = option("auto", "Whether pictures are A|B pictures, one half of which goes in.", choices=PAIRED)
    noise: bool = option(True, "Pix2pix: drop by chance, as in training.")
    seed: int = option(0, "Seed of that chance.", lower=0, upper=LAST_SEED)
    net: str = option("", "Of several networks: which, by name or by number from 1. Empty: the first.")
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The flags of `pix2pix evaluate`, their defaults, ranges and help."""

    output: str = option("", "The JSON to write; empty: evaluation.json in the network's folder.")
    size: int = option(0, "Side that pairs are compared at; 0: the one that was trained at.", lower=0, upper=4096)
    noise: bool = option(True, "Drop by chance, as in training.")
    seed: int = option(0, "Seed of that chance.", lower=0, upper=LAST_SEED)
    net: str = option("", "Of several networks: which, by name or by number from 1. Empty: the first.")
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")
