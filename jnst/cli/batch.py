"""`--content=FOLDER --output=FOLDER`: every picture of a folder, one run after the other."""

import dataclasses
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jnst import images, weights
from jnst.cli import download, painting, run
from jnst.cli.command import BAD_INPUT, DIVERGED, DONE, INTERRUPTED
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.config import INITS, StylizeConfig, split_list
from jnst.errors import InputError

__all__ = ["each", "run_all"]


def each(config: StylizeConfig) -> list[StylizeConfig]:
    """A configuration for every picture in the folder `config.content`, by name.

    `a.jpg` becomes `a.png` in the folder `config.output`; where there is an `a.webp` too, both keep their endings:
    `a.jpg.png`, `a.webp.png`. Hidden files, folders and files that are not named like pictures are passed over.

    Raises:
        InputError: no picture there, or the two folders are one.
    """
    folder, output = Path(config.content), Path(config.output)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output={output}: expected a folder, since --content={folder} is one")
    if output.suffix.lower() in images.FORMATS and not output.exists():
        raise InputError(f"--output={output}: expected a folder's name, since --content={folder} is a folder")
    if output.resolve() == folder.resolve():
        raise InputError(f"--output={output}: is the folder that is read; expected another one")
    try:
        found = [path for path in sorted(folder.iterdir()) if images.is_named_like_a_picture(path)]
    except OSError as error:
        raise InputError(f"--content={folder}: cannot be read: {error.strerror}") from error
    if not found:
        raise InputError(f"--content={folder}: no picture in this folder")
    stems = Counter(path.stem for path in found)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in found]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"--content={folder}: two of its pictures would become {twice}.png; expected other names")
    return [
        dataclasses.replace(
            config,
            content=str(path),
            output=str(output / f"{name}.png"),
        )
        for path, name in zip(found, names, strict=True)
    ]


def run_all(
    configs: list[StylizeConfig], interrupt: Interrupt, check: Callable[[StylizeConfig], None], *, resume: bool
) -> int:
    """Runs them all; a picture that fails is named at the end and stops none of the others. Returns the exit code.

    Args:
        configs: From `each`.
        interrupt: Ctrl-C ends the picture at hand, and then everything.
        check: Raises `InputError` where a configuration's flags are wrong.
        resume: Finished pictures are left as they are, and one that is half done goes on.

    Raises:
        InputError: what all of them need is wrong: a flag, a style, the weights.
    """
    check(configs[0])
    _check_shared(configs[0])
    failed, finished = [], 0
    for number, config in enumerate(configs, 1):
        name = Path(config.content).name
        say(f"[{number}/{len(configs)}] {name}")
        try:
            interrupt.reset()
            check(config)
            code = run.run(painting.work_of(config), interrupt, resume=resume)
        except InputError as error:
            warn(error)
            code = BAD_INPUT
        except KeyboardInterrupt:
            code = INTERRUPTED
        if code == INTERRUPTED:
            again = [] if "--resume" in sys.argv else ["--resume"]
            command = f"{run.program()} {shlex.join([*sys.argv[1:], *again])}"
            warn(f"interrupted at {name}: {finished} of {len(configs)} pictures are finished; go on with: {command}")
            return INTERRUPTED
        if code == DONE:
            finished += 1
        else:
            failed.append((name, code))
    say(f"{finished} of {len(configs)} pictures are finished, in {Path(configs[0].output).parent}")
    if not failed:
        return DONE
    warn(f"{len(failed)} of {len(configs)} failed: {', '.join(name for name, _ in failed)}")
    return BAD_INPUT if any(code != DIVERGED for _, code in failed) else DIVERGED


def _check_shared(config):
    """What would fail in every run alike, said once."""
    for name in [*split_list(config.style), *([] if config.init in INITS else [config.init])]:
        images.load(name)
    if not config.weights.startswith("random"):  # whose reading is their making
        weights.load(config.weights, source=config.source, progress=download.Bar)
