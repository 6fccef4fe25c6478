"""Several processes at one grid: how they meet, agree on what is left to do, and notice that one of them is gone.

The runs of a grid are independent: once the processes have met, none needs another's devices. So jax's distributed
runtime lives only in `join`, and there in a child process. While it is up, it ends a process with SIGABRT and a C++
stack trace as soon as process 0 dies (`jax_enable_recoverability` covers the others only), when joining takes too long,
when two have the same number; a port in use is a segmentation fault [seen with jax 0.10.2]. The rest is small files
`process-K.json` in a hidden folder of the output, each rewritten by its own process alone.
"""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jnst.cli.lines import say, warn
from jnst.errors import InputError

__all__ = ["LOST", "Cluster", "Watch", "join"]

LOST = 4
"""The exit code of a process that ends because another one did."""

PATIENCE = 120  # seconds for all processes to appear: they start together, but a cold network disk may hold one back
BEAT = 2.0  # seconds
MISSES = 6  # looks without a new beat until a process is lost
GRACE = 5.0  # seconds for the main thread to end by itself: 12 to 14 to notice, 2 to tell the others, 5 here: within 30

# What starts processes says how many it started; the first of these counts, for an outer one may show through.
_STARTED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_ON_THIS_HOST = ("OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE")
_BY_HAND = "expected --coordinator_address, --num_processes and --process_id, or --num_processes=1 to run alone"

# Shutting down is a barrier too: when it returns, all have met.
_JOIN = """
import sys, jax
address, count, index, patience = sys.argv[1], *map(int, sys.argv[2:])
jax.distributed.initialize(
    address, count, index, cluster_detection_method="deactivate", initialization_timeout=patience,
    heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10,
)
jax.distributed.shutdown()
"""


class Cluster(NamedTuple):
    """Which of how many processes this one is."""

    index: int
    count: int


def join(coordinator_address: str = "", num_processes: int = -1, process_id: int = -1) -> Cluster:
    """Meets the other processes, if there are any; to be called before anything touches a device.

    Without arguments it asks jax's detection (Open MPI, SLURM, Cloud TPU, Kubernetes). Afterwards jax itself knows of
    no others (but for a TPU pod, whose own library does): work on `jax.local_devices()`, and count with the answer.

    Raises:
        InputError: a flag is wrong or missing, the processes do not find each other, or several were started
            that cannot know of each other.
    """
    if coordinator_address or num_processes != -1 or process_id != -1:
        _check_flags(coordinator_address, num_processes, process_id)
        place = coordinator_address, num_processes, max(process_id, 0), None
    else:
        place = _detect()
    address, count, index, devices = place
    if count > 1:
        _restrict(devices)
        say(f"process {index} of {count}: meeting the others at {address}")
        _join_runtime(address, count, index)
    return Cluster(index, count)


def _check_flags(address, count, index):
    if count == -1:
        raise InputError("--num_processes is missing: expected how many processes there are")
    if count < 1:
        raise InputError(f"--num_processes={count}: expected how many processes there are, at least 1")
    if not (0 <= index < count or (index == -1 and count == 1)):
        raise InputError(f"--process_id={index}: expected 0 to {count - 1}, another one in each process")
    _, colon, port = address.rpartition(":")
    if count > 1 and not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(f"--coordinator_address={address}: expected HOST:PORT of process 0, the same in each process")


def _detect():
    """Address, count, index and devices as jax finds them in the environment; a count of 1 where there is no cluster.

    Raises:
        InputError: several processes were started, and jax does not see it: each would do all the work.
    """
    name = next((name for name in _STARTED if os.environ.get(name, "").isdigit()), None)
    started = name and int(os.environ[name])
    alone = "", 1, 0, None
    if started == 1:  # in an interactive shell of SLURM, jax would wait for the other tasks of the allocation
        return alone
    address = count = None
    try:
        # Private, for jax has no other way to ask without joining, where a mistake is a stack trace.
        from jax._src.clusters import ClusterEnv

        with warnings.catch_warnings():  # one in each pod without the package kubernetes
            warnings.simplefilter("ignore")
            address, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
                os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, PATIENCE
            )
    except (ImportError, AttributeError, TypeError):  # another jax
        pass
    except Exception as error:  # whatever a metadata server or an interface of Kubernetes has to say
        raise InputError(f"jax's cluster detection failed ({error}); {_BY_HAND}") from error
    if started and count != started:
        raise InputError(f"{name}={started} in the environment, but jax detects {count or 'no'} processes; {_BY_HAND}")
    if count is None and "JOB_COMPLETION_INDEX" in os.environ:  # an indexed job of Kubernetes
        number = os.environ["JOB_COMPLETION_INDEX"]
        raise InputError(
            f"JOB_COMPLETION_INDEX={number} in the environment, but jax detects no cluster "
            f"(for Kubernetes it needs the package kubernetes); {_BY_HAND}"
        )
    return alone if count is None else (address, count, index, devices)


def _restrict(devices):
    """Leaves a process the GPUs that jax's own initialization would, or all of them where it has its host for itself.

    jax gives one GPU to each process that SLURM or Open MPI starts, also to one that has a host of eight.
    """
    import jax

    on_this_host = next((os.environ[name] for name in _ON_THIS_HOST if name in os.environ), "")
    chosen = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    if chosen is None and devices and not re.fullmatch(r"1(\(x\d+\))?", on_this_host):
        chosen = ",".join(map(str, devices))
    if chosen:
        jax.config.update("jax_cuda_visible_devices", chosen)
        jax.config.update("jax_rocm_visible_devices", chosen)


def _join_runtime(address, count, index):
    # A proxy of the environment is for the world outside; jax warns that joining may hang with one.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, "-P", "-c", _JOIN, address, str(count), str(index), str(PATIENCE)]
    try:
        child = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE + 30
        )
    except subprocess.TimeoutExpired:
        reason = "no end"
    else:
        if child.returncode == 0:
            return
        said = child.stderr.decode(errors="replace")
        found = re.search(r"absl::Status: (.*)", said) or re.search(r"^[EF]\d{4} .*?\] (.*)", said, re.MULTILINE)
        reason = found[1] if found else (said.strip() or f"exit code {child.returncode}").splitlines()[-1]
    raise InputError(
        f"process {index} of {count} could not meet the others at {address} ({reason}); expected process 0 to run on "
        f"that host with that port free, and all {count} to start within {PATIENCE} s, each with its own number"
    )


class Watch:
    """While it is open, this process tells the others that it lives, and learns when one of them does not.

    Then one line says so, `lost` is true and `stop` was called; where the main thread does not come out within
    seconds, the process ends with `LOST`. To leave without `wait` ends the others in the same way.

    Process 0 watches all, the others watch process 0, which tells of each loss. Nobody compares clocks: a process is
    lost when we looked `MISSES` times, beating ourselves in between, and its number stood still; a disk that hangs for
    a minute holds up everybody's looks with everybody's beats.
    """

    lost = False
    """Whether another process is gone; exit with `LOST` then."""

    def __init__(self, cluster: Cluster, folder: Path, command: str, stop: Callable[[], None]):
        """Nothing is written before it is opened.

        Args:
            cluster: What `join` found.
            folder: The output, which all processes share.
            command: How to go on, as the user would type it.
            stop: Called from another thread after a loss: asks the main thread to end soon.
        """
        self._cluster = cluster
        self._folder = Path(folder) / ".grid"
        self._command = command
        self._stop = stop
        self._others = range(1, cluster.count) if cluster.index == 0 else range(1)
        # `id` is new in each session: who repeats ours in `hears` has read our file of now, and is no file of old.
        self._mine = {"id": secrets.token_hex(8), "beat": 0, "round": 0, "count": cluster.count, "hears": {}}
        self._mine |= {"host": socket.gethostname(), "pid": os.getpid()}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._open = self._done = False

    def __enter__(self):
        """Waits for all processes to see each other in the folder.

        Raises:
            InputError: the folder cannot be written, they do not, or they were told different counts.
        """
        if not self._others:
            return self
        try:
            self._find_others()
        except BaseException:
            self._leave()
            raise
        self._open = True
        self._thread.start()
        return self

    def _find_others(self):
        place = self._folder.parent
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{place}: cannot be written: {error.strerror or error}") from error
        until = time.monotonic() + PATIENCE
        for pause in _pauses():
            self._tell()
            facts = {index: self._look(index) for index in self._others}
            missing = [str(index) for index in facts if facts[index] is None]
            if not missing:
                break
            if time.monotonic() > until:
                raise InputError(
                    f"{place}: after {PATIENCE} s there is no sign in it of process {', '.join(missing)}; "
                    "expected a folder that all processes share"
                )
            time.sleep(pause)
        self._tell()  # the last of them may not know yet that we hear it
        self._names = {index: _who(index, told) for index, told in facts.items()}
        counts = {told["count"] for told in facts.values()} | {self._cluster.count}
        if len(counts) > 1:
            raise InputError(f"--num_processes={self._cluster.count}: expected the same in all processes, not {counts}")

    def agree(self, mask: np.ndarray, runs: str = "") -> np.ndarray:
        """The `mask` of process 0, in all processes; each waits for all others to come here.

        Args:
            mask: `[runs]` of bool.
            runs: A hash of what the runs are.

        Raises:
            InputError: process 0 has other runs.
            SystemExit: with `LOST`, after a loss.
        """
        mask = np.asarray(mask, bool)
        told = self._meet(mask=[mask.size, np.packbits(mask).tobytes().hex(), runs])
        if self._cluster.index == 0:
            return mask
        size, bits, theirs = told[0]["mask"]
        if size != mask.size:
            raise InputError(f"process 0 has {size} runs, this one {mask.size}; expected the same flags in all")
        if theirs != runs:
            raise InputError("process 0 has other flags or files than this one; expected the same in all")
        return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=size).astype(bool)

    def wait(self) -> None:
        """The end: returns when all processes came here, and takes the files away.

        Raises:
            SystemExit: with `LOST`, after a loss.
        """
        if self._others:
            self._meet()
            self._close()
            if self._cluster.index == 0:
                self._await(self._mine["round"] + 1, until=time.monotonic() + MISSES * BEAT)
                with contextlib.suppress(OSError):
                    for path in self._folder.glob("process-*.json"):  # also of an earlier session of more processes
                        path.unlink()
                    self._folder.rmdir()
            else:
                self._tell(round=self._mine["round"] + 1)  # we have read that all are here
        self._done = True

    def __exit__(self, *error):
        self._close()
        if self._others and not self._done and not self.lost:
            self._leave()

    def _close(self):
        self._closed.set()
        if self._open:
            self._thread.join()

    def _leave(self):
        with contextlib.suppress(InputError):
            self._tell(left=f"{_who(self._cluster.index, self._mine)} stopped early")

    def _path(self, index):
        return self._folder / f"process-{index}.json"

    def _tell(self, **facts):
        """Rewrites our file. In place: a file renamed over another may stay hidden for a while on network disks."""
        with self._lock:
            self._mine |= facts
            self._mine["beat"] += 1
            try:
                self._path(self._cluster.index).write_text(json.dumps(self._mine))
            except OSError as error:
                raise InputError(f"{self._folder}: cannot be written: {error.strerror or error}") from error

    def _look(self, index):
        """What another process tells; None while it tells nothing, half a line, or nothing to this session."""
        hears = self._mine["hears"]
        try:
            facts = json.loads(self._path(index).read_text())
            if self._open:  # one that was started again is another one
                return facts if facts["id"] == hears[str(index)] else None
            hears[str(index)] = facts["id"]
            return facts if facts["hears"].get(str(self._cluster.index)) == self._mine["id"] else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def _meet(self, **facts):
        """A barrier: process 0 goes on to the next round when all others have, and they return when it has."""
        number = self._mine["round"] + 1
        if self._cluster.index == 0:
            told = self._await(number)
            if self._others:
                self._tell(round=number, **facts)
            return told
        self._tell(round=number, **facts)
        return self._await(number)

    def _await(self, number, until=float("inf")):
        for pause in _pauses():
            if self.lost:
                raise SystemExit(LOST)
            told = [self._look(index) for index in self._others]
            if all(facts and facts["round"] >= number for facts in told) or time.monotonic() > until:
                return told
            time.sleep(pause)

    def _watch(self):
        beats, misses = {}, dict.fromkeys((*self._others, self._cluster.index), 0)
        while not self._closed.wait(BEAT):
            misses[self._cluster.index] += 1
            with contextlib.suppress(InputError):
                self._tell()
                misses[self._cluster.index] = 0
            if misses[self._cluster.index] >= MISSES:
                return self._lose(f"{_who(self._cluster.index, self._mine)} can no longer write to {self._folder}")
            for index in self._others:
                facts = self._look(index) or {}
                if "left" in facts:
                    return self._lose(facts["left"])
                beat = facts.get("beat", beats.get(index))
                misses[index] = misses[index] + 1 if beat == beats.get(index) else 0
                beats[index] = beat
                if misses[index] >= MISSES:
                    return self._lose(f"{self._names[index]} is lost")

    def _lose(self, words):
        self.lost = True
        with contextlib.suppress(InputError):
            self._tell(left=words)
        warn(f"{words}; what is finished stays; go on with: {self._command}")
        try:
            self._stop()
        finally:
            if not self._closed.wait(GRACE):  # within a long computation; all that was said is flushed
                os._exit(LOST)


def _who(index, facts):
    return f"process {index} (host {facts['host']}, pid {facts['pid']})"


def _pauses() -> Iterator[float]:
    """Seconds between looks: short at first, then those between beats."""
    pause = BEAT / 40
    while True:
        yield pause
        pause = min(BEAT, pause * 1.4)
