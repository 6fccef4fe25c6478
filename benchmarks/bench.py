"""`bin/bench`: jnst against PyTorch, and against itself, by turns. Runs from a checkout, with the extra jnst[bench].

bin/bench step [flags]
bin/bench time_to_loss [flags]
bin/bench tiles [flags]
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # bin/_launch has it there
    sys.path.insert(0, ROOT)

from benchmarks import workers  # noqa: E402
from jnst.cli import command, flags  # noqa: E402
from jnst.cli.lines import warn  # noqa: E402
from jnst.config.options import check  # noqa: E402
from jnst.errors import InputError  # noqa: E402
from jnst.version import __version__  # noqa: E402

COMMANDS = ("step", "time_to_loss", "tiles")
USAGE = """\
usage: bench COMMAND [flags]

  bench step --size=512             seconds of a loss and its gradient in jnst and in PyTorch
  bench time_to_loss --size=512     seconds to the loss that PyTorch's L-BFGS has after 500 evaluations

  bench tiles --size=2048           seconds and memory of a step in tiles, and of one of the whole picture

  bench COMMAND --help lists the flags. The last line that is printed is JSON.
"""
_COMMAND = [sys.executable, "-P", os.path.abspath(__file__), "--worker"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 no number can be given, 2 the user's input, 130 Ctrl-C."""
    argv = sys.argv if argv is None else argv
    if argv[1:2] == ["--worker"]:
        return _work(*argv[2:])
    return command.guard(lambda: _main(argv), lambda: "interrupted")


def _main(argv):
    if len(argv) == 1 or argv[1] in ("--help", "-h", "-help"):
        print(USAGE, end="")
        return command.DONE
    if argv[1] in ("--version", "-version"):
        print(f"jnst {__version__}")
        return command.DONE
    if argv[1] not in COMMANDS:
        raise InputError(f"{argv[1]!r}: expected a command first, one of {', '.join(COMMANDS)}")
    module = importlib.import_module(f"benchmarks.{argv[1]}")
    parsed = command.start(module.Config, [argv[0], *argv[2:]], module.USAGE)
    if parsed is None:
        return command.DONE
    config = flags.to_config(module.Config, parsed[0])
    check(config)
    if getattr(module, "NEEDS_TORCH", True) and importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed in this environment: pip install 'jnst[bench]', or use bin/bench")
    try:
        return module.run(config, _COMMAND)
    except workers.FailedError as error:
        warn(error)
        return command.OUR_FAULT


def _work(side, folder):
    """A worker's process: `torch:LAYOUT`, or a command's own side with what it knows how to take."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
    kind, _, how = side.partition(":")
    if kind == "torch":
        from benchmarks import peers

        return peers.serve(folder, how)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in every command, before numpy is loaded
    return importlib.import_module(f"benchmarks.{kind}").serve(folder, how)


if __name__ == "__main__":
    sys.exit(main())
