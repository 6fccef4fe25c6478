"""`pix2pix`: a network that learns from pairs of pictures to turn the one into the other."""

import os
import sys
from collections.abc import Sequence

from jnst.cli import flags
from jnst.cli.command import DONE, RESUME, by_word, start
from jnst.config import CombineConfig, EvaluateConfig, Pix2pixConfig, TranslateConfig, check, check_combine, check_gan
from jnst.errors import InputError

__all__ = ["main"]

USAGE = """\
usage: pix2pix combine --a=FOLDER --b=FOLDER --output=FOLDER [flags]
       pix2pix train --data=FOLDER --output=FOLDER [flags]
       pix2pix test FOLDER PICTURE_OR_FOLDER OUTPUT [flags]
       pix2pix evaluate FOLDER PAIRS [flags]

  pix2pix combine --a=photos --b=labels --output=pairs                        A|B pictures of two folders
  pix2pix train --data=pairs --direction=BtoA --size=256 --output=out/facades trains from labels to photos
  pix2pix train --data=pairs --loss=l1 --output=out/l1                        a part of the paper's ablation
  pix2pix train --flagfile=out/facades/training.flags --resume                goes on where it was stopped
  pix2pix test out/facades labels.png out/photo.png                           a picture, of any size
  pix2pix test out/facades pairs/test out/photos                              a folder; run it again to go on
  pix2pix evaluate out/facades pairs/test                                     how near to the truth
"""

_SEE = "\n  pix2pix train --help, and so on, list the flags"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    return by_word(argv, USAGE, _WORK, _SEE)


def _combine(argv, interrupt):
    parsed = start(CombineConfig, argv, USAGE)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(CombineConfig, values)
        check(config)
        check_combine(config)
        from jnst.cli import combining

        return combining.run(config, interrupt)


def _train(argv, interrupt):
    parsed = start(Pix2pixConfig, argv, USAGE, switches=RESUME)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(Pix2pixConfig, values)
        check_gan(config)
        # Late: what is wrong with the flags is said without waiting for jax.
        from jnst.cli import cache, gan_training, translating

        cache.use()
        return gan_training.run(translating.Pairing(config), interrupt, resume=values.resume)


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

        return translator.run("pix2pix", *map(os.path.expanduser, words), config, interrupt)


def _evaluate(argv, interrupt):
    parsed = start(EvaluateConfig, argv, USAGE, words=2)
    if parsed is None:
        return DONE
    with interrupt:
        values, words = parsed
        config = flags.to_config(EvaluateConfig, values)
        check(config)
        if len(words) != 2:
            raise InputError(f"evaluate: expected a trained folder and a folder of A|B pictures; found {len(words)}")
        from jnst.cli import evaluating

        return evaluating.run(*map(os.path.expanduser, words), config, interrupt)


_WORK = {"combine": _combine, "train": _train, "test": _test, "evaluate": _evaluate}


if __name__ == "__main__":
    sys.exit(main())
