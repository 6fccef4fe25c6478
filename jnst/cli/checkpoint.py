"""OUTPUT's stem + `.ckpt`: everything that a run needs to go on from a step, whole or not at all.

A safetensors file: the leaves of the optimizer's state, and one metadata key `checkpoint`, JSON with the run's flags,
the hashes of what it read, its trace, step, device and seconds.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import safetensors
import safetensors.numpy

from jnst.cli.lines import warn
from jnst.errors import InputError
from jnst.files import cache_folder, replacing
from jnst.types import Snapshot
from jnst.version import __version__

__all__ = ["Checkpoint", "alone", "check_same_flags", "path_of", "read", "read_facts", "write"]

MAY_DIFFER = {"output", "print_every", "save_every", "sample_every", "checkpoint_every"}
"""Flags that change no pixel."""


_FACTS = {"flags", "inputs", "step", "seconds", "trace"}  # without which a file is no checkpoint


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    snapshot: Snapshot
    facts: dict[str, object]
    """`jnst` (the version), `flags`, `inputs` (hashes by flag), `step`, `seconds`, `device`."""


def path_of(output: str) -> Path:
    """Where the checkpoint of an output lies."""
    return Path(output).with_suffix(".ckpt")


def write(output: str, snapshot: Snapshot, facts: dict[str, object]) -> None:
    """Writes a checkpoint.

    Raises:
        InputError: it cannot be written; the one before is as it was.
    """
    arrays = {f"leaf{index:03}": np.asarray(leaf, order="C") for index, leaf in enumerate(snapshot.leaves)}
    arrays |= {f"kept{index:03}": np.asarray(image, order="C") for index, image in enumerate(snapshot.kept)}
    more = {"scale": snapshot.scale, "plan": list(snapshot.plan)} if snapshot.plan or snapshot.scale else {}
    text = json.dumps({"jnst": __version__, "trace": snapshot.trace, **more, **facts})
    with replacing(path_of(output), apart=True) as temporary:
        try:
            # From the arrays into the file: the state of a large picture may not fit into memory once more.
            safetensors.numpy.save_file(arrays, temporary, {"checkpoint": text})
        except safetensors.SafetensorError as error:
            raise OSError(0, str(error)) from error


def read_facts(path: Path) -> dict[str, object]:
    """What a checkpoint says of itself, without its arrays; empty for any other file, or none."""
    try:
        with safetensors.safe_open(path, "np") as file:
            facts = dict(json.loads((file.metadata() or {})["checkpoint"]))
        return facts if facts.keys() >= _FACTS else {}
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return {}


def read(output: str) -> Checkpoint | None:
    """The checkpoint of an output, or None where there is none.

    Raises:
        InputError: it is damaged, or no checkpoint.
    """
    path = path_of(output)
    if not path.is_file():
        return None
    facts = read_facts(path)
    try:
        file = safetensors.safe_open(path, "np")
        names = sorted(file.keys())
        leaves = _Leaves(file, [name for name in names if name.startswith("leaf")])
        kept = [file.get_tensor(name) for name in names if name.startswith("kept")]
        scale, plan = facts.get("scale", 0), tuple(facts.get("plan", ()))
        if len(plan) not in (0, 2) or any(type(number) is not int or number < 0 for number in (scale, *plan)):
            raise KeyError("plan")
        snapshot = Snapshot(leaves, facts.pop("trace"), scale, plan, kept)
        return Checkpoint(snapshot, facts)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a whole checkpoint ({error}); without --resume the run starts anew") from error


class _Leaves(Sequence):
    """Arrays of a file, each read when it is asked for: together they may be larger than memory."""

    def __init__(self, file, names):
        self._file, self._names = file, names

    def __len__(self):
        return len(self._names)

    def __getitem__(self, index):
        return self._file.get_tensor(self._names[index])


def check_same_flags(
    name: Path, before: dict[str, object], now: dict[str, object], *, growing: Sequence[str] = ("steps",)
) -> None:
    """Compares the flags `now` with those that stand in the file `name`; those of `growing` may have grown.

    Raises:
        InputError: they are of another run; names the first flag that differs.
    """
    for flag in sorted(before.keys() | now.keys()):
        old, new = before.get(flag), now.get(flag)
        if flag in MAY_DIFFER or old == new or (flag in growing and new > old):
            continue
        raise InputError(
            f"--{flag}={new}: {name} is of a run with --{flag}={old}; expected the same with --resume, "
            "or no --resume to start anew"
        )


@contextlib.contextmanager
def alone(output: str, *, shown: str = "") -> Iterator[None]:
    """Keeps a second run away from an output while the first one is at it.

    The lock is a file in the cache folder, so that nothing is left beside the output; it ends with the process. `shown`
    is what the user calls the output, where that is another name.

    Raises:
        InputError: another run has it.
    """
    place = str(path_of(output).resolve())
    folder = cache_folder() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:32])
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise InputError(f"--output={shown or output}: another run is writing it; expected another name") from error
    except OSError as error:
        warn(f"no lock, so a second run on {shown or output} would not be noticed ({error.strerror or error})")
        yield
        return
    try:
        yield
    finally:
        lock.release()
