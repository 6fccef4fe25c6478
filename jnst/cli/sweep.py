"""The work of a grid: programs that fit into memory, batches, checkpoints, and what each run leaves."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jnst import grid, images, memory
from jnst.cli import checkpoint, flags, report
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.cli.plan import Entry, Group
from jnst.cli.progress import RunsProgress
from jnst.errors import InputError
from jnst.images import Picture
from jnst.tasks.stylize import many
from jnst.types import Snapshot

__all__ = ["AT_ONCE", "Fit", "Sweep", "fit", "fit_and_probe"]

AT_ONCE = {"cpu": 8}
"""Most runs in one program on a device, unless told otherwise. A CPU gains nothing by more, and what is stopped on the
way loses less."""
_AT_ONCE_ELSEWHERE = 64
_PIXELS_AT_ONCE = 200_000
"""And most pixels of their pictures together, on a CPU: beyond, a step of mini leaves the caches, and a run in
company is slower than alone (benchmarks/results)."""

_TILE = 8  # lanes that a TPU's registers hold side by side: a batch that is no multiple leaves some empty


class Fit(NamedTuple):
    """A program for the runs of a group, and how they are spread over it."""

    group: Group
    mesh: jax.sharding.Mesh
    tables: tuple[int, int]
    program: grid.Program
    batches: tuple[tuple[Entry, ...], ...]
    compile_seconds: float
    targets: dict[object, object]
    """What `many.begin` has computed for the network at hand, by its kin: batches share it."""


def fit(group: Group, devices: Sequence[jax.Device], runs_at_once: str, *, limit: int = 0) -> Fit:
    """Compiles a group's program with as many lanes as memory allows.

    Args:
        group: With something to do.
        devices: Of this process.
        runs_at_once: The flag.
        limit: Most lanes, after an attempt that took too much memory; 0: none was made.

    Raises:
        InputError: a single run a device needs more memory than there is.
    """
    first = group.first.config
    count = max(map(len, group.kin))
    height, width, _ = group.first.run.content.shape
    most = _most(first, devices, runs_at_once, height * width)
    devices = list(devices)[: max(1, min(count, most))]
    mesh = grid.make_mesh(devices)
    start = time.perf_counter()
    lanes = _lanes(count, min(limit or most, most), devices)
    room = memory.available(devices)
    while True:
        tables = many.table_sizes([entry.run for kin in group.kin for entry in kin], lanes=lanes)
        each, need = lanes // len(devices), None
        try:
            program = many.compile_batch(**_arguments(group, lanes, tables, mesh))
            need = program.bytes
        except (MemoryError, jax.errors.JaxRuntimeError) as error:  # a GPU's compiler tries kernels out
            if not memory.is_out_of_memory(error):
                raise
        # Too much for a device shows by an error, and then fewer go on; too much for a host ends the process.
        tried = runs_at_once != "auto" and devices[0].platform != "cpu"
        if need is not None and (room is None or need <= room or (tried and each > 1)):
            break
        if each == 1:
            words = (
                f"needs {_mib(need)} and {_mib(room)} are free" if need and room else "needs more memory than is free"
            )
            raise InputError(
                f"--size={first.size}: a run {words} on each device; "
                "expected a smaller --size, or a smaller --history with lbfgs"
            )
        fewer = min(each - 1, room * each // need) if need and room else each // 2
        lanes = _lanes(count, max(1, fewer) * len(devices), devices)
    if runs_at_once != "auto" and lanes < min(count, most) and not limit:
        say(f"--runs_at_once={runs_at_once}: memory holds {lanes}")
    return Fit(group, mesh, tables, program, _batches(group, lanes), time.perf_counter() - start, {})


def fit_and_probe(group: Group, devices: Sequence[jax.Device], runs_at_once: str) -> tuple[Fit, float, float]:
    """`fit`, and the seconds of a step and of all targets; with fewer runs where the first step does not fit."""
    limit = 0
    while True:
        fitted = fit(group, devices, runs_at_once, limit=limit)
        try:
            return fitted, *_probe(fitted)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            limit = _half(fitted, error)
        del fitted


def _half(fitted, error):
    """How many runs at once to go on with after an error, if it is one of memory."""
    if not memory.is_out_of_memory(error):
        raise error
    lanes, size = fitted.program.lanes, fitted.mesh.size
    if lanes == size:
        raise InputError(
            f"--size={fitted.group.first.config.size}: not even one run a device fits into memory; "
            "expected a smaller --size"
        ) from error
    say(f"out of memory with {lanes} runs at once: going on with at most {max(size, lanes // 2)}")
    return max(size, lanes // 2)


def _most(config, devices, runs_at_once, pixels):
    if config.line_search == "zoom":
        # Under vmap every run would pay for the line search of the slowest, and for both sides of each `cond`.
        return len(devices)
    if runs_at_once != "auto":
        return int(runs_at_once)
    each = AT_ONCE.get(devices[0].platform, _AT_ONCE_ELSEWHERE)
    if devices[0].platform == "cpu":
        each = max(1, min(each, _PIXELS_AT_ONCE // pixels))
    return each * len(devices)


def _lanes(count, most, devices):
    """As few as make equally large batches: padding is work for nothing."""
    unit = len(devices)
    most = max(1, most // unit)  # on a device
    batches = -(-count // (most * unit))
    each = -(-count // (batches * unit))
    tiled = -(-each // _TILE) * _TILE
    return unit * (tiled if devices[0].platform == "tpu" and _TILE < each and tiled <= most else each)


def _batches(group, lanes):
    found = []
    for kin in group.kin:
        parts = np.array_split(np.arange(len(kin)), -(-len(kin) // lanes))
        found += [tuple(kin[place] for place in part) for part in parts]
    return tuple(found)


def _arguments(group, lanes, tables, mesh, entries=None):
    backbone = group.first.inputs.backbone
    return {
        "runs": [entry.run for entry in entries or [group.first]],
        "params": backbone.params,
        "lanes": lanes,
        "tables": tables,
        "padding": backbone.padding,
        "standardize": backbone.standardize,
        "mesh": mesh,
    }


def _mib(count):
    return f"{count / 2**20:.0f} MiB"


def _probe(fitted):
    """Seconds of a step of the group's program, from one or two that are made and forgotten; and of all targets."""
    start, first = time.perf_counter(), fitted.batches[0]
    batch = _begin(fitted, first)
    everything = [entry for kin in fitted.group.kin for entry in kin]
    targets = (time.perf_counter() - start) * _styles(everything) / _styles(first)
    lanes, extra = batch.lanes, (jax.numpy.int32(1),) if fitted.program.loops else ()
    for _ in range(2):
        jax.block_until_ready((lanes, batch.shared))
        start = time.perf_counter()
        lanes = jax.block_until_ready(fitted.program.advance(lanes, batch.shared, *extra))
        seconds = time.perf_counter() - start
        if seconds > 1:  # of a short one, much is the memory's first touch
            break
    return seconds, targets


def _styles(entries):
    """How many style targets there are to compute."""
    return many.table_sizes([entry.run for entry in entries], lanes=len(entries))[1]


def _begin(fitted, entries, kept=None):
    arguments = _arguments(fitted.group, fitted.program.lanes, fitted.tables, fitted.mesh, entries)
    kin = many.kin_key(entries[0].run, standardize=arguments["standardize"])
    if fitted.targets.get("kin", kin) != kin:
        fitted.targets.clear()  # another network's
    fitted.targets["kin"] = kin
    return many.begin(**arguments, kept=kept, memo=fitted.targets)


class Sweep:
    """Makes runs and writes what they leave. `done` is called after each run that ended."""

    def __init__(self, interrupt: Interrupt, device: str, progress: RunsProgress, done: Callable[[Entry], None]):
        self._interrupt, self._device, self._progress, self._done = interrupt, device, progress, done
        self.failed: set[str] = set()
        """What is wrong with what could not be written on the way."""

    def run(self, fitted: Fit, devices: Sequence[jax.Device], runs_at_once: str) -> bool:
        """All batches of a group; where memory runs out, with half as many runs at once.

        Returns:
            False where it was stopped on the way; checkpoints hold what is not finished.

        Raises:
            InputError: not even one run a device fits into memory, or a picture cannot be written.
        """
        while True:
            try:
                return all(self._batch(fitted, batch) for batch in fitted.batches)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                half = _half(fitted, error)
            # Outside of `except`: the exception holds the arrays that were too much.
            left = tuple(tuple(entry for entry in kin if not entry.record) for kin in fitted.group.kin)
            rest = Group(kin=tuple(kin for kin in left if kin))
            del fitted
            fitted = fit(rest, devices, runs_at_once, limit=half)

    def _batch(self, fitted, entries):
        if self._interrupt.seen:
            return False
        kept = {place: found for place, entry in enumerate(entries) if (found := self._kept(entry))}
        try:
            batch = _begin(fitted, entries, kept)
        except ValueError as error:
            if not kept:
                raise
            warn(f"checkpoints of {len(kept)} runs do not fit: they start anew ({error})")
            batch = _begin(fitted, entries)
        steps = jax.device_get(batch.lanes.state.step)[: len(entries)]
        goals = [entry.config.steps for entry in entries]
        self._progress.begin([entry.index for entry in entries], [int(step) for step in steps], goals)

        errors = []

        def keep(place, result, best_terms, seconds):
            try:
                self._leave(entries[place], result, best_terms, seconds, fitted.compile_seconds)
            except InputError as error:  # one that cannot be written must not take the others of its batch along
                errors.append(error)

        def callback(records, kept):
            self._progress.show(records)
            stop = self._interrupt.seen
            for place, record in enumerate(records):
                if record is not None:
                    self._between(entries[place], record, lambda place=place: kept(place), stop)
            return stop

        try:
            self._interrupt.begin()
        except KeyboardInterrupt:  # seen meanwhile: a run that has not begun loses nothing
            return False
        ended = many.drive(fitted.program, batch, keep=keep, callback=callback)
        if errors:
            raise errors[0]
        return ended

    def _kept(self, entry):
        if entry.kept is None:
            return None
        try:
            found = checkpoint.read(entry.config.output)
        except InputError as error:
            warn(f"{entry.name} starts anew: {error}")
            return None
        if found is None:
            return None
        best = {name: float(value) for name, value in found.facts["best_terms"].items()}
        return many.Kept(found.snapshot, best, float(found.facts["seconds"]))

    def _between(self, entry, record, kept, stop):
        config = entry.config
        if config.save_every and record.step and record.step % config.save_every == 0:
            picture = Picture(record.image(), entry.inputs.content.alpha)
            place = report.intermediate(config.output, record.step)
            self.attempt(lambda: images.save(place, picture, self._text(entry), **_bits(config)))
        every = config.checkpoint_every
        due = every and record.step and record.step % every == 0
        if every and record.step < config.steps and (stop or due):
            self.attempt(lambda: self._keep(entry, record.step, kept()))

    def _keep(self, entry, step, kept: many.Kept):
        facts = {
            **self._facts(entry),
            "step": step,
            "seconds": round(kept.seconds, 3),
            "best_terms": kept.best_terms,
        }
        checkpoint.write(entry.config.output, Snapshot(kept.snapshot.leaves, kept.snapshot.trace), facts)
        entry.kept = step

    def attempt(self, write: Callable[[], object]) -> None:
        """Writes what can be written again: a file on the way is no reason to lose the runs."""
        try:
            write()
        except InputError as error:
            text = str(error)
            reason = text.rpartition(": ")[2]
            if reason not in self.failed:  # on a full disk, each fails alike
                warn(text)
            self.failed.add(reason)

    def _facts(self, entry):
        return {
            "flags": flags.resolved(entry.config),
            "inputs": {**entry.hashes, "weights": entry.inputs.backbone.sha256},
            "device": self._device,
        }

    def _weights(self, entry):
        backbone = entry.inputs.backbone
        return {"name": backbone.name, "sha256": backbone.sha256}

    def _text(self, entry):
        return report.embedded(flags.resolved(entry.config), self._weights(entry))

    def _leave(self, entry, result, best_terms, seconds, compile_seconds):
        """Flags, picture, record: in this order, so that a run with a record is whole and one without is known."""
        output, facts = entry.config.output, self._facts(entry)
        report.write_flags(output, facts["flags"])
        if result.image is not None:
            picture = Picture(result.image, entry.inputs.content.alpha)
            images.save(output, picture, self._text(entry), **_bits(entry.config))
        record = report.make_record(
            result,
            **facts,
            weights=self._weights(entry),
            size=entry.inputs.content.size,
            compile_seconds=compile_seconds,
            run_seconds=seconds,
        )
        finite = best_terms if result.image is not None else dict.fromkeys(best_terms)
        entry.record = {**record, "best_terms": finite}
        report.write_record(output, entry.record)
        checkpoint.path_of(output).unlink(missing_ok=True)
        self._progress.end(entry.index)
        self._done(entry)


def _bits(config):
    return {"bit_depth": config.bit_depth, "rounding": config.rounding}
