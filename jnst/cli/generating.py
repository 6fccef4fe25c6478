"""`dcgan train`'s work: pictures from noise."""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jnst import distances, games, images, network, train, weights
from jnst.cli import download, plan
from jnst.cli.gan_work import Work, finite
from jnst.cli.lines import say
from jnst.config import DcganConfig, gan_runs
from jnst.images import Picture
from jnst.tasks import dcgan
from jnst.types import Rates, Snapshot
from jnst.weights import generators

__all__ = ["Generating", "grid_of"]

_KEY = 0  # of all trainings: networks differ in what is folded into it
_SHEET, _SCORE = 2**32 - 2, 2**32 - 3  # what it is folded with for noise that is looked at
_ROW = 8  # samples of a sheet across and down
_LAYER, _POOLING = "relu4_1", "avg"
_STANDARDIZED_ON = 8  # pictures that random filters are scaled on


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
    accuracies = ("real", "fake")

    def __init__(self, config: DcganConfig):
        """`config` has been checked."""
        self.axes, self.runs = gan_runs(config)
        texts = [(axis.flag, plan.labels(axis)) for axis in self.axes]
        if config.seeds > 1:
            texts.append(("seed", tuple(str(config.seed + place) for place in range(config.seeds))))
        self.texts = texts
        chosen = itertools.product(*(values for _, values in texts))
        named = [",".join(f"{flag}={value}" for (flag, _), value in zip(texts, each, strict=True)) for each in chosen]
        super().__init__(config, [plan.file_name(name) for name in named])

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
            self.judge = weights.load(config.weights, [_LAYER], source=config.source, progress=download.Bar)
            self.judge.require("weights", [_LAYER])
            inputs["weights"] = self.judge.sha256
        epochs = f"{self.steps / self.an_epoch:.4g}"
        say(f"networks: {len(self.runs)}  size: {config.size}  width: {config.width}  devices: {self.mesh.size}")
        say(f"steps: {self.steps}, {self.an_epoch} an epoch: {epochs} epochs")
        return inputs

    def prepare(self, snapshot: Snapshot | None) -> games.Prepared:
        """See `games.prepare`."""
        return games.prepare(
            self._key(), [_choice(run) for run in self.runs], self.spec, mesh=self.mesh, snapshot=snapshot
        )

    def train(self, prepared: games.Prepared, callback: Callable[[games.Record], bool]) -> games.Result:
        """See `games.run`. A batch is taken out of memory, which no thread need do ahead of its time."""
        return games.run(
            self._key(),
            prepared,
            self._batch,
            an_epoch=self.an_epoch,
            print_every=self.config.print_every,
            callback=callback,
        )

    def trouble(self, trace: Sequence[Mapping[str, float]], net: int) -> str:
        """See `games.trouble`."""
        return games.trouble(trace, net)

    def sheet(self, variables: Sequence[Mapping[str, object]]) -> Picture:
        """Samples of the same noise always; of several networks a tile each, with what they differ in beside it."""
        z = np.asarray(dcgan.noise(self._key(_SHEET), _ROW**2, self.spec.net))
        scale = 1 if self.config.size > 32 or len(variables) > 4 else 2
        tiles = [
            grid_of(dcgan.sample(found, z, self.spec.net), scale=scale, columns=_ROW) if finite(found) else "diverged"
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
        held_out, real = (_some(pictures, count) for pictures in (self.data.held_out, self.data.train))
        judge = network.network(
            self.judge.params,
            [jnp.asarray(picture, jnp.float32) / 255 for picture in real[:_STANDARDIZED_ON]],
            [_LAYER],
            pooling=_POOLING,
            padding=self.judge.padding,
            standardize=self.judge.standardize,
        )
        seen = lambda pictures: dcgan.features(  # noqa: E731
            judge, pictures, _LAYER, pooling=_POOLING, padding=self.judge.padding
        )
        name, target = Path(self.judge.name).stem, seen(held_out)
        z = np.asarray(dcgan.noise(self._key(_SCORE), count, self.spec.net))
        best = _apart(seen(real), target, name)
        found = {}
        say(f"distances to {count} held-out pictures, by {_LAYER} of {name} (which is not FID)")
        say(f"  training pictures: {_said(best)}")
        for label, each in zip(self.labels, variables, strict=True):
            if finite(each):
                found[label or self.command] = own = _apart(seen(dcgan.sample(each, z, self.spec.net)), target, name)
                say(f"  {label or 'samples'}: {_said(own)}")
        judge = {"name": name, "sha256": self.judge.sha256, "layer": _LAYER, "pooling": _POOLING}
        return {"network": judge, "pictures": count, "training_pictures": best, "networks": found}

    def save(self, net: int, variables: Mapping[str, object], record: Mapping[str, object]) -> None:
        """The generator."""
        run = self.runs[net]
        own = {"seed": run.seed, "learning_rate": run.learning_rate, "beta1": run.beta1}
        own["discriminator_learning_rate"] = run.discriminator_learning_rate
        given = {**record["flags"], **own, "seeds": 1, "axis": []}
        generators.save(self.written(net)[0], variables, spec=self.spec.net, record={**record, "flags": given})

    def facts(self) -> dict[str, object]:
        """What the pictures were."""
        sizes = {"train": len(self.data.train), "held_out": len(self.data.held_out)}
        return {"data": {"kind": self.data.kind, **sizes, "files": len(self.data.files)}}

    def _key(self, number=None):
        key = jax.random.key(_KEY)
        return key if number is None else jax.random.fold_in(key, np.uint32(number))

    def _batch(self, step):
        mirrored = self.batches.mirrored(step) if self.config.flips else None
        return self.data.batch(self.batches.indices(step), mirrored)


def _choice(run):
    rates = Rates(jnp.float32(run.learning_rate), beta1=jnp.float32(run.beta1))
    other = jnp.float32(run.discriminator_learning_rate or run.learning_rate)
    return games.Choice(jnp.uint32(run.seed), rates, rates._replace(learning_rate=other))


def _sha256(data):
    """Of all pixels, and of how they are divided."""
    digest = hashlib.sha256(repr((data.train.shape, data.held_out.shape)).encode())
    for pictures in (data.train, data.held_out):
        digest.update(np.ascontiguousarray(pictures))
    return digest.hexdigest()


def _some(pictures, count):
    """So many from all over: files lie by classes."""
    return pictures[np.sort(np.random.default_rng(0).permutation(len(pictures))[:count])]


def _apart(features, target, name):
    near = distances.kernel(features, target)
    found = {
        f"frechet_{name}": distances.frechet(features, target),
        f"kernel_{name}": near["distance"],
        f"kernel_{name}_error": near["error"],
    }
    return {key: float(f"{value:.5g}") for key, value in found.items() if np.isfinite(value)}


def _said(found):
    return "  ".join(f"{name} {value:.4g}" for name, value in found.items())
