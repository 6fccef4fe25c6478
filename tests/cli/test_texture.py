"""`texture` as a command: pictures by both methods, records, resuming, and each mistake in one line."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.command import assert_one_line, listed, read_json, read_until
from jnst import images
from jnst.cli import checkpoint, texture
from jnst.config import TextureConfig, check_texture

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.texture"]
GRAM = ["--image=photo.png", "--size=24", "--steps=4", "--layers=relu1_1,pool1:0.5", "--history=3"]
PATCHES = ["--image=photo.png", "--size=40x24", "--method=patches", "--patch=8", "--layers=relu1_1,pool1:0.5"]
METHODS = {"gram": GRAM, "patches": PATCHES}


@pytest.fixture
def weights(tiny_file):
    return f"--weights={tiny_file}"


def call(*arguments):
    return texture.main(["texture", *arguments])


def pixels(path):
    """As they are in the file, `[H, W, 3]` of 0..255."""
    return np.asarray(Image.open(path).convert("RGB"), int)


def test_without_arguments_it_shows_examples_and_help_says_every_flag(capsys):
    assert texture.main(["texture"]) == 0
    out = capsys.readouterr().out
    assert "texture --image=gravel.jpg" in out
    assert "gatys2015" in out
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert all(f"--{name} (default" in out for name in TextureConfig.__dataclass_fields__)


@pytest.mark.slow
def test_gram_comes_with_its_record_and_its_flagfile_makes_it_again(here, weights, capsys):
    assert call(*GRAM, weights, "--output=a/o.png") == 0
    out = capsys.readouterr().out
    assert "sample: 16x16  texture: 24x24  weights: " in out
    assert "scales: 12x12, 24x24\n" in out
    assert "step 0/8  total " in out
    assert "content" not in out
    assert "Gram residuals: relu1_1 " in out
    record = read_json("a/o.json")
    assert list(record["gram_residuals"]) == ["relu1_1", "pool1"]
    assert [(row["step"], row["size"]) for row in record["trace"]] == [(0, 12), (4, 12), (4, 24), (8, 24)]
    assert all("content" not in row for row in record["trace"])
    assert record["inputs"].keys() == {"image", "weights"}
    if record["best_step"] == 8:
        found = record["gram_residuals"]
        expected = 100 * (found["relu1_1"] ** 2 / 2 + found["pool1"] ** 2 / 2)
        np.testing.assert_allclose(record["trace"][-1]["style"], expected, rtol=1e-3)
    assert call("--flagfile=a/o.flags", "--output=b.png") == 0
    assert (here / "b.png").read_bytes() == (here / "a/o.png").read_bytes()
    made = ["a/o.flags", "a/o.json", "a/o.png", "b.flags", "b.json", "b.png"]
    assert listed(here) == [*made, "painting.png", "photo.png"]


def test_patches_are_the_sample_s_pixels_and_come_with_the_same_record(here, weights, capsys):
    assert call(*PATCHES, weights, "--output=a.png") == 0
    out = capsys.readouterr().out
    assert "patches 24/24\n" in out
    assert "a.png: quilted from patches of 8 pixels, " in out
    made, sample = pixels("a.png"), pixels("photo.png")
    assert made.shape == (24, 40, 3)
    assert {*map(tuple, made.reshape(-1, 3))} <= {*map(tuple, sample.reshape(-1, 3))}
    record = read_json("a.json")
    assert (record["size"], record["trace"], record["stopped"]) == ([40, 24], [], "")
    assert list(record["gram_residuals"]) == ["relu1_1", "pool1"]
    assert 0 < record["gram_residuals"]["pool1"] < 1
    assert record["flags"]["patch"] == 8
    assert call("--flagfile=a.flags", "--output=b.png") == 0
    assert (here / "b.png").read_bytes() == (here / "a.png").read_bytes()
    before = (here / "a.png").read_bytes()
    assert call("--flagfile=a.flags", "--resume") == 0  # there is nothing to resume: it is made again
    assert (here / "a.png").read_bytes() == before
    assert call(*PATCHES, weights, "--seed=1", "--output=c.png") == 0
    assert (here / "c.png").read_bytes() != before
    assert listed(here) == sorted(["painting.png", "photo.png", *(f"{a}.{b}" for a in "abc" for b in IN_ALL)])


IN_ALL = ("flags", "json", "png")


@pytest.mark.slow
def test_tileable_patches_may_have_any_size(here, weights):
    assert call(*PATCHES, weights, "--size=27x19", "--tileable", "--layers=pool2", "--output=o.png") == 0
    assert pixels("o.png").shape == (19, 27, 3)


def test_ctrl_c_in_patches_leaves_nothing(here, weights, monkeypatch, capsys):
    def stop(self, done, total):
        os.kill(os.getpid(), signal.SIGINT)

    before = listed(here)
    monkeypatch.setattr("jnst.cli.progress.Steps.show", stop)
    assert call(*PATCHES, weights, "--output=o.png") == 130
    assert "interrupted before there was a picture; nothing written" in capsys.readouterr().err
    assert listed(here) == before


def test_ctrl_c_while_patches_are_written_waits_for_all_of_them(here, weights, monkeypatch, capsys):
    save = images.save

    def late(*arguments, **more):
        os.kill(os.getpid(), signal.SIGINT)
        save(*arguments, **more)

    monkeypatch.setattr("jnst.images.save", late)
    assert call(*PATCHES, weights, "--output=o.png") == 0
    assert capsys.readouterr().err == ""
    assert {"o.flags", "o.json", "o.png"} < set(listed(here))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [24, 16])
def test_matched_histograms_are_exactly_the_sample_s_quantiles(here, weights, method, size):
    more = [f"--size={size}", "--scales=1", "--histogram=match", "--output=o.png"]
    assert call(*METHODS[method], weights, *more) == 0
    made, sample = (np.sort(pixels(name).reshape(-1, 3), 0) for name in ("o.png", "photo.png"))
    at = (np.arange(size**2) + 0.5) / size**2 * len(sample)
    np.testing.assert_array_equal(made, sample[np.ceil(at).astype(int) - 1])


def test_residuals_are_of_what_is_saved(here, weights):
    """After the histograms are matched: those of the file's pixels."""
    from jnst.tasks.stylize import texture as task
    from jnst.weights import load

    assert call(*PATCHES, weights, "--histogram=match", "--output=o.png") == 0
    params = load(weights.partition("=")[2], ("relu1_1", "pool1")).params
    config = TextureConfig(layers="relu1_1,pool1:0.5")
    found = task.gram_residuals(params, images.load("o.png").rgb, images.load("photo.png").rgb, config)
    for name, value in read_json("o.json")["gram_residuals"].items():
        np.testing.assert_allclose(value, found[name], rtol=1e-4)


@pytest.mark.parametrize("kind", ["gray", "alpha", "large"])
def test_samples_of_any_kind(here, weights, kind):
    rng = np.random.default_rng(0)
    sample = {"gray": (20, 17), "alpha": (18, 21, 4), "large": (61, 50, 3)}[kind]
    Image.fromarray(rng.integers(0, 256, sample, dtype=np.uint8)).save("photo.png")
    assert call(*PATCHES, weights, "--output=o.png") == 0
    made, shown = pixels("o.png"), np.rint(images.load("photo.png").opaque() * 255).astype(int)
    assert {*map(tuple, made.reshape(-1, 3))} <= {*map(tuple, shown.reshape(-1, 3))}


def test_the_sample_is_brought_to_its_size(here, weights, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=np.uint8)).save("photo.png")
    assert call(*PATCHES, weights, "--sample_size=40", "--output=o.png") == 0
    assert "sample: 40x20  texture: 40x24" in capsys.readouterr().out


@pytest.mark.slow
def test_random_filters_see_the_same_in_steps_and_residuals(here, capsys):
    more = ["--weights=random:3", "--size=16", "--scales=1", "--layers=relu1_1", "--steps=3", "--print_every=1"]
    assert call(*GRAM, *more, "--output=o.png") == 0
    record = read_json("o.json")
    best = next(row for row in record["trace"] if row["step"] == record["best_step"])
    np.testing.assert_allclose(record["gram_residuals"]["relu1_1"] ** 2 * 100, best["style"], rtol=1e-3)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bytes(here, weights, monkeypatch, capsys):
    run = [*GRAM, weights, "--checkpoint_every=1"]
    assert call(*run, "--output=whole.png") == 0
    for step in (3, 4, 5):  # within the first scale, where it ends, within the second

        def stop(self, record, at=step):
            if record.step == at:
                os.kill(os.getpid(), signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr("jnst.cli.progress.Progress.show", stop)
            assert call(*run, f"--output={step}.png") == 130
        assert f"step {step} is kept" in capsys.readouterr().err
        assert read_json(f"{step}.json")["gram_residuals"].keys() == {"relu1_1", "pool1"}
        assert pixels(f"{step}.png").shape == (24, 24, 3)
        assert call(*run, f"--output={step}.png", "--resume") == 0
        assert f"going on from step {step}\n" in capsys.readouterr().out
        assert (here / f"{step}.png").read_bytes() == (here / "whole.png").read_bytes()
        assert read_json(f"{step}.json")["trace"] == read_json("whole.json")["trace"]
    assert call(*run, "--output=whole.png", "--resume") == 0
    assert capsys.readouterr().out == "whole.png: finished already, at step 8\n"
    assert call(*run, "--output=whole.png", "--resume", "--noise_width=5") == 2
    assert_one_line(capsys.readouterr().err, "--noise_width=5", "--noise_width=64")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(here, weights):
    run = [*GRAM, weights, "--checkpoint_every=1", "--print_every=1", "--steps=150"]
    child = subprocess.Popen([*COMMAND, *run, "--output=o.png"], stdout=subprocess.PIPE, text=True)
    read_until(child.stdout, "step 160/")
    child.kill()
    child.communicate()
    assert 100 < checkpoint.read("o.png").facts["step"] < 300
    assert call(*run, "--output=o.png", "--resume") == 0
    assert call(*run, "--output=whole.png") == 0
    assert (here / "o.png").read_bytes() == (here / "whole.png").read_bytes()


BAD = {
    "no image": (["--image="], ["--image is missing"]),
    "no output": (["--output="], ["--output is missing"]),
    "image is not there": (["--image=nothing.png"], ["nothing.png: no such file"]),
    "image is no picture": (["--image=text.png"], ["text.png: not a picture"]),
    "size is a word": (["--size=large"], ["--size=large: expected a side in pixels"]),
    "size of nothing": (["--size=0"], ["--size=0: expected a side in pixels"]),
    "size of three sides": (["--size=16x16x3"], ["--size=16x16x3: expected a side in pixels"]),
    "size too small": (["--size=24x15", "--layers=pool4"], ["--size=24x15: expected at least 16 pixels"]),
    "sample too small": (
        ["--sample_size=9", "--layers=pool4"],
        ["--image=photo.png: 9x9 pixels; expected at least 16 pixels"],
    ),
    "size too large for the ending": (["--size=20000x16", "--output=o.webp"], ["20000"]),
    "no multiple": (["--size=24x17", "--tileable"], ["--size=24x17: expected multiples of 2 with --tileable"]),
    "tileable and padded": (["--tileable", "--padding=reflect"], ["--padding=reflect: a tileable texture"]),
    "tileable in tiles": (["--tileable", "--tile=16"], ["--tile=16: a tileable texture"]),
    "torus in tiles": (["--padding=wrap", "--tile=16"], ["--tile=16: has no --padding=wrap"]),
    "tile too small": (["--tile=8"], ["--tile=8: expected auto, 0, or a whole number from 16"]),
    "unknown layer": (["--layers=relu9_9"], ["--layers=relu9_9", "'relu9_9' is no layer"]),
    "no layer": (["--layers="], ["--layers=", "expected"]),
    "layer that the weights lack": (
        ["--weights=net.npz", "--layers=relu2_1"],
        ["--layers: relu2_1 is not in --weights=net.npz"],
    ),
    "nine scales": (["--scales=9"], ["--scales=9: expected one of 1, 2"]),
    "no scale": (["--scales=0"], ["--scales=0: expected one of 1, 2"]),
    "steps of none": (["--steps=0"], ["--steps=0: expected"]),
    "unknown method": (["--method=magic"], ["--method=magic: expected one of gram, patches"]),
    "unknown histogram": (["--histogram=some"], ["--histogram=some: expected one of none, match"]),
    "patch larger than the sample": (
        ["--method=patches", "--patch=17"],
        ["--patch=17: expected at most 16", "--image=photo.png has 16x16 pixels"],
    ),
    "patch too small": (["--method=patches", "--patch=3"], ["--patch=3: expected"]),
    "patch larger than the tile": (
        ["--method=patches", "--patch=12", "--size=24x11", "--tileable"],
        ["--size=24x11: expected at least --patch=12 on each side"],
    ),
    "tolerance below 0": (["--method=patches", "--tolerance=-1"], ["--tolerance=-1"]),
    "unknown ending": (["--output=o.bmp"], ["--output=o.bmp: expected a name ending in .png"]),
    "folder is a file": (["--output=text.png/o.png"], ["--output=text.png/o.png: cannot be written"]),
    "folder is a file, patches": (
        ["--output=text.png/o.png", "--method=patches"],
        ["--output=text.png/o.png: cannot be written"],
    ),
    "output is the image": (["--output=photo.png"], ["would replace photo.png"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_nothing_is_written(here, weights, capsys, name):
    (here / "text.png").write_text("words")
    np.savez("net.npz", **{"block1_conv1/kernel": np.ones((3, 3, 3, 4)), "block1_conv1/bias": np.zeros(4)})
    before = listed(here)
    flags, words = BAD[name]
    assert call(*GRAM, weights, "--output=o.png", *flags) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(here) == before


def test_the_preset_is_the_published_numbers():
    from absl import flags as absl_flags

    from jnst.cli import flags

    values = absl_flags.FlagValues()
    flags.define(TextureConfig, values)
    flags.parse(values, ["texture", "--flagfile=gatys2015", "--image=a.png", "--output=b.png"])
    config = flags.to_config(TextureConfig, values)
    check_texture(config)
    names = "layers pooling history steps preconditioner normalization scales size histogram method tv_weight".split()
    expected = ["relu1_1:1,pool1:1,pool2:1,pool3:1,pool4:1", "avg", 20, 2000, "none", "gatys", "1", "256"]
    assert [getattr(config, name) for name in names] == [*expected, "match", "gram", 0.0]
    assert config.noise_width**2 == pytest.approx(3)  # of a uniform distribution with deviation 1
