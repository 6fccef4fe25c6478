"""`distill`: a small backbone out of a large one and folders of pictures."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jnst import bundled, files
from jnst.cli import flags
from jnst.cli.command import DONE, guard, start
from jnst.cli.interrupt import Interrupt
from jnst.config import DistillConfig, check
from jnst.errors import InputError

__all__ = ["main"]

USAGE = """\
usage: distill --photos=FOLDER,... --teacher=WEIGHTS --output=SMALL.safetensors [flags]

  distill --flagfile=distill_mini --photos=photos,paintings --output=out/mini.safetensors
  distill --flagfile=out/mini.flags --resume    goes on with it where it was stopped
"""

_SWITCHES = {"resume": "Go on from OUTPUT's checkpoint, to the same bytes as a training that was never interrupted."}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 130 Ctrl-C."""
    interrupt = Interrupt()
    return guard(
        lambda: _main(sys.argv if argv is None else argv, interrupt), lambda: f"interrupted{interrupt.remains}"
    )


def _main(argv, interrupt):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags")
        return DONE
    parsed = start(DistillConfig, argv, USAGE, switches=_SWITCHES)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(DistillConfig, values)
        _check_flags(config)
        # Late: what is wrong with the flags is said without waiting for jax.
        from jnst.cli import cache, training

        cache.use()
        return training.run(config, interrupt, resume=values.resume)


def _check_flags(config):
    """What can be wrong with the flags alone."""
    check(config)
    for name in ("photos", "teacher", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing (no arguments at all show an example)")
    config.check()
    if Path(config.output).suffix != ".safetensors":
        raise InputError(f"--output={config.output}: expected a name that ends in .safetensors")
    from jnst.cli import report
    from jnst.cli.training import MADE
    from jnst.weights.canonical import read_facts

    for name, value in flags.resolved(config).items():
        if name in flags.PATHS and not flags.fits_a_line(value):
            raise InputError(f"--{name}={value!r}: expected a name in UTF-8 without line breaks")
    for name in filter(os.path.exists, (config.teacher, config.deep_teacher)):
        if os.path.realpath(name) == os.path.realpath(config.output):
            raise InputError(f"--output={config.output}: would replace {name}, which is read; expected another name")
    for path in (Path(config.output), *report.traces(config.output), report.flags_path(config.output)):
        files.check_place(path)
        ours = (
            report.is_ours(path) if path.suffix in report.OWN_ENDINGS else MADE in str(read_facts(path).get("origin"))
        )
        if bundled.is_file(path) and not ours:
            raise InputError(
                f"--output={config.output}: would replace {path}, which distill did not write; expected another name"
            )


if __name__ == "__main__":
    sys.exit(main())
