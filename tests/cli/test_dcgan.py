"""`dcgan` as its user sees it: what a training leaves, that it repeats, how it goes on, what it refuses; samples."""

import csv
import importlib.util
import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from PIL import Image

from cli.command import ROOT, assert_one_line, listed, read_json, read_until
from jnst import images
from jnst.cli import dcgan as command
from jnst.cli import gan_results
from jnst.cli.training_checkpoints import Checkpoints
from jnst.weights import generators

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.dcgan", "train"]
SMALL = ["--data=photos", "--size=28", "--width=2", "--latent=4", "--batch=3", "--average_decay=0.5"]
SMALL += ["--distance_pictures=0", "--print_every=1", "--checkpoint_every=2"]
RUN = [*SMALL, "--steps=3"]
FILES = ["curves.png", "epochs.gif", "generator.safetensors", "losses.csv", "sheet.png", "training.flags"]
FILES += ["training.json"]
PATIENCE = 240
SIDE = 8 * (2 * 28 + 2) + 2


def call(*arguments, word="train"):
    return command.main(["dcgan", word, *arguments])


def start(*arguments):
    return subprocess.Popen([*COMMAND, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def left(folder):
    """The files of a training but for its checkpoints."""
    return [name for name in listed(Path(folder)) if not name.startswith("training.ckpt/")]


def _photos(folder, held_out=range(3)):
    for place, seeds in (("train", range(5, 11)), ("test", held_out)):
        (folder / "photos" / place).mkdir(parents=True)
        for number, seed in enumerate(seeds):
            found = reference.smooth_picture(30, 32, seed=seed)
            Image.fromarray(np.round(255 * found).astype(np.uint8)).save(folder / "photos" / place / f"{number}.png")


@pytest.fixture
def studio(tmp_path, monkeypatch):
    """A folder with pictures to train on, and to hold out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    _photos(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_file):
    """A folder in which a training of three epochs has left `out`, with all that it can."""
    folder = tmp_path_factory.mktemp("trained")
    _photos(folder, held_out=range(5, 11))  # those that are trained on: how far these are from each other is known
    own = ["--steps=6", "--distance_pictures=9", f"--weights={tiny_file}"]
    assert call(*SMALL, *own, f"--data={folder / 'photos'}", f"--output={folder / 'out'}") == 0
    return folder


@pytest.mark.slow
def test_a_training_leaves_all_of_it(trained):
    assert left(trained / "out") == sorted([*FILES, "sheets/000002.png", "sheets/000004.png"])
    assert Checkpoints(str(trained / "out" / "training.gan")).step_of_another() == 6
    generator = generators.load(trained / "out" / "generator.safetensors")
    assert (generator.spec.size, generator.spec.width, generator.spec.latent) == (28, 2, 4)
    assert generator.record["step"] == 6
    assert generator.record["flags"]["data"] == "photos"  # no folders
    record = read_json(trained / "out" / "training.json")
    assert record["data"] == {"kind": "folder", "train": 6, "held_out": 6, "files": 12}
    assert (record["command"], record["step"], record["epochs"], record["stopped"]) == ("dcgan", 6, 3.0, "")
    assert [row["step"] for row in record["trace"]] == [1, 2, 3, 4, 5, 6]
    assert f"--data={trained / 'photos'}\n" in (trained / "out" / "training.flags").read_text()


@pytest.mark.slow
def test_distances_are_named_after_the_network(trained):
    found = read_json(trained / "out" / "training.json")["distances"]
    assert found["network"]["name"] == "tiny"
    assert found["network"]["layer"] == "relu4_1"
    assert found["pictures"] == 6
    assert found["training_pictures"]["frechet_tiny"] < 1e-6 < 1e-3 < found["networks"]["dcgan"]["frechet_tiny"]
    assert "fid" not in json.dumps(found).lower()


@pytest.mark.slow
def test_the_table_has_a_row_a_step_and_the_pictures_show_the_epochs(trained):
    with open(trained / "out" / "losses.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "epoch", "generator", "discriminator", "real", "fake", "seconds"]
    assert [row["epoch"] for row in rows] == ["0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("real", "fake"))
    times = [float(row["seconds"]) for row in rows]
    assert times == sorted(times)
    sheet = images.load(trained / "out" / "sheet.png")
    assert sheet.size == (SIDE, SIDE)
    with Image.open(trained / "out" / "epochs.gif") as film:
        assert (film.n_frames, film.size) == (3, (SIDE, SIDE))
        film.seek(2)
        shown = np.asarray(film.convert("RGB"), np.float32) / 255
    assert np.abs(shown - sheet.rgb).mean() < 0.05  # the last frame is the sheet
    first = images.load(trained / "out" / "sheets" / "000002.png").rgb
    assert np.abs(first - sheet.rgb).max() > 2 / 255


@pytest.mark.slow
def test_equal_flags_give_equal_bytes_and_so_does_the_flagfile(studio):
    assert call(*RUN, "--output=a") == 0
    assert call("--flagfile=a/training.flags", "--output=b") == 0
    assert call(*RUN, "--output=c", "--seed=1") == 0
    one, other, third = ((studio / name / "generator.safetensors").read_bytes() for name in "abc")
    assert one == other != third
    one, other, third = ((studio / name / "sheet.png").read_bytes() for name in "abc")
    assert one == other != third


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(studio):
    """`kill -9`, for real, once there is a checkpoint and a few steps later."""
    flags = [*SMALL, "--steps=40", "--output=o", "--sample_every=4"]
    assert start(*flags).communicate(timeout=PATIENCE)[1] == ""
    whole = {name: (studio / "o" / name).read_bytes() for name in left("o")}
    shutil.rmtree("o")
    process = start(*flags)
    read_until(process.stdout, f"step {random.Random(0).randint(5, 15)}/40")
    process.kill()
    process.communicate()
    kept = Checkpoints("o/training.gan").read().facts["step"]
    assert 2 <= kept < 40
    process = start(*flags, "--resume")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert f"going on from step {kept}\n" in out
    assert left("o") == sorted(whole)
    for name in set(whole) - {"losses.csv", "training.json"}:  # which hold seconds
        assert (studio / "o" / name).read_bytes() == whole[name], name
    assert read_json("o/training.json")["trace"] == json.loads(whole["training.json"])["trace"]


@pytest.mark.slow
def test_ctrl_c_leaves_all_of_it_and_the_printed_command_goes_on(studio, tmp_path_factory, monkeypatch):
    process = start(*SMALL, "--steps=1000000", "--checkpoint_every=1000000", "--print_every=3", "--output=my out")
    read_until(process.stdout, "step 3/")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    last = err.strip().splitlines()[-1]
    record = read_json("my out/training.json")
    assert f"interrupted after step {record['step']}; step {record['step']} is kept" in last
    assert record["stopped"] == "interrupted"
    assert record["trace"][-1]["step"] == record["step"]
    assert set(FILES) <= set(left("my out"))
    words = shlex.split(last.partition("go on with: ")[2])
    assert words[-3:] == ["train", "--flagfile=my out/training.flags", "--resume"]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    process = start(f"--flagfile={studio / 'my out' / 'training.flags'}", "--resume")
    read_until(process.stdout, f"going on from step {record['step']}\n")
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_it_goes_on_for_longer_and_finished_is_what_this_very_training_left(studio, capsys):
    assert call(*RUN, "--output=o") == 0
    assert call(*RUN, "--output=o", "--steps=5", "--resume") == 0
    assert call(*RUN, "--output=p", "--steps=5") == 0
    own = (studio / "o" / "generator.safetensors").read_bytes()
    assert own == (studio / "p" / "generator.safetensors").read_bytes()
    capsys.readouterr()
    assert call(*RUN, "--output=o", "--steps=5", "--resume") == 0
    assert "finished already, at step 5" in capsys.readouterr().out
    (studio / "o" / "training.json").unlink()  # as if killed before it was written
    (studio / "o" / "generator.safetensors").unlink()
    assert call(*RUN, "--output=o", "--steps=5", "--resume") == 0
    assert "finished already" not in capsys.readouterr().out
    assert (studio / "o" / "generator.safetensors").read_bytes() == own
    for flag, words in (("--steps=4", "--steps=4"), ("--learning_rate=1e-3", "--learning_rate=0.001")):
        assert call(*RUN, "--steps=5", flag, "--output=o", "--resume") == 2
        assert_one_line(capsys.readouterr().err, words, "expected the same with --resume")
    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save("photos/train/0.png")
    assert call(*RUN, "--steps=5", "--output=o", "--resume") == 2
    assert_one_line(capsys.readouterr().err, "--data", "not what it was")


@pytest.mark.slow
def test_several_networks_get_a_folder_each_and_one_sheet(studio, capsys):
    assert call(*RUN, "--seeds=2", "--output=two", "--learning_rate=1e-3") == 0
    assert call(*RUN, "--seed=1", "--output=one", "--learning_rate=1e-3") == 0
    assert [name for name in left("two") if "/g" in name] == [f"seed={seed}/generator.safetensors" for seed in (0, 1)]
    own, alone = (generators.load(f"{name}/generator.safetensors") for name in ("two/seed=1", "one"))
    np.testing.assert_allclose(own.variables["params"]["up_1"], alone.variables["params"]["up_1"], rtol=0, atol=1e-5)
    other = generators.load("two/seed=0/generator.safetensors")
    assert np.abs(own.variables["params"]["up_1"] - other.variables["params"]["up_1"]).max() > 1e-3
    assert own.record["flags"] == alone.record["flags"]
    with open("two/losses.csv") as file:
        assert [row["network"] for row in csv.DictReader(file)][:3] == ["seed=0", "seed=1", "seed=0"]
    assert images.load("two/sheet.png").size[0] > 2 * images.load("one/sheet.png").size[0]
    assert call("two", "--net=2", "--count=2", "--output=a.png", word="sample") == 0
    assert call("one", "--count=2", "--output=b.png", word="sample") == 0
    one, other = (images.load(f"{name}.png").rgb for name in "ab")
    assert np.abs(one - other).max() < 2 / 255
    capsys.readouterr()
    assert call("two", "--net=3", "--output=c.png", word="sample") == 2
    assert_one_line(capsys.readouterr().err, "--net=3", "seed=0, seed=1")


@pytest.mark.slow
def test_losses_become_tensorboards_events(studio):
    """Of two runs, the second of which goes on: each step once, and nothing of an earlier training."""
    pytest.importorskip("tensorboardX", reason="the extra jnst[tensorboard] is not installed")
    from tensorboardX.proto.event_pb2 import Event

    for flags in (["--steps=9", "--seed=1"], ["--steps=2"], ["--steps=3", "--resume"]):
        assert call(*SMALL, *flags, "--tensorboard", "--output=o") == 0
    found = []
    for path in sorted((studio / "o" / "training.tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # records: length, its check, the event, its check
            size = int.from_bytes(data[:8], "little")
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            found += [(event.step, value.simple_value) for value in event.summary.value if value.tag == "generator"]
    trace = read_json("o/training.json")["trace"]
    assert [step for step, _ in found] == [row["step"] for row in trace]
    assert [loss for _, loss in found] == pytest.approx([row["generator"] for row in trace], rel=1e-6)


def test_the_extra_that_is_missing_is_named(studio, capsys):
    if importlib.util.find_spec("tensorboardX") is not None:
        pytest.skip("the extra jnst[tensorboard] is installed")
    assert call(*RUN, "--tensorboard", "--output=o") == 2
    assert_one_line(capsys.readouterr().err, "--tensorboard", "jnst[tensorboard]")
    assert not (studio / "o").exists()


@pytest.mark.slow
def test_a_discriminator_that_is_always_right_is_said_once(studio, capsys):
    flags = ["--learning_rate=1e-9", "--discriminator_learning_rate=5e-3", "--steps=1600", "--print_every=100"]
    assert call(*SMALL, *flags, "--output=o", "--sample_every=9999", "--checkpoint_every=0") == 0
    assert_one_line(capsys.readouterr().err, "the discriminator tells all pictures apart, for 1")
    assert "tells all pictures apart" in read_json("o/training.json")["trouble"]["dcgan"]


@pytest.mark.slow
def test_losses_that_are_not_finite_end_it_and_leave_no_network(studio, capsys):
    assert call(*RUN, "--output=o") == 0
    found = Checkpoints("o/training.gan").read()
    leaves = [np.full_like(leaf, np.nan) if leaf.dtype == np.float32 else leaf for leaf in found.snapshot.leaves]
    shutil.rmtree("o/training.ckpt")
    Checkpoints("o/training.gan").write(found.snapshot._replace(leaves=leaves), found.facts)
    before = listed(studio / "o" / "training.ckpt")
    (studio / "o" / "generator.safetensors").unlink()
    capsys.readouterr()
    assert call(*RUN, "--steps=9", "--output=o", "--resume") == 3
    err = capsys.readouterr().err
    assert "step 4: no loss is finite: the training ends" in err
    assert "generator.safetensors: not written" in err
    assert set(left("o")) >= set(FILES) - {"generator.safetensors"}
    assert not (studio / "o" / "generator.safetensors").exists()
    assert listed(studio / "o" / "training.ckpt") == before
    record = read_json("o/training.json")
    assert (record["stopped"], record["saved"], record["step"]) == ("diverged", [], 4)
    assert call("o", "--output=x.png", word="sample") == 2
    assert_one_line(capsys.readouterr().err, "o: the training of dcgan diverged")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data="], ("--data is missing",)),
        (["--output="], ("--output is missing",)),
        (["--data=nowhere"], ("--data=nowhere", "no such folder")),
        (["--data=empty"], ("--data=empty", "no picture")),
        (["--size=30"], ("--size=30", "28, 32, 64")),
        (["--loss=hinge"], ("--loss=hinge", "lsgan")),
        (["--axis=width=1,2"], ("width is of the whole program",)),
        (["--seeds=2", "--axis=seed=1,2"], ("--seeds=2", "expected 1")),
        (["--output=photos/o"], ("--output=photos/o", "--data=photos")),
        (["--output=file"], ("--output=file", "is a file")),
        (["--output=file/o"], ("--output=file/o", "is no folder")),
        (["--distance_pictures=9", "--weights=nothing"], ("nothing",)),
        (["--device=tpu"], ("--device=tpu", "no such device")),
        (["--output=taken"], ("taken/sheet.png", "did not write")),
        (["--output=o\nx"], ("without line breaks",)),
    ],
)
def test_bad_input_is_one_line(studio, capsys, flags, words):
    (studio / "empty").mkdir()
    (studio / "taken").mkdir()
    (studio / "taken" / "sheet.png").write_text("mine")
    (studio / "file").write_text("mine")
    before = listed(studio)
    assert call(*RUN, "--output=o", *flags) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(studio) == before


def test_what_dcgan_did_not_write_is_not_replaced(studio, capsys):
    folder = studio / "o"
    folder.mkdir()
    for name in [*FILES, "sheets/000001.png"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('{"command": "fast"}')
        assert call(*RUN, "--output=o") == 2
        assert_one_line(capsys.readouterr().err, name.partition("/")[0], "did not write")
        assert (folder / name).read_text() == '{"command": "fast"}'
        (folder / name).unlink()
    (folder / "training.ckpt").mkdir()
    (folder / "training.ckpt" / "diary").write_text("mine")
    assert call(*RUN, "--output=o") == 2
    assert_one_line(capsys.readouterr().err, "training.ckpt", "did not write")


@pytest.mark.slow
def test_a_new_training_takes_the_place_of_an_earlier_one(studio, capsys):
    assert call(*RUN, "--output=o") == 0
    (studio / "o" / "sheets" / "000999.png").write_bytes((studio / "o" / "sheet.png").read_bytes())
    for name in (".sheet.png.", ".generator.safetensors.", "sheets/.000001.png."):
        (studio / "o" / f"{name}abcd1234.part").write_bytes(b"half")
    (studio / "o" / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert call(*RUN, "--seed=1", "--output=o") == 0
    assert "of an earlier training, at step 3: this one starts anew" in capsys.readouterr().out
    assert left("o") == sorted([*FILES, "notes.txt", "sheets/000002.png"])


@pytest.mark.slow
def test_samples_and_walks(trained, monkeypatch):
    monkeypatch.chdir(trained)
    assert call("out", "--count=4", "--scale=1", "--output=a.png", word="sample") == 0
    assert call("out/generator.safetensors", "--count=4", "--scale=1", "--output=b.png", word="sample") == 0
    assert call("out", "--count=4", "--scale=1", "--seed=1", "--output=c.png", word="sample") == 0
    one, other, third = ((trained / f"{name}.png").read_bytes() for name in "abc")
    assert one == other != third
    assert call("out", "--count=3", "--walk=2", "--scale=1", "--output=w.png", word="sample") == 0
    strip, sheet = images.load("w.png"), images.load("a.png")
    assert strip.size == (3 * 30 + 2, 2 * 30 + 2)  # two ways of two steps, with both ends
    tile = lambda picture, row, column: picture.rgb[2 + 30 * row :, 2 + 30 * column :][:28, :28]  # noqa: E731
    for place, corner in (((0, 0), (0, 0)), ((0, 2), (0, 1)), ((1, 0), (0, 1)), ((1, 2), (1, 0))):
        assert np.abs(tile(strip, *place) - tile(sheet, *corner)).max() < 2 / 255
    assert call("out", "--count=3", "--walk=2", "--scale=3", "--output=w.gif", word="sample") == 0
    with Image.open("w.gif") as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (6, (84, 84), 0)  # it comes back to where it began


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("expected one folder",)),
        (["out"], ("--output is missing",)),
        (["nowhere", "--output=x.png"], ("nowhere", "no such file")),
        (["photos", "--output=x.png"], ("photos", "no generator.safetensors")),
        (["photos/train/0.png", "--output=x.png"], ("0.png", "safetensors")),
        (["out", "--output=x.txt"], ("--output=x.txt", ".png")),
        (["out", "--output=x.gif"], ("--output=x.gif", "--walk")),
        (["out", "--output=x.png", "--count=1", "--walk=3"], ("--count=1", "at least 2")),
        (["out", "--output=x.png", "--count=1000", "--walk=1000"], ("--count=1000", "at most")),
        (["out", "--output=x.png", "--count=60000", "--scale=64"], ("--scale=64", "at most")),
        (["out", "--output=x.png", "--net=2"], ("--net=2", "one network")),
        (["out", "--output=out"], ("--output=out",)),
        (["out", "--output=photos/train/0.png/x.png"], ("cannot be written",)),
    ],
)
def test_bad_input_of_sample_is_one_line(trained, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(trained)
    before = listed(trained)
    assert call(*arguments, word="sample") == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(trained) == before


def test_the_command_itself(capsys):
    assert command.main(["dcgan"]) == 0
    assert "usage: dcgan train" in capsys.readouterr().out
    assert call("--help") == 0
    assert "--discriminator_learning_rate" in capsys.readouterr().out
    assert command.main(["dcgan", "paint"]) == 2
    assert_one_line(capsys.readouterr().err, "'paint': expected train or sample first")


def test_a_gif_has_at_most_so_many_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(gan_results, "_MOST_FRAMES", 4)
    sheets = gan_results.Sheets(str(tmp_path))
    picture = lambda level: images.Picture(np.full((4, 4, 3), level, np.float32))  # noqa: E731
    for step in range(1, 9):
        sheets.add(step, picture(step / 10))
    sheets.write_gif(9, picture(0.9))
    with Image.open(tmp_path / "epochs.gif") as film:
        levels = []
        for frame in range(film.n_frames):
            film.seek(frame)
            levels.append(film.convert("RGB").getpixel((0, 0))[0])
    assert len(levels) == 4
    assert (levels[0], levels[-1]) == (26, 230)
    assert levels == sorted(levels)
    sheets.clear(after=3)
    assert left(tmp_path / "sheets") == ["000001.png", "000002.png", "000003.png"]
