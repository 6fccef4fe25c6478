"""`bin/bench time_to_loss`: how soon jnst has the loss that PyTorch has after so many evaluations.

PyTorch's side is neural-style-pt's loop: `torch.optim.LBFGS` with 100 pairs and no line search over pixels in 0..255.
jnst's is its own, with the flags of `stylize` at their defaults, or as `--ours` says. Both have the same loss, pictures
and start: content 5, style 100, total variation 1e-3, as in the preset neural_style, at the layers that the weights
have. The losses of the start are compared first. One side runs after the other, each in a process of its own.

The goal is PyTorch's smallest loss so far: its loop may rise again. Seconds are those of the loops: PyTorch's until its
last evaluation (`goal_s`: until the one that had the goal), jnst's until the whole picture has the goal. What jnst
needs before its loop, targets and compiling with an empty cache, is `ours_compile_s`; PyTorch's targets count nothing.
"""

import dataclasses
import json
import math
import os
import shlex
import tempfile
import time
from pathlib import Path

from absl import flags as absl_flags

from benchmarks import peers, workers
from jnst.cli import flags
from jnst.cli.lines import warn
from jnst.config import StylizeConfig, check_config, option_line, parse_layers
from jnst.config.options import option
from jnst.errors import InputError

SHARED = workers.ROOT.parent / "shared"
DEFAULTS = {  # beside the checkout, and what stands for it where it is not there
    "weights": (SHARED / "weights" / "vgg19_caffe_conv1_1-conv3_4.npz", "mini"),
    "content": (SHARED / "images" / "content" / "tuebingen_neckarfront.jpg", "harbor"),
    "style": (SHARED / "images" / "style" / "vangogh_starry_night.jpg", "strokes"),
}
OBJECTIVE = {
    "normalization": "neural_style",
    "content_weight": 5.0,
    "style_weight": 100.0,
    "tv": "l1",
    "tv_weight": 1e-3,
    "pooling": "max",
}
STARTS = {"noise": {"noise_width": 0.001732}, "content": {}}
"""The preset's almost gray noise, or the content picture."""

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYERS = ("relu4_2", "relu3_2", "relu2_2", "relu1_2", "relu1_1")
"""The deepest one that the weights have."""

FIXED = {
    *OBJECTIVE,
    *("content", "style", "style_mix", "style_scale", "size", "weights", "source", "content_layers", "style_layers"),
    *("preserve_color", "output", "bit_depth", "save_every", "checkpoint_every", "device"),
}
"""Flags of `stylize` that `--ours` must not have: what both sides share, and what only the command has a use for."""

MOST_LOSS = 1e-3
"""Relative difference of the start's losses from which on the sides do not compute the same."""

PATIENCE = 2
"""jnst stops without the goal after so many times as many updates as PyTorch made evaluations."""

TRIAL = 3
"""Evaluations that choose PyTorch's layout, after one that is not timed."""

USAGE = """\
usage: bench time_to_loss [flags]

  Seconds until jnst has the loss that PyTorch's L-BFGS has after so many evaluations; the last line is JSON.

  bench time_to_loss --size=256 --evals=200
  bench time_to_loss --ours="--history=50 --preconditioner=none"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The flags of `bench time_to_loss`."""

    size: int = option(512, "Longest side of the picture.", lower=16, upper=16384)
    evals: int = option(500, "Evaluations of PyTorch's side.", lower=1, upper=1_000_000)
    weights: str = option("", "Backbone, as stylize reads it. Empty: VGG-19's from ../shared, else mini.")
    content: str = option("", "Content image. Empty: one of ../shared, else a bundled one.")
    style: str = option("", "Style image. Empty: one of ../shared, else a bundled one.")
    init: str = option("noise", "Start of both sides.", choices=STARTS)
    ours: str = option("", "Flags of stylize for jnst's side, such as '--optimizer=adam --learning_rate=0.1'.")


def run(config: Config, command: list[str]) -> int:
    """Measures and prints.

    Args:
        config: The flags.
        command: Starts a worker, with the side's name and a folder behind it.
    """
    shared = _shared(config)
    ours = _ours(config, shared)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "configs.json").write_text(json.dumps([dataclasses.asdict(each) for each in (shared, ours)]))

        def start(name, side):
            return workers.Worker(name, [*command, side, folder])

        with start("jnst", "time_to_loss") as side:
            first = side.ask("begin")
        _check_loss(first["loss"], "jnst")
        layout, trace = _run_torch(start, first["loss"], config.evals)
        goal = min(trace, key=lambda row: math.inf if row[2] is None else row[2])
        with start("jnst", "time_to_loss") as side:
            note = workers.Patience(f"jnst, to a loss of {goal[2]:.5g} at last", ours.steps)
            found = side.ask("prepare") | side.ask("run", goal=goal[2], progress=note)
    summary = _summary(config, shared, ours, first["size"], layout, trace, goal, found)
    _print(summary)
    return 0


def _shared(config):
    """What both sides compute, as a configuration of `stylize`; says where something stands for something else."""
    chosen = {}
    for name, (path, instead) in DEFAULTS.items():
        chosen[name] = os.path.expanduser(getattr(config, name)) or (str(path) if path.is_file() else instead)
        if chosen[name] == instead and not getattr(config, name):
            place = f"{path.parent.name}/{path.name}"
            warn(f"{place} is not in a folder shared beside the checkout: --{name}={instead}")
    content, style = _layers(chosen["weights"])
    return StylizeConfig(
        **chosen,
        **OBJECTIVE,
        **STARTS[config.init],
        content_layers=f"{content}:1",
        style_layers=",".join(f"{name}:1" for name in style),
        init=config.init,
        size=config.size,
    )


def _layers(name):
    """The content layer, and the style layers, that the weights have."""
    from jnst import weights

    if name.partition(":")[0] == "random":
        raise InputError(f"--weights={name}: expected a trained network")
    there = weights.load(name).convolutions
    style = [layer for layer in STYLE_LAYERS if "conv" + layer[4:] in there]
    return next(layer for layer in CONTENT_LAYERS if "conv" + layer[4:] in there), style


def _ours(config, shared):
    """jnst's side: the defaults of `stylize`, but for what is shared, no clipping, and what `--ours` says."""
    values = absl_flags.FlagValues()
    flags.define(StylizeConfig, values)
    try:
        flags.parse(values, ["bench", *shlex.split(config.ours)])
    except (InputError, ValueError) as error:
        raise InputError(f"--ours={config.ours}: {error}") from error
    given = {name: values[name].value for name in values if values[name].present}
    for name in sorted(FIXED & given.keys()):
        raise InputError(f"--ours={config.ours}: --{name} is the same on both sides; expected other flags of stylize")
    # PyTorch's side may leave [0, 1], and its goal lie below all that clipped pixels can reach.
    usual = {"steps": PATIENCE * config.evals, "print_every": 1, "projection": "none"}
    return _checked(dataclasses.replace(shared, **{**usual, **given}), config)


def _checked(ours, config):
    try:
        check_config(ours, count=1)
    except InputError as error:
        raise InputError(f"--ours={config.ours}: {error}") from error
    return ours


def _run_torch(start, loss, evals):
    """The faster layout, and `[evaluation, seconds, loss]` of each evaluation."""
    with (
        start("torch contiguous", "torch:contiguous") as one,
        start("torch channels_last", "torch:channels_last") as other,
    ):
        sides = dict(zip(peers.LAYOUTS, (one, other), strict=True))
        for layout, side in sides.items():
            theirs = side.ask("check")["loss"]
            if not abs(theirs - loss) < MOST_LOSS * abs(loss):
                raise workers.FailedError(
                    f"PyTorch ({layout}) computes something else than jnst: the start's loss is {theirs:.6g} there and "
                    f"{loss:.6g} here"
                )
        seconds = workers.interleave(sides, TRIAL)
        layout = min(sides, key=lambda name: min(seconds[name]))
        sides[next(name for name in sides if name != layout)].close()  # its memory is needed
        note = workers.Patience(f"torch ({layout}), evaluations", evals)
        trace = sides[layout].ask("minimize", evals=evals, progress=note)["trace"]
    return layout, trace


def _check_loss(loss, who):
    if not math.isfinite(loss):
        raise workers.FailedError(f"{who}: the start's loss is not finite")


def _summary(config, shared, ours, size, layout, trace, goal, found):
    """What the last line says."""
    torch_s, reached = trace[-1][1], found["reached"]
    name = lambda path: Path(path).name  # noqa: E731
    return {
        "benchmark": "time_to_loss",
        "size": size,
        "evals": config.evals,
        "goal": goal[2],
        "torch_s": torch_s,
        "ours_s": found["seconds"],
        "ratio": found["seconds"] / torch_s if reached else None,
        "ours_steps": found["steps"],
        "ours_compile_s": found["compile_s"],
        "ratio_with_compile": (found["seconds"] + found["compile_s"]) / torch_s if reached else None,
        "torch_variant": layout,
        "reached": reached,
        "stopped": found["stopped"],
        "goal_evals": goal[0],
        "goal_s": goal[1],
        "init": config.init,
        "flags": _recipe(ours),
        "weights": name(shared.weights),
        "content": name(shared.content),
        "style": name(shared.style),
        "content_layers": list(parse_layers("content_layers", shared.content_layers)[0]),
        "style_layers": list(parse_layers("style_layers", shared.style_layers)[0]),
        "trace_torch": _points(trace),
        "trace_ours": _points(found["trace"]),
        **workers.facts(),
    }


def _recipe(ours):
    """jnst's own flags that are not at their defaults."""
    standard = dataclasses.asdict(StylizeConfig())
    chosen = {name: value for name, value in dataclasses.asdict(ours).items() if name not in FIXED | {"print_every"}}
    return " ".join(shlex.quote(option_line(name, value)) for name, value in chosen.items() if value != standard[name])


def _points(trace, count=10):
    """As many rows of a trace, evenly spread, the last one among them."""
    places = sorted({round((len(trace) - 1) * index / max(1, count - 1)) for index in range(count)})
    return [trace[place] for place in places if trace]


def _print(found):
    width, height = found["size"]
    print(f"{found['weights']}, {found['content']} as {found['style']}, {width}x{height}, from {found['init']}")
    print(f"{found['device']}, {found['threads']} threads; jnst's flags: {found['flags']}")
    print(f"goal: {found['goal']:.6g}, PyTorch's smallest loss within {found['evals']} evaluations")
    print(f"{'torch ' + found['torch_variant']:20} {found['torch_s']:9.2f} s  {found['evals']:6} evaluations")
    steps = f"{found['ours_steps']:6} steps; before them {found['ours_compile_s']:.2f} s"
    print(f"{'jnst':20} {found['ours_s']:9.2f} s  {steps}")
    if found["reached"]:
        print(f"{'jnst / torch':20} {found['ratio']:9.3f}    ({found['ratio_with_compile']:.3f} with compiling)")
    else:
        print(f"jnst has not come to the goal; its last loss is {found['trace_ours'][-1][2]}")
    print(json.dumps(found), flush=True)


# The worker


def serve(folder: str, how: str) -> int:
    """The process of jnst, which knows one way only."""
    return workers.serve(lambda: _Side(folder).asked())


class _Side:
    def __init__(self, folder):
        import jax

        from jnst import api

        jax.config.update("jax_enable_compilation_cache", False)
        self.folder = folder
        self.shared, self.ours = (
            StylizeConfig(**fields) for fields in json.loads(Path(folder, "configs.json").read_text())
        )
        self.ours = dataclasses.replace(self.ours, scales="1")  # PyTorch's side knows one size
        self.inputs = api.read_inputs(self.ours)

    def asked(self):
        return {"begin": self.begin, "prepare": self.prepare, "run": self.run}

    def begin(self, tell):
        """The start's loss; writes the task for PyTorch."""
        import jax
        import jax.numpy as jnp

        from jnst import objective
        from jnst.tasks.stylize import parts

        inputs, config = self.inputs, self.shared
        content, style = (jnp.asarray(picture.opaque()) for picture in (inputs.content, inputs.styles[0]))
        spec = parts.objective_spec(config, inputs.backbone.padding)
        params = parts.network(
            inputs.backbone.params, content, [style], spec, precision=config.precision, standardize=False
        )
        key = jax.random.key(config.seed)
        image = parts.start(key, content, params["mean"], dataclasses.replace(config, canvas_scale=1), init=None)
        targets = objective.Targets(
            content=parts.content_targets(params, content, spec), style=parts.style_statistics(params, style, spec)
        )
        loss = jax.jit(objective.style_objective, static_argnames="spec")(
            params, image, targets, parts.weights(config), spec
        )[0]
        task = {name: getattr(config, name) for name in (*OBJECTIVE, "content_layers", "style_layers")}
        pictures = {"content": content, "style": style, "image": image}
        peers.write(self.folder, {**task, "padding": spec.padding}, inputs.backbone.params, **pictures)
        return {"loss": float(loss), "size": list(inputs.content.size)}

    def prepare(self, tell):
        """Targets and the compiled step, as `stylize` makes them."""
        import jax

        from jnst import api

        start = time.perf_counter()
        with api.computing(self.ours):
            self.prepared = api.prepare(self.inputs, self.ours)
            jax.block_until_ready(self.prepared.stage.arguments())
        return {"compile_s": time.perf_counter() - start}

    def run(self, tell, goal):
        """The loop of `stylize` until the whole picture's loss is the goal: `[evaluation, seconds, loss]` of each."""
        from jnst import api
        from jnst.tasks import stylize

        size, trace, reached = self.inputs.content.size, [], False
        said = start = time.perf_counter()

        def callback(record):
            nonlocal reached, said
            now, loss = time.perf_counter(), record.terms["total"]
            trace.append([record.step + 1, now - start, loss])
            # A picture on the way may be smaller: its loss is another one.
            reached = loss <= goal and record.image().shape[:2] == size[::-1]
            if now - said > 5:
                said = now
                tell({"done": record.step, "seconds": now - start, "text": f"loss {loss:.5g}"})
            return reached

        with api.computing(self.ours):
            result = stylize.run(self.prepared, callback=callback)
        last = trace[-1] if trace else [0, 0.0, None]
        return {
            "reached": reached,
            "seconds": last[1],
            "steps": last[0] - 1,
            "stopped": "" if reached else result.stopped,
            "trace": trace,
        }
