"""OUTPUT's stem + `.ckpt`, a folder: the checkpoints of a network's training, by orbax, each whole or not there.

Two are kept. Each holds the leaves of the training's state, and JSON with the flags, the hashes of what was read, the
trace, step and seconds.
"""

import contextlib
import logging
import os
import shutil
from pathlib import Path

import numpy as np

from jnst.cli import checkpoint
from jnst.errors import InputError
from jnst.types import Snapshot

__all__ = ["Checkpoints", "is_ours"]

_NAMES = {"state", "facts"}


def is_ours(path: Path) -> bool:
    """Whether a folder holds nothing but checkpoints, so that another training may replace it; an empty one does."""
    return path.is_dir() and all(entry.is_dir() and _is_step(entry) for entry in path.iterdir())


def _is_step(entry):
    # A killed run leaves a step under a temporary name.
    return entry.name.partition(".")[0].isdecimal()


class Checkpoints:
    """Those of one output."""

    def __init__(self, output: str):
        self.path = checkpoint.path_of(output).absolute()
        self._aside = self.path.with_name(f".{self.path.name}.before")
        self._manager = None
        self._replaced = False
        # Its warnings and tracebacks are of what `write` and `read` say in a line.
        logging.getLogger("absl").setLevel(logging.CRITICAL)

    def write(self, snapshot: Snapshot, facts: dict[str, object]) -> None:
        """Writes one; the first that is written without `read` before it takes the place of another training's.

        Raises:
            InputError: it cannot be written; those before are as they were.
        """
        from orbax import checkpoint as orbax  # late: it takes a second

        leaves = {f"leaf{index:03}": np.asarray(leaf) for index, leaf in enumerate(snapshot.leaves)}
        try:
            if not self._replaced and self.path.exists():
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(self._aside)
                os.replace(self.path, self._aside)
            self._manager = self._manager or self._opened()
            self._manager.save(
                facts["step"],
                args=orbax.args.Composite(
                    state=orbax.args.StandardSave(leaves),
                    facts=orbax.args.JsonSave({**facts, "trace": snapshot.trace}),
                ),
                force=True,
            )
            self._manager.wait_until_finished()
            self._replaced = True
            shutil.rmtree(self._aside, ignore_errors=True)
        except (OSError, ValueError) as error:  # tensorstore's errors of a full disk are ValueErrors
            self.close()
            self._restore()
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.path}: cannot be written: {reason}") from error

    def _restore(self):
        """Takes away what a failed writing left; another training's checkpoints come back."""
        with contextlib.suppress(OSError):
            for left in self.path.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)
            if self._aside.exists():
                shutil.rmtree(self.path, ignore_errors=True)
                os.replace(self._aside, self.path)

    def read(self) -> checkpoint.Checkpoint | None:
        """The last one, or None where there is none; a training goes on from it.

        Raises:
            InputError: it is damaged.
        """
        if not self.path.is_dir():
            return None
        from orbax import checkpoint as orbax

        try:
            self._manager = self._opened()
            step = self._manager.latest_step()
            if step is None:
                return None
            self._replaced = True
            found = self._manager.restore(
                step,
                args=orbax.args.Composite(state=orbax.args.StandardRestore(), facts=orbax.args.JsonRestore()),
            )
            leaves = [np.asarray(found["state"][name]) for name in sorted(found["state"])]
            facts = dict(found["facts"])
            return checkpoint.Checkpoint(Snapshot(leaves, facts.pop("trace")), facts)
        except Exception as error:  # orbax and tensorstore raise anything on damaged files
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.path}: not a whole checkpoint ({reason}); without --resume the training starts anew"
            ) from error

    def step_of_another(self) -> int | None:
        """The last step of what lies there, whosever it is."""
        if not self.path.is_dir():
            return None
        return max((int(entry.name) for entry in self.path.iterdir() if entry.name.isdecimal()), default=None)

    def close(self) -> None:
        """Ends orbax's threads."""
        if self._manager is not None:
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = None

    def _opened(self):
        from orbax import checkpoint as orbax

        # Without threads of its own: a checkpoint is written when `write` returns.
        options = orbax.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        return orbax.CheckpointManager(self.path, options=options)
