"""The flags of `distill`."""

import dataclasses

from jnst.config.choices import CONVOLUTIONS, PADDINGS, POOLINGS
from jnst.config.options import option
from jnst.config.values import split_list
from jnst.errors import InputError

__all__ = ["DistillConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The flags of `distill`."""

    photos: str = option("", "Folders of pictures to train on, a comma list.")
    teacher: str = option("vgg19", "Weights of the teacher.")
    deep_teacher: str = option("", "Weights of a second teacher, for layers that the first does not have.")
    output: str = option("", "The weights to write: .safetensors.")
    widths: str = option("16,32,64,128,128", "Channels of the student's five blocks.")
    deepest: str = option("relu5_1", "The last layer.")
    pooling: str = option("avg", "Pooling of the student.", choices=POOLINGS)
    teacher_pooling: str = option("max", "Pooling of the teachers.", choices=POOLINGS)
    padding: str = option("replicate", "What stands beyond the border, of all networks.", choices=PADDINGS)
    crop: int = option(128, "Side of the crops in pixels.", lower=16, upper=4096)
    batch: int = option(8, "Crops in a step.", lower=1, upper=4096)
    steps: int = option(10000, "Updates.", lower=1, upper=100_000_000)
    learning_rate: float = option(0.002, "Adam's largest step size.", above=0.0, upper=1e6)
    warmup: int = option(200, "Steps in which the step size rises.", lower=0, upper=100_000_000)
    average_decay: float = option(0.999, "Of the average over the iterates, which is the result.", lower=0.0, upper=1.0)
    gram_weight: float = option(1.0, "Weight of Gram matrices over that of features.", lower=0.0, upper=1e6)
    noise: float = option(0.1, "Largest deviation of the noise on crops.", lower=0.0, upper=1.0)
    noise_share: float = option(0.33, "Share of the crops that get noise.", lower=0.0, upper=1.0)
    pool: int = option(48, "Batches for which the teacher's answers are kept.", lower=1, upper=1_000_000)
    reuse: int = option(8, "Steps that a batch serves on average.", lower=1, upper=1_000_000)
    seed: int = option(0, "Seed of start, crops and noise.", lower=0, upper=2**32 - 1)
    print_every: int = option(100, "Steps between printed losses; 0: none.", lower=0)
    checkpoint_every: int = option(500, "Steps between checkpoints, for --resume; 0: none.", lower=0)
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")

    @property
    def block_widths(self) -> tuple[int, ...]:
        """`widths` as numbers."""
        return tuple(int(width) for width in split_list(self.widths))

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers down to `deepest`, after their rectifiers."""
        return tuple("relu" + name[4:] for name in CONVOLUTIONS[: CONVOLUTIONS.index("conv" + self.deepest[4:]) + 1])

    def check(self) -> None:
        """Raises `InputError` where `widths` or `deepest` are not what they should be."""
        if not self.deepest.startswith("relu") or "conv" + self.deepest[4:] not in CONVOLUTIONS:
            raise InputError(f"--deepest={self.deepest}: expected a layer such as relu5_1")
        widths = split_list(self.widths)
        blocks = int(self.deepest[4])
        if len(widths) < blocks or not all(width.isdecimal() and 0 < int(width) <= 4096 for width in widths):
            raise InputError(f"--widths={self.widths}: expected {blocks} whole numbers from 1 to 4096")
        if self.crop % 2 ** (blocks - 1):
            raise InputError(f"--crop={self.crop}: expected a multiple of {2 ** (blocks - 1)}")
