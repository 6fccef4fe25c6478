"""`invert`: the picture whose features are a given one's, layer by layer, as a strip."""

import sys
from collections.abc import Sequence

from jnst import bundled
from jnst.cli import flags
from jnst.cli.command import DONE, guard, start
from jnst.cli.interrupt import Interrupt
from jnst.config import InvertConfig, check_invert

__all__ = ["main"]

USAGE = """\
usage: invert --image=PHOTO --output=STRIP [flags]

  invert --image=photo.jpg --layers=relu1_1,relu3_1 --steps=300 --size=224 --output=strip.png
  invert --image=photo.jpg --layers=relu4_1 --restarts=4 --output=strip.png     from four starts, in one program
  invert --flagfile=strip.flags                 makes strip.png again
  invert --flagfile=strip.flags --resume        goes on with it where it was stopped
"""

_SWITCHES = {"resume": "Go on from OUTPUT's checkpoint, to the same bytes as a run that was never interrupted."}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    interrupt = Interrupt()
    return guard(lambda: _main(sys.argv if argv is None else argv, interrupt), interrupt.said)


def _main(argv, interrupt):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags; presets: " + ", ".join(bundled.names("presets", ".flags")))
        return DONE
    parsed = start(InvertConfig, argv, USAGE, switches=_SWITCHES)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(InvertConfig, values)
        check_invert(config)
        from jnst.cli import cache, inverting, report, run

        report.check_paths(config, [config.image, config.weights])
        cache.use()
        return run.run(inverting.work_of(config), interrupt, resume=values.resume)


if __name__ == "__main__":
    sys.exit(main())
