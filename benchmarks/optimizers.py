"""Adam against L-BFGS on the same pictures, interleaved: the loss that each has after the same time.

python benchmarks/optimizers.py [WEIGHTS] [CONTENT STYLE] [-- flags as name=value]: prints a table and one line of JSON.
"""

import json
import sys
import time

import numpy as np

import jnst
import jnst.config

RUNS, MARKS = 3, (0.25, 0.5, 0.75, 1.0)


def trajectory(optimizer, content, style, options):
    """Seconds since the first evaluation, and the total, of each step."""
    found = []
    options = {"steps": 200, "print_every": 1, **options}
    jnst.stylize(
        content,
        style,
        optimizer=optimizer,
        callback=lambda r: found.append((time.perf_counter(), r.terms["total"])),
        **options,
    )
    times, totals = np.array(found).T
    return times - times[0], np.minimum.accumulate(totals)


def main(arguments):
    names = [argument for argument in arguments if "=" not in argument]
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    options = {name: type(getattr(jnst.config.StylizeConfig, name))(value) for name, value in options.items()}
    weights, content, style = [*names, *("random", "harbor", "strokes")[len(names) :]]
    options = {"weights": weights, "size": 256, **options}
    runs = {"adam": [], "lbfgs": []}
    for _ in range(RUNS):
        for optimizer in runs:
            runs[optimizer].append(trajectory(optimizer, content, style, options))
    end = min(np.median([times[-1] for times, _ in each]) for each in runs.values())
    rows = []
    for mark in MARKS:
        at = {
            optimizer: float(np.median([np.interp(mark * end, times, totals) for times, totals in each]))
            for optimizer, each in runs.items()
        }
        rows.append({"seconds": round(mark * end, 2), **at, "ratio": round(at["lbfgs"] / at["adam"], 3)})
        print("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()))
    step = {
        optimizer: float(np.median([times[-1] / (len(times) - 1) for times, _ in each]))
        for optimizer, each in runs.items()
    }
    print(json.dumps({"benchmark": "optimizers", "options": options, "step_s": step, "rows": rows}))


if __name__ == "__main__":
    main([argument for argument in sys.argv[1:] if argument != "--"])
