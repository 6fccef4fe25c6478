"""What a training of `fast train` leaves: networks, their scores, a sheet of held-out photos and the record; and where
they lie."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import numpy as np

from jnst import bundled, files, images
from jnst.cli import checkpoint, flags, report, training_checkpoints
from jnst.cli.command import DIVERGED, DONE
from jnst.cli.lines import say, warn
from jnst.config import FastConfig, split_list
from jnst.errors import InputError
from jnst.images import Crops, Picture
from jnst.tasks.fast import painting, training
from jnst.types import Params
from jnst.version import __version__
from jnst.weights import Backbone, stylenets

__all__ = ["Learning", "Net", "base_of", "check_places", "leave", "means", "sheet", "sheet_path"]

_SHOWN = 4  # held-out photos on a sheet
_SCORED = 16  # crops of held-out photos
_SIDE = 256  # of a picture on a sheet


class Net(NamedTuple):
    """One of the networks that are trained."""

    config: FastConfig
    path: Path
    label: str
    styles: tuple[str, ...]
    """Names of its styles."""


class Learning(Protocol):
    """What is known of a training."""

    config: FastConfig
    nets: Sequence[Net]
    choices: Sequence[training.Choice]
    spec: training.Spec
    loss: Params
    backbone: Backbone
    devices: Sequence[jax.Device]
    inputs: dict[str, str]
    photos: Sequence[Path]
    unseen: Sequence[Path]
    chosen: dict[str, object]

    def crops(self, stream: int, *, unseen: bool = False, batch: int = 1, zoom: float = 1.0, size: int = 0) -> Crops:
        """A loader of its photos."""


def base_of(config: FastConfig) -> str:
    """The name that what lies beside the networks is called by: OUTPUT, or `training` in it where it is a folder."""
    return str(Path(config.output) / "training.safetensors") if config.axis else config.output


def sheet_path(base: str) -> Path:
    """Where the sheet of held-out photos lies."""
    return Path(base).with_suffix(".jpg")


def check_places(config: FastConfig, nets: Sequence[Net]) -> None:
    """Raises `InputError` where a file would be replaced that no training of `fast` wrote, or that is read."""
    for name, value in flags.resolved(config).items():
        if name in flags.PATHS and not flags.fits_a_line(value):
            raise InputError(f"--{name}={value!r}: expected a name in UTF-8 without line breaks")
    base = base_of(config)
    place = Path(os.path.realpath(base))
    for folder in split_list(config.photos):
        if Path(os.path.realpath(folder)) in place.parents:
            raise InputError(
                f"--output={config.output}: lies in --photos={folder}, all of whose pictures are trained on; expected "
                "another folder"
            )
    beside = (report.record_path(base), report.flags_path(base))
    written = [*(net.path for net in nets), sheet_path(base), *beside]
    places = {os.path.realpath(path) for path in written}
    read = [config.start, config.weights, *(name for net in nets for name in split_list(net.config.style))]
    for name in filter(os.path.exists, read):
        if os.path.realpath(name) in places:
            raise InputError(f"--output={config.output}: would replace {name}, which is read; expected another name")
    folder = checkpoint.path_of(base)
    if folder.exists() and not training_checkpoints.is_ours(folder):
        raise InputError(f"--output={config.output}: would replace {folder}, which fast did not write")
    for path in written:
        files.check_place(path)
        # A sheet cannot tell whose it is; it is replaced where a record or flagfile of ours stands beside it.
        ours = {".safetensors": stylenets.is_stylenet, ".jpg": lambda path: any(map(report.is_ours, beside))}
        if bundled.is_file(path) and not ours.get(path.suffix, report.is_ours)(path):
            raise InputError(
                f"--output={config.output}: would replace {path}, which fast did not write; expected another name"
            )


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The loss terms of several networks or photos, on average over those whose loss is finite, if any."""
    rows = [row for row in rows if np.isfinite(row["total"])] or rows
    return {name: float(np.mean([row[name] for row in rows])) for name in training.TERMS}


def sheet(learning: Learning, variables: Sequence[dict[str, object]]) -> Picture:
    """Held-out photos, one a row, and what each network makes of them, in each of its styles."""
    shown, styles = min(_SHOWN, len(learning.unseen)), learning.spec.net.styles
    photos = np.stack([learning.crops(3, unseen=True, size=_SIDE).batch(index)[0] for index in range(shown)])
    columns = [("photo", photos)]
    for net, found in zip(learning.nets, variables, strict=True):
        for place, mix in enumerate(np.eye(styles, dtype=np.float32)):
            painted = np.asarray(painting.paint(found, photos, mix, learning.spec.net))
            columns.append((net.styles[place] if styles > 1 else net.label, painted))
    tiles = [_finite(pictures[row]) for _, pictures in columns for row in range(shown)]
    rows = [str(number + 1) for number in range(shown)]
    return Picture(images.labelled_sheet([("", [name for name, _ in columns]), ("", rows)], tiles, tile=_SIDE))


def _finite(picture):
    return picture if np.isfinite(picture).all() else "diverged"


def leave(learning: Learning, result: training.Result, seconds: float) -> int:
    """Writes every network whose loss is finite, the sheet and the record. Returns the exit code."""
    config = learning.config
    code, scores = DONE, {}
    photos = np.concatenate([learning.crops(2, unseen=True).batch(index) for index in range(_SCORED)])
    for net, choice, found in zip(learning.nets, learning.choices, result.variables, strict=True):
        found = stylenets.rounded(found)  # what is scored is what is saved
        score = means(training.evaluate(found, learning.loss, choice, photos, learning.spec))
        if not np.isfinite(score["total"]) or not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
            warn(f"{net.path}: not written: its loss is not finite; expected a smaller --learning_rate")
            code = DIVERGED
            continue
        scores[net.path.name] = {name: float(f"{value:.5g}") for name, value in score.items()}
        stylenets.save(
            net.path,
            found,
            spec=learning.spec.net,
            styles=net.styles if learning.spec.net.styles > 1 else ("+".join(net.styles),),
            record=_record_of(learning, net, result, scores[net.path.name]),
            licence=config.licence,
        )
        say(f"{net.path}: held out: " + "  ".join(f"{name} {value:.4g}" for name, value in score.items()))
    base = base_of(config)
    report.write_flags(base, learning.chosen)
    images.save(sheet_path(base), sheet(learning, result.variables))
    device = learning.devices[0]
    record = {
        "version": __version__,
        "device": f"{device.platform} ({device.device_kind}) x {len(learning.devices)}",
        "weights": {"name": learning.backbone.name, "sha256": learning.backbone.sha256},
        "inputs": learning.inputs,
        "photos": {"trained": len(learning.photos), "held_out": len(learning.unseen)},
        "nets": [net.path.name for net in learning.nets],
        "held_out": scores,
        "flags": learning.chosen,
        "stopped": "" if code == DONE else "diverged",
        "trace": [row for row in result.trace if all(map(np.isfinite, row.values()))],
        "seconds": seconds,
    }
    # Last: where it stands, all of it does.
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    files.write_atomically(report.record_path(base), text.encode())
    say(f"{config.output}: {len(scores)} of {len(learning.nets)} written, {seconds:.0f} s; see {sheet_path(base)}")
    return code


def _record_of(learning, net, result, score):
    """What the network's file says of its training: nothing that changes from run to run; of files the names alone."""
    names, weights = split_list(net.config.style), learning.backbone
    kept = json.loads(report.embedded(flags.resolved(net.config), {"name": "", "sha256": ""}))["flags"]
    return {
        "jnst": __version__,
        "weights": {"name": Path(weights.name).name, "sha256": weights.sha256},
        "styles": [{"name": Path(name).name, "sha256": learning.inputs[f"style {name}"]} for name in names],
        "photos": len(learning.photos),
        "steps": result.step,
        "held_out": score,
        "flags": {name: value for name, value in kept.items() if name != "axis"},
    }
