"""`dcgan`: a generator and a discriminator that learn from pictures, and then pictures from noise."""

import os
import sys
from collections.abc import Sequence

from jnst.cli import flags
from jnst.cli.command import DONE, RESUME, by_word, start
from jnst.config import DcganConfig, DcganSampleConfig, check, check_gan
from jnst.errors import InputError

__all__ = ["main"]

USAGE = """\
usage: dcgan train --data=FOLDER --output=FOLDER [flags]
       dcgan sample FOLDER --output=PICTURE [flags]

  dcgan train --data=cifar-10-batches-py --batch=256 --epochs=50 --output=out/cifar   CIFAR-10's own files
  dcgan train --data=photos --size=64 --steps=5000 --output=out/photos                any pictures
  dcgan train --data=photos --seeds=4 --output=out/four                               four networks, one program
  dcgan train --flagfile=out/cifar/training.flags --resume                            goes on where it was stopped
  dcgan sample out/cifar --output=out/samples.png                                     pictures
  dcgan sample out/cifar --walk=16 --count=8 --output=out/walk.gif                    from one to the next
"""

_SEE = "\n  dcgan train --help and dcgan sample --help list the flags"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    return by_word(argv, USAGE, _WORK, _SEE)


def _train(argv, interrupt):
    parsed = start(DcganConfig, argv, USAGE, switches=RESUME)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(DcganConfig, values)
        check_gan(config)
        # Late: what is wrong with the flags is said without waiting for jax.
        from jnst.cli import cache, gan_training, generating

        cache.use()
        return gan_training.run(generating.Generating(config), interrupt, resume=values.resume)


def _sample(argv, interrupt):
    parsed = start(DcganSampleConfig, argv, USAGE, words=1)
    if parsed is None:
        return DONE
    with interrupt:
        values, words = parsed
        config = flags.to_config(DcganSampleConfig, values)
        check(config)
        if len(words) != 1:
            raise InputError("sample: expected one folder that dcgan train left, or a generator's file")
        if not config.output:
            raise InputError("--output is missing (no arguments at all show an example)")
        from jnst.cli import cache, sampling

        cache.use()
        return sampling.run(os.path.expanduser(words[0]), config)


_WORK = {"train": _train, "sample": _sample}


if __name__ == "__main__":
    sys.exit(main())
