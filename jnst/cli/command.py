"""What every command does around its work: streams, the environment, exit codes, and each kind of end said as it is."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

from absl import flags as absl_flags

from jnst import bundled
from jnst.cli import flags
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import warn
from jnst.errors import InputError
from jnst.version import __version__

__all__ = [
    "BAD_INPUT",
    "DIVERGED",
    "DONE",
    "INTERRUPTED",
    "OUR_FAULT",
    "RESUME",
    "by_word",
    "guard",
    "make_picture",
    "start",
]

DONE, OUR_FAULT, BAD_INPUT, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""

_FLAGS = """
  --flagfile
      Read flags from a file, or from a preset by name.
  --version
  --help
"""


def guard(work: Callable[[], int], interrupted: Callable[[], str]) -> int:
    """Runs a command's `work` and turns each way to end into an exit code and, at most, one line.

    Args:
        work: Returns the exit code.
        interrupted: What to say after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    # Before numpy is loaded: it has little to do here, and its waiting threads would slow XLA's.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return work()
    except InputError as error:
        warn(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        warn(interrupted())
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our lines has gone; that is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception:  # a mistake of ours: shown whole
        traceback.print_exc()
        return OUR_FAULT


def start(
    config: type, argv: Sequence[str], usage: str, *, switches: dict[str, str] | None = None, words: int = 0
) -> tuple[absl_flags.FlagValues, list[str]] | None:
    """Defines the flags of a config dataclass and parses them; answers --help and --version itself, and returns None.

    Args:
        config: The dataclass.
        argv: The program's name first.
        usage: What --help shows first.
        switches: Further flags, false unless given, with their help.
        words: How many arguments may be no flags.
    """
    values = absl_flags.FlagValues()
    flags.define(config, values)
    switches = switches or {}
    for name, text in {**switches, "version": "Print the version.", "help": "Print the flags."}.items():
        absl_flags.DEFINE_bool(name, False, text, flag_values=values)
    found = flags.parse(values, argv, words=words)
    if values.help:
        own = "".join(f"\n  --{name}\n      {text}\n" for name, text in switches.items())
        print(flags.help_text(config, usage) + own.rstrip("\n") + ("\n" if own else "") + _FLAGS.lstrip("\n"), end="")
        return None
    if values.version:
        print(f"jnst {__version__}")
        return None
    return values, found


def by_word(
    argv: Sequence[str] | None, usage: str, works: Mapping[str, Callable[[list[str], Interrupt], int]], see: str
) -> int:
    """A command whose first argument is a word that says what to do, from its arguments to its exit code.

    Args:
        argv: The program's name first; None: this process's.
        usage: What is shown without arguments, and by --help.
        works: By word; each is given the arguments without it, and Ctrl-C's watcher.
        see: What follows the usage.
    """
    argv, interrupt = sys.argv if argv is None else argv, Interrupt()

    def work():
        word = argv[1] if len(argv) > 1 else "--help"
        if word in ("--help", "-help", "-h"):
            print(usage + see)
            return DONE
        if word in ("--version", "-version"):
            print(f"jnst {__version__}")
            return DONE
        if word not in works:
            raise InputError(f"{word!r}: expected {' or '.join(works)} first")
        return works[word]([argv[0], *argv[2:]], interrupt)

    return guard(work, lambda: f"interrupted{interrupt.remains}")


RESUME = {"resume": "Go on from OUTPUT's checkpoint, to the same bytes as a run that was never interrupted."}
"""The switch of commands whose runs leave checkpoints."""


def make_picture(
    argv: Sequence[str] | None,
    config: type,
    usage: str,
    work: Callable[[object, absl_flags.FlagValues, Interrupt], int],
    *,
    switches: dict[str, str] = RESUME,
) -> int:
    """A command that makes a picture, from its arguments to its exit code.

    Args:
        argv: The program's name first; None: this process's.
        config: The dataclass of its flags.
        usage: What is shown without arguments, and first by --help.
        work: Given the config, all flags and Ctrl-C's watcher, does it and returns the exit code.
        switches: Further flags, false unless given, with their help.
    """
    argv = sys.argv if argv is None else argv
    interrupt = Interrupt()

    def parsed():
        if len(argv) == 1:
            print(usage + "\n  --help lists the flags; presets: " + ", ".join(bundled.names("presets", ".flags")))
            return DONE
        found = start(config, argv, usage, switches=switches)
        if found is None:
            return DONE
        with interrupt:
            values, _ = found
            return work(flags.to_config(config, values), values, interrupt)

    return guard(parsed, interrupt.said)
