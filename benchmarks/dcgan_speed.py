"""A step of a DCGAN's training, both networks: jnst against the same networks in PyTorch.

python -P benchmarks/dcgan_speed.py [sizes=32] [widths=64] [batch=64] [norm=batch] [rounds=7]

PyTorch runs in this environment, or else in .venv-bench, which `bin/bench` makes. Both sides begin with the same
numbers and see the same pictures and noise; their losses are compared before anything is timed. Each side is a process
of its own (see workers.py), and they take turns; of PyTorch the faster of two orders of memory counts. jnst draws its
noise in the step, PyTorch is given its own. The last line is JSON.
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
from jnst.config import DcganConfig, DcganSpec  # noqa: E402

DEFAULTS = {"sizes": "32", "widths": "64", "batch": "64", "norm": "batch", "rounds": "7"}
MOST_DIFFERENCE = 1e-3
"""Of the first step's losses, from which on the sides do not compute the same."""


def main(argv):
    """Measures and prints; returns the exit code."""
    if argv[1:2] == ["--worker"]:
        return _work(*argv[2:])
    given = dict(word.partition("=")[::2] for word in argv[1:])
    if given.keys() - DEFAULTS.keys():
        print(__doc__, file=sys.stderr)
        return 2
    chosen, rows = DEFAULTS | given, []
    for size in map(int, chosen["sizes"].split(",")):
        for width in map(int, chosen["widths"].split(",")):
            # Without dropout: the sides would drop different numbers.
            spec = DcganSpec(size=size, width=width, norm=chosen["norm"], dropout=0.0)
            row = _compare(spec, int(chosen["batch"]), int(chosen["rounds"]))
            rows.append(row)
            print(
                f"{size} pixels, width {width}, batch {chosen['batch']}: jnst {row['ours_s']:.4f} s, PyTorch "
                f"{row['torch_s']:.4f} s ({row['torch_variant']}), ratio {row['ratio']:.2f} (of the fastest turns "
                f"{row['ratio_of_fastest']:.2f})",
                flush=True,
            )
    print(json.dumps({"benchmark": "dcgan_speed", "rows": rows, **workers.facts()}), flush=True)
    return 0


def _compare(spec, batch, rounds):
    sides = ["jnst", *(f"torch:{layout}" for layout in peers.LAYOUTS)]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        _write(folder, spec, batch)
        words = ["-P", os.path.abspath(__file__), "--worker"]
        started = {
            side: running.enter_context(workers.Worker(side, [_python(side), *words, side, folder, spec.norm]))
            for side in sides
        }
        ours, *theirs = (np.array(started[side].ask("check")["losses"]) for side in sides)
        difference = max(float(np.abs(ours - each).max()) for each in theirs)
        if not difference < MOST_DIFFERENCE:  # NaN is a difference
            raise workers.FailedError(f"PyTorch computes something else than jnst: losses differ by {difference:.2g}")
        seconds = workers.interleave(started, rounds)
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    best = min(sides[1:], key=medians.get)
    return {
        "size": spec.size,
        "width": spec.width,
        "batch": batch,
        "norm": spec.norm,
        "difference": difference,
        "torch_variant": best,
        "ours_s": medians["jnst"],
        "torch_s": medians[best],
        "ratio": medians["jnst"] / medians[best],
        "ratio_of_fastest": min(seconds["jnst"]) / min(min(seconds[side]) for side in sides[1:]),
    }


def _python(side):
    if not side.startswith("torch") or importlib.util.find_spec("torch") is not None:
        return sys.executable
    return str(Path(ROOT, ".venv-bench", "bin", "python"))


def _training(spec):
    """jnst's side before its first step, and its source of noise."""
    import jax
    import jax.numpy as jnp

    from jnst import games, train
    from jnst.tasks import dcgan
    from jnst.types import Rates

    config = DcganConfig()
    generator, discriminator = config.training(10**6)
    spec = games.Spec(game=dcgan.Game(net=spec), generator=generator, discriminator=discriminator)
    rates = Rates(jnp.float32(config.learning_rate), beta1=jnp.float32(config.beta1))
    key = jax.random.key(0)
    mesh = train.spread_over(jax.devices()[:1], 1, 1)
    return key, games.prepare(key, [games.Choice(jnp.uint32(0), rates, rates)], spec, mesh=mesh)


def _write(folder, spec, batch):
    """The networks' first numbers, by path, the first step's noise, and pictures."""
    import jax

    from jnst.nets import dcgan

    key, prepared = _training(spec)
    networks, arrays = prepared.state.networks, {}
    for side in ("generator", "discriminator"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(networks, side).params):
            arrays["/".join((side, *(part.key for part in path)))] = np.asarray(leaf[0])
    of_step = jax.random.fold_in(jax.random.fold_in(key, np.uint32(0)), 0)
    arrays["z"] = np.asarray(dcgan.latents(jax.random.fold_in(of_step, 0), batch, spec))
    arrays["pictures"] = np.random.default_rng(0).integers(0, 256, (batch, spec.size, spec.size, 3), np.uint8)
    arrays["spec"] = np.array([spec.size, spec.width])
    np.savez(Path(folder, "arrays.npz"), **arrays)


def _work(side, folder, norm):
    """A side's process."""
    kind, _, layout = side.partition(":")
    with np.load(Path(folder, "arrays.npz")) as file:
        arrays = {key: file[key] for key in file.files}
    return workers.serve(lambda: _asked((_torch if kind == "torch" else _jnst)(arrays, norm, layout)))


def _asked(run):
    """`run` makes a step, and returns the losses when all of it is there."""
    return {
        "check": lambda tell: {"losses": run()},
        "step": lambda tell, **arguments: workers.timed(run, **arguments),
    }


def _jnst(arrays, norm, layout):
    import jax

    from jnst import games

    size, width = map(int, arrays["spec"])
    key, prepared = _training(DcganSpec(size=size, width=width, norm=norm, dropout=0.0))
    fixed = {"spec": prepared.spec, "mesh": prepared.mesh, "spread": True}
    pictures, state = arrays["pictures"], prepared.state
    advance = games._advance.lower(key, state, pictures, prepared.choices, np.bool_(False), **fixed).compile()

    def run():
        nonlocal state
        state, terms = advance(key, state, pictures, prepared.choices, np.bool_(False))
        jax.block_until_ready(state)
        return [float(terms[name][0]) for name in ("generator", "discriminator")]

    return run


def _torch(arrays, norm, layout):
    import torch

    from benchmarks import dcgan_peers

    torch.set_num_threads(workers.cores())
    sides = [
        {name.removeprefix(side): array for name, array in arrays.items() if name.startswith(side)}
        for side in ("generator/", "discriminator/")
    ]
    training = dcgan_peers.Training(*sides, norm=norm, layout=layout)
    return lambda: training.update(arrays["z"], arrays["pictures"])[:2]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
