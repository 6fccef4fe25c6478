"""What one kind of generative network makes of a training; what surrounds every one is in `gan_training`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import jax
import numpy as np

from jnst.images import Picture
from jnst.images.curves import Panel
from jnst.types import Snapshot

__all__ = ["Config", "Outcome", "Record", "Work", "finite"]


class Config(Protocol):
    """The flags that every training has."""

    data: str
    output: str
    device: str
    schedule: str
    print_every: int
    sample_every: int
    checkpoint_every: int


class Record(Protocol):
    """What a callback sees after a step; see `games.Record`."""

    step: int
    steps: int
    terms: Callable[[], list[dict[str, float]]]
    trace: list[dict[str, float]]
    variables: Callable[[], list[dict[str, object]]]
    snapshot: Callable[[], Snapshot]


class Outcome(Protocol):
    """What a training leaves; see `games.Result`."""

    variables: list[dict[str, object]]
    trace: list[dict[str, float]]
    stopped: bool
    step: int


class Work:
    """One kind of network's training; subclasses fill it in. `read` comes first, then `prepare`, then `train`."""

    command: ClassVar[str] = ""
    """The command's name."""
    terms: ClassVar[tuple[str, ...]] = ()
    """Of the trace: losses, and then accuracies."""
    accuracies: ClassVar[tuple[str, ...]] = ()
    """Those of the terms that are shares."""
    steps = 0
    """Updates that are asked for; known after `read`."""
    an_epoch = 0
    """Updates in an epoch; known after `read`."""

    def __init__(self, config: Config, labels: Sequence[str]):
        """`labels`: what each of several networks is called; of one, `("",)`."""
        self.config, self.labels = config, tuple(labels)

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

    def prepare(self, snapshot: Snapshot | None) -> object:
        """The training before its next step; a ValueError where the snapshot is of another one."""
        raise NotImplementedError

    def train(self, prepared: object, callback: Callable[[Record], bool]) -> Outcome:
        """All of its steps, or those up to where the callback answers true."""
        raise NotImplementedError

    def trouble(self, trace: Sequence[Mapping[str, float]], net: int) -> str:
        """What is wrong with a network's training so far, or nothing."""
        return ""

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

    def panels(self, rows: Sequence[Mapping[str, float]]) -> list[Panel]:
        """The curves of the rows: of one network all losses and all accuracies, of several a panel a term."""

        def line(name, term, net):
            own = [row for row in rows if row["net"] == net]
            return name, [row["step"] for row in own], [row[term] for row in own]

        losses = [term for term in self.terms if term not in self.accuracies]
        if len(self.labels) == 1:
            found = [Panel("losses", [line(term, term, 0) for term in losses])]
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


def finite(variables: Mapping[str, object]) -> bool:
    """Whether all of a network's numbers are finite."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
