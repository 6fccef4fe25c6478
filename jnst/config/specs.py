"""The static halves of what is compiled: what is computed, not what it counts."""

import dataclasses

__all__ = ["DcganSpec", "ObjectiveSpec", "OptimizerConfig", "StyleNetSpec", "TrainConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """The static half of an objective: what is computed, not what it counts."""

    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    pooling: str = "max"
    padding: str = "zeros"
    normalization: str = "relative"
    tv: str = "l2"
    style_loss: str = "gram"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The static half of an optimizer over a canvas."""

    optimizer: str = "lbfgs"
    history: int = 20
    line_search: str = "none"
    preconditioner: str = "fourier"
    beta2: float = 0.0
    normalize: str = "none"
    projection: str = "clip"
    average: bool = False
    last: bool = False
    canvas_scale: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The static half of training a network."""

    steps: int
    optimizer: str = "adam"
    schedule: str = "constant"
    warmup: int = 0
    average_decay: float = 0.999
    hold: float = 0.5
    """Of the schedule `linear`: the share of the steps in which the rate stays."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleNetSpec:
    """The architecture of a stylenet."""

    widths: tuple[int, ...] = (16, 32, 64)
    """Channels at full size, half, a quarter and so on."""
    blocks: int = 4
    """Residual blocks at the smallest size."""
    kernel: int = 5
    """Side of the first and the last convolution's kernels."""
    norm: str = "instance"
    border: str = "reflect"
    upsample: str = "resize"
    head: str = "linear"
    styles: int = 1
    """More than one: a network that is told which."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DcganSpec:
    """The architecture of a DCGAN, both networks."""

    size: int = 32
    """Side of the pictures: 28, 32 or 64."""
    width: int = 64
    """Channels of the largest maps; half the side, twice the channels."""
    latent: int = 100
    """Numbers that a picture is made from."""
    norm: str = "batch"
    """Of the discriminator, one of `config.DISCRIMINATORS`."""
    dropout: float = 0.3
    """The share that it drops, where it does."""
    precision: str = "float32"
    """Of the convolutions; parameters, moments and losses are float32."""
