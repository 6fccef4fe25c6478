"""`texture`: from a sample to a picture of any size that looks like it."""

import sys
from collections.abc import Sequence

from jnst.cli.command import make_picture
from jnst.config import TextureConfig, check_texture

__all__ = ["main"]

USAGE = """\
usage: texture --image=SAMPLE --output=PICTURE [flags]

  texture --image=gravel.jpg --size=512 --steps=300 --output=texture.png
  texture --image=gravel.jpg --size=768x512 --output=texture.png          width x height
  texture --image=gravel.jpg --size=512 --tileable --output=texture.png
  texture --image=gravel.jpg --method=patches --output=patches.png        the baseline: copies side by side
  texture --flagfile=texture.flags              makes texture.png again
  texture --flagfile=texture.flags --resume     goes on with it where it was stopped
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    return make_picture(argv, TextureConfig, USAGE, _work)


def _work(config, values, interrupt):
    check_texture(config)
    from jnst.cli import cache, report, run, texturing

    report.check_paths(config, [config.image, config.weights])
    cache.use()
    if config.method == "patches":
        return texturing.quilt(config, interrupt)
    return run.run(texturing.work_of(config), interrupt, resume=values.resume)


if __name__ == "__main__":
    sys.exit(main())
