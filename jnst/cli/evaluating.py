"""`pix2pix evaluate`: how near a trained generator's pictures are to those that they should be."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np
import tqdm

from jnst import api, comparisons, files, images
from jnst.cli import translator
from jnst.cli.command import BAD_INPUT, DONE, INTERRUPTED
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import bar_shape, on_terminal, say, warn
from jnst.config import EvaluateConfig, TranslateConfig
from jnst.errors import InputError
from jnst.images import Picture
from jnst.version import __version__

__all__ = ["run"]

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} pairs {remaining} left"
_LEAST = 11  # pixels: structural similarity's window


def run(network: str, pairs: str, config: EvaluateConfig, interrupt: Interrupt) -> int:
    """Prints the measures and writes them as JSON. Returns the exit code.

    Args:
        network: The folder that `pix2pix train` left, or a generator's file.
        pairs: A folder of A|B pictures.
        config: Checked.
        interrupt: Ctrl-C's watcher.

    Raises:
        InputError: something in the input is wrong.
    """
    net = translator.load("pix2pix", network, config.net, "AtoB")
    output = config.output or str(Path(net.path).parent / "evaluation.json")
    files.check_place(output)
    if os.path.exists(output) and not _is_ours(output):
        raise InputError(f"{output}: pix2pix evaluate did not write this file; expected another --output")
    trained = net.record.get("flags", {})
    size = config.size or trained.get("size", 256)
    way = trained.get("direction", "AtoB")
    paths = images.find([pairs], "pairs")
    use = translator.Translator(net, TranslateConfig(noise=config.noise, seed=config.seed, device=config.device))
    interrupt.remains = "; nothing written"
    interrupt.begin()
    made, truth, failed = [], [], 0
    with jax.default_device(api.device_of(config.device)), use.ready():
        bar = tqdm.tqdm(total=len(paths), bar_format=_BAR, **bar_shape()) if on_terminal() else None
        for path in paths:
            if interrupt.seen:
                warn(f"interrupted after {len(made)} of {len(paths)} pairs; nothing written")
                return INTERRUPTED
            try:
                given, target = _pair(path, size, way)
                # In bytes, as it is written and as what it is compared with was read.
                made.append(np.rint(255 * use.paint(given, str(path))).astype(np.uint8))
                truth.append(np.rint(255 * target).astype(np.uint8))
            except InputError as error:
                failed += 1
                warn(f"skipped: {error}")
            if bar is not None:
                bar.update(1)
        if bar is not None:
            bar.close()
    if not made:
        raise InputError(f"{pairs}: none of its {len(paths)} pictures is an A|B picture that can be read")
    found = _measured(made, truth)
    _say(found, len(made), way)
    record = {
        "version": __version__,
        "command": "pix2pix evaluate",
        "network": {"file": os.path.basename(net.path), "sha256": net.sha256, "loss": trained.get("loss")},
        "direction": way,
        "size": size,
        "pictures": len(made),
        "flags": {name: value for name, value in dataclasses.asdict(config).items() if name in ("noise", "seed")},
        **found,
    }
    files.write_atomically(output, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    say(f"{output}: written")
    return BAD_INPUT if failed else DONE


def _is_ours(path):
    try:
        return json.loads(Path(path).read_text("utf-8")).get("command") == "pix2pix evaluate"
    except (OSError, ValueError, AttributeError):
        return False


def _pair(path, size, way):
    """What goes in and what should come out, `[h, w, 3]` in [0, 1], the short side of `size` pixels."""
    rgb = images.load(path).opaque()
    if rgb.shape[1] % 2:
        raise InputError(f"{path}: {rgb.shape[1]} pixels wide; expected A and B side by side, both of the same width")
    halves = [translator.half_of(rgb, half) for half in "AB"]
    height, width = halves[0].shape[:2]
    fitted = tuple(max(_LEAST, round(long * size / min(width, height))) for long in (width, height))
    if fitted[0] * fitted[1] > images.MOST_PIXELS:
        raise InputError(f"{path}: {width}x{height} pixels are too narrow to be {size} on the short side")
    a, b = (images.resize(Picture(half), fitted).rgb for half in halves)
    return (a, b) if way == "AtoB" else (b, a)


def _measured(made, truth):
    floats = lambda pictures: (picture / np.float32(255) for picture in pictures)  # noqa: E731
    pairs = lambda: zip(floats(made), floats(truth), strict=True)  # noqa: E731
    shares = comparisons.histogram_intersection(floats(made), floats(truth))
    found = {
        "l1": np.mean([comparisons.l1(*pair) for pair in pairs()]),
        "ssim": np.mean([comparisons.ssim(*pair) for pair in pairs()]),
        **{f"histogram_{channel}": share for channel, share in shares.items()},
        "chroma": np.mean([_chroma(picture) for picture in floats(made)]),
        "chroma_of_truth": np.mean([_chroma(picture) for picture in floats(truth)]),
    }
    found = {name: float(f"{value:.5g}") for name, value in found.items()}
    palette = comparisons.palette_of(floats(truth))
    if len(palette):
        scores = comparisons.label_scores(floats(made), floats(truth), palette)
        named = {name: getattr(scores, name) for name in ("pixel_accuracy", "class_accuracy", "class_iou")}
        found["labels"] = {"count": len(palette), **{name: float(f"{each:.5g}") for name, each in named.items()}}
    return found


def _chroma(picture):
    """How far from gray its colors are, in CIE L*a*b*."""
    return float(np.hypot(*np.moveaxis(comparisons.lab(picture)[..., 1:], -1, 0)).mean())


def _say(found, count, way):
    say(f"{count} pairs, {way}")
    say(f"  L1 {found['l1']:.4f}  SSIM {found['ssim']:.4f}")
    shares = "  ".join(f"{channel} {found[f'histogram_{channel}']:.3f}" for channel in "Lab")
    say(f"  histogram intersection with the truth: {shares}")
    say(f"  chroma {found['chroma']:.2f}, of the truth {found['chroma_of_truth']:.2f}")
    if "labels" in found:
        labels = dict(found["labels"])
        say(f"  {labels.pop('count')} labels: " + "  ".join(f"{name} {value:.3f}" for name, value in labels.items()))
