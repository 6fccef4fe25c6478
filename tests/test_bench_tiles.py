"""`bin/bench tiles`: its flags, and a small real run of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-P", str(ROOT / "benchmarks" / "bench.py"), "tiles"]


def bench(*flags):
    # Large pictures: what is compiled at level 0 takes seven times as long.
    env = {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_backend_optimization_level=1"}
    return subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=300, env=env)


@pytest.mark.slow
def test_a_step_in_tiles_beside_a_whole_one():
    done = bench("--size=250", "--tile=64", "--network=mini")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert "tiles: 4x4 of 64x64 pixels" in lines
    assert found["overhead"] == pytest.approx(found["tiles_s"] / found["whole_s"])
    assert found["overhead"] > 1  # windows of 236 pixels for tiles of 64
    assert 0 < found["tiles_counted_bytes"] < found["tiles_peak_bytes"]
    assert (found["size"], found["tile"], found["network"], found["optimizer"]) == (250, 64, "mini", "adam")


@pytest.mark.slow
def test_what_is_wrong_is_one_line():
    done = bench("--tile=3")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["jnst: --tile=3: expected a number not below 16"]
