"""A film that zooms in: what may be asked for, the folder that keeps its frames, and the file that is made of them."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, features

from jnst import bundled, files, images
from jnst.cli import flags, report
from jnst.config import DreamConfig
from jnst.errors import InputError
from jnst.images import Picture

__all__ = ["Frames", "assemble", "check", "enlarged", "frames_folder", "written"]

_STATE = "film.json"
_PROGRAM = "ffmpeg"


def check(config: DreamConfig, given: Sequence[str]) -> None:
    """Raises `InputError` where the film, or what stands beside it, cannot or must not be written; `given` is read."""
    output, ending = config.output, Path(config.output).suffix.lower()
    if config.save_every:
        raise InputError(f"--save_every={config.save_every}: expected 0 with --zoom, which keeps every frame")
    if ending == ".mp4" and shutil.which(_PROGRAM) is None:
        raise InputError(
            f"--output={output}: is made by the program {_PROGRAM}, which is not on PATH; expected .gif or .webp"
        )
    if ending == ".webp" and not features.check("webp"):
        raise InputError(f"--output={output}: this Pillow writes no WEBP; expected .gif or .mp4")
    for name, value in flags.resolved(config).items():
        if name in flags.PATHS and not flags.fits_a_line(value):
            raise InputError(f"--{name}={value!r}: expected a name in UTF-8 without line breaks")
    folder = frames_folder(output)
    beside = written(output)
    places = [os.path.realpath(path) for path in beside]
    for name in filter(os.path.exists, given):
        place = os.path.realpath(name)
        if place in places or Path(place).parent == Path(os.path.realpath(folder)):
            raise InputError(f"--output={output}: would replace {name}, which is read; expected another name")
    for path in (*beside, folder / _STATE):
        files.check_place(path)
    for path in beside:
        if path.suffix in report.OWN_ENDINGS and bundled.is_file(path) and not report.is_ours(path):
            raise InputError(
                f"--output={output}: would replace {path}, which no run of jnst wrote; expected another name"
            )
    if folder.is_dir() and any(folder.iterdir()) and not Frames(output).state:
        raise InputError(f"--output={output}: {folder} holds what no film of jnst wrote; expected another name")


def written(output: str) -> tuple[Path, ...]:
    """The files that a film leaves beside its frames."""
    return Path(output), report.record_path(output), report.flags_path(output)


def frames_folder(output: str) -> Path:
    """OUTPUT's stem + `-frames`: films of one name share their frames, whatever their ending.

    >>> frames_folder("out/dream.gif").as_posix()
    'out/dream-frames'
    """
    path = Path(output)
    return path.with_name(f"{path.stem}-frames")


class Frames:
    """The frames that are there, in a folder beside OUTPUT, and what they are of.

    A frame counts when the folder's `film.json` knows its hash: that is written after it, so that whatever a killed run
    left behind is made again.
    """

    def __init__(self, output: str):
        self.folder = frames_folder(output)
        self.path = self.folder / _STATE
        self.state = self._read()
        """`flags`, `inputs` (hashes by flag), `weights`, `device`, `seconds`, and `frames`: rows with `sha256`."""

    def _read(self):
        try:
            state = dict(json.loads(self.path.read_text("utf-8")))
            rows = state["frames"]
            if not {"flags", "inputs", "seconds"} <= state.keys() or not all("sha256" in row for row in rows):
                return {}
            return {**state, "flags": dict(state["flags"]), "inputs": dict(state["inputs"])}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def frame(self, number: int) -> Path:
        """The file of a frame, from 1."""
        return self.folder / f"{number:06d}.png"

    def whole(self) -> list[dict[str, object]]:
        """The rows of the frames that are there as they were written, from the first one on."""
        rows = []
        for number, row in enumerate(self.state.get("frames", ()), 1):
            path = self.frame(number)
            if not bundled.is_file(path) or files.sha256_of(path) != row["sha256"]:
                break
            rows.append(row)
        return rows

    def begin(self, facts: dict[str, object], rows: list[dict[str, object]]) -> None:
        """Makes the folder one of this film that has these frames, and takes all others away."""
        files.check_writable(self.path)
        self.state = {**facts, "frames": list(rows)}
        self._write()
        files.remove_parts(self.folder, r"\..*\.")
        for left in self.folder.iterdir():
            number = re.fullmatch(r"(\d{6,})\.png", left.name)
            if number and int(number[1]) > len(rows):
                left.unlink(missing_ok=True)

    def add(self, picture: Picture, text: str, row: dict[str, object], seconds: float) -> None:
        """Writes the next frame, then that it is there."""
        path = self.frame(len(self.state["frames"]) + 1)
        images.save(path, picture, text)
        self.state["frames"].append({**row, "sha256": files.sha256_of(path)})
        self.state["seconds"] = round(seconds, 3)
        self._write()

    def _write(self):
        files.write_atomically(self.path, (json.dumps(self.state, indent=1, allow_nan=False) + "\n").encode())

    def load(self, number: int) -> np.ndarray:
        """A frame as it was saved, in 8 bits: `[H, W, 3]` float32 in [0, 1]."""
        return images.load(self.frame(number)).rgb


def enlarged(image: np.ndarray, scale: float) -> np.ndarray:
    """The middle of `[H, W, 3]`, `scale` times as large, at the same size; by Lanczos.

    Its center stays where it is to a fraction of a pixel: whole ones would make the film tremble.

    >>> enlarged(np.full((6, 8, 3), 0.5, np.float32), 1.05).shape
    (6, 8, 3)
    """
    height, width, _ = image.shape
    left, top = (side * (1 - 1 / scale) / 2 for side in (width, height))
    box = left, top, width - left, height - top
    planes = [
        Image.fromarray(np.ascontiguousarray(image[..., channel], np.float32)).resize(
            (width, height), Image.Resampling.LANCZOS, box=box
        )
        for channel in range(3)
    ]
    return np.clip(np.stack([np.asarray(plane, np.float32) for plane in planes], -1), 0, 1)


def assemble(frames: Frames, count: int, config: DreamConfig) -> None:
    """Writes OUTPUT from the first `count` frames, whole or not at all.

    Raises:
        InputError: it cannot be written, or ffmpeg cannot make it.
    """
    with files.replacing(config.output) as temporary:
        if Path(config.output).suffix.lower() == ".mp4":
            _by_ffmpeg(frames.folder, count, config, temporary)
        else:
            _by_pillow([frames.frame(number) for number in range(1, count + 1)], config, temporary)


def _by_pillow(paths, config, temporary):
    as_gif = config.output.lower().endswith(".gif")
    # A GIF has 256 colors, of each frame its own: Pillow's own choice is one table for all of them.
    shown = (lambda frame: frame.quantize(256, Image.Quantize.MEDIANCUT)) if as_gif else (lambda frame: frame)

    def opened():
        for path in paths:
            with Image.open(path) as frame:
                yield shown(frame.convert("RGB"))

    rest = opened()
    more = {} if as_gif else {"quality": 90, "method": 4}
    next(rest).save(
        temporary,
        "GIF" if as_gif else "WEBP",
        save_all=True,
        append_images=rest,
        duration=max(1, round(1000 / config.frame_rate)),
        loop=0,
        **more,
    )


_COLORS = "bt709"  # what players take a film for that does not say


def _by_ffmpeg(folder, count, config, temporary):
    """The names of frames stand in a pattern, where a folder's `%` would count: so they are looked up from within it.

    An odd last row or column is cut off: 4:2:0 halves the sides.
    """
    filters = f"crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0,scale=out_color_matrix={_COLORS}:out_range=tv,format=yuv420p"
    command = [_PROGRAM, "-y", "-nostdin", "-loglevel", "error", "-framerate", repr(float(config.frame_rate))]
    command += ["-start_number", "1", "-i", "%06d.png", "-frames:v", str(count), "-vf", filters]
    command += ["-c:v", "libx264", "-crf", "18", "-colorspace", _COLORS, "-color_primaries", _COLORS]
    command += ["-movflags", "+faststart", "-f", "mp4", os.path.abspath(temporary)]
    with tempfile.TemporaryFile() as heard:
        # A session of its own: Ctrl-C waits for the film, as it does for a picture.
        done = subprocess.run(command, cwd=folder, stdout=heard, stderr=heard, start_new_session=True, check=False)
        heard.seek(0)
        lines = heard.read().decode("utf-8", "replace").split("\n")
    if done.returncode:
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {done.returncode}")
        raise InputError(f"--output={config.output}: {_PROGRAM} failed: {last}; the frames are in {folder}")
