"""What the host adds to a step: the share of a run that passes outside the compiled program.

    python benchmarks/host_overhead.py [--size=512] [--steps=8]

One run with its loop, records and a printed line each step (more than a user has); the compiled program is timed
within it until its results are there. The network is VGG-19 with random filters up to relu4_1.
"""

import io
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
_STEPS = flags.DEFINE_integer("steps", 8, "Steps.")


def _timed(advance, seconds):
    def timed(*arguments):
        start = time.perf_counter()
        result = jax.block_until_ready(advance(*arguments))
        seconds.append(time.perf_counter() - start)
        return result

    return timed


def main(_):
    rng = np.random.default_rng(0)
    picture = rng.random((_SIZE.value, _SIZE.value, 3), np.float32)
    layers = {"style_layers": "relu1_1,relu2_1,relu3_1,relu4_1", "content_layers": "relu4_1"}
    config = StylizeConfig(size=0, steps=_STEPS.value, print_every=1, **layers)
    inputs = api.read_inputs(config, content=picture, styles=[picture[::-1]])
    with api.computing(config) as device:
        prepared, seconds = api.prepare(inputs, config), []
        stage = prepared.stage
        stage.arguments()  # the network and the targets are no part of a step
        prepared = prepared._replace(stage=stage._replace(advance=_timed(stage.advance, seconds)))
        progress = Progress(config.steps, config.print_every)

        def callback(record):
            progress.show(record)

        start = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            task.run(prepared, callback=callback)
        whole = time.perf_counter() - start
    print(f"device {device.platform} ({device.device_kind}), jax {jax.__version__}, {_SIZE.value} pixels")
    print(f"{whole / len(seconds):.4f} s a step, of which the host {(whole - sum(seconds)) / whole:.3%}")


if __name__ == "__main__":
    app.run(main)
