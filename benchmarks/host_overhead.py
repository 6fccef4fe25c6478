"""What the host adds to a step: a run with its loop, records and printing against the compiled step alone.

    python benchmarks/host_overhead.py [--size=512] [--steps=8] [--rounds=3]

Both in one process, by turns; prints the ratio of medians. The network is VGG-19 with random filters up to relu4_1.
"""

import io
import statistics
import time
from contextlib import redirect_stdout

import jax
import numpy as np
from absl import app, flags

from jnst import api
from jnst.cli.progress import Progress
from jnst.config import StylizeConfig
from jnst.tasks import stylize as task

_SIZE = flags.DEFINE_integer("size", 512, "Side of the square picture.")
_STEPS = flags.DEFINE_integer("steps", 8, "Steps in each measurement.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Measurements of each kind.")


def _run_seconds(inputs, config):
    """Seconds a step of `run`, from the first record on, printing each step."""
    prepared, marks = api.prepare(inputs, config), []
    progress = Progress(config.steps, print_every=1)

    def callback(record):
        progress.show(record)
        marks.append(time.perf_counter())

    with redirect_stdout(io.StringIO()):
        task.run(prepared, callback=callback)
    return (marks[-1] - marks[0]) / config.steps


def _bare_seconds(inputs, config):
    """Seconds a step of the compiled program called again and again, waited for once at the end."""
    prepared = api.prepare(inputs, config)
    extra = () if prepared.chunk == 1 else (jax.numpy.int32(1),)
    state, _ = prepared.advance(prepared.state, *prepared.arguments, *extra)
    jax.block_until_ready(state)
    if prepared.chunk > 1:
        extra = (jax.numpy.int32(config.steps),)
    start = time.perf_counter()
    for _ in range(config.steps if prepared.chunk == 1 else 1):
        state, _ = prepared.advance(state, *prepared.arguments, *extra)
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / config.steps


def main(_):
    rng = np.random.default_rng(0)
    picture = rng.random((_SIZE.value, _SIZE.value, 3), np.float32)
    layers = {"style_layers": "relu1_1,relu2_1,relu3_1,relu4_1", "content_layers": "relu4_1"}
    config = StylizeConfig(size=0, steps=_STEPS.value, print_every=0, **layers)
    inputs = api.read_inputs(config, content=picture, styles=[picture[::-1]])
    with api.computing(config) as device:
        pairs = [(_run_seconds(inputs, config), _bare_seconds(inputs, config)) for _ in range(_ROUNDS.value)]
    run, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"device {device.platform} ({device.device_kind}), jax {jax.__version__}, {_SIZE.value} pixels")
    print(f"run {run:.4f} s a step, compiled step alone {bare:.4f} s, ratio {run / bare:.3f}")
    print("pairs: " + ", ".join(f"{a / b:.3f}" for a, b in pairs))


if __name__ == "__main__":
    app.run(main)
