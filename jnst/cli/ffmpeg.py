"""Films by the programs ffmpeg and ffprobe: what a film holds, its frames out of a pipe, and frames into a new one.

Names go to the programs as `file:` and a whole path, so that none is taken for an option or an address; and they may
open files alone, of the kinds of film that are known here: what calls itself a film may be a list of other places.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jnst import bundled
from jnst.errors import InputError

__all__ = ["FILMS", "WRITABLE", "Audio", "Film", "Reader", "Writer", "check_programs", "probe"]

FILMS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
"""Endings of films that are read."""

_MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}

WRITABLE = tuple(_MUXERS)
"""Endings of films that are written."""

# Audio that is copied as it is; anything else is encoded anew. Of matroska: everything.
_HELD = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
}
_READ = ["-protocol_whitelist", "file", "-format_whitelist", "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,ogg,asf,flv"]
_COLORS = "bt709"  # what players take a film for that does not say
_FASTEST = 1000  # frames a second; what says more is a clock's rate, not a film's


class Audio(NamedTuple):
    """A sound track."""

    stream: int
    codec: str


class Film(NamedTuple):
    """What a file says of its first moving picture."""

    path: str
    rate: Fraction
    """Frames a second. Where it varies, the average."""
    frames: int
    """How many there are to be; 0: the file does not say."""
    untagged: bool
    """Whether it is large, and silent on what its colors mean: they are then those of HD."""
    audio: tuple[Audio, ...]


def check_programs(source: str) -> None:
    """Raises `InputError` where a program is missing that films need; `source` is named."""
    for program in ("ffmpeg", "ffprobe"):
        if shutil.which(program) is None:
            raise InputError(f"{source}: a film is read by the programs ffmpeg and ffprobe; {program} is not on PATH")


def probe(source: str) -> Film:
    """What ffprobe knows of a film.

    Raises:
        InputError: there is no such file, or it is no film.
    """
    if not bundled.is_file(source):
        raise InputError(f"{source}: no such file")
    command = ["ffprobe", "-v", "error", *_READ, "-show_streams", "-show_format", "-of", "json", _place(source)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False)
    if done.returncode:
        raise InputError(f"{source}: cannot be read: {_last(done.stderr, source) or f'exit code {done.returncode}'}")
    try:
        found = json.loads(done.stdout)
        streams, whole = list(found.get("streams", ())), dict(found.get("format", {}))
        moving = [each for each in streams if each.get("codec_type") == "video" and not _is_cover(each)]
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{source}: cannot be read: ffprobe answered no JSON") from error
    if not moving:
        raise InputError(f"{source}: holds no moving picture; expected a film")
    film = moving[0]
    rate = _rate(film.get("avg_frame_rate")) or _rate(film.get("r_frame_rate")) or Fraction(25)
    seconds = _number(film.get("duration")) or _number(whole.get("duration"))
    untagged = film.get("color_space", "unknown") == "unknown" and _number(film.get("height")) >= 720
    audio = [Audio(each["index"], each["codec_name"]) for each in streams if _is_known_audio(each)]
    frames = int(_number(film.get("nb_frames"))) or round(seconds * rate)
    return Film(source, rate, frames, untagged, tuple(audio))


def _is_cover(stream):
    return bool(stream.get("disposition", {}).get("attached_pic"))


def _is_known_audio(stream):
    known = isinstance(stream.get("index"), int) and isinstance(stream.get("codec_name"), str)
    return known and stream.get("codec_type") == "audio"


def _number(text):
    """What a text of ffprobe says, or 0."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return 0.0
    return value if 0 < value < 1e12 else 0.0


def _rate(text):
    """`30000/1001`, or None.

    >>> _rate("30000/1001"), _rate("0/0"), _rate("90000/1")
    (Fraction(30000, 1001), None, None)
    """
    try:
        rate = Fraction(text).limit_denominator(100_000)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return rate if 0 < rate <= _FASTEST else None


def _place(path):
    return f"file:{os.path.abspath(path)}"


def _lines(heard):
    return [line.strip() for line in heard.decode("utf-8", "replace").splitlines() if line.strip()]


def _last(heard, path):
    """The last line that a program said: without addresses, and one of the matter before one of the file's name."""
    lines, place = _lines(heard), _place(path)
    line = next((line for line in reversed(lines) if not line.startswith(place)), lines[-1] if lines else "")
    if "Format not on whitelist" in line:
        return "its content is no film of a kind that is read"
    return re.sub(r"^(\[[^]]* @ 0x[0-9a-f]+\]\s*)+", "", line.removeprefix(f"{place}: ").replace(place, "it"))


class _Program:
    """A running ffmpeg. As a context it leaves no process behind."""

    def __init__(self, arguments: Sequence[str], path: str, **pipes: int):
        self._path = path
        self._heard = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the context
        command = ["ffmpeg", "-y", "-nostdin", "-hide_banner", "-loglevel", "error", *arguments]
        # A session of its own: Ctrl-C is for jnst, which then ends it.
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes}
        self._process = subprocess.Popen(command, stderr=self._heard, start_new_session=True, **streams)

    def __enter__(self):
        return self

    def __exit__(self, *error: object):
        self.stop()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was still to be written has no reader
                    pass
        self._heard.close()

    def stop(self) -> None:
        """Ends the program at once; what waits for its pipes goes on."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """The last line that it said, after its end; empty: none."""
        code = self._process.wait()
        end = "" if code == 0 else f"exit code {code}" if code > 0 else f"ended by signal {-code}"
        return _last(self._all(), self._path) or end

    def _all(self):
        self._heard.seek(0)
        return self._heard.read()


class Reader(_Program):
    """The frames of a film, in its order, `[H, W, 3]` uint8: upright, with square pixels.

    Args:
        film: From `probe`.
        longest: Pixels of the longer side; 0 keeps the film's.
    """

    def __init__(self, film: Film, longest: int = 0):
        # The rate is made even: frames in a pipe have no clock, and players of all kinds like it best.
        width, height = "max(1,round(iw*sar))", "ih"
        if longest:
            share = f"{longest}/max(iw*sar,ih)"
            width, height = f"max(1,round(iw*sar*{share}))", f"max(1,round(ih*{share}))"
        known = f":in_color_matrix={_COLORS}" if film.untagged else ""
        sharp = "flags=lanczos+accurate_rnd+full_chroma_int"
        filters = f"fps={film.rate},scale=w='{width}':h='{height}':{sharp}{known},format=rgb24"
        # As a row of .ppm files, each says how large it is: rotation and shape are left to ffmpeg.
        arguments = [*_READ, "-i", _place(film.path), "-map", "0:V:0", "-vf", filters]
        arguments += ["-c:v", "ppm", "-f", "image2pipe", "pipe:1"]
        super().__init__(arguments, film.path, stdout=subprocess.PIPE)

    def __iter__(self) -> Iterator[np.ndarray]:
        pipe, size, number = self._process.stdout, None, 0
        while True:
            header = [pipe.readline(), pipe.readline(), pipe.readline()]
            if not header[2].endswith(b"\n"):
                return
            width, height = map(int, header[1].split())
            if size not in (None, (height, width)):
                raise InputError(f"{self._path}: changes its size at frame {number + 1}; expected a film of one size")
            size, frame = (height, width), np.empty((height, width, 3), np.uint8)
            if pipe.readinto(memoryview(frame).cast("B")) < frame.size:
                return
            number += 1
            yield frame


class Writer(_Program):
    """Takes frames and makes a film of them, with the sound of the one that they are from.

    Args:
        path: The file to write.
        output: What the user calls it; its ending says what it is.
        size: Height and width of the frames. An odd last row or column is cut off, but of .gif: 4:2:0 halves the sides.
        film: Where rate and sound are from.
    """

    def __init__(self, path: str, output: str, size: tuple[int, int], film: Film):
        muxer = _MUXERS[Path(output).suffix.lower()]
        height, width = size
        arguments = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", str(film.rate)]
        arguments += ["-i", "pipe:0"]
        tracks = film.audio if muxer != "gif" else ()
        if tracks:
            arguments += [*_READ, "-i", _place(film.path)]
        arguments += ["-map", "0:v", *_video(muxer, size), "-map_chapters", "-1"]
        for number, track in enumerate(tracks):
            arguments += ["-map", f"1:{track.stream}", f"-c:a:{number}", _coder(muxer, track.codec)]
        super().__init__([*arguments, "-f", muxer, _place(path)], path, stdin=subprocess.PIPE)
        self._output = output

    def write(self, frames: np.ndarray) -> None:
        """Takes frames `[N, H, W, 3]` uint8.

        Raises:
            InputError: ffmpeg has ended, as it does where the disk is full.
        """
        try:
            self._process.stdin.write(memoryview(np.ascontiguousarray(frames)).cast("B"))
        except OSError as error:
            raise self._failure() from error

    def finish(self) -> None:
        """Waits until the film is whole.

        Raises:
            InputError: it could not be written.
        """
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        # Of a full disk some versions (5.1) tell in a line alone, and end as if all were well.
        named = re.compile(rf"\[out#|.*{re.escape(_place(self._path))}|av_interleaved_write_frame")
        if self._process.wait() or any(map(named.match, _lines(self._all()))):
            raise self._failure()

    def _failure(self):
        return InputError(f"{self._output}: cannot be written: ffmpeg: {self.said() or 'ended early'}")


def _video(muxer, size):
    if muxer == "gif":
        # A palette for each frame: one for all of them would hold the whole film in memory first.
        return ["-vf", "split[a][b];[a]palettegen=stats_mode=single[c];[b][c]paletteuse=new=1"]
    height, width = (max(side // 2 * 2, 2) for side in size)
    cut = f"crop={width}:{height}:0:0" if min(size) > 1 else f"scale={width}:{height}"
    filters = f"{cut},scale=out_color_matrix={_COLORS}:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p"
    told = [f"-{what}" for what in ("colorspace", "color_primaries", "color_trc")]
    options = ["-vf", filters, *(part for name in told for part in (name, _COLORS)), "-color_range", "tv"]
    if muxer == "webm":
        return [*options, "-c:v", "libvpx-vp9", "-crf", "24", "-b:v", "0", "-cpu-used", "4", "-row-mt", "1"]
    options += ["-c:v", "libx264", "-crf", "18"]
    return options if muxer == "matroska" else [*options, "-movflags", "+faststart"]


def _coder(muxer, codec):
    """How a sound track gets into a container: as it is, where that holds it.

    >>> _coder("mp4", "aac"), _coder("mp4", "vorbis"), _coder("webm", "aac"), _coder("matroska", "dts")
    ('copy', 'aac', 'libopus', 'copy')
    """
    if codec in _HELD.get(muxer, {codec}):
        return "copy"
    return "libopus" if muxer == "webm" else "aac"
