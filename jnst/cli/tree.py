"""A folder of photos and the folder that mirrors it: what becomes what, what is done, and who is at which picture.

What is done stands in a hidden file of the output folder, a line of JSON for each picture, which any number of
processes append to, on any number of machines. The same file carries their locks, a byte far behind its end for each
picture: they end with the process, leave nothing behind, and hold over a network where the file system's do.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jnst import images
from jnst.cli.lines import warn
from jnst.errors import InputError
from jnst.files import part_prefix

__all__ = ["LEDGER", "Job", "Ledger", "jobs", "sweep"]

LEDGER = ".jnst-fast.jsonl"
"""The file in the output folder; of the folder that is read, a subfolder that has one is passed over."""

_FAR = 2**40  # bytes: where the locks begin


class Job(NamedTuple):
    """A photo and the picture that it shall become."""

    name: str
    """Below the folder that is read, for messages."""
    source: str
    key: str
    """The output, below its folder."""
    output: str


def jobs(source: str | Path, output: str | Path, ending: str) -> tuple[list[Job], list[str]]:
    """The pictures in a folder and below, by name, and a line for each folder in it that cannot be read.

    `a.jpg` becomes `a.png`; where there is an `a.webp` beside it, both keep their endings: `a.jpg.png`, `a.webp.png`.
    Hidden files and folders are passed over, so is what an earlier run painted.

    Args:
        source: The folder.
        output: Where its tree is mirrored; nothing below it is read.
        ending: Of what is written, such as `.png`.
    """
    found, problems = [], []

    def refused(error):
        problems.append(f"{error.filename}: cannot be read: {error.strerror}")

    for folder, inner, names in os.walk(source, onerror=refused):
        inner[:] = sorted(name for name in inner if not _is_passed_over(os.path.join(folder, name), output))
        pictures = [name for name in sorted(names) if images.is_named_like_a_picture(Path(folder, name))]
        below = os.path.relpath(folder, source)
        for name, stem in zip(pictures, _stems(pictures), strict=True):
            key = os.path.normpath(os.path.join(below, stem + ending))
            named = os.path.normpath(os.path.join(below, name))
            found.append(Job(named, os.path.join(folder, name), key, os.path.join(output, key)))
    return sorted(found), problems


def _is_passed_over(folder, output):
    if os.path.basename(folder).startswith(".") or os.path.exists(os.path.join(folder, LEDGER)):
        return True
    return os.path.realpath(folder) == os.path.realpath(output)


def _stems(names):
    """What each becomes, without the new ending: its stem, or its whole name where stems would be one; on some file
    systems capital letters are no difference."""
    chosen = [os.path.splitext(name)[0] for name in names]
    while True:
        counts = Counter(each.casefold() for each in chosen)
        kept = [n if counts[each.casefold()] > 1 else each for n, each in zip(names, chosen, strict=True)]
        if kept == chosen:
            return chosen
        chosen = kept


class Ledger:
    """What is done in an output folder, and who is at what; `close` gives everything free.

    Raises:
        InputError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path):
        self._path, self._done, self._read, self._locks = Path(folder) / LEDGER, {}, 0, True
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            # One descriptor for all: closing another one of the same file would give the locks free.
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from error

    def made(self, job: Job, facts: Mapping[str, object]) -> bool:
        """Whether the picture is there as it was made, with these facts."""
        self._refresh()
        found = self._done.get(job.key)
        if found is None or found.get("made") != facts:
            return False
        try:
            return os.stat(job.output).st_size == found.get("bytes")
        except OSError:
            return False

    def add(self, job: Job, facts: Mapping[str, object]) -> None:
        """Notes that the picture is there.

        Raises:
            InputError: it cannot be noted.
        """
        entry = {"output": job.key, "bytes": os.stat(job.output).st_size, "made": facts}
        try:
            end = os.fstat(self._file).st_size
            # Behind a line that a full disk or a loss of power left unfinished, a new one begins.
            begin = "\n" if end and os.pread(self._file, 1, end - 1) != b"\n" else ""
            os.write(self._file, f"{begin}{json.dumps(entry, sort_keys=True)}\n".encode())
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror}") from error

    def _refresh(self):
        """Reads what has been appended, up to the last whole line."""
        data = b""
        while block := os.pread(self._file, 2**20, self._read + len(data)):
            data += block
        whole = data.rfind(b"\n") + 1
        self._read += whole
        for line in data[:whole].split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("output"), str):
                    self._done[entry["output"]] = entry

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Keeps other processes away from a picture; false where one of them has it."""
        place = _FAR + int.from_bytes(hashlib.sha256(os.fsencode(key)).digest()[:5])
        if not self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, place):
            yield False
            return
        try:
            yield True
        finally:
            self._lock(fcntl.LOCK_UN, place)

    def _lock(self, how, place):
        if not self._locks:
            return True
        try:
            fcntl.lockf(self._file, how, 1, place, os.SEEK_SET)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            self._locks = False
            warn(f"{self._path}: no locks, so two processes may make the same picture ({error.strerror})")
        return True

    def close(self) -> None:
        """Ends all claims."""
        os.close(self._file)


def sweep(found: Sequence[Job], ledger: Ledger) -> None:
    """Removes the halves of pictures that killed processes left."""
    beginnings = defaultdict(list)
    for job in found:
        beginnings[os.path.dirname(job.output), part_prefix(job.output)].append(job.key)
    for folder in {folder for folder, _ in beginnings}:
        for left in Path(folder).glob(".*.part"):
            beginning = re.sub(r"\w{8}\.part$", "", left.name)
            keys = beginnings.get((folder, beginning), [])
            with contextlib.ExitStack() as stack:
                if keys and all([stack.enter_context(ledger.claim(key)) for key in keys]):
                    left.unlink(missing_ok=True)
