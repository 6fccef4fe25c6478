"""Writing files that appear whole or not at all, and the folder for what is kept between runs."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import platformdirs

from jnst.errors import InputError

__all__ = [
    "cache_folder",
    "check_place",
    "check_writable",
    "part_prefix",
    "remove_parts",
    "replacing",
    "sha256_of",
    "sha256_of_names",
    "umask",
    "weights_folder",
    "write_atomically",
]


def cache_folder() -> Path:
    """`JNST_CACHE`, else jnst's folder among the user's caches."""
    return Path(os.path.expanduser(os.environ.get("JNST_CACHE") or platformdirs.user_cache_dir("jnst")))


def weights_folder() -> Path:
    """Where weights lie that were fetched or converted."""
    return cache_folder() / "weights"


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes `data` under a temporary name beside `path`, then renames: nobody ever sees half a file.

    Raises:
        InputError: the folder is missing or closed, or the disk is full; `path` is as it was before.
    """
    with replacing(path) as temporary:
        Path(temporary).write_bytes(data)


@contextlib.contextmanager
def replacing(path: str | Path, *, apart: bool = False) -> Iterator[str]:
    """Gives the name of a temporary file beside `path`, which the body writes; it then takes the place of `path`.

    Args:
        path: The file.
        apart: In a folder of its own, for a library that writes under a temporary name itself and renames: what a kill
            leaves of it then lies in a folder that has our name.

    Raises:
        InputError: as `write_atomically` does.
    """
    path = Path(path)
    part = None
    try:
        if apart:
            part = tempfile.mkdtemp(dir=path.parent, prefix=part_prefix(path), suffix=".part")
            temporary = os.path.join(part, "whole")
        else:
            handle, part = tempfile.mkstemp(dir=path.parent, prefix=part_prefix(path), suffix=".part")
            os.close(handle)
            temporary = part
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())  # temporary files are made private
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if part is not None:
            _remove(Path(part))


def remove_parts(folder: str | Path, *prefixes: str) -> None:
    """Removes the halves of files that killed processes left; only for one that is alone with those files.

    Args:
        folder: Where; it need not be there.
        prefixes: Regular expressions of what `part_prefix` gives.
    """
    for left in Path(folder).glob(".*.part"):
        if re.fullmatch(rf"(?:{'|'.join(prefixes)})\w{{8}}\.part", left.name):
            _remove(left)


def _remove(path):
    """Removes what `replacing` has made, a file or a folder, where it is still there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def part_prefix(path: str | Path) -> str:
    """How the temporary name beside a file begins; eight letters and `.part` follow.

    A part of its name: the whole one and more may be longer than names can be.
    """
    return f".{Path(path).name[:50]}."


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_names(paths: Sequence[Path]) -> str:
    """The SHA-256 of the names and sizes of files, in hexadecimal: enough to see that a folder is not what it was."""
    lines = (f"{path.name} {path.stat().st_size}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def check_place(path: str | Path) -> None:
    """What can be said of an output before there is anything to write, without making a folder.

    Raises:
        InputError: `path` is a folder, or lies under what is none.
    """
    path = Path(path)
    try:
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
        if path.is_dir():
            raise InputError(f"--output={path}: is a folder; expected a file's name")
        if not nearest.is_dir():
            raise InputError(f"--output={path}: cannot be written: {nearest} is no folder")
    except OSError as error:
        raise InputError(f"--output={path}: cannot be written: {error.strerror or error}") from error


def check_writable(path: str | Path) -> None:
    """Makes the folder of `path` where it is missing and tries to write a file in it.

    Raises:
        InputError: `path` is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"--output={path}: is a folder; expected a file's name")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"--output={path}: cannot be written: {error.strerror or error}") from error


def umask() -> int:
    """The permissions that new files do not get; private temporary ones are given the rest."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
