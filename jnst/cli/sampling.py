"""`dcgan sample`: pictures of a trained generator, and walks between them."""

import os
from pathlib import Path

import jax
import numpy as np

from jnst import api, files, images
from jnst.cli import gan_results, report
from jnst.cli.command import DONE
from jnst.cli.generating import grid_of
from jnst.cli.lines import say
from jnst.config import DcganSampleConfig
from jnst.errors import InputError
from jnst.images import Picture
from jnst.tasks import dcgan
from jnst.weights import generators

__all__ = ["run"]

_NAME = "generator.safetensors"
_MOST = 65536  # pictures
_MOST_PIXELS = 2**28
_FRAME = 60  # milliseconds


def run(source: str, config: DcganSampleConfig) -> int:
    """Writes OUTPUT. Returns the exit code.

    Args:
        source: What `dcgan train` left: its folder, or a generator's file.
        config: Checked.

    Raises:
        InputError: something in the input is wrong.
    """
    as_gif = config.output.lower().endswith(".gif")
    if as_gif and not config.walk:
        raise InputError(f"--output={config.output}: a film is made by --walk=16; expected that, or a name in .png")
    if not as_gif:
        images.format_of(config.output)
    if config.walk and config.count < 2:
        raise InputError(f"--count={config.count}: expected at least 2, between which --walk goes")
    total = config.count * max(1, config.walk)
    if total > _MOST:
        raise InputError(f"--count={config.count} --walk={config.walk}: {total} pictures; expected at most {_MOST}")
    files.check_place(config.output)
    found = generators.load(_file(source, config.net))
    pixels = total * (found.spec.size * config.scale) ** 2
    if pixels > _MOST_PIXELS:
        raise InputError(f"--scale={config.scale}: {pixels} pixels in all; expected at most {_MOST_PIXELS}")
    with jax.default_device(api.device_of(config.device)):
        z = np.asarray(dcgan.noise(jax.random.key(config.seed), config.count, found.spec))
        if config.walk:
            z = dcgan.walk(z, config.walk, closed=as_gif)
        pictures = dcgan.sample(found.variables, z, found.spec)
    files.check_writable(config.output)
    if as_gif:
        larger = np.rint(255 * pictures).astype(np.uint8).repeat(config.scale, 1).repeat(config.scale, 2)
        gan_results.save_gif(config.output, list(larger), [_FRAME] * len(larger))
    else:
        if config.walk:  # a row from each picture to the next, both in it
            starts = range(0, len(pictures) - 1, config.walk)
            pictures = np.concatenate([pictures[start : start + config.walk + 1] for start in starts])
        columns = config.walk + 1 if config.walk else 0
        images.save(config.output, Picture(grid_of(pictures, scale=config.scale, columns=columns)))
    say(f"{config.output}: {len(pictures)} pictures of {found.path}")
    return DONE


def _file(source, net):
    """The generator's file that a folder and `--net` mean."""
    path = Path(source)
    if not path.is_dir():
        if net:
            raise InputError(f"--net={net}: {source} is no folder of several networks")
        return path
    record = report.read_record(gan_results.base_of(source))
    names = [name for name in record.get("networks", []) if _is_plain(name)] if record else _folders(path)
    several = len(names) > 1 or (not record and names)
    if several:
        name = _chosen(net, names)
        file = path / name / _NAME
    elif net:
        raise InputError(f"--net={net}: {source} holds one network")
    else:
        name, file = (names or [""])[0], path / _NAME
    if record and name not in record.get("saved", []):
        raise InputError(f"{source}: the training of {name} diverged and left no generator")
    if not file.is_file():
        raise InputError(f"{source}: no {_NAME} in this folder; expected one that dcgan train left")
    return file


def _chosen(net, names):
    if not net:
        return names[0]
    if net in names:
        return net
    if net.isdecimal() and 1 <= int(net) <= len(names):
        return names[int(net) - 1]
    raise InputError(f"--net={net}: expected a number from 1 to {len(names)}, or one of {', '.join(names[:20])}")


def _is_plain(name):
    """Whether a name out of a file stays within the folder."""
    return isinstance(name, str) and name == os.path.basename(name) and name not in ("", ".", "..")


def _folders(path):
    """Of several networks whose training has not come to its end, those that are there."""
    return sorted(entry.name for entry in path.iterdir() if (entry / _NAME).is_file())
