"""`pix2pix combine` as its user sees it: pairs, their split, what is refused, how it goes on."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.command import ROOT, assert_one_line, listed, read_until
from jnst import images
from jnst.cli import combining
from jnst.cli import pix2pix as command
from jnst.cli.interrupt import Interrupt
from jnst.config import CombineConfig
from jnst.errors import InputError

FLAGS = ["--a=a", "--b=b", "--output=out"]


def _noise(path, size=(6, 4), seed=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A with 1.png to 5.png, one of them in a folder, and B with the same in another format."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for number in range(1, 6):
        below = "deep/5" if number == 5 else str(number)
        _noise(tmp_path / "a" / f"{below}.png", seed=number)
        _noise(tmp_path / "b" / f"{below}.bmp", seed=10 + number)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    return tmp_path


def run(**options):
    return combining.run(CombineConfig(**{"a": "a", "b": "b", "output": "out", **options}), Interrupt())


def call(*arguments):
    return command.main(["pix2pix", "combine", *(arguments or FLAGS)])


def made(folder="out"):
    """Pairs, without the part that they are in, and that part."""
    names = [name for name in listed(folder) if name != combining.OURS]
    return {name.split("/", 1)[1]: name.split("/", 1)[0] for name in names}


def times(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in listed(folder) if name != combining.OURS}


def test_pairs_stand_side_by_side_under_their_names(folders, capsys):
    assert call() == 0
    assert sorted(made(folders / "out")) == ["1.png", "2.png", "3.png", "4.png", "deep/5.png"]
    for below, part in made(folders / "out").items():
        assert part in ("train", "val", "test")
        stem = below.removesuffix(".png")
        found = np.asarray(Image.open(folders / "out" / part / below))
        expected = [np.asarray(Image.open(path)) for path in (f"a/{stem}.png", f"b/{stem}.bmp")]
        np.testing.assert_array_equal(found, np.concatenate(expected, 1))
    out = capsys.readouterr().out
    assert "out: 5 of 5 pairs made; " in out
    assert "train" in out


@pytest.mark.slow
def test_the_split_is_by_the_name_and_the_seed(folders):
    for number in range(6, 40):
        _noise(folders / f"a/{number}.png", (1, 1))
        _noise(folders / f"b/{number}.png", (1, 1))
    assert run(split="2,1,1", output="one") == run(split="50,25,25", output="two") == 0
    one = made(folders / "one")
    assert one == made(folders / "two")
    counts = [list(one.values()).count(part) for part in ("train", "val", "test")]
    assert counts[0] in range(11, 29)
    assert min(counts) > 3
    assert run(split="2,1,1", output="three", seed=1) == 0
    assert made(folders / "three") != one
    # A pair keeps its place when others go.
    for number in range(6, 40):
        (folders / f"a/{number}.png").unlink()
        (folders / f"b/{number}.png").unlink()
    assert run(split="2,1,1", output="four") == 0
    assert made(folders / "four").items() < one.items()
    assert run(split="0,1,0", output="five") == 0
    assert set(made(folders / "five").values()) == {"val"}


def test_folders_that_are_split_keep_it(folders):
    for side in "ab":
        os.rename(folders / side, folders / "whole")
        for place, part in (("1", "test"), ("2", "val"), ("3", "train"), ("4", "train")):
            (folders / side / part).mkdir(parents=True, exist_ok=True)
            kind = next((folders / "whole").glob(f"{place}.*"))
            kind.rename(folders / side / part / kind.name)
        os.rename(folders / "whole", folders / f"whole_{side}")
    assert run() == 0
    assert made(folders / "out") == {"1.png": "test", "2.png": "val", "3.png": "train", "4.png": "train"}


def test_all_that_does_not_go_together_is_named_and_nothing_written(folders, capsys):
    _noise(folders / "a/only.png")
    _noise(folders / "b/other.png")
    _noise(folders / "b/1.jpg")
    with pytest.raises(InputError, match="--a=a --b=b: 3 files do not go together; nothing written"):
        run()
    err = capsys.readouterr().err.splitlines()
    assert err == [
        "jnst: b/1.bmp; b/1.jpg: of one name; expected one of them",
        "jnst: a/only.png: no such picture in --b=b",
        "jnst: b/other.png: no such picture in --a=a",
    ]
    for name in ("a/only.png", "b/other.png", "b/1.jpg"):
        (folders / name).unlink()
    _noise(folders / "b/2.bmp", (6, 5))
    (folders / "a/3.png").write_bytes(b"no picture")
    assert call() == 2
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "jnst: b/2.bmp: 6x5 pixels, but a/2.png has 6x4; expected the same, or --fit"
    assert err[1] == "jnst: a/3.png: not a picture that can be read"
    assert err[2] == "jnst: --a=a --b=b: 2 files do not go together; nothing written"
    assert not (folders / "out").exists()


def test_of_many_some_are_named(folders, capsys):
    for number in range(30):
        _noise(folders / f"a/x{number:02}.png", (1, 1))
    assert call() == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 22
    assert err[19:21] == ["jnst: a/x19.png: no such picture in --b=b", "jnst: and 10 more"]
    assert "30 files do not go together" in err[21]


def test_fit_brings_b_to_the_size_of_a(folders):
    _noise(folders / "b/2.bmp", (12, 9))
    assert run(fit=True, split="1,0,0") == 0
    assert Image.open("out/train/2.png").size == (12, 4)
    found = [np.asarray(Image.open(name)) for name in ("out/train/2.png", "a/2.png", "b/2.bmp")]
    np.testing.assert_array_equal(found[0][:, :6], found[1])
    halves = images.resize(images.Picture(found[2].astype(np.float32) / 255), (6, 4)).rgb
    np.testing.assert_array_equal(found[0][:, 6:], np.rint(halves * 255))


def test_pictures_are_turned_upright_and_transparent_ones_laid_over_white(folders):
    turned = Image.new("RGB", (4, 6)).getexif()
    turned[0x0112] = 6
    pixels = _noise(folders / "a/1.png", (4, 6), exif=turned)
    alpha = _noise(folders / "a/2.png", mode="RGBA")
    assert run(split="1,0,0") == 0
    np.testing.assert_array_equal(np.asarray(Image.open("out/train/1.png"))[:, :6], np.rot90(pixels, -1))
    found = np.asarray(Image.open("out/train/2.png"))[:, :6].astype(float)
    share = alpha[..., 3:] / 255
    assert np.abs(found - (alpha[..., :3] * share + 255 * (1 - share))).max() <= 1


def test_what_is_there_is_left_and_what_has_changed_made_again(folders, capsys):
    assert run() == 0
    before = times(folders / "out")
    assert run() == 0
    assert times(folders / "out") == before
    assert "0 of 5 pairs made, 5 were there already" in capsys.readouterr().out
    part = made(folders / "out")
    (folders / "out" / part["4.png"] / "4.png").unlink()
    pixels = _noise(folders / "b/3.bmp", seed=77)
    assert run() == 0
    after = times(folders / "out")
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"{part['3.png']}/3.png", f"{part['4.png']}/4.png"}
    np.testing.assert_array_equal(np.asarray(Image.open(f"out/{part['3.png']}/3.png"))[:, 6:], pixels)


def test_other_formats_are_made_anew(folders):
    assert run(format=".jpg") == 0
    assert sorted(made(folders / "out")) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "deep/5.jpg"]
    before = times(folders / "out")
    assert run(format=".jpg") == 0
    after = times(folders / "out")
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_a_file_in_the_way_is_never_replaced(folders, capsys, ending):
    foreign = folders / "out" / "train" / f"2{ending}"
    _noise(foreign)
    kept = foreign.read_bytes()
    assert call(*FLAGS, f"--format={ending}", "--split=1,0,0") == 2
    assert_one_line(capsys.readouterr().err, f"out/train/2{ending}: is there and no pair of ours")
    assert listed(folders / "out") == [f"train/2{ending}"]
    assert foreign.read_bytes() == kept


def test_a_folder_in_the_way_is_never_replaced(folders, capsys):
    (folders / "out/train/2.png").mkdir(parents=True)
    assert call(*FLAGS, "--split=1,0,0") == 2
    assert_one_line(capsys.readouterr().err, "out/train/2.png: is a folder")
    assert listed(folders / "out") == []


@pytest.mark.parametrize(
    "note", [b'["train/../../a/1.png", "/etc/passwd"]', b'{"train": 1}', b"[" * 9999, b"\xff", b'["train", 3]', b"3"]
)
def test_a_damaged_note_of_what_is_ours_does_no_harm(folders, note):
    (folders / "out" / "train").mkdir(parents=True)
    (folders / "out" / combining.OURS).write_bytes(note)
    assert run(split="1,0,0") == run(split="1,0,0") == 0
    expected = [*(f"train/{number}.png" for number in range(1, 5)), "train/deep/5.png"]
    assert json.loads((folders / "out" / combining.OURS).read_text()) == expected


def test_pairs_of_another_split_are_not_left_among_those_of_this_one(folders, capsys):
    assert run(split="1,0,0") == 0
    for changed in ("--split=0,1,0", "--format=.jpg"):
        assert call(*FLAGS, "--split=1,0,0", changed) == 2
        assert_one_line(capsys.readouterr().err, "--output=out: train/1.png and 4 more of an earlier run")
    (folders / "a/1.png").unlink(), (folders / "b/1.bmp").unlink()
    assert call(*FLAGS, "--split=1,0,0") == 2
    assert_one_line(capsys.readouterr().err, "--output=out: train/1.png of an earlier run")
    (folders / "out/train/1.png").unlink()
    assert call(*FLAGS, "--split=1,0,0") == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--a="], ("--a is missing",)),
        (["--output="], ("--output is missing",)),
        (["--b=none"], ("--b=none: no such folder",)),
        (["--b=a"], ("--b=a: lies in --a=a",)),
        (["--output=a/out"], ("--output=a/out: lies in --a=a",)),
        (["--output=."], ("--output=.: lies in --a=a",)),
        (["--b=a/deep"], ("--b=a/deep: lies in --a=a",)),
        (["--output=a/notes.txt"], ("--output=a/notes.txt: is a file",)),
        (["--split=0.5,0.5"], ("--split=0.5,0.5: expected three shares",)),
        (["--split=1,-1,1"], ("expected three shares",)),
        (["--split=0,0,0"], ("expected three shares",)),
        (["--split=nan,1,1"], ("expected three shares",)),
        (["--split=a,b,c"], ("expected three shares",)),
        (["--seed=-1"], ("--seed=-1",)),
        (["--format=.gif"], ("--format=.gif", ".png")),
        (["--b=empty"], ("--b=empty: no picture in this folder",)),
    ],
)
def test_what_is_wrong_is_said_in_a_line(folders, capsys, flags, words):
    (folders / "empty").mkdir()
    before = listed(folders)
    assert call(*FLAGS, *flags) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(folders) == before


def test_a_link_to_the_same_place_is_seen(folders):
    (folders / "link").symlink_to("a", target_is_directory=True)
    with pytest.raises(InputError, match="--output=link/out: lies in --a=a"):
        run(output="link/out")


def test_interrupted_it_ends_after_the_pair_at_hand_and_goes_on(folders, capsys, monkeypatch):
    interrupt = Interrupt()
    save = images.save

    def saved(*arguments):
        save(*arguments)
        interrupt.seen = True

    monkeypatch.setattr(images, "save", saved)
    config = CombineConfig(a="a", b="b", output="out")
    assert combining.run(config, interrupt) == 130
    assert_one_line(capsys.readouterr().err, "interrupted: 1 of 5 pairs are there; the same command goes on")
    assert len(made(folders / "out")) == 1
    monkeypatch.undo()
    os.chdir(folders)
    assert run() == 0
    assert "4 of 5 pairs made, 1 were there already" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_of_the_command(folders):
    for number in range(6, 160):
        for side in "ab":
            _noise(folders / f"{side}/{number}.png", (128, 128), seed=number)
    arguments = [sys.executable, "-P", "-m", "jnst.cli.pix2pix", "combine", *FLAGS]
    process = subprocess.Popen(arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    read_until(process.stdout, "made ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "pairs are there; the same command goes on" in err
    there = times(folders / "out")
    assert 0 < len(there) < 159
    assert run() == 0
    after = times(folders / "out")
    assert len(after) == 159
    assert there.items() <= after.items()
