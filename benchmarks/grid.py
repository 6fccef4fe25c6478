"""Runs in one grid against as many of `stylize` and of a PyTorch loop, one after the other: time and memory of a run.

    python benchmarks/grid.py [--weights=mini] [--size=256] [--counts=1,2,4,8,16] [--optimizer=adam] [--rounds=7]

Three sides make the same steps, in one process and by turns, after a warm-up (with L-BFGS until its memory is full):

- grid: one call of the program that `bin/grid` runs, over N runs that differ in style weight; seconds / N
- stylize: N steps of one run as `bin/stylize` makes them; seconds / N
- torch: N steps of the same network, losses, optimizer and clipping in PyTorch, which need not be a part of jnst's
  environment (`pip install torch`; `--without_torch` leaves the side out). Loss and gradient are compared with ours
  first. The faster of contiguous and channels_last memory is taken.

Each turn begins with a call that is not timed. Printed are medians over the rounds; ratios are the median of the
rounds' own, with the least and the largest, since the machine may change its pace between rounds but less within one.
Behind them stands the ratio of the seconds that the process's threads computed (CPU), which other work on the same
cores changes less. What the host asks after each step is counted in. PyTorch keeps no best picture and looks at no
loss, which costs it nothing.

Memory is the peak of a process of its own for each row (Linux; of a grid divided by N), from start to a few steps, so
compiling and what Python and the libraries take are in it; beside it what XLA says that the program itself needs. Of
a process of `stylize` it is what each of N processes would take. Pictures are brought to a square of `size` pixels.
`random` stands for VGG-19 and gets its zero padding. The script starts itself again with the variables of ENVIRONMENT,
where they are not set: large pages, as bin/_launch has them, and shorter waits of PyTorch's threads, which beside other
work on the same cores made its steps 10 to 30 times slower and alone cost nothing.

On a GPU a call makes several steps, PyTorch runs with channels_last and the faster of TF32 and bfloat16 autocast,
--precision=bfloat16 is ours, and memory is the device's. That path has never been run: no GPU was at hand.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# jax and torch are imported by the side that needs them: a process whose memory is measured has one of them only.

ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # as bin/_launch does
    "GOMP_SPINCOUNT": "2000",  # or PyTorch's threads, waiting for each other, hold cores that others need
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a GPU's memory is for both
}
LEAST = 4  # steps of single runs in a round, of each side: fewer are too short to time
ROW = "{:>4} {:>7} {:>7} {:>7}  {:>25}  {:>25}  {:>8} {:>8} {:>9}"
HEAD = ROW.format(
    "n", "grid", "stylize", "torch", "grid/stylize, CPU", "grid/torch, CPU", "MiB", "program", "compiling"
)


def main(arguments):
    options = _options(arguments)
    if not options.without_torch and importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: pip install torch, or measure --without_torch", file=sys.stderr)
        return 2
    if not ENVIRONMENT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**ENVIRONMENT, **os.environ})
    if options.child:
        print(json.dumps(_peak(options)))
        return 0
    print(json.dumps(_measure(options)))
    return 0


def _options(arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--counts", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4, 8, 16])
    parser.add_argument("--optimizer", choices=("adam", "lbfgs"), default="adam")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--content", default="harbor")
    parser.add_argument("--style", default="strokes")
    parser.add_argument("--without_torch", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # SIDE, or grid:N, or torch:LAYOUT:ARITHMETIC:FILE
    return parser.parse_args(arguments)


def _measure(options):
    """Prints the table as it comes; returns all numbers."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    load = [os.getloadavg()[0]]
    inputs, config = _inputs(options)
    advance, compile_s, size, prepared = _stylize(options)
    sides = {"stylize": advance}
    with tempfile.TemporaryDirectory() as folder:
        torch = {}
        if not options.without_torch:
            file = str(Path(folder, "network.npz"))
            _write(file, inputs, prepared)
            torch = {"agreement": _agreement(file, options, config, inputs, prepared)}
            torch["kind"], sides["torch"] = _fastest(file, options)
        numbers = {
            "benchmark": "grid",
            "device": f"{jax.devices()[0].platform} ({jax.devices()[0].device_kind}), {os.cpu_count()} cores",
            "versions": _versions(),
            **{name: getattr(options, name) for name in ("size", "weights", "optimizer", "precision", "rounds")},
            "torch": torch,
            "stylize_compile_s": compile_s,
            "stylize_program_mib": size / 2**20,
            "stylize_mib": _child(options, "stylize"),
            "torch_mib": _child(options, f"torch:{torch['kind']}:{file}") if torch else None,
        }
    _warm_up(options, sides.values())
    own, program = numbers["stylize_mib"], numbers["stylize_program_mib"]
    print(f"{options.weights}, {options.size} pixels, {options.optimizer}, {options.precision}; seconds, MiB of a run")
    print(f"stylize: compiling {compile_s:.1f} s, a process {own:.0f} MiB, the program itself {program:.0f} MiB")
    if torch:
        print(f"PyTorch: {torch['kind']}, a process {numbers['torch_mib']:.0f} MiB")
    print(HEAD, flush=True)
    numbers["rows"] = [_row(options, count, sides, numbers) for count in options.counts]
    numbers["grid_compile_s"] = numbers["rows"][-1]["compile_s"]
    numbers["load"] = [*load, os.getloadavg()[0]]
    return numbers


def _row(options, count, sides, numbers):
    """Measures and prints one number of runs."""
    advance, compile_s, size = _grid(options, count)
    _warm_up(options, [advance])
    calls = -(-LEAST // count)
    timed = {"grid": (advance, calls)} | {name: (side, calls * count) for name, side in sides.items()}
    times, work = {name: [] for name in timed}, {name: [] for name in timed}
    for turn in range(options.rounds):
        order = [*timed][turn % len(timed) :] + [*timed][: turn % len(timed)]  # nobody is always first
        for name in order:
            side, times_called = timed[name]
            side()  # the first call after another side's finds its memory cold
            start, before = time.perf_counter(), time.process_time()
            for _ in range(times_called):
                side()
            times[name].append((time.perf_counter() - start) / (calls * count * _chunk()))
            work[name].append((time.process_time() - before) / (calls * count * _chunk()))
    row = {"n": count, "compile_s": compile_s, "grid_mib": _child(options, f"grid:{count}")}
    row |= {"grid_mib_a_run": row["grid_mib"] / count, "program_mib_a_run": size / 2**20 / count}
    row["stylize_mib"] = numbers["stylize_mib"]
    for name, seconds in times.items():
        row |= {f"{name}_s": statistics.median(seconds), f"{name}_s_range": [min(seconds), max(seconds)]}
        row[f"{name}_cpu_s"] = statistics.median(work[name])
    for name in sides:
        ratios = [a / b for a, b in zip(times["grid"], times[name], strict=True)]
        row |= {f"grid_over_{name}": statistics.median(ratios), f"grid_over_{name}_range": [min(ratios), max(ratios)]}
        ratios = [a / b for a, b in zip(work["grid"], work[name], strict=True)]
        row[f"grid_over_{name}_cpu"] = statistics.median(ratios)
    ratio = lambda name: "{:.2f} ({:.2f} to {:.2f}) {:.2f}".format(  # noqa: E731
        row[f"grid_over_{name}"], *row[f"grid_over_{name}_range"], row[f"grid_over_{name}_cpu"]
    )
    seconds = [f"{row[f'{name}_s']:.3f}" if name in times else "-" for name in ("grid", "stylize", "torch")]
    ratios = [ratio(name) if name in times else "-" for name in ("stylize", "torch")]
    memory = [f"{row['grid_mib_a_run']:.0f}", f"{row['program_mib_a_run']:.0f}"]
    print(ROW.format(count, *seconds, *ratios, *memory, f"{compile_s:.1f}"), flush=True)
    return row


def _warm_up(options, sides):
    for side in sides:
        for _ in range(-(-_warm_steps(options) // _chunk())):
            side()


def _warm_steps(options):
    """L-BFGS's steps take longer until all of its pairs are there."""
    from jnst.config import StylizeConfig

    return StylizeConfig.history + 3 if options.optimizer == "lbfgs" else 3


def _chunk():
    """Steps of one call."""
    from jnst.loop import most_steps

    return most_steps()


def _versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("jnst", "jax", "jaxlib", "numpy", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


# Ours


def _inputs(options):
    from jnst import api, images
    from jnst.config import StylizeConfig

    names = ("weights", "size", "optimizer", "precision", "content", "style")
    config = StylizeConfig(**{name: getattr(options, name) for name in names})
    inputs = api.read_inputs(config)
    square = lambda picture: images.resize(picture, (options.size, options.size))  # noqa: E731
    backbone = inputs.backbone
    if options.weights.partition(":")[0] == "random":
        backbone = dataclasses.replace(backbone, padding="zeros")
    content, styles = square(inputs.content), tuple(map(square, inputs.styles))
    return dataclasses.replace(inputs, content=content, styles=styles, backbone=backbone), config


def _grid(options, count):
    """A function that makes a call of the program, its seconds of compiling, its bytes."""
    import jax
    import jax.numpy as jnp

    from jnst import api, grid
    from jnst.tasks.stylize import many

    inputs, config = _inputs(options)
    weights = np.geomspace(30, 300, count)
    runs = [api.run_of(inputs, dataclasses.replace(config, style_weight=float(weight))) for weight in weights]
    backbone = inputs.backbone
    arguments = {
        "lanes": count,
        "tables": (1, 1),
        "padding": backbone.padding,
        "standardize": backbone.standardize,
        "mesh": grid.make_mesh(jax.devices()[:1]),
    }
    jax.clear_caches()
    start = time.perf_counter()
    program = many.compile_batch(runs, backbone.params, **arguments)
    compile_s = time.perf_counter() - start
    batch = many.begin(runs, backbone.params, **arguments)
    lanes, extra = batch.lanes, (jnp.int32(_chunk()),) if program.loops else ()

    def advance():
        nonlocal lanes
        lanes = program.advance(lanes, batch.shared, *extra)
        jax.device_get((lanes.state.step, lanes.bad_step, lanes.terms, lanes.bad_terms))  # as `many.drive` asks

    return advance, compile_s, program.bytes


def _stylize(options, *, once=False):
    """A function that makes a call of the compiled step, the seconds of compiling it, its bytes; and the run.

    `once`: compiled as often as `stylize` does, without a look at seconds and bytes.
    """
    import jax

    from jnst import api

    inputs, config = _inputs(options)
    compile_s = size = 0
    for _ in range(0 if once else 2):  # the first one in a process traces everything else for the first time, too
        jax.clear_caches()
        start = time.perf_counter()
        size, _ = api.footprint(inputs, config)
        compile_s = time.perf_counter() - start
    prepared = api.prepare(inputs, config)
    stage = prepared.stage
    state = stage.begin()

    def advance():
        nonlocal state
        state, terms = stage.advance(state, stage.chunk)
        jax.device_get((state.step, terms))  # as `stylize` asks

    return advance, compile_s, size, prepared


# PyTorch


def _write(file, inputs, prepared):
    """The network as a run has it, and the pictures, for a process without jax."""
    params = prepared.stage.arguments()[0]
    arrays = {"mean": params["mean"], "content": inputs.content.opaque(), "style": inputs.styles[0].opaque()}
    for name in params.keys() - {"mean"}:
        arrays |= {f"{name}/{part}": value for part, value in params[name].items()}
    np.savez(file, padding=inputs.backbone.padding, **{name: np.asarray(a, np.float32) for name, a in arrays.items()})


class _Torch:
    """Style transfer as one writes it in PyTorch: `loss(image)`, and steps of an optimizer."""

    def __init__(self, file, options, layout, arithmetic):
        import torch

        from jnst.config import CONVOLUTIONS, StylizeConfig, parse_layers, parse_rate

        self.torch, self.bfloat16 = torch, arithmetic == "bfloat16"
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = arithmetic == "tf32"
        torch.backends.cudnn.benchmark = True
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        arrays = np.load(file)
        self.padding = str(arrays["padding"])
        self.config = StylizeConfig(optimizer=options.optimizer)
        self.rate = parse_rate(self.config)
        self.layers = [parse_layers(flag, getattr(self.config, flag)) for flag in ("content_layers", "style_layers")]
        self.wanted = {name for names, _ in self.layers for name in names}
        self.mean = self._put(arrays["mean"])[None, :, None, None]
        self.params = {}
        for name in CONVOLUTIONS:
            if f"{name}/kernel" in arrays:
                kernel = self._put(arrays[f"{name}/kernel"].transpose(3, 2, 0, 1))
                self.params[name] = kernel.contiguous(memory_format=self.format), self._put(arrays[f"{name}/bias"])
        self.image = self.picture(arrays["content"])
        with torch.no_grad():
            found, style = self._features(self.image), self._features(self.picture(arrays["style"]))
            self.content = {name: found[name] for name in self.layers[0][0]}
            self.style = {name: self._gram(style[name]) for name in self.layers[1][0]}
            norms = lambda targets: {name: (x**2).sum() + 1e-6 for name, x in targets.items()}  # noqa: E731
            self.norms = {"content": norms(self.content), "style": norms(self.style)}
        self.image.requires_grad_()
        if options.optimizer == "adam":
            self.optimizer = torch.optim.Adam([self.image], lr=self.rate)
        else:
            self.optimizer = torch.optim.LBFGS(
                [self.image],
                lr=self.rate,
                max_iter=1,
                history_size=self.config.history,
                tolerance_grad=0,
                tolerance_change=-1,
            )

    def _put(self, array):
        return self.torch.from_numpy(np.array(array, order="C")).to(self.device)

    def picture(self, array):
        """`[H, W, 3]` as a batch of one, contiguous whatever the network has: PyTorch's L-BFGS asks for that."""
        return self._put(array.transpose(2, 0, 1)[None])

    def _features(self, image):
        F, found = self.torch.nn.functional, {}
        with self.torch.autocast(self.device, self.torch.bfloat16, enabled=self.bfloat16):
            x = (image - self.mean).contiguous(memory_format=self.format)
            for name, (kernel, bias) in self.params.items():
                if name.endswith("_1") and name != "conv1_1":
                    x = F.avg_pool2d(x, 2)
                if self.padding == "zeros":
                    x = F.conv2d(x, kernel, bias, padding=1)
                else:
                    x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode=self.padding), kernel, bias)
                found[name] = x
                x = found["relu" + name[4:]] = F.relu(x)
        return {name: found[name].float() for name in self.wanted}

    def _gram(self, x):
        _, c, h, w = x.shape
        flat = x.permute(0, 2, 3, 1).reshape(h * w, c) if self.format == self.torch.channels_last else x.view(c, -1).T
        return flat.T @ flat / (h * w)

    def loss(self, image):
        """Of `--normalization=relative`, at the default weights."""
        found, (content, style) = self._features(image), self.layers
        share = lambda kind, targets, name, x: ((x - targets[name]) ** 2).sum() / self.norms[kind][name]  # noqa: E731
        total = self.config.content_weight * sum(
            weight * share("content", self.content, name, found[name]) for name, weight in zip(*content, strict=True)
        )
        total += self.config.style_weight * sum(
            weight * share("style", self.style, name, self._gram(found[name]))
            for name, weight in zip(*style, strict=True)
        )
        rows, columns = image[..., 1:, :] - image[..., :-1, :], image[..., 1:] - image[..., :-1]
        variation = ((rows**2).sum() + (columns**2).sum()) / (image.shape[-1] * image.shape[-2])
        return total + self.config.tv_weight * variation

    def advance(self, steps):
        def closure():
            self.optimizer.zero_grad()
            loss = self.loss(self.image)
            loss.backward()
            return loss

        for _ in range(steps):
            self.optimizer.step(closure)
            with self.torch.no_grad():
                self.image.clamp_(0, 1)
        if self.device == "cuda":
            self.torch.cuda.synchronize()


def _agreement(file, options, config, inputs, prepared):
    """Relative differences of loss and gradient, at a picture between content and noise; in full float32."""
    import jax

    from jnst import objective
    from jnst.tasks.stylize import parts

    noise = np.random.default_rng(0).random((options.size, options.size, 3), np.float32)
    image = 0.8 * inputs.content.opaque() + 0.2 * noise
    params, targets, weights, _ = prepared.stage.arguments()
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    spec = parts.objective_spec(config, inputs.backbone.padding)
    goal = lambda image: objective.style_objective(params, image, targets, weights, spec)[0]  # noqa: E731
    with jax.default_matmul_precision("highest"):
        ours = jax.device_get(jax.jit(jax.value_and_grad(goal))(image))
    torch = _Torch(file, options, "contiguous", "float32")
    picture = torch.picture(image).requires_grad_()
    loss = torch.loss(picture)
    loss.backward()
    theirs = loss.item(), picture.grad[0].permute(1, 2, 0).cpu().numpy()
    found = {
        "loss": float(abs(theirs[0] - ours[0]) / abs(ours[0])),
        "gradient": float(np.linalg.norm(theirs[1] - ours[1]) / np.linalg.norm(ours[1])),
    }
    if options.precision == "float32" and max(found.values()) > 1e-3:
        raise SystemExit(f"PyTorch computes something else: relative differences {found}")
    return found


def _fastest(file, options):
    """The name of PyTorch's fastest way here, and a function that makes a call's steps."""
    import torch

    if torch.cuda.is_available():
        kinds = ["channels_last:tf32", "channels_last:bfloat16"]
    else:
        kinds = [f"{layout}:{options.precision}" for layout in ("contiguous", "channels_last")]
    steps, seconds, loops = _chunk(), {}, {kind: _Torch(file, options, *kind.split(":")) for kind in kinds}
    for kind in kinds * 6:  # by turns; the first is a warm-up
        start = time.perf_counter()
        loops[kind].advance(steps)
        seconds.setdefault(kind, []).append(time.perf_counter() - start)
    kind = min(kinds, key=lambda kind: min(seconds[kind][1:]))
    loop = _Torch(file, options, *kind.split(":"))  # sets the process's TF32 switch again
    return kind, lambda: loop.advance(steps)


# Memory


def _child(options, side):
    """MiB at the peak of a process that makes a few steps of one side."""
    given = {name: value for name, value in vars(options).items() if name not in ("child", "counts", "without_torch")}
    command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in given.items()), f"--child={side}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak(options):
    side, *more = options.child.split(":", 3)
    if side == "torch":
        layout, arithmetic, file = more
        loop = _Torch(file, options, layout, arithmetic)
        loop.advance(_warm_steps(options))  # its L-BFGS takes memory as pairs come
        if loop.device == "cuda":
            return loop.torch.cuda.max_memory_allocated() / 2**20
        return _resident()
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    advance = _grid(options, int(more[0]))[0] if side == "grid" else _stylize(options, once=True)[0]
    for _ in range(3):
        advance()
    if jax.default_backend() == "gpu":
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    return _resident()


def _resident():
    """MiB that this process had in memory at its peak. Linux's ru_maxrss also counts the process that started it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
