"""`grid`: every combination of some flags' values, as few compiled programs, and a page that shows them all."""

import contextlib
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jnst import bundled, images
from jnst.cli import flags
from jnst.cli.command import BAD_INPUT, DIVERGED, DONE, INTERRUPTED, guard, start
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.config import GridConfig, check_config, check_grid, parse_axes, split_list
from jnst.errors import InputError

__all__ = ["main"]

USAGE = """\
usage: grid --axis=FLAG=VALUE,VALUE [--axis=...] --output=DIR [flags of stylize]

  grid --flagfile=quickstart --axis=style_weight=10,100,1000 --output=weights
  grid --content=photo.jpg --axis=style=a.jpg,b.jpg --axis=seed=0,1 --init=noise --output=DIR
  grid --content=photo.jpg '--axis=style=a.jpg,b.jpg;c.jpg' --output=DIR     a blend of two, then a third
  grid ... --dry_run                                                         the plan: programs, memory, time
  The same command again goes on where it was stopped.
"""

_SWITCHES = {"dry_run": "Print the plan (runs, programs, memory, time), then stop."}
_MOST_RUNS = 100_000
_NAMED = 20  # at most, in one line
_REFRESH = 60  # seconds between two pages on the way


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 some diverged, 4 another process is lost,
    130 Ctrl-C."""
    argv = sys.argv if argv is None else argv
    return guard(lambda: _main(argv), lambda: f"interrupted; what is finished stays; go on with: {_command(argv)}")


def _command(argv):
    from jnst.cli.run import program

    return f"{program()} {shlex.join(argv[1:])}"


def _main(argv):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags; presets: " + ", ".join(bundled.names("presets", ".flags")))
        return DONE
    parsed = start(GridConfig, argv, USAGE, switches=_SWITCHES)
    if parsed is None:
        return DONE
    values, _ = parsed
    config = flags.to_config(GridConfig, values)
    interrupt = Interrupt()
    with interrupt:
        check_grid(config)
        axes = parse_axes(config.axis)
        _check_flags(config, axes)
        from jnst.cli.cluster import LOST

        grid = _Grid(config, axes, interrupt, _command(argv))
        try:
            return grid.plan() if values.dry_run else grid.work()
        except SystemExit as end:
            if end.code != LOST:
                raise
            return LOST  # of another process: its line is out


def _check_flags(config, axes):
    """What can be wrong with the flags alone."""
    if not config.output:
        raise InputError("--output is missing: expected a folder (no arguments at all show an example)")
    folder = Path(config.output)
    if bundled.is_file(folder):
        raise InputError(f"--output={folder}: is a file; expected a folder")
    if folder.suffix.lower() in images.FORMATS and not folder.exists():
        raise InputError(f"--output={folder}: expected a folder's name, since a grid makes many pictures")
    given = {axis.flag for axis in axes}
    for name in ("content", "style"):
        if name not in given and not getattr(config, name):
            raise InputError(f"--{name} is missing: expected a picture file, or --axis={name}=a.jpg,b.jpg")
    runs = 1
    for axis in axes:
        runs *= len(axis.values)
    if runs > _MOST_RUNS:
        raise InputError(f"--axis: {runs} runs; expected at most {_MOST_RUNS}")


class _Grid:
    """What the parts of one grid share."""

    def __init__(self, config, axes, interrupt, command):
        from jnst.cli import plan
        from jnst.cli.cluster import Cluster
        from jnst.cli.gallery import Gallery

        self.config, self.axes, self.interrupt = config, axes, interrupt
        self.folder, self.command = Path(config.output), command
        self.entries = plan.entries(config, axes)
        self.gallery = Gallery(self.folder, axes, command)
        self.here = Cluster(0, 1)
        # All that can be said before other processes are waited for.
        for entry in self.entries:
            self._check(entry)
        self.gallery.check()
        self.runs = plan.identify(self.entries)

    def plan(self):
        """Says what it would take, for one process. Returns the exit code."""
        from jnst.cli import cache, plan

        plan.settle(self.entries, self.folder)
        cache.use()
        left = [entry for entry in self.entries if not entry.record]
        if left:
            self._prepare(left, dry=True)
        else:
            self._say_all_done()
        return DONE

    def work(self):
        """Returns the exit code."""
        from jnst.cli import cache, checkpoint, cluster, plan

        # Before anything touches a device.
        config = self.config
        self.here = cluster.join(config.coordinator_address, config.num_processes, config.process_id)
        stop = lambda: setattr(self.interrupt, "seen", True)  # noqa: E731
        with cluster.Watch(self.here, self.folder, self.command, stop) as watch:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"--output={self.folder}: cannot be made: {error.strerror or error}") from error
            with checkpoint.alone(str(self.folder / f"process-{self.here.index}"), shown=str(self.folder)):
                plan.settle(self.entries, self.folder)
                plan.tidy(self.entries, self.folder)
                cache.use()
                code = self._run(watch)
                if watch.lost:
                    return cluster.LOST
                if code == INTERRUPTED:
                    return code
                watch.wait()
                return self._finish(code)

    def _check(self, entry):
        config = entry.config
        try:
            if os.path.isdir(config.content):
                raise InputError(
                    f"--content={config.content}: is a folder; expected a picture, or --axis=content=a.jpg,b.jpg"
                )
            check_config(config, count=len(split_list(config.style)))
            for name, value in flags.resolved(config).items():
                if name in flags.PATHS and not flags.fits_a_line(value):
                    raise InputError(f"--{name}={value!r}: expected a name in UTF-8 without line breaks")
        except InputError as error:
            lists = ("style_mix", "style_layers", "content_layers")
            named = any(axis.flag in lists and str(error).startswith(f"--{axis.flag}=") for axis in self.axes)
            hint = "; values that hold commas are separated by ';'" if named else ""
            raise InputError(f"{error}{hint}") from error

    def _read(self, entry, memo, dry):
        """What a run reads. A plan does without weights that are not here: others of their widths cost as much."""
        from jnst import api
        from jnst.cli import download
        from jnst.weights import fetch

        config, name = entry.config, entry.config.weights
        if not dry or name not in fetch.DOWNLOADS or fetch.here(name):
            return api.read_inputs(config, progress=download.Bar, memo=memo)
        if ("absent", name) not in memo:
            memo["absent", name] = {}
            self._say(f"{name} is not here: a run would first {download.describe(fetch.DOWNLOADS[name])}")
        inputs = api.read_inputs(dataclasses.replace(config, weights="random"), memo=memo)
        # One stand-in for each: it is by its backbone that runs are told to share a program.
        fake = memo["absent", name].setdefault(
            id(inputs.backbone), dataclasses.replace(inputs.backbone, name=name, standardize=False)
        )
        return dataclasses.replace(inputs, backbone=fake)

    def _prepare(self, mine, *, dry=False):
        """Reads what these runs need, compiles their programs, and says the plan."""
        from jnst import api, memory
        from jnst.cli import estimate, plan, sweep

        config, memo, notes = self.config, {}, {}
        devices = api.devices_of(config.device)
        for entry in mine:
            entry.inputs = self._read(entry, memo, dry)
            with api.computing(entry.config):
                entry.run = api.run_of(entry.inputs, entry.config)
            pictures = (entry.inputs.content, *entry.inputs.styles, entry.inputs.init)
            notes |= dict.fromkeys(picture.note for picture in pictures if picture and picture.note)
        for note in notes:
            self._say(note)
        self.device = f"{devices[0].platform} ({devices[0].device_kind})"
        groups = plan.group(mine)
        done = sum(bool(entry.record) for entry in self.entries)
        share = f", {len(mine)} of them by this process" if self.here.count > 1 else ""
        self._say(f"devices: {len(devices)} x {self.device}")
        kept = sum(entry.kept is not None for entry in mine)
        on = f", {kept} of them from checkpoints" if kept else ""
        self._say(f"runs: {len(self.entries)}, {done} done, {len(self.entries) - done} to do{on}{share}")
        fits, seconds, room = [], 0.0, memory.available(devices)
        for number, group in enumerate(groups, 1):
            with api.computing(group.first.config):
                fitted, each, first = sweep.fit_and_probe(group, devices, config.runs_at_once)
            fits.append(fitted)
            seconds += first + each * sum(max(map(_steps_left, batch)) for batch in fitted.batches)
            width, height = group.first.inputs.content.size
            what = ", ".join([f"{width}x{height}", *(self._settings(group) if len(groups) > 1 else ())])
            runs = sum(map(len, group.kin))
            self._say(
                f"group {number} of {len(groups)}: {runs} {_plural('run', runs)} ({what}), one program for "
                f"{fitted.program.lanes} at once, {fitted.program.bytes / 2**20:.0f} MiB on a device"
            )
        if fits:
            counts = sorted({fitted.program.lanes for fitted in fits})
            most = max(fitted.program.bytes for fitted in fits) / 2**20
            free = f" of {room / 2**20:.0f} MiB free" if room else ""
            self._say(
                f"plan: {len(mine)} {_plural('run', len(mine))}, {len(groups)} {_plural('group', len(groups))}, "
                f"{len(fits)} {_plural('program', len(fits))}, {' or '.join(map(str, counts))} "
                f"{_plural('run', counts[-1])} at once, "
                f"memory {most:.0f} MiB on a device{free}, about {estimate.words(seconds)}"
            )
        return fits, devices

    def _settings(self, group):
        """What the axes say of a whole group: that is what sets it apart from the others."""
        for place, axis in enumerate(self.axes):
            found = {entry.labels[place] for kin in group.kin for entry in kin}
            if len(found) == 1 and len(axis.values) > 1:
                yield f"{axis.flag}={found.pop()}"

    def _run(self, watch):
        import numpy as np

        from jnst import api
        from jnst.cli import sweep
        from jnst.cli.progress import RunsProgress

        done = watch.agree(np.array([bool(entry.record) for entry in self.entries]), self.runs)
        missing = [entry for entry, is_done in zip(self.entries, done, strict=True) if not is_done]
        # In stretches, so that a process meets few programs.
        mine = [missing[place] for place in np.array_split(np.arange(len(missing)), self.here.count)[self.here.index]]
        if not mine:
            if not missing:
                self._say_all_done()
            return DONE
        fits, devices = self._prepare(mine)
        progress = RunsProgress(len(mine), sum(entry.config.steps for entry in mine))
        self._shown = time.monotonic()

        def ended(entry):
            best = entry.record["best_terms"]["total"]
            if not progress.has_bar:
                what = f"total {best:.4g}" if best is not None else "no picture"
                diverged = f", {entry.record['stopped']}" if entry.record["stopped"] else ""
                say(f"{entry.name}: {what}{diverged}")
            if self.here.index == 0 and time.monotonic() - self._shown > _REFRESH:
                worker.attempt(self._show)

        worker = sweep.Sweep(self.interrupt, self.device, progress, ended)
        try:
            for place, fitted in enumerate(fits):
                fits[place] = None  # its program may go when it is done
                with api.computing(fitted.group.first.config):
                    if not worker.run(fitted, devices, self.config.runs_at_once):
                        break
        finally:
            progress.close()
        self.interrupt.finish()
        left = [entry for entry in mine if not entry.record]
        if left:
            with contextlib.suppress(InputError):
                self._show()
            if not watch.lost:
                none = sum(entry.kept is None for entry in left)
                anew = f", {none} will start anew" if none else ""
                warn(
                    f"interrupted: {len(mine) - len(left)} of {len(mine)} runs are finished{anew}; "
                    f"go on with: {self.command}"
                )
            return INTERRUPTED
        return BAD_INPUT if worker.failed else DONE

    def _show(self):
        """The page as things stand; only one process writes it."""
        from jnst.cli import plan

        self._shown = time.monotonic()
        if self.here.count > 1:
            plan.look(self.entries)
        if self.here.index == 0:
            self.gallery.write(self.entries)

    def _finish(self, code):
        from jnst.cli import gallery

        if self.here.index != 0:
            return code
        self._show()
        stars, sets = gallery.fronts(self.entries), gallery.measures(self.entries)
        for number in sorted({one for one, star in zip(sets, stars, strict=True) if star}):
            places = [place for place, one in enumerate(sets) if one == number]
            names = [self.entries[place].name for place in places if stars[place]]
            say(f"Pareto front of content against style loss, of {len(places)} runs: {_some(names)}")
        say(f"{len(self.entries)} runs are finished: {self.folder / 'index.html'}")
        diverged = [entry.name for entry in self.entries if entry.record.get("stopped")]
        if diverged:
            warn(f"{len(diverged)} of {len(self.entries)} runs diverged: {_some(diverged)}")
            return code or DIVERGED
        return code

    def _say_all_done(self):
        self._say(f"{len(self.entries)} runs, all of them done")

    def _say(self, line):
        if self.here.index == 0:
            say(line)


def _some(names):
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _plural(word, count):
    return word if count == 1 else word + "s"


def _steps_left(entry):
    """With the first evaluation, which comes before any step."""
    return entry.config.steps + 1 if entry.kept is None else entry.config.steps - entry.kept


if __name__ == "__main__":
    sys.exit(main())
