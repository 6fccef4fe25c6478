"""What a download shows: how large it is, then a bar with time left on a terminal, plain lines in a log."""

import time

import tqdm

from jnst.cli.lines import bar_shape, on_terminal, say
from jnst.weights.fetch import TRIES, Download, address

__all__ = ["Bar", "describe"]

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {rate_fmt} {remaining} left"


def describe(download: Download, url: str = "") -> str:
    """`fetch 76 MiB from ADDRESS`."""
    return f"fetch {download.size / 2**20:.0f} MiB from {url or address(download)}"


class Bar:
    """A `weights.fetch.Progress`: says what is fetched, and then how far it has come."""

    def __init__(self, download: Download, url: str, attempt: int):
        again = "" if attempt == 1 else f" (try {attempt} of {TRIES})"
        say(f"{download.name} is not here: {describe(download, url)}{again}")
        self._size, self._count, self._said, self._start = download.size, 0, 0, time.monotonic()
        self._bar = None
        if on_terminal():
            shape = {"bar_format": _BAR, "unit": "B", "unit_scale": True, **bar_shape()}
            self._bar = tqdm.tqdm(total=download.size, **shape)

    def update(self, count: int, /) -> None:
        """Moves the bar, or prints a line at each tenth."""
        self._count = min(self._count + count, self._size)
        if self._bar is not None:
            self._bar.update(self._count - self._bar.n)
            return
        tenth = 10 * self._count // self._size
        if tenth > self._said:
            self._said = tenth
            seconds = time.monotonic() - self._start
            left = seconds * (self._size - self._count) / self._count
            say(f"  {10 * tenth}% of {self._size / 2**20:.0f} MiB, {left:.0f} s left")

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
