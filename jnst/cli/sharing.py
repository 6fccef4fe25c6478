"""`fast apply` on a folder: each picture by one of several processes, which this one starts and hands the pictures to.

A worker reads lines of JSON from its stdin, the first what to do, each further one a picture, and answers each with a
line. So it ends, after its picture, when the process that started it does. Ctrl-C of a terminal does not reach it.
Processes that the user starts beside this one share the folder too, see `tree`.
"""

import contextlib
import dataclasses
import json
import os
import selectors
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Callable

import tqdm

from jnst.cli.brush import Brush, digest_of
from jnst.cli.command import BAD_INPUT, DONE, INTERRUPTED, OUR_FAULT
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import bar_shape, on_terminal, say, warn
from jnst.cli.tree import Job, Ledger, jobs, sweep
from jnst.config import ApplyConfig
from jnst.errors import InputError
from jnst.weights import stylenets

__all__ = ["run", "worker"]

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} pictures {remaining} left"
_NAMED = 10  # of the failed, at the end
_LOOK = 0.2  # seconds until Ctrl-C is noticed


def run(brush: Brush, source: str, output: str, ending: str, interrupt: Interrupt) -> int:
    """Makes every picture of a folder that is not there yet. Returns the exit code.

    Args:
        brush: Not ready yet.
        source: The folder.
        output: The folder that mirrors it.
        ending: Of what is written.
        interrupt: Ctrl-C ends it after the pictures at hand.

    Raises:
        InputError: no picture there, or one that would be replaced.
    """
    found, problems = jobs(source, output, ending)
    for problem in problems:
        warn(problem)
    if not found:
        raise InputError(f"{source}: no picture in this folder")
    read = {os.path.realpath(job.source): job.name for job in found}
    for job in found:
        replaced = read.get(os.path.realpath(job.output))
        if replaced is not None:
            raise InputError(f"{output}: {job.name} would replace {replaced}, which is read; expected another folder")
    with contextlib.closing(Ledger(output)) as ledger:
        sweep(found, ledger)
        interrupt.begin()
        told = _Told(found, interrupt)
        count = min(brush.processes, len(found))
        try:
            alive = _alone(brush, ledger, told) if count == 1 else _together(brush, output, count, told)
        finally:
            told.close()
    return _ended(told, output, bool(problems), alive)


def _ended(told, output, problems, alive):
    counts, total = told.counts, told.total
    if told.interrupt.seen and told.waiting:
        command = f"{_program()} {shlex.join(sys.argv[1:])}"
        warn(f"interrupted: {counts['made'] + counts['kept']} of {total} pictures are done; go on with: {command}")
        return INTERRUPTED
    there = f", {counts['kept']} were there already" if counts["kept"] else ""
    others = f", {counts['taken']} another process has" if counts["taken"] else ""
    say(f"{output}: {counts['made']} of {total} pictures made{there}{others}")
    if told.failed:
        more = f" and {len(told.failed) - _NAMED} more" if len(told.failed) > _NAMED else ""
        warn(f"{len(told.failed)} of {total} failed: {', '.join(told.failed[:_NAMED])}{more}")
    if not alive:
        return OUR_FAULT
    return BAD_INPUT if told.failed or problems else DONE


def _program():
    name = os.path.basename(sys.argv[0])
    return os.environ.get("JNST_PROGRAM") or (f"python -m jnst.cli.{name[:-3]}" if name.endswith(".py") else name)


class _Told:
    """Which pictures are still to be made, and what was said of the others: a bar on a terminal, else lines."""

    def __init__(self, found, interrupt):
        self.waiting, self.total, self.interrupt = deque(found), len(found), interrupt
        self.counts, self.failed, self._again = dict.fromkeys(("made", "kept", "taken", "failed"), 0), [], set()
        self._bar = tqdm.tqdm(total=self.total, bar_format=_BAR, **bar_shape()) if on_terminal() else None
        self._remain()

    def next(self):
        """The next picture, or None: there is none, or Ctrl-C was seen."""
        return None if self.interrupt.seen or not self.waiting else self.waiting.popleft()

    def show(self, job, answer):
        state = answer["state"]
        if state == "taken" and job not in self._again:  # looked at once more at the end: its process may have died
            self._again.add(job)
            self.waiting.append(job)
            return
        self.counts[state] += 1
        for line in filter(None, (answer.get("note"), answer.get("why"))):
            with tqdm.tqdm.external_write_mode():
                warn(line)
        if state == "failed":
            self.failed.append(job.name)
        if self._bar is not None:
            self._bar.initial += state != "made"  # what took no time says nothing of the time that is left
            self._bar.update(1)
        elif state == "made":
            width, height = answer["size"]
            tiles = f", tiles of {answer['tile']}" if answer["tile"] else ""
            place = f"[{sum(self.counts.values())}/{self.total}]"
            say(f"{place} {job.name}: {width}x{height}{tiles}, {answer['seconds']:.2f} s")
        self._remain()

    def _remain(self):
        done = self.counts["made"] + self.counts["kept"]
        self.interrupt.remains = f": {done} of {self.total} pictures are done; the same command goes on"

    def close(self):
        if self._bar is not None:
            self._bar.close()


def _alone(brush, ledger, told):
    with brush.ready():
        while (job := told.next()) is not None:
            told.show(job, _one(brush, ledger, job))
    return True


def _one(brush: Brush, ledger: Ledger, job: Job) -> dict[str, object]:
    """Makes a picture unless it is there, or another process has it; what there is to say of it."""
    try:
        with ledger.claim(job.key) as mine:
            if not mine:
                return {"state": "taken"}
            digest = digest_of(job.source)
            facts = {**brush.facts, "input": digest}
            if ledger.made(job, facts):
                return {"state": "kept"}
            _make_folder(job.output)
            made = brush.make(job.source, job.output, digest)
            ledger.add(job, facts)
            return {"state": "made", **made._asdict()}
    except InputError as error:
        return {"state": "failed", "why": str(error)}


def _make_folder(path):
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _together(brush, output, count, told):
    """Hands the pictures out to `count` workers. Whether none of them ended before its time."""
    task = {"net": brush.net.path, "config": dataclasses.asdict(brush.config), "output": output, "processes": count}
    workers, alive = [], True
    try:
        with selectors.DefaultSelector() as selector:
            for cores in _shares(count):
                workers.append(_Worker({**task, "cores": cores}))
                selector.register(workers[-1].process.stdout, selectors.EVENT_READ, workers[-1])
            while selector.get_map():
                for key, _ in selector.select(_LOOK):
                    alive &= key.data.heard(told)
                    if key.data.ended:
                        selector.unregister(key.fileobj)
    except BaseException:
        for each in workers:
            each.process.kill()
        raise
    finally:
        for each in workers:
            each.leave()
    return alive


def _shares(count):
    """For each worker the cores that are its own; empty where nobody can say."""
    if not hasattr(os, "sched_getaffinity"):
        return [[]] * count
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return [[cores[index % len(cores)]] for index in range(count)]
    edges = [index * len(cores) // count for index in range(count + 1)]
    return [cores[first:last] for first, last in zip(edges, edges[1:], strict=False)]


class _Worker:
    """The parent's side of a worker."""

    def __init__(self, task):
        # Of a GPU's memory each takes its share, not three quarters as one alone does.
        share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / task['processes']:.3f}"}
        command = [sys.executable, "-P", "-m", "jnst.cli.sharing"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**share, **os.environ},
            start_new_session=True,
        )
        self._job, self.ended = None, False
        self._say(task)

    def _say(self, message):
        with contextlib.suppress(BrokenPipeError):  # it has gone: that is heard
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def heard(self, told):
        """Takes its answer and hands it the next picture. Whether it is well."""
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            self.ended = True
            if self._job is None:
                return self._left()
            told.show(self._job, {"state": "failed", "why": f"{self._job.source}: its process ended {self._how()}"})
            return False
        answer = json.loads(line)
        if answer["state"] == "refused":
            raise InputError(answer["why"])
        if self._job is not None:
            told.show(self._job, answer)
        self._job = told.next()
        if self._job is None:
            self.process.stdin.close()
        else:
            self._say(self._job)
        return True

    def _left(self):
        """Whether it went well, having no picture at hand; the others take what there is to do."""
        if self.process.wait() == 0:
            return True
        warn(f"one of the processes ended {self._how()}, with no picture at hand")
        return False

    def _how(self):
        code = self.process.wait()
        return f"by signal {-code}" if code < 0 else f"with code {code}"

    def leave(self):
        """Waits for its end."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def worker() -> int:
    """The worker's side; its stdin and stdout are the parent's. Returns the exit code."""
    task = json.loads(sys.stdin.readline())
    answers, sys.stdout = sys.stdout, sys.stderr
    answer = _answering(answers)
    if task["cores"]:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, task["cores"])  # before jax counts them
    with contextlib.suppress(BrokenPipeError), contextlib.ExitStack() as stack:
        try:
            brush = Brush(stylenets.load(task["net"]), ApplyConfig(**task["config"]))
            ledger = stack.enter_context(contextlib.closing(Ledger(task["output"])))
            stack.enter_context(brush.ready(processes=task["processes"]))
        except InputError as error:
            answer({"state": "refused", "why": str(error)})
            return BAD_INPUT
        answer({"state": "ready"})
        for line in sys.stdin:
            answer(_one(brush, ledger, Job(*json.loads(line))))
    return DONE


def _answering(stream) -> Callable[[object], None]:
    def answer(message):
        stream.write(json.dumps(message) + "\n")
        stream.flush()

    return answer


if __name__ == "__main__":
    sys.exit(worker())
