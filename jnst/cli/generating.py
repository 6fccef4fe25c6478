"""`dcgan train`'s work: pictures from noise."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jnst import games, images, train
from jnst.cli.gan_scores import Judge, some
from jnst.cli.gan_work import Work, finite
from jnst.cli.lines import say
from jnst.images import Picture
from jnst.tasks import dcgan
from jnst.weights import generators

__all__ = ["Generating", "grid_of"]

_SHEET, _SCORE = 2**32 - 2, 2**32 - 3  # numbers of the keys for noise that is looked at
_ROW = 8  # samples of a sheet across and down


def grid_of(pictures: np.ndarray, *, scale: int = 1, columns: int = 0) -> np.ndarray:
    """Pictures `[N, S, S, 3]` side by side, each pixel `scale` wide and high; `[H, W, 3]`.

    >>> grid_of(np.zeros((4, 8, 8, 3), np.float32), scale=2).shape
    (38, 38, 3)
    """
    larger = pictures.repeat(scale, 1).repeat(scale, 2)
    return images.contact_sheet(list(larger), gap=2, columns=columns)


class Generating(Work):
    """DCGANs; see `gan_work.Work`."""

    command = "dcgan"
    terms = dcgan.TERMS

    def written(self, net: int) -> list[Path]:
        """The generator's file."""
        return [self.folder(net) / "generator.safetensors"]

    def is_own(self, path: Path) -> bool:
        """Whether it says so."""
        return generators.is_generator(path)

    def read(self, devices: Sequence[jax.Device], warn: Callable[[str], None]) -> dict[str, str]:
        """Pictures, and the network that they are compared by."""
        config = self.config
        say(f"data: reading {config.data}")
        self.data = images.read_dataset(config.data, config.size, warn=warn)
        own = {field: len(getattr(self.data, field)) for field in ("train", "held_out")}
        say(f"pictures: {own['train']} to train on, {own['held_out']} held out")
        # Their order does not depend on a seed: networks of several seeds share each batch.
        self.batches = images.Batches(own["train"], 0, config.batch)
        self.an_epoch = self.batches.an_epoch
        self.steps = config.updates(self.an_epoch)
        self.mesh = train.spread_over(devices, len(self.runs), min(config.batch, own["train"]))
        generator, discriminator = config.training(self.steps)
        self.spec = games.Spec(
            game=dcgan.Game(net=config.net, kind=config.loss),
            generator=generator,
            discriminator=discriminator,
            together=config.together,
        )
        inputs = {"data": _sha256(self.data)}
        self.judge = None
        if config.distance_pictures:
            self.judge = Judge(config.weights, config.source)
            inputs["weights"] = self.judge.sha256
        epochs = f"{self.steps / self.an_epoch:.4g}"
        say(f"networks: {len(self.runs)}  size: {config.size}  width: {config.width}  devices: {self.mesh.size}")
        say(f"steps: {self.steps}, {self.an_epoch} an epoch: {epochs} epochs")
        return inputs

    def batch(self, step: int) -> np.ndarray:
        """Out of memory, which no thread need do ahead of its time."""
        mirrored = self.batches.mirrored(step) if self.config.flips else None
        return self.data.batch(self.batches.indices(step), mirrored)

    def sheet(self, variables: Sequence[Mapping[str, object]]) -> Picture:
        """Samples of the same noise always; of several networks a tile each, with what they differ in beside it."""
        z = np.asarray(dcgan.noise(self.key(_SHEET), _ROW**2, self.config.net))
        scale = 1 if self.config.size > 32 or len(variables) > 4 else 2
        tiles = [
            grid_of(dcgan.sample(found, z, self.config.net), scale=scale, columns=_ROW) if finite(found) else "diverged"
            for found in variables
        ]
        if len(tiles) > 1:
            return Picture(images.labelled_sheet(self.texts, tiles, tile=max(scale * self.config.size * 9, 256)))
        side = _ROW * (scale * self.config.size + 2) + 2
        return Picture(np.full((side, side, 3), 0.9, np.float32) if isinstance(tiles[0], str) else tiles[0])

    def scores(self, variables: Sequence[Mapping[str, object]]) -> dict[str, object]:
        """The Fréchet and the kernel distance to held-out pictures, named after the network that sees them."""
        count = min(self.config.distance_pictures, len(self.data.held_out), len(self.data.train))
        if self.judge is None or count < 2:
            if self.judge is not None:
                say(f"distances: not measured: {len(self.data.held_out)} picture held out")
            return {}
        held_out, real = (some(pictures, count) for pictures in (self.data.held_out, self.data.train))
        z = np.asarray(dcgan.noise(self.key(_SCORE), count, self.config.net))
        made = {
            label or "samples": functools.partial(dcgan.sample, each, z, self.config.net)
            for label, each in zip(self.labels, variables, strict=True)
            if finite(each)
        }
        found = self.judge.compare(real, held_out, made)
        networks = {self.command if name == "samples" else name: own for name, own in found["networks"].items()}
        return {**found, "networks": networks}

    def save(self, net: int, variables: Mapping[str, object], record: Mapping[str, object]) -> None:
        """The generator."""
        generators.save(self.written(net)[0], variables, spec=self.config.net, record=record)

    def facts(self) -> dict[str, object]:
        """What the pictures were."""
        sizes = {"train": len(self.data.train), "held_out": len(self.data.held_out)}
        return {"data": {"kind": self.data.kind, **sizes, "files": len(self.data.files)}}


def _sha256(data):
    """Of all pixels, and of how they are divided."""
    digest = hashlib.sha256(repr((data.train.shape, data.held_out.shape)).encode())
    for pictures in (data.train, data.held_out):
        digest.update(np.ascontiguousarray(pictures))
    return digest.hexdigest()
