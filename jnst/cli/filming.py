"""The making of a film that zooms in: a frame is the dream of the last one, enlarged.

Every frame starts from the one before as it was saved, in 8 bits, and draws from a key of its own: a film that goes on
from its frames has the same bytes as one that was never stopped. The original's loop is the same, with all octaves in
each frame (google/deepdream 2015); there a frame starts from pixels that were not rounded.
"""

import shlex
import time

from jnst import api, bundled, files, loop
from jnst.cli import checkpoint, dreaming, film, flags, report, run
from jnst.cli.command import DIVERGED, DONE, INTERRUPTED
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import on_terminal, say, warn
from jnst.cli.progress import Progress
from jnst.config import DreamConfig
from jnst.errors import InputError
from jnst.images import Picture
from jnst.version import __version__

__all__ = ["make"]

_OF_FILM = ("frame_rate", "zoom")
"""Flags that no frame depends on."""


def make(config: DreamConfig, interrupt: Interrupt, *, resume: bool) -> int:
    """Makes the frames that are not there yet and OUTPUT of them. Returns the exit code.

    Raises:
        InputError: something in the input is wrong, or another run is writing OUTPUT.
    """
    work = dreaming.work_of(config)
    with run.enough_memory(work), api.computing(config) as device, checkpoint.alone(config.output):
        return _Film(work, interrupt, device).work_through(resume)


class _Film:
    """What the parts of one film share."""

    def __init__(self, work, interrupt, device):
        self.work, self.config, self.interrupt, self.device = work, work.config, interrupt, device
        self.chosen = flags.resolved(self.config)
        self.frames = film.Frames(self.config.output)

    def work_through(self, resume):
        config, frames = self.config, self.frames
        if frames.state and resume:
            self._check_same_flags()
            if self._is_finished():
                say(f"{config.output}: finished already, {config.zoom} frames")
                return DONE
        run.say_device(self.device)
        backbone = self.work.read()
        inputs = {**self.work.hashes(), "weights": backbone.sha256}
        device = f"{self.device.platform} ({self.device.device_kind})"
        weights = {"name": backbone.name, "sha256": backbone.sha256}
        self.text = report.embedded(self._of_frames(self.chosen), weights)
        for path in film.written(config.output):
            files.check_writable(path)
        report.sweep(config.output)
        rows, before = [], 0.0
        if frames.state and resume:
            self._check_same_inputs(inputs)
            rows, before = frames.whole(), frames.state["seconds"]
            say(
                f"going on after frame {len(rows)}"
                if rows
                else f"{frames.folder}: no whole frame: the film starts anew"
            )
        elif frames.state:
            say(f"{frames.folder} is of an earlier film: this one starts anew (--resume would go on)")
        elif resume:
            say(f"{frames.folder}: no frames: the film starts anew")
        facts = {"version": __version__, "device": device, "weights": weights, "inputs": inputs, "flags": self.chosen}
        frames.begin({**facts, "seconds": before}, rows)
        report.write_flags(config.output, self.chosen)
        self.start = time.perf_counter() - before
        self.interrupt.begin()
        self._remember()
        code = self._dream(len(rows) + 1)
        if code != DONE:
            return code
        self.interrupt.finish()
        say(f"{config.output}: from {config.zoom} frames in {frames.folder}")
        film.assemble(frames, config.zoom, config)
        self._record(facts)
        say(f"{config.output}: {config.zoom} frames, {time.perf_counter() - self.start:.1f} s")
        return DONE

    def _of_frames(self, chosen):
        """The flags that frames depend on."""
        return {name: value for name, value in chosen.items() if name not in _OF_FILM}

    def _check_same_flags(self):
        before, now = map(self._of_frames, (self.frames.state["flags"], self.chosen))
        checkpoint.check_same_flags(self.frames.path, before, now, growing=())

    def _check_same_inputs(self, inputs):
        for flag, digest in inputs.items():
            if self.frames.state["inputs"].get(flag) != digest:
                raise InputError(
                    f"--{flag}: has changed since {self.frames.path} was written; without --resume the film starts anew"
                )

    def _is_finished(self):
        """Whether OUTPUT is this very film."""
        config, record = self.config, report.read_record(self.config.output)
        if not record or not bundled.is_file(config.output):
            return False
        wanted = {name: self.chosen[name] for name in ("output", *_OF_FILM)}
        if any(record["flags"].get(name) != value for name, value in wanted.items()):
            return False
        if record.get("sha256") != files.sha256_of(config.output) or len(self.frames.whole()) < config.zoom:
            return False
        self._check_same_inputs(self.work.hashes())
        return True

    def _remember(self):
        count = len(self.frames.state["frames"])
        line = shlex.quote(f"--flagfile={report.flags_path(self.config.output)}")
        kept = f"{count} of {self.config.zoom} frames are in {self.frames.folder}"
        self.interrupt.remains = f"; {kept}, go on with: {run.program()} {line} --resume"

    def _dream(self, first):
        """Makes the frames from `first` on."""
        config, frames, progress = self.config, self.frames, _Progress(self.config, first)
        try:
            for number in range(first, config.zoom + 1):
                if number > 1:
                    self.work.show(film.enlarged(frames.load(number - 1), config.zoom_scale), frame=number)
                prepared = self.work.prepare(None)
                result = loop.run(prepared, callback=lambda record, number=number: self._seen(progress, number, record))
                if result.stopped == "diverged":
                    warn(f"diverged: the {result.bad_term} term is not finite at step {result.bad_step} of {number}")
                    return DIVERGED
                if result.stopped:
                    return self._interrupted()
                activation = result.trace[-1]["activation"]
                row = {"frame": number, "step": result.trace[-1]["step"], "activation": activation}
                frames.add(Picture(result.image), self.text, row, time.perf_counter() - self.start)
                self._remember()
                progress.done(number, activation)
                if self.interrupt.seen and number < config.zoom:
                    return self._interrupted()
        finally:
            progress.close()
        return DONE

    def _seen(self, progress, number, record):
        progress.show(number, record)
        return self.interrupt.seen

    def _interrupted(self):
        warn(f"interrupted{self.interrupt.remains}")
        return INTERRUPTED

    def _record(self, facts):
        rows = self.frames.state["frames"][: self.config.zoom]
        size = self.frames.load(1).shape[1::-1]
        more = {"size": list(size), "frames": len(rows), "stopped": "", "trace": rows}
        sha256 = files.sha256_of(self.config.output)
        seconds = round(time.perf_counter() - self.start, 3)
        report.write_record(self.config.output, {**facts, **more, "sha256": sha256, "run_seconds": seconds})


class _Record:
    """A step of the whole film, as the bar wants it."""

    def __init__(self, step, steps, terms, share):
        self.step, self.steps, self.terms, self.share = step, steps, terms, share


class _Progress:
    """A bar over all frames on a terminal, a line a frame in a log; both with the time left."""

    def __init__(self, config, first):
        self._first, self._frames = first, config.zoom
        self._start = time.perf_counter()
        self._bar = Progress(self._frames, 0, first - 1, ("activation",)) if on_terminal() else None

    def show(self, number, record):
        if self._bar is not None:
            share = (number - 1 + record.share) / self._frames
            self._bar.show(_Record(number, self._frames, record.terms, share))

    def done(self, number, activation):
        if self._bar is None:
            each = (time.perf_counter() - self._start) / (number - self._first + 1)
            left = round(each * (self._frames - number))
            say(f"frame {number}/{self._frames}  activation {activation:.4g}  {left // 60}:{left % 60:02d} left")

    def close(self):
        if self._bar is not None:
            self._bar.close()
