"""What every look of `explore` shares: backbone, descriptors, folders' indexes, and what is left beside an output."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import tqdm

from jnst import api, bundled, embedding_index, files, images, memory, weights
from jnst.cli import checkpoint, download, flags, report
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import bar_shape, on_terminal, say, warn
from jnst.config import ExploreConfig, parse_layers
from jnst.embedding_index import Entry
from jnst.errors import InputError
from jnst.images import Picture
from jnst.nets import vgg
from jnst.tasks import explore as task
from jnst.version import __version__

__all__ = ["Look", "looking", "picture_path"]

_SQUARE = 96
"""Side of what descriptors are made of: of 64, 96 and 128, with the bundled weights, small pictures (CIFAR-10's 32x32)
agree best at 64 and crops of photos at 128."""

_NEEDED = {"filters": ("conv1_1",), "activations": ("relu3_1",)}

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} pictures {remaining} left"


@contextlib.contextmanager
def looking(config: ExploreConfig, interrupt: Interrupt, pictures: Sequence[str]) -> Iterator["Look"]:
    """A look on its device, alone with its output.

    Raises:
        InputError: no such device, too little memory, or another run is writing OUTPUT.
    """
    device = api.device_of(config.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_device(device))
        if config.output:
            stack.enter_context(checkpoint.alone(config.output))
        try:
            yield Look(config, interrupt, tuple(pictures), device)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not memory.is_out_of_memory(error):
                raise
            raise InputError(f"--size={config.size}: needs more memory than there is; expected less") from error


def picture_path(name: str) -> Path:
    """The file that a picture's name means.

    Raises:
        InputError: there is none, or it is a folder.
    """
    if os.path.isdir(name):
        raise InputError(f"{name}: is a folder; expected a picture")
    path = bundled.find(name, "examples", ("", ".jpg", ".png"))
    if path is None:
        raise InputError(f"{name}: no such file")
    return path


class Look:
    """What the parts of one look share."""

    def __init__(
        self, config: ExploreConfig, interrupt: Interrupt, pictures: tuple[str, ...], device: jax.Device
    ) -> None:
        self.config, self.pictures = config, pictures
        self._interrupt, self._device = interrupt, device
        self._inputs = {}
        names = parse_layers("layers", config.layers)[0] if config.layers else ()
        needed = names or _NEEDED.get(config.look, ())  # of random filters no more are made
        self.backbone = weights.load(config.weights, needed, source=config.source, progress=download.Bar)
        self.backbone.require("layers", names)
        self._names = names

    def layers(self, default: str = "") -> tuple[str, ...]:
        """Those that are asked for, else `default` where the weights have it, else their last one."""
        last = "relu" + self.backbone.convolutions[-1][4:]
        has_default = default and "conv" + default[4:] in self.backbone.convolutions
        return self._names or (default if has_default else last,)

    @property
    def side(self) -> int:
        """Of the square that descriptors are made of."""
        return self.config.size or _SQUARE

    def check_size(self, short: int, what: str, layers: Sequence[str]) -> None:
        """Raises `InputError` where a picture's short side leaves a layer no feature map."""
        least = vgg.min_size(layers, self.backbone.padding)
        if short < least:
            raise InputError(f"{what}: {short} pixels are too few for {layers[-1]}; expected at least {least}")

    def load(self, name: str) -> Picture:
        """A picture that is named by itself."""
        path = picture_path(name)
        picture = images.load(path)
        if picture.note:
            say(picture.note)
        self._inputs[name] = files.sha256_of(path)
        return picture

    def describe(self, name: str) -> Entry:
        """The descriptor of a picture that is named by itself, as an index would have it."""
        self.check_size(self.side, f"--size={self.side}", self.layers())
        path = picture_path(name)
        seen, small, note = embedding_index.look(path, self.side)
        if note:
            say(note)
        block = np.zeros((embedding_index.BATCH, self.side, self.side, 3), np.float32)
        block[0] = seen
        self._inputs[name] = files.sha256_of(path)
        return Entry(0, 0, self._inputs[name], np.array(self._describe(block)[0]), small)

    def _describe(self, block):
        return np.asarray(
            task.describe(
                self.backbone.params,
                block,
                self.layers(),
                pooling=self.config.pooling,
                padding=self.backbone.padding,
            )
        )

    def index(self, folder: str, flag: str = "pictures") -> dict[str, Entry]:
        """Every picture of a folder with its descriptor, by its place in the folder.

        Raises:
            InputError: no such folder, no picture in it, or none that can be read.
            KeyboardInterrupt: Ctrl-C, after what was described by then is kept.
        """
        self.check_size(self.side, f"--size={self.side}", self.layers())
        facts = {
            "weights": self.backbone.sha256,
            "layers": self.layers(),
            "pooling": self.config.pooling,
            "padding": self.backbone.padding,
            "platform": self._device.platform,
        }
        bar = _Bar(folder)
        self._interrupt.begin()

        def progress(done, total):
            bar.show(done, total)
            return self._interrupt.seen

        try:
            found = embedding_index.update(
                folder, facts, self._describe, side=self.side, flag=flag, warn=bar.warn, progress=progress
            )
        finally:
            bar.close()
            self._interrupt.running = False
        if found.stopped:
            self._interrupt.remains = (
                f"; {found.described} pictures of {folder} that were described are kept: the same command goes on"
            )
            raise KeyboardInterrupt
        say(f"{folder}: {len(found.entries)} pictures, {found.described} of them new or changed")
        names = "".join(f"{name} {entry.sha256}\n" for name, entry in found.entries.items())
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        self._inputs[folder] = {"pictures": len(found.entries), "sha256": digest}
        return found.entries

    def check_output(self) -> None:
        """Makes OUTPUT's folder and tries to write there, before anything that takes long."""
        if self.config.output:
            output = self.config.output
            for path in (output, report.record_path(output), report.flags_path(output)):
                files.check_writable(path)

    def leave(self, rgb: np.ndarray, results: dict[str, object]) -> None:
        """Writes OUTPUT, where there is one, with its record and its flagfile."""
        output = self.config.output
        if not output:
            return
        chosen = flags.resolved(self.config)
        backbone = {"name": self.backbone.name, "sha256": self.backbone.sha256}
        self._interrupt.finish()
        images.save(output, Picture(rgb), report.embedded(chosen, backbone))
        report.write_flags(output, chosen)
        record = {
            "version": __version__,
            "command": "explore",
            "look": self.config.look,
            "device": f"{self._device.platform} ({self._device.device_kind})",
            "weights": backbone,
            "inputs": self._inputs,
            "flags": chosen,
            "size": [rgb.shape[1], rgb.shape[0]],
            "results": results,
        }
        report.write_record(output, record)
        say(f"{output}: written")


class _Bar:
    """How far a folder is: a bar on a terminal, a line at each tenth in a log."""

    def __init__(self, folder):
        self._folder, self._bar, self._told, self._start = folder, None, 0, time.monotonic()

    def show(self, done, total):
        if done == 0:
            say(f"{self._folder}: {total} pictures to look at")
            if on_terminal():
                self._bar = tqdm.tqdm(total=total, bar_format=_BAR, **bar_shape())
        elif self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif 10 * done // total > self._told and total > 10 * embedding_index.BATCH:
            self._told = 10 * done // total
            left = (time.monotonic() - self._start) * (total - done) / done
            say(f"  {done} of {total} pictures, {left:.0f} s left")

    def warn(self, line):
        if self._bar is not None:
            self._bar.clear()
        warn(line)

    def close(self):
        if self._bar is not None:
            self._bar.close()
