"""`pix2pix` and `cyclegan` as their user sees them: what a training leaves, that it repeats and goes on to the same
bytes, pictures of any size out of it, measures, and what is refused. What all GANs share is in test_dcgan.py."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from PIL import Image

from cli.command import ROOT, assert_one_line, listed, read_json, read_until
from jnst import comparisons, images
from jnst.cli import cyclegan, pix2pix
from jnst.cli.gan_work import Work
from jnst.config import Pix2pixConfig, ResnetSpec, UnetSpec
from jnst.weights import generators

TINY = ["--size=32", "--width=2", "--patch=16", "--print_every=1", "--checkpoint_every=1"]
PAIRS = ["pix2pix", "train", *TINY, "--data=pairs", "--direction=BtoA"]
KINDS = ["cyclegan", "train", *TINY, "--a=a", "--b=b", "--blocks=1", "--pool=2", "--distance_pictures=0"]
FILES = ["curves.png", "epochs.gif", "losses.csv", "sheet.png", "training.flags", "training.json"]
PATIENCE = 240


def call(*arguments):
    return {"pix2pix": pix2pix, "cyclegan": cyclegan}[arguments[0]].main(list(arguments))


def left(folder):
    return [name for name in listed(Path(folder)) if not name.startswith(("training.ckpt/", "sheets/"))]


def _save(path, *halves):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * np.concatenate(halves, 1)).astype(np.uint8)).save(path)


def _fill(folder):
    """Pairs of a smooth picture and its negative; and two folders of such."""
    for number in range(6):
        picture = reference.smooth_picture(36, 36, seed=number)
        place = "val" if number > 3 else "train"
        _save(folder / "pairs" / place / f"{number}.png", picture, 1 - picture)
        _save(folder / "a" / f"{number}.png", picture)
        _save(folder / "b" / f"{number}.png", 1 - reference.smooth_picture(40, 36, seed=number + 9))


@pytest.fixture
def studio(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    _fill(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with `p`, a pix2pix, and `c`, a CycleGAN, of three steps each."""
    folder = tmp_path_factory.mktemp("trained")
    _fill(folder)
    for words, output in ((PAIRS, "p"), (KINDS, "c")):
        places = [f"--{name}={folder / name}" for name in ("a", "b")] if output == "c" else [f"--data={folder}/pairs"]
        assert call(*words, "--steps=3", *places, f"--output={folder / output}") == 0
    return folder


@pytest.mark.slow
def test_a_training_leaves_all_of_it(trained):
    assert left(trained / "p") == sorted([*FILES, "generator.safetensors"])
    assert left(trained / "c") == sorted([*FILES, "AtoB.safetensors", "BtoA.safetensors"])
    found = generators.load(trained / "p" / "generator.safetensors", UnetSpec)
    assert (found.spec.levels, found.spec.width, found.record["flags"]["direction"]) == (5, 2, "BtoA")
    other = generators.load(trained / "c" / "BtoA.safetensors", ResnetSpec)
    assert (other.spec.blocks, other.record["direction"]) == (1, "BtoA")
    record = json.loads((trained / "p" / "training.json").read_text())
    assert record["data"] == {"train": 4, "held_out": 2}
    assert set(record["distances"]["networks"]["pix2pix"]) >= {"l1", "ssim", "histogram_L"}
    assert [row["step"] for row in record["trace"]] == [1, 2, 3]
    sheet = images.load(trained / "p" / "sheet.png").rgb
    assert sheet.shape == (2 * 36 + 4, 3 * 36 + 4, 3)  # two pairs that are held out: input, output, truth
    source = reference.smooth_picture(36, 36, seed=4)
    tile = np.asarray(images.resize(images.Picture(source.astype(np.float32)), (32, 32)).rgb)
    assert np.abs(sheet[4:36, 4:36] - (1 - tile)).max() < 0.02  # B goes in
    assert np.abs(sheet[4:36, 76:108] - tile).max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("words", "name"), [(PAIRS, "generator"), (KINDS, "AtoB")])
def test_from_a_checkpoint_it_goes_on_to_the_same_bytes(studio, trained, words, name):
    """A CycleGAN's pool is full after its second step."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", f"jnst.cli.{words[0]}", *words[1:], "--steps=3", "--output=o"],
        stdout=subprocess.PIPE,
        text=True,
    )
    read_until(process.stdout, "step 2/")
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert not (studio / "o" / "training.json").exists()
    assert call(*words, "--steps=3", "--output=o", "--resume") == 0
    folder = trained / ("p" if words is PAIRS else "c")
    for file in (f"{name}.safetensors", "sheet.png"):
        assert (studio / "o" / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.parametrize(
    ("losses", "panels"),
    [
        (("generator", "discriminator"), [("generator", "discriminator")]),
        (("generator", "discriminator", "l1"), [("generator",), ("discriminator", "l1")]),
        (("generator", "l1"), [("generator",), ("l1",)]),
    ],
)
def test_curves_of_one_size_share_a_panel(losses, panels):
    """A generator's loss with a hundred times another one in it would leave that on the axis."""
    work = Work(Pix2pixConfig(data="pairs", output="o"))
    work.terms = (*losses, "real", "fake")
    rows = [{"step": step, "net": 0, **dict.fromkeys(work.terms, 0.5)} for step in (1, 2)]
    found = [tuple(name for name, _, _ in panel.lines) for panel in work.panels(rows)]
    assert found == [*panels, ("real", "fake")]


@pytest.mark.slow
def test_several_networks_and_batches(studio):
    assert call(*PAIRS, "--steps=2", "--batch=4", "--loss=l1", "--seeds=2", "--output=o") == 0
    assert [name for name in left("o") if name.endswith("safetensors")] == [
        f"seed={seed}/generator.safetensors" for seed in (0, 1)
    ]
    found = generators.load("o/seed=1/generator.safetensors", UnetSpec)
    assert (found.spec.norm, found.record["flags"]["seed"]) == ("batch", 1)
    assert Path("o/losses.csv").read_text().splitlines()[0] == "step,epoch,network,generator,l1,seconds"
    assert call("pix2pix", "test", "o", "a/0.png", "x.png", "--net=seed=1") == 0
    assert images.load("x.png").size == (36, 36)


@pytest.mark.slow
def test_pictures_of_any_size(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    _save(trained / "odd" / "in" / "tall.png", reference.smooth_picture(77, 45, seed=1))
    _save(trained / "odd" / "pair.png", *2 * [reference.smooth_picture(20, 20, seed=2)])
    assert call("pix2pix", "test", "p", "odd/in/tall.png", "one.png") == 0
    assert images.load("one.png").size == (45, 77)
    assert call("pix2pix", "test", "p", "odd/in/tall.png", "two.png", "--size=64") == 0
    assert images.load("two.png").size == (37, 64)
    assert call("cyclegan", "test", "c", "odd/in/tall.png", "three.png", "--direction=BtoA") == 0
    assert call("cyclegan", "test", "c/BtoA.safetensors", "odd/in/tall.png", "four.png") == 0
    assert Path("three.png").read_bytes() == Path("four.png").read_bytes()
    capsys.readouterr()
    assert call("pix2pix", "test", "p", "odd", "out") == 0
    assert "odd/pair.png: an A|B picture, of which B goes in (--pairs=no: all of it)" in capsys.readouterr().err
    assert images.load("out/pair.png").size == (20, 20)
    assert call("pix2pix", "test", "p", "odd", "out") == 0
    assert "0 of 2 pictures made, 2 were there already" in capsys.readouterr().out
    assert call("pix2pix", "test", "p", "odd/pair.png", "whole.png", "--pairs=no") == 0
    assert images.load("whole.png").size == (40, 20)


@pytest.mark.slow
def test_noise_is_by_seed(trained, monkeypatch):
    monkeypatch.chdir(trained)
    flags = (["--seed=1"], ["--seed=1"], ["--seed=2"], ["--nonoise"], ["--nonoise", "--seed=2"])
    for number, each in enumerate(flags):
        assert call("pix2pix", "test", "p", "a/0.png", f"n{number}.png", *each) == 0
    one, again, other, still, still_again = (images.load(f"n{number}.png").rgb for number in range(5))
    assert (one == again).all()
    assert (one != other).any()
    assert (still == still_again).all()
    assert (still != one).any()


@pytest.mark.slow
def test_evaluate_measures_what_test_makes(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert call("pix2pix", "evaluate", "p", "pairs/val", "--nonoise", "--size=36") == 0
    found = read_json("p/evaluation.json")
    assert call("pix2pix", "test", "p", "pairs/val", "made", "--nonoise") == 0
    pairs = [
        (images.load(f"made/{number}.png").rgb, images.load(f"pairs/val/{number}.png").rgb[:, :36]) for number in (4, 5)
    ]
    assert found["pictures"] == 2
    assert found["l1"] == pytest.approx(np.mean([comparisons.l1(*pair) for pair in pairs]), rel=1e-4)
    assert found["ssim"] == pytest.approx(np.mean([comparisons.ssim(*pair) for pair in pairs]), abs=1e-4)
    shares = comparisons.histogram_intersection(*zip(*pairs, strict=True))
    assert [found[f"histogram_{name}"] for name in "Lab"] == pytest.approx([shares[name] for name in "Lab"], abs=1e-4)
    assert "labels" not in found  # smooth pictures are no label maps
    assert "L1 " in capsys.readouterr().out
    Path("p/evaluation.json").write_text("mine")
    assert call("pix2pix", "evaluate", "p", "pairs/val") == 2
    assert_one_line(capsys.readouterr().err, "p/evaluation.json", "did not write")
    Path("p/evaluation.json").unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*PAIRS, "--data="], ("--data is missing",)),
        ([*PAIRS, "--data=nowhere"], ("--data=nowhere", "no such folder")),
        ([*PAIRS, "--output=pairs/o"], ("--output=pairs/o", "--data=pairs")),
        ([*PAIRS, "--size=100"], ("--size=100", "32, 64, 128, 256, 512")),
        ([*PAIRS, "--loss=l2"], ("--loss=l2", "l1+cgan")),
        ([*PAIRS, "--patch=71"], ("--patch=71", "70")),
        ([*KINDS, "--b="], ("--b is missing",)),
        ([*KINDS, "--b=empty"], ("--b=empty", "no picture")),
        ([*KINDS, "--output=b/o"], ("--output=b/o", "--b=b")),
        (["pix2pix", "test", "a", "b/0.png", "x.png"], ("a:", "generator.safetensors", "pix2pix train")),
        (["pix2pix", "test", "a"], ("test: expected", "found 1")),
        (["cyclegan", "test", "a", "b", "x"], ("a:", "AtoB.safetensors")),
        (["pix2pix", "evaluate", "nothing", "pairs"], ("nothing", "no such file")),
        (["pix2pix", "test", "text", "b/0.png", "x.png"], ("text", "not a whole safetensors file")),
    ],
)
def test_bad_input_is_one_line(studio, capsys, arguments, words):
    (studio / "empty").mkdir()
    (studio / "text").write_text("mine")
    before = listed(studio)
    output = ["--output=o"] if arguments[1] == "train" else []
    assert call(*arguments[:2], *output, *arguments[2:]) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(studio) == before


@pytest.mark.slow
def test_a_network_of_another_kind_is_refused(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    capsys.readouterr()
    for words in (["pix2pix", "test", "c/AtoB.safetensors"], ["cyclegan", "test", "p/generator.safetensors"]):
        assert call(*words, "a/0.png", "x.png") == 2
        assert_one_line(capsys.readouterr().err, words[2], f"not a generator of bin/{words[0]}")
    assert call("pix2pix", "test", "p", "a/0.png", "a/0.png") == 2
    assert_one_line(capsys.readouterr().err, "would replace")
    assert not Path("x.png").exists()
