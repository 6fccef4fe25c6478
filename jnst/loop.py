"""The host's loop around compiled steps over a canvas, the same for every picture that is made by optimization.

A `Stage` is a compiled step with what surrounds it; a `Prepared` run is one stage or several in turn, each from what
the one before left (the scales of a pyramid, the octaves of a dream). `run` drives it, and says between steps what
progress bars, previews, checkpoints and traces need: `Record`s on the way, rows of a trace, a `Result`.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from jnst.compiler import platform
from jnst.optimize import OptimState
from jnst.types import Snapshot, Terms

__all__ = [
    "ON_DEVICE",
    "Callback",
    "Pace",
    "Prepared",
    "Record",
    "Result",
    "Stage",
    "first_bad",
    "is_row",
    "most_steps",
    "next_stop",
    "restore",
    "row",
    "run",
]

ON_DEVICE = 10
"""Most steps that a GPU or TPU makes between two looks of the host: enough that the host costs nothing, few enough
that Ctrl-C is answered soon."""


class Pace(Protocol):
    """What every task's config has: how often somebody looks."""

    steps: int
    print_every: int
    save_every: int
    checkpoint_every: int


class Record(NamedTuple):
    """What a callback sees after a chunk of steps."""

    step: int
    """Updates made, at all stages together."""
    steps: int
    """Updates that were asked for."""
    terms: dict[str, float]
    """Weighted `total` and the task's other terms at this step; of several lanes, their mean."""
    image: Callable[[], np.ndarray]
    """Fetches the image at this step, `[H, W, 3]` in [0, 1]; only while the callback runs."""
    snapshot: Callable[[], Snapshot]
    """Fetches all that `restore` needs to go on from here; only while the callback runs."""
    size: tuple[int, int] = (0, 0)
    """Rows and columns of the present stage."""
    share: float = 0.0
    """Of the whole work that is done, up to 1."""


Callback = Callable[[Record], bool | None]
"""Called between chunks; a true answer stops the run after this step."""


class Result(NamedTuple):
    """What a run leaves."""

    image: np.ndarray | None
    """The best iterate, or the average over them or the last one where the task asks for it, `[H, W, 3]` float32 in
    [0, 1], with lanes `[lanes, H, W, 3]`; None where not even the start had a finite loss."""
    best_step: int
    """The step that `image` is from; of an average, the last one in it; of lanes, the latest."""
    trace: list[dict[str, float]]
    """Rows of step, total and the other terms: step 0, each `print_every`, and the last step made. Of several stages,
    each row has its `size`, and a stage begins with the step that the one before ended with."""
    stopped: str
    """Empty, `interrupted` or `diverged`."""
    bad_step: int
    """The step whose loss was not finite, -1 where none was."""
    bad_term: str
    """The first term that was not finite at that step."""
    kept: tuple[np.ndarray, ...] = ()
    """The pictures of the stages that the task keeps one by one, like `image`."""


class Stage(NamedTuple):
    """One stage, ready to begin."""

    advance: Callable[..., tuple[OptimState, Terms]]
    """`advance(state, steps, tick)`; donates the state. `tick` is told the share of a step that is done, if it can."""
    arguments: Callable[[], tuple]
    """What a step is given beside the state, such as network and targets; computed at the first call, and kept."""
    begin: Callable[[], OptimState]
    """The state to begin with, where no other stage went before."""
    like: OptimState
    """Its shapes."""
    grow: Callable[[OptimState], OptimState]
    """From the state that the stage before ended with."""
    outcome: Callable[[OptimState], jax.Array]
    """The canvas that the run is made for."""
    steps: int
    chunk: int
    """Most steps of one call."""
    size: tuple[int, int]
    """Rows and columns."""
    plan: Sequence[int] = ()
    """How it is computed, in the task's own words; a run that goes on keeps it."""
    bytes: int = 0
    """What a device needs; 0 where that is not known."""
    note: str = ""
    """What a user should hear of the plan; or empty."""


class Prepared(NamedTuple):
    """A run that has not begun: its first stage is compiled. It serves once."""

    stage: Stage
    number: int
    """Of the stage that it begins with, from 0."""
    counts: tuple[int, ...]
    """Steps of every stage."""
    sizes: tuple[tuple[int, int], ...]
    """Rows and columns of every stage."""
    make: Callable[[int], Stage]
    """Any other stage."""
    begin: Callable[[], OptimState]
    finish: Callable[[np.ndarray], np.ndarray]
    """From a canvas on the host to the picture."""
    config: Pace
    summands: tuple[str, ...]
    """The terms that the total is the sum of; none where it is no sum."""
    trace: list[dict[str, float]]
    """Rows of the steps made before."""
    keeps: str = "best"
    """Which iterate the run is made for: the `best`, the `last`, or an `average` of all."""
    keeping: bool = False
    """Whether every stage's picture is kept: they are no steps on a way, but each a result."""
    kept: tuple[np.ndarray, ...] = ()
    """Pictures of the stages before."""
    carry: Callable[[OptimState], OptimState] = lambda state: state
    """What the next stage needs of a state."""

    @property
    def done(self) -> int:
        """Steps of the stages before the first one here."""
        return sum(self.counts[: self.number])

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(self.counts)


def most_steps() -> int:
    """How many steps the device here makes between two looks of the host: on a CPU one, since XLA runs a convolution's
    gradient 3 to 4 times slower inside a loop there, and a call costs nothing beside a step."""
    return 1 if platform() == "cpu" else ON_DEVICE


def first_bad(terms: Mapping[str, float], summands: Sequence[str]) -> str:
    """The first term that is not finite, empty where all are."""
    if math.isfinite(terms["total"]):
        return ""
    # A sum of finite terms may still overflow: then it is the total that is named.
    return next((name for name in summands if not math.isfinite(terms[name])), "total")


def is_row(step: int, config: Pace, *, first: int = 0, last: int | None = None) -> bool:
    """Whether the trace has a row of this step; `first` and `last` are those of its stage, counted from the start."""
    last = config.steps if last is None else last
    return step in (first, last) or (config.print_every > 0 and step % config.print_every == 0)


def next_stop(done: int, config: Pace, *, last: int | None = None) -> int:
    """The next step that somebody wants to see: the start, one to be printed or kept, or the last."""
    if done < 0:
        return 0
    each = (every for every in (config.print_every, config.save_every, config.checkpoint_every) if every > 0)
    return min([config.steps if last is None else last, *(done - done % every + every for every in each)])


def row(step: int, terms: Mapping[str, float], summands: Sequence[str]) -> dict[str, float]:
    """A row of the trace."""
    # The sum again, in double precision: in the record the total is what its terms add up to.
    total = sum(terms[name] for name in summands) if summands else terms["total"]
    others = summands or [name for name in terms if name != "total"]
    return {"step": step, "total": total} | {name: terms[name] for name in others}


def restore(prepared: Prepared, snapshot: Snapshot) -> Prepared:
    """The prepared run as it stood when the snapshot was taken: `run` goes on from there to the same bytes.

    Raises:
        ValueError: the snapshot is of another run, or of another stage: its arrays have other shapes or types.
    """
    leaves, structure = jax.tree.flatten(prepared.stage.like)
    found = snapshot.leaves
    if len(leaves) != len(found) or snapshot.scale != prepared.number:
        raise ValueError("a snapshot of a run with other parts")
    for leaf, array in zip(leaves, found, strict=True):
        if (leaf.shape, leaf.dtype) != (array.shape, array.dtype):
            raise ValueError("a snapshot of a run with other shapes")

    def begin():
        # Copies: the state is donated, and a CPU would take the host's arrays as they are.
        placed = (
            jax.device_put(array, leaf.sharding, may_alias=False) for leaf, array in zip(leaves, found, strict=True)
        )
        return structure.unflatten(placed)

    if len(snapshot.kept) != (prepared.number if prepared.keeping else 0):
        raise ValueError("a snapshot of a run that keeps other pictures")
    rows = list(snapshot.trace)
    if rows and len(prepared.counts) == 1 and not is_row(rows[-1]["step"], prepared.config):
        rows.pop()  # it was the last step of a run that now goes on
    return prepared._replace(begin=begin, trace=rows, kept=tuple(snapshot.kept))


def run(
    prepared: Prepared,
    *,
    callback: Callback | None = None,
    tick: Callable[[float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Drives a prepared run to its last step, or to where the callback or a loss that is not finite stops it.

    Args:
        prepared: From a task's `prepare`.
        callback: Called after step 0 and between chunks.
        tick: Called within steps that go tile by tile, with the share of all work that is done.
        say: Told how a later stage is computed, where there is something to tell.
    """
    config, trace, counts, summands = prepared.config, list(prepared.trace), prepared.counts, prepared.summands
    share = functools.partial(
        _share, [count * math.prod(size) for count, size in zip(counts, prepared.sizes, strict=True)]
    )
    stage, begin = prepared.stage, prepared.begin
    state, before, stopped, bad_term = begin(), prepared.done, "", ""
    kept = list(prepared.kept)
    for number in range(prepared.number, len(counts)):
        if number > prepared.number:
            if prepared.keeping:
                kept.append(_fetch(prepared, _chosen(prepared, stage, state, stopped)))
            # What the stage before leaves makes room for this one.
            state, stage = prepared.carry(state), None
            stage = prepared.make(number)
            for line in stage.note.splitlines() if say else ():
                say(line)
            state = stage.grow(state)
        ends = before + stage.steps
        place = {"size": max(stage.size)} if len(counts) > 1 else {}
        local = _steps_of(state)  # -1: not even the start is evaluated
        done = before + max(local, 0)  # all of it, where the last step is in the checkpoint
        while local < stage.steps and not stopped:
            within = tick and functools.partial(_tick, tick, share, number, local, stage.steps)
            stop = before if local < 0 else next_stop(before + local, config, last=ends)
            state, terms = stage.advance(state, min(stage.chunk, stop - before - local), within)
            terms = {name: float(np.mean(value)) for name, value in jax.device_get(terms).items()}
            local = _steps_of(state)
            done = before + local
            bad_term = first_bad(terms, summands)
            if bad_term:
                stopped = "diverged"
                break
            wanted = local in (0, stage.steps) or is_row(done, config, first=before, last=ends)
            if wanted:
                trace.append({**row(done, terms, summands), **place})
            image = lambda canvas=state.canvas: _fetch(prepared, canvas)  # noqa: E731
            snapshot = lambda state=state, stage=stage, number=number: Snapshot(  # noqa: E731
                _leaves(state), list(trace), number, tuple(stage.plan), tuple(kept)
            )
            part = share(number, (local + 1) / (stage.steps + 1))
            record = Record(done, prepared.steps, terms, image, snapshot, stage.size, part)
            if callback is not None and callback(record):
                stopped = "interrupted" if done < prepared.steps else ""
            del record, image, snapshot  # they hold the state
            if stopped and not wanted:
                trace.append({**row(done, terms, summands), **place})
        before = ends
        if stopped:
            break
    best_step = int(np.max(state.best_step))
    latest = prepared.keeps != "best" and stopped != "diverged"
    image = None
    if best_step >= 0 or (number > 0 and not prepared.keeping):
        image = _fetch(prepared, _chosen(prepared, stage, state, stopped))
        kept += [image] if prepared.keeping else []
    elif kept:  # of a stage that fails at once there is what the one before left
        image = kept[-1]
    return Result(
        image=image,
        best_step=done if latest else before - stage.steps + max(best_step, 0 if number else -1),
        trace=trace,
        stopped=stopped,
        bad_step=done if stopped == "diverged" else -1,
        bad_term=bad_term,
        kept=tuple(kept),
    )


def _chosen(prepared, stage, state, stopped):
    """The canvas that a stage is made for."""
    return stage.outcome(state) if prepared.keeps != "best" and stopped != "diverged" else state.best_canvas


def _steps_of(state):
    return int(np.max(state.step))  # of lanes, all the same


def _share(work, number, part):
    """Of all work, where so much of a stage is done."""
    return (sum(work[:number]) + work[number] * part) / sum(work)


def _tick(tick, share, number, local, steps, part):
    tick(share(number, (local + 1 + part) / (steps + 1)))  # a stage has one evaluation more than steps


def _fetch(prepared, canvas):
    return np.asarray(prepared.finish(jax.device_get(canvas)), np.float32)


def _leaves(state):
    """On a CPU views of the state itself, for it may be larger than what else is free."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
