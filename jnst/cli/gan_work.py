"""What one kind of generative network makes of a training; what surrounds every one is in `gan_training`."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jnst import games
from jnst.cli import plan
from jnst.config import GanConfig, gan_runs
from jnst.images import Picture
from jnst.images.curves import Panel
from jnst.types import Rates, Snapshot

__all__ = ["Work", "finite"]

_KEY = 0  # of all trainings: networks differ in what is folded into it


class Work:
    """One kind of network's training; subclasses fill it in. `read` comes first, then `prepare`, then `train`.

    What `read` leaves: `steps`, `an_epoch`, and what the game is, `spec` and `mesh`.
    """

    command: ClassVar[str] = ""
    """The command's name."""
    terms: tuple[str, ...] = ()
    """Of the trace: losses, and then accuracies."""
    accuracies: tuple[str, ...] = ("real", "fake")
    """Those of the terms that are shares."""
    steps = 0
    """Updates that are asked for; known after `read`."""
    an_epoch = 0
    """Updates in an epoch; known after `read`."""
    spec: games.Spec
    mesh: Mesh

    def __init__(self, config: GanConfig):
        """`config` has been checked."""
        self.config = config
        axes, self.runs = gan_runs(config)
        texts = [(axis.flag, plan.labels(axis)) for axis in axes]
        if config.seeds > 1:
            texts.append(("seed", tuple(str(config.seed + place) for place in range(config.seeds))))
        self.texts = texts
        """What several networks differ in, flag by flag, for sheets."""
        chosen = itertools.product(*(values for _, values in texts))
        named = [",".join(f"{flag}={value}" for (flag, _), value in zip(texts, each, strict=True)) for each in chosen]
        self.labels = tuple(plan.file_name(name) for name in named)
        """What each of several networks is called; of one, nothing."""

    @property
    def folders(self) -> dict[str, str]:
        """The folders of pictures that are trained on, by flag."""
        return {"data": self.config.data}

    def folder(self, net: int) -> Path:
        """Where a network's files lie: of one in OUTPUT, of several in a folder each."""
        return Path(self.config.output) / self.labels[net]

    def written(self, net: int) -> list[Path]:
        """The files of a network."""
        raise NotImplementedError

    def is_own(self, path: Path) -> bool:
        """Whether one of those that is there was written by this command."""
        raise NotImplementedError

    def read(self, devices: Sequence[jax.Device], warn: Callable[[str], None]) -> dict[str, str]:
        """Reads what the training needs, says what it is, and returns hashes of it by flag."""
        raise NotImplementedError

    def batch(self, step: int) -> object:
        """What is trained on in a step, see `games.run`."""
        raise NotImplementedError

    def key(self, number: int | None = None) -> jax.Array:
        """The training's, or one of its own for a number."""
        key = jax.random.key(_KEY)
        return key if number is None else jax.random.fold_in(key, np.uint32(number))

    def prepare(self, snapshot: Snapshot | None) -> games.Prepared:
        """The training before its next step; a ValueError where the snapshot is of another one."""
        return games.prepare(
            self.key(), [_choice(run) for run in self.runs], self.spec, mesh=self.mesh, snapshot=snapshot
        )

    def train(self, prepared: games.Prepared, callback: Callable[[games.Record], bool]) -> games.Result:
        """All of its steps, or those up to where the callback answers true."""
        every = self.config.print_every
        return games.run(self.key(), prepared, self.batch, an_epoch=self.an_epoch, print_every=every, callback=callback)

    def trouble(self, trace: Sequence[Mapping[str, float]], net: int) -> str:
        """What is wrong with a network's training so far, or nothing."""
        return games.trouble(trace, net, accuracies=self.accuracies)

    def sheet(self, variables: Sequence[Mapping[str, object]]) -> Picture:
        """What the networks make, always of the same."""
        raise NotImplementedError

    def scores(self, variables: Sequence[Mapping[str, object]]) -> dict[str, object]:
        """How good that is, and says it; empty where it is not measured."""
        return {}

    def save(self, net: int, variables: Mapping[str, object], record: Mapping[str, object]) -> None:
        """Writes `written(net)`; `record` is what the files say of the training."""
        raise NotImplementedError

    def facts(self) -> dict[str, object]:
        """What the record has beside what every record has."""
        return {}

    def own_flags(self, net: int) -> dict[str, object]:
        """What the flags were of one of several networks, where they are not those of all."""
        run = self.runs[net]
        own = {"seed": run.seed, "learning_rate": run.learning_rate, "beta1": run.beta1}
        own["discriminator_learning_rate"] = run.discriminator_learning_rate
        return {**own, "seeds": 1, "axis": []}

    def panels(self, rows: Sequence[Mapping[str, float]]) -> list[Panel]:
        """The curves of the rows: of one network losses of one size and all accuracies, of several a panel a term."""

        def line(name, term, net):
            own = [row for row in rows if row["net"] == net]
            return name, [row["step"] for row in own], [row[term] for row in own]

        losses = [term for term in self.terms if term not in self.accuracies]
        if len(self.labels) == 1:
            # Of a generator whose loss holds others, times weights such as 100: together they would lie on the axis.
            apart = not {"generator", "discriminator"}.issuperset(losses)
            groups = {"the generator's loss": losses[:1], "other losses": losses[1:]} if apart else {"losses": losses}
            found = [Panel(title, [line(term, term, 0) for term in terms]) for title, terms in groups.items()]
            shares = [line(term, term, 0) for term in self.accuracies]
            return found + ([Panel("accuracies of the discriminator", shares, (0.0, 1.0))] if shares else [])
        return [
            Panel(
                term if term in losses else f"accuracy, {term}",
                [line(label, term, net) for net, label in enumerate(self.labels)],
                None if term in losses else (0.0, 1.0),
            )
            for term in self.terms
        ]


def _choice(run):
    rates = Rates(jnp.float32(run.learning_rate), beta1=jnp.float32(run.beta1))
    other = jnp.float32(run.discriminator_learning_rate or run.learning_rate)
    return games.Choice(jnp.uint32(run.seed), rates, rates._replace(learning_rate=other))


def finite(variables: Mapping[str, object]) -> bool:
    """Whether all of a network's numbers are finite."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
