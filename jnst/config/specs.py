"""The static halves of what is compiled: what is computed, not what it counts."""

import dataclasses

__all__ = [
    "DcganSpec",
    "ObjectiveSpec",
    "OptimizerConfig",
    "PatchSpec",
    "ResnetSpec",
    "StyleNetSpec",
    "TrainConfig",
    "UnetSpec",
]


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnetSpec:
    """The architecture of pix2pix's generator."""

    levels: int = 8
    """Halvings of the side: of 256 pixels eight, down to one."""
    width: int = 64
    """Channels of the largest maps; half the side, twice the channels, up to eight times as many."""
    norm: str = "instance"
    """One of `config.NORMS`."""
    dropout: float = 0.5
    """The share that is dropped of the innermost maps, which is the noise."""
    precision: str = "float32"
    """Of the convolutions; parameters, moments and losses are float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResnetSpec:
    """The architecture of CycleGAN's generators."""

    blocks: int = 9
    """Residual blocks at a quarter of the side."""
    width: int = 64
    """Channels of the largest maps; half the side, twice the channels."""
    norm: str = "instance"
    upsample: str = "resize"
    """One of `config.UPSAMPLES`."""
    precision: str = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchSpec:
    """The architecture of a PatchGAN."""

    layers: int = 3
    """Convolutions with stride 2; 0: a network that sees each pixel by itself."""
    width: int = 64
    channels: int = 3
    """Of its input: 6 of a pair of pictures."""
    norm: str = "instance"
    precision: str = "float32"
