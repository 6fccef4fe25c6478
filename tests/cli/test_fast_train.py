"""`fast train` as its user sees it: what it leaves, that it repeats, how it goes on, and what it refuses."""

import random
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import reference
from PIL import Image

from cli.command import assert_one_line, listed, read_json, read_until
from jnst import images
from jnst.cli import fast as command
from jnst.cli import fast_results
from jnst.cli.training_checkpoints import Checkpoints
from jnst.weights import stylenets

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.fast", "train"]
SMALL = ["--photos=photos", "--size=16", "--style_size=20", "--widths=3,4", "--blocks=1", "--kernel=3", "--batch=2"]
SMALL += ["--steps=4", "--content_layers=relu2_1", "--style_layers=relu1_1,relu2_1", "--weights=net.safetensors"]
SMALL += ["--print_every=1", "--checkpoint_every=2", "--average_decay=0.5"]
RUN = [*SMALL, "--style=art/a.png"]
PATIENCE = 240


def call(*arguments):
    return command.main(["fast", "train", *arguments])


def start(*arguments):
    return subprocess.Popen([*COMMAND, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def picture(path, seed):
    path.parent.mkdir(exist_ok=True)
    found = reference.smooth_picture(24 + seed, 30, seed)
    Image.fromarray(np.round(255 * found).astype(np.uint8)).save(path)


@pytest.fixture
def studio(tmp_path, monkeypatch, tiny_file):
    """A folder with photos, paintings and a small backbone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fast_results, "_SCORED", 3)
    monkeypatch.setattr(fast_results, "_SIDE", 32)
    for seed in range(6):
        picture(tmp_path / "photos" / f"{seed}.png", seed)
    for seed, name in enumerate("ab", 11):
        picture(tmp_path / "art" / f"{name}.png", seed)
    (tmp_path / "net.safetensors").write_bytes(open(tiny_file, "rb").read())
    return tmp_path


@pytest.mark.slow
def test_a_training_leaves_a_network_a_sheet_a_record_and_a_flagfile(studio, capsys):
    before = listed(studio)
    assert call(*RUN, "--output=out/n.safetensors", "--save_every=3", "--licence=CC0-1.0") == 0
    out, err = capsys.readouterr()
    assert err == ""
    left = {name for name in set(listed(studio)) - set(before) if not name.startswith("out/n.ckpt/")}
    assert left == {f"out/n.{ending}" for ending in ("safetensors", "jpg", "json", "flags")} | {"out/n-000003.jpg"}
    for words in ("5 to train on, 1 held out", "step 4/4  total ", "held out: total", "see out/n.jpg"):
        assert words in out
    net = stylenets.load("out/n.safetensors")
    assert (net.styles, net.licence) == (("a",), "CC0-1.0")
    assert (net.spec.widths, net.spec.blocks, net.spec.kernel) == ((3, 4), 1, 3)
    assert net.record["steps"] == 4
    assert net.record["flags"]["style"] == "a.png"  # no folders
    record = read_json("out/n.json")
    assert record["photos"] == {"trained": 5, "held_out": 1}
    assert [row["step"] for row in record["trace"]] == [1, 2, 3, 4]
    assert record["held_out"]["n.safetensors"] == net.record["held_out"]
    assert images.load("out/n.jpg").size == images.load("out/n-000003.jpg").size
    assert f"--photos={studio / 'photos'}\n" in (studio / "out" / "n.flags").read_text()


@pytest.mark.slow
def test_equal_flags_give_equal_bytes_and_so_does_the_flagfile(studio):
    assert call(*RUN, "--output=a.safetensors") == 0
    assert call("--flagfile=a.flags", "--output=b.safetensors") == 0
    assert call(*RUN, "--output=c.safetensors", "--seed=1") == 0
    one, other, third = (stylenets.load(f"{name}.safetensors").variables for name in "abc")
    same = lambda x, y: all(np.array_equal(x["params"][n], y["params"][n]) for n in ("last", "bias"))  # noqa: E731
    assert same(one, other)
    assert not same(one, third)
    assert read_json("a.json")["trace"] == read_json("b.json")["trace"]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(studio):
    """`kill -9`, for real, once there is a checkpoint and a few steps later."""
    flags = [*RUN, "--steps=40", "--output=o.safetensors"]
    assert start(*flags).communicate(timeout=PATIENCE)[1] == ""
    whole, record = (studio / "o.safetensors").read_bytes(), read_json("o.json")
    for name in ("o.safetensors", "o.json", "o.jpg"):
        (studio / name).unlink()
    shutil.rmtree("o.ckpt")
    process = start(*flags)
    read_until(process.stdout, f"step {random.Random(0).randint(5, 15)}/40")
    process.kill()
    process.communicate()
    kept = Checkpoints("o.safetensors").read().facts["step"]
    assert 2 <= kept < 40
    for name in (".o.safetensors.abcdefgh.part", ".o.jpg.abcdefgh.part", ".o-000100.jpg.abcdefgh.part"):
        (studio / name).write_bytes(b"half")
    process = start(*flags, "--resume")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert f"going on from step {kept}\n" in out
    assert (studio / "o.safetensors").read_bytes() == whole
    again = read_json("o.json")
    assert again["trace"] == record["trace"]
    assert not list(studio.glob(".*"))


@pytest.mark.slow
def test_ctrl_c_keeps_the_step_and_says_how_to_go_on(studio):
    process = start(*RUN, "--steps=1000000", "--checkpoint_every=1000000", "--output=o.safetensors")
    read_until(process.stdout, "step 3/")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    last = err.strip().splitlines()[-1]
    assert "interrupted after step" in last
    assert "--resume" in last
    assert f"step {Checkpoints('o.safetensors').read().facts['step']} is kept" in last
    assert not (studio / "o.safetensors").exists()


@pytest.mark.slow
def test_axes_train_a_network_each_into_a_folder(studio, capsys):
    flags = ["--axis=style=art/a.png,art/b.png", "--axis=style_weight=1,50", "--output=nets"]
    assert call(*SMALL, *flags) == 0
    names = sorted(path.name for path in (studio / "nets").glob("*.safetensors"))
    assert names == [f"style={style},style_weight={weight}.safetensors" for style in "ab" for weight in (1, 50)]
    assert call(*SMALL, "--style=art/b.png", "--style_weight=50", "--output=alone.safetensors") == 0
    one = stylenets.load(f"nets/{names[3]}").variables["params"]["last"]
    other = stylenets.load("alone.safetensors").variables["params"]["last"]
    np.testing.assert_allclose(one, other, rtol=2e-2, atol=1e-4)
    capsys.readouterr()
    assert call("--flagfile=nets/training.flags", "--resume") == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_one_network_of_several_styles_and_one_that_goes_on_from_it(studio):
    assert call(*SMALL, "--conditional", "--style=art/a.png,art/b.png", "--output=two.safetensors") == 0
    net = stylenets.load("two.safetensors")
    assert (net.styles, net.spec.styles) == (("a", "b"), 2)
    assert call(*RUN, "--start=two.safetensors", "--steps=1", "--output=one.safetensors") == 0
    assert stylenets.load("one.safetensors").spec.widths == (3, 4)  # the other's


@pytest.mark.slow
def test_a_broken_photo_is_named_once_and_passed_over(studio, capsys):
    (studio / "photos" / "3.png").write_bytes(b"no picture")  # not the first, which would be held out
    assert call(*RUN, "--output=o.safetensors") == 0
    err = capsys.readouterr().err
    assert err.count("3.png") == 1
    assert "skipped" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: ["--style_weight=3"], ("--style_weight=3", "expected the same with --resume")),
        (lambda folder: picture(folder / "art" / "a.png", 5) or [], ("--style", "not what it was")),
        (lambda folder: picture(folder / "photos" / "7.png", 7) or [], ("--photos", "not what it was")),
    ],
)
def test_it_does_not_go_on_with_something_else(studio, capsys, change, words):
    assert call(*RUN, "--output=o.safetensors") == 0
    more = change(studio)
    capsys.readouterr()
    assert call(*RUN, *more, "--output=o.safetensors", "--resume") == 2
    assert_one_line(capsys.readouterr().err, *words)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_leaves_no_network(studio, capsys):
    assert call(*RUN, "--learning_rate=1e6", "--warmup=0", "--steps=30", "--output=o.safetensors") == 3
    assert "o.safetensors: not written" in capsys.readouterr().err
    assert not (studio / "o.safetensors").exists()
    assert (studio / "o.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--output=o.safetensors", "--photos="], ("--photos is missing",)),
        (["--output=o.png"], ("--output=o.png", ".safetensors")),
        (["--output=o.safetensors", "--widths=3,x"], ("--widths=3,x", "whole numbers")),
        (["--output=o.safetensors", "--kernel=4"], ("--kernel=4", "odd")),
        (["--output=o.safetensors", "--style=art/none.png"], ("art/none.png", "no such file")),
        (["--output=o.safetensors", "--photos=nowhere"], ("--photos=nowhere", "no such folder")),
        (["--output=o.safetensors", "--conditional"], ("--style=art/a.png", "several styles")),
        (["--output=o.safetensors", "--axis=style_weight=1,2"], ("--output=o.safetensors", "folder")),
        (["--output=o", "--axis=steps=1,2"], ("steps is of the whole program",)),
        (["--output=o", "--axis=style=art/a.png,art/b.png"], ("--style=art/a.png", "axis")),
        (["--output=net.safetensors"], ("net.safetensors", "expected another name")),
        (["--output=photos/o.safetensors"], ("--output=photos/o.safetensors", "--photos=photos")),
        (["--output=o.safetensors", "--style_size=1"], ("--style_size=1", "at least 2")),
        (["--output=o.safetensors", "--start=nothing"], ("nothing", "no such network")),
        (["--output=o.safetensors", "--norm=layer"], ("--norm=layer", "instance, batch")),
        (["--output=o.safetensors", "--content_layers=relu9_1"], ("relu9_1", "no layer")),
    ],
)
def test_bad_input_is_one_line(studio, capsys, flags, words):
    before = listed(studio)
    assert call(*RUN, *flags) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(studio) == before


def test_what_fast_did_not_write_is_not_replaced(studio, capsys):
    for name in ("o.json", "o.flags", "o.jpg", "o.safetensors"):
        (studio / name).write_text("mine")
        assert call(*RUN, "--output=o.safetensors") == 2
        assert_one_line(capsys.readouterr().err, name, "did not write")
        assert (studio / name).read_text() == "mine"
        (studio / name).unlink()
    (studio / "o.ckpt").mkdir()
    (studio / "o.ckpt" / "diary").write_text("mine")
    assert call(*RUN, "--output=o.safetensors") == 2
    assert_one_line(capsys.readouterr().err, "o.ckpt", "did not write")


@pytest.mark.slow
def test_the_printed_command_goes_on_from_another_folder(studio, tmp_path_factory, monkeypatch):
    process = start(*RUN, "--steps=1000000", "--output=my out/o.safetensors")
    read_until(process.stdout, "step 3/")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    words = shlex.split(err.strip().splitlines()[-1].partition("go on with: ")[2])
    assert words[-2:] == ["--flagfile=my out/o.flags", "--resume"]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    process = start(f"--flagfile={studio / 'my out' / 'o.flags'}", "--resume")
    read_until(process.stdout, "going on from step")
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_finished_is_what_this_very_training_left(studio, capsys):
    """Another training's network of the same name does not count, nor does one without its record."""
    assert call(*RUN, "--output=o.safetensors", "--seed=1") == 0
    other = (studio / "o.safetensors").read_bytes()
    kept = [(studio / f"o.{ending}").read_bytes() for ending in ("safetensors", "json")]
    assert call(*RUN, "--output=o.safetensors") == 0
    own = (studio / "o.safetensors").read_bytes()
    for ending, data in zip(("safetensors", "json"), kept, strict=True):  # as if killed before they were written
        (studio / f"o.{ending}").write_bytes(data)
    capsys.readouterr()
    assert call(*RUN, "--output=o.safetensors", "--resume") == 0
    assert "finished already" not in capsys.readouterr().out
    assert (studio / "o.safetensors").read_bytes() == own != other
    assert call(*RUN, "--output=o.safetensors", "--resume") == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_broken_photo_is_not_held_out_and_one_photo_is_enough(studio, capsys):
    for seed in range(1, 6):
        (studio / "photos" / f"{seed}.png").unlink()
    (studio / "photos" / "0a.png").write_bytes(b"broken")
    picture(studio / "photos" / "1.png", 3)
    assert call(*RUN, "--output=o.safetensors", "--steps=1") == 0
    (studio / "photos" / "0.png").write_bytes(b"broken")
    assert call(*RUN, "--output=p.safetensors", "--steps=1") == 0
    (studio / "photos" / "1.png").write_bytes(b"broken")
    capsys.readouterr()
    assert call(*RUN, "--output=q.safetensors", "--steps=1") == 2
    assert "none of 3 pictures can be read" in capsys.readouterr().err


@pytest.mark.slow
def test_a_start_of_another_shape_is_refused(studio, capsys):
    assert call(*RUN, "--output=o.safetensors", "--steps=1") == 0
    capsys.readouterr()
    assert call(*RUN, "--start=o.safetensors", "--blocks=2", "--output=p.safetensors") == 2
    assert_one_line(capsys.readouterr().err, "--blocks=2", "has 1")
