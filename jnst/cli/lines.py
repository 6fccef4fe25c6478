"""What a command says, line by line: news on stdout, trouble on stderr."""

import os
import sys

__all__ = ["say", "warn"]


def say(line: str) -> None:
    """Prints a line. Where its reader has gone (`stylize ... | head -1`), the run goes on in silence."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(message: object) -> None:
    """Prints a message as one line on stderr, under the program's name."""
    print(f"jnst: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
