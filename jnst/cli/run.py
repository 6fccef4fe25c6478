"""One run of a command that makes a picture by optimization, with all that surrounds it: what it says, keeps on the way
and leaves. What it paints is a `Work`."""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import jax
import numpy as np

from jnst import api, bundled, files, images, loop, memory
from jnst.cli import checkpoint, flags, report
from jnst.cli.command import BAD_INPUT, DIVERGED, DONE, INTERRUPTED
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.cli.progress import Progress
from jnst.config import Axis
from jnst.errors import InputError
from jnst.images import Picture
from jnst.types import Snapshot
from jnst.weights import Backbone

__all__ = ["Work", "enough_memory", "program", "run", "sheet_of", "say_device"]


class Work:
    """What one command makes; subclasses fill it in."""

    terms: ClassVar[tuple[str, ...]] = ("total",)
    """What the progress shows."""
    source = ""
    """The file that the picture is made from, for messages."""

    def __init__(self, config: object):
        """`config` has `output`, `size`, `device`, `precision`, and all of `loop.Pace`."""
        self.config = config

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files that the run reads, by flag."""
        raise NotImplementedError

    def read(self) -> Backbone:
        """Reads what the run needs, and says what it is."""
        raise NotImplementedError

    def prepare(self, snapshot: Snapshot | None) -> loop.Prepared:
        """The run, compiled; from where it was left, where there is a snapshot."""
        raise NotImplementedError

    def preview(self, image: np.ndarray) -> Picture:
        """A record's image, as a picture."""
        return Picture(image)

    def picture(self, result: loop.Result) -> Picture:
        """What OUTPUT shall hold; `result.image` is not None."""
        return self.preview(result.image)

    def more(self, result: loop.Result) -> Mapping[str, object]:
        """What the record has beside what every record has. After `picture`."""
        return {}

    def kind(self, result: loop.Result) -> str:
        """What OUTPUT is, for the last line."""
        best = result.best_step
        return f"the best picture so far (step {best})" if result.stopped else f"best at step {best}"


def run(work: Work, interrupt: Interrupt, *, resume: bool) -> int:
    """Makes OUTPUT and writes its record, flagfile and checkpoints. Returns the exit code.

    Raises:
        InputError: something in the input is wrong, or another run is writing OUTPUT.
    """
    config = work.config
    with enough_memory(work), api.computing(config) as device, checkpoint.alone(config.output):
        return _Run(work, interrupt, device).work_through(resume)


def sheet_of(axes: Sequence[Axis], pictures: Sequence[np.ndarray]) -> Picture:
    """The pictures of all combinations of the axes' values, `[H, W, 3]` each, as they are, on one sheet."""
    largest = max(max(picture.shape) for picture in pictures)
    return Picture(images.labelled_sheet([(axis.flag, axis.texts) for axis in axes], list(pictures), tile=largest))


@contextlib.contextmanager
def enough_memory(work: Work) -> Iterator[None]:
    """Too little memory is no fault of jnst: one line says so."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not memory.is_out_of_memory(error):
            raise
        raise InputError(
            f"--size={work.config.size}: {work.source} needs more memory than there is; expected a smaller --size"
        ) from error


def say_device(device: jax.Device) -> None:
    """Where it is computed."""
    say(f"device: {device.platform} ({device.device_kind})")


_LONG = 600
"""Seconds after which a checkpoint is written whatever the step."""


class _Run:
    """What the parts of one run share."""

    def __init__(self, work, interrupt, device):
        self.work, self.config, self.interrupt, self.device = work, work.config, interrupt, device
        self.chosen = flags.resolved(self.config)
        self.failed = set()  # what is wrong with what could not be written on the way

    def work_through(self, resume):
        config = self.config
        if resume and self._is_finished():
            say(f"{config.output}: finished already, at step {self.steps}")
            return DONE
        say_device(self.device)
        backbone = self.work.read()
        self.facts = {
            "flags": self.chosen,
            "inputs": {**self.work.hashes(), "weights": backbone.sha256},
            "device": f"{self.device.platform} ({self.device.device_kind})",
        }
        self.weights = {"name": backbone.name, "sha256": backbone.sha256}
        self.text = report.embedded(self.chosen, self.weights)
        found = self._checkpoint(resume)
        # A run that starts anew where another one has been keeps its start: what is left of the other must not be
        # taken for its own.
        self.replaces = not found and any(path.exists() for path in report.traces(config.output))
        for path in report.outputs(config):
            files.check_writable(path)
        report.sweep(config.output)
        self.seconds = found.facts["seconds"] if found else 0.0
        start = time.perf_counter()
        prepared = self._prepared(found)
        before = found.facts["step"] if found else 0
        return self._paint(prepared, time.perf_counter() - start, before)

    def _is_finished(self):
        """Whether OUTPUT and its record are of this very run, at its last step."""
        record = report.read_record(self.config.output)
        if not record or record["stopped"] or not bundled.is_file(self.config.output):
            return False
        try:
            path = report.record_path(self.config.output)
            checkpoint.check_same_flags(path, record["flags"], self.chosen, growing=_growing(record["trace"]))
        except InputError:
            if checkpoint.path_of(self.config.output).is_file():
                return False  # a later run's, perhaps: that is what counts
            raise
        if record["flags"]["steps"] != self.config.steps:
            return False  # they have grown
        self.steps = record["trace"][-1]["step"]
        self._check_same_inputs(report.record_path(self.config.output), record["inputs"], self.work.hashes())
        return True

    def _checkpoint(self, resume):
        path = checkpoint.path_of(self.config.output)
        if not resume:
            step = checkpoint.read_facts(path).get("step")
            if step is not None:
                say(f"{path} is of an earlier run, at step {step}: this one starts anew (--resume would go on)")
            return None
        found = checkpoint.read(self.config.output)
        if found is None:
            say(f"{path}: no checkpoint: the run starts anew")
            return None
        growing = _growing(found.snapshot.trace)
        checkpoint.check_same_flags(path, found.facts["flags"], self.chosen, growing=growing)
        self._check_same_inputs(path, found.facts["inputs"], self.facts["inputs"])
        return found

    def _check_same_inputs(self, path, before, now):
        for flag, digest in now.items():
            if before.get(flag) != digest:
                raise InputError(
                    f"--{flag}: has changed since {path} was written; without --resume the run starts anew"
                )

    def _prepared(self, found):
        try:
            prepared = self.work.prepare(found and found.snapshot)
        except ValueError as error:
            if found is None or isinstance(error, InputError):
                raise
            path = checkpoint.path_of(self.config.output)
            raise InputError(f"{path}: does not fit this run; without --resume it starts anew") from error
        if found:
            say(f"going on from step {found.facts['step']}")
        return prepared

    def _paint(self, prepared, compile_seconds, before):
        config, interrupt, self.steps = self.config, self.interrupt, prepared.steps
        progress = Progress(self.steps, config.print_every, before, self.work.terms)
        self.start = self.kept = time.perf_counter()
        for line in prepared.stage.note.splitlines():
            say(line)

        def callback(record):
            progress.show(record)
            stop = interrupt.seen
            if config.save_every and record.step and record.step % config.save_every == 0:
                picture = self.work.preview(record.image())
                place = report.intermediate(config.output, record.step)
                self._try(lambda: self._save(place, picture))
            if config.checkpoint_every and (stop or self._is_due(record.step)):
                self._try(lambda: self._keep(record))
            return stop

        interrupt.begin()
        try:
            result = loop.run(prepared, callback=callback, tick=progress.tick, say=say)
        finally:
            progress.close()
        interrupt.finish()
        return self._leave(result, compile_seconds)

    def _is_due(self, step):
        """The last step too, so that `--steps` may grow; but a run shorter than an interval leaves none."""
        every, steps = self.config.checkpoint_every, self.steps
        if step == 0:
            return self.replaces
        if step % every == 0 or (step == steps and steps > every):
            return True
        return time.perf_counter() - self.kept > _LONG  # steps of large pictures may take minutes

    def _keep(self, record):
        seconds = round(self.seconds + time.perf_counter() - self.start, 3)
        facts = {**self.facts, "step": record.step, "seconds": seconds}
        checkpoint.write(self.config.output, record.snapshot(), facts)
        self.kept = time.perf_counter()
        report.write_flags(self.config.output, self.chosen)
        self.interrupt.remains = f"; step {record.step} is kept, go on with: {_command(self.config.output)}"

    def _save(self, path, picture):
        how = {name: getattr(self.config, name) for name in ("bit_depth", "rounding") if hasattr(self.config, name)}
        images.save(path, picture, self.text, **how)

    def _try(self, write):
        """A file on the way that cannot be written is no reason to lose the run."""
        try:
            write()
        except InputError as error:
            if str(error) not in self.failed:  # on a full disk, each checkpoint fails alike
                warn(error)
            self.failed.add(str(error))

    def _leave(self, result, compile_seconds):
        output = self.config.output
        if result.stopped == "diverged":
            warn(f"diverged: the {result.bad_term} term is not finite at step {result.bad_step}")
        if result.image is None:
            warn(f"{output}: nothing written: not even the start has a finite loss")
            return DIVERGED
        picture = self.work.picture(result)
        self._save(output, picture)
        report.write_flags(output, self.chosen)
        seconds = self.seconds + time.perf_counter() - self.start
        record = report.make_record(
            result,
            flags=self.chosen,
            inputs=self.facts["inputs"],
            weights=self.weights,
            device=self.facts["device"],
            size=picture.size,
            compile_seconds=compile_seconds,
            run_seconds=seconds,
        )
        report.write_record(output, {**record, **self.work.more(result)})
        kind = self.work.kind(result)
        say(f"{output}: {kind}, {seconds:.1f} s")
        if result.stopped == "interrupted":
            step = result.trace[-1]["step"]
            warn(f"interrupted after step {step}: {output} holds {kind}{self.interrupt.remains}")
            return INTERRUPTED
        if result.stopped == "diverged":
            return DIVERGED
        return BAD_INPUT if self.failed else DONE


def _growing(trace):
    """Flags that may grow when a run goes on: `steps`, where a picture was not made larger after them."""
    return () if any("size" in row for row in trace) else ("steps",)


def program() -> str:
    """How the command is called here, for lines that say what to type."""
    name = os.path.basename(sys.argv[0])
    return os.environ.get("JNST_PROGRAM") or (f"python -m jnst.cli.{name[:-3]}" if name.endswith(".py") else name)


def _command(output):
    """What resumes a run, ready to be pasted."""
    return f"{program()} {shlex.quote(f'--flagfile={report.flags_path(output)}')} --resume"
