"""OUTPUT's stem + `.ckpt`, a folder: the checkpoints of a network's training, by orbax, each whole or not there.

Two are kept. Each holds the leaves of the training's state, and JSON with the flags, the hashes of what was read, the
trace, step and seconds.
"""

import contextlib
import functools
import logging
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np

from jnst.cli import checkpoint
from jnst.cli.lines import warn
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
        self._damaged = []
        _silence()

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
            while self._damaged:  # in the way of the step that is written again
                self._manager.delete(self._damaged.pop())
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
            raise InputError(f"{self.path}: cannot be written: {_reason(error)}") from error

    def _restore(self):
        """Takes away what a failed writing left; another training's checkpoints come back."""
        with contextlib.suppress(OSError):
            for left in self.path.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)
            if self._aside.exists():
                shutil.rmtree(self.path, ignore_errors=True)
                os.replace(self._aside, self.path)

    def read(self) -> checkpoint.Checkpoint | None:
        """The last one, or None where there is none; a training goes on from it. Where it is damaged, the one before.

        Raises:
            InputError: all are damaged, or the system does not let one be read: such a one is not passed over.
        """
        if not self.path.is_dir():
            return None
        steps, errors = [], []  # orbax and tensorstore raise anything on damaged files
        try:
            self._manager = self._opened()
            steps = sorted(self._manager.all_steps(), reverse=True)
        except Exception as error:
            errors.append(error)
        self._replaced = bool(steps)
        for step in steps:
            try:
                found = self._restored(step)
            except Exception as error:
                if _is_the_systems(error):
                    raise InputError(f"{self.path}: cannot be read: {_reason(error)}") from error
                errors.append(error)
                self._damaged.append(step)
            else:
                if errors:
                    warn(f"{self.path / str(steps[0])}: not a whole checkpoint ({_reason(errors[0])})")
                return found
        if not errors:
            return None
        raise InputError(
            f"{self.path}: not a whole checkpoint ({_reason(errors[0])}); without --resume the training starts anew"
        ) from errors[0]

    def _restored(self, step):
        from orbax import checkpoint as orbax

        found = self._manager.restore(
            step,
            args=orbax.args.Composite(state=orbax.args.StandardRestore(), facts=orbax.args.JsonRestore()),
        )
        leaves = [np.asarray(found["state"][name]) for name in sorted(found["state"])]
        facts = dict(found["facts"])
        return checkpoint.Checkpoint(Snapshot(leaves, facts.pop("trace")), facts)

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


def _is_the_systems(error):
    """Whether files may be whole that could not be read: no permission, too many open ones, a failing disk."""
    own = isinstance(error, OSError | MemoryError) and not isinstance(error, FileNotFoundError)
    return own or "os_error_code=" in str(error)


def _reason(error):
    """What a person needs of an error of tensorstore's: the operating system's words, where it has some."""
    text = " ".join(str(error).split())
    number = re.search(r"os_error_code='(\d+)'", text)
    return os.strerror(int(number[1])) if number else text[:200]


@functools.cache
def _silence():
    """Keeps to themselves the tracebacks of what `write` and `read` say in a line.

    After one of many arrays has failed, tensorstore tells of each other one to an event loop that has ended: thousands
    of lines that nothing can catch, since they come from threads of its own.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    shown = sys.unraisablehook

    def hook(found):
        if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"):
            shown(found)

    sys.unraisablehook = hook
