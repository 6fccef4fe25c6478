"""One training of generative networks, with all that surrounds it: what it says, keeps on the way and leaves. What is
trained is a `gan_work.Work`."""

import contextlib
import functools
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tqdm

from jnst import api, files, memory
from jnst.cli import checkpoint, flags, gan_results, report
from jnst.cli.command import BAD_INPUT, DIVERGED, DONE, INTERRUPTED
from jnst.cli.gan_board import Board
from jnst.cli.gan_work import Work
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import on_terminal, say, warn
from jnst.cli.progress import Progress
from jnst.cli.run import program
from jnst.cli.training_checkpoints import Checkpoints
from jnst.errors import InputError

__all__ = ["run"]


def run(work: Work, interrupt: Interrupt, *, resume: bool) -> int:
    """Trains and writes OUTPUT. Returns the exit code.

    Raises:
        InputError: something in the input is wrong, or another run is writing OUTPUT.
    """
    config = work.config
    device = api.device_of(config.device)
    base = gan_results.base_of(config.output)
    with _enough_memory(config), jax.default_device(device), checkpoint.alone(base, shown=config.output):
        training = _Training(work, interrupt)
        try:
            return training.work_through(resume)
        finally:
            training.close()


@contextlib.contextmanager
def _enough_memory(config):
    """Too little memory is no fault of jnst: one line says so."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not memory.is_out_of_memory(error):
            raise
        raise InputError(
            f"--batch={config.batch}: needs more memory than there is; expected a smaller one, or fewer networks"
        ) from error


_A_SECOND = 1.0  # least time between the lines of two epochs


class _Shown(NamedTuple):
    """A record as the progress wants it."""

    step: int
    steps: int
    terms: dict[str, float]


class _Training:
    """What the parts of one training share."""

    def __init__(self, work, interrupt):
        self.work, self.config, self.interrupt = work, work.config, interrupt
        self.base = gan_results.base_of(self.config.output)
        self.chosen = flags.resolved(self.config)
        self.checkpoints = Checkpoints(self.base)
        self.sheets = gan_results.Sheets(self.config.output)
        self.failed = set()
        self.times, self.troubles, self.now = {}, {}, ()
        self.rows, self.told, self.now_wrong = [], 0.0, set()
        self.board = Board(self.config.output) if self.config.tensorboard else None

    def close(self):
        self.checkpoints.close()
        if self.board is not None:
            self.board.close()

    def work_through(self, resume):
        work, config = self.work, self.config
        gan_results.check_places(work)
        self.devices = api.devices_of(config.device)
        say(f"device: {self.devices[0].platform} ({self.devices[0].device_kind}) x {len(self.devices)}")
        self.inputs = work.read(self.devices, functools.cache(warn))
        found = self._checkpoint(resume)
        if found and found.facts["step"] >= work.steps and self._is_finished():
            say(f"{config.output}: finished already, at step {found.facts['step']}")
            return DONE
        files.check_writable(report.record_path(self.base))
        gan_results.sweep(work)
        for net in range(len(work.labels)):
            files.check_writable(work.written(net)[0])
        prepared = self._prepared(found)
        self._begin(found)
        result = self._train(prepared)
        stopped = result.stopped and self.interrupt.seen
        self.interrupt.running = False  # what can be is kept: from here on Ctrl-C ends at once
        whole = gan_results.leave(work, result, self.sheets, self._circumstances(result, stopped))
        if stopped:
            warn(f"interrupted after step {result.step}{self.interrupt.remains}")
            return INTERRUPTED
        say(f"{config.output}: {result.step} steps, {self._seconds():.0f} s; see {Path(config.output) / 'sheet.png'}")
        if not whole:
            return DIVERGED
        return BAD_INPUT if self.failed else DONE

    def _checkpoint(self, resume):
        path = self.checkpoints.path
        if not resume:
            step = self.checkpoints.step_of_another()
            if step is not None:
                say(f"{path} is of an earlier training, at step {step}: this one starts anew (--resume would go on)")
            return None
        found = self.checkpoints.read()
        if found is None:
            say(f"{path}: no checkpoint: the training starts anew")
            return None
        # A training at a constant rate does not depend on how long it shall go on.
        growing = ("steps", "epochs") if self.config.schedule == "constant" else ()
        checkpoint.check_same_flags(path, found.facts["flags"], self.chosen, growing=growing)
        others = [f"--{name}" for name, digest in self.inputs.items() if found.facts["inputs"].get(name) != digest]
        if others:
            named = " or ".join(others)
            raise InputError(f"{named}: not what it was when {path} was written; expected the same with --resume")
        if found.facts["step"] > self.work.steps:
            raise InputError(
                f"{path}: is at step {found.facts['step']}, beyond the {self.work.steps} that are asked for; expected "
                "more --steps, or no --resume to start anew"
            )
        say(f"going on from step {found.facts['step']}")
        return found

    def _is_finished(self):
        """Whether all that this very training leaves is there: its record is written last."""
        record = report.read_record(self.base)
        if not record or record["inputs"] != self.inputs or record["stopped"] or record.get("step") != self.work.steps:
            return False
        nets = range(len(self.work.labels))
        if not all(path.is_file() for net in nets for path in self.work.written(net)):
            return False
        try:
            checkpoint.check_same_flags(report.record_path(self.base), record["flags"], self.chosen, growing=())
        except InputError:
            return False
        return True

    def _prepared(self, found):
        try:
            return self.work.prepare(found and found.snapshot)
        except ValueError as error:
            if found is None:
                raise
            path = self.checkpoints.path
            raise InputError(f"{path}: does not fit this training; without --resume it starts anew") from error

    def _begin(self, found):
        facts = found.facts if found else {"step": 0, "seconds": 0.0, "times": [], "troubles": {}}
        self.first, self.before = facts["step"], facts["seconds"]
        self.times = {int(step): seconds for step, seconds in facts["times"]}
        self.troubles = dict(facts["troubles"])
        self.rows = list(found.snapshot.trace) if found else []
        gan_results.write_flags(self.work, self.chosen)
        self.sheets.clear(after=self.first)
        self.start = time.perf_counter()

    def _train(self, prepared):
        config, interrupt, work = self.config, self.interrupt, self.work
        progress = Progress(work.steps, config.print_every, self.first, terms=work.terms)
        # What is shown must be fetched, which on a GPU makes the next step wait.
        often = 1 if self.devices[0].platform == "cpu" else 10
        every_sheet = config.sample_every or work.an_epoch

        def callback(record):
            step, last, every = record.step, record.step == record.steps, config.checkpoint_every
            keeps = every and (last or step % every == 0)  # never what is not finite
            prints = config.print_every and step % config.print_every == 0
            stops = interrupt.seen  # once: it may change meanwhile
            if last or keeps or prints or stops or step % often == 0:
                self.now = (step, record.terms())
                progress.show(_Shown(step, record.steps, _means(self.now[1], work.terms)))
                if not any(all(map(np.isfinite, row.values())) for row in self.now[1]):
                    warn(f"step {step}: no loss is finite: the training ends")
                    return True
            if len(record.trace) > len(self.rows):
                self._note(record)
            if step % every_sheet == 0 and not last:
                self._try(lambda: self._show(record))
            if keeps or (every and stops):
                self._try(lambda: self._keep(record))
            return stops

        if not config.checkpoint_every:
            interrupt.remains = "; with --checkpoint_every=0 there is nothing to go on from"
        interrupt.begin()
        try:
            return work.train(prepared, callback)
        finally:
            progress.close()

    def _note(self, record):
        """New rows of the trace: when they came, what is wrong with them; at an epoch's end, a line."""
        self.rows = record.trace
        step = self.rows[-1]["step"]
        self.times[step] = self._seconds()
        if self.board is not None:
            self._try(lambda: self.board.add(self.rows, self.work.labels, self.work.terms, self.first))
        for net, label in enumerate(self.work.labels):
            trouble = self.work.trouble(self.rows, net)
            named = label or self.work.command
            if trouble and named not in self.now_wrong:
                warn(f"{named}: {trouble}" if label else trouble)
            if trouble:
                self.troubles[named] = trouble
                self.now_wrong.add(named)
            else:
                self.now_wrong.discard(named)
        # Epochs of a few pictures may be many in a second.
        due = step == record.steps or time.perf_counter() - self.told > _A_SECOND
        if step % self.work.an_epoch == 0 and due:
            self.told = time.perf_counter()
            own = self.rows[-len(self.work.labels) :]
            costs = "  ".join(f"{name} {value:.4g}" for name, value in _means(own, self.work.terms).items())
            epoch, epochs = step // self.work.an_epoch, -(-record.steps // self.work.an_epoch)
            done = (time.perf_counter() - self.start) / (step - self.first)
            line = f"epoch {epoch}/{epochs}  {costs}  {_time(done * (record.steps - step))} left"
            tqdm.tqdm.write(line) if on_terminal() else say(line)

    def _show(self, record):
        picture = self.work.sheet(record.variables())
        self.sheets.add(record.step, picture)
        gan_results.write_table(self.work, self.rows, self.times)
        gan_results.write_curves(self.work, self.rows)

    def _try(self, write: Callable[[], None]):
        """A file on the way that cannot be written is no reason to lose the training."""
        try:
            write()
        except (InputError, OSError) as error:
            if str(error) not in self.failed:
                warn(error)
            self.failed.add(str(error))

    def _keep(self, record):
        facts = {
            "flags": self.chosen,
            "inputs": self.inputs,
            "step": record.step,
            "seconds": self._seconds(),
            "times": sorted(self.times.items()),
            "troubles": self.troubles,
        }
        self.checkpoints.write(record.snapshot(), facts)
        again = f"{program()} train {shlex.quote(f'--flagfile={report.flags_path(self.base)}')} --resume"
        self.interrupt.remains = f"; step {record.step} is kept, go on with: {again}"

    def _circumstances(self, result, interrupted):
        rows = list(result.trace)
        if rows:
            self.times.setdefault(rows[-1]["step"], self._seconds())
        # Where it was stopped between two rows, the step itself is the last one.
        if result.stopped and self.now and (not rows or rows[-1]["step"] < self.now[0] == result.step):
            epoch = round(result.step / self.work.an_epoch, 4)
            rows += [{"step": result.step, "epoch": epoch, "net": net, **row} for net, row in enumerate(self.now[1])]
            self.times[result.step] = self._seconds()
        return gan_results.Circumstances(
            chosen=self.chosen,
            inputs=self.inputs,
            devices=self.devices,
            rows=rows,
            times=self.times,
            troubles=self.troubles,
            seconds=self._seconds(),
            interrupted=interrupted,
        )

    def _seconds(self):
        return round(self.before + time.perf_counter() - self.start, 1)


def _means(rows: Sequence[Mapping[str, float]], terms: Sequence[str]) -> dict[str, float]:
    """The terms of several networks, on average over those that are finite, if any."""
    good = [row for row in rows if all(np.isfinite(row[name]) for name in terms)] or rows
    return {name: float(np.mean([row[name] for row in good])) for name in terms}


def _time(seconds):
    """
    >>> _time(59), _time(3700)
    ('59 s', '1 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
