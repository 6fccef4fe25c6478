"""`bin/bench tiles`: a step of style transfer in tiles, and whole where that fits into memory: seconds and peak memory.

The real path of `stylize`, with random pictures: each side is a process of its own that makes Adam's (or L-BFGS's)
steps through `tasks.stylize`, after one that is not timed. Peak memory is what the kernel says of the process, the
interpreter and the libraries included. No PyTorch is needed.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import workers
from jnst import memory, weights
from jnst.config.options import option
from jnst.errors import InputError

NEEDS_TORCH = False
USAGE = """\
usage: bench tiles [flags]

  Seconds and peak memory of a step in tiles and of one of the whole picture; the last line is JSON.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The flags of `bench tiles`."""

    size: int = option(2048, "Height and width of the picture.", lower=64, upper=65536)
    tile: int = option(512, "Longest side of a tile.", lower=16, upper=65536)
    network: str = option(
        "vgg19", "VGG-19's shapes with random filters, or the bundled mini.", choices=("vgg19", "mini")
    )
    optimizer: str = option("adam", "Its state is part of the memory.", choices=("adam", "lbfgs"))
    pooling: str = option("avg", "Pooling between the network's blocks.", choices=("avg", "max"))
    steps: int = option(1, "Timed steps of each; medians count.", lower=1, upper=1000)


def run(config: Config, command: list[str]) -> int:
    """Measures and prints.

    Args:
        config: The flags.
        command: Starts a worker, with the side's name and a folder behind it.
    """
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(dataclasses.asdict(config)))
        for name, tile in (("tiles", config.tile), ("whole", 0)):
            with workers.Worker(name, [*command, f"tiles:{tile}", folder]) as worker:
                sides[name] = worker.ask("measure", progress=_Said(name))
    found = _summary(config, sides)
    _print(found, sides)
    return 0


class _Said:
    """A line now and then of a step that takes minutes."""

    def __init__(self, name):
        self._name, self._last = name, time.monotonic()

    def __call__(self, said):
        if time.monotonic() - self._last > 20:
            self._last = time.monotonic()
            workers.warn(f"{self._name}: {said['share']:.0%} of the steps")


def _summary(config, sides):
    tiles, whole = sides["tiles"], sides["whole"]
    return {
        "benchmark": "tiles",
        **dataclasses.asdict(config),
        "tiles_s": statistics.median(tiles["seconds"]),
        "tiles_peak_bytes": tiles["peak"],
        "tiles_counted_bytes": tiles["counted"],
        "whole_s": statistics.median(whole["seconds"]) if "seconds" in whole else None,
        "whole_peak_bytes": whole.get("peak"),
        "whole_needs_bytes": whole.get("counted"),
        "overhead": statistics.median(tiles["seconds"]) / statistics.median(whole["seconds"])
        if "seconds" in whole
        else None,
        "plan": tiles["note"],
        **workers.facts(),
    }


def _print(found, sides):
    print(f"{found['network']}, {found['size']}x{found['size']}, {found['optimizer']}; {found['device']}")
    print(found["plan"])
    for name, side in sides.items():
        if "seconds" in side:
            seconds = statistics.median(side["seconds"])
            print(f"{name:6} {seconds:9.2f} s a step, {side['peak'] / 2**30:6.2f} GiB at the peak")
        else:
            print(f"{name:6} {side['refused']}")
    if found["overhead"]:
        print(f"tiles / whole {found['overhead']:.2f}")
    print(json.dumps(found), flush=True)


# The worker


def serve(folder: str, how: str) -> int:
    """The process of one side; `how` is the tile's size."""
    config = Config(**json.loads(Path(folder, "config.json").read_text()))
    return workers.serve(lambda: {"measure": lambda tell: _measure(config, how, tell)})


def _measure(config, tile, tell):
    import jax

    from jnst.config import StylizeConfig
    from jnst.tasks import stylize as task

    rng = np.random.default_rng(0)
    shape = (config.size, config.size, 3)
    content = rng.random(shape, np.float32)
    style = rng.random((512, 512, 3), np.float32)
    options = StylizeConfig(
        tile=tile, optimizer=config.optimizer, pooling=config.pooling, steps=config.steps + 1, print_every=0
    )
    layers = [part.split(":")[0] for part in (options.style_layers + "," + options.content_layers).split(",")]
    backbone = weights.load("mini" if config.network == "mini" else "random", layers)
    devices = jax.devices()[:1]
    arguments = {
        "padding": backbone.padding,
        "standardize": backbone.standardize,
        "devices": devices,
        "room": memory.available(devices),
    }
    try:
        prepared = task.prepare(jax.random.key(0), backbone.params, content, [style], options, **arguments)
    except InputError as error:
        return {"refused": str(error).removeprefix("--size: ")}
    marks = []
    tick = lambda share: tell({"share": share})  # noqa: E731
    result = task.run(prepared, callback=lambda record: marks.append(time.perf_counter()), tick=tick)
    if not all(np.isfinite(list(row.values())).all() for row in result.trace):
        raise ValueError(f"a loss that is not finite: {result.trace}")
    # Step 0 only evaluates, the first step after it is not timed either.
    seconds = np.diff(marks)[1:] if len(marks) > 2 else np.diff(marks)
    return {
        "seconds": [float(each) for each in seconds],
        "peak": _peak(),
        "counted": prepared.stage.bytes,
        "note": prepared.stage.note,
    }


def _peak():
    """Bytes that this process had in memory at most (Linux; elsewhere `resource` says it)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
