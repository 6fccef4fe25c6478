"""`dcgan sample`: pictures of a trained generator, and walks between them."""

import jax
import numpy as np

from jnst import api, files, images
from jnst.cli import gan_results
from jnst.cli.command import DONE
from jnst.cli.gan_folder import network_of
from jnst.cli.generating import grid_of
from jnst.cli.lines import say
from jnst.config import DcganSampleConfig
from jnst.errors import InputError
from jnst.images import Picture
from jnst.tasks import dcgan
from jnst.weights import generators

__all__ = ["run"]

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
    found = generators.load(network_of(source, config.net, "generator.safetensors", "dcgan"))
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
