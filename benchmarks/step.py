"""`bin/bench step`: loss and gradient of the style transfer objective with respect to the image, jnst against PyTorch.

Both compute, in float32: VGG-19 to relu5_1, five Gram terms, one content term at relu4_2, the formula of the preset
neural_style. Numbers, pictures and targets are the same; a batch has its own content pictures and one style. Each side
is a process of its own (see workers.py), and they take turns. Loss and gradient are compared before anything is timed.
The total variation counts nothing here: beside random filters it would be most of the gradient. jnst computes it all
the same, PyTorch does not.
"""

import contextlib
import dataclasses
import functools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import peers, workers
from jnst import weights
from jnst.config import CONVOLUTIONS
from jnst.config.options import option

LAYERS = {
    "content_layers": "relu4_2:1",
    "style_layers": "relu1_1:1,relu2_1:1,relu3_1:1,relu4_1:1,relu5_1:1",
}
NETWORKS = {"vgg19": (5.0, 2e5), "mini": (5.0, 5e-7)}
"""Weights of content and style that make both gradients about alike, so that comparing their sum says something. They
are arguments of what is compiled: no step takes longer for them."""

MOST_LOSS, MOST_GRADIENT = 1e-3, 1e-2
"""Relative differences from which on the sides do not compute the same."""

USAGE = """\
usage: bench step [flags]

  Seconds of a loss and its gradient in jnst and in PyTorch, by turns; the last line is JSON.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The flags of `bench step`."""

    size: int = option(512, "Height and width of the pictures.", lower=16, upper=16384)
    batch: int = option(1, "Pictures at once.", lower=1, upper=4096)
    pooling: str = option("avg", "Pooling between the network's blocks.", choices=("avg", "max"))
    network: str = option("vgg19", "VGG-19's shapes with random numbers, or the bundled mini.", choices=NETWORKS)
    rounds: int = option(7, "Turns of each side; medians count.", lower=1, upper=10000)


def run(config: Config, command: list[str]) -> int:
    """Measures and prints.

    Args:
        config: The flags.
        command: Starts a worker, with the side's name and a folder behind it.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:

        def start(name, side):
            return workers.Worker(name, [*command, side, folder])

        _write(folder, config)
        ours = running.enter_context(start("jnst", "step"))
        numbers = {"compile_s": ours.ask("compile")["seconds"]}
        for _ in range(2):  # the first fills the cache
            with start("jnst", "step:cached") as cached:
                numbers["compile_cached_s"] = cached.ask("compile")["seconds"]
        loss, differences = ours.ask("check")["loss"], []
        sides = {"ours": ours}
        for layout in peers.LAYOUTS:
            side = sides[layout] = running.enter_context(start(f"torch {layout}", f"torch:{layout}"))
            differences.append(_difference(folder, layout, loss, side.ask("check")["loss"]))
        numbers |= {name: max(each[name] for each in differences) for name in differences[0]}
        seconds = workers.interleave(sides, config.rounds)
    found = _summary(config, seconds, numbers)
    _print(found, seconds)
    return 0


def _write(folder, config):
    """Both sides' numbers, from a seed; mini's own from its file."""
    rng = np.random.default_rng(0)
    if config.network == "mini":
        backbone = weights.load("mini")
        params, padding = backbone.params, backbone.padding
    else:
        params, padding = _he_random(rng), "zeros"
    shape = (config.size, config.size, 3)
    pictures = [_picture(rng, *shape) for _ in range(config.batch + 1)]
    content, style = np.stack(pictures[1:]), pictures[0]
    image = 0.8 * content + 0.2 * rng.random(content.shape, np.float32)
    balance = dict(zip(("content_weight", "style_weight"), NETWORKS[config.network], strict=True))
    task = {**LAYERS, **balance, "tv_weight": 0.0, "pooling": config.pooling, "padding": padding}
    peers.write(folder, task, params, content=content, style=style, image=image)


def _he_random(rng):
    """VGG-19 to conv5_1: zero mean, variance 2 / inputs, so that no layer drowns the others; no biases."""
    params, channels = {"mean": np.full(3, 0.45, np.float32)}, 3
    for name in CONVOLUTIONS[: CONVOLUTIONS.index("conv5_1") + 1]:
        width = (64, 128, 256, 512, 512)[int(name[4]) - 1]
        kernel = rng.standard_normal((3, 3, channels, width), np.float32) * np.sqrt(2 / (9 * channels))
        params[name] = {"kernel": kernel, "bias": np.zeros(width, np.float32)}
        channels = width
    return params


def _picture(rng, height, width, channels):
    """Blocks of colors under a little grain."""
    blocks = rng.random((-(-height // 8), -(-width // 8), channels), np.float32)
    picture = blocks.repeat(8, 0)[:height].repeat(8, 1)[:, :width]
    return 0.9 * picture + 0.1 * rng.random((height, width, channels), np.float32)


def _difference(folder, layout, ours, theirs):
    """Relative ones of loss and gradient; raises where they are too large."""
    expected, found = (np.load(Path(folder, f"{name}.npy")) for name in ("ours", layout))
    gradient = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    loss = abs(theirs - ours) / abs(ours)
    if not (loss < MOST_LOSS and gradient < MOST_GRADIENT):  # NaN is a difference
        raise workers.FailedError(
            f"PyTorch ({layout}) computes something else than jnst: relative differences of the loss {loss:.2g} "
            f"(expected below {MOST_LOSS:g}), of the gradient {gradient:.2g} (expected below {MOST_GRADIENT:g})"
        )
    return {"gradient_difference": gradient, "loss_difference": loss}


def _summary(config, seconds, numbers):
    """What the last line says."""
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    best = min(peers.LAYOUTS, key=medians.get)
    return {
        "benchmark": "step",
        **{name: getattr(config, name) for name in ("size", "batch", "pooling", "network")},
        "ours_s": medians["ours"],
        "torch_s": medians[best],
        "ratio": medians["ours"] / medians[best],
        "torch_variant": best,
        "torch_contiguous_s": medians["contiguous"],
        "torch_channels_last_s": medians["channels_last"],
        "rounds": config.rounds,
        **numbers,
        **workers.facts(),
    }


def _print(found, seconds):
    shape = f"{found['size']}x{found['size']}" + (f", {found['batch']} at once" if found["batch"] > 1 else "")
    print(f"{found['network']}, {shape}, {found['pooling']} pooling; {found['device']}, {found['threads']} threads")
    for name, each in seconds.items():
        side = "jnst" if name == "ours" else f"torch {name}"
        print(f"{side:20} {statistics.median(each):9.4f} s  ({min(each):.4f} to {max(each):.4f})")
    print(f"{'jnst / torch':20} {found['ratio']:9.3f}    ({found['torch_variant']})")
    print(f"{'jnst compiles':20} {found['compile_s']:9.2f} s  ({found['compile_cached_s']:.2f} s from its cache)")
    print(json.dumps(found), flush=True)


# The worker


def serve(folder: str, how: str) -> int:
    """The process of jnst; `cached` keeps compiled programs in the folder as `stylize` does in its own."""
    return workers.serve(lambda: _Side(folder, cached=how == "cached").asked())


class _Side:
    def __init__(self, folder, *, cached=False):
        import jax
        import jax.numpy as jnp

        from jnst import objective
        from jnst.cli import cache
        from jnst.config import StylizeConfig
        from jnst.tasks.stylize import parts
        from jnst.types import Targets

        if cached:
            os.environ["JNST_CACHE"] = str(Path(folder, "cache"))
            cache.use()
        else:
            jax.config.update("jax_enable_compilation_cache", False)
        self.jax, self.folder = jax, folder
        task, arrays = peers.read(folder)
        padding = task.pop("padding")
        config = StylizeConfig(normalization="neural_style", **task)
        spec = parts.objective_spec(config, padding)
        contents, style, image = (jnp.asarray(arrays[name]) for name in ("content", "style", "image"))
        params = parts.network(
            peers.params_of(arrays), contents[0], [style], spec, precision=config.precision, standardize=False
        )
        one = len(image) == 1
        self.image = image[0] if one else image
        content = functools.partial(parts.content_targets, spec=spec)
        contents = contents[0] if one else contents

        def targets():
            found = content(params, contents) if one else jax.vmap(content, in_axes=(None, 0))(params, contents)
            return Targets(content=found, style=parts.style_statistics(params, style, spec))

        def goal(image, params, targets, weights):
            return objective.style_objective(params, image, targets, weights, spec)[0]

        step = jax.value_and_grad(goal)
        if not one:
            step = jax.vmap(step, in_axes=(0, None, Targets(content=0, style=None), None))
        self.function, self.targets = jax.jit(step), targets
        prepared = parts.prepared(params)
        self.arguments = lambda targets: (self.image, prepared, targets, parts.weights(config))

    def asked(self):
        return {"compile": self.compile, "check": self.check, "step": self.step}

    def compile(self, tell):
        """Seconds of tracing, lowering and compiling; nothing is computed."""
        from jnst import compiler

        arguments = self.arguments(self.jax.eval_shape(self.targets))
        start = time.perf_counter()
        self.compiled = compiler.compiled(self.function.lower(*arguments))
        return {"seconds": time.perf_counter() - start}

    def check(self, tell):
        """The loss; its gradient goes into a file."""
        arguments = self.ready = self.arguments(self.jax.block_until_ready(self.targets()))
        loss, gradient = self.jax.device_get(self.compiled(*arguments))
        np.save(Path(self.folder, "ours.npy"), gradient.reshape(-1, *gradient.shape[-3:]))
        return {"loss": float(loss.sum())}

    def step(self, tell, **arguments):
        """Seconds of a loss and its gradient."""
        return workers.timed(lambda: self.jax.block_until_ready(self.compiled(*self.ready)), **arguments)
