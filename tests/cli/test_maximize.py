"""`explore maximize` as its user sees it: the sheet, its record, resuming, and each mistake in one line."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.command import assert_one_line, listed, read_json
from jnst.cli import checkpoint, explore, maximizing
from jnst.config import ExploreConfig, MaximizeConfig

RUN = ["--layers=relu1_1:2,relu1_2:3,0", "--size=16", "--steps=4", "--print_every=2", "--robust=none"]


def call(*arguments):
    return explore.main(["explore", *arguments])


@pytest.fixture
def studio(here, tiny_file):
    (here / "net.safetensors").write_bytes(open(tiny_file, "rb").read())
    return here


def made(*arguments):
    return call("maximize", *RUN, "--weights=net.safetensors", *arguments)


@pytest.mark.slow
def test_a_sheet_comes_with_its_record_and_its_flagfile_makes_it_again(studio, monkeypatch, capsys):
    assert made("--output=a/o.png") == 0
    out = capsys.readouterr().out
    assert "weights: net.safetensors  channels: 3  size: 16  steps: 4\n" in out
    assert "step 0/4  activation " in out
    assert "a/o.png: 3 channels after step 4, " in out
    record = read_json("a/o.json")
    assert [row["step"] for row in record["trace"]] == [0, 2, 4]
    assert record["trace"][-1]["activation"] > record["trace"][0]["activation"]
    assert {layer: [one["channel"] for one in found] for layer, found in record["channels"].items()} == {
        "relu1_1": [2],
        "relu1_2": [3, 0],
    }
    reached = [one["activation"] for found in record["channels"].values() for one in found]
    assert np.mean(reached) == pytest.approx(record["trace"][-1]["activation"], rel=1e-4)
    assert f"relu1_2: 3: {reached[1]:.3g}, 0: {reached[2]:.3g}\n" in out
    assert record["flags"]["look"] == "maximize"
    assert record["inputs"].keys() == {"weights"}
    sheet = np.asarray(Image.open("a/o.png"))
    assert list(sheet.shape[1::-1]) == record["size"]
    assert sheet.shape[1] == 8 + 2 * (16 + 8)  # the layer with most channels has two
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 300
    headings, drawn = [], maximizing.captioned_sheet

    def draw(sections, **how):
        headings.extend(heading for heading, _ in sections)
        return drawn(sections, **how)

    monkeypatch.setattr(maximizing, "captioned_sheet", draw)
    assert call("--flagfile=a/o.flags", "--output=b.png") == 0  # the word is in it
    assert set(headings) == {"relu1_1 of net.safetensors", "relu1_2 of net.safetensors"}  # no folder
    assert (studio / "b.png").read_bytes() == (studio / "a/o.png").read_bytes()
    assert str(studio).encode() not in (studio / "b.png").read_bytes()
    assert made("--output=c.png", "--seed=1") == 0
    assert (studio / "c.png").read_bytes() != (studio / "b.png").read_bytes()


def test_a_stopped_run_goes_on_to_the_same_bytes(studio, monkeypatch, capsys):
    assert made("--output=whole.png") == 0

    def stop(self, record):
        if record.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("jnst.cli.progress.Progress.show", stop)
        assert made("--output=o.png") == 130
    err = capsys.readouterr().err
    assert "o.png holds 3 channels after step 2; step 2 is kept, go on with: " in err
    assert err.rstrip().endswith("o.flags --resume")
    assert checkpoint.read("o.png").facts["step"] == 2
    assert call("--flagfile=o.flags", "--resume") == 0
    assert "going on from step 2\n" in capsys.readouterr().out
    assert (studio / "o.png").read_bytes() == (studio / "whole.png").read_bytes()
    assert read_json("o.json")["channels"] == read_json("whole.json")["channels"]
    assert call("--flagfile=o.flags", "--resume") == 0
    assert capsys.readouterr().out == f"{studio / 'o.png'}: finished already, at step 4\n"
    assert call("--flagfile=o.flags", "--resume", "--decay=2") == 2
    assert_one_line(capsys.readouterr().err, "--decay=2.0", "--decay=1.0")


def test_pictures_on_the_way_are_sheets_too(studio):
    assert made("--output=o.png", "--save_every=2") == 0
    way, end = (np.asarray(Image.open(name)) for name in ("o-000002.png", "o.png"))
    assert way.shape == end.shape
    assert not (way == end).all()


def test_the_size_of_a_sheet_is_known_before_it_is_drawn(studio, monkeypatch):
    from jnst import images

    seen = []
    monkeypatch.setattr(images, "check_encodable", lambda size, kind: seen.append(list(size)))
    assert made("--output=o.png", "--steps=1") == 0
    assert seen == [read_json("o.json")["size"]]


@pytest.mark.slow
def test_channels_that_are_not_named_are_the_first_under_random_transforms(studio, capsys):
    flags = ["--layers=relu1_2", "--channels=2", "--size=16", "--steps=2", "--weights=net.safetensors"]
    assert call(*flags, "--output=o.png", "maximize") == 0  # the word may come last
    assert "channels: 2 " in capsys.readouterr().out
    assert [one["channel"] for one in read_json("o.json")["channels"]["relu1_2"]] == [0, 1]


def test_each_word_has_its_own_flags(capsys):
    assert call("maximize", "--help") == 0
    out = capsys.readouterr().out
    assert all(f"--{name} (default" in out for name in MaximizeConfig.__dataclass_fields__)
    assert "--resume" in out
    assert "--pictures" not in out
    for arguments in (["--help"], ["filters", "--help"]):
        assert call(*arguments) == 0
        out = capsys.readouterr().out
        assert all(f"--{name} (default" in out for name in ExploreConfig.__dataclass_fields__)
        assert "explore maximize" in out
        assert "--steps" not in out
    for arguments in (["filters", "--steps=3"], ["--look=filters", "--resume"], ["maximize", "--pictures=a.png"]):
        assert call(*arguments, "--output=o.png") == 2
        assert_one_line(capsys.readouterr().err, "Unknown command line flag", arguments[1].strip("-").split("=")[0])


def test_another_look_may_be_replaced_and_replaces(studio):
    assert call("filters", "--weights=net.safetensors", "--output=o.png") == 0
    assert made("--output=o.png", "--steps=1") == 0
    assert call("filters", "--weights=net.safetensors", "--output=o.png") == 0
    assert read_json("o.json")["look"] == "filters"


def test_help_needs_no_jax():
    code = "import sys; from jnst.cli.explore import main; main(['x', 'maximize', '--help']); "
    code += "sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


BAD = {
    "no output": (["--output="], ["--output is missing"]),
    "no layer": (["--layers="], ["--layers=: expected at least one layer"]),
    "unknown layer": (["--layers=relu9_9:1"], ["--layers=relu9_9", "'relu9_9' is no layer"]),
    "layer twice": (["--layers=relu1_1:1,relu1_1:2"], ["relu1_1 is named twice"]),
    "channel is no number": (["--layers=relu1_1:x"], ["'x' is no channel"]),
    "channel twice": (["--layers=relu1_1:1,1"], ["channel 1 is named twice"]),
    "channel too large": (
        ["--layers=relu1_2:3,4"],
        ["--layers=relu1_2:3,4: relu1_2 has no channel 4; expected 0 to 3"],
    ),
    "layer not in the weights": (
        ["--weights=short.npz", "--layers=relu2_1"],
        ["--layers: relu2_1 is not in --weights=short.npz, which ends at conv1_1"],
    ),
    "weights are not there": (["--weights=nothing.npz"], ["nothing.npz: no such file"]),
    "size of less than a pixel at the layer": (
        ["--padding=reflect", "--layers=relu5_1", "--size=16"],
        ["--size=16: expected at least 32 for --layers=relu5_1"],
    ),
    "size too small": (["--size=8"], ["--size=8: expected a number not below 16"]),
    "no steps": (["--steps=0"], ["--steps=0: expected"]),
    "no channel": (["--channels=0"], ["--channels=0: expected"]),
    "rate of nan": (["--learning_rate=nan"], ["--learning_rate=nan: expected a finite number"]),
    "unknown robust": (["--robust=yes"], ["--robust=yes: expected one of standard, none"]),
    "another look": (["--look=filters"], ["--look=filters: expected one of maximize"]),
    "a picture": (["photo.png"], ["maximize: expected no picture, found 1: photo.png"]),
    "no such device": (["--device=cpu:99"], ["--device=cpu:99"]),
    "unknown ending": (["--output=o.bmp"], ["--output=o.bmp: expected a name ending in .png"]),
    "output is the weights": (["--output=net.png", "--weights=net.png"], ["would replace net.png"]),
    "a sheet too large": (
        ["--size=4096", "--layers=conv5_1:0,1,2,3", "--output=o.webp"],
        ["16424x4163 pixels: WEBP holds at most 16383 on a side; expected .png or .tif"],
    ),
}


@pytest.mark.parametrize(("flags", "words"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_line_and_nothing_is_written(studio, capsys, flags, words):
    np.savez("short.npz", **{"block1_conv1/kernel": np.ones((3, 3, 3, 4)), "block1_conv1/bias": np.zeros(4)})
    (studio / "net.png").write_bytes((studio / "net.safetensors").read_bytes())
    before = listed(studio)
    assert made("--output=o.png", *flags) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(studio) == before
