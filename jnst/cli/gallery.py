"""What a grid's folder shows of its runs: grid.csv, sheet.png and index.html, made from their records."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jnst import images
from jnst.cli import flags, page
from jnst.cli.plan import Entry, labels
from jnst.config import Axis, StylizeConfig, chosen_layers
from jnst.errors import InputError
from jnst.files import check_place, write_atomically
from jnst.images import Picture

__all__ = ["Gallery", "fronts", "losses", "measures"]

_TILE, _SMALL_TILE, _MANY = 256, 128, 100  # the page holds all of them
_TERMS = ("total", "content", "style", "tv")
# What a run may differ in from another while their losses are still measured alike.
_SAME_MEASURE = {
    *("content_weight", "style_weight", "tv_weight", "tv", "seed", "init", "noise_ratio", "noise_width"),
    *("steps", "optimizer", "learning_rate", "history", "line_search", "preconditioner", "projection", "canvas_scale"),
    *("output", "bit_depth", "precision", "device", "print_every", "save_every", "checkpoint_every"),
}


class Gallery:
    """The three files of a grid."""

    def __init__(self, folder: Path, axes: Sequence[Axis], command: str):
        self._folder, self._axes, self._command = folder, axes, command
        self._tiles: dict[str, np.ndarray] = {}
        self._tile_size = _SMALL_TILE if math.prod(len(axis.values) for axis in axes) > _MANY else _TILE

    def check(self) -> None:
        """Before any work.

        Raises:
            InputError: a file of such a name is there that no grid wrote.
        """
        for name, is_ours in (("grid.csv", _is_table), ("sheet.png", _is_sheet), ("index.html", _is_page)):
            path = self._folder / name
            check_place(path)
            if path.exists() and not is_ours(path):
                raise InputError(
                    f"--output={self._folder}: would replace {path}, which no grid wrote; expected another folder"
                )

    def write(self, entries: Sequence[Entry]) -> None:
        """Writes all three anew; runs without a record are shown as not done yet.

        Raises:
            InputError: the disk is full or the folder closed.
        """
        write_atomically(self._folder / "grid.csv", self._table(entries).encode("utf-8", "surrogateescape"))
        axes = [(axis.flag, labels(axis)) for axis in self._axes]
        tiles = [self._tile(entry) for entry in entries]
        sheet = Picture(images.labelled_sheet(axes, tiles, tile=self._tile_size))
        images.save(self._folder / "sheet.png", sheet, _MARK)
        stars, sets = fronts(entries), measures(entries)
        chosen = [
            self._cell(entry, tile, star, number)
            for entry, tile, star, number in zip(entries, tiles, stars, sets, strict=True)
        ]
        text = page.render(
            f"{self._folder.resolve().name}: {len(entries)} runs",
            axes,
            chosen,
            images.encode(sheet, "JPEG"),
            command=self._command,
        )
        write_atomically(self._folder / "index.html", text.encode())

    def _table(self, entries):
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([*_HEAD, *(axis.flag for axis in self._axes), *_TAIL])
        for entry in entries:
            best = entry.record.get("best_terms") or {}
            numbers = ["" if best.get(name) is None else repr(float(best[name])) for name in _TERMS]
            seconds = entry.record.get("run_seconds", "")
            picture = entry.picture.name if _has_picture(entry) else ""
            writer.writerow([entry.name, *entry.texts, *numbers, seconds, picture])
        return buffer.getvalue()

    def _tile(self, entry):
        if not _has_picture(entry):
            return _status(entry) or "no picture"
        if entry.name not in self._tiles:
            try:
                picture = images.load(entry.picture)
            except InputError:  # taken away since
                return "no picture"
            size = images.fit(picture.size, min(self._tile_size, max(picture.size)))
            self._tiles[entry.name] = images.resize(picture, size).opaque()
        return self._tiles[entry.name]

    def _cell(self, entry, tile, star, measure):
        chosen = entry.record.get("flags", {})
        return page.Cell(
            name=entry.name,
            settings=entry.labels,
            status=_status(entry),
            picture=entry.picture.name if _has_picture(entry) else "",
            flags=flags.flagfile(chosen) if chosen else "",
            terms={name: value for name, value in (entry.record.get("best_terms") or {}).items() if value is not None},
            seconds=entry.record.get("run_seconds"),
            trace=entry.record.get("trace", []),
            thumbnail=b"" if isinstance(tile, str) else images.encode(Picture(tile), "JPEG"),
            losses=losses(entry),
            on_front=star,
            measure=measure,
        )


_HEAD, _TAIL = ["run"], [*_TERMS, "seconds", "picture"]
_GENERATOR = '<meta name="generator" content="jnst grid">'  # of page.html.jinja
_MARK = json.dumps({"jnst": "grid"})


def _is_table(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            head = next(csv.reader(file), [])
    except (OSError, csv.Error):
        return False
    return head[:1] == _HEAD and head[-len(_TAIL) :] == _TAIL


def _is_sheet(path):
    return images.text_of(path) == _MARK


def _is_page(path):
    try:
        return _GENERATOR in path.read_text("utf-8")
    except (OSError, ValueError):
        return False


def _has_picture(entry):
    return bool(entry.record) and entry.record["best_step"] >= 0


def _status(entry):
    if not entry.record:
        return "not yet"
    return f"diverged at step {entry.record['diverged']['step']}" if entry.record["stopped"] == "diverged" else ""


def losses(entry: Entry) -> tuple[float, float] | None:
    """Content and style loss of a run's picture without their weights; None where a weight of 0, or having no layer,
    hides one."""
    best, config = entry.record.get("best_terms") or {}, entry.config
    weights = config.content_weight, config.style_weight
    hidden = any(not any(chosen_layers(config, flag)[1]) for flag in ("content_layers", "style_layers"))
    if hidden or not all(weights) or best.get("content") is None:
        return None
    return best["content"] / weights[0], best["style"] / weights[1]


def fronts(entries: Sequence[Entry]) -> list[bool]:
    """Which runs are on a Pareto front of content against style loss, among those that are measured alike.

    Losses of other pictures, layers, networks or sizes are other quantities: each such set has a front of its own.
    """
    sets, found = measures(entries), [False] * len(entries)
    for number in set(sets):
        places = [place for place, one in enumerate(sets) if one == number]
        if len(places) == 1:
            continue  # it has nobody to beat
        for place, star in zip(places, page.front([losses(entries[place]) for place in places]), strict=True):
            found[place] = star
    return found


def measures(entries: Sequence[Entry]) -> list[int]:
    """The number of each run's set: within a set losses are measured alike."""
    numbers: dict[tuple, int] = {}
    return [numbers.setdefault(_measure(entry.config), len(numbers)) for entry in entries]


def _measure(config: StylizeConfig) -> tuple:
    return tuple(sorted((name, str(value)) for name, value in vars(config).items() if name not in _SAME_MEASURE))
