"""Every option and every table of choices, in frozen dataclasses. Imports no jax, so that `--help` is instant.

A frozen dataclass is static under `jit`; numbers that a search varies are traced and live in `types`.
"""

import dataclasses
import math
import numbers
import re
from collections.abc import Iterable, Mapping

from jnst.errors import InputError
from jnst.normalizations import NORMALIZATIONS

__all__ = [
    "BLOCKS",
    "CONVOLUTIONS",
    "INITS",
    "LINE_SEARCHES",
    "OPTIMIZERS",
    "PADDINGS",
    "POOLINGS",
    "PRECISIONS",
    "PRESERVE_COLORS",
    "PROJECTIONS",
    "SCHEDULES",
    "SOURCES",
    "TOTAL_VARIATIONS",
    "DistillConfig",
    "ObjectiveSpec",
    "OptimizerConfig",
    "StylizeConfig",
    "TrainConfig",
    "WeightsConfig",
    "check",
    "check_config",
    "join_list",
    "option_line",
    "parse_layers",
    "parse_mix",
    "parse_rate",
    "split_list",
]

BLOCKS = (2, 2, 4, 4, 4)
"""VGG-19 (Simonyan & Zisserman 2015, configuration E): convolutions in each block; pooling stands between blocks."""

CONVOLUTIONS = tuple(f"conv{block}_{index}" for block, count in enumerate(BLOCKS, 1) for index in range(1, count + 1))
"""Their names, in order."""

POOLINGS = {
    "max": "the largest of 2x2, as VGG was trained",
    "avg": "the mean of 2x2, smoother pictures (Gatys et al. 2016)",
    "l2": "the root of the mean square of 2x2 (Henaff & Simoncelli 2016)",
}
PADDINGS = ("zeros", "reflect", "replicate")
SOURCES = {
    "auto": "what the file's names and numbers show, or an error",
    "caffe": "BGR in 0..255 minus Caffe's mean (vgg19-d01eb7cb.pth, vgg_conv.pth)",
    "torchvision": "RGB in [0, 1] minus a mean, over a deviation (vgg19-dcbb9e9d.pth)",
    "normalised": "RGB in [0, 1], through a first 1x1 layer; borders reflected (vgg_normalised.pth)",
    "slim16x": "RGB in [0, 1], through a first layer conv0; borders reflected (Wang et al. 2020)",
    "keras": "BGR in 0..255 minus Caffe's mean (vgg19_weights_..._notop.h5)",
    "matconvnet": "RGB in 0..255 minus the file's mean (imagenet-vgg-verydeep-19.mat)",
}
"""What a weights file's network was fed; the file's first layer may do it."""
TOTAL_VARIATIONS = {"l1": "sum of |difference|", "l2": "sum of squared difference"}
INITS = {
    "content": "the content image",
    "noise": "the network's mean color plus uniform noise",
    "mix": "noise_ratio * noise + (1 - noise_ratio) * content",
}
PROJECTIONS = {"clip": "to the displayable range after each step", "none": "clipped on saving only"}
LINE_SEARCHES = {
    "none": "whole steps after the first, as neural-style runs L-BFGS",
    "zoom": "optax's search for a step that satisfies the strong Wolfe conditions; several gradients a step",
}
PRESERVE_COLORS = {
    "none": "the style's colors",
    "luminance": "style transfer of luminance only, the content's chroma put back (Gatys et al. 2017)",
    "match": "the style is recolored to the content's mean and covariance first (Gatys et al. 2017)",
}
SCHEDULES = {
    "constant": "after the warm-up, the same",
    "cosine": "after the warm-up, down to 0 along a cosine (Loshchilov & Hutter 2017)",
}
PRECISIONS = {
    "float32": "the default",
    "bfloat16": "features in bfloat16, sums in float32",
    "float64": "for comparing with references",
}

# The names are optax's; the values are arguments that differ from optax's defaults. `lbfgs` has options of its own.
OPTIMIZERS: Mapping[str, Mapping[str, float]] = {
    "adam": {},
    "adabelief": {},
    "adamax": {},
    "amsgrad": {},
    "lbfgs": {},
    "lion": {"weight_decay": 0.0},  # which would pull the picture towards black
    "nadam": {},
    "rmsprop": {},
    "sgd": {"momentum": 0.9},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """The static half of an objective: what is computed, not what it counts."""

    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    pooling: str = "max"
    padding: str = "zeros"
    normalization: str = "relative"
    tv: str = "l2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The static half of an optimizer over a canvas."""

    optimizer: str = "lbfgs"
    history: int = 20
    line_search: str = "none"
    projection: str = "clip"
    canvas_scale: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The static half of training a network."""

    steps: int
    optimizer: str = "adam"
    schedule: str = "constant"
    warmup: int = 0
    average_decay: float = 0.999


def _option(default, help, *, lower=None, upper=None, above=None, choices=None):  # noqa: A002 - absl's word
    metadata = {"help": help, "lower": lower, "upper": upper, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """The flags of `stylize`, their defaults, ranges and help. The command and the library read them here."""

    content: str = _option("", "Content image: a file, a folder of them, or the name of a bundled picture.")
    style: str = _option("", "Style image, or a comma list of several that are blended.")
    style_mix: str = _option("", "Share of each style, such as 0.3,0.7; normalized to sum 1. Empty: equal shares.")
    output: str = _option(
        "", "The picture to write: .png, .jpg, .webp, .avif or .tif; a folder, where --content is one."
    )
    bit_depth: int = _option(8, "Bits of each channel of the output; 16 in .png and .tif.", choices=(8, 16))
    weights: str = _option(
        "mini", "Backbone: mini (bundled), vgg19 (downloaded once), a file, a converted name, or random[:SEED]."
    )
    source: str = _option(
        "auto", "What the network of a weights file was fed, where its numbers do not show it.", choices=SOURCES
    )
    size: int = _option(512, "Longest side of the output in pixels; 0 keeps the content image's.", lower=0, upper=65535)
    style_scale: float = _option(
        1.0, "Longest side of the style image over that of the output: the scale of the strokes.", above=0.0, upper=64.0
    )
    steps: int = _option(100, "Updates of the canvas.", lower=1, upper=10_000_000)
    optimizer: str = _option("lbfgs", "Optimizer: L-BFGS, or one of optax's.", choices=OPTIMIZERS)
    learning_rate: float = _option(
        0.0,
        "Step size, in units of --canvas_scale; of L-BFGS, a factor. 0: the optimizer's own, 1 for lbfgs, "
        "0.03 * canvas_scale for the others.",
        lower=0.0,
        upper=1e6,
    )
    history: int = _option(20, "Pairs that L-BFGS remembers.", lower=1, upper=1000)
    line_search: str = _option("none", "How L-BFGS finds the length of a step.", choices=LINE_SEARCHES)
    content_weight: float = _option(1.0, "Weight of the content term.", lower=0.0, upper=1e12)
    style_weight: float = _option(100.0, "Weight of the style term.", lower=0.0, upper=1e12)
    tv_weight: float = _option(10.0, "Weight of the total variation.", lower=0.0, upper=1e12)
    content_layers: str = _option(
        "relu4_2",
        "Layers that hold the content, such as conv4_2 (before the rectifier) or relu4_2:0.5 (after it, weight 0.5).",
    )
    style_layers: str = _option(
        "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1",
        "Layers whose Gram matrices are the style, such as relu1_1:0.2,relu2_1:0.8. "
        "A layer without a number counts 1 / (number of layers).",
    )
    normalization: str = _option("relative", "How differences become terms (see the README).", choices=NORMALIZATIONS)
    tv: str = _option("l2", "Total variation: absolute or squared differences.", choices=TOTAL_VARIATIONS)
    pooling: str = _option("avg", "Pooling between the network's blocks.", choices=POOLINGS)
    init: str = _option("content", "Start: content, noise, mix, or a picture file.")
    noise_ratio: float = _option(0.6, "Share of noise in --init=mix.", lower=0.0, upper=1.0)
    noise_width: float = _option(20.0, "Half width of the noise, of 255.", lower=0.0, upper=255.0)
    projection: str = _option("clip", "What happens to pixels out of range after each step.", choices=PROJECTIONS)
    canvas_scale: int = _option(1, "Unit of the optimized pixels: 1 for [0, 1], 255 for [0, 255].", choices=(1, 255))
    preserve_color: str = _option("none", "Keep the content image's colors.", choices=PRESERVE_COLORS)
    seed: int = _option(0, "Seed of the noise.", lower=0, upper=2**32 - 1)
    print_every: int = _option(
        20, "Steps between printed costs and rows of the trace; 0: the first and last only.", lower=0
    )
    save_every: int = _option(0, "Also write OUTPUT-000100.png and so on, every so many steps; 0: never.", lower=0)
    checkpoint_every: int = _option(
        50, "Also write OUTPUT's stem + .ckpt, every so many steps, for --resume; 0: never.", lower=0
    )
    precision: str = _option("float32", "Arithmetic of the network.", choices=PRECISIONS)
    device: str = _option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """The flags of `weights`."""

    output: str = _option("", "The file to write: .safetensors by convert, a picture by inspect.")
    source: str = _option("auto", "What a file's network was fed, where its numbers do not show it.", choices=SOURCES)
    url: str = _option("", "For fetch: another address of the same file; its hash is checked as ever.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The flags of `distill`."""

    photos: str = _option("", "Folders of pictures to train on, a comma list.")
    teacher: str = _option("vgg19", "Weights of the teacher.")
    deep_teacher: str = _option("", "Weights of a second teacher, for layers that the first does not have.")
    output: str = _option("", "The weights to write: .safetensors.")
    widths: str = _option("16,32,64,128,128", "Channels of the student's five blocks.")
    deepest: str = _option("relu5_1", "The last layer.")
    pooling: str = _option("avg", "Pooling of the student.", choices=POOLINGS)
    teacher_pooling: str = _option("max", "Pooling of the teachers.", choices=POOLINGS)
    padding: str = _option("replicate", "What stands beyond the border, of all networks.", choices=PADDINGS)
    crop: int = _option(128, "Side of the crops in pixels.", lower=16, upper=4096)
    batch: int = _option(8, "Crops in a step.", lower=1, upper=4096)
    steps: int = _option(10000, "Updates.", lower=1, upper=100_000_000)
    learning_rate: float = _option(0.002, "Adam's largest step size.", above=0.0, upper=1e6)
    warmup: int = _option(200, "Steps in which the step size rises.", lower=0, upper=100_000_000)
    average_decay: float = _option(
        0.999, "Of the average over the iterates, which is the result.", lower=0.0, upper=1.0
    )
    gram_weight: float = _option(1.0, "Weight of Gram matrices over that of features.", lower=0.0, upper=1e6)
    noise: float = _option(0.1, "Largest deviation of the noise on crops.", lower=0.0, upper=1.0)
    noise_share: float = _option(0.33, "Share of the crops that get noise.", lower=0.0, upper=1.0)
    pool: int = _option(48, "Batches for which the teacher's answers are kept.", lower=1, upper=1_000_000)
    reuse: int = _option(8, "Steps that a batch serves on average.", lower=1, upper=1_000_000)
    seed: int = _option(0, "Seed of start, crops and noise.", lower=0, upper=2**32 - 1)
    print_every: int = _option(100, "Steps between printed losses; 0: none.", lower=0)
    checkpoint_every: int = _option(500, "Steps between checkpoints, for --resume; 0: none.", lower=0)
    device: str = _option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")

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


def option_line(name: str, value: object) -> str:
    """A flag as it is written on a command line or in a flagfile."""
    return f"--{name}={value}"


def check(config: object) -> None:
    """Raises `InputError` where a field is not finite, out of its range or not one of its choices."""
    for field in dataclasses.fields(config):
        value, rule = getattr(config, field.name), field.metadata
        kind = type(field.default)
        if not isinstance(value, _KINDS[kind][0]) or isinstance(value, bool):
            raise InputError(f"--{field.name}={value!r}: expected {_KINDS[kind][1]}")
        problem = _range_problem(value, rule)
        if problem:
            raise InputError(f"{option_line(field.name, value)}: expected {problem}")


# The abstract types take in NumPy's scalars.
_KINDS = {int: (numbers.Integral, "a whole number"), float: (numbers.Real, "a number"), str: (str, "text")}


def _range_problem(value, rule):
    if rule["choices"] is not None:
        return None if value in rule["choices"] else "one of " + ", ".join(map(str, rule["choices"]))
    if isinstance(value, numbers.Real) and not math.isfinite(value):
        return "a finite number"
    lower, upper, above = rule["lower"], rule["upper"], rule["above"]
    if above is not None and not value > above:
        return f"a number greater than {above:g}"
    if lower is not None and value < lower:
        return f"a number not below {lower:g}"
    if upper is not None and value > upper:
        return f"a number not above {upper:g}"
    return None


def check_config(config: StylizeConfig, *, count: int) -> None:
    """Everything about a configuration that can be wrong before a file is read; `count` is the number of styles.

    Raises:
        InputError: naming the flag.
    """
    check(config)
    if config.line_search != "none" and config.optimizer != "lbfgs":
        raise InputError(
            f"--line_search={config.line_search}: is L-BFGS's; expected none with --optimizer={config.optimizer}"
        )
    if config.line_search == "zoom" and config.learning_rate:
        raise InputError(f"--learning_rate={config.learning_rate:g}: expected 0, as --line_search=zoom finds the step")
    if count < 1:
        raise InputError("--style=: expected at least one style image")
    parse_mix(config.style_mix, count)
    for flag in ("content_layers", "style_layers"):
        parse_layers(flag, getattr(config, flag))


def split_list(text: str) -> tuple[str, ...]:
    r"""The parts of a comma list; an empty text is an empty list; a comma after a backslash belongs to its part.

    >>> split_list(r"a, b\,c")
    ('a', 'b,c')
    """
    return tuple(part.strip().replace(r"\,", ",") for part in re.split(r"(?<!\\),", text)) if text.strip() else ()


def join_list(parts: Iterable[str]) -> str:
    """The text that `split_list` takes apart into `parts`."""
    return ",".join(part.replace(",", r"\,") for part in parts)


def parse_layers(flag: str, text: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """`"relu3_1:0.2,relu4_1"` -> names and weights; a layer without a number counts 1 / (number of layers).

    Args:
        flag: The flag's name, for the message.
        text: Comma list of `convB_I` or `reluB_I`, each with an optional `:weight`.

    Raises:
        InputError: an unknown layer, a layer named twice, a weight that is negative or no number.

    >>> parse_layers("style_layers", "relu1_1:0.3,relu2_1")
    (('relu1_1', 'relu2_1'), (0.3, 0.5))
    """
    parts = split_list(text)
    if not parts:
        raise InputError(f"--{flag}=: expected at least one layer, such as relu3_1")
    names, weights = [], []
    for part in parts:
        name, colon, number = part.partition(":")
        if name[:4] not in ("conv", "relu") or "conv" + name[4:] not in CONVOLUTIONS:
            raise InputError(f"--{flag}={text}: {name!r} is no layer of VGG-19; expected conv1_1 or relu1_1 to relu5_4")
        if name in names:
            raise InputError(f"--{flag}={text}: {name} is named twice")
        names.append(name)
        weights.append(_non_negative(flag, text, number) if colon else 1 / len(parts))
    return tuple(names), tuple(weights)


def parse_rate(config: StylizeConfig) -> float:
    """The learning rate, the optimizer's own where none is given."""
    return config.learning_rate or (1.0 if config.optimizer == "lbfgs" else 0.03 * config.canvas_scale)


def parse_mix(text: str, count: int) -> tuple[float, ...]:
    """`"0.3,0.7"` -> shares that sum to 1, one for each of `count` styles; an empty text gives equal shares."""
    if not text.strip():
        return (1 / count,) * count
    numbers = [_non_negative("style_mix", text, part) for part in split_list(text)]
    if len(numbers) != count:
        raise InputError(f"--style_mix={text}: expected {count} numbers, one for each style, found {len(numbers)}")
    if not math.isfinite(sum(numbers)) or sum(numbers) <= 0:
        raise InputError(f"--style_mix={text}: expected numbers with a sum above 0")
    return tuple(number / sum(numbers) for number in numbers)


def _non_negative(flag, text, number):
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1e12:  # false for NaN
        raise InputError(f"--{flag}={text}: {number!r} is not a number from 0 to 1e12")
    return value
