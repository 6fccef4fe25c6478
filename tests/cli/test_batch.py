"""A folder of pictures: the good ones done, the bad ones named at the end, resumable."""

import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from cli.command import SMALL, assert_one_line, call, listed, read_json, read_until, run, start

STYLE = ["--style=painting.png"]
FOLDER = ["--content=in", "--output=out", *STYLE, *SMALL]


@pytest.fixture
def photos(here):
    """`in/` with three pictures of two sizes."""
    (here / "in").mkdir()
    rng = np.random.default_rng(1)
    for name, shape in (("a.png", (16, 16, 3)), ("b.png", (12, 16, 3)), ("c.png", (16, 16, 3))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(here / "in" / name)
    return here / "in"


def pictures(folder):
    return [name for name in listed(folder) if name.endswith(".png")]


@pytest.mark.slow
def test_each_picture_is_the_one_that_it_would_be_alone(here, photos, capsys):
    assert call(*FOLDER) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line for line in out.splitlines() if line.startswith("[")] == ["[1/3] a.png", "[2/3] b.png", "[3/3] c.png"]
    assert out.endswith("3 of 3 pictures are finished, in out\n")
    assert pictures(here / "out") == ["a.png", "b.png", "c.png"]
    assert call("--content=in/b.png", *STYLE, *SMALL, "--output=b.png") == 0
    assert (here / "out/b.png").read_bytes() == (here / "b.png").read_bytes()


def test_bad_pictures_are_named_at_the_end_and_stop_nobody(here, photos, capsys):
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:60])
    (photos / "aa.jpg").write_text("words")
    assert call(*FOLDER) == 2
    err = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in err[:-1]] == ["in/aa.jpg", "in/b.png"]
    assert err[-1] == "jnst: 2 of 4 failed: aa.jpg, b.png"
    assert pictures(here / "out") == ["a.png", "c.png"]


def test_what_is_no_picture_by_name_is_passed_over(here, photos):
    (photos / "notes.txt").write_text("words")
    (photos / ".hidden.png").write_text("words")
    (photos / "folder.png").mkdir()
    assert call(*FOLDER) == 0
    assert pictures(here / "out") == ["a.png", "b.png", "c.png"]


def test_pictures_of_one_stem_keep_their_endings(here, photos):
    Image.open(photos / "a.png").save(photos / "a.webp")
    assert call(*FOLDER) == 0
    assert pictures(here / "out") == ["a.png.png", "a.webp.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--style=nothing.png"], ["nothing.png: no such file"]),
        (["--weights=nothing.npz"], ["--weights=nothing.npz: no such file"]),
        (["--style_weight=nan"], ["--style_weight=nan"]),
        (["--output=in"], ["--output=in", "the folder that is read"]),
        (["--output=in/../in"], ["the folder that is read"]),
        (["--output=painting.png"], ["--output=painting.png", "expected a folder"]),
        (["--content=empty"], ["--content=empty: no picture"]),
    ],
    ids=lambda value: value[0],
)
def test_what_is_wrong_for_all_is_said_once(here, photos, capsys, changes, words):
    (here / "empty").mkdir()
    before = listed(here)
    assert call(*FOLDER, *changes) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert listed(here) == before


@pytest.mark.slow
def test_ctrl_c_stops_all_and_resume_goes_on(here, photos):
    child = start(*FOLDER, "--steps=400", "--print_every=1", "--checkpoint_every=1")
    read_until(child.stdout, "[2/3]")
    read_until(child.stdout, "step 3/")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted at b.png: 1 of 3 pictures are finished; go on with: " in err
    assert err.rstrip().endswith("--resume")
    assert pictures(here / "out") == ["a.png", "b.png"]
    first = (here / "out/a.png").stat().st_mtime_ns
    done = run(*FOLDER, "--steps=400", "--print_every=100", "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert "out/a.png: finished already, at step 400\n" in done.stdout
    assert "going on from step " in done.stdout
    assert (here / "out/a.png").stat().st_mtime_ns == first
    assert read_json("out/b.json")["stopped"] == ""
    assert pictures(here / "out") == ["a.png", "b.png", "c.png"]


def test_dry_run_measures_the_first(here, photos, capsys):
    before = listed(here)
    assert call(*FOLDER, "--dry_run") == 0
    assert "the first of 3 pictures, in/a.png:" in capsys.readouterr().out
    assert listed(here) == before


def test_a_file_for_content_still_wants_a_file_for_output(here, photos, capsys):
    (here / "out").mkdir()
    assert call("--content=photo.png", *STYLE, *SMALL, "--output=out") == 2
    assert_one_line(capsys.readouterr().err, "--output=out")
    shutil.rmtree(here / "out")


def test_two_pictures_of_one_name_are_refused_before_any_is_painted(here, photos, capsys):
    for name in ("a.webp", "a.png.png"):
        Image.open(photos / "a.png").save(photos / name)
    assert call(*FOLDER) == 2
    assert_one_line(capsys.readouterr().err, "--content=in", "a.png.png")
    assert not (here / "out").exists()


def test_a_picture_s_name_is_no_folder_s(here, photos, capsys):
    assert call(*FOLDER, "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, "--output=o.png", "folder")


def test_ctrl_c_while_a_picture_is_saved_ends_the_rest(here, photos, capsys, monkeypatch):
    from jnst import images

    save = images.save

    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        save(*arguments, **options)

    monkeypatch.setattr(images, "save", interrupted)
    assert call(*FOLDER) == 130
    assert pictures(here / "out") == ["a.png"]
    assert "1 of 3 pictures are finished" in capsys.readouterr().err
