"""A step of pix2pix's or CycleGAN's training, all networks: jnst against the same networks in PyTorch.

python -P benchmarks/translation_speed.py [tasks=pix2pix,cyclegan] [sizes=256] [widths=64] [batch=1] [blocks=0]
    [upsample=resize] [pool=50] [rounds=5]

blocks=0: as many as bin/cyclegan takes. PyTorch runs in this environment, or else in .venv-bench, which `bin/bench`
makes. Both sides begin with the same numbers and see the same pictures; nothing is dropped, the image pools begin
empty; their losses are compared before anything is timed. Each side is a process of its own (see workers.py), and they
take turns. Of PyTorch the fastest variant counts: two orders of memory, and for CycleGAN what a network makes of two
pictures in one pass, as jnst does, or in two; Adam is its fused one. The last line is JSON.
"""

import contextlib
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from benchmarks import peers, workers  # noqa: E402
from jnst.config import CycleganConfig, Pix2pixConfig  # noqa: E402

DEFAULTS = {
    "tasks": "pix2pix,cyclegan",
    "sizes": "256",
    "widths": "64",
    "batch": "1",
    "blocks": "0",
    "upsample": "resize",
    "pool": "50",
    "rounds": "5",
}
MOST_DIFFERENCE = 1e-3
"""Of the first step's losses, in parts of them, from which on the sides do not compute the same."""

_COMPARED = ("generator", "discriminator")


def main(argv):
    """Measures and prints; returns the exit code."""
    if argv[1:2] == ["--worker"]:
        return _work(*argv[2:])
    given = dict(word.partition("=")[::2] for word in argv[1:])
    if given.keys() - DEFAULTS.keys():
        print(__doc__, file=sys.stderr)
        return 2
    chosen, rows = DEFAULTS | given, []
    for task in chosen["tasks"].split(","):
        for size in map(int, chosen["sizes"].split(",")):
            for width in map(int, chosen["widths"].split(",")):
                row = _compare({**chosen, "task": task, "size": size, "width": width}, int(chosen["rounds"]))
                rows.append(row)
                print(
                    f"{task}, {size} pixels, width {width}, batch {chosen['batch']}: jnst {row['ours_s']:.3f} s, "
                    f"PyTorch {row['torch_s']:.3f} s ({row['torch_variant']}), ratio {row['ratio']:.2f} (of the "
                    f"fastest turns {row['ratio_of_fastest']:.2f})",
                    flush=True,
                )
    print(json.dumps({"benchmark": "translation_speed", "rows": rows, **workers.facts()}), flush=True)
    return 0


def _compare(chosen, rounds):
    passes = ("", ":joined") if chosen["task"] == "cyclegan" else ("",)
    sides = ["jnst", *(f"torch:{layout}{way}" for layout in peers.LAYOUTS for way in passes)]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        Path(folder, "chosen.json").write_text(json.dumps(chosen))
        _write(folder, chosen)
        words = ["-P", os.path.abspath(__file__), "--worker"]
        started = {
            side: running.enter_context(workers.Worker(side, [_python(side), *words, side, folder])) for side in sides
        }
        ours, *theirs = (np.array(started[side].ask("check")["losses"]) for side in sides)
        difference = max(float((np.abs(ours - each) / np.abs(ours)).max()) for each in theirs)
        if not difference < MOST_DIFFERENCE:  # NaN is a difference
            raise workers.FailedError(f"PyTorch computes something else than jnst: losses differ by {difference:.2g}")
        seconds = workers.interleave(started, rounds)
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    best = min(sides[1:], key=medians.get)
    return {
        **{name: chosen[name] for name in ("task", "size", "width")},
        **{name: int(chosen[name]) for name in ("batch", "blocks", "pool")},
        "upsample": chosen["upsample"],
        "difference": difference,
        "torch_variant": best,
        "ours_s": medians["jnst"],
        "torch_s": medians[best],
        "ratio": medians["jnst"] / medians[best],
        "ratio_of_fastest": min(seconds["jnst"]) / min(min(seconds[side]) for side in sides[1:]),
        "seconds": medians,
    }


def _python(side):
    if not side.startswith("torch") or importlib.util.find_spec("torch") is not None:
        return sys.executable
    return str(Path(ROOT, ".venv-bench", "bin", "python"))


def _training(chosen):
    """jnst's side before its first step."""
    import jax
    import jax.numpy as jnp

    from jnst import games, train
    from jnst.tasks import cyclegan, pix2pix
    from jnst.types import Rates

    common = {"size": chosen["size"], "width": chosen["width"], "batch": int(chosen["batch"])}
    if chosen["task"] == "pix2pix":
        # Without dropout: the sides would drop different numbers.
        config = Pix2pixConfig(dropout=0.0, **common)
        game = pix2pix.Game(net=config.net, judge=config.judge(6))
    else:
        config = CycleganConfig(blocks=int(chosen["blocks"]), upsample=chosen["upsample"], **common)
        game = cyclegan.Game(net=config.net, judge=config.judge(3), size=config.size, pool=int(chosen["pool"]))
    generator, discriminator = config.training(10**6)
    spec = games.Spec(game=game, generator=generator, discriminator=discriminator)
    rates = Rates(jnp.float32(config.learning_rate), beta1=jnp.float32(config.beta1))
    key = jax.random.key(0)
    mesh = train.spread_over(jax.devices()[:1], 1, 1)
    return key, games.prepare(key, [games.Choice(jnp.uint32(0), rates, rates)], spec, mesh=mesh), config.normalization


def _write(folder, chosen):
    """The networks' first numbers, by path, and pictures of both kinds."""
    import jax

    _, prepared, norm = _training(chosen)
    networks, arrays = prepared.state.networks, {"norm": np.array(norm)}
    for side in ("generator", "discriminator"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(networks, side).params):
            arrays["/".join(("start", side, *(part.key for part in path)))] = np.asarray(leaf[0])
    shape = (2, int(chosen["batch"]), chosen["size"], chosen["size"], 3)
    arrays["pictures"] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(Path(folder, "arrays.npz"), **arrays)


def _work(side, folder):
    """A side's process."""
    chosen = json.loads(Path(folder, "chosen.json").read_text())
    with np.load(Path(folder, "arrays.npz")) as file:
        arrays = {key: file[key] for key in file.files}
    kind, *variant = side.split(":")
    return workers.serve(lambda: _asked((_torch if kind == "torch" else _jnst)(chosen, arrays, *variant)))


def _asked(run):
    """`run` makes a step, and returns the losses when all of it is there."""
    return {
        "check": lambda tell: {"losses": run()},
        "step": lambda tell, **arguments: workers.timed(run, **arguments),
    }


def _jnst(chosen, arrays):
    import jax

    from jnst import games

    key, prepared, _ = _training(chosen)
    fixed = {"spec": prepared.spec, "mesh": prepared.mesh, "spread": True}
    pictures, state = tuple(arrays["pictures"]), prepared.state
    advance = games._advance.lower(key, state, pictures, prepared.choices, np.bool_(False), **fixed).compile()

    def run():
        nonlocal state
        state, terms = advance(key, state, pictures, prepared.choices, np.bool_(False))
        jax.block_until_ready(state)
        return [float(terms[name][0]) for name in _COMPARED]

    return run


def _torch(chosen, arrays, layout, joined=""):
    import torch

    from benchmarks import translation_peers

    torch.set_num_threads(workers.cores())
    start = {name.removeprefix("start/"): array for name, array in arrays.items() if name.startswith("start/")}
    common = {"norm": str(arrays["norm"]), "layout": layout, "fused": True}
    given = tuple(arrays["pictures"])
    if chosen["task"] == "pix2pix":
        training = translation_peers.Pix2pix(start, **common)
        return lambda: training.update(*given)[:2]
    places, rng = int(chosen["pool"]), np.random.default_rng(0)
    training = translation_peers.Cyclegan(
        start, upsample=chosen["upsample"], pool=places, together=bool(joined), **common
    )

    def run():
        draw = lambda: (rng.random() < 0.5, int(rng.integers(max(1, places))))  # noqa: E731
        return training.update(*given, {name: [draw() for _ in given[0]] for name in "AB"})[:2]

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv))
