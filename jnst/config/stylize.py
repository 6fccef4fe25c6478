"""The flags of `stylize`."""

import dataclasses

from jnst.config.choices import (
    BORDERS,
    HAVE_BETA2,
    LINE_SEARCHES,
    OPTIMIZERS,
    POOLINGS,
    PRECISIONS,
    PRECONDITIONERS,
    PRESERVE_COLORS,
    PROJECTIONS,
    RESAMPLINGS,
    ROUNDINGS,
    SCALE_FACTORS,
    SOURCES,
    STYLE_FITS,
    STYLE_LOSSES,
    TOTAL_VARIATIONS,
)
from jnst.config.options import check, option
from jnst.config.values import parse_layers, parse_mix
from jnst.errors import InputError
from jnst.normalizations import NORMALIZATIONS

__all__ = ["StylizeConfig", "check_config", "chosen_layers", "parse_rate"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """The flags of `stylize`, their defaults, ranges and help. The command and the library read them here."""

    content: str = option("", "Content image: a file, a folder of them, or the name of a bundled picture.")
    style: str = option("", "Style image, or a comma list of several that are blended.")
    style_mix: str = option("", "Share of each style, such as 0.3,0.7; normalized to sum 1. Empty: equal shares.")
    output: str = option(
        "", "The picture to write: .png, .jpg, .webp, .avif or .tif; a folder, where --content is one."
    )
    bit_depth: int = option(8, "Bits of each channel of the output; 16 in .png and .tif.", choices=(8, 16))
    rounding: str = option("nearest", "How the output's bits are rounded.", choices=ROUNDINGS)
    weights: str = option(
        "mini", "Backbone: mini (bundled), vgg19 (downloaded once), a file, a converted name, or random[:SEED]."
    )
    source: str = option(
        "auto", "What the network of a weights file was fed, where its numbers do not show it.", choices=SOURCES
    )
    size: int = option(512, "Longest side of the output in pixels; 0 keeps the content image's.", lower=0, upper=65535)
    resample: str = option("lanczos", "How pictures are brought to size.", choices=RESAMPLINGS)
    scales: str = option(
        "auto",
        "Sizes to paint in turn, each from the one before: auto (one up to 512 pixels, all above), all (from "
        "--min_size on), a number of them, or sizes with steps, such as 256:100,512:50.",
    )
    scale_factor: str = option("2", "From one size to the next.", choices=SCALE_FACTORS)
    min_size: int = option(256, "The smallest size where --scales names none.", lower=1, upper=65535)
    tile: str = option(
        "auto",
        "Longest side of a tile in pixels, for pictures larger than memory; the same picture. 0: none; auto: as the "
        "memory allows.",
    )
    style_scale: float = option(
        1.0, "Longest side of the style image over that of the output: the scale of the strokes.", above=0.0, upper=64.0
    )
    style_fit: str = option("resize", "How a style image gets its size.", choices=STYLE_FITS)
    steps: int = option(100, "Updates of the canvas, at each of the scales.", lower=1, upper=10_000_000)
    first_steps: int = option(
        0, "Updates at the first scale of several; 0: as many as at the others.", lower=0, upper=10_000_000
    )
    optimizer: str = option("lbfgs", "Optimizer: L-BFGS, or one of optax's.", choices=OPTIMIZERS)
    learning_rate: float = option(
        0.0,
        "Step size, in units of --canvas_scale; of L-BFGS, a factor. 0: the optimizer's own, 1 for lbfgs, "
        "0.03 * canvas_scale for the others.",
        lower=0.0,
        upper=1e6,
    )
    beta2: float = option(
        0.0, "Decay of Adam's second moments, and of its relatives'; 0: the optimizer's own.", lower=0.0, upper=0.999999
    )
    average_decay: float = option(
        0.0,
        "Decay of an average over the iterates, which is then the result, such as 0.99; 0: the best iterate is.",
        lower=0.0,
        upper=0.999999,
    )
    history: int = option(20, "Pairs that L-BFGS remembers.", lower=1, upper=1000)
    line_search: str = option("none", "How L-BFGS finds the length of a step.", choices=LINE_SEARCHES)
    preconditioner: str = option(
        "fourier", "What L-BFGS without a line search takes for granted of the loss.", choices=PRECONDITIONERS
    )
    content_weight: float = option(1.0, "Weight of the content term.", lower=0.0, upper=1e12)
    style_weight: float = option(100.0, "Weight of the style term.", lower=0.0, upper=1e12)
    tv_weight: float = option(10.0, "Weight of the total variation.", lower=0.0, upper=1e12)
    content_layers: str = option(
        "relu4_2",
        "Layers that hold the content, such as conv4_2 (before the rectifier) or relu4_2:0.5 (after it, weight 0.5).",
    )
    style_layers: str = option(
        "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1",
        "Layers whose Gram matrices are the style, such as relu1_1:0.2,relu2_1:0.8. "
        "A layer without a number counts 1 / (number of layers).",
    )
    style_loss: str = option("gram", "What of the style is compared.", choices=STYLE_LOSSES)
    normalization: str = option("relative", "How differences become terms (see the README).", choices=NORMALIZATIONS)
    tv: str = option("l2", "Total variation: absolute or squared differences.", choices=TOTAL_VARIATIONS)
    pooling: str = option("avg", "Pooling between the network's blocks.", choices=POOLINGS)
    padding: str = option(
        "auto", "What stands beyond the picture's border; auto: as the weights have it.", choices=("auto", *BORDERS)
    )
    init: str = option("content", "Start: content, noise, mix, or a picture file.")
    noise_ratio: float = option(0.6, "Share of noise in --init=mix.", lower=0.0, upper=1.0)
    noise_width: float = option(20.0, "Half width of the noise, of 255.", lower=0.0, upper=255.0)
    projection: str = option("clip", "What happens to pixels out of range after each step.", choices=PROJECTIONS)
    canvas_scale: int = option(1, "Unit of the optimized pixels: 1 for [0, 1], 255 for [0, 255].", choices=(1, 255))
    preserve_color: str = option("none", "Keep the content image's colors.", choices=PRESERVE_COLORS)
    seed: int = option(0, "Seed of the noise.", lower=0, upper=2**32 - 1)
    print_every: int = option(
        20, "Steps between printed costs and rows of the trace; 0: the first and last only.", lower=0
    )
    save_every: int = option(0, "Also write OUTPUT-000100.png and so on, every so many steps; 0: never.", lower=0)
    checkpoint_every: int = option(
        50, "Also write OUTPUT's stem + .ckpt, every so many steps, for --resume; 0: never.", lower=0
    )
    precision: str = option("float32", "Arithmetic of the network.", choices=PRECISIONS)
    device: str = option("auto", "auto, cpu, gpu, tpu, or one of several such as gpu:1.")


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
    if config.beta2 and config.optimizer not in HAVE_BETA2:
        raise InputError(f"--beta2={config.beta2:g}: expected 0 with --optimizer={config.optimizer}")
    if config.tile not in ("auto", "0") and not _is_tile(config.tile):
        raise InputError(f"--tile={config.tile}: expected auto, 0, or a whole number from 16 to 65535")
    if config.tile not in ("auto", "0") and config.line_search != "none":
        raise InputError(f"--tile={config.tile}: has no line search; expected --line_search=none, or --tile=0")
    if config.tile not in ("auto", "0") and config.padding == "wrap":
        raise InputError(f"--tile={config.tile}: has no --padding=wrap; expected --tile=0, or another padding")
    if count < 1:
        raise InputError("--style=: expected at least one style image")
    parse_mix(config.style_mix, count)
    for flag in ("content_layers", "style_layers"):
        chosen_layers(config, flag)


def chosen_layers(config: StylizeConfig, flag: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and weights of `content_layers` or `style_layers`; only of the content there may be none.

    >>> chosen_layers(StylizeConfig(content_layers=""), "content_layers")
    ((), ())
    """
    return parse_layers(flag, getattr(config, flag), may_be_empty=flag == "content_layers")


def _is_tile(text):
    return text.isdecimal() and len(text) < 10 and 16 <= int(text) <= 65535


def parse_rate(config: StylizeConfig) -> float:
    """The learning rate, the optimizer's own where none is given."""
    return config.learning_rate or (1.0 if config.optimizer == "lbfgs" else 0.03 * config.canvas_scale)
