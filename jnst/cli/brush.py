"""A trained stylenet as `fast apply` was asked for it: which style, how strong, where. A photo in, a picture out."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jnst import images
from jnst.config import ApplyConfig, StyleNetSpec, parse_mix
from jnst.errors import InputError
from jnst.files import sha256_of
from jnst.images import Picture
from jnst.version import __version__
from jnst.weights.stylenets import StyleNet

__all__ = ["Brush", "Made", "bytes_of", "digest_of", "mix_of"]

_SEEN = ("size", "strength", "preserve_color", "bit_depth")  # flags that pixels depend on, beside the mix
_TILES = (2048, 1024, 512, 256)
_AROUND = 64  # more than tiles reach beyond themselves on both sides, for the estimate


class Made(NamedTuple):
    """What there is to say of a picture that was made."""

    size: tuple[int, int]
    """Width and height."""
    note: str
    """Of how the file was read, perhaps empty."""
    tile: int
    """Side of its tiles; 0: whole."""
    seconds: float


class Brush:
    """A network and how it is used; `facts` tells it from others.

    Raises:
        InputError: the network has no such style.
    """

    def __init__(self, net: StyleNet, config: ApplyConfig):
        self.net, self.config, self.mix = net, config, mix_of(net, config)
        flags = {name: getattr(config, name) for name in _SEEN}
        flags["mix"] = [float(share) for share in self.mix]
        self.facts = {"network": net.sha256, "flags": flags}
        self.processes = config.processes
        """That a folder is shared among."""
        self._room = None

    @contextlib.contextmanager
    def ready(self, *, processes: int = 1) -> Iterator[None]:
        """Within it pictures are made on the device; of a host's memory others have as large a share.

        Raises:
            InputError: there is no such device here.
        """
        # Late: what is wrong with the flags is said without waiting for jax.
        import jax

        from jnst import api
        from jnst.cli import cache

        cache.use()
        device = api.device_of(self.config.device)
        self._room = api.room(self.config.device)
        if self._room is not None and device.platform == "cpu":
            self._room //= processes
        with jax.default_device(device):
            # On the device once, not at each picture.
            self._variables = jax.device_put(self.net.variables, device)
            yield

    def text(self, digest: str) -> str:
        """What a PNG carries: version, network, flags and the hash of the photo; equal pictures, equal text."""
        network = {"name": Path(self.net.path).stem, "sha256": self.net.sha256}
        return json.dumps({"jnst": __version__, **self.facts, "network": network, "input": digest}, sort_keys=True)

    def make(self, source: str | Path, output: str | Path, digest: str) -> Made:
        """Reads `source`, whose SHA-256 is `digest`, and writes `output`, whole or not at all. Only within `ready`.

        Raises:
            InputError: no picture, one that is too large, or an output that cannot be written.
        """
        start, config = time.perf_counter(), self.config
        picture = images.load(source)
        size = images.fit(picture.size, config.size)
        if size[0] * size[1] > images.MOST_PIXELS:
            raise InputError(f"--size={config.size}: {source} would have {size[0]}x{size[1]} pixels; expected fewer")
        images.check_encodable(size, images.format_of(output, bit_depth=config.bit_depth), bit_depth=config.bit_depth)
        picture = images.resize(picture, size)
        painted, tile = self.paint(picture.opaque(), str(source))
        images.save(output, Picture(painted, picture.alpha), self.text(digest), bit_depth=config.bit_depth)
        return Made(size, picture.note, tile, time.perf_counter() - start)

    def paint(self, rgb: np.ndarray, name: str) -> tuple[np.ndarray, int]:
        """The picture of a photo `[H, W, 3]`, and the side of the tiles it was made in, 0 where it was made whole.

        Args:
            rgb: sRGB in [0, 1].
            name: Of the photo, for messages.

        Raises:
            InputError: too little memory, or a network whose result is not finite.
        """
        import jax

        from jnst import memory

        tile = self._tile(rgb.shape[:2])
        try:
            painted = self._painted(rgb, tile)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not memory.is_out_of_memory(error):
                raise
            what = f"{name}: {rgb.shape[1]}x{rgb.shape[0]} pixels need more memory than there is"
            raise InputError(f"{what}; expected a smaller --size, or --tile=512") from error
        if not np.isfinite(painted).all():
            raise InputError(f"{name}: {self.net.name} gives numbers that are not finite; expected another network")
        return painted, tile

    def _painted(self, rgb, tile):
        from jnst.tasks.fast import painting, tiled

        options = {"strength": self.config.strength, "preserve_color": self.config.preserve_color}
        if tile:
            return tiled.paint_tiled(self._variables, rgb, self.mix, self.net.spec, tile=tile, **options)
        return np.asarray(painting.paint(self._variables, rgb[None], self.mix, self.net.spec, **options))[0]

    def _tile(self, size):
        asked, spec = self.config.tile, self.net.spec
        if asked != "auto":
            return int(asked) if int(asked) < max(size) else 0
        if self._room is None or bytes_of(size, spec) <= self._room:
            return 0
        fits = (tile for tile in _TILES if bytes_of((tile + _AROUND,) * 2, spec) <= self._room)
        tile = next(fits, _TILES[-1])
        return tile if tile < max(size) else 0


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a photo's file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def bytes_of(size: tuple[int, int], spec: StyleNetSpec) -> int:
    """About what a pass over a whole picture needs.

    Measured on a CPU as the process's peak over 1.5 million pixels: 5.3 to 9 maps of the first width (a convolution
    works in copies of what goes in) and a few of three channels.

    >>> round(bytes_of((2000, 3000), StyleNetSpec()) / 1e9, 1)
    3.8
    """
    return 4 * size[0] * size[1] * (9 * spec.widths[0] + 16)


def mix_of(net: StyleNet, config: ApplyConfig) -> np.ndarray:
    """The share of each of a network's styles, `[styles]` float32.

    Raises:
        InputError: no such style, or shares of more or fewer styles.
    """
    count = len(net.styles)
    if config.style_mix:
        return np.array(parse_mix(config.style_mix, count), np.float32)
    chosen = 0
    if config.style:
        number = int(config.style) if config.style.isdecimal() and len(config.style) < 9 else 0
        if config.style in net.styles:
            chosen = net.styles.index(config.style)
        elif 1 <= number <= count:
            chosen = number - 1
        else:
            known = ", ".join(f"{place} {name}" for place, name in enumerate(net.styles, 1))
            raise InputError(f"--style={config.style}: expected one of {os.path.basename(net.name)}'s styles: {known}")
    return np.eye(count, dtype=np.float32)[chosen]
