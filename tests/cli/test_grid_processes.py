"""bin/grid in two real processes that share a folder."""

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from cli.command import listed
from cli.test_grid import BASE, OWN, call, pictures, start, table

pytestmark = pytest.mark.slow

AXES = ["--axis=style_weight=1e1,1e2,1e3", "--axis=seed=0,1,2", "--init=mix"]


def _address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def _pair(*arguments):
    address = _address()
    flags = [[f"--coordinator_address={address}", "--num_processes=2", f"--process_id={index}"] for index in (0, 1)]
    return [start(*arguments, *own) for own in flags]


def _pair_of_slurm(*arguments):
    """As `srun --ntasks=2` starts them: what they are stands in the environment."""
    port = _address().rpartition(":")[2]
    job = {"SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "127.0.0.1,elsewhere", "JAX_COORDINATOR_PORT": port}
    job |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    return [start(*arguments, env={**os.environ, **job, "SLURM_PROCID": str(index)}) for index in (0, 1)]


def _finish(process, seconds=180):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def test_two_processes_make_what_one_makes_and_nothing_twice(here):
    pair = _pair(*BASE, *AXES)
    ends = [_finish(process) for process in pair]
    assert [end[0] for end in ends] == [0, 0], ends
    assert [end[2] for end in ends] == ["", ""]
    names = [
        {line.split(":")[0] for line in out.splitlines() if "_style_weight=" in line.split(":")[0]}
        for _, out, _ in ends
    ]
    assert [len(own) for own in names] == [5, 4]  # nine runs: each process its own
    assert not names[0] & names[1]
    assert [row["run"] for row in table()] == sorted(names[0] | names[1])
    assert all(row["total"] for row in table())
    assert "not yet" not in Path("out/index.html").read_text()
    assert not [path for path in Path("out").iterdir() if path.name.startswith(".")]
    assert call(*BASE, *AXES, "--output=one") == 0
    for name, picture in pictures("one").items():
        assert np.abs(picture - pictures()[name]).max() <= 1
    # Once more, in two: nothing is left to do.
    stamps = {name: os.stat(Path("out", name)).st_mtime_ns for name in listed(Path("out")) if name not in OWN}
    assert [_finish(process)[0] for process in _pair(*BASE, *AXES)] == [0, 0]
    assert {name: os.stat(Path("out", name)).st_mtime_ns for name in stamps} == stamps


@pytest.mark.parametrize(("pair_of", "victim"), [(_pair, 0), (_pair_of_slurm, 1)], ids=["by hand", "by SLURM"])
def test_the_survivor_of_a_kill_ends_with_one_line_and_a_rerun_does_the_rest(here, pair_of, victim):
    long = ["--runs_at_once=1", "--steps=1000", "--checkpoint_every=100"]
    pair = pair_of(*BASE, *AXES, *long)
    until = time.monotonic() + 100
    while not list(Path("out").glob("*.json")) and time.monotonic() < until:  # a first run is finished
        time.sleep(0.05)
    pair[victim].kill()
    start = time.monotonic()
    pair[victim].communicate()
    code, _, err = _finish(pair[1 - victim], 60)
    assert time.monotonic() - start < 30
    assert code == 4
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert f"process {victim} (host " in lines[0]
    assert "is lost; what is finished stays; go on with: " in lines[0]
    assert " ".join(AXES[:1]) in lines[0]
    done = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.json")}
    assert done
    assert call(*BASE, *AXES, *long) == 0
    assert len(table()) == 9
    assert all(row["total"] for row in table())
    assert {name: Path("out", name).stat().st_mtime_ns for name in done} == done
    assert not list(Path("out").glob("*.ckpt"))
