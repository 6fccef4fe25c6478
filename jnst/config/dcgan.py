"""The flags of `dcgan train` and `dcgan sample`."""

import dataclasses

from jnst.config.choices import ADVERSARIAL_LOSSES, DISCRIMINATORS, SCHEDULES, SOURCES, TOGETHER
from jnst.config.grid import Axis, swept
from jnst.config.options import check, option
from jnst.config.specs import DcganSpec, TrainConfig
from jnst.errors import InputError

__all__ = ["DCGAN_AXES", "DCGAN_SIZES", "DcganConfig", "DcganSampleConfig", "check_dcgan", "dcgan_runs"]

DCGAN_AXES = ("seed", "learning_rate", "discriminator_learning_rate", "beta1")
"""Flags that are traced, so that their values share one program."""

DCGAN_SIZES = (28, 32, 64)
"""Sides of pictures that there is a network for."""

_SEEDS = 2**32


@dataclasses.dataclass(frozen=True, kw_only=True)
class DcganConfig:
    """The flags of `dcgan train`, their defaults, ranges and help."""

    data: str = option("", "A folder: CIFAR-10's python or binary batches, or pictures.")
    output: str = option("", "The folder to write: networks, sheets, curves, the record and checkpoints.")
    size: int = option(32, "Side of the pictures in pixels.", choices=DCGAN_SIZES)
    flips: bool = option(False, "Mirror half of the pictures, by chance.")
    batch: int = option(256, "Pictures in a step.", lower=2, upper=65536)
    epochs: int = option(50, "Passes over the pictures, where --steps does not say.", lower=1, upper=1_000_000)
    steps: int = option(0, "Updates; 0: as many as the epochs have.", lower=0, upper=100_000_000)
    width: int = option(64, "Channels of the largest maps; each halving of the side doubles them.", lower=1, upper=1024)
    latent: int = option(100, "Numbers that a picture is made from.", lower=1, upper=65536)
    discriminator: str = option("batch", "What keeps the discriminator in check.", choices=DISCRIMINATORS)
    dropout: float = option(0.3, "The share that it drops, where it does.", lower=0.0, upper=0.9)
    loss: str = option("bce", "By what the two learn.", choices=ADVERSARIAL_LOSSES)
    learning_rate: float = option(2e-4, "Adam's step size.", above=0.0, upper=1e3)
    discriminator_learning_rate: float = option(0.0, "The discriminator's; 0: the same.", lower=0.0, upper=1e3)
    beta1: float = option(0.5, "Decay of Adam's mean gradient.", lower=0.0, upper=0.9999)
    schedule: str = option("constant", "How the step size changes.", choices=SCHEDULES)
    warmup: int = option(0, "Steps in which it rises.", lower=0, upper=100_000_000)
    average_decay: float = option(
        0.999, "Of the average over the generator's iterates, which is the result.", lower=0.0, upper=1.0
    )
    seeds: int = option(1, "So many networks, of seeds from --seed on, trained in one program.", lower=1, upper=4096)
    axis: tuple[str, ...] = option(
        (), "An axis, such as learning_rate=1e-4,2e-4: a network for each value, in the same program. Repeat."
    )
    together: str = option("auto", "How several networks go through that program.", choices=TOGETHER)
    seed: int = option(0, "Seed of the first parameters and of noise; the pictures' order is always the same.", lower=0)
    weights: str = option("mini", "Backbone that distances to held-out pictures are measured by, as of stylize.")
    source: str = option(
        "auto", "What the network of a weights file was fed, where its numbers do not show it.", choices=SOURCES
    )
    distance_pictures: int = option(
        2000, "Pictures of each side that distances are measured on; 0: they are not.", lower=0, upper=1_000_000
    )
    print_every: int = option(50, "Steps between printed losses and rows of the CSV; 0: each epoch.", lower=0)
    sample_every: int = option(0, "Steps between sheets on the way, from fixed noise; 0: each epoch.", lower=0)
    checkpoint_every: int = option(500, "Steps between checkpoints, for --resume; 0: none.", lower=0)
    precision: str = option("float32", "Arithmetic of the convolutions.", choices=("float32", "bfloat16"))
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")

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

    def updates(self, an_epoch: int) -> int:
        """How many there are, of so many in an epoch.

        >>> DcganConfig(epochs=3).updates(10), DcganConfig(epochs=3, steps=25).updates(10)
        (30, 25)
        """
        return self.steps or self.epochs * an_epoch

    def training(self, steps: int) -> tuple[TrainConfig, TrainConfig]:
        """The static halves of the generator's and the discriminator's training."""
        own = TrainConfig(steps=steps, schedule=self.schedule, warmup=self.warmup, average_decay=self.average_decay)
        return own, dataclasses.replace(own, average_decay=0.0)


def dcgan_runs(config: DcganConfig) -> tuple[list[Axis], list[DcganConfig]]:
    """The axes, none perhaps, and a configuration for each network; the seeds vary fastest.

    >>> [(run.learning_rate, run.seed) for run in dcgan_runs(DcganConfig(axis=("learning_rate=1,2",), seeds=2))[1]]
    [(1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)]
    """
    axes, runs = swept(config, DCGAN_AXES) if config.axis else ([], [config])
    places = range(config.seeds)
    return axes, [dataclasses.replace(run, axis=(), seeds=1, seed=run.seed + place) for run in runs for place in places]


def check_dcgan(config: DcganConfig) -> None:
    """Raises `InputError` for everything that can be wrong before a file is read."""
    check(config)
    for name in ("data", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing (no arguments at all show an example)")
    axes, runs = dcgan_runs(config)
    if config.seeds > 1 and "seed" in {axis.flag for axis in axes}:
        raise InputError(f"--seeds={config.seeds}: expected 1 where seed is an axis")
    for run in runs:
        check(run)
        if run.seed >= _SEEDS:
            raise InputError(f"--seed={run.seed}: expected a number not above {_SEEDS - 1}, with --seeds counted on")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DcganSampleConfig:
    """The flags of `dcgan sample`, their defaults, ranges and help."""

    output: str = option("", "The picture to write: a sheet of samples, or with --walk .gif or .png of a walk.")
    count: int = option(64, "Pictures.", lower=1, upper=65536)
    walk: int = option(0, "Steps of a walk from one picture to the next, along an arc; 0: none.", lower=0, upper=1000)
    net: str = option("", "Of several networks: which, by name or by number from 1. Empty: the first.")
    scale: int = option(2, "Each pixel so many pixels wide and high.", lower=1, upper=64)
    seed: int = option(0, "Seed of the noise.", lower=0, upper=_SEEDS - 1)
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")
