"""`dream` as a command: pictures, records, resuming, and each mistake in one line."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.command import assert_one_line, listed, read_json, read_until
from jnst import images
from jnst.cli import checkpoint, dream
from jnst.config import DreamConfig

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.dream"]
RUN = ["--image=photo.png", "--size=24", "--octaves=2", "--steps=3", "--layers=relu1_2", "--jitter=4"]


def call(*arguments):
    return dream.main(["dream", *arguments])


def test_without_arguments_it_shows_examples_and_help_says_every_flag(capsys):
    assert dream.main(["dream"]) == 0
    out = capsys.readouterr().out
    assert "dream --image=photo.jpg" in out
    assert "deepdream" in out
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert all(f"--{name} (default" in out for name in DreamConfig.__dataclass_fields__)


def test_a_picture_comes_with_its_record_and_its_flagfile_makes_it_again(here, tiny_file, capsys):
    assert call(*RUN, f"--weights={tiny_file}", "--output=a/o.png") == 0
    out = capsys.readouterr().out
    assert "octaves: 17x17, 24x24  steps: 3 each\n" in out
    assert "step 0/6  activation " in out
    assert "a/o.png: the dream after step 6, " in out
    record = read_json("a/o.json")
    assert [(row["step"], row["size"]) for row in record["trace"]] == [(0, 17), (3, 17), (3, 24), (6, 24)]
    assert record["trace"][-1]["activation"] > record["trace"][0]["activation"]
    assert (record["size"], record["flags"]["layers"]) == ([24, 24], "relu1_2")
    assert {"image", "weights"} == record["inputs"].keys()
    picture = images.load("a/o.png").rgb
    photo = images.resize(images.load("photo.png"), (24, 24)).rgb
    assert 0.003 < np.abs(picture - photo).mean() < 0.1
    assert call("--flagfile=a/o.flags", "--output=b.png") == 0
    assert (here / "b.png").read_bytes() == (here / "a/o.png").read_bytes()
    assert listed(here) == [
        "a/o.flags",
        "a/o.json",
        "a/o.png",
        "b.flags",
        "b.json",
        "b.png",
        "painting.png",
        "photo.png",
    ]


def test_alpha_is_kept(here, tiny_file):
    Image.fromarray(np.dstack([np.full((16, 16, 3), 90), np.full((16, 16), 200)]).astype(np.uint8)).save("clear.png")
    assert call(*RUN, f"--weights={tiny_file}", "--image=clear.png", "--octaves=1", "--steps=1", "--output=o.png") == 0
    np.testing.assert_allclose(images.load("o.png").alpha, 200 / 255, atol=1e-3)


def test_noise_needs_no_picture_and_its_seed_is_its_own(here, tiny_file):
    for name, more in {"a": [], "b": [], "c": ["--seed=1"]}.items():
        flags = ["--image=noise", f"--weights={tiny_file}", f"--output={name}.png", *more]
        assert call(*RUN, *flags, "--octaves=1", "--steps=1") == 0
    a, b, c = ((here / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert read_json("a.json")["inputs"].keys() == {"weights"}


@pytest.mark.slow
def test_a_guide_leads_elsewhere(here, tiny_file):
    for name, more in {"a": [], "b": ["--guide=painting.png"]}.items():
        assert call(*RUN, f"--weights={tiny_file}", "--octaves=1", f"--output={name}.png", *more) == 0
    assert "guide" in read_json("b.json")["inputs"]
    assert (here / "a.png").read_bytes() != (here / "b.png").read_bytes()


def test_a_stopped_run_goes_on_to_the_same_bytes(here, tiny_file, monkeypatch, capsys):
    run = [*RUN, f"--weights={tiny_file}", "--checkpoint_every=1"]
    assert call(*run, "--output=whole.png") == 0
    for step in (2, 3, 4):  # within the first octave, where it ends, within the second

        def stop(self, record, at=step):
            if record.step == at:
                os.kill(os.getpid(), signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr("jnst.cli.progress.Progress.show", stop)
            assert call(*run, f"--output={step}.png") == 130
        assert f"{step}.png holds the dream after step {step}; step {step} is kept" in capsys.readouterr().err
        assert checkpoint.read(f"{step}.png").facts["step"] == step
        assert call(*run, f"--output={step}.png", "--resume") == 0
        assert f"going on from step {step}\n" in capsys.readouterr().out
        assert (here / f"{step}.png").read_bytes() == (here / "whole.png").read_bytes()
        assert read_json(f"{step}.json")["trace"] == read_json("whole.json")["trace"]
    assert call(*run, "--output=whole.png", "--resume") == 0
    assert capsys.readouterr().out == "whole.png: finished already, at step 6\n"
    assert call(*run, "--output=whole.png", "--resume", "--jitter=5") == 2
    assert_one_line(capsys.readouterr().err, "--jitter=5", "--jitter=4")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(here, tiny_file):
    run = [*RUN, f"--weights={tiny_file}", "--checkpoint_every=1", "--print_every=1", "--steps=150"]
    child = subprocess.Popen([*COMMAND, *run, "--output=o.png"], stdout=subprocess.PIPE, text=True)
    read_until(child.stdout, "step 160/")
    child.kill()
    child.communicate()
    assert 100 < checkpoint.read("o.png").facts["step"] < 300
    assert call(*run, "--output=o.png", "--resume") == 0
    assert call(*run, "--output=whole.png") == 0
    assert (here / "o.png").read_bytes() == (here / "whole.png").read_bytes()


@pytest.mark.slow
def test_an_axis_is_one_sheet_and_its_flagfile_makes_it_again(here, tiny_file):
    axes = ["--axis=step_size=1,20", "--axis=seed=0,1,2"]
    assert call(*RUN, f"--weights={tiny_file}", *axes, "--output=o.png") == 0
    sheet = images.load("o.png")
    assert call(*RUN, f"--weights={tiny_file}", "--output=one.png") == 0
    one = images.load("one.png")
    assert sheet.size[0] > 2 * one.size[0]
    assert sheet.size[1] > 3 * one.size[1]
    assert call("--flagfile=o.flags", "--output=again.png") == 0
    assert (here / "o.png").read_bytes() == (here / "again.png").read_bytes()
    assert call("--flagfile=o.flags", "--resume") == 0


BAD = {
    "no image": (["--image="], ["--image is missing"]),
    "no output": (["--output="], ["--output is missing"]),
    "image is not there": (["--image=nothing.png"], ["nothing.png: no such file"]),
    "guide is not there": (["--guide=nothing.png"], ["nothing.png: no such file"]),
    "guide is no picture": (["--guide=text.png"], ["text.png: not a picture"]),
    "unknown layer": (["--layers=relu9_9"], ["--layers=relu9_9", "'relu9_9' is no layer"]),
    "no layer": (["--layers="], ["--layers=: expected at least one layer"]),
    "layer twice": (["--layers=relu1_1,relu1_1"], ["relu1_1 is named twice"]),
    "channel too large": (["--layers=relu1_2:3,4"], ["--layers=relu1_2:3,4", "relu1_2 has channels 0 to 3"]),
    "channel too large, pooled": (["--layers=pool1:4"], ["--layers=pool1:4", "pool1 has channels 0 to 3"]),
    "channel is no number": (["--layers=relu1_2:x"], ["'x' is no channel"]),
    "layer that the weights lack": (
        ["--weights=net.npz", "--layers=relu2_1"],
        ["--layers: relu2_1 is not in --weights=net.npz"],
    ),
    "tile too small": (["--tile=8"], ["--tile=8: expected 0, or a whole number from 16"]),
    "tile of a torus": (["--tile=16", "--padding=wrap"], ["--tile=16: has no --padding=wrap"]),
    "unknown objective": (["--objective=cube"], ["--objective=cube: expected one of square, mean"]),
    "divided by nothing": (["--normalize=none"], ["--normalize=none: expected mean or deviation"]),
    "scale of one": (["--octave_scale=1"], ["--octave_scale=1.0: expected a number greater than 1"]),
    "steps of none": (["--steps=0"], ["--steps=0: expected"]),
    "noise of the picture's size": (["--image=noise", "--size=0"], ["--size=0: noise has no size"]),
    "noise too small": (["--image=noise", "--size=8", "--layers=relu5_1"], ["--size=8: expected at least 16"]),
    "a film's ending": (["--output=o.gif"], ["--output=o.gif: is a film; expected --zoom"]),
    "axis of the program": (["--axis=layers=relu1_1,relu1_2"], ["layers is of the whole program"]),
    "axis of a film": (["--axis=seed=1,2", "--zoom=2", "--output=o.gif"], ["--axis=seed=1,2: a film has no axes"]),
    "axis out of range": (["--axis=step_size=1,-1"], ["--step_size=-1.0: expected a number greater than 0"]),
    "unknown ending": (["--output=o.bmp"], ["--output=o.bmp: expected a name ending in .png"]),
    "folder is a file": (["--output=text.png/o.png"], ["--output=text.png/o.png: cannot be written"]),
    "output is the image": (["--output=photo.png"], ["would replace photo.png"]),
    "output is the guide": (["--guide=painting.png", "--output=painting.png"], ["would replace painting.png"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_nothing_is_written(here, tiny_file, capsys, name):
    (here / "text.png").write_text("words")
    np.savez("net.npz", **{"block1_conv1/kernel": np.ones((3, 3, 3, 4)), "block1_conv1/bias": np.zeros(4)})
    before = listed(here)
    flags, words = BAD[name]
    assert call(*RUN, f"--weights={tiny_file}", "--output=o.png", *flags) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(here) == before


@pytest.mark.parametrize("preset", ["deepdream", "deepdream_tutorial"])
def test_presets_are_the_published_numbers(preset):
    from absl import flags as absl_flags

    from jnst.cli import flags
    from jnst.config import check_dream

    values = absl_flags.FlagValues()
    flags.define(DreamConfig, values)
    flags.parse(values, ["dream", f"--flagfile={preset}", "--image=a.png", "--output=b.png"])
    config = flags.to_config(DreamConfig, values)
    check_dream(config)
    found = [getattr(config, name) for name in "objective octave_scale steps step_size normalize jitter".split()]
    expected = {"deepdream": ["square", 1.4, 10, 1.5, "mean", 32]}
    assert found == expected.get(preset, ["mean", 1.3, 100, 1.275, "deviation", 512])


def test_the_record_is_strict_json(here, tiny_file):
    assert call(*RUN, f"--weights={tiny_file}", "--octaves=1", "--steps=1", "--output=o.png") == 0
    assert json.loads((here / "o.json").read_text())["stopped"] == ""
