"""Sides of a benchmark as processes of their own: one has the turn, the others wait at their pipes.

A process with both jax and torch would have two pools of threads and one heap for both. Here each side is alone, and
between its turns does nothing: it blocks until a line asks something of it.
"""

import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from jnst.cli.lines import warn
from jnst.errors import InputError
from jnst.version import __version__

ROOT = Path(__file__).resolve().parent.parent
DEVICE = "cpu"
"""Where both sides compute; of a GPU, peers.py and the sides of step.py and time_to_loss.py would have to wait."""

SHORT = 0.5
"""Seconds that a turn measures at least, of several steps where one is shorter."""

_INHERITED = dict(os.environ)
"""As the user has it: commands of jnst keep OpenBLAS to one thread, on which a build of PyTorch may stand."""

_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # as bin/_launch has it, for both sides
    "GOMP_SPINCOUNT": "2000",  # or PyTorch's threads, waiting for each other, hold cores that others need
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


class FailedError(Exception):
    """A benchmark that cannot give a number; its text is the line that says why."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A side's process. `ask` gives it the turn until it answers; leaving the context ends it."""

    def __init__(self, name: str, command: Sequence[str]):
        self.name = name
        environ = {**_ENVIRONMENT, **_INHERITED, "JAX_PLATFORMS": DEVICE}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True, encoding="utf-8"
        )

    def __enter__(self):
        try:
            self.answer()  # it is ready
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error):
        self.close()

    def ask(self, do: str, *, progress: Callable[[dict], None] | None = None, **arguments) -> dict:
        """What the worker answers; what it says on the way goes to `progress`."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended: the answer says how
        return self.answer(progress)

    def answer(self, progress: Callable[[dict], None] | None = None) -> dict:
        """The next answer; blocks until then."""
        while line := self.process.stdout.readline():
            said = json.loads(line)
            if "input_error" in said:
                raise InputError(said["input_error"])
            if "error" in said:
                raise FailedError(f"{self.name}: {said['error']}")
            if "progress" not in said:
                return said
            if progress is not None:
                progress(said["progress"])
        status = self.process.wait()
        why = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        hint = "; is there enough memory?" if status == -signal.SIGKILL else ""
        raise FailedError(f"{self.name}: the process ended early ({why}{hint})")

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass  # a line that it did not take


def serve(make: Callable[[], Mapping[str, Callable[..., dict | None]]]) -> int:
    """The other end of a `Worker`: answers lines until there are no more.

    Args:
        make: Gets everything ready and returns what can be asked. Each is called with the request's other fields and
            `tell`, which sends a dict on the way.
    """
    # What a library prints goes to stderr: the pipe is for answers.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(answer):
        pipe.write(json.dumps(answer) + "\n")
        pipe.flush()

    try:
        asked = make()
        send({})
        for line in sys.stdin:
            request = json.loads(line)
            tell = lambda said: send({"progress": said})  # noqa: E731
            send(asked[request.pop("do")](tell=tell, **request) or {})
    except BrokenPipeError:  # the parent has gone
        return 1
    except InputError as error:
        send({"input_error": str(error)})
    except Exception as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            traceback.print_exc()
        send({"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def timed(call: Callable[[], object], *, untimed: int = 0, calls: int = 1) -> dict:
    """Seconds of a call, after so many that are not timed."""
    for _ in range(untimed):
        call()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return {"seconds": (time.perf_counter() - start) / calls}


def interleave(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each worker, a number a round; each is asked to `step` with the arguments of `timed`."""
    pace = {name: worker.ask("step", untimed=1)["seconds"] for name, worker in workers.items()}
    found = {name: [] for name in workers}
    names = list(workers)
    for turn in range(rounds):
        first = turn % len(names)  # nobody is always first
        for name in names[first:] + names[:first]:
            # Steps follow each other. The first after a pause finds caches cold, and memory that it gave back taken by
            # the machine's other guests: a quarter of a step more, seen with ours.
            calls = min(20, math.ceil(SHORT / max(pace[name], 1e-6)))
            found[name].append(workers[name].ask("step", untimed=1, calls=calls)["seconds"])
    return found


class Patience:
    """Lines on stderr while something takes long, one in so many seconds."""

    def __init__(self, what: str, total: int, every: float = 10.0):
        self.what, self.total, self.every = what, total, every
        self.last = time.monotonic()

    def __call__(self, said: Mapping[str, float]) -> None:
        """`said` has `done` of the total, `seconds` for that, and `text`."""
        now = time.monotonic()
        if now - self.last < self.every and said["done"] < self.total:
            return
        self.last = now
        left = said["seconds"] / max(1, said["done"]) * (self.total - said["done"])
        note = (
            f"{self.what}: {said['done']} of {self.total}, {said['text']}, {said['seconds']:.0f} s, {left:.0f} s left"
        )
        warn(note)


def facts() -> dict[str, object]:
    """Where and with what was measured."""
    return {"threads": cores(), "device": device(), "versions": versions(), "commit": commit()}


def device() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """Of Python and all that computes."""
    found = {"python": platform.python_version(), "jnst": __version__}
    for name in ("jax", "jaxlib", "numpy", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """The checkout's commit, with `+` where files differ from it; None outside of git."""

    def git(*words):
        return subprocess.run(
            ["git", "--no-optional-locks", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout

    try:
        return git("rev-parse", "--short", "HEAD").strip() + ("+" if git("status", "--porcelain").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
