"""`dream`: what a layer sees in a picture, amplified; as a picture, or as a film that zooms in."""

import sys
from collections.abc import Sequence

from jnst.cli.command import make_picture
from jnst.config import DreamConfig, check_dream

__all__ = ["main"]

USAGE = """\
usage: dream --image=PHOTO --output=PICTURE [flags]

  dream --image=photo.jpg --layers=relu4_1 --octaves=4 --steps=10 --size=512 --output=dream.png
  dream --image=photo.jpg --layers=relu3_1,relu4_1:12,87 --output=dream.png     channels 12 and 87 of relu4_1
  dream --image=photo.jpg --guide=flowers.jpg --output=dream.png
  dream --image=noise --size=512 --output=dream.png
  dream --image=photo.jpg --zoom=60 --output=dream.gif
  dream --flagfile=dream.flags                  makes dream.png again
  dream --flagfile=dream.flags --resume         goes on with it where it was stopped
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    return make_picture(argv, DreamConfig, USAGE, _work)


def _work(config, values, interrupt):
    check_dream(config)
    from jnst.cli import cache, film, report

    read = [config.image, config.weights, *([config.guide] if config.guide else [])]
    (film.check if config.zoom else report.check_paths)(config, read)
    from jnst.cli import dreaming, filming, run

    cache.use()
    if config.zoom:
        return filming.make(config, interrupt, resume=values.resume)
    return run.run(dreaming.work_of(config), interrupt, resume=values.resume)


if __name__ == "__main__":
    sys.exit(main())
