"""What a run shows: a bar with losses and time left on a terminal, plain lines in a log."""

import time
from collections.abc import Sequence
from typing import Protocol

import tqdm

from jnst.cli.lines import bar_shape, on_terminal, say

__all__ = ["Progress", "Record", "RunsProgress", "Steps"]


# Short, so that the losses fit beside it: 80 columns are usual.
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}"
_BAR_OF_WORK = "{percentage:3.0f}%|{bar}| {desc}{remaining} left{postfix}"


class Record(Protocol):
    """What every task's record has."""

    step: int
    steps: int
    terms: dict[str, float]


class Progress:
    """A callback's printing half: `show(record)` after each chunk, then `close()`."""

    def __init__(
        self,
        steps: int,
        print_every: int,
        done: int = 0,
        terms: Sequence[str] = ("total", "content", "style", "tv"),
    ):
        self._every, self._terms, self._steps = print_every, terms, steps
        self._bar = (
            tqdm.tqdm(total=steps, initial=done, bar_format=_BAR_OF_WORK, **bar_shape()) if on_terminal() else None
        )
        self._count(done)
        self._resumed = done > 0
        self._told = time.monotonic()

    def _count(self, step):
        if self._bar is not None:
            self._bar.set_description_str(f"{step}/{self._steps} ", refresh=False)

    def show(self, record: Record) -> None:
        """Moves the bar, or prints a line at step 0, each `print_every` steps and the last."""
        costs = {name: f"{record.terms[name]:.4g}" for name in self._terms}
        if self._bar is not None:
            self._count(record.step)
            self._bar.set_postfix(costs, refresh=False)
            self._move(getattr(record, "share", record.step / record.steps))
        elif record.step in (0, record.steps) or (self._every and record.step % self._every == 0):
            line = "  ".join(f"{name} {cost}" for name, cost in costs.items())
            self._say(f"step {record.step}/{record.steps}  {line}")

    def tick(self, share: float) -> None:
        """Moves the bar within a step that takes long; in a log, a line a minute."""
        if self._bar is not None:
            self._move(share)
        elif time.monotonic() - self._told > 60:
            self._say(f"{share:.1%} of the work is done")

    def _move(self, share):
        # Steps of a pyramid are of different lengths: the bar, and with it the time left, is of the work.
        if self._resumed:  # what was done before says nothing of how fast it goes
            self._bar.initial = self._bar.n = self._bar.last_print_n = share * self._steps
            self._resumed = False
        self._bar.update(share * self._steps - self._bar.n)

    def _say(self, line):
        self._told = time.monotonic()
        say(line)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


class RunsProgress:
    """The same for the runs of a grid: one bar over the steps of all."""

    def __init__(self, runs: int, steps: int):
        self._bar = tqdm.tqdm(total=steps, bar_format=_BAR, **bar_shape()) if on_terminal() else None
        self._runs, self._ended = runs, 0
        self._at, self._told, self._reached = {}, 0, {}

    @property
    def has_bar(self) -> bool:
        """Whether lines of others would cut through it."""
        return self._bar is not None

    def begin(self, runs: Sequence[int], steps: Sequence[int], goals: Sequence[int]) -> None:
        """A batch of runs, by number, begins where it stands, -1 being before the first evaluation."""
        self._at = {run: goal for run, goal in zip(runs, goals, strict=True)}
        self._told = 0
        for run, step in zip(runs, steps, strict=True):
            self._move(run, step)

    def show(self, records: Sequence[Record | None]) -> None:
        """What is known of each run of the batch after a call of its program; None where one has ended."""
        for run, record in zip(self._at, records, strict=True):
            if record is not None:
                self._move(run, record.step)
        least = min((record for record in records if record is not None), key=lambda record: record.step, default=None)
        if self._bar is not None or least is None:
            return
        tenths = 10 * least.step // least.steps
        if tenths > self._told and 0 < least.step < least.steps:
            self._told = tenths
            say(f"step {least.step}/{least.steps} of {len(self._at)} runs at once")

    def end(self, run: int) -> None:
        """A run has ended, perhaps before its last step."""
        self._ended += 1
        self._move(run, self._at[run])
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._ended} of {self._runs} runs", refresh=False)

    def _move(self, run, step):
        goal = self._at[run]
        # A run that begins anew makes steps that were counted before.
        before = self._reached.get(run, 0)
        self._reached[run] = max(before, min(max(0, step), goal))
        if self._bar is not None:
            self._bar.update(self._reached[run] - before)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


class Steps:
    """Progress of work that has nothing to say but how far it is: a bar on a terminal, a line at each quarter."""

    def __init__(self, name: str):
        self._name, self._bar, self._told = name, None, 0

    def __enter__(self):
        return self

    def show(self, done: int, total: int) -> None:
        """So many of `total` are done."""
        if on_terminal():
            if self._bar is None:
                self._bar = tqdm.tqdm(total=total, bar_format=_BAR, **bar_shape())
            self._bar.update(done - self._bar.n)
        elif 4 * done // total > self._told:
            self._told = 4 * done // total
            say(f"{self._name} {done}/{total}")

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()
