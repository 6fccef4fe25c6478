"""The flags that all trainings of generative networks have."""

import dataclasses

from jnst.config.choices import SCHEDULES, TOGETHER
from jnst.config.grid import Axis, swept
from jnst.config.options import check, option
from jnst.config.specs import TrainConfig
from jnst.errors import InputError

__all__ = ["GAN_AXES", "LAST_SEED", "GanConfig", "check_gan", "gan_runs"]

GAN_AXES = ("seed", "learning_rate", "discriminator_learning_rate", "beta1")
"""Flags that are traced, so that their values share one program."""

LAST_SEED = 2**32 - 1
"""The largest: a key takes in 32 bits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GanConfig:
    """How a generator and a discriminator are trained, whatever they are."""

    output: str = option("", "The folder to write: networks, sheets, curves, the record and checkpoints.")
    batch: int = option(1, "Pictures in a step.", lower=1, upper=65536)
    epochs: int = option(200, "Passes over the pictures, where --steps does not say.", lower=1, upper=1_000_000)
    steps: int = option(0, "Updates; 0: as many as the epochs have.", lower=0, upper=100_000_000)
    learning_rate: float = option(2e-4, "Adam's step size.", above=0.0, upper=1e3)
    discriminator_learning_rate: float = option(0.0, "The discriminator's; 0: the same.", lower=0.0, upper=1e3)
    beta1: float = option(0.5, "Decay of Adam's mean gradient.", lower=0.0, upper=0.9999)
    schedule: str = option("constant", "How the step size changes.", choices=SCHEDULES)
    warmup: int = option(0, "Steps in which it rises.", lower=0, upper=100_000_000)
    average_decay: float = option(
        0.0, "Of the average over the generator's iterates, which is the result; 0: the last.", lower=0.0, upper=1.0
    )
    seeds: int = option(1, "So many networks, of seeds from --seed on, trained in one program.", lower=1, upper=4096)
    axis: tuple[str, ...] = option(
        (), "An axis, such as learning_rate=1e-4,2e-4: a network for each value, in the same program. Repeat."
    )
    together: str = option("auto", "How several networks go through that program.", choices=TOGETHER)
    seed: int = option(0, "Seed of the first parameters and of noise; the pictures' order is always the same.", lower=0)
    print_every: int = option(50, "Steps between printed losses and rows of the CSV; 0: each epoch.", lower=0)
    sample_every: int = option(0, "Steps between sheets on the way, always of the same; 0: each epoch.", lower=0)
    checkpoint_every: int = option(500, "Steps between checkpoints, for --resume; 0: none.", lower=0)
    tensorboard: bool = option(
        False,
        "Losses also as TensorBoard's events, in OUTPUT/training.tensorboard (needs the extra jnst[tensorboard]).",
    )
    precision: str = option("float32", "Arithmetic of the convolutions.", choices=("float32", "bfloat16"))
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")

    def updates(self, an_epoch: int) -> int:
        """How many there are, of so many in an epoch.

        >>> GanConfig(epochs=3).updates(10), GanConfig(epochs=3, steps=25).updates(10)
        (30, 25)
        """
        return self.steps or self.epochs * an_epoch

    def training(self, steps: int) -> tuple[TrainConfig, TrainConfig]:
        """The static halves of the generator's and the discriminator's training."""
        own = TrainConfig(steps=steps, schedule=self.schedule, warmup=self.warmup, average_decay=self.average_decay)
        return own, dataclasses.replace(own, average_decay=0.0)


def gan_runs(config: GanConfig) -> tuple[list[Axis], list[GanConfig]]:
    """The axes, none perhaps, and a configuration for each network; the seeds vary fastest.

    >>> [(run.learning_rate, run.seed) for run in gan_runs(GanConfig(axis=("learning_rate=1,2",), seeds=2))[1]]
    [(1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)]
    """
    axes, runs = swept(config, GAN_AXES) if config.axis else ([], [config])
    places = range(config.seeds)
    return axes, [dataclasses.replace(run, axis=(), seeds=1, seed=run.seed + place) for run in runs for place in places]


def check_gan(config: GanConfig, *, needed: tuple[str, ...] = ("data", "output")) -> None:
    """Raises `InputError` for everything that can be wrong before a file is read; `needed`: flags without a default."""
    check(config)
    for name in needed:
        if not getattr(config, name):
            raise InputError(f"--{name} is missing (no arguments at all show an example)")
    axes, runs = gan_runs(config)
    if config.seeds > 1 and "seed" in {axis.flag for axis in axes}:
        raise InputError(f"--seeds={config.seeds}: expected 1 where seed is an axis")
    for run in runs:
        check(run)
        if run.seed > LAST_SEED:
            raise InputError(f"--seed={run.seed}: expected a number not above {LAST_SEED}, with --seeds counted on")
