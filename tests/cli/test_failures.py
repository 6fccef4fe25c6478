"""What goes wrong in a run: divergence, Ctrl-C, kill -9, a full disk, a mistake of ours."""

import gc
import math
import os
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from cli.command import ENDLESS, PICTURES, SMALL, assert_one_line, call, listed, read_json, read_until, start
from jnst import weights
from jnst.cli import flags


def test_a_mistake_of_ours_is_shown_whole_and_exits_1(here, monkeypatch, capsys):
    from jnst import api

    def broken(*arguments):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(api, "prepare", broken)
    assert call(*PICTURES, *SMALL, "--output=o.png") == 1
    assert "Traceback" in capsys.readouterr().err


# ---- Runs that do not reach their end

# Plain descent with a step that overshoots: the losses grow until they overflow.
OVERSHOOT = ["--optimizer=sgd", "--projection=none", "--learning_rate=1e6", "--normalization=gatys"]
OVERSHOOT += ["--style_weight=1e9", "--steps=50", "--print_every=1"]


@pytest.mark.slow
def test_divergence_names_step_and_term_and_saves_the_best(here, capsys):
    assert call(*PICTURES, *SMALL, *OVERSHOOT, "--output=o.png") == 3
    out, err = capsys.readouterr()
    record = read_json("o.json")
    bad = record["diverged"]
    assert f"jnst: diverged: the {bad['term']} term is not finite at step {bad['step']}\n" in err
    assert bad["term"] in ("total", "content", "style", "tv")
    assert "Traceback" not in err
    assert record["stopped"] == "diverged"
    assert 0 <= record["best_step"] < bad["step"]
    assert [row["step"] for row in record["trace"]] == list(range(bad["step"]))
    assert all(math.isfinite(value) for row in record["trace"] for value in row.values())
    best = min(record["trace"], key=lambda row: row["total"])
    assert record["best_step"] == best["step"] == 0
    np.testing.assert_array_equal(np.asarray(Image.open("o.png")), np.asarray(Image.open("photo.png")))


@pytest.mark.slow
def test_start_that_is_not_finite_overwrites_nothing(here, capsys):
    net = {"mean": np.zeros(3), "conv1_1": {"kernel": np.full((3, 3, 3, 4), 1e30), "bias": np.zeros(4)}}
    weights.save_safetensors(here / "huge.st", net)
    old = {"o.png": b"old", "o.json": b'{"trace": []}', "o.flags": flags.MARK.encode()}
    for name, data in old.items():
        (here / name).write_bytes(data)
    assert call(*PICTURES, *SMALL, "--weights=huge.st", "--output=o.png") == 3
    err = capsys.readouterr().err
    assert "jnst: diverged: the style term is not finite at step 0\n" in err
    assert "nothing written" in err
    assert all((here / name).read_bytes() == data for name, data in old.items())


@pytest.mark.slow
def test_ctrl_c_leaves_the_best_picture_and_says_so(here):
    child = start(*PICTURES, *SMALL, *ENDLESS, "--output=o.png")
    read_until(child.stdout, "step 3/")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    record = read_json("o.json")
    last = record["trace"][-1]["step"]
    assert record["stopped"] == "interrupted"
    assert [row["step"] for row in record["trace"]] == list(range(last + 1))
    assert record["best_step"] == min(record["trace"], key=lambda row: row["total"])["step"]
    assert f"jnst: interrupted after step {last}: o.png holds the best picture so far" in err
    assert "Traceback" not in err
    assert Image.open("o.png").size == (16, 16)
    assert (here / "o.flags").exists()


@pytest.mark.slow
def test_ctrl_c_before_the_first_step_leaves_nothing(here, tiny_file):
    before = listed(here)
    deep = [f"--weights={tiny_file}", "--style_layers=relu1_1,relu5_4"]  # long to prepare
    child = start(*PICTURES, *SMALL, *deep, "--output=o.png")
    read_until(child.stdout, "content: ")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert err == "jnst: interrupted before there was a picture; nothing written\n"
    assert listed(here) == before


def test_ctrl_c_within_a_callback_from_c_is_not_lost(here, monkeypatch, capsys):
    from jnst import api

    prepare = api.prepare

    def interrupt(phase, info):
        gc.callbacks.remove(interrupt)
        signal.raise_signal(signal.SIGINT)

    def interrupted(*arguments, **more):  # what is raised in a garbage collection's callback, Python drops
        gc.callbacks.append(interrupt)
        gc.collect()
        return prepare(*arguments, **more)

    before = listed(here)
    monkeypatch.setattr(api, "prepare", interrupted)
    assert call(*PICTURES, *SMALL, "--output=o.png") == 130
    assert capsys.readouterr().err == "jnst: interrupted before there was a picture; nothing written\n"
    assert listed(here) == before


@pytest.mark.slow
def test_kill_leaves_the_old_picture_and_whole_files_only(here):
    (here / "o.png").write_bytes(b"old")
    child = start(*PICTURES, *SMALL, *ENDLESS, "--save_every=1", "--output=o.png")
    read_until(child.stdout, "step 20/")
    child.kill()
    child.communicate(timeout=60)
    assert (here / "o.png").read_bytes() == b"old"
    saved = sorted(here.glob("o-*.png"))
    assert len(saved) >= 19
    for path in saved:
        with Image.open(path) as image:
            image.load()
    assert not (here / "o.json").exists()


def test_full_disk_at_the_end_keeps_the_old_picture(here, capsys, tmp_path_factory):
    # All is compiled before: half an entry of the compilation cache would be another test's trouble.
    assert call(*PICTURES, *SMALL, f"--output={tmp_path_factory.mktemp('before') / 'o.tif'}") == 0
    (here / "o.tif").write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        code = call(*PICTURES, *SMALL, "--output=o.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert "o.tif: cannot be written: File too large" in capsys.readouterr().err
    assert (here / "o.tif").read_bytes() == b"old"
    assert listed(here) == ["o.tif", "painting.png", "photo.png"]


@pytest.mark.slow
def test_second_ctrl_c_does_not_say_that_there_was_no_picture(here):
    child = start(*PICTURES, *SMALL, *ENDLESS, "--save_every=1", "--output=o.png")
    read_until(child.stdout, "step 3/")
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "before there was a picture" not in err
    assert "Traceback" not in err


def test_picture_between_that_cannot_be_written_costs_no_run(here, capsys):
    (here / "o-000002.png").mkdir()
    assert call(*PICTURES, *SMALL, "--save_every=1", "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, "o-000002.png: cannot be written")
    assert sorted(path.name for path in here.glob("o*.png") if path.is_file()) == [
        "o-000001.png",
        "o-000003.png",
        "o-000004.png",
        "o-000005.png",
        "o.png",
    ]


def test_ctrl_c_while_the_picture_is_saved_waits_for_it(here, monkeypatch, capsys):
    from jnst import images

    save = images.save

    def interrupted(*arguments, **options):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        save(*arguments, **options)

    monkeypatch.setattr(images, "save", interrupted)
    assert call(*PICTURES, *SMALL, "--output=o.png") == 0
    assert read_json("o.json")["stopped"] == ""
    assert (here / "o.png").exists()
