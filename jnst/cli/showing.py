"""`explore filters` and `explore activations`: what is inside a network, and what it sees in a picture."""

from pathlib import Path

import numpy as np

from jnst import images
from jnst.cli.lines import say
from jnst.cli.looks import Look
from jnst.images import plots
from jnst.tasks import explore as task

__all__ = ["activations", "filters"]

_LONGEST, _TILE = 256, 128
_ACTIVATIONS = "relu3_1"


def filters(look: Look) -> int:
    """A sheet of the first layer's kernels. Returns the exit code."""
    look.check_output()
    kernel = np.asarray(look.backbone.params["conv1_1"]["kernel"], np.float32)  # RGB, whatever the file was trained on
    count = kernel.shape[-1]
    tiles = [(str(channel), plots.enlarged(_around_gray(kernel[..., channel]), 64)) for channel in range(count)]
    name = Path(look.backbone.name).name  # so that the sheet is the same from any folder
    heading = f"conv1_1 of {name}: {count} kernels, gray is 0"
    say(f"{heading}; each in its own range, red, green and blue as they are weighed")
    look.leave(plots.captioned_sheet([(heading, tiles)], side=66), {"kernels": count})
    return 0


def _around_gray(values):
    """Values between -largest and largest to [0, 1], 0 to the middle."""
    largest = np.abs(values).max()
    return 0.5 + 0.5 * values / (largest if largest > 0 else 1)


def activations(look: Look) -> int:
    """A sheet of a picture's feature maps, the strongest first. Returns the exit code."""
    (name,) = look.pictures
    picture = look.load(name)
    longest = look.config.size or min(_LONGEST, max(picture.size))
    picture = images.resize(picture, images.fit(picture.size, longest))
    layers = look.layers(_ACTIVATIONS)
    look.check_size(min(picture.size), f"{name} at {picture.size[0]}x{picture.size[1]}", layers)
    look.check_output()
    maps = task.feature_maps(
        look.backbone.params,
        picture.opaque(),
        layers,
        pooling=look.config.pooling,
        padding=look.backbone.padding,
    )
    sections, results = [("the picture", [(Path(name).name, picture.opaque())])], {}
    for layer in layers:
        found = np.asarray(maps[layer], np.float32)
        heading, tiles, results[layer] = _strongest(layer, found, look.config.channels)
        say(heading)
        sections.append((heading, tiles))
    look.leave(plots.captioned_sheet(sections, side=_TILE, columns=8), results)
    return 0


def _strongest(layer, maps, most):
    """Heading, tiles and record of a layer's maps `[h, w, c]`, by the mean of their magnitude."""
    height, width, count = maps.shape
    strengths = np.abs(maps).mean((0, 1), dtype=np.float64)
    order = np.argsort(-strengths, kind="stable")[:most]
    silent = int((strengths == 0).sum())
    tiles = [(f"{channel}: {strengths[channel]:.3g}", _gray(maps[..., channel])) for channel in order]
    shown = "all shown" if len(order) == count else f"the {len(order)} strongest shown"
    quiet = f", {silent} silent" if silent else ""
    heading = f"{layer}: {count} channels of {width}x{height}{quiet}, {shown} (channel: mean)"
    strongest = [{"channel": int(channel), "mean": float(f"{strengths[channel]:.6g}")} for channel in order]
    return heading, tiles, {"channels": count, "size": [width, height], "silent": silent, "strongest": strongest}


def _gray(values):
    """One map in its own range, `[h, w, 3]`: black is 0 after a rectifier, else gray is."""
    shown = _around_gray(values) if values.min() < 0 else values / (values.max() or 1)
    return plots.enlarged(np.repeat(shown[..., None], 3, -1), _TILE)
