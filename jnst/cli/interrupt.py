"""Ctrl-C without losing a picture."""

import signal
import sys

from jnst.cli.lines import warn

__all__ = ["Interrupt"]


class Interrupt:
    """Ctrl-C stops the preparation at once and asks the run to stop after its step; a second one stops that at once.

    What is raised within a callback from C (jax has one at each garbage collection) is lost: so what was seen is kept.
    """

    seen = False
    running = False
    saving = False
    remains = ""
    """What is left of the run if it stops now, and how to go on with it: words to end a line with."""

    def reset(self) -> None:
        """Another run begins to prepare itself."""
        self.running = self.saving = False
        self.remains = ""
        if self.seen:
            raise KeyboardInterrupt

    def begin(self) -> None:
        """From here on there is a picture that the first Ctrl-C must not lose."""
        if self.seen:
            raise KeyboardInterrupt
        self.running = True

    def finish(self) -> None:
        """From here on the picture is being written, which takes less than a second: Ctrl-C waits for it."""
        self.saving = True

    def said(self) -> str:
        """What to say where Ctrl-C ended the command at once."""
        if not self.running:
            return "interrupted before there was a picture; nothing written"
        return f"interrupted at once; the picture is not written{self.remains}"

    def __enter__(self):
        try:
            self._before = signal.signal(signal.SIGINT, self._note)
        except ValueError:  # not in the main thread: nobody's Ctrl-C comes here
            self._before = None
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        return self

    def _unraisable(self, lost):
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            self._hook(lost)

    def _note(self, number, frame):
        if self.saving:  # it waits for the picture; in a folder it then ends the rest
            self.seen = True
            return
        again, self.seen = self.seen, True
        if again or not self.running:
            raise KeyboardInterrupt
        warn("stopping after this step; Ctrl-C again stops at once")

    def __exit__(self, *error):
        sys.unraisablehook = self._hook
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
