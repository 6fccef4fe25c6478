"""`fast apply` of a film: each frame in one pass, with its sound.

Three things go on at once: ffmpeg's frames are gathered ahead, a batch is painted, and the one before goes to the
ffmpeg that writes. A film appears whole or not at all, and does not resume.
"""

import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tqdm

from jnst import files
from jnst.cli import brush, checkpoint, ffmpeg, report
from jnst.cli.command import DONE, INTERRUPTED
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import bar_shape, on_terminal, say, warn
from jnst.config import ApplyConfig
from jnst.errors import InputError
from jnst.weights.stylenets import StyleNet

if TYPE_CHECKING:  # --help does without
    import jax

__all__ = ["is_film", "run"]

_AHEAD = 2  # batches that wait on either side


def is_film(source: str, output: str) -> bool:
    """Whether SOURCE is a film by its name; a .gif is one where OUTPUT is to be one.

    >>> is_film("a.mp4", "b.png"), is_film("a.gif", "b.png"), is_film("a.gif", "b.gif"), is_film("a.png", "b.mp4")
    (True, False, True, False)
    """
    before, after = (Path(name).suffix.lower() for name in (source, output))
    return before in ffmpeg.FILMS and (before != ".gif" or after in ffmpeg.WRITABLE)


def run(net: StyleNet, config: ApplyConfig, source: str, output: str, mix: np.ndarray, interrupt: Interrupt) -> int:
    """Paints the film SOURCE into OUTPUT. Returns the exit code.

    Args:
        net: The network.
        config: The flags.
        source: A film.
        output: The film to write.
        mix: `[styles]`, the share of each style.
        interrupt: Ctrl-C ends the film: nothing is written then.

    Raises:
        InputError: ffmpeg is not here, SOURCE cannot be read, or OUTPUT cannot be written.
    """
    _check(config, source, output)
    film = ffmpeg.probe(source)
    with _named_by_place(), checkpoint.alone(output):
        files.check_writable(output)
        report.sweep(output)
        interrupt.remains = f"; {output} is not written, and a film does not resume"
        try:
            return _Film(net, config, film, output, mix, interrupt).work_through()
        except _Stopped as stop:
            warn(f"interrupted after {stop}{interrupt.remains}")
            return INTERRUPTED


def _check(config, source, output):
    if Path(output).suffix.lower() not in ffmpeg.WRITABLE:
        raise InputError(f"{output}: of a film; expected an ending of {', '.join(ffmpeg.WRITABLE)}")
    if config.tile not in ("auto", "0"):
        raise InputError(f"--tile={config.tile}: frames of a film are painted whole; expected auto or 0")
    if config.bit_depth != 8:
        raise InputError(f"--bit_depth={config.bit_depth}: films have 8 bits here; expected 8")
    ffmpeg.check_programs(source)
    if os.path.realpath(source) == os.path.realpath(output):
        raise InputError(f"{output}: is the film that is read; expected another name")


@contextlib.contextmanager
def _named_by_place():
    """OUTPUT is a place in the line, no flag."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).removeprefix("--output=")) from error


class _Stopped(Exception):  # noqa: N818 - it is no error
    """Ctrl-C; says how far it was."""


class _Film:
    """What the parts of one film share."""

    def __init__(self, net, config, film, output, mix, interrupt):
        self.net, self.config, self.film, self.output = net, config, film, output
        self.mix, self.interrupt = mix, interrupt

    def work_through(self):
        import jax

        from jnst import api, memory
        from jnst.cli import cache

        start = time.perf_counter()
        cache.use()
        device = api.device_of(self.config.device)
        try:
            with jax.default_device(device):
                self.variables = jax.device_put(self.net.variables, device)  # once, not for each batch
                count, size, trouble = self._paint()
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not memory.is_out_of_memory(error):
                raise
            raise self._too_large() from error
        self._tell(count, trouble)
        say(f"{self.output}: {count} frames of {size[1]}x{size[0]}, {time.perf_counter() - start:.1f} s")
        return DONE

    def _too_large(self, size=""):
        return InputError(
            f"{self.film.path}: a frame{size} needs more memory than there is; expected a smaller --size or "
            "--frames_at_once"
        )

    def _tell(self, count, trouble):
        """A film that is damaged, or ends early, is painted as far as it goes."""
        told = self.film.frames
        of = f" of {told}" if told else ""
        if trouble:
            warn(f"{self.film.path}: damaged ({trouble}); {count}{of} frames could be read, and are painted")
        elif count < 0.95 * told - 1:
            warn(f"{self.film.path}: ends after frame {count}{of}; those are painted")

    def _paint(self):
        """The number and size of the frames, and what ffmpeg had to say of them."""
        with ffmpeg.Reader(self.film, self.config.size) as reader, files.replacing(self.output) as temporary:
            frames = iter(reader)
            first = next(frames, None)
            if first is None:
                raise InputError(f"{self.film.path}: cannot be read: {reader.said() or 'no frames'}")
            size = first.shape[:2]
            at_once = self._at_once(size)
            say(
                f"{self.film.path}: {self.film.frames or 'an unknown number of'} frames, {float(self.film.rate):.6g} "
                f"a second, {size[1]}x{size[0]}"
            )
            frames = itertools.chain([first], frames)
            with (
                ffmpeg.Writer(temporary, self.output, size, self.film) as writer,
                _Ahead(_batches(frames, at_once), reader.stop) as batches,
                _Behind(lambda batch: self._write(writer, *batch), writer.stop) as behind,
                _Progress(self.film.frames) as progress,
            ):
                count = self._through(batches, behind, progress)
                self.interrupt.finish()  # the last frames, which take a moment: Ctrl-C waits for them
                behind.finish()
                writer.finish()
            return count, size, reader.said()

    def _at_once(self, size):
        """Frames in one pass: as many as were asked for and there are, and there is memory for."""
        from jnst import api

        room, asked = api.room(self.config.device), self.config.frames_at_once
        asked = min(asked, self.film.frames or asked)
        fitting = asked if room is None else room // brush.bytes_of(size, self.net.spec)
        if not fitting:
            raise self._too_large(f" of {size[1]}x{size[0]}")
        if fitting < asked:
            say(f"{fitting} frames at once: there is memory for no more")
        return min(asked, fitting)

    def _through(self, batches, behind, progress):
        """Paints all batches; the number of frames."""
        count, before = 0, None
        for frames, number in batches:
            painted, finite = self._painted(frames)
            if not count:
                self.interrupt.begin()
            # What was painted before is fetched while the device is at this one.
            if before is not None:
                behind.put(before)
            before, count = (painted, finite, number), count + number
            progress.show(behind.done)
            if self.interrupt.seen:
                raise _Stopped(f"frame {count}" + f" of {self.film.frames}" * bool(self.film.frames))
        behind.put(before)
        return count

    def _painted(self, frames) -> "tuple[jax.Array, jax.Array]":
        """`[N, H, W, 3]` uint8 to the same, and whether all is finite; perhaps still being computed."""
        import jax.numpy as jnp

        from jnst.tasks.fast import painting

        photos = jnp.asarray(frames).astype(jnp.float32) / 255
        config = self.config
        painted = painting.paint(
            self.variables,
            photos,
            self.mix,
            self.net.spec,
            strength=config.strength,
            preserve_color=config.preserve_color,
        )
        return jnp.rint(painted * 255).astype(jnp.uint8), jnp.isfinite(painted).all()

    def _write(self, writer, painted, finite, number):
        if not finite:
            raise InputError(
                f"{self.film.path}: {self.net.name} gives numbers that are not finite; expected another network"
            )
        writer.write(np.asarray(painted)[:number])
        return number


def _batches(frames: Iterable[np.ndarray], count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Batches `[count, H, W, 3]` and how many of each are frames: the last is filled up, so that one program serves.

    >>> [(batch.shape, number) for batch, number in _batches([np.zeros((2, 3, 3))] * 3, 2)]
    [((2, 2, 3, 3), 2), ((2, 2, 3, 3), 1)]
    """
    frames = iter(frames)
    while found := list(itertools.islice(frames, count)):
        yield np.stack([*found, *[found[-1]] * (count - len(found))]), len(found)


class _Side:
    """A thread beside the main one, with a bounded queue between; an error ends both.

    `release` ends whatever the thread may be waiting for.
    """

    def __init__(self, release: Callable[[], None]):
        self._release, self._queue, self._over = release, queue.Queue(_AHEAD), threading.Event()
        self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def _run(self):
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the main thread
            self.error = error
        finally:
            self._over.set()

    def _put(self, item):
        """False where the other side has ended."""
        while not self._over.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return True
        return False

    def __exit__(self, *error):
        self._over.set()
        if self._thread.is_alive():
            self._release()
            self._thread.join()


class _Ahead(_Side):
    """Goes through an iterable some steps ahead."""

    def __init__(self, items: Iterable[object], release: Callable[[], None]):
        super().__init__(release)
        self._items = items

    def _work(self):
        for item in self._items:
            if not self._put(item):
                return

    def __iter__(self):
        while True:
            over = self._over.is_set()  # before the look: what was put last is then seen
            try:
                item = self._queue.get(timeout=0.1)
            except queue.Empty:
                if over:
                    break
                continue
            yield item
        if self.error is not None:
            raise self.error


class _Behind(_Side):
    """Consumes what is put, some steps behind; `done` is the sum of what `consume` returns."""

    def __init__(self, consume: Callable[[object], int], release: Callable[[], None]):
        super().__init__(release)
        self._consume, self.done = consume, 0

    def _work(self):
        while not self._over.is_set():
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=0.1)
                if item is None:
                    return
                self.done += self._consume(item)

    def put(self, item: object) -> None:
        """Raises what ended the thread, if it has ended."""
        if not self._put(item):
            raise self.error

    def finish(self) -> None:
        """Waits until all is consumed."""
        if self._put(None):
            self._thread.join()
        if self.error is not None:
            raise self.error


class _Progress:
    """Frames, with the time left: a bar on a terminal, a line at each tenth in a log."""

    def __init__(self, frames: int):
        shape = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} frames {remaining} left" if frames else None
        bar = {"total": frames or None, "unit": " frames", "bar_format": shape}
        self._bar = tqdm.tqdm(**bar, **bar_shape()) if on_terminal() else None
        self._frames, self._told, self._first = frames, 0, None

    def __enter__(self):
        return self

    def show(self, done: int) -> None:
        """So many are written."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            return
        now = time.perf_counter()
        if self._first is None and done:  # compiling says nothing of how fast it goes
            self._first = done, now
        step = 10 * done // self._frames if self._frames else done // 100
        if self._first is None or done == self._first[0] or step <= self._told or done == self._frames:
            return
        self._told = step
        before, start = self._first
        left = round((now - start) / (done - before) * max(0, self._frames - done))
        say(f"frame {done}" + (f"/{self._frames}  {left // 60}:{left % 60:02d} left" if self._frames else ""))

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()
