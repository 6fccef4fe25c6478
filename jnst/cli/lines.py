"""What a command says, line by line: news on stdout, trouble on stderr."""

import contextlib
import os
import sys

__all__ = ["bar_shape", "on_terminal", "say", "warn"]


def say(line: str) -> None:
    """Prints a line. Where nobody takes it (`stylize ... | head -1`, a full disk), the run goes on in silence."""
    try:
        print(line, flush=True)
    except OSError:  # a log on a full disk, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(message: object) -> None:
    """Prints a message as one line on stderr, under the program's name; as with `say`, nobody need take it."""
    with contextlib.suppress(OSError):
        print(f"jnst: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether a bar has a terminal, and the lines would not go into a log."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))


def bar_shape() -> dict[str, object]:
    """tqdm follows the window; where a terminal has no size (0x0 in some containers), it would show nothing."""
    try:
        known = all(os.get_terminal_size(sys.stderr.fileno()))
    except (OSError, ValueError):
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": 120, "nrows": 24}
