"""Every option and every table of choices, in frozen dataclasses. Imports no jax, so that `--help` is instant.

A frozen dataclass is static under `jit`; numbers that a search varies are traced and live in `types`.
"""

from jnst.config.choices import (
    ADVERSARIAL_LOSSES,
    BLOCKS,
    CONVOLUTIONS,
    DISCRIMINATORS,
    HAVE_BETA2,
    HEADS,
    INITS,
    LINE_SEARCHES,
    NORMS,
    OPTIMIZERS,
    PADDINGS,
    POOLINGS,
    PRECISIONS,
    PRESERVE_COLORS,
    PROJECTIONS,
    SCHEDULES,
    SOURCES,
    STYLENET_BORDERS,
    TOGETHER,
    TOTAL_VARIATIONS,
    UPSAMPLES,
)
from jnst.config.dcgan import DCGAN_AXES, DCGAN_SIZES, DcganConfig, DcganSampleConfig, check_dcgan, dcgan_runs
from jnst.config.distill import DistillConfig
from jnst.config.dream import DREAM_AXES, DREAMS, FILMS, DreamConfig, check_dream
from jnst.config.explore import LOOKS, ExploreConfig, check_explore, parse_threshold
from jnst.config.fast import FAST_AXES, ApplyConfig, FastConfig, check_apply, check_fast, fast_runs
from jnst.config.grid import ALONE, NO_AXES, Axis, GridConfig, check_grid, parse_axes, swept
from jnst.config.invert import INVERT_AXES, InvertConfig, check_invert
from jnst.config.layers import LAYERS, convolution_of, halvings_of
from jnst.config.maximize import MAXIMIZE, ROBUST, MaximizeConfig, check_maximize
from jnst.config.options import check, option_line
from jnst.config.picture import PictureConfig
from jnst.config.scales import Scale, check_scales, is_explicit, plan_scales
from jnst.config.specs import DcganSpec, ObjectiveSpec, OptimizerConfig, StyleNetSpec, TrainConfig
from jnst.config.stylize import StylizeConfig, check_config, chosen_layers, parse_rate
from jnst.config.texture import HISTOGRAMS, METHODS, TEXTURE_AXES, TextureConfig, check_texture
from jnst.config.values import join_list, parse_channels, parse_layers, parse_mix, split_list
from jnst.config.weights import WeightsConfig

__all__ = [
    "ADVERSARIAL_LOSSES",
    "DCGAN_AXES",
    "DCGAN_SIZES",
    "DISCRIMINATORS",
    "DcganConfig",
    "DcganSampleConfig",
    "DcganSpec",
    "check_dcgan",
    "dcgan_runs",
    "FAST_AXES",
    "HEADS",
    "NORMS",
    "STYLENET_BORDERS",
    "TOGETHER",
    "UPSAMPLES",
    "ApplyConfig",
    "FastConfig",
    "StyleNetSpec",
    "check_apply",
    "check_fast",
    "fast_runs",
    "ALONE",
    "BLOCKS",
    "CONVOLUTIONS",
    "DREAMS",
    "DREAM_AXES",
    "FILMS",
    "HISTOGRAMS",
    "INITS",
    "INVERT_AXES",
    "LAYERS",
    "LINE_SEARCHES",
    "LOOKS",
    "MAXIMIZE",
    "METHODS",
    "NO_AXES",
    "OPTIMIZERS",
    "PADDINGS",
    "POOLINGS",
    "PRECISIONS",
    "PRESERVE_COLORS",
    "PROJECTIONS",
    "ROBUST",
    "SCHEDULES",
    "SOURCES",
    "TOTAL_VARIATIONS",
    "Axis",
    "HAVE_BETA2",
    "DistillConfig",
    "DreamConfig",
    "InvertConfig",
    "MaximizeConfig",
    "PictureConfig",
    "ExploreConfig",
    "GridConfig",
    "ObjectiveSpec",
    "OptimizerConfig",
    "Scale",
    "StylizeConfig",
    "TEXTURE_AXES",
    "TextureConfig",
    "TrainConfig",
    "WeightsConfig",
    "check",
    "check_config",
    "check_dream",
    "check_invert",
    "check_maximize",
    "check_explore",
    "check_scales",
    "check_texture",
    "check_grid",
    "chosen_layers",
    "convolution_of",
    "halvings_of",
    "is_explicit",
    "join_list",
    "option_line",
    "parse_axes",
    "parse_channels",
    "parse_layers",
    "parse_mix",
    "parse_rate",
    "parse_threshold",
    "plan_scales",
    "split_list",
    "swept",
]
