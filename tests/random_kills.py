"""Kills runs with SIGKILL at random moments and resumes them until they end: the picture must be that of a quiet run.

python tests/random_kills.py [KILLS] [SEED], 100 kills unless told; the suite does a few (tests/cli/test_resume.py).
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-P", "-m", "jnst.cli.stylize"]
RUN = ["--content=harbor", "--style=strokes", "--size=64", "--content_layers=conv1_2", "--style_layers=conv1_1,conv1_2"]
RUN += ["--steps=400", "--print_every=50", "--checkpoint_every=5", "--save_every=90", "--history=4"]

PYRAMID = ["--scales=32:40,48:40", "--steps=40", "--tile=32", "--average_decay=0.9"]


def command(output, *more):
    return [*COMMAND, *RUN, f"--output={output}", *more]


def environment(cache):
    return {**os.environ, "PYTHONPATH": str(ROOT), "JNST_CACHE": str(cache)}


def quiet_run(folder, *flags):
    """The outputs of a run that nothing disturbs, and how many seconds it took with everything compiled."""
    for _ in range(2):
        start = time.monotonic()
        subprocess.run(
            command(folder / "quiet.png", *flags), env=environment(folder), check=True, stdout=subprocess.DEVNULL
        )
        seconds = time.monotonic() - start
    return outputs(folder / "quiet.png"), seconds


def outputs(path):
    """What must not depend on kills: the pictures' bytes and the trace."""
    record = json.loads(path.with_suffix(".json").read_text())
    between = sorted(path.parent.glob(f"{path.stem}-*.png"))
    pictures = [picture.read_bytes() for picture in (path, *between)]
    return pictures, record["trace"], record["best_step"]


def killed_run(folder, name, kills, seconds, rng, *flags):
    """Kills a run up to so many times, resuming it each time, then lets it end. Returns its outputs and the kills."""
    path, done = folder / name, 0
    for _ in range(kills):
        process = subprocess.Popen(
            command(path, "--resume", *flags),
            env=environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            process.wait(rng.uniform(0, 1.05 * seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            done += 1
        err = process.communicate()[1]
        assert process.returncode in (0, -9), err.decode()
        if process.returncode == 0:
            break
    subprocess.run(command(path, "--resume", *flags), env=environment(folder), check=True, stdout=subprocess.DEVNULL)
    litter = [left.name for left in folder.iterdir() if left.name.startswith(".")]
    assert not litter, litter
    return outputs(path), done


def main(kills, seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as base:
        for case, (optimizer, *flags) in enumerate((["lbfgs"], ["adam"], ["adam", *PYRAMID])):
            flags = [f"--optimizer={optimizer}", *flags]
            folder = Path(base, str(case))  # of its own: no picture on the way of another case
            folder.mkdir()
            expected, seconds = quiet_run(folder, *flags)
            done = runs = 0
            while done < kills / 3:
                found, more = killed_run(folder, f"{runs}.png", rng.randint(1, 12), seconds, rng, *flags)
                # The pictures carry their flags, which are alike but for the output's name, and that is not kept.
                assert found == expected, f"{optimizer}, run {runs}: another picture or trace"
                done, runs = done + more, runs + 1
                print(f"{optimizer}: {done} kills in {runs} runs, all to the same bytes", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
