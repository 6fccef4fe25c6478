"""Losses as TensorBoard's events, which the extra jnst[tensorboard] writes."""

import contextlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jnst.errors import InputError

__all__ = ["Board"]

_FOLDER = "training.tensorboard"


class Board:
    """Events of a training, in `training.tensorboard` of its folder; of an earlier one they are removed, and those of
    steps that it comes to again count no more.

    Raises:
        InputError: the extra is missing.
    """

    def __init__(self, output: str):
        if importlib.util.find_spec("tensorboardX") is None:
            raise InputError(
                "--tensorboard: needs tensorboardX, of the extra jnst[tensorboard]: "
                f"{sys.executable} -m pip install tensorboardX"
            )
        self._folder, self._writer, self._written = Path(output) / _FOLDER, None, 0

    def add(self, rows: Sequence[Mapping[str, float]], labels: Sequence[str], terms: Sequence[str], after: int) -> None:
        """Writes the rows of the trace that it has not written yet; those up to step `after` an earlier run did."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._folder.mkdir(parents=True, exist_ok=True)
            if not after:
                for path in self._folder.glob("events.out.tfevents.*"):
                    path.unlink()
            more = {"purge_step": after + 1} if after else {}
            self._writer = SummaryWriter(str(self._folder), **more)
        for row in rows[self._written :]:
            if row["step"] > after:
                for term in terms:
                    tag = "/".join(filter(None, (labels[row["net"]], term)))
                    self._writer.add_scalar(tag, row[term], row["step"])
        self._written = len(rows)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
