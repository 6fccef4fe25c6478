"""What a training of generative networks leaves in its folder, and what of it may be replaced.

`training.json` is the record, `training.flags` the flagfile, `training.ckpt` the checkpoints; `sheet.png`,
`curves.png`, `losses.csv` and `epochs.gif` are for the eye; `sheets/` keeps the sheets on the way that the GIF is made
of; the networks' files are the `Work`'s.
"""

import csv
import dataclasses
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jnst import bundled, files, games, images
from jnst.cli import checkpoint, flags, report, training_checkpoints
from jnst.cli.gan_work import Work, finite
from jnst.cli.lines import warn
from jnst.errors import InputError
from jnst.images import Picture
from jnst.images.curves import curves_plot
from jnst.version import __version__

__all__ = [
    "Circumstances",
    "Sheets",
    "base_of",
    "check_places",
    "leave",
    "save_gif",
    "sweep",
    "write_curves",
    "write_flags",
    "write_table",
]

_TABLE, _CURVES, _SHEET, _GIF, _SHEETS = "losses.csv", "curves.png", "sheet.png", "epochs.gif", "sheets"
_MOST_FRAMES = 200  # of a GIF
_FRAME, _LAST_FRAME = 200, 2000  # milliseconds
_NAME = re.compile(r"\d{6,}\.png")


def base_of(output: str) -> str:
    """The name that record, flagfile and checkpoints are called by, without its ending."""
    return str(Path(output) / "training.gan")


def check_places(work: Work) -> None:
    """Raises `InputError` where a file would be replaced that the command did not write, or that is read."""
    config = work.config
    for name, value in flags.resolved(config).items():
        if name in flags.PATHS and not flags.fits_a_line(value):
            raise InputError(f"--{name}={value!r}: expected a name in UTF-8 without line breaks")
    output = Path(os.path.realpath(config.output))
    sheets = output / _SHEETS
    for name, given in work.folders.items():
        data = Path(os.path.realpath(given))
        if data == output or data in output.parents:
            raise InputError(
                f"--output={config.output}: lies in --{name}={given}, all of whose pictures are trained on; expected "
                "another folder"
            )
        if data == sheets or sheets in data.parents:
            raise InputError(f"--{name}={given}: lies where --output={config.output} keeps its sheets")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output={config.output}: is a file; expected a folder")
    base = base_of(config.output)
    folder = checkpoint.path_of(base)
    if folder.exists() and not training_checkpoints.is_ours(folder):
        raise InputError(f"--output={config.output}: would replace {folder}, which {work.command} did not write")
    ours = _is_ours(work, base)
    networks = [path for net in range(len(work.labels)) for path in work.written(net)]
    others = [output / name for name in (_TABLE, _CURVES, _SHEET, _GIF)]
    beside = [report.record_path(base), report.flags_path(base)]
    read = {os.path.realpath(value) for value in (getattr(config, "weights", ""),) if os.path.exists(value)}
    for path in (*networks, *others, *beside):
        files.check_place(path)
        if os.path.realpath(path) in read:
            raise InputError(f"--output={config.output}: would replace {path}, which is read; expected another name")
        kept = work.is_own(path) if path in networks else ours
        if bundled.is_file(path) and not kept:
            raise InputError(
                f"--output={config.output}: would replace {path}, which {work.command} did not write; expected another "
                "name"
            )
    if sheets.exists() and not ours and not (sheets.is_dir() and not any(sheets.iterdir())):
        raise InputError(f"--output={config.output}: {sheets} holds what {work.command} did not write")


def _mark(work):
    return f"# {work.command} train\n"


def _is_ours(work, base):
    """Whether record and flagfile, those that are there, are this command's; a picture cannot tell whose it is."""
    record, flagfile = report.record_path(base), report.flags_path(base)
    found = []
    try:
        if record.exists():
            found.append(json.loads(record.read_text("utf-8")).get("command") == work.command)
        if flagfile.exists():
            found.append(flagfile.read_text("utf-8").startswith(f"{flags.MARK}\n{_mark(work)}"))
    except (OSError, ValueError, AttributeError):
        return False
    return bool(found) and all(found)


def write_flags(work: Work, chosen: Mapping[str, object]) -> None:
    """Writes the flagfile, which says whose the folder is: before all other files."""
    text = flags.flagfile(dict(chosen)).replace(f"{flags.MARK}\n", f"{flags.MARK}\n{_mark(work)}", 1)
    files.write_atomically(report.flags_path(base_of(work.config.output)), text.encode())


def sweep(work: Work) -> None:
    """Removes the halves of files that a killed run left in its folder; only for one that is alone with it."""
    folder = Path(work.config.output)
    networks = [path for net in range(len(work.labels)) for path in work.written(net)]
    others = [folder / name for name in (_TABLE, _CURVES, _SHEET, _GIF, "training.json", "training.flags")]
    for path in (*networks, *others):
        files.remove_parts(path.parent, re.escape(files.part_prefix(path)))
    files.remove_parts(folder / _SHEETS, r"\.\d{6,}\.png\.")


class Sheets:
    """The sheets on the way, by step, of one output."""

    def __init__(self, output: str):
        self._folder = Path(output) / _SHEETS

    def clear(self, after: int) -> None:
        """Removes those of later steps: the training comes there anew."""
        for path in self._paths():
            if int(path.stem) > after:
                path.unlink()

    def add(self, step: int, picture: Picture) -> None:
        """Keeps one."""
        self._folder.mkdir(exist_ok=True)
        images.save(self._folder / f"{step:06d}.png", picture)

    def write_gif(self, step: int, last: Picture) -> None:
        """Writes the GIF: those that are kept, at most 200 of them, and the last one, which stays for longer."""
        paths = [path for path in self._paths() if int(path.stem) < step]
        if len(paths) > _MOST_FRAMES - 1:
            paths = [paths[int(place)] for place in np.linspace(0, len(paths) - 1, _MOST_FRAMES - 1)]
        frames = [*paths, np.rint(255 * last.rgb).astype(np.uint8)]
        # A sheet is of another size where the number of networks has changed meanwhile.
        save_gif(self._folder.parent / _GIF, frames, [_FRAME] * len(paths) + [_LAST_FRAME])

    def _paths(self):
        found = [path for path in self._folder.glob("*.png") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.stem))


def save_gif(path: str | Path, frames: Sequence[Path | np.ndarray], milliseconds: Sequence[int]) -> None:
    """Writes a GIF that goes round, whole or not at all.

    Args:
        path: Where.
        frames: Files, or pictures `[H, W, 3]` uint8, all of one size.
        milliseconds: That each is shown for.
    """

    def opened():
        for frame in frames:
            image = Image.fromarray(frame) if isinstance(frame, np.ndarray) else Image.open(frame).convert("RGB")
            # Of each frame its own 256 colors: Pillow's own choice is one table for all of them.
            yield image.quantize(256, Image.Quantize.MEDIANCUT)

    rest = opened()
    with files.replacing(path) as temporary:
        next(rest).save(temporary, "GIF", save_all=True, append_images=rest, duration=list(milliseconds), loop=0)


def write_table(work: Work, rows: Sequence[Mapping[str, float]], times: Mapping[int, float]) -> None:
    """Writes the CSV: a row for each network at each step of the trace."""
    text = io.StringIO()
    several = len(work.labels) > 1
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "epoch", *(["network"] if several else []), *work.terms, "seconds"])
    for row in rows:
        label = [work.labels[row["net"]]] if several else []
        numbers = [f"{row[term]:.6g}" for term in work.terms]
        writer.writerow([row["step"], row["epoch"], *label, *numbers, times.get(row["step"], "")])
    files.write_atomically(Path(work.config.output) / _TABLE, text.getvalue().encode())


def write_curves(work: Work, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes the picture of losses and accuracies over the steps."""
    images.save(Path(work.config.output) / _CURVES, Picture(curves_plot(work.panels(rows))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the record says of a training beside its result."""

    chosen: dict[str, object]
    inputs: dict[str, str]
    devices: Sequence[jax.Device]
    rows: Sequence[Mapping[str, float]]
    """Of the trace, and of the last step where it has none there."""
    times: Mapping[int, float]
    troubles: Mapping[str, str]
    seconds: float
    interrupted: bool


def leave(work: Work, result: games.Result, sheets: Sheets, known: Circumstances) -> bool:
    """Writes every network whose numbers are finite, and all that stands beside them. Returns whether all are."""
    config, saved, diverged = work.config, [], []
    whole = [finite(found) for found in result.variables]
    # What was cut short is not measured: whoever stops a training wants it to stop.
    scores = {} if known.interrupted or not any(whole) else work.scores(result.variables)
    for net, found in enumerate(result.variables):
        named = work.labels[net] or work.command
        if not whole[net]:
            warn(f"{work.written(net)[0]}: not written: its numbers are not finite; expected a smaller --learning_rate")
            diverged.append(named)
            continue
        work.save(net, found, _record_of(work, known, net, result.step))
        saved.append(named)
    picture = work.sheet(result.variables)
    images.save(Path(config.output) / _SHEET, picture)
    sheets.write_gif(result.step, picture)
    write_table(work, known.rows, known.times)
    write_curves(work, known.rows)
    device = known.devices[0]
    record = {
        "version": __version__,
        "command": work.command,
        "device": f"{device.platform} ({device.device_kind}) x {len(known.devices)}",
        "inputs": known.inputs,
        **work.facts(),
        "networks": [label or work.command for label in work.labels],
        "saved": saved,
        "distances": scores,
        "trouble": dict(known.troubles),
        "flags": known.chosen,
        "step": result.step,
        "steps": work.steps,
        "epochs": round(result.step / work.an_epoch, 4),
        "stopped": "diverged" if diverged else "interrupted" if known.interrupted else "",
        "trace": [row for row in known.rows if all(map(np.isfinite, row.values()))],
        "seconds": known.seconds,
    }
    # Last: where it stands, all of it does.
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    files.write_atomically(report.record_path(base_of(config.output)), text.encode())
    return not diverged


def _record_of(work, known, net, step):
    """What a network's file says of its training: nothing that changes from run to run; of files the names alone."""
    kept = json.loads(report.embedded(known.chosen, {"name": "", "sha256": ""}))["flags"]
    beside = ("sample_every", "tensorboard", "distance_pictures", "weights", "source")
    return {
        "jnst": __version__,
        **{name: known.inputs[name] for name in work.folders},
        "step": step,
        "flags": {**{name: value for name, value in kept.items() if name not in beside}, **work.own_flags(net)},
    }
