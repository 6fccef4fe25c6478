"""What a run shows: a bar with losses and time left on a terminal, plain lines in a log."""

from collections.abc import Sequence
from typing import Protocol

import tqdm

from jnst.cli.lines import bar_shape, on_terminal, say

__all__ = ["Progress", "Record"]


# Short, so that the losses fit beside it: 80 columns are usual.
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}"


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
        self._every, self._terms = print_every, terms
        self._bar = tqdm.tqdm(total=steps, initial=done, bar_format=_BAR, **bar_shape()) if on_terminal() else None

    def show(self, record: Record) -> None:
        """Moves the bar, or prints a line at step 0, each `print_every` steps and the last."""
        costs = {name: f"{record.terms[name]:.4g}" for name in self._terms}
        if self._bar is not None:
            self._bar.set_postfix(costs, refresh=False)
            self._bar.update(record.step - self._bar.n)
        elif record.step in (0, record.steps) or (self._every and record.step % self._every == 0):
            line = "  ".join(f"{name} {cost}" for name, cost in costs.items())
            say(f"step {record.step}/{record.steps}  {line}")

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
