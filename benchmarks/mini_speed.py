"""A step with mini against a step with VGG-19: loss, gradient and optimizer at the default flags, interleaved.

python benchmarks/mini_speed.py [SIZE]: prints medians, their ratio and a line of JSON. VGG-19's numbers are random ones
of its shapes, on a CPU (elsewhere a call makes several steps).
"""

import json
import statistics
import sys
import time

import jax
import numpy as np

from jnst import api, weights
from jnst.config import StylizeConfig

STEPS, ROUNDS = 3, 5


def main(arguments):
    size = int(arguments[0]) if arguments else 512
    runs = {name: _steps(name, size) for name in ("mini", "random")}
    times = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, advance in runs.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                advance()
            times[name].append((time.perf_counter() - start) / STEPS)
    mini, vgg = (statistics.median(times[name]) for name in ("mini", "random"))
    ratios = sorted(b / a for a, b in zip(times["mini"], times["random"], strict=True))
    print(f"{size} pixels: mini {mini:.3f} s a step, VGG-19 {vgg:.3f} s, {vgg / mini:.2f} times as fast")
    print(json.dumps({"benchmark": "mini_speed", "size": size, "mini_s": mini, "vgg19_s": vgg, "ratios": ratios}))


def _steps(name, size):
    """A function that makes one step of a run."""
    rng = np.random.default_rng(0)
    pictures = [rng.random((size, size, 3), np.float32) for _ in range(2)]
    config = StylizeConfig(weights=name, size=size)
    inputs = api.read_inputs(config, content=pictures[0], styles=pictures[1:], init="content")
    # Random filters come with replicated borders, VGG-19 with zeros, which cost less.
    backbone = weights.Backbone(
        name=name,
        sha256="",
        params=inputs.backbone.params,
        padding="zeros" if name == "random" else inputs.backbone.padding,
    )
    inputs = api.Inputs(content=inputs.content, styles=inputs.styles, init=None, backbone=backbone, steps=1)
    stage = api.prepare(inputs, config).stage
    state = stage.begin()

    def advance():
        nonlocal state
        state, _ = stage.advance(state, 1)
        jax.block_until_ready(state)

    advance()
    return advance


if __name__ == "__main__":
    main(sys.argv[1:])
