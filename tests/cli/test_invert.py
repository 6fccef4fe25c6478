"""`invert` as a command: strips, records, resuming, and each mistake in one line."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.command import assert_one_line, listed, read_json, read_until
from jnst import images
from jnst.cli import checkpoint, invert
from jnst.config import InvertConfig

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.invert"]
RUN = ["--image=photo.png", "--size=16", "--steps=3", "--layers=relu1_1,relu1_2", "--history=3", "--tile=48"]


def call(*arguments):
    return invert.main(["invert", *arguments])


def test_without_arguments_it_shows_examples_and_help_says_every_flag(capsys):
    assert invert.main(["invert"]) == 0
    assert "invert --image=photo.jpg --layers=relu1_1,relu3_1" in capsys.readouterr().out
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert all(f"--{name} (default" in out for name in InvertConfig.__dataclass_fields__)


def test_it_says_what_it_is_without_jax():
    code = "import sys; from jnst.cli.invert import main; main(['x', '--help']); sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_strip_comes_with_its_record_and_its_flagfile_makes_it_again(here, tiny_file, capsys):
    run = [*RUN, f"--weights={tiny_file}", "--save_every=4"]
    assert call(*run, "--output=a/o.png") == 0
    out = capsys.readouterr().out
    assert "image: 16x16  weights: " in out
    assert "steps: 3 a layer\n" in out
    assert "step 0/6  total " in out
    assert "relu1_2: relative error " in out
    assert "a/o.png: 2 layers inverted, " in out
    record = read_json("a/o.json")
    assert [row["step"] for row in record["trace"]] == [0, 3, 3, 6]
    assert record["relative_errors"].keys() == {"relu1_1", "relu1_2"}
    last = record["trace"][1]["features"]
    np.testing.assert_allclose(record["relative_errors"]["relu1_1"], last**0.5, rtol=0.02)  # it is the best step's
    assert record["inputs"].keys() == {"image", "weights"}
    strip = images.load("a/o.png").rgb
    assert record["size"] == [strip.shape[1], strip.shape[0]] == [8 + 3 * (48 + 8), strip.shape[0]]
    photo = images.load("photo.png").rgb
    rows = [row for row in range(strip.shape[0] - 16) if np.abs(strip[row : row + 16, 24:40] - photo).max() < 0.01]
    assert len(rows) == 1  # the photo stands on the strip as it is, in the middle of the first cell
    assert images.load("a/o-000004.png").rgb.shape == (16, 16, 3)
    assert call("--flagfile=a/o.flags", "--output=b.png", "--save_every=0") == 0
    assert np.array_equal(images.load("b.png").rgb, strip)
    assert call("--flagfile=b.flags", "--output=c.png") == 0
    assert (here / "c.png").read_bytes() == (here / "b.png").read_bytes()
    beside = ["a/o-000004.png", "a/o.flags", "a/o.json", "a/o.png", "b.flags", "b.json", "b.png"]
    assert listed(here) == [*beside, "c.flags", "c.json", "c.png", "painting.png", "photo.png"]


@pytest.mark.slow
def test_alpha_lies_on_white_odd_sides_and_max_pooling_do(here, tiny_file):
    pixels = np.dstack([np.full((9, 13, 3), 90), np.zeros((9, 13))]).astype(np.uint8)
    pixels[:, :6, 3] = 255
    Image.fromarray(pixels).save("clear.png")
    more = ["--image=clear.png", "--size=0", "--layers=relu2_1", "--pooling=max", "--steps=1"]
    assert call(*RUN, f"--weights={tiny_file}", *more, "--output=o.png") == 0
    strip = images.load("o.png")
    assert strip.alpha is None
    # 13 pixels of the photo in a cell of 48, after a gap of 8.
    row = next(row for row in strip.rgb if abs(row[30, 0] - 90 / 255) < 0.01)
    np.testing.assert_allclose(
        row[[25, 30, 31, 37]], np.array([[90], [90], [255], [255]]) / 255 * np.ones(3), atol=0.01
    )


@pytest.mark.slow
def test_starts_are_rows_and_a_number_each_in_the_record(here, tiny_file, capsys):
    more = ["--layers=relu1_1", "--restarts=2", "--save_every=2", "--jitter=1"]
    assert call(*RUN, f"--weights={tiny_file}", *more, "--output=o.png") == 0
    assert "steps: 3 a layer  starts: 2\n" in capsys.readouterr().out
    first, second = read_json("o.json")["relative_errors"]["relu1_1"]
    assert first != second
    rows, width = images.load("o.png").rgb.shape[:2]
    assert rows > 2 * 16
    assert width == 8 + 2 * (48 + 8)
    assert images.load("o-000002.png").size == (32, 56)  # both of them, one below the other


def stop_at(patch, step):
    def stop(self, record):
        if record.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr("jnst.cli.progress.Progress.show", stop)


@pytest.mark.slow
def test_a_stopped_run_shows_what_is_done_and_goes_on_to_the_same_bytes(here, tiny_file, monkeypatch, capsys):
    run = [*RUN, f"--weights={tiny_file}", "--checkpoint_every=1"]
    assert call(*run, "--output=whole.png") == 0
    holds = {1: "0 of 2 layers, relu1_1 unfinished", 3: "1 of 2 layers", 4: "1 of 2 layers, relu1_2 unfinished"}
    for step, what in holds.items():
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            assert call(*run, f"--output={step}.png") == 130
        err = capsys.readouterr().err
        assert f"{step}.png holds {what}; step {step} is kept" in err
        assert len(read_json(f"{step}.json")["relative_errors"]) == 1 + step // 4
        found = checkpoint.read(f"{step}.png")
        assert (found.facts["step"], found.snapshot.scale, len(found.snapshot.kept)) == (step, step // 4, step // 4)
        assert call(*run, f"--output={step}.png", "--resume") == 0
        assert f"going on from step {step}\n" in capsys.readouterr().out
        assert (here / f"{step}.png").read_bytes() == (here / "whole.png").read_bytes()
        for part in ("trace", "relative_errors", "best_step"):
            assert read_json(f"{step}.json")[part] == read_json("whole.json")[part]
    assert call(*run, "--output=whole.png", "--resume") == 0
    assert capsys.readouterr().out == "whole.png: finished already, at step 6\n"
    for flag, before in (("--alpha=5.0", "--alpha=6.0"), ("--steps=4", "--steps=3"), ("--restarts=2", "--restarts=1")):
        assert call(*run, "--output=whole.png", "--resume", flag) == 2
        assert_one_line(capsys.readouterr().err, flag, before)


def test_the_steps_of_a_single_layer_may_grow(here, tiny_file):
    run = [*RUN, f"--weights={tiny_file}", "--layers=relu1_1", "--checkpoint_every=2"]
    assert call(*run, "--output=a.png") == 0
    assert call(*run, "--output=a.png", "--steps=5", "--resume") == 0
    assert call(*run, "--output=b.png", "--steps=5") == 0
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()


def test_the_pictures_kept_go_into_a_checkpoint_and_come_back(here, rng):
    from jnst.types import Snapshot

    kept = tuple(rng.uniform(size=(2, 3, 4, 3)).astype(np.float32) for _ in range(12))
    trace = [{"step": 3, "total": 0.25, "size": 4}]
    snapshot = Snapshot([np.arange(3.0), np.int32(7)], trace, scale=12, kept=kept)
    facts = {"flags": {}, "inputs": {}, "step": 3, "seconds": 1.0}
    checkpoint.write("o.png", snapshot, facts)
    found = checkpoint.read("o.png").snapshot
    assert (found.scale, found.plan, found.trace) == (12, (), trace)
    for one, other in zip(found.kept, kept, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found.leaves, snapshot.leaves, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_without_the_pictures_is_one_line(here, tiny_file, monkeypatch, capsys):
    run = [*RUN, f"--weights={tiny_file}", "--checkpoint_every=1", "--output=o.png"]
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        assert call(*run) == 130
    found = checkpoint.read("o.png")
    checkpoint.write("o.png", found.snapshot._replace(leaves=list(found.snapshot.leaves), kept=()), found.facts)
    capsys.readouterr()
    assert call(*run, "--resume") == 2
    assert_one_line(capsys.readouterr().err, "o.ckpt: does not fit this run")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(here, tiny_file):
    run = [*RUN, f"--weights={tiny_file}", "--checkpoint_every=1", "--print_every=1", "--steps=150"]
    child = subprocess.Popen([*COMMAND, *run, "--output=o.png"], stdout=subprocess.PIPE, text=True)
    read_until(child.stdout, "step 160/")
    child.kill()
    child.communicate()
    found = checkpoint.read("o.png")
    assert 150 < found.facts["step"] < 300
    assert len(found.snapshot.kept) == 1
    assert call(*run, "--output=o.png", "--resume") == 0
    assert call(*run, "--output=whole.png") == 0
    assert (here / "o.png").read_bytes() == (here / "whole.png").read_bytes()


BAD = {
    "no image": (["--image="], ["--image is missing"]),
    "no output": (["--output="], ["--output is missing"]),
    "image is not there": (["--image=nothing.png"], ["nothing.png: no such file"]),
    "image is no picture": (["--image=text.png"], ["text.png: not a picture"]),
    "image too small": (["--layers=relu5_1", "--size=8"], ["--image=photo.png: 8x8 pixels are too few: relu5_1"]),
    "unknown layer": (["--layers=relu9_9"], ["--layers=relu9_9", "'relu9_9' is no layer"]),
    "no layer": (["--layers="], ["--layers=: expected at least one layer"]),
    "layer twice": (["--layers=relu1_1,relu1_1"], ["relu1_1 is named twice"]),
    "weighted layer": (["--layers=relu1_1:2"], ["--layers=relu1_1:2: each layer is inverted by itself"]),
    "layer that the weights lack": (
        ["--weights=net.npz", "--layers=relu2_1"],
        ["--layers: relu2_1 is not in --weights=net.npz"],
    ),
    "layer without features": (
        ["--weights=dead.npz", "--layers=relu1_1"],
        ["--layers: relu1_1 has features on this picture whose squares add up to 0"],
    ),
    "weights are not there": (["--weights=nothing.npz"], ["nothing.npz"]),
    "no start": (["--restarts=0"], ["--restarts=0: expected a number not below 1"]),
    "too many starts": (["--restarts=65"], ["--restarts=65: expected a number not above 64"]),
    "no step": (["--steps=0"], ["--steps=0: expected"]),
    "jitter out of range": (["--jitter=9999999999"], ["--jitter=9999999999: expected a number not above 4096"]),
    "negative weight": (["--tv_weight=-1"], ["--tv_weight=-1.0: expected a number not below 0"]),
    "weight that is no number": (["--tv_weight=nan"], ["--tv_weight=nan: expected a finite number"]),
    "power too small": (["--tv_beta=0.5"], ["--tv_beta=0.5: expected a number not below 1"]),
    "unknown pooling": (["--pooling=sum"], ["--pooling=sum: expected one of"]),
    "strip too wide": (
        ["--tile=4096", "--layers=relu1_1,relu1_2,conv1_1,conv1_2", "--output=o.webp"],
        ["pixels: WEBP"],
    ),
    "unknown ending": (["--output=o.bmp"], ["--output=o.bmp: expected a name ending in .png"]),
    "folder is a file": (["--output=text.png/o.png"], ["--output=text.png/o.png: cannot be written"]),
    "output is the image": (["--output=photo.png"], ["would replace photo.png"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_nothing_is_written(here, tiny_file, capsys, name):
    (here / "text.png").write_text("words")
    for file, bias in (("net.npz", 0.0), ("dead.npz", -1e6)):
        np.savez(file, **{"block1_conv1/kernel": np.ones((3, 3, 3, 4)), "block1_conv1/bias": np.full(4, bias)})
    before = listed(here)
    flags, words = BAD[name]
    assert call(*RUN, f"--weights={tiny_file}", "--output=o.png", *flags) == 2
    captured = capsys.readouterr()
    assert_one_line(captured.err, *words)
    assert "step 0/" not in captured.out  # before any work
    assert listed(here) == before


def test_too_little_memory_is_one_line(here, tiny_file, capsys, monkeypatch):
    monkeypatch.setattr("jnst.api.room", lambda device: 1000)
    assert call(*RUN, f"--weights={tiny_file}", "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, "--size: 16x16 pixels need", "expected a smaller --size")


def test_a_run_that_diverges_keeps_what_is_done(here, tiny_file, capsys, monkeypatch):
    from jnst import stages

    make_stage, made = stages.make_stage, []

    def broken(*arguments, **more):
        made.append(1)
        stage = make_stage(*arguments, **more)
        if arguments[1].layer != "relu1_2":
            return stage

        def advance(state, steps, tick=None):
            state, terms = stage.advance(state, steps, tick)
            return state._replace(best_step=state.best_step * 0 - 1), {**terms, "total": np.nan, "tv": np.nan}

        return stage._replace(advance=advance)

    monkeypatch.setattr("jnst.tasks.invert.make_stage", broken)
    assert call(*RUN, f"--weights={tiny_file}", "--output=o.png") == 3
    assert made
    captured = capsys.readouterr()
    assert_one_line(captured.err, "diverged: the tv term is not finite at step 3")
    assert "o.png: 1 of 2 layers, " in captured.out
    record = read_json("o.json")
    assert (record["stopped"], record["diverged"]) == ("diverged", {"step": 3, "term": "tv"})
    assert record["relative_errors"].keys() == {"relu1_1"}
