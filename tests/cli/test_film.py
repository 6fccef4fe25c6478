"""`dream --zoom`: frames, the film that is made of them, and going on with it."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.command import assert_one_line, listed, read_json, read_until
from jnst import images
from jnst.cli import dream, film
from jnst.cli.filming import loop

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.dream"]
RUN = ["--image=photo.png", "--size=24", "--octaves=2", "--steps=2", "--layers=relu1_2", "--jitter=4", "--zoom=3"]


@pytest.fixture
def call(tiny_file):
    return lambda *arguments: dream.main(["dream", *RUN, f"--weights={tiny_file}", *arguments])


def frames(stem):
    return [path.read_bytes() for path in sorted(Path(f"{stem}-frames").glob("*.png"))]


def test_the_first_frame_is_the_picture_and_the_next_the_dream_of_it_enlarged(here, call, capsys, tiny_file):
    assert call("--output=o.gif") == 0
    out = capsys.readouterr().out
    assert "frame 1/3  activation " in out
    assert "frame 3/3  activation " in out
    assert "0:00 left\n" in out
    assert listed(here) == [
        *[f"o-frames/00000{number}.png" for number in (1, 2, 3)],
        *["o-frames/film.json", "o.flags", "o.gif", "o.json", "painting.png", "photo.png"],
    ]
    assert dream.main(["dream", *RUN, f"--weights={tiny_file}", "--zoom=0", "--output=one.png"]) == 0
    first, second, third = (images.load(f"o-frames/00000{number}.png").rgb for number in (1, 2, 3))
    np.testing.assert_array_equal(first, images.load("one.png").rgb)
    # What a dream adds is less than what is between frames.
    for before, after in ((first, second), (second, third)):
        enlarged = film.enlarged(before, 1.05)
        assert 0 < np.abs(after - enlarged).mean() < 0.1
        assert np.abs(after - enlarged).mean() < np.abs(before[:, ::-1] - enlarged).mean()
    record = read_json("o.json")
    assert [row["frame"] for row in record["trace"]] == [1, 2, 3]
    assert all(row["activation"] > 0 for row in record["trace"])
    assert (record["frames"], record["size"], record["flags"]["zoom_scale"]) == (3, [24, 24], 1.05)
    assert record["inputs"].keys() == {"image", "weights"}
    with Image.open("o.gif") as shown:
        assert (shown.n_frames, shown.size, shown.info["loop"]) == (3, (24, 24), 0)
        assert shown.info["duration"] in (80, 83)
        found = np.asarray(shown.convert("RGB")) / 255
    assert np.abs(found - first).mean() < 0.06  # 256 colors, of noise
    before = (here / "o.gif").read_bytes(), frames("o")
    assert dream.main(["dream", "--flagfile=o.flags", "--output=again.gif"]) == 0
    assert ((here / "again.gif").read_bytes(), frames("again")) == before


def test_enlarging_keeps_the_center_and_scales_about_it():
    height, width = 40, 64
    y, x = np.mgrid[:height, :width] + 0.5
    wave = lambda y, x: 0.5 + 0.2 * np.sin(0.3 * x) + 0.2 * np.cos(0.25 * y)  # noqa: E731
    image = np.repeat(wave(y, x)[..., None], 3, 2).astype(np.float32)
    found = film.enlarged(image, 1.07)
    expected = wave((y - height / 2) / 1.07 + height / 2, (x - width / 2) / 1.07 + width / 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[..., 1], expected, atol=3e-3)
    assert np.abs(image[..., 1] - expected).max() > 0.1


def test_a_film_goes_on_from_its_frames_to_the_same_bytes(here, call, monkeypatch, capsys):
    assert call("--output=whole.gif") == 0
    assert call("--output=o.gif", "--zoom=1") == 0
    capsys.readouterr()

    original, begun = loop.run, []

    def run(prepared, callback):
        begun.append(prepared)

        def seen(record):
            if len(begun) == 2 and record.step == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return callback(record)

        return original(prepared, callback=seen)

    with monkeypatch.context() as patch:
        patch.setattr("jnst.cli.filming.loop.run", run)
        assert call("--output=o.gif", "--resume") == 130  # in the third frame
    captured = capsys.readouterr()
    assert "going on after frame 1\n" in captured.out
    assert "interrupted; 2 of 3 frames are in o-frames, go on with: " in captured.err
    assert "--flagfile=o.flags --resume" in captured.err
    assert len(frames("o")) == 2
    (here / "o-frames/000003.png").write_bytes(b"half a frame")  # as of a kill before it was noted
    assert dream.main(["dream", "--flagfile=o.flags", "--resume"]) == 0
    assert "going on after frame 2\n" in capsys.readouterr().out
    assert ((here / "o.gif").read_bytes(), frames("o")) == ((here / "whole.gif").read_bytes(), frames("whole"))
    assert [row["activation"] for row in read_json("o.json")["trace"]] == [
        row["activation"] for row in read_json("whole.json")["trace"]
    ]
    before = {name: (here / name).stat().st_mtime_ns for name in listed(here)}
    assert call("--output=o.gif", "--resume") == 0
    assert capsys.readouterr().out == "o.gif: finished already, 3 frames\n"
    assert {name: (here / name).stat().st_mtime_ns for name in listed(here)} == before


def test_another_kind_of_film_takes_the_frames_that_are_there(here, call, capsys):
    assert call("--output=o.gif") == 0
    kept = frames("o")
    capsys.readouterr()
    assert call("--output=o.webp", "--resume", "--frame_rate=25", "--zoom=2") == 0
    assert "frame 1/" not in capsys.readouterr().out
    assert frames("o") == kept
    with Image.open("o.webp") as shown:
        assert shown.n_frames == 2
        shown.load()
        assert shown.info["duration"] == 40


def test_a_frame_that_is_damaged_or_gone_is_made_again(here, call):
    assert call("--output=o.gif") == 0
    before = frames("o")
    (here / "o-frames/000002.png").write_bytes(before[0])
    (here / "o.gif").unlink()
    assert call("--output=o.gif", "--resume") == 0
    assert frames("o") == before


def test_a_film_of_other_flags_or_pictures_is_refused(here, call, capsys):
    assert call("--output=o.gif", "--zoom=1") == 0
    capsys.readouterr()
    for flag in ("--steps=3", "--zoom_scale=1.1", "--seed=4"):
        assert call("--output=o.gif", flag, "--resume") == 2
        assert_one_line(capsys.readouterr().err, flag, "film.json", "--resume")
    shutil.copy("painting.png", "photo.png")
    assert call("--output=o.gif", "--resume") == 2
    assert_one_line(capsys.readouterr().err, "--image: has changed since o-frames/film.json was written")
    before = frames("o")
    assert call("--output=o.gif", "--zoom=1") == 0  # without --resume it starts anew, and says so
    assert "o-frames is of an earlier film: this one starts anew" in capsys.readouterr().out
    assert frames("o") != before


BAD = {
    "a picture's ending": (["--output=o.png"], ["--output=o.png: expected .gif, .webp, .mp4 with --zoom"]),
    "frames that grow by nothing": (["--zoom_scale=1"], ["--zoom_scale=1.0: expected a number greater than 1"]),
    "no rate": (["--frame_rate=0"], ["--frame_rate=0.0: expected a number greater than 0"]),
    "below zero": (["--zoom=-1"], ["--zoom=-1: expected"]),
    "steps to save": (["--save_every=5"], ["--save_every=5: expected 0 with --zoom"]),
    "somebody's folder": (["--output=theirs.gif"], ["theirs-frames holds what no film of jnst wrote"]),
    "frames in a file": (["--output=file.gif"], ["file-frames"]),
    "image of its own frames": (["--image=own-frames/a.png", "--output=own.gif"], ["would replace own-frames/a.png"]),
    "a record of something else": (["--output=other.gif"], ["would replace other.json, which no run of jnst wrote"]),
    "image is not there": (["--image=nothing.png"], ["nothing.png: no such file"]),
    "folder is a file": (["--output=photo.png/o.gif"], ["photo.png/o.gif: cannot be written"]),
    "damaged state": (["--output=broken.gif", "--resume"], ["broken-frames holds what no film of jnst wrote"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_nothing_is_written(here, call, capsys, name):
    for folder in ("theirs-frames", "own-frames", "broken-frames"):
        (here / folder).mkdir()
    (here / "theirs-frames/000001.png").write_bytes(b"a picture")
    (here / "broken-frames/film.json").write_text('{"frames": 3}')
    (here / "file-frames").write_text("in the way")
    (here / "other.json").write_text("[]")
    shutil.copy("photo.png", "own-frames/a.png")
    before = listed(here)
    flags, words = BAD[name]
    assert call("--output=o.gif", *flags) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(here) == before


def test_without_ffmpeg_an_mp4_is_refused_before_any_work(here, call, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    before = listed(here)
    assert call("--output=o.mp4", "--image=nothing.png") == 2
    assert_one_line(capsys.readouterr().err, "--output=o.mp4", "ffmpeg, which is not on PATH", ".gif or .webp")
    assert listed(here) == before


def test_what_ffmpeg_says_last_is_said_and_the_frames_stay(here, call, capsys, monkeypatch):
    (here / "bin").mkdir()
    program = here / "bin/ffmpeg"
    program.write_text("#!/bin/sh\necho first >&2\necho 'no such encoder' >&2\nexit 3\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert call("--output=o.mp4", "--zoom=1") == 2
    assert_one_line(
        capsys.readouterr().err, "--output=o.mp4: ffmpeg failed: no such encoder; the frames are in o-frames"
    )
    assert len(frames("o")) == 1
    assert not [name for name in listed(here) if name.endswith((".mp4", ".part"))]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not on PATH: it makes .mp4 films")
def test_an_mp4_is_made_by_ffmpeg(here, call):
    Image.fromarray(np.full((25, 17, 3), 120, np.uint8)).save("photo.png")  # odd sides
    assert call("--output=a % 05d/o.mp4", "--size=25", "--octaves=1", "--zoom=2") == 0
    film_ = here / "a % 05d/o.mp4"
    assert film_.read_bytes()[4:8] == b"ftyp"
    command = ["ffmpeg", "-v", "error", "-i", str(film_), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    shown = shown.reshape(2, 24, 16, 3) / 255
    first = images.load(film_.with_name("o-frames") / "000001.png").rgb[:24, :16]
    assert np.abs(shown[0] - first).mean() < 0.05
    assert np.abs(shown[0].mean((0, 1)) - first.mean((0, 1))).max() < 0.02  # not another matrix's colors


@pytest.mark.slow
def test_a_killed_film_goes_on_to_the_same_bytes(here, call, tiny_file):
    run = [*RUN, f"--weights={tiny_file}", "--zoom=6", "--steps=4"]
    child = subprocess.Popen([*COMMAND, *run, "--output=o.gif"], stdout=subprocess.PIPE, text=True)
    read_until(child.stdout, "frame 2/")
    child.kill()
    child.communicate()
    assert not (here / "o.gif").exists()
    assert call("--output=o.gif", "--zoom=6", "--steps=4", "--resume") == 0
    assert call("--output=whole.gif", "--zoom=6", "--steps=4") == 0
    assert ((here / "o.gif").read_bytes(), frames("o")) == ((here / "whole.gif").read_bytes(), frames("whole"))
