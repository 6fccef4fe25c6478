"""The work of `pix2pix train` and of `cyclegan train`: pictures from pictures."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jnst import comparisons, games, images, train
from jnst.cli.gan_scores import Judge
from jnst.cli.gan_work import Work, finite
from jnst.cli.lines import say
from jnst.images import Picture
from jnst.tasks import cyclegan, pix2pix
from jnst.weights import generators

__all__ = ["Cycling", "Pairing", "compared", "translated"]

_NOISE = 2**32 - 4  # number of the key for what is looked at
_ORDER = 0  # seed of the pictures' order, the same for all networks
_ROWS = 6  # of a sheet: pictures that are held out
_MEASURED = 100  # pairs that are compared at the end
_AT_ONCE = 4  # pictures that a network translates together


def translated(translate: Callable[[np.ndarray], jax.Array], pictures: Sequence[np.ndarray]) -> np.ndarray:
    """What is made of pictures in bytes, all of one size, a few at a time: `[N, S, S, 3]` in [0, 1].

    >>> translated(lambda images: 1 - images, [np.zeros((2, 2, 3), np.uint8)] * 5).mean()
    np.float32(1.0)
    """
    rows = [np.stack(pictures[at : at + _AT_ONCE]) for at in range(0, len(pictures), _AT_ONCE)]
    return np.concatenate([np.asarray(translate(row.astype(np.float32) / 255)) for row in rows])


def compared(made: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    """How near pictures are to what they should be, both `[N, H, W, 3]` in [0, 1]: by pixel, by structure, by color."""
    l1 = float(np.mean([comparisons.l1(*pair) for pair in zip(made, truth, strict=True)]))
    ssim = float(np.mean([comparisons.ssim(*pair) for pair in zip(made, truth, strict=True)]))
    shares = comparisons.histogram_intersection(made, truth)
    rounded = {"l1": l1, "ssim": ssim, **{f"histogram_{name}": float(shares[name]) for name in "Lab"}}
    return {name: float(f"{value:.5g}") for name, value in rounded.items()}


class _Translating(Work):
    """What both have in common."""

    def _begin(self, data, game, devices):
        config, self.data = self.config, data
        self.an_epoch = data.an_epoch
        self.steps = config.updates(self.an_epoch)
        self.mesh = train.spread_over(devices, len(self.runs), config.batch)
        generator, discriminator = config.training(self.steps)
        self.spec = games.Spec(game=game, generator=generator, discriminator=discriminator, together=config.together)
        self.terms = game.terms
        say("pictures: " + ", ".join(f"{name} {count}" for name, count in data.counts.items()))
        epochs = f"{self.steps / self.an_epoch:.4g}"
        net = f"size: {config.size}  width: {config.width}  normalization: {config.normalization}"
        say(f"networks: {len(self.runs)}  {net}  devices: {self.mesh.size}")
        say(f"steps: {self.steps}, {self.an_epoch} an epoch: {epochs} epochs")

    def is_own(self, path: Path) -> bool:
        """Whether it says so."""
        return generators.is_generator(path)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What goes in and what should come out, or a picture of each kind."""
        return self.data.batch(step)

    def train(self, prepared: games.Prepared, callback: Callable[[games.Record], bool]) -> games.Result:
        """Threads cut the next pictures, or read them, meanwhile."""
        every, begun = self.config.print_every, self.batch
        with images.Ahead(begun, stop=self.steps) as source:
            return games.run(self.key(), prepared, source, an_epoch=self.an_epoch, print_every=every, callback=callback)

    def facts(self) -> dict[str, object]:
        """What the pictures were."""
        return {"data": self.data.counts}

    def _page(self, tiles):
        """Of several networks a tile each; of one its own."""
        if len(tiles) > 1:
            return Picture(images.labelled_sheet(self.texts, tiles, tile=3 * self.config.size + 32))
        return Picture(np.full((64, 64, 3), 0.9, np.float32) if isinstance(tiles[0], str) else tiles[0])


class Pairing(_Translating):
    """Pix2pix; see `gan_work.Work`."""

    command = "pix2pix"

    def written(self, net: int) -> list[Path]:
        """The generator's file."""
        return [self.folder(net) / "generator.safetensors"]

    def read(self, devices: Sequence[jax.Device], warn: Callable[[str], None]) -> dict[str, str]:
        """Pairs."""
        config = self.config
        say(f"data: reading {config.data}")
        data = images.Pairs(
            config.data,
            size=config.size,
            batch=config.batch,
            seed=_ORDER,
            jitter=config.jitter,
            flips=config.flips,
            warn=warn,
        )
        channels = 6 if config.loss in ("cgan", "l1+cgan") else 3
        game = pix2pix.Game(
            net=config.net,
            judge=config.judge(channels),
            objective=config.loss,
            kind=config.adversarial,
            l1_weight=config.l1_weight,
        )
        self.accuracies = self.accuracies if game.plays else ()
        self._begin(data, game, devices)
        say(f"direction: {config.direction}  loss: {config.loss}  patches: {config.patch if game.plays else 'none'}")
        return {"data": data.sha256}

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What goes in, and what should come out."""
        return self._directed(self.data.batch(step))

    def _directed(self, pair):
        return pair if self.config.direction == "AtoB" else pair[::-1]

    @functools.cached_property
    def _held_out(self):
        pairs = [self._directed(pair) for pair in self.data.held_out(_MEASURED)]
        return tuple(np.stack(each) for each in zip(*pairs, strict=True))

    def _made(self, variables, given):
        translate = lambda rows: pix2pix.translate(self.key(_NOISE), variables, rows, self.config.net)  # noqa: E731
        return translated(translate, given)

    def sheet(self, variables: Sequence[Mapping[str, object]]) -> Picture:
        """A row for each of some pairs that are held out: what goes in, what comes out, what should."""
        given, truth = (each[:_ROWS] for each in self._held_out)
        tiles = []
        for found in variables:
            if not finite(found):
                tiles.append("diverged")
                continue
            rows = zip(given / 255, self._made(found, given), truth / 255, strict=True)
            tiles.append(images.contact_sheet([tile for row in rows for tile in row], gap=4, columns=3))
        return self._page(tiles)

    def scores(self, variables: Sequence[Mapping[str, object]]) -> dict[str, object]:
        """Of pairs that are held out, by `compared`."""
        given, truth = self._held_out
        found = {}
        say(f"compared with {len(truth)} held-out pictures")
        for label, each in zip(self.labels, variables, strict=True):
            if finite(each):
                found[label or self.command] = own = compared(self._made(each, given), truth / np.float32(255))
                say(f"  {label or 'pictures'}: " + "  ".join(f"{name} {value:.4g}" for name, value in own.items()))
        return {"pictures": len(truth), "networks": found}

    def save(self, net: int, variables: Mapping[str, object], record: Mapping[str, object]) -> None:
        """The generator."""
        generators.save(self.written(net)[0], variables, spec=self.config.net, record=record)


class Cycling(_Translating):
    """CycleGANs; see `gan_work.Work`."""

    command = "cyclegan"

    @property
    def folders(self) -> dict[str, str]:
        """Two."""
        return {"a": self.config.a, "b": self.config.b}

    def written(self, net: int) -> list[Path]:
        """Both generators' files."""
        return [self.folder(net) / f"{way}.safetensors" for way in ("AtoB", "BtoA")]

    def read(self, devices: Sequence[jax.Device], warn: Callable[[str], None]) -> dict[str, str]:
        """Pictures of both kinds, and the network that they are compared by."""
        config = self.config
        say(f"data: reading {config.a} and {config.b}")
        data = images.Unpaired(
            config.a,
            config.b,
            size=config.size,
            batch=config.batch,
            seed=_ORDER,
            jitter=config.jitter,
            flips=config.flips,
            warn=warn,
        )
        game = cyclegan.Game(
            net=config.net,
            judge=config.judge(3),
            size=config.size,
            kind=config.adversarial,
            cycle_weight=config.cycle_weight,
            identity_weight=config.identity_weight,
            pool=config.pool,
        )
        self._begin(data, game, devices)
        inputs = {"a": data.sha256, "b": data.sha256}
        self.judge = None
        if config.distance_pictures:
            self.judge = Judge(config.weights, config.source)
            inputs["weights"] = self.judge.sha256
        return inputs

    def _made(self, variables, way, given):
        return translated(lambda rows: cyclegan.translate(variables[way], rows, self.config.net), given)

    def sheet(self, variables: Sequence[Mapping[str, object]]) -> Picture:
        """A row for each of some pictures that are held out: itself, what is made of it, and that made back; those of
        A, then those of B."""
        held_out = [pictures[: _ROWS // 2] for pictures in self.data.held_out(_ROWS // 2)]
        tiles = []
        for found in variables:
            if not finite(found):
                tiles.append("diverged")
                continue
            shown = []
            for given, there, back in ((held_out[0], "AtoB", "BtoA"), (held_out[1], "BtoA", "AtoB")):
                made = self._made(found, there, given)
                returned = self._made(found, back, list(np.rint(255 * made).astype(np.uint8)))
                rows = zip((picture / 255 for picture in given), made, returned, strict=True)
                shown += [tile for row in rows for tile in row]
            tiles.append(images.contact_sheet(shown, gap=4, columns=3))
        return self._page(tiles)

    def scores(self, variables: Sequence[Mapping[str, object]]) -> dict[str, object]:
        """Of what is made of held-out pictures of the one kind: distances to held-out ones of the other."""
        if self.judge is None:
            return {}
        held_out = dict(zip("AB", self.data.held_out(self.config.distance_pictures), strict=True))
        found = {}
        for of, to, way in (("A", "B", "AtoB"), ("B", "A", "BtoA")):
            if min(map(len, held_out.values())) < 2:
                say("distances: not measured: expected at least two pictures of each kind held out")
                return {}
            target = np.stack(held_out[to])
            # What nothing was done to is as far as it gets.
            made = {"untouched": lambda of=of: np.stack(held_out[of]) / np.float32(255)}
            for label, each in zip(self.labels, variables, strict=True):
                if finite(each):
                    made[label or self.command] = functools.partial(self._made, each, way, held_out[of])
            found[way] = self.judge.compare(self._real(to, len(target)), target, made, of=to)
        return found

    def _real(self, kind, count):
        """Pictures that are trained on, as they are cut in the first steps."""
        rows, step = [], 0
        while sum(map(len, rows)) < count:
            rows.append(self.data.batch(step)["AB".index(kind)])
            step += 1
        return np.concatenate(rows)[:count]

    def save(self, net: int, variables: Mapping[str, object], record: Mapping[str, object]) -> None:
        """Both generators."""
        for path in self.written(net):
            spec = self.config.net
            generators.save(path, variables[path.stem], spec=spec, record={**record, "direction": path.stem})
