"""`fast apply` on folders, in one process and in several."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import stylenet_files
from PIL import Image

from cli.command import assert_one_line, listed, read_until
from jnst.cli import fast, sharing, tree
from jnst.cli.interrupt import Interrupt

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.fast", "apply"]
NET = "net.safetensors"


@pytest.fixture
def folder(here):
    """`photos` with five pictures of one size, one of them broken, in and below."""
    stylenet_files.write(here / NET)
    write_photos(here, "photos", ["a.png", "a.jpg", "deep/er/b.png", "deep/c.tif"])
    (here / "photos/deep/broken.jpg").write_bytes(b"no picture")
    for hidden in (".hidden.png", ".git/d.png"):
        (here / "photos" / hidden).parent.mkdir(exist_ok=True)
        (here / "photos" / hidden).write_bytes((here / "photo.png").read_bytes())
    (here / "photos/notes.txt").write_text("no picture")
    return here


PAINTED = ["a.jpg.png", "a.png.png", "deep/c.png", "deep/er/b.png"]


def write_photos(here, folder, names, size=(16, 16)):
    rng = np.random.default_rng(len(names))
    for name in names:
        path = here / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)


def call(*arguments):
    return fast.main(["fast", "apply", NET, *map(str, arguments)])


def run(*arguments):
    return subprocess.run([*COMMAND, NET, *arguments], capture_output=True, text=True, timeout=120)


def start(*arguments):
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, NET, *arguments], stdout=pipe, stderr=pipe, text=True)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in listed(folder) if not name.startswith(".")}


def times(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in listed(folder) if not name.startswith(".")}


def noted(folder):
    return [json.loads(line)["output"] for line in (folder / tree.LEDGER).read_text().splitlines()]


# ---- A folder


@pytest.mark.slow
def test_a_folder_is_mirrored_and_what_is_broken_named(folder, capsys):
    assert call("photos", "out") == 2
    found = capsys.readouterr()
    assert sorted(contents(folder / "out")) == PAINTED
    assert "jnst: photos/deep/broken.jpg: not a picture that can be read\n" in found.err
    assert "jnst: 1 of 5 failed: deep/broken.jpg\n" in found.err
    assert "out: 4 of 5 pictures made\n" in found.out
    assert "deep/er/b.png: 16x16" in found.out
    assert sorted(noted(folder / "out")) == PAINTED
    # Each is what the picture alone becomes.
    for name, source in (("a.jpg.png", "a.jpg"), ("deep/er/b.png", "deep/er/b.png")):
        assert call(f"photos/{source}", "one.png") == 0
        assert (folder / "one.png").read_bytes() == (folder / "out" / name).read_bytes()


def test_what_is_there_is_left(folder, capsys):
    call("photos", "out")
    before = times(folder / "out")
    capsys.readouterr()
    assert call("photos", "out") == 2
    assert times(folder / "out") == before
    assert "out: 0 of 5 pictures made, 4 were there already\n" in capsys.readouterr().out


def test_what_has_changed_is_made_again(folder):
    (folder / "photos/deep/broken.jpg").unlink()
    assert call("photos", "out") == 0

    def again(*flags):
        before = times(folder / "out")
        assert call("photos", "out", *flags) == 0
        return sorted(name for name, when in times(folder / "out").items() if when != before.get(name))

    (folder / "photos/a.jpg").write_bytes((folder / "photo.png").read_bytes())
    assert again() == ["a.jpg.png"]
    (folder / "out/deep/c.png").unlink()
    assert again() == ["deep/c.png"]
    (folder / "out/deep/c.png").write_bytes(b"cut")
    assert again() == ["deep/c.png"]
    assert again("--strength=0.5") == PAINTED
    assert again("--strength=0.5") == []
    assert again("--strength=0.5", "--style=stars") == PAINTED
    stylenet_files.write(folder / NET, seed=1)
    assert again("--strength=0.5", "--style=stars") == PAINTED
    os.rename(NET, "other")
    os.rename("other", "more.safetensors")
    os.link("more.safetensors", NET)
    assert again("--strength=0.5", "--style=stars", "--tile=0", "--device=cpu") == []


def test_formats(folder):
    assert call("photos", "out", "--format=jpg") == 2
    assert sorted(contents(folder / "out")) == ["a.jpg.jpg", "a.png.jpg", "deep/c.jpg", "deep/er/b.jpg"]
    assert Image.open("out/deep/c.jpg").format == "JPEG"


def test_an_output_within_what_is_read(folder):
    write_photos(folder, "photos/painted", ["foreign.png"])
    assert call("photos", "photos/painted") == 2
    before = times(folder / "photos/painted")
    assert sorted(before) == sorted([*PAINTED, "foreign.png"])
    assert call("photos", "photos/painted") == 2
    assert times(folder / "photos/painted") == before
    # Nor does another run read it.
    assert call("photos", "photos/more") == 2
    assert sorted(contents(folder / "photos/more")) == PAINTED


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "b.png"], ["a.png", "b.png"]),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png.png"]),
        (["A.jpg", "a.webp"], ["A.jpg.png", "a.webp.png"]),
        (["a.jpg", "a.jpg.tif", "a.png"], ["a.jpg.png", "a.jpg.tif.png", "a.png.png"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b.png", "a.c.png"]),
    ],
)
def test_no_two_pictures_become_one(here, names, expected):
    write_photos(here, "photos", names)
    found, _ = tree.jobs("photos", "out", ".png")
    assert [(job.name, job.key) for job in found] == list(zip(names, expected, strict=True))
    assert [job.output for job in found] == [f"out/{name}" for name in expected]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_closed_folder_is_named(folder, capsys):
    (folder / "photos/deep").chmod(0)
    try:
        assert call("photos", "out") == 2
    finally:
        (folder / "photos/deep").chmod(0o700)
    assert "photos/deep: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", "photos"], ["photos: is the folder that is read"]),
        (["photos", "photos/../photos"], ["is the folder that is read"]),
        (["photos", "photo.png"], ["photo.png: expected a folder"]),
        (["photos", "out.png"], ["out.png: expected a folder's name"]),
        (["photos", "photo.png/out"], ["photo.png/out: cannot be written"]),
        (["empty", "out"], ["empty: no picture in this folder"]),
        (["photos", "out", "--format=.gif"], ["--format=.gif: expected one of .png"]),
        (["photos", "out", "--format=.jpg", "--bit_depth=16"], ["--bit_depth=16"]),
        (["photos", "out", "--processes=0"], ["--processes=0"]),
        (["photos", "out", "--style=moon"], ["--style=moon"]),
        (["up", "."], ["photo.png would replace down.png, which is read"]),
    ],
)
def test_bad_input_is_one_line(folder, capsys, arguments, words):
    (folder / "empty").mkdir()
    (folder / "up").mkdir()
    (folder / "up/photo.png").write_bytes((folder / "photo.png").read_bytes())
    (folder / "up/down.png").symlink_to(folder / "photo.png")
    before = contents(folder)
    assert call(*arguments) == 2
    assert_one_line(capsys.readouterr().err, *words)
    assert contents(folder) == before


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line_from_workers_too(folder, capsys):
    assert call("photos", "out", "--device=tpu:9", "--processes=2") == 2
    assert_one_line(capsys.readouterr().err, "--device=tpu:9")


# ---- What is noted


@pytest.fixture
def job():
    return tree.Job("a.jpg", "in/a.jpg", "a.png", "out/a.png")


def note(folder, job, facts):
    ledger = tree.Ledger(folder)
    Path(job.output).write_bytes(b"12345")
    ledger.add(job, facts)
    return ledger


def test_torn_and_foreign_lines_are_passed_over(here, job):
    note("out", job, {"a": 1}).close()
    path = here / "out" / tree.LEDGER
    whole = path.read_bytes()
    path.write_bytes(b'5\n"x"\n{"output": 3}\n\xff\xfe\n' + b"[" * 100_000 + b"\n" + whole + whole[: len(whole) // 2])
    ledger = tree.Ledger("out")
    assert ledger.made(job, {"a": 1})
    assert not ledger.made(job, {"a": 2})
    other = job._replace(key="b.png")
    ledger.add(other, {"a": 3})
    assert ledger.made(other, {"a": 3})
    ledger.close()
    assert tree.Ledger("out").made(other, {"a": 3})


def test_what_others_append_is_seen(here, job):
    ledger, other = tree.Ledger("out"), note("out", job, {"a": 1})
    assert ledger.made(job, {"a": 1})
    other.add(job, {"a": 2})
    assert not ledger.made(job, {"a": 1})
    assert ledger.made(job, {"a": 2})


# Not of this process: claims of one process do not keep it from itself.
HOLD = """
import sys
from jnst.cli.tree import Ledger
with Ledger(sys.argv[1]).claim(sys.argv[2]) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def hold(key):
    command = [sys.executable, "-P", "-c", HOLD, "out", key]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


@pytest.mark.slow
def test_a_picture_that_another_process_has_is_left_to_it(folder, capsys):
    (folder / "photos/deep/broken.jpg").unlink()
    process = hold("deep/c.png")
    left = folder / "out/deep/.c.png.12345678.part"
    stale = folder / "out/deep/er/.b.png.12345678.part"
    foreign = folder / "out/deep/er/.x.png.12345678.part"
    stale.parent.mkdir(parents=True)
    for path in (left, stale, foreign):
        path.write_bytes(b"half")
    assert call("photos", "out") == 0
    assert "3 of 4 pictures made, 1 another process has" in capsys.readouterr().out
    assert not (folder / "out/deep/c.png").exists()
    assert left.exists()
    assert foreign.exists()
    assert not stale.exists()
    process.kill()  # which ends its claim
    process.wait()
    assert call("photos", "out") == 0
    assert "1 of 4 pictures made, 3 were there already" in capsys.readouterr().out
    assert not left.exists()


def test_what_another_process_had_is_looked_at_once_more_at_the_end(here, job):
    last = job._replace(name="b.jpg", key="b.png")
    told = sharing._Told([job, last], Interrupt())
    seen = []
    while (found := told.next()) is not None:
        told.show(found, {"state": "taken" if seen != [job, last] else "kept"})
        seen.append(found)
    assert seen == [job, last, job, last]
    assert (told.counts["kept"], told.counts["taken"]) == (1, 1)


# ---- Several processes


@pytest.fixture
def many(here):
    """Twelve pictures, each of a size that takes a moment."""
    stylenet_files.write(here / NET)
    write_photos(here, "photos", [f"{index:02}.png" for index in range(12)], (160, 120))
    return here


@pytest.mark.slow
def test_processes_share_a_folder(many):
    one, two = run("photos", "one"), run("photos", "two", "--processes=3")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    for name in contents(many / "one"):  # the number of threads may change a sum's last bit
        pictures = [np.asarray(Image.open(many / folder / name), int) for folder in ("one", "two")]
        assert abs(pictures[0] - pictures[1]).max() <= 1
    assert len(contents(many / "one")) == len(noted(many / "two")) == 12
    lines = [line for line in two.stdout.splitlines() if line.startswith("[")]
    assert sorted(line.split()[1] for line in lines) == [f"{index:02}.png:" for index in range(12)]


@pytest.mark.slow
def test_two_commands_on_one_folder_make_no_picture_twice(many):
    processes = [start("photos", "out") for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
    assert sorted(noted(many / "out")) == [f"{index:02}.png" for index in range(12)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(many, processes):
    flag = f"--processes={processes}"
    assert run("photos", "whole", flag).returncode == 0
    process = start("photos", "out", flag)
    read_until(process.stdout, "[3/12]")
    process.kill()
    process.communicate()
    await_end_of_workers(many / "out")
    before = times(many / "out")
    done = noted(many / "out")
    assert 3 <= len(done) < 12
    again = run("photos", "out", flag)
    assert again.returncode == 0, again.stderr
    assert contents(many / "out") == contents(many / "whole")
    after = times(many / "out")
    assert {name: after[name] for name in done} == {name: before[name] for name in done}
    assert sorted(noted(many / "out")) == sorted(after)
    assert not list((many / "out").glob("*.part"))


def await_end_of_workers(folder):
    """Those whose parent was killed still finish the pictures at hand."""
    count, deadline = -1, time.monotonic() + 60
    while count != len(noted(folder)):
        assert time.monotonic() < deadline
        count = len(noted(folder))
        time.sleep(1.5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_finishes_the_pictures_at_hand(many, processes):
    process = start("photos", "out", f"--processes={processes}")
    read_until(process.stdout, "[1/12]")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    done = len(noted(many / "out"))
    assert 0 < done < 12
    last = err.splitlines()[-1]
    assert last.startswith(f"jnst: interrupted: {done} of 12 pictures are done; go on with: ")
    assert last.endswith(f"apply {NET} photos out --processes={processes}")
    assert sorted(contents(many / "out")) == sorted(noted(many / "out"))
    again = run("photos", "out", f"--processes={processes}")
    assert again.returncode == 0
    assert f"{12 - done} of 12 pictures made, {done} were there already" in again.stdout


def ticks(pid):
    """Of the processor, that a process has had so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are listed in /proc")
def test_a_worker_that_is_killed_costs_its_picture_alone(many):
    process = start("photos", "out", "--processes=2")
    read_until(process.stdout, "[1/12]")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    # On a busy machine one may begin long after the other: what worked most has made a picture and has the next.
    os.kill(int(max(children, key=ticks)), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "its process ended by signal 9" in err
    assert "out: 11 of 12 pictures made" in out
    assert run("photos", "out").returncode == 0
    assert len(contents(many / "out")) == 12


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are listed in /proc")
def test_a_worker_that_is_killed_before_its_first_picture_is_named(many):
    process = start("photos", "out", "--processes=2")
    listed_in, children, deadline = Path(f"/proc/{process.pid}/task/{process.pid}/children"), [], time.monotonic() + 60
    while len(children) < 2:
        assert time.monotonic() < deadline
        children = listed_in.read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)  # it has just been started
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err == "jnst: one of the processes ended by signal 9, with no picture at hand\n"
    assert "out: 12 of 12 pictures made" in out
