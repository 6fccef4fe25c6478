"""Many runs in one program: a batch of them, each as `one` would make it.

What two runs have in common is computed and held once: the network, and the targets of the same pictures. Runs share a
program where they differ in traced numbers only (`program_key`). With random filters they also share the pictures that
the network was scaled on (`kin_key`), since the network itself is what is held once.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnst import grid, objective
from jnst.config import StylizeConfig, parse_mix
from jnst.loop import Record, Result, first_bad, is_row, most_steps, next_stop, row
from jnst.tasks.stylize import parts
from jnst.tasks.stylize.one import TERMS as SUMMANDS
from jnst.types import Image, Params, Snapshot, StyleTarget, Targets, Weights

__all__ = [
    "Batch",
    "Choice",
    "Kept",
    "Run",
    "Shared",
    "begin",
    "compile_batch",
    "drive",
    "kin_key",
    "program_key",
    "table_sizes",
]

TERMS = ("total", *SUMMANDS)


class Run(NamedTuple):
    """One configuration and its pictures. Two runs share a picture where it is the same object."""

    key: jax.Array
    config: StylizeConfig
    content: Image  # [H, W, 3]
    styles: tuple[Image, ...]  # each [h, w, 3]
    init: Image | None  # [H, W, 3]


class Kept(NamedTuple):
    """Where an earlier process left a run."""

    snapshot: Snapshot
    best_terms: Mapping[str, float]
    seconds: float


class Shared(NamedTuple):
    """What all runs of a batch read."""

    params: Params
    content: Mapping[str, jax.Array]  # by layer, [contents, h, w, c]
    style: Mapping[str, StyleTarget]  # by layer, leaves with a first axis of styles


class Choice(NamedTuple):
    """What tells one run from the others."""

    content: jax.Array  # int32, into `Shared.content`
    style: jax.Array  # int32, into `Shared.style`
    weights: Weights


class Batch(NamedTuple):
    """Runs that are ready to begin; `drive` donates the lanes: it serves once."""

    runs: tuple[Run, ...]
    """As many as there are lanes, or fewer: the lanes beyond are padding."""
    lanes: grid.Lane
    shared: Shared
    traces: tuple[list[dict[str, float]], ...]
    seconds: tuple[float, ...]


def program_key(config: StylizeConfig, *, shape: tuple[int, ...], padding: str) -> Hashable:
    """Runs with equal keys and the same backbone share a program."""
    spec = parts.objective_spec(config, padding)
    return spec, parts.optimizer_config(config), config.precision, shape


def kin_key(run: Run, *, standardize: bool) -> Hashable:
    """Runs with equal keys share a network: all do, unless it is scaled on their pictures (random filters)."""
    if not standardize:
        return None
    return run.config.preserve_color, id(run.content), tuple(map(id, run.styles))


def begin(
    runs: Sequence[Run],
    params: Params,
    *,
    lanes: int,
    tables: tuple[int, int],
    padding: str,
    standardize: bool,
    mesh: Mesh,
    kept: Mapping[int, Kept] | None = None,
    memo: dict[object, object] | None = None,
) -> Batch:
    """Computes targets and starts.

    Args:
        runs: Of one program, and of one network; at most `lanes`.
        params: Their backbone.
        lanes: Of the program; a multiple of the mesh's devices.
        tables: How many contents and styles the program's tables hold, at least those of these runs.
        padding: The backbone's.
        standardize: Scale the backbone to unit variance on the runs' pictures first (random filters).
        mesh: The devices.
        kept: By place in `runs`, those that go on.
        memo: Of calls for runs of one network: its scaled weights and the targets, so that they are computed once.

    Raises:
        ValueError: what was kept is of another run: its arrays have other shapes or types.
    """
    first = runs[0].config
    spec, optimizer = parts.objective_spec(first, padding), parts.optimizer_config(first)
    kept = dict(kept or {})
    memo = {} if memo is None else memo
    known, contents, styles, choices, canvases = memo.pop("contents", {}), {}, {}, [], []
    targets_of = memo.setdefault("styles", {})
    for run in runs:
        content, *pictures = (jnp.asarray(image, parts.dtype_of(first)) for image in (run.content, *run.styles))
        content, pictures = parts.recolored(content, pictures, run.config.preserve_color)
        if "network" not in memo:
            memo["network"] = parts.network(
                params, content, pictures, spec, precision=first.precision, standardize=standardize
            )
        network = memo["network"]
        content_key, style_key = _content_key(run), _style_key(run)
        if content_key not in contents:
            contents[content_key] = known.get(content_key) or parts.content_targets(network, content, spec)
        if style_key not in targets_of:
            mix = jnp.asarray(parse_mix(run.config.style_mix, len(pictures)), content.dtype)
            found = [parts.style_statistics(network, picture, spec) for picture in pictures]
            targets_of[style_key] = objective.blend(found, mix)
        styles[style_key] = targets_of[style_key]
        places = (list(table).index(key) for table, key in ((contents, content_key), (styles, style_key)))
        choices.append(Choice(*map(jnp.int32, places), parts.weights(run.config)))
        canvases.append(parts.start(run.key, content, network["mean"], run.config, init=run.init))
    memo["contents"] = contents  # feature maps: those of this batch only; what is kept of styles is small
    padded = [*range(len(runs)), *[len(runs) - 1] * (lanes - len(runs))]
    stack = lambda trees, places: jax.tree.map(  # noqa: E731
        lambda *leaves: jnp.stack([leaves[place] for place in places]), *trees
    )
    table = lambda found, size: stack(list(found.values()), [min(place, len(found) - 1) for place in range(size)])  # noqa: E731
    if "prepared" not in memo:
        memo["prepared"] = parts.prepared(network)
    shared = Shared(memo["prepared"], table(contents, tables[0]), table(styles, tables[1]))
    begun = grid.begin(
        stack([run.key for run in runs], padded),
        stack(canvases, padded),
        stack(choices, padded),
        stack([parts.rates(run.config) for run in runs], padded),
        optimizer,
        terms=TERMS,
        mesh=mesh,
    )
    traces = [[] for _ in runs]
    if kept:
        states = {place: one.snapshot.leaves for place, one in kept.items()}
        begun = grid.put_states(begun, states, {place: one.best_terms for place, one in kept.items()})
        for place, one in kept.items():
            traces[place] = [each for each in one.snapshot.trace if is_row(each["step"], runs[place].config)]
    return Batch(
        runs=tuple(runs),
        lanes=begun,
        shared=jax.device_put(shared, NamedSharding(mesh, PartitionSpec())),
        traces=tuple(traces),
        seconds=tuple(kept[place].seconds if place in kept else 0.0 for place in range(len(runs))),
    )


def table_sizes(runs: Sequence[Run], *, lanes: int) -> tuple[int, int]:
    """How many contents and styles a program's tables must hold, so that one program serves all batches."""
    return tuple(min(lanes, len({key(run) for run in runs})) for key in (_content_key, _style_key))


def _content_key(run):
    # In color or in gray.
    return id(run.content), run.config.preserve_color == "luminance"


def _style_key(run):
    mode = run.config.preserve_color
    mix = parse_mix(run.config.style_mix, len(run.styles))
    return tuple(map(id, run.styles)), mix, mode, None if mode == "none" else id(run.content)


def compile_batch(
    runs: Sequence[Run],
    params: Params,
    *,
    lanes: int,
    tables: tuple[int, int],
    padding: str,
    standardize: bool,
    mesh: Mesh,
) -> grid.Program:
    """The program of the batches that `begin` makes with these arguments. Nothing is computed."""
    first = runs[0]
    spec = parts.objective_spec(first.config, padding)

    def shapes():
        return begin([first], params, lanes=lanes, tables=tables, padding=padding, standardize=standardize, mesh=mesh)[
            1:3
        ]

    begun, shared = jax.eval_shape(shapes)
    return grid.compile_steps(
        begun,
        shared,
        objective=lambda shared, choice, key, image: _objective(shared, choice, image, spec),
        config=parts.optimizer_config(first.config),
        mesh=mesh,
        loop=most_steps() > 1,
    )


def _objective(shared, choice, image, spec):
    pick = lambda table, place: jax.tree.map(lambda leaf: leaf[place], table)  # noqa: E731
    targets = Targets(content=pick(shared.content, choice.content), style=pick(shared.style, choice.style))
    return objective.style_objective(shared.params, image, targets, choice.weights, spec)


def drive(
    program: grid.Program,
    batch: Batch,
    *,
    keep: Callable[[int, Result, Mapping[str, float], float], None],
    callback: Callable[[list[Record | None], Callable[[int], Kept]], bool | None] | None = None,
) -> bool:
    """Makes all steps of a batch.

    Args:
        program: Compiled for it.
        batch: From `begin`.
        keep: `keep(place, result, best_terms, seconds)`, as soon as a run ends by its last step or by a loss that is
            not finite. Seconds are its share of the batch's time.
        callback: `callback(records, kept)` between calls of the program: what `one`'s callback sees of each run, None
            where one has ended; `kept(place)` fetches all that `begin` needs to go on from here. A true answer ends
            everything; nothing more is handed to `keep`.

    Returns:
        Whether all runs ended by themselves.
    """
    lanes, shared = batch.lanes, batch.shared
    limits = [run.config.steps for run in batch.runs]
    traces, seconds = [list(trace) for trace in batch.traces], list(batch.seconds)
    done = [int(step) for step in jax.device_get(lanes.state.step)[: len(limits)]]
    open_runs = [place for place, limit in enumerate(limits) if done[place] < limit]
    for place in sorted(set(range(len(limits))) - set(open_runs)):
        keep(place, *_ended(batch, lanes, place, traces[place], ""), seconds[place])
    while open_runs:
        start = time.perf_counter()
        steps = min(next_stop(done[place], batch.runs[place].config) - done[place] for place in open_runs)
        extra = (jnp.int32(min(most_steps(), steps)),) if program.loops else ()
        lanes = program.advance(lanes, shared, *extra)
        now, bad, terms, bad_terms = jax.device_get((lanes.state.step, lanes.bad_step, lanes.terms, lanes.bad_terms))
        share = (time.perf_counter() - start) / len(open_runs)
        records = [None] * len(limits)
        for place in open_runs:
            seconds[place] += share
            done[place] = int(now[place])
            if bad[place] >= 0:
                continue
            values = {name: float(value[place]) for name, value in terms.items()}
            if is_row(done[place], batch.runs[place].config):
                traces[place].append(row(done[place], values, SUMMANDS))
            records[place] = _record(batch, lanes, place, done[place], values, traces[place])
        kept = lambda place, lanes=lanes: _kept(lanes, place, traces[place], seconds[place])  # noqa: E731
        stop = callback is not None and callback(records, kept)
        for place in open_runs:
            if bad[place] >= 0:
                named = first_bad({name: float(value[place]) for name, value in bad_terms.items()}, SUMMANDS)
                keep(place, *_ended(batch, lanes, place, traces[place], named), seconds[place])
            elif done[place] == limits[place]:
                keep(place, *_ended(batch, lanes, place, traces[place], ""), seconds[place])
        open_runs = [place for place in open_runs if bad[place] < 0 and done[place] < limits[place]]
        if stop and open_runs:
            return False
    return True


def _record(batch, lanes, place, step, terms, trace):
    image = lambda: _fetch(batch, lanes.state.canvas, place)  # noqa: E731
    snapshot = lambda: _kept(lanes, place, trace, 0.0).snapshot  # noqa: E731
    return Record(step, batch.runs[place].config.steps, terms, image, snapshot)


def _kept(lanes, place, trace, seconds):
    leaves = jax.tree.leaves(grid.lane_of(lanes.state, place))
    best = {name: float(value) for name, value in grid.lane_of(lanes.best_terms, place).items()}
    return Kept(Snapshot(leaves, list(trace)), best, seconds)


def _ended(batch, lanes, place, trace, bad_term):
    """The result of a run and the terms of its picture."""
    best_step = int(lanes.state.best_step[place])
    result = Result(
        image=None if best_step < 0 else _fetch(batch, lanes.state.best_canvas, place),
        best_step=best_step,
        trace=trace,
        stopped="diverged" if bad_term else "",
        bad_step=int(lanes.bad_step[place]) if bad_term else -1,
        bad_term=bad_term,
    )
    return result, {name: float(value) for name, value in grid.lane_of(lanes.best_terms, place).items()}


def _fetch(batch, canvases, place):
    run = batch.runs[place]
    canvas = jnp.asarray(grid.lane_of(canvases, place))
    original = jnp.asarray(run.content, canvas.dtype)
    return np.asarray(parts.finish(canvas / run.config.canvas_scale, original, run.config), np.float32)
