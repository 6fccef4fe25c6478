"""`stylize`: two pictures in, one out."""

import os
import sys
from collections.abc import Sequence

from jnst.cli.command import RESUME, make_picture
from jnst.cli.lines import say
from jnst.config import StylizeConfig, check, check_config, check_scales, split_list
from jnst.errors import InputError

__all__ = ["main"]

USAGE = """\
usage: stylize --content=PHOTO --style=PAINTING --output=PICTURE [flags]

  stylize --flagfile=quickstart
  stylize --content=photo.jpg --style=painting.jpg --output=out.png --size=512
  stylize --content=photo.jpg --style=a.jpg,b.jpg --style_mix=0.3,0.7 --output=out.png
  stylize --content=photos --style=painting.jpg --output=painted
  stylize --flagfile=out.flags                  makes out.png again
  stylize --flagfile=out.flags --resume         goes on with it where it was stopped
"""


_SWITCHES = {
    **RESUME,
    "dry_run": "Print size, memory and estimated time, then stop.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    return make_picture(argv, StylizeConfig, USAGE, _work, switches=_SWITCHES)


def _work(config, values, interrupt):
    if config.content and config.output and os.path.isdir(config.content):
        return _folder(config, interrupt, values)
    _check_flags(config)
    # Late: what is wrong with the flags is said without waiting for jax.
    from jnst.cli import cache, painting, run

    cache.use()
    if values.dry_run:
        return painting.dry_run(config)
    return run.run(painting.work_of(config), interrupt, resume=values.resume)


def _folder(config, interrupt, values):
    from jnst.cli import batch, cache, painting

    configs = batch.each(config)
    cache.use()
    if values.dry_run:
        _check_flags(configs[0])
        say(f"the first of {len(configs)} pictures, {configs[0].content}:")
        return painting.dry_run(configs[0])
    return batch.run_all(configs, interrupt, _check_flags, resume=values.resume)


def _check_flags(config):
    """What can be wrong with the flags alone, before jax is loaded or a file is touched."""
    check(config)
    for name in ("content", "style", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing: expected a picture file (no arguments at all show an example)")
    check_config(config, count=len(split_list(config.style)))
    check_scales(config)
    from jnst.cli import report

    report.check_paths(config, [config.content, *split_list(config.style), config.init, config.weights])


if __name__ == "__main__":
    sys.exit(main())
