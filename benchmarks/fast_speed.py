"""A pass of a stylenet: jnst against the same network in PyTorch, and against optimizing the picture.

python -P benchmarks/fast_speed.py [sizes=256,512] [nets=small,johnson] [rounds=7] [optimizing=1]

PyTorch runs in this environment, or else in .venv-bench, which `bin/bench` makes. Both sides have the same numbers and
layers: convolutions of reflected maps, instance normalization, up by enlarging and a convolution; their pictures are
compared before anything is timed. Each side is a process of its own (see workers.py), and they take turns; of PyTorch,
without gradients, the faster of two orders of memory counts. `optimizing` times a step of `stylize` by the bundled mini
at the same size, and says how many passes 100 of them take. The last line is JSON.
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
from jnst.config import StyleNetSpec  # noqa: E402

NETS = {
    "small": StyleNetSpec(),
    "johnson": StyleNetSpec(widths=(32, 64, 128), blocks=5, kernel=9, head="tanh"),
}
DEFAULTS = {"sizes": "256,512", "nets": "small,johnson", "rounds": "7", "optimizing": "1"}
MOST_DIFFERENCE = 1e-3
"""Of any pixel, from which on the sides do not compute the same."""

_STEPS = 100  # of optimizing


def main(argv):
    """Measures and prints; returns the exit code."""
    if argv[1:2] == ["--worker"]:
        return _work(*argv[2:])
    given = dict(word.partition("=")[::2] for word in argv[1:])
    if given.keys() - DEFAULTS.keys():
        print(__doc__, file=sys.stderr)
        return 2
    chosen = DEFAULTS | given
    rows = []
    for name in chosen["nets"].split(","):
        for size in map(int, chosen["sizes"].split(",")):
            row = _compare(name, size, int(chosen["rounds"]), chosen["optimizing"] == "1")
            rows.append(row)
            print(_line(row), flush=True)
    print(json.dumps({"benchmark": "fast_speed", "rows": rows, **workers.facts()}), flush=True)
    return 0


def _compare(name, size, rounds, optimizing):
    sides = ["jnst", *(f"torch:{layout}" for layout in peers.LAYOUTS), *(["optimizing"] if optimizing else [])]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        _write(folder, name, size)
        words = ["-P", os.path.abspath(__file__), "--worker"]
        started = {
            side: running.enter_context(workers.Worker(side, [_python(side), *words, side, folder, name, str(size)]))
            for side in sides
        }
        ours, *theirs = (np.array(started[side].ask("check")["sample"]) for side in sides[:3])
        difference = max(float(np.abs(ours - each).max()) for each in theirs)
        if not difference < MOST_DIFFERENCE:  # NaN is a difference
            raise workers.FailedError(f"PyTorch computes something else than jnst: pixels differ by {difference:.2g}")
        seconds = workers.interleave(started, rounds)
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    best = min(sides[1:3], key=medians.get)
    row = {"net": name, "size": size, "difference": difference, "torch_variant": best}
    row |= {"ours_s": medians["jnst"], "torch_s": medians[best], "ratio": medians["jnst"] / medians[best]}
    row["ratio_of_fastest"] = min(seconds["jnst"]) / min(min(seconds[side]) for side in sides[1:3])
    if optimizing:
        row["step_s"] = medians["optimizing"]
        row["passes_in_100_steps"] = _STEPS * medians["optimizing"] / medians["jnst"]
    return row


def _python(side):
    if not side.startswith("torch") or importlib.util.find_spec("torch") is not None:
        return sys.executable
    return str(Path(ROOT, ".venv-bench", "bin", "python"))


def _line(row):
    text = (
        f"{row['net']:8} {row['size']:5} pixels: jnst {row['ours_s']:.4f} s, PyTorch {row['torch_s']:.4f} s "
        f"({row['torch_variant']}), ratio {row['ratio']:.2f} (of the fastest turns {row['ratio_of_fastest']:.2f})"
    )
    if "step_s" in row:
        text += f"; {_STEPS} steps of optimizing {row['passes_in_100_steps']:.0f} passes"
    return text


def _write(folder, name, size):
    """The network's numbers from a seed, by path, and a photo."""
    import jax

    from jnst.nets import stylenet

    rng, spec = np.random.default_rng(0), NETS[name]
    params = jax.eval_shape(lambda: stylenet.init(jax.random.key(0), spec))["params"]
    arrays = {"image": rng.random((size, size, 3), np.float32)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        noise = rng.standard_normal(leaf.shape, np.float32)
        fan_in = np.prod(leaf.shape[:-1])
        scale = path[-1].key == "scale"
        drawn = 1 + 0.1 * noise if scale else noise * (np.sqrt(1 / fan_in) if leaf.ndim == 4 else 0.1)
        arrays["/".join(key.key for key in path)] = drawn.astype(np.float32)
    np.savez(Path(folder, "arrays.npz"), **arrays)


def _work(side, folder, name, size):
    """A side's process."""
    kind, _, how = side.partition(":")
    with np.load(Path(folder, "arrays.npz")) as file:
        arrays = {key: file[key] for key in file.files}
    make = {
        "jnst": lambda: _jnst(arrays, NETS[name]),
        "torch": lambda: _torch(arrays, NETS[name], how),
        "optimizing": lambda: _optimizing(arrays["image"], int(size)),
    }[kind]
    return workers.serve(lambda: _asked(make()))


def _asked(run):
    """`run` returns a picture, and does not before it is there."""
    return {
        "check": lambda tell: {"sample": np.asarray(run())[::16, ::16].tolist()},
        "step": lambda tell, **arguments: workers.timed(run, **arguments),
    }


def _jnst(arrays, spec):
    import jax
    import jax.numpy as jnp

    from jnst.tasks.fast import painting

    params = {}
    for key, array in arrays.items():
        *layer, leaf = key.split("/")
        if key != "image":
            (params.setdefault(layer[0], {}) if layer else params)[leaf] = jnp.asarray(array)
    images, mix = jnp.asarray(arrays["image"][None]), jnp.ones(1)
    return lambda: jax.block_until_ready(painting.paint({"params": params}, images, mix, spec))[0]


def _torch(arrays, spec, layout):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(workers.cores())
    order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    put = lambda array: torch.from_numpy(np.array(array))  # noqa: E731
    tensors = {
        key: put(array.transpose(3, 2, 0, 1)).contiguous(memory_format=order) if array.ndim == 4 else put(array)
        for key, array in arrays.items()
    }
    image = tensors["image"].permute(2, 0, 1)[None].contiguous(memory_format=order)

    def conv(x, kernel, stride=1):
        around = kernel.shape[-1] // 2
        return F.conv2d(F.pad(x, (around,) * 4, "reflect"), kernel, stride=stride)

    def layer(x, name, stride=1):
        """Convolution, instance normalization, rectifier."""
        x = conv(x, tensors[f"{name}/kernel"], stride)
        shift = tensors.get(f"{name}/shift")  # the second of a block has none, and no rectifier
        x = F.instance_norm(x, weight=tensors[f"{name}/scale"][0], bias=None if shift is None else shift[0])
        return x if shift is None else F.relu_(x)

    @torch.no_grad()
    def run():
        x = image - 0.45
        for level in range(len(spec.widths)):
            x = layer(x, f"downs_{level}", 2 if level else 1)
        for block in range(spec.blocks):
            x = x + layer(layer(x, f"blocks_{block}_0"), f"blocks_{block}_1")
        for rise in range(len(spec.widths) - 1):
            x = layer(F.interpolate(x, scale_factor=2, mode="nearest"), f"ups_{rise}")
        x = conv(x, tensors["last"]) + tensors["bias"][:, None, None]
        x = 0.45 + (150 / 255 * torch.tanh(x) if spec.head == "tanh" else x)
        return x.clamp(0, 1)[0].permute(1, 2, 0)

    return run


def _optimizing(image, size):
    """A step of `stylize`, at its default flags."""
    import jax

    from jnst import api, weights
    from jnst.config import StylizeConfig

    config = StylizeConfig(weights="mini", size=size)
    backbone = weights.load("mini")
    found = api.read_inputs(config, content=image, styles=[image[::-1]], init="content")
    inputs = api.Inputs(content=found.content, styles=found.styles, init=None, backbone=backbone, steps=1)
    stage = api.prepare(inputs, config).stage
    state = stage.begin()

    def run():
        nonlocal state
        state, _ = stage.advance(state, 1)
        jax.block_until_ready(state)
        return image

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv))
