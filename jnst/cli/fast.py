"""`fast`: a network is trained once for a style, and then paints any picture in one pass."""

import os
import sys
from collections.abc import Sequence

from jnst.cli import flags
from jnst.cli.command import DONE, RESUME, by_word, start
from jnst.config import ApplyConfig, FastConfig, check_apply, check_fast
from jnst.errors import InputError

__all__ = ["main"]

USAGE = """\
usage: fast train --style=PICTURE --photos=FOLDER --output=NETWORK.safetensors [flags]
       fast apply NETWORK PICTURE_OR_FOLDER_OR_FILM OUTPUT [flags]

  fast train --style=a.jpg --photos=photos --steps=2000 --output=out/a.safetensors     one style
  fast train --axis=style=a.jpg,b.jpg --photos=photos --output=out/networks            a network each, in one program
  fast train --flagfile=out/a.flags --resume                                           goes on where it was stopped
  fast apply out/a.safetensors photo.jpg out/photo.png                                 a picture, of any size
  fast apply out/a.safetensors photos out/photos --processes=2                         a folder; run it again to go on
  fast apply out/a.safetensors film.mp4 out/film.mp4 --strength=0.7                    a film, where there is ffmpeg
"""

_SEE = "\n  fast train --help and fast apply --help list the flags"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    return by_word(argv, USAGE, _WORK, _SEE + (f"; networks: {', '.join(found)}" if (found := _bundled()) else ""))


def _bundled():
    from jnst import bundled

    return bundled.names("weights/stylenets", ".safetensors")


def _train(argv, interrupt):
    parsed = start(FastConfig, argv, USAGE, switches=RESUME)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(FastConfig, values)
        check_fast(config)
        # Late: what is wrong with the flags is said without waiting for jax.
        from jnst.cli import cache, fast_training

        cache.use()
        return fast_training.run(config, interrupt, resume=values.resume)


def _apply(argv, interrupt):
    parsed = start(ApplyConfig, argv, USAGE, words=3)
    if parsed is None:
        return DONE
    with interrupt:
        values, words = parsed
        config = ApplyConfig(**{name: values[name].value for name in ApplyConfig.__dataclass_fields__})
        check_apply(config)
        if len(words) != 3:
            found = f"found {len(words)}: {', '.join(words)}" if words else "found nothing"
            raise InputError(f"apply: expected a network, a picture, folder or film, and an output; {found}")
        from jnst.cli import applying

        return applying.run(*map(os.path.expanduser, words), config, interrupt)


_WORK = {"train": _train, "apply": _apply}


if __name__ == "__main__":
    sys.exit(main())
