"""`fast apply` of a film: frames, sound, shape, what is damaged or missing, and Ctrl-C."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cli.command import assert_one_line, listed, read_until
from jnst import api
from jnst.cli import fast, ffmpeg, filmed
from jnst.cli.brush import bytes_of
from jnst.cli.command import guard
from jnst.cli.interrupt import Interrupt
from jnst.config import ApplyConfig, StyleNetSpec
from jnst.errors import InputError
from jnst.nets import stylenet
from jnst.tasks.fast import painting
from jnst.weights import stylenets

HAVE = shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None
with_ffmpeg = pytest.mark.skipif(not HAVE, reason="films need the programs ffmpeg and ffprobe, which are not here")
SPEC = StyleNetSpec(widths=(4, 8), blocks=1)
ONE = np.ones(1, np.float32)


@pytest.fixture(scope="module")
def net_file(tmp_path_factory):
    """A network whose pictures are far from the photos, and smooth: films have half the colors' resolution."""
    variables = jax.device_get(stylenet.init(jax.random.key(1), SPEC))
    last = variables["params"]["last"]
    variables["params"]["last"] = np.broadcast_to(3 * last.mean((0, 1)), last.shape)
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    stylenets.save(path, variables, spec=SPEC, styles=("one",), record={})
    return str(path)


@pytest.fixture
def call(net_file, here):
    """The command's part for films, in this process, in an empty folder."""
    for path in list(here.iterdir()):
        path.unlink()
    net = stylenets.load(net_file)

    def call(source, output, **options):
        interrupt = Interrupt()
        with interrupt:
            work = lambda: filmed.run(net, ApplyConfig(**options), source, output, ONE, interrupt)  # noqa: E731
            return guard(work, interrupt.said)

    return call


def ff(*arguments, **options):
    command = ["ffmpeg", "-y", "-loglevel", "error", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60, **options).stdout


def frames_of(count, height=24, width=32):
    """Smooth pictures that move, `[count, H, W, 3]` uint8."""
    t, y, x = np.mgrid[:count, :height, :width]
    planes = [np.sin(x / 12 + t * 0.9), np.cos(y / 11 - t * 0.7), np.sin((x + y) / 16 + t * 0.5)]
    return np.rint(127 + 90 * np.stack(planes, -1)).astype(np.uint8)


def make(path, frames, *more, rate="10", codec=("-c:v", "ffv1", "-pix_fmt", "bgr0")):
    """A film of these frames, exact where `codec` is the usual one; `more` are further inputs and options."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-framerate", rate, "-i", "pipe:0"]
    ff(*given, *more, *codec, str(path), input=frames.tobytes())


H264 = ("-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv420p", "-g", "2", "-bf", "0", "-movflags", "+faststart")
SINE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=1")


def told(path, kind="v"):
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", kind, "-show_streams", "-count_frames", "-of", "json", path],
        check=True,
        capture_output=True,
    )
    return json.loads(done.stdout)["streams"]


def seconds_of(path):
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path]
    return float(subprocess.check_output(command))


def decoded(path):
    film = told(path)[0]
    data = ff("-i", path, "-map", "0:v", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")
    return np.frombuffer(data, np.uint8).reshape(-1, film["height"], film["width"], 3)


def psnr(one, other):
    assert one.shape == other.shape
    return -10 * np.log10(np.mean((one / 255.0 - other / 255.0) ** 2) + 1e-12)


def painted(net_file, frames, **options):
    photos = frames.astype(np.float32) / 255
    return np.asarray(painting.paint(stylenets.load(net_file).variables, photos, ONE, SPEC, **options)) * 255


@with_ffmpeg
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"strength": 0.5}, {"preserve_color": "luminance"}])
def test_each_frame_is_what_the_network_paints_of_it(call, net_file, capsys, options):
    source = frames_of(7, 25, 33)
    make("in.mkv", source, rate="30000/1001")
    assert call("in.mkv", "out.mp4", frames_at_once=3, **options) == 0
    film = told("out.mp4")[0]
    assert (film["nb_read_frames"], film["avg_frame_rate"], film["color_space"]) == ("7", "30000/1001", "bt709")
    assert (film["codec_name"], film["width"], film["height"], film["pix_fmt"]) == ("h264", 32, 24, "yuv420p")
    expected, found = painted(net_file, source, **options)[:, :24, :32], decoded("out.mp4")
    assert psnr(source[:, :24, :32], expected) < 25
    for number in range(7):
        assert psnr(found[number], expected[number]) > 30
        assert all(psnr(found[number], expected[other]) < 26 for other in range(7) if other != number)
    captured = capsys.readouterr()
    assert captured.out.startswith("in.mkv: 7 frames, 29.97 a second, 33x25\n")
    assert "out.mp4: 7 frames of 33x25, " in captured.out
    assert captured.err == ""
    assert listed(Path()) == ["in.mkv", "out.mp4"]


@with_ffmpeg
@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "codec", "output", "found"),
    [
        ("in.mp4", "aac", "out.mp4", "aac"),
        ("in.mp4", "aac", "out.mkv", "aac"),
        ("in.mkv", "pcm_s16le", "out.mp4", "aac"),
        ("in.mp4", "aac", "out.webm", "opus"),
    ],
)
def test_the_sound_goes_along(call, source, codec, output, found):
    make(source, frames_of(10), *SINE, "-c:a", codec, codec=H264)
    assert call(source, output) == 0
    (sound,) = told(output, "a")
    assert sound["codec_name"] == found
    assert told(output)[0]["nb_read_frames"] == "10"
    if found == codec:  # not a bit of it is another
        one, other = (ff("-i", name, "-map", "0:a", "-c", "copy", "-f", "md5", "-") for name in (source, output))
        assert one == other
    length = len(ff("-i", output, "-map", "0:a", "-f", "s16le", "-ac", "1", "-ar", "1000", "pipe:1")) / 2000
    assert length == pytest.approx(1, abs=0.08)


@with_ffmpeg
@pytest.mark.slow
def test_a_turned_film_is_painted_upright(call, net_file):
    source = frames_of(3)
    make("raw.mp4", source, codec=H264)
    ff("-i", "raw.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", "in.mp4")
    before = told("in.mp4")[0]
    assert before["side_data_list"][0]["rotation"] in (90, -90)
    assert call("in.mp4", "out.mp4") == 0
    film = told("out.mp4")[0]
    assert (film["width"], film["height"], film.get("side_data_list")) == (24, 32, None)
    turns = 1 if before["side_data_list"][0]["rotation"] == 90 else -1
    expected = painted(net_file, np.rot90(source, turns, (1, 2)))
    assert psnr(decoded("out.mp4"), expected) > 30


@with_ffmpeg
@pytest.mark.slow
def test_size_and_shape_of_pixels(call):
    make("in.mkv", frames_of(3, 24, 20), "-vf", "setsar=2/1")
    assert call("in.mkv", "wide.mkv") == 0
    assert call("in.mkv", "small.gif", size=25) == 0
    sizes = [(told(name)[0]["width"], told(name)[0]["height"]) for name in ("wide.mkv", "small.gif")]
    assert sizes == [(40, 24), (25, 15)]


@with_ffmpeg
@pytest.mark.slow
def test_gif_to_gif(call, net_file):
    make("in.gif", frames_of(5), codec=())
    assert filmed.is_film("in.gif", "out.gif")
    assert call("in.gif", "out.gif") == 0
    expected, found = painted(net_file, decoded("in.gif")), decoded("out.gif")
    assert found.shape == (5, 24, 32, 3)
    assert psnr(found, expected) > 22  # 256 colors


@with_ffmpeg
@pytest.mark.slow
def test_a_rate_that_varies_becomes_even_over_the_same_time(call):
    make("in.mkv", frames_of(10), "-vf", "setpts='(N+5*gte(N,5))/10/TB'", "-fps_mode", "vfr")
    assert told("in.mkv")[0]["nb_read_frames"] == "10"
    assert call("in.mkv", "out.mkv", strength=0.0) == 0
    seconds = [
        float(
            subprocess.check_output(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", n])
        )
        for n in ("in.mkv", "out.mkv")
    ]
    assert seconds == pytest.approx([1.5, 1.5], abs=0.11)
    last = decoded("out.mkv")[-1]
    assert psnr(last, frames_of(10)[-1]) > 30


@with_ffmpeg
@pytest.mark.slow
def test_names_are_never_options_or_patterns(call):
    make("in.mkv", frames_of(2))
    os.rename("in.mkv", "-y %d:'x'.mkv")
    assert call("-y %d:'x'.mkv", "-i %03d.mp4") == 0
    assert listed(Path()) == ["-i %03d.mp4", "-y %d:'x'.mkv"]
    assert told("file:-i %03d.mp4")[0]["nb_read_frames"] == "2"


@with_ffmpeg
@pytest.mark.slow
def test_of_a_cut_film_the_frames_that_are_left_are_painted_and_that_is_said(call, capsys):
    make("whole.mp4", frames_of(10), codec=H264)
    data = Path("whole.mp4").read_bytes()
    Path("cut.mp4").write_bytes(data[: int(len(data) * 0.7)])
    assert call("cut.mp4", "out.mp4") == 0
    count = int(told("out.mp4")[0]["nb_read_frames"])
    assert 3 < count < 9
    err = capsys.readouterr().err
    assert_one_line(err, "cut.mp4: damaged (", "partial file", f"{count} of 10 frames")
    assert "0x" not in err.split("offset")[0]


@with_ffmpeg
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no header", "noise", "list", "sound", "absent"])
def test_what_is_no_film_is_one_line_and_nothing_is_written(call, capsys, kind):
    words = {
        "no header": ["bad.mp4: cannot be read: moov atom not found"],
        "noise": ["bad.mp4: cannot be read: "],
        "list": ["bad.mp4: cannot be read: its content is no film of a kind that is read"],
        "sound": ["bad.mp4: holds no moving picture"],
        "absent": ["bad.mp4: no such file"],
    }[kind]
    if kind == "no header":
        make("whole.mp4", frames_of(10), codec=H264[:-2])
        Path("bad.mp4").write_bytes(Path("whole.mp4").read_bytes()[:3000])
    elif kind == "noise":
        Path("bad.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "list":
        make("part.ts", frames_of(3), codec=H264[:-2])
        Path("bad.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\npart.ts\n#EXT-X-ENDLIST\n")
    elif kind == "sound":
        ff(*SINE, "-c:a", "aac", "bad.mp4")
    Path("out.mp4").write_text("before")
    before = listed(Path())
    assert call("bad.mp4", "out.mp4") == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(Path()) == before
    assert Path("out.mp4").read_text() == "before"


@with_ffmpeg
@pytest.mark.slow
def test_a_film_that_changes_its_size_keeps_that_of_its_first_frame(call):
    for name, frames in (("a.ts", frames_of(10)), ("b.ts", frames_of(10, 36, 48))):
        make(name, frames, codec=H264[:-2])
    Path("in.mp4").write_bytes(Path("a.ts").read_bytes() + Path("b.ts").read_bytes())
    assert call("in.mp4", "out.mp4") == 0
    film = told("out.mp4")[0]
    assert (film["width"], film["height"]) == (32, 24)
    assert int(film["nb_read_frames"]) >= 19


@with_ffmpeg
@pytest.mark.slow
def test_where_the_film_cannot_be_written_ffmpegs_reason_is_said(call, capsys, monkeypatch, tmp_path):
    make("in.mkv", np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8))
    # The real program, under a limit on how large files may become.
    wrapper = tmp_path / "limited" / "ffmpeg"
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 4\nexec {shutil.which('ffmpeg')} \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert call("in.mkv", "out.mkv", frames_at_once=2) == 2
    assert_one_line(capsys.readouterr().err, "out.mkv: cannot be written: ffmpeg: ", "File too large")
    assert listed(Path()) == ["in.mkv", "limited/ffmpeg"]


@with_ffmpeg
@pytest.mark.parametrize("ending", ["mkv", "mp4", "gif"])
def test_a_full_disk_is_one_line(ending):
    output = f"out.{ending}"
    with ffmpeg.Writer("/dev/full", output, (32, 32), ffmpeg.Film("in.mkv", 10, 8, False, ())) as writer:
        writer.write(frames_of(8, 32, 32))
        with pytest.raises(InputError, match=rf"^{output}: cannot be written: ffmpeg: .*") as found:
            writer.finish()
    assert "/dev/full" not in str(found.value)


@with_ffmpeg
@pytest.mark.slow
def test_fewer_frames_at_once_where_memory_is_short_and_a_line_where_there_is_none(call, capsys, monkeypatch):
    make("in.mkv", frames_of(5))
    monkeypatch.setattr(api, "room", lambda device: 2 * bytes_of((24, 32), SPEC) + 5)
    assert call("in.mkv", "out.mkv") == 0
    assert "2 frames at once: there is memory for no more" in capsys.readouterr().out
    assert told("out.mkv")[0]["nb_read_frames"] == "5"
    monkeypatch.setattr(api, "room", lambda device: 1000)
    assert call("in.mkv", "none.mkv") == 2
    assert_one_line(capsys.readouterr().err, "in.mkv: a frame of 32x24 needs more memory", "smaller --size")
    assert listed(Path()) == ["in.mkv", "out.mkv"]


@with_ffmpeg
@pytest.mark.slow
def test_a_network_that_overflows_is_one_line(call, net_file, capsys, here):
    net = stylenets.load(net_file)
    variables = jax.tree.map(lambda array: array * np.float32(1e38), dict(net.variables))
    stylenets.save("wild.safetensors", variables, spec=SPEC, styles=("one",), record={}, dtype="float32")
    make("in.mkv", frames_of(9))
    code = fast.main(["fast", "apply", "wild.safetensors", "in.mkv", "out.mkv", "--frames_at_once=2"])
    assert code == 2
    assert_one_line(capsys.readouterr().err, "gives numbers that are not finite")
    assert listed(here) == ["in.mkv", "wild.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["ffmpeg", "ffprobe"])
def test_without_ffmpeg_one_line_says_so(call, capsys, monkeypatch, tmp_path, missing):
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in {"ffmpeg", "ffprobe"} - {missing}:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    Path("in.mp4").write_text("a film")
    assert call("in.mp4", "out.mp4") == 2
    assert_one_line(capsys.readouterr().err, f"in.mp4: a film is read by the programs ffmpeg and ffprobe; {missing} is")
    assert not Path("out.mp4").exists()


@pytest.mark.parametrize(
    ("output", "options", "words"),
    [
        ("out.png", {}, "out.png: of a film; expected an ending of .mp4, "),
        ("out.mp4", {"tile": "256"}, "--tile=256: frames of a film are painted whole"),
        ("out.mp4", {"bit_depth": 16}, "--bit_depth=16: films have 8 bits"),
    ],
)
def test_what_cannot_be_asked_for(call, capsys, output, options, words):
    assert call("in.mp4", output, **options) == 2
    assert_one_line(capsys.readouterr().err, words)


@with_ffmpeg
@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("in.mkv", "in.mkv: is the film that is read"),
        ("folder.mp4", "jnst: folder.mp4: is a folder"),
        ("in.mkv/out.mp4", "jnst: in.mkv/out.mp4: cannot be written"),
    ],
)
def test_where_no_film_can_be_written(call, capsys, output, words):
    make("in.mkv", frames_of(2))
    os.mkdir("folder.mp4")
    before = Path("in.mkv").read_bytes()
    assert call("in.mkv", output) == 2
    assert_one_line(capsys.readouterr().err, words)
    assert Path("in.mkv").read_bytes() == before


def programs_with(text):
    """Command lines of processes that name `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        found += [line] if text in line and line.startswith("ffmpeg") else []
    return found


@with_ffmpeg
@pytest.mark.slow
@pytest.mark.parametrize("end", ["ctrl-c", "twice", "kill"])
def test_ctrl_c_leaves_nothing_and_no_program(call, net_file, here, end):
    # Written into a pipe, a film does not say how long it is.
    long = ("-f", "lavfi", "-i", "testsrc=size=64x64:rate=25:duration=1000", "-c:v", "libx264", "-preset", "ultrafast")
    Path("in.mkv").write_bytes(ff(*long, "-f", "matroska", "pipe:1"))
    command = [sys.executable, "-P", "-m", "jnst.cli.fast", "apply", net_file, "in.mkv", "out.mp4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        read_until(process.stdout, "in.mkv: an unknown number of frames, 25 a second, 64x64")
        read_until(process.stdout, "frame ")
        assert len(programs_with(str(here))) == 2
        process.send_signal(signal.SIGKILL if end == "kill" else signal.SIGINT)
        if end == "twice":
            read_until(process.stderr, "jnst: stopping after this step")
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    for _ in range(100):  # of a killed one the pipes end
        if not programs_with(str(here)):
            break
        time.sleep(0.1)
    assert programs_with(str(here)) == []
    if end == "kill":
        assert listed(here)[0].startswith(".out.mp4.")
        make("in.mkv", frames_of(2))
        assert call("in.mkv", "out.mp4") == 0  # and sweeps
        assert listed(here) == ["in.mkv", "out.mp4"]
        return
    assert process.returncode == 130
    assert listed(here) == ["in.mkv"]
    *first, last = err.splitlines()
    assert first == ["jnst: stopping after this step; Ctrl-C again stops at once"] * (end == "ctrl-c")
    assert re.fullmatch(
        r"jnst: interrupted( after frame \d+)?; out\.mp4 is not written, and a film does not resume", last
    ), last


def test_what_is_a_film():
    assert [filmed.is_film(f"a{ending}", "b.mp4") for ending in ffmpeg.FILMS] == [True] * len(ffmpeg.FILMS)
    assert not filmed.is_film("a.gif", "b.jpg")
    assert filmed.is_film("A.MP4", "b.jpg")
