"""`cyclegan`: two networks that learn to turn pictures of one kind into another's and back, without pairs."""

import os
import sys
from collections.abc import Sequence

from jnst.cli import flags
from jnst.cli.command import DONE, RESUME, by_word, start
from jnst.config import CycleganConfig, TranslateConfig, check, check_gan
from jnst.errors import InputError

__all__ = ["main"]

USAGE = """\
usage: cyclegan train --a=FOLDER --b=FOLDER --output=FOLDER [flags]
       cyclegan test FOLDER PICTURE_OR_FOLDER OUTPUT --direction=AtoB [flags]

  cyclegan train --a=monets --b=photos --size=256 --output=out/monet          trains both directions
  cyclegan train --a=monets --b=photos --size=128 --width=32 --steps=2000 --output=out/small
  cyclegan train --flagfile=out/monet/training.flags --resume                 goes on where it was stopped
  cyclegan test out/monet photo.jpg out/painting.png --direction=BtoA         a picture, of any size
  cyclegan test out/monet photos out/paintings --direction=BtoA               a folder; run it again to go on
"""

_SEE = "\n  cyclegan train --help and cyclegan test --help list the flags"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    return by_word(argv, USAGE, _WORK, _SEE)


def _train(argv, interrupt):
    parsed = start(CycleganConfig, argv, USAGE, switches=RESUME)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(CycleganConfig, values)
        check_gan(config, needed=("a", "b", "output"))
        # Late: what is wrong with the flags is said without waiting for jax.
        from jnst.cli import cache, gan_training, translating

        cache.use()
        return gan_training.run(translating.Cycling(config), interrupt, resume=values.resume)


def _test(argv, interrupt):
    parsed = start(TranslateConfig, argv, USAGE, words=3)
    if parsed is None:
        return DONE
    with interrupt:
        values, words = parsed
        config = flags.to_config(TranslateConfig, values)
        check(config)
        if len(words) != 3:
            raise InputError(f"test: expected a trained folder, a picture or folder, and an output; found {len(words)}")
        from jnst.cli import translator

        return translator.run("cyclegan", *map(os.path.expanduser, words), config, interrupt)


_WORK = {"train": _train, "test": _test}


if __name__ == "__main__":
    sys.exit(main())
