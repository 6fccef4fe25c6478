"""`distill` as its user sees it: what it writes, that it repeats, how it goes on, and what it refuses."""

import random
import re
import shutil
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import reference
import safetensors.numpy
from PIL import Image

import jnst
from cli.command import assert_one_line, listed, read_json, read_until
from jnst import weights
from jnst.cli import checkpoint, training
from jnst.cli import distill as command
from jnst.nets import vgg
from jnst.weights.canonical import read_facts

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.distill"]
FROM = ["--photos=photos", "--teacher=net.safetensors"]
SMALL = ["--deepest=relu2_1", "--widths=2,3", "--crop=16", "--batch=2", "--steps=6", "--warmup=2"]
SMALL += ["--learning_rate=0.02", "--average_decay=0.5", "--reuse=2", "--pool=2", "--print_every=1"]
RUN = [*FROM, *SMALL]
PATIENCE = 120


def call(*arguments):
    return command.main(["distill", *arguments])


def start(*arguments):
    return subprocess.Popen([*COMMAND, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def photo(path, seed):
    picture = reference.smooth_picture(24 + seed, 30, seed)
    Image.fromarray(np.round(255 * picture).astype(np.uint8)).save(path)


@pytest.fixture
def few(monkeypatch):
    """Fewer crops to begin with and to score on: the same work in less time."""
    monkeypatch.setattr(training, "_START", 6)
    monkeypatch.setattr(training, "_SCORED", 3)


@pytest.fixture
def studio(here, tiny):
    """Six photos, of which the first is held out, and teachers down to conv2_1 and to conv1_2."""
    for name in ("photo.png", "painting.png"):
        (here / name).unlink()
    (here / "photos").mkdir()
    for seed in range(6):
        photo(here / "photos" / f"{seed}.png", seed)
    for name, last in (("net", "conv2_1"), ("shallow", "conv1_2")):
        kept = {layer: tiny[layer] for layer in ("mean", *vgg.convolutions([last]))}
        weights.save_safetensors(f"{name}.safetensors", kept, origin=f"{name} of the tests", licence="CC0")
    return here


def contents(folder):
    return {name: (folder / name).read_bytes() for name in listed(folder)}


# ---- What it writes


@pytest.mark.slow
def test_a_training_leaves_weights_a_record_and_a_flagfile(studio, few, capsys):
    before = listed(studio)
    assert call(*RUN, "--output=out/o.safetensors") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert sorted(set(listed(studio)) - set(before)) == [
        f"out/o.{end}" for end in ("ckpt", "flags", "json", "safetensors")
    ]
    for words in (
        "teaches relu1_1 to relu2_1",
        "5 to train on, 1 held out",
        "step 6/6",
        "relu2_1  R2 ",
        "--weights=out/o",
    ):
        assert words in out
    record = read_json("out/o.json")
    assert record["photos"] == {"trained": 5, "held_out": 1}
    assert [row["step"] for row in record["trace"]] == [1, 2, 3, 4, 5, 6]
    assert list(record["scores"]) == ["relu1_1", "relu1_2", "relu2_1"]
    assert all(0.3 < score["r2"] < 1 and 0.9 < score["gram_cosine"] < 1 for score in record["scores"].values())
    assert record["teachers"][0]["sha256"] == weights.load("net.safetensors").sha256
    assert record["sha256"] == weights.load("out/o.safetensors").sha256
    assert f"--photos={studio / 'photos'}\n" in (studio / "out" / "o.flags").read_text()


@pytest.mark.slow
def test_the_weights_are_a_backbone_in_half_precision_that_stylizes(studio, few):
    assert call(*RUN, "--output=o.safetensors", "--padding=reflect") == 0
    types = {array.dtype for name, array in safetensors.numpy.load_file("o.safetensors").items() if name != "mean"}
    assert types == {np.dtype(np.float16)}
    found = weights.load("o.safetensors")
    assert found.convolutions == ("conv1_1", "conv1_2", "conv2_1")
    assert [found.params[name]["bias"].shape[0] for name in found.convolutions] == [2, 2, 3]
    assert (found.padding, found.licence) == ("reflect", "CC0")
    assert "net of the tests" in found.origin
    assert read_facts("o.safetensors")["widths"] == [2, 2, 3]
    maps = vgg.features(found.params, jnp.asarray(reference.smooth_picture(16, 16, 9)), ["relu2_1"], pooling="avg")
    assert float(maps["relu2_1"].std()) > 0
    pictures = (reference.smooth_picture(16, 16, seed) for seed in (1, 2))
    layers = {"style_layers": "relu1_1,relu2_1", "content_layers": "relu2_1"}
    result = jnst.stylize(*pictures, weights="o.safetensors", steps=3, size=16, optimizer="adam", **layers)
    assert np.isfinite(result.image).all()
    assert result.trace[-1]["total"] < result.trace[0]["total"]


@pytest.mark.slow
def test_equal_flags_give_equal_bytes_and_the_flagfile_makes_it_again(studio, few):
    for name in ("a", "b"):
        assert call(*RUN, f"--output={name}.safetensors") == 0
    assert call("--flagfile=a.flags", "--output=c.safetensors") == 0
    assert call(*RUN, "--output=d.safetensors", "--seed=1") == 0
    a, b, c, d = ((studio / f"{name}.safetensors").read_bytes() for name in "abcd")
    assert a == b == c != d


@pytest.mark.slow
def test_two_teachers_and_a_deeper_one_fills_what_the_first_has_not(studio, few, capsys):
    flags = ["--teacher=shallow.safetensors", "--deep_teacher=net.safetensors", "--output=o.safetensors"]
    assert call(*RUN, *flags) == 0
    out = capsys.readouterr().out
    assert "shallow.safetensors: teaches relu1_1 to relu1_2\nnet.safetensors: teaches relu2_1 to relu2_1\n" in out
    assert [teacher["name"] for teacher in read_json("o.json")["teachers"]] == [
        "shallow.safetensors",
        "net.safetensors",
    ]
    found = weights.load("o.safetensors")
    assert found.convolutions[-1] == "conv2_1"
    assert found.licence == "CC0"
    assert "shallow" in found.origin
    assert "net" in found.origin


# ---- Going on


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
def test_from_a_checkpoint_it_goes_on_to_the_same_bytes(studio, few, monkeypatch, capsys, step):
    assert call(*RUN, "--output=whole.safetensors") == 0
    write = checkpoint.write

    def stopping(output, snapshot, facts):
        """Ctrl-C right after a checkpoint."""
        write(output, snapshot, facts)
        if facts["step"] == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", stopping)
    assert call(*RUN, "--output=o.safetensors", "--checkpoint_every=2") == 130
    assert not (studio / "o.safetensors").exists()
    monkeypatch.undo()
    monkeypatch.chdir(studio)
    monkeypatch.setattr(training, "_SCORED", 3)
    capsys.readouterr()
    assert call(*RUN, "--output=o.safetensors", "--resume") == 0
    assert f"going on from step {step}\n" in capsys.readouterr().out
    assert (studio / "o.safetensors").read_bytes() == (studio / "whole.safetensors").read_bytes()
    one, other = read_json("o.json"), read_json("whole.json")
    assert (one["trace"], one["scores"]) == (other["trace"], other["scores"])


@pytest.mark.slow
def test_a_finished_training_is_only_scored_again(studio, few, capsys):
    assert call(*RUN, "--output=o.safetensors") == 0
    before = (studio / "o.safetensors").read_bytes()
    (studio / "o.safetensors").unlink()
    capsys.readouterr()
    assert call(*RUN, "--output=o.safetensors", "--resume") == 0
    assert "step 1/6" not in capsys.readouterr().out
    assert (studio / "o.safetensors").read_bytes() == before


@pytest.mark.slow
def test_without_a_checkpoint_it_starts_anew_and_says_so(studio, few, capsys):
    assert call(*RUN, "--output=o.safetensors", "--resume", "--checkpoint_every=0") == 0
    assert "o.ckpt: no checkpoint: the training starts anew\n" in capsys.readouterr().out
    assert not (studio / "o.ckpt").exists()


def _photos_changed(folder):
    photo(folder / "photos" / "7.png", 7)


def _teacher_changed(folder):
    net = dict(weights.load("net.safetensors").params)
    weights.save_safetensors("net.safetensors", {**net, "mean": np.zeros(3, np.float32)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "flags", "words"),
    [
        (None, ["--steps=7"], "--steps=7"),
        (None, ["--teacher=shallow.safetensors", "--deep_teacher=net.safetensors"], "teacher="),
        (None, ["--photos=photos,photos"], "--photos="),
        (None, ["--seed=1"], "--seed=1"),
        (_photos_changed, [], "--photos: not what it was"),
        (_teacher_changed, [], "--teacher: not what it was"),
    ],
    ids=["steps", "another teacher", "other photos", "seed", "a photo more", "a teacher that has changed"],
)
def test_another_training_is_not_gone_on_with(studio, few, capsys, change, flags, words):
    assert call(*RUN, "--output=o.safetensors") == 0
    if change:
        change(studio)
    before = contents(studio)
    capsys.readouterr()
    assert call(*RUN, *flags, "--output=o.safetensors", "--resume") == 2
    assert_one_line(capsys.readouterr().err, words, "o.ckpt", "--resume")
    assert contents(studio) == before


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), [(signal.SIGINT, 1), (signal.SIGKILL, 2)], ids=["SIGINT", "SIGKILL"])
def test_interrupted_at_a_random_step_it_goes_on_to_the_same_bytes(studio, kind, seed):
    flags = [*RUN, "--steps=400", f"--seed={seed}", f"--checkpoint_every={1000 if kind == signal.SIGINT else 3}"]
    assert call(*flags, "--output=whole.safetensors") == 0
    step = random.Random(seed).randrange(3, 150)
    child = start(*flags, "--output=o.safetensors")
    try:
        read_until(child.stdout, f"step {step}/400")
        child.send_signal(kind)
        _, err = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
        child.wait()
    assert "Traceback" not in err
    kept = checkpoint.read("o.safetensors").facts["step"]
    if kind == signal.SIGINT:
        assert child.returncode == 130
        assert re.search(rf"interrupted after step {kept}; step {kept} is kept.*--resume", err)
    else:
        assert child.returncode == -signal.SIGKILL
    assert step - 3 <= kept < 400
    assert not (studio / "o.safetensors").exists()
    (studio / ".o.json.abcdefgh.part").write_bytes(b"half")
    assert call("--flagfile=o.flags", "--resume") == 0
    assert not list(studio.glob(".*"))
    assert (studio / "o.safetensors").read_bytes() == (studio / "whole.safetensors").read_bytes()
    assert read_json("o.json")["trace"] == read_json("whole.json")["trace"]


# ---- Mistakes

BAD = {
    "no photos": (["--photos="], "--photos is missing"),
    "no teacher": (["--teacher="], "--teacher is missing"),
    "no output": (["--output="], "--output is missing"),
    "unknown flag": (["--crops=3"], "crops"),
    "no such folder": (["--photos=nowhere"], "--photos=nowhere: no such folder"),
    "a file as folder": (["--photos=photos/1.png"], "--photos=photos/1.png: no such folder"),
    "no picture in it": (["--photos=bare"], "--photos=bare: no picture in this folder"),
    "one picture": (["--photos=single"], "--photos=single: one picture only"),
    "a comma too many": (["--photos=photos,"], "--photos="),
    "only broken ones": (["--photos=broken"], "broken: none of 1 pictures can be read"),
    "another ending": (["--output=x.npz"], "--output=x.npz: expected a name that ends in .safetensors"),
    "output under a file": (["--output=text.png/o.safetensors"], "--output=text.png/o.safetensors: cannot be written"),
    "output is a folder": (["--output=folder.safetensors"], "--output=folder.safetensors: is a folder"),
    "output is the teacher": (["--output=net.safetensors"], "would replace net.safetensors"),
    "a flagfile written by hand": (["--output=mine.safetensors"], "would replace mine.flags"),
    "somebody else's checkpoint": (["--output=theirs.safetensors"], "would replace theirs.ckpt"),
    "a record of something else": (["--output=other.safetensors"], "would replace other.json"),
    "record is a folder": (["--output=taken.safetensors"], "taken.json: is a folder"),
    "a name that is no text": (["--output=out/\udcff.safetensors"], "expected a name in UTF-8"),
    "a width that is none": (["--widths=1,a"], "--widths=1,a: expected 2 whole numbers"),
    "a width of zero": (["--widths=2,0"], "--widths=2,0: expected 2 whole numbers"),
    "too few widths": (["--widths=2"], "--widths=2: expected 2 whole numbers"),
    "wider than the teacher": (
        ["--widths=2,9"],
        "--widths=2,9: 9 channels in relu2_1; expected no more than the 5 that",
    ),
    "odd crop": (["--crop=17"], "--crop=17: expected a multiple of 2"),
    "small crop": (["--crop=8"], "--crop=8: expected a number not below 16"),
    "no layer": (["--deepest=relu9_9"], "--deepest=relu9_9: expected a layer such as relu5_1"),
    "before the rectifier": (["--deepest=conv2_1"], "--deepest=conv2_1: expected a layer such as relu5_1"),
    "no number": (["--learning_rate=nan"], "--learning_rate=nan: expected a finite number"),
    "unknown pooling": (["--pooling=min"], "--pooling=min: expected one of max, avg, l2"),
    "missing teacher": (["--teacher=nothing.safetensors"], "--teacher=nothing.safetensors: no such file"),
    "missing second teacher": (["--deep_teacher=nothing.pth"], "--deep_teacher=nothing.pth: no such file"),
    "text as teacher": (["--teacher=text.png"], "text.png: not a weights file"),
    "too shallow": (["--teacher=shallow.safetensors"], "--deepest=relu2_1: no teacher has relu2_1"),
    "device unknown": (["--device=foo"], "--device=foo: expected auto, cpu, gpu, tpu"),
}


@pytest.fixture
def troubled(studio):
    for name in ("bare", "single", "broken", "folder.safetensors", "taken.json"):
        (studio / name).mkdir()
    shutil.copy("photos/1.png", "single/1.png")
    for name in ("text.png", "broken/a.png", "broken/b.jpg"):
        (studio / name).write_text("These are words, and not a picture.\n")
    (studio / "mine.flags").write_text("--crop=16\n")
    (studio / "other.json").write_text("[1]")
    safetensors.numpy.save_file({"a": np.zeros(3)}, "theirs.ckpt")
    return studio


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_everything(troubled, few, capsys, case):
    flags, message = BAD[case]
    before = contents(troubled)
    assert call(*RUN, "--output=out/o.safetensors", *flags) == 2
    # Files that cannot be read are named one by one before the end.
    lines = [line for line in capsys.readouterr().err.splitlines(keepends=True) if "skipped: " not in line]
    assert_one_line("".join(lines), message)
    assert contents(troubled) == before
    assert not (troubled / "out").exists()


@pytest.mark.slow
def test_a_broken_photo_is_named_once_and_passed_over(studio, few, capsys):
    for name in ("3.png", "4.png"):
        data = (studio / "photos" / name).read_bytes()
        (studio / "photos" / name).write_bytes(data[: len(data) // 2])
    assert call(*RUN, "--output=o.safetensors") == 0
    lines = capsys.readouterr().err.splitlines()
    assert sorted(re.findall(r"[34]\.png", "\n".join(lines))) == ["3.png", "4.png"], lines
    assert all(line.startswith("jnst: skipped: ") for line in lines)


@pytest.mark.slow
def test_a_broken_photo_among_those_held_out_is_said_before_the_training(studio, few, capsys):
    """With few photos one is held out: if that cannot be read, hours of training would end without a file."""
    (studio / "photos" / "0.png").write_text("words")
    code = call(*RUN, "--output=o.safetensors")
    out, err = capsys.readouterr()
    assert "0.png" in err
    assert (code, (studio / "o.safetensors").exists()) == (0, True) or (code == 2 and "step 1/" not in out)


@pytest.mark.slow
def test_a_picture_without_contrast_does_not_spoil_the_scores(studio, few):
    Image.new("RGB", (30, 30), "white").save("photos/0.png")
    assert call(*RUN, "--output=o.safetensors") == 0
    assert all(-1 < score["r2"] <= 1 for score in read_json("o.json")["scores"].values())


# ---- What is asked without work


def test_no_arguments_print_usage(capsys):
    assert call() == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: distill --photos=FOLDER")
    assert err == ""


def test_help_has_every_flag_and_waits_for_nothing(here):
    code = """
import sys
from jnst.cli.distill import main
codes = [main(["distill", *words.split()]) for words in ("", "--help", "--version", "--widths=a")]
sys.exit(f"{codes} {[name for name in ('jax', 'numpy') if name in sys.modules]}")
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 2] []"
    for name in ("photos", "teacher", "deep_teacher", "widths", "resume", "flagfile"):
        assert f"\n  --{name}" in done.stdout
