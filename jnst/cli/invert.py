"""`invert`: the picture whose features are a given one's, layer by layer, as a strip."""

import sys
from collections.abc import Sequence

from jnst.cli.command import make_picture
from jnst.config import InvertConfig, check_invert

__all__ = ["main"]

USAGE = """\
usage: invert --image=PHOTO --output=STRIP [flags]

  invert --image=photo.jpg --layers=relu1_1,relu3_1 --steps=300 --size=224 --output=strip.png
  invert --image=photo.jpg --layers=relu4_1 --restarts=4 --output=strip.png     from four starts, in one program
  invert --flagfile=strip.flags                 makes strip.png again
  invert --flagfile=strip.flags --resume        goes on with it where it was stopped
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    return make_picture(argv, InvertConfig, USAGE, _work)


def _work(config, values, interrupt):
    check_invert(config)
    from jnst.cli import cache, inverting, report, run

    report.check_paths(config, [config.image, config.weights])
    cache.use()
    return run.run(inverting.work_of(config), interrupt, resume=values.resume)


if __name__ == "__main__":
    sys.exit(main())
