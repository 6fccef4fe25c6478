"""How much sooner a second run starts: preparation (targets and compiling) with an empty cache against a warm one.

    python benchmarks/second_start.py

Runs the quickstart's first step in fresh processes, by turns with an empty and a warm JNST_CACHE; prints medians of
OUTPUT.json's compile_seconds and of the whole process, and their ratios.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3


def _start(folder, cache):
    command = [
        sys.executable,
        "-m",
        "jnst.cli.stylize",
        "--flagfile=quickstart",
        "--steps=1",
        f"--output={folder}/a.png",
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "JNST_CACHE": str(cache)})
    return json.loads(Path(folder, "a.json").read_text())["compile_seconds"], time.perf_counter() - start


def main():
    rows = {"empty": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            cache = Path(folder, f"cache{turn}")
            rows["empty"].append(_start(folder, cache))
            rows["warm"].append(_start(folder, cache))
    medians = {kind: [statistics.median(column) for column in zip(*row, strict=True)] for kind, row in rows.items()}
    for kind, (prepare, whole) in medians.items():
        print(f"{kind} cache: preparation {prepare:.1f} s, whole process with 1 step {whole:.1f} s")
    ratios = [warm / empty for empty, warm in zip(medians["empty"], medians["warm"], strict=True)]
    print(f"warm over empty: preparation {ratios[0]:.2f}, whole process {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
