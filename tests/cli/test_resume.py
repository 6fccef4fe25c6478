"""Nothing is lost: checkpoints, --resume, and two runs on one output."""

import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from cli.command import ENDLESS, PICTURES, SMALL, assert_one_line, call, listed, read_json, read_until, run, start
from jnst.cli import checkpoint, report
from jnst.config import OPTIMIZERS

sys.path.insert(0, str(Path(__file__).parents[1]))
import random_kills  # noqa: E402

RUN = [*PICTURES, *SMALL, "--checkpoint_every=2", "--history=3"]


def state(output):
    """What a run left, but for the seconds."""
    record = read_json(Path(output).with_suffix(".json"))
    for name in ("compile_seconds", "run_seconds"):
        record.pop(name)
    for name in ("output", "checkpoint_every"):
        record["flags"].pop(name)
    return Path(output).read_bytes(), record


def everything(folder):
    return {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in listed(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        "lbfgs",
        "zoom",
        *(pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS if name not in ("adam", "lbfgs")),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(here, optimizer):
    flags = (
        ["--optimizer=lbfgs", "--line_search=zoom", "--learning_rate=0"]
        if optimizer == "zoom"
        else [f"--optimizer={optimizer}"]
    )
    assert call(*RUN, *flags, "--steps=7", "--init=noise", "--output=whole.png") == 0
    assert call(*RUN, *flags, "--steps=3", "--init=noise", "--output=parts.png") == 0
    assert checkpoint.read("parts.png").facts["step"] == 3
    assert call(*RUN, *flags, "--steps=7", "--init=noise", "--output=parts.png", "--resume") == 0
    assert state("parts.png") == state("whole.png")


def test_without_a_checkpoint_it_starts_anew_and_says_so(here, capsys):
    assert call(*RUN, "--output=o.png", "--resume") == 0
    assert "o.ckpt: no checkpoint: the run starts anew\n" in capsys.readouterr().out
    assert call(*RUN, "--output=p.png") == 0
    assert state("o.png") == state("p.png")


def test_a_finished_run_is_left_as_it_is(here, capsys):
    assert call(*RUN, "--output=o.png") == 0
    before = everything(here)
    capsys.readouterr()
    assert call(*RUN, "--output=o.png", "--resume", "--print_every=1", "--checkpoint_every=3") == 0
    assert capsys.readouterr().out == "o.png: finished already, at step 5\n"
    assert everything(here) == before


def test_a_finished_run_whose_picture_is_gone_writes_it_again(here):
    assert call(*RUN, "--output=o.png") == 0
    before = state("o.png")
    (here / "o.png").unlink()
    assert call(*RUN, "--output=o.png", "--resume") == 0
    assert state("o.png") == before


def test_a_run_without_checkpoints_leaves_none(here, capsys):
    assert call(*RUN, "--checkpoint_every=0", "--output=o.png") == 0
    assert listed(here) == ["o.flags", "o.json", "o.png", "painting.png", "photo.png"]
    assert call(*RUN, "--checkpoint_every=0", "--output=o.png", "--resume", "--seed=3") == 2
    assert_one_line(capsys.readouterr().err, "--seed=3", "o.json", "--seed=0")


@pytest.mark.parametrize(
    "flag",
    [
        "--style_weight=3",
        "--content=painting.png",
        "--optimizer=sgd",
        "--seed=1",
        "--steps=4",
        "--size=8",
        "--init=noise",
        "--precision=bfloat16",
        "--device=cpu",
    ],
)
def test_a_flag_that_makes_another_run_is_refused_by_name(here, capsys, flag):
    assert call(*RUN, "--output=o.png") == 0
    before = everything(here)
    capsys.readouterr()
    assert call(*RUN, flag, "--output=o.png", "--resume") == 2
    assert_one_line(capsys.readouterr().err, flag.partition("=")[0], "o.ckpt", "--resume")
    assert everything(here) == before


def test_flags_that_change_no_pixel_may_differ(here):
    assert call(*RUN, "--steps=3", "--output=o.png") == 0
    shutil.copy("o.ckpt", "p.ckpt")
    more = ["--print_every=1", "--save_every=2", "--checkpoint_every=1", "--output=p.png"]
    assert call(*RUN, "--steps=5", *more, "--resume") == 0
    assert call(*RUN, "--steps=5", "--output=q.png") == 0
    assert (here / "p.png").read_bytes() == (here / "q.png").read_bytes()


@pytest.mark.parametrize("flag", ["content", "style", "init"])
def test_a_picture_that_has_changed_is_named(here, capsys, flag):
    flags = [*RUN, "--init=photo.png", "--style=other.png", "--content=third.png"]
    names = {"content": "third.png", "style": "other.png", "init": "photo.png"}
    shutil.copy("photo.png", "third.png")
    shutil.copy("painting.png", "other.png")
    assert call(*flags, "--steps=3", "--output=o.png") == 0
    Image.new("RGB", (16, 16)).save(names[flag])
    capsys.readouterr()
    assert call(*flags, "--output=o.png", "--resume") == 2
    assert_one_line(capsys.readouterr().err, f"--{flag}: has changed since o.ckpt")


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_that_is_so(here, monkeypatch):
    monkeypatch.setenv("JNST_PROGRAM", "stylize")
    flags = [*RUN, "--steps=500", "--output=a folder/o.png"]
    child = start(*flags)
    read_until(child.stdout, "step 4/")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    step = read_json("a folder/o.json")["trace"][-1]["step"]
    assert checkpoint.read("a folder/o.png").facts["step"] == step
    words = shlex.split(err.rpartition("go on with: ")[2])
    assert words == ["stylize", "--flagfile=a folder/o.flags", "--resume"]
    done = run(*words[1:])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"going on from step {step}\n" in done.stdout
    assert call(*flags, "--output=whole.png") == 0
    assert state("a folder/o.png") == state("whole.png")


def test_a_new_run_says_that_it_starts_anew_beside_an_older_checkpoint(here, capsys):
    assert call(*RUN, "--output=o.png") == 0
    capsys.readouterr()
    assert call(*RUN, "--output=o.png", "--seed=2") == 0
    assert "o.ckpt is of an earlier run, at step 5: this one starts anew" in capsys.readouterr().out


def damaged(path, data):
    return {"half": data[: len(data) // 2], "short": data[:-1], "empty": b"", "text": b"words" * 99}


@pytest.mark.parametrize("kind", ["half", "short", "empty", "text"])
def test_a_damaged_checkpoint_is_one_line(here, capsys, kind):
    assert call(*RUN, "--steps=3", "--output=o.png") == 0
    path = here / "o.ckpt"
    path.write_bytes(damaged(path, path.read_bytes())[kind])
    before = everything(here)
    capsys.readouterr()
    assert call(*RUN, "--steps=7", "--output=o.png", "--resume") == 2
    assert_one_line(capsys.readouterr().err, "o.ckpt")
    assert everything(here) == before


def test_a_checkpoint_of_other_shapes_is_one_line(here, capsys):
    assert call(*RUN, "--steps=3", "--output=o.png") == 0
    found = checkpoint.read("o.png")
    leaves = [np.zeros((2, *leaf.shape), leaf.dtype) for leaf in found.snapshot.leaves]
    checkpoint.write("o.png", found.snapshot._replace(leaves=leaves), found.facts)
    capsys.readouterr()
    assert call(*RUN, "--steps=7", "--output=o.png", "--resume") == 2
    assert_one_line(capsys.readouterr().err, "o.ckpt: does not fit this run")


def test_somebody_elses_ckpt_is_not_replaced(here, capsys):
    safetensors.numpy.save_file({"a": np.zeros(3)}, "o.ckpt")
    before = everything(here)
    assert call(*RUN, "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, "would replace o.ckpt")
    assert everything(here) == before


def test_a_full_disk_costs_the_checkpoint_only(here, capsys):
    """RLIMIT_FSIZE stands between the checkpoint's size and the picture's."""
    assert call(*RUN, "--steps=3", "--output=o.png") == 0
    old, size = (here / "o.ckpt").read_bytes(), (here / "o.png").stat().st_size
    assert len(old) > 2 * size
    capsys.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size, before[1]))
    try:
        assert call(*RUN, "--steps=7", "--checkpoint_every=1", "--output=o.png", "--resume") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert_one_line(capsys.readouterr().err, "o.ckpt: cannot be written")
    assert (here / "o.ckpt").read_bytes() == old
    assert call(*RUN, "--steps=7", "--output=whole.png") == 0
    assert state("o.png") == state("whole.png")
    assert not [name for name in listed(here) if name.endswith(".part")]


@pytest.mark.slow
def test_a_second_run_on_one_output_is_refused(here, capsys):
    child = start(*RUN, *ENDLESS, "--output=o.png")
    read_until(child.stdout, "step 2/")
    try:
        for other in ("o.png", "o.jpg", "./o.png"):  # they share record and checkpoint
            assert call(*RUN, f"--output={other}") == 2
            assert_one_line(capsys.readouterr().err, f"--output={other}", "another run")
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()
    assert call(*RUN, "--output=o.png") == 0  # a killed run holds nothing


def test_halves_of_files_that_a_kill_left_are_swept(here):
    ours = [".o.png.abcdefgh.part", ".o-000100.png.abcdefgh.part", ".o.ckpt.abcd_fgh.part", ".o.flags.abcdefgh.part"]
    (here / ".o.ckpt.87654321.part").mkdir()  # a checkpoint is written in a folder
    (here / ".o.ckpt.87654321.part/.tmpAbCdEf").write_bytes(b"half")
    theirs = [".o-b.png.abcdefgh.part", ".other.png.abcdefgh.part", "o.png.part"]
    for name in ours + theirs:
        (here / name).write_bytes(b"half")
    assert call(*RUN, "--output=o.png") == 0
    assert [name for name in sorted(os.listdir(here)) if name.endswith(".part")] == sorted(theirs)


def test_kills_amid_a_checkpoint_leave_what_is_swept(here):
    """safetensors 0.8 writes under a name of its own beside the one that it is given."""
    code = """
import numpy as np
from jnst.cli import checkpoint
from jnst.types import Snapshot
snapshot = Snapshot([np.zeros(5_000_000, np.float32)], [])
while True:
    checkpoint.write("o.png", snapshot, {})
"""
    before, halves = set(os.listdir(here)), 0
    for seconds in (0, 0.01, 0.02, 0.03, 0.04):
        child = subprocess.Popen([sys.executable, "-P", "-c", code])
        until = time.monotonic() + 60
        while set(os.listdir(here)) == before and child.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(seconds)
        child.kill()
        child.wait()
        halves += bool(set(os.listdir(here)) - before - {"o.ckpt"})
        report.sweep("o.png")
        assert set(os.listdir(here)) <= before | {"o.ckpt"}
        (here / "o.ckpt").unlink(missing_ok=True)
    assert halves  # else nothing was tried


def test_the_checkpoint_repeats_and_holds_no_nan(here):
    for name in ("a", "b"):
        assert call(*RUN, f"--output={name}.png") == 0
    first, second = (checkpoint.read(f"{name}.png") for name in "ab")
    for one, other in zip(first.snapshot.leaves, second.snapshot.leaves, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()
    assert json.dumps(first.snapshot.trace) == json.dumps(second.snapshot.trace)


def test_a_finished_run_of_a_changed_picture_is_not_finished(here, capsys):
    assert call(*RUN, "--output=o.png") == 0
    before = (here / "o.png").read_bytes()
    Image.new("RGB", (16, 16)).save("photo.png")
    capsys.readouterr()
    assert call(*RUN, "--output=o.png", "--resume") == 2
    assert_one_line(capsys.readouterr().err, "--content: has changed since o.json")
    assert (here / "o.png").read_bytes() == before


def test_a_finished_run_of_changed_weights_is_not_finished(here, capsys):
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        arrays = {"block1_conv1/kernel": rng.normal(size=(3, 3, 3, 4)), "block1_conv1/bias": np.zeros(4)}
        np.savez("net.npz", **arrays)
        code = call(*RUN, "--weights=net.npz", "--output=o.png", *(["--resume"] if seed else []))
        assert code == 2 * seed
    assert_one_line(capsys.readouterr().err, "--weights: has changed since o.json")


def test_a_stranger_s_metadata_make_no_checkpoint(here, capsys):
    safetensors.numpy.save_file({"a": np.zeros(3)}, "o.ckpt", {"checkpoint": '{"trace": []}'})
    before = everything(here)
    for more in ([], ["--resume"]):
        assert call(*RUN, "--output=o.png", *more) == 2
        assert_one_line(capsys.readouterr().err, "o.ckpt")
    assert everything(here) == before


@pytest.mark.slow
def test_a_kill_before_the_first_checkpoint_over_an_older_run_is_no_obstacle(here):
    assert call(*RUN, "--steps=7", "--output=o.png") == 0
    flags = [*RUN, "--seed=4", "--init=noise", "--steps=5000", "--print_every=1", "--checkpoint_every=4000"]
    child = start(*flags, "--output=o.png")
    read_until(child.stdout, "step 3/")
    child.kill()
    child.communicate()
    assert checkpoint.read("o.png").facts["step"] == 0
    child = start(*flags, "--output=o.png", "--resume")
    assert read_until(child.stdout, "going on from step 0")
    child.kill()
    child.communicate()


def test_halves_with_long_names_are_swept_too(here):
    name = "n" * 70
    (here / f".{name[:50]}.abcdefgh.part").write_bytes(b"half")
    assert call(*RUN, f"--output={name}.png") == 0
    assert not [left for left in listed(here) if left.endswith(".part")]


def test_without_a_cache_folder_it_says_that_there_is_no_lock(here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setenv("JNST_CACHE", str(here / "file"))
    assert call(*RUN, "--output=o.png") == 0
    assert_one_line(capsys.readouterr().err, "no lock")


def test_too_little_memory_is_one_line(here, capsys, monkeypatch):
    from jnst import api

    def prepare(*arguments, **more):
        return np.zeros(2**60, np.uint8)

    monkeypatch.setattr(api, "prepare", prepare)
    assert call(*RUN, "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, "--size=16", "needs more memory than there is")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--optimizer=adam", "--line_search=zoom"], ["--line_search=zoom", "--optimizer=adam"]),
        (["--optimizer=lbfgs", "--line_search=zoom", "--learning_rate=0.5"], ["--learning_rate=0.5", "expected 0"]),
    ],
    ids=["adam", "rate"],
)
def test_flags_that_would_do_nothing_are_refused(here, capsys, flags, words):
    assert call(*RUN, *flags, "--output=o.png") == 2
    assert_one_line(capsys.readouterr().err, *words)


@pytest.mark.slow
def test_random_kills(tmp_path, monkeypatch):
    monkeypatch.setenv("JNST_CACHE", os.environ["JNST_CACHE"])
    rng = random.Random(1)
    expected, seconds = random_kills.quiet_run(tmp_path)
    found, kills = random_kills.killed_run(tmp_path, "killed.png", 4, seconds, rng)
    assert found == expected
    assert kills > 0
