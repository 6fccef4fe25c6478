"""`pix2pix test` and `cyclegan test`: a trained generator on a picture or a folder. A picture in, a picture out."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jnst import bundled, files, images
from jnst.cli import sharing
from jnst.cli.brush import Made, digest_of
from jnst.cli.command import DONE
from jnst.cli.gan_folder import network_of
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say
from jnst.config import ResnetSpec, TranslateConfig, UnetSpec
from jnst.errors import InputError
from jnst.images import Picture
from jnst.version import __version__
from jnst.weights import generators
from jnst.weights.generators import Generator

__all__ = ["Translator", "half_of", "load", "run"]

_ENDING = ".png"


def run(command: str, network: str, source: str, output: str, config: TranslateConfig, interrupt: Interrupt) -> int:
    """Translates. Returns the exit code.

    Args:
        command: `pix2pix` or `cyclegan`.
        network: The folder that its training left, or a generator's file.
        source: A picture, or a folder of pictures.
        output: A picture, or where `source` is a folder a folder.
        config: Checked.
        interrupt: Ctrl-C's watcher.

    Raises:
        InputError: something in the input is wrong.
    """
    translator = Translator(load(command, network, config.net, config.direction), config)
    if os.path.isdir(source):
        if os.path.exists(output) and not os.path.isdir(output):
            raise InputError(f"{output}: expected a folder, since {source} is one")
        if os.path.splitext(output)[1].lower() in images.FORMATS and not os.path.exists(output):
            raise InputError(f"{output}: expected a folder's name, since {source} is a folder")
        if os.path.realpath(output) == os.path.realpath(source):
            raise InputError(f"{output}: is the folder that is read; expected another one")
        interrupt.remains = ": the same command goes on"
        return sharing.run(translator, source, output, _ENDING, interrupt)
    path = bundled.find(source, "examples", ("", ".jpg", ".png"))
    if path is None or not bundled.is_file(path):
        raise InputError(f"{source}: no such file or folder")
    if os.path.isdir(output):
        raise InputError(f"{output}: is a folder; expected a picture's name, since {source} is a picture")
    for read in (str(path), translator.net.path):
        if os.path.exists(output) and os.path.samefile(read, output):
            raise InputError(f"{output}: would replace {read}, which is read; expected another name")
    try:
        files.check_place(output)
        images.format_of(output)
        files.check_writable(output)
    except InputError as error:  # there is no such flag here
        raise InputError(str(error).removeprefix("--output=").replace("--output", "the output")) from error
    with translator.ready():
        interrupt.remains = "; nothing written"
        made = translator.make(path, output, digest_of(path))
    if made.note:
        say(made.note)
    say(f"{output}: {made.size[0]}x{made.size[1]}, {made.seconds:.2f} s")
    return DONE


def load(command: str, network: str, net: str, direction: str) -> Generator:
    """The generator that a command's flags mean.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    name, kind = ("generator.safetensors", UnetSpec) if command == "pix2pix" else (_of(direction), ResnetSpec)
    return generators.load(network_of(network, net, name, command), kind)


def _of(direction):
    return f"{direction}.safetensors"


class Translator:
    """A generator and how it is used; `facts` tells it from others. To `sharing` it is what a brush is."""

    def __init__(self, net: Generator, config: TranslateConfig):
        self.net, self.config = net, config
        self.processes = 1
        seen = {name: getattr(config, name) for name in ("size", "pairs")}
        if isinstance(net.spec, UnetSpec):
            seen |= {"noise": config.noise, "seed": config.seed}
        self.processes = 1  # a pass takes milliseconds, and a process its seconds to begin
        self.facts = {"network": net.sha256, "flags": seen}
        self._told = False  # that pictures are cut in half
        self._translate: Callable[[np.ndarray], object] | None = None

    @contextlib.contextmanager
    def ready(self, *, processes: int = 1) -> Iterator[None]:
        """Within it pictures are made on the device.

        Raises:
            InputError: there is no such device here.
        """
        # Late: what is wrong with the flags is said without waiting for jax.
        import jax

        from jnst import api
        from jnst.cli import cache
        from jnst.tasks import cyclegan, pix2pix

        cache.use()
        device, config, spec = api.device_of(self.config.device), self.config, self.net.spec
        with jax.default_device(device):
            variables = jax.device_put(self.net.variables, device)
            if isinstance(spec, UnetSpec):
                key = jax.random.key(config.seed) if config.noise else None
                self._translate = lambda images: pix2pix.translate(key, variables, images, spec)
            else:
                self._translate = lambda images: cyclegan.translate(variables, images, spec)
            yield

    def paint(self, rgb: np.ndarray, name: str) -> np.ndarray:
        """What is made of a picture `[H, W, 3]` sRGB in [0, 1]; only within `ready`.

        Raises:
            InputError: too little memory, or a generator whose result is not finite.
        """
        import jax

        from jnst import memory

        try:
            made = np.asarray(self._translate(rgb[None].astype(np.float32)))[0]
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not memory.is_out_of_memory(error):
                raise
            what = f"{name}: {rgb.shape[1]}x{rgb.shape[0]} pixels need more memory than there is"
            raise InputError(f"{what}; expected a smaller --size") from error
        if not np.isfinite(made).all():
            raise InputError(f"{name}: {self.net.path} gives numbers that are not finite; expected another network")
        return made

    def make(self, source: str | Path, output: str | Path, digest: str) -> Made:
        """Reads `source`, whose SHA-256 is `digest`, and writes `output`, whole or not at all. Only within `ready`.

        Raises:
            InputError: no picture, one that is too large, or an output that cannot be written.
        """
        start, config = time.perf_counter(), self.config
        picture = images.load(source)
        note = picture.note
        half = self._half(picture.size, source)
        if half:
            rgb = half_of(picture.opaque(), half)
            said = f"{source}: an A|B picture, of which {half} goes in (--pairs=no: all of it)"
            picture, note = Picture(rgb), "" if self._told else said
            self._told = True
        size = images.fit(picture.size, config.size)
        if size[0] * size[1] > images.MOST_PIXELS:
            raise InputError(f"--size={config.size}: {source} would have {size[0]}x{size[1]} pixels; expected fewer")
        images.check_encodable(size, images.format_of(output))
        made = self.paint(images.resize(picture, size).opaque(), str(source))
        images.save(output, Picture(made), self._text(digest))
        return Made(size, note, 0, time.perf_counter() - start)

    def _half(self, size, source):
        """Which half of it goes in, or none."""
        pairs, way = self.config.pairs, self._direction()
        if pairs == "no" or (pairs == "auto" and (size[0] != 2 * size[1] or not isinstance(self.net.spec, UnetSpec))):
            return ""
        if size[0] % 2:
            raise InputError(f"--pairs=yes: {source} is {size[0]} pixels wide; expected an A|B picture, of even width")
        return way[0]

    def _direction(self):
        """Pix2pix knows its own; of a CycleGAN it is in the file, too."""
        record = self.net.record
        flags = record.get("flags")
        found = record.get("direction") or (flags.get("direction") if isinstance(flags, dict) else None)
        return found if found in ("AtoB", "BtoA") else self.config.direction

    def _text(self, digest):
        network = {"name": Path(self.net.path).stem, "sha256": self.net.sha256}
        return json.dumps({"jnst": __version__, **self.facts, "network": network, "input": digest}, sort_keys=True)


def half_of(rgb: np.ndarray, half: str) -> np.ndarray:
    """`A`, the left half of a picture `[H, W, 3]`, or `B`, the right one.

    >>> half_of(np.arange(4.0)[None, :, None], "B").ravel().tolist()
    [2.0, 3.0]
    """
    middle = rgb.shape[1] // 2
    return rgb[:, :middle] if half == "A" else rgb[:, middle:]
