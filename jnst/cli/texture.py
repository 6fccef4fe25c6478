"""`texture`: from a sample to a picture of any size that looks like it."""

import sys
from collections.abc import Sequence

from jnst import bundled
from jnst.cli import flags
from jnst.cli.command import DONE, guard, start
from jnst.cli.interrupt import Interrupt
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

_SWITCHES = {"resume": "Go on from OUTPUT's checkpoint, to the same bytes as a run that was never interrupted."}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    interrupt = Interrupt()
    return guard(lambda: _main(sys.argv if argv is None else argv, interrupt), interrupt.said)


def _main(argv, interrupt):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags; presets: " + ", ".join(bundled.names("presets", ".flags")))
        return DONE
    parsed = start(TextureConfig, argv, USAGE, switches=_SWITCHES)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(TextureConfig, values)
        check_texture(config)
        from jnst.cli import cache, report, run, texturing

        report.check_paths(config, [config.image, config.weights])
        cache.use()
        if config.method == "patches":
            return texturing.quilt(config, interrupt)
        return run.run(texturing.work_of(config), interrupt, resume=values.resume)


if __name__ == "__main__":
    sys.exit(main())
