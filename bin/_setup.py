"""The set-up behind bin/stylize and bin/test: find an environment that runs jnst, or make .venv.

Started by _launch where .venv is not up to date, and hands back to it. Standard library only. For bin/bench it is
.venv-bench, with PyTorch in it, which no other command needs.

In .venv, `jnst-stamp` says what it was made from and is written last; `jnst-setup` stands there while it is
being made; `jnst-adopted` marks one that was there before us, into which we only install.
"""

import contextlib
import ctypes
import fcntl
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

SIZE = "about 180 MB, a minute or two"
BENCH_SIZE = "350 MB or more, several minutes"
EXTRAS = ("test", "bench")  # kinds that need the extra of their name
IMPORT_NAMES = {"absl-py": "absl", "orbax-checkpoint": "orbax.checkpoint", "pillow": "PIL", "pytest-xdist": "xdist"}
TAMPERED = re.compile(r"hash mismatch|do not match the hashes|hashes are required", re.IGNORECASE)
UNREACHED = re.compile(
    r"connection|error sending request|network|dns |name resolution|timed out|proxy|failed to fetch"
    r"|certificate|from versions: none|no space left|permission denied|read-only file",
    re.IGNORECASE,
)


class Fail(Exception):
    """Ends the launcher with this exit status and one line."""

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status = status


def say(line: str) -> None:
    print(f"jnst: {line}", file=sys.stderr, flush=True)


# The trial: does this interpreter already run jnst? (A process of its own: _setup.py --try ROOT KIND.)


def required(root: Path, kind: str) -> list[str]:
    """The names of the packages that bin/KIND needs, as pyproject.toml has them."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"][kind] if kind in EXTRAS else [])
    return [re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in wanted]


def runs_jnst(root: Path, kind: str) -> bool:
    """Whether jnst of the checkout's version and all that it needs import here. The cheap checks first."""
    for venv in (root / ".venv", root / ".venv-bench"):
        if Path(sys.prefix).resolve() == venv.resolve() and any(venv.glob("jnst-*")):
            # Ours, but not up to date: it must be refreshed even where it would still do. Or the other commands'.
            return False
    wanted = re.search(r'__version__ = "(.+)"', (root / "jnst" / "version.py").read_text("utf-8"))[1]
    modules = [IMPORT_NAMES.get(name, name.replace("-", "_")) for name in required(root, kind)]
    if not all(importlib.util.find_spec(name) for name in ["jnst", *modules]):
        return False
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a bare .pth file leaves no metadata
        if importlib.metadata.version("jnst") != wanted:
            return False
    if importlib.import_module("jnst.version").__version__ != wanted:
        return False
    for name in ["jnst", *modules]:
        importlib.import_module(name)
    return True


def passes_trial(python: str, root: Path, kind: str) -> bool:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-P", __file__, "--try", str(root), kind]
    quiet = subprocess.DEVNULL
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return not subprocess.run(command, env=environ, stdin=quiet, stdout=quiet, stderr=quiet, timeout=120).returncode
    return False


# Making .venv


@contextlib.contextmanager
def alone(root: Path):
    """One set-up at a time. The lock is on the folder itself: it leaves no file and ends with the process."""
    fd = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of .venv is running, waiting for it...")
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            say(f"this folder cannot be locked ({error}): start one set-up at a time")
        yield
    finally:
        os.close(fd)


def in_range(version: str, requirement: str) -> bool:
    """Whether a released version, such as 2.13.0+cpu, fits a requirement such as torch>=2.13,<2.14."""
    release = version.partition("+")[0]
    lower, upper = (re.search(rf"{sign}([\d.]+)", requirement)[1] for sign in (">=", "<"))
    if not re.fullmatch(r"[\d.]+", release):
        return False  # a pre-release
    lower, release, upper = ([int(part) for part in text.split(".")] for text in (lower, release, upper))
    return lower <= release < upper


def die_with_parent():
    """For a child on Linux: pip or uv must not go on writing into .venv when the set-up has been killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Setup:
    def __init__(self, root: Path, kind: str, header: str):
        self.root, self.kind = root, kind
        self.venv = root / (".venv-bench" if kind == "bench" else ".venv")
        self.source = "requirements.lock" + (" and PyTorch" if kind == "bench" else "")
        self.size = BENCH_SIZE if kind == "bench" else SIZE
        self.python = self.venv / "bin" / "python"
        self.lock = root / "requirements.lock"
        self.stamp, self.marker, self.adopted, self.log = (
            self.venv / f"jnst-{name}" for name in ("stamp", "setup", "adopted", "log")
        )
        self.header = os.fsencode(header) + b"\n"
        self.wanted = b""

    def prepare(self) -> str:
        """The interpreter to use, after whatever it takes to make .venv fit."""
        self.wanted = self.header + self.lock.read_bytes()
        missing = [
            name
            for name in required(self.root, "test")
            if not re.search(rf"^{re.escape(name)}==".encode(), self.wanted, re.MULTILINE | re.IGNORECASE)
        ]
        if missing:
            raise Fail(1, f"requirements.lock lacks {', '.join(missing)}: its head says how to renew it")
        if os.path.lexists(self.venv) and not self.venv.is_dir():
            raise Fail(2, f"{self.venv} is in the way: not a folder")
        stamp = self.stamp.read_bytes() if self.stamp.exists() else b""
        works = os.access(self.python, os.X_OK)
        if works and stamp == self.wanted:
            return str(self.python)
        if works and stamp.partition(b"\n")[2] == self.wanted.partition(b"\n")[2]:
            # Only the checkout has moved. Where it cannot be written to, the stale link does no harm to us.
            with contextlib.suppress(OSError):
                self.finish()
            return str(self.python)
        ours = self.marker.exists() or (stamp and not self.adopted.exists())
        if ours or not self.venv.exists() or not any(self.venv.iterdir()):
            self.make()
        else:
            if not self.runs("import sys; sys.exit(sys.version_info < (3, 11))"):
                raise Fail(2, f"{self.venv} is not ours and holds no Python >= 3.11: please move it away")
            if not self.adopted.exists() and passes_trial(str(self.python), self.root, self.kind):
                return str(self.python)
            self.install_in_place()
        return str(self.python)

    def make(self) -> None:
        started = time.monotonic()
        what = "first use"
        if self.marker.exists():
            what = "an earlier set-up did not end"
        elif self.stamp.exists():
            what = "the requirements changed"
        say(f"{what}: setting up {self.venv.name} from {self.source} ({self.size})...")
        # The interpreter itself: no link that may mean another version one day, not the one in the old .venv.
        base = os.path.realpath(sys.executable)
        self.venv.mkdir(exist_ok=True)
        self.marker.touch()  # from here until the stamp is written, whatever lies there is ours and worthless
        self.stamp.unlink(missing_ok=True)
        self.clear()
        uv = shutil.which("uv")
        if uv:
            self.step(uv, "venv", "--allow-existing", "--python", base, str(self.venv))
        else:
            self.step(base, "-I", "-m", "venv", str(self.venv))
        self.install(uv)
        self.finish()
        say(f"set-up done in {time.monotonic() - started:.0f} s")

    def install_in_place(self) -> None:
        started = time.monotonic()
        say(f"installing {self.source} into the {self.venv.name} that was there ({self.size})...")
        self.adopted.touch()
        self.stamp.unlink(missing_ok=True)
        uv = shutil.which("uv")
        if not uv and not self.runs("import pip"):
            self.step(str(self.python), "-I", "-m", "ensurepip")
        self.install(uv)
        self.finish()
        say(f"set-up done in {time.monotonic() - started:.0f} s")

    def install(self, uv: str | None) -> None:
        torch = self.find_torch(uv) if self.kind == "bench" else ""  # first: without it the rest is of no use
        lock = ["--require-hashes", "-r", str(self.lock)]
        if uv:
            # Compiled as pip does it: otherwise, under PYTHONDONTWRITEBYTECODE, each start compiles jax anew.
            self.step(uv, "pip", "install", "--python", str(self.python), "--compile-bytecode", *lock)
        else:
            self.step(str(self.python), "-I", "-m", "pip", "install", "--disable-pip-version-check", *lock)
        if torch and self.attempt(str(self.python), "-I", "-m", "pip", "install", "--disable-pip-version-check", torch):
            raise Fail(2, f"set-up failed: {torch} is offered but cannot be installed: {self.log} says why")

    def find_torch(self, uv: str | None) -> str:
        """What pip shall install: a build for the CPU wherever one is offered, whichever else sorts above it.

        By pip where uv is in use, too: it reads the user's settings of pip, and it takes the best of all indexes where
        uv takes the first that has the name.
        """
        project = tomllib.loads((self.root / "pyproject.toml").read_text("utf-8"))["project"]
        (wanted,) = project["optional-dependencies"]["bench"]
        if uv and not self.runs("import pip"):
            self.attempt(uv, "pip", "install", "--python", str(self.python), "pip")
        before = self.log.stat().st_size if self.log.exists() else 0
        failed = self.attempt(
            str(self.python), "-I", "-m", "pip", "index", "--disable-pip-version-check", "versions", "torch"
        )
        with self.log.open("rb") as log:
            log.seek(before)
            said = log.read().decode("utf-8", "replace")
        listed = re.search(r"^Available versions: (.*)$", said, re.MULTILINE)
        offered = [each for each in listed[1].split(", ") if in_range(each, wanted)] if listed and not failed else []
        if not offered:
            raise Fail(2, f"set-up failed: {wanted}, which bin/bench needs, is not to be had here: {self.log} says why")
        for_cpu = [each for each in offered if each.endswith("+cpu")]
        if not for_cpu and sys.platform == "linux":
            say("no build of PyTorch for the CPU alone is offered here: the usual one may bring some GB for GPUs")
        return f"torch=={for_cpu[0]}" if for_cpu else wanted

    def finish(self) -> None:
        """Make `import jnst` work for users of .venv from anywhere, and then, last, say that all is there."""
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = subprocess.check_output([self.python, "-I", "-c", where], stdin=subprocess.DEVNULL)
        Path(os.fsdecode(packages.rstrip(b"\n")), "jnst.pth").write_bytes(os.fsencode(self.root) + b"\n")
        written = self.venv / "jnst-stamp.new"
        written.write_bytes(self.wanted)
        written.replace(self.stamp)
        self.marker.unlink(missing_ok=True)

    def clear(self) -> None:
        """Empty .venv but for the marker; in several goes, as what a killed set-up started may end later."""
        for attempt in range(40):
            rest = [path for path in self.venv.iterdir() if path != self.marker]
            if not rest:
                return
            time.sleep(0.25 if attempt else 0)
            for path in rest:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        raise Fail(2, f"{self.venv} cannot be emptied")

    def runs(self, code: str) -> bool:
        quiet = subprocess.DEVNULL
        try:
            return not subprocess.run(
                [self.python, "-I", "-c", code], stdin=quiet, stdout=quiet, stderr=quiet
            ).returncode
        except OSError:
            return False

    def attempt(self, *command: str) -> int:
        """Runs a command that writes into the log; returns its exit status."""
        with self.log.open("ab") as log:
            return subprocess.run(
                command,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(),
            ).returncode

    def step(self, *command: str) -> None:
        if not self.attempt(*command):
            return
        tail = "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-15:])
        print(tail, file=sys.stderr)
        if TAMPERED.search(tail):
            raise Fail(1, "set-up failed: a package is not the one that requirements.lock names")
        if UNREACHED.search(tail):
            raise Fail(2, "set-up failed: no use of the package index or the disk; run again when there is")
        raise Fail(1, f"set-up failed at: {Path(command[0]).name} {' '.join(command[1:])}")


def main(argv: list[str]) -> int:
    if argv[0] == "--try":
        return not runs_jnst(Path(argv[1]), argv[2])
    root, kind, header, *args = argv
    try:
        python = shutil.which("python3")
        if not (python and passes_trial(python, Path(root), kind)):
            with alone(Path(root)):
                python = Setup(Path(root), kind, header).prepare()
    except Fail as failure:
        say(str(failure))
        return failure.status
    except OSError as error:
        say(f"set-up failed: {error}")
        return 2
    except KeyboardInterrupt:
        say("set-up interrupted")
        return 130
    os.execv("/bin/sh", ["sh", os.path.join(root, "bin", "_launch"), kind, python, *args])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
