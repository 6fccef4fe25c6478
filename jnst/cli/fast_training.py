"""One training of `fast train`, of one network or of several, with all that surrounds it: what it reads, says, keeps on
the way and leaves."""

import dataclasses
import functools
import itertools
import shlex
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnst import api, bundled, files, images, network, objective, train, weights
from jnst.cli import checkpoint, download, fast_results, flags, plan, report
from jnst.cli.command import BAD_INPUT, DONE, INTERRUPTED
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.cli.progress import Progress
from jnst.cli.run import program
from jnst.cli.training_checkpoints import Checkpoints
from jnst.config import FAST_AXES, FastConfig, fast_runs, parse_axes, parse_layers, parse_mix, split_list
from jnst.errors import InputError
from jnst.nets import vgg
from jnst.tasks.fast import training
from jnst.types import Rates, Weights
from jnst.weights import stylenets

__all__ = ["run"]

_HELD_OUT = 20  # of so many photos, in the order of their names, one is not trained on but shown and scored on
_MOST_HELD_OUT = 64


def run(config: FastConfig, interrupt: Interrupt, *, resume: bool) -> int:
    """Trains and writes OUTPUT, its record, flagfile, sheet and checkpoints. Returns the exit code.

    Raises:
        InputError: something in the input is wrong, or another run is writing OUTPUT.
    """
    # Absolute, as a rerun from another folder has them: so they are called in records and checkpoints.
    style = flags.resolved(config)["style"]
    config = dataclasses.replace(config, style=style, axis=tuple(map(_with_places, config.axis)))
    device = api.device_of(config.device)
    with jax.default_device(device), checkpoint.alone(fast_results.base_of(config), shown=config.output):
        learning = _Learning(config, interrupt)
        try:
            return learning.work(resume)
        finally:
            learning.checkpoints.close()


class _Shown(NamedTuple):
    """A record as the progress wants it."""

    step: int
    steps: int
    terms: dict[str, float]


class _Learning:
    """What the parts of one training share."""

    def __init__(self, config, interrupt):
        self.config, self.interrupt, self.base = config, interrupt, fast_results.base_of(config)
        self.warn = functools.cache(warn)  # a broken photo is named once, whichever crops it was meant for
        self.chosen = flags.resolved(config)
        self.checkpoints = Checkpoints(self.base)
        self.axes, runs = fast_runs(config)
        self.nets = [self._net(run, place) for place, run in enumerate(runs)]
        self.failed, self.broken = set(), []

    def _net(self, run, place):
        styles = tuple(Path(name).stem for name in split_list(run.style))
        if not self.axes:
            return fast_results.Net(run, Path(run.output), Path(run.output).stem, styles)
        choices = list(itertools.product(*(plan.labels(axis) for axis in self.axes)))
        label = _label(self.axes, choices[place])
        labels = [plan.file_name(_label(self.axes, choice)) for choice in choices]
        name = plan.file_name(label) if labels.count(plan.file_name(label)) == 1 else f"{place + 1}_{labels[place]}"
        return fast_results.Net(run, Path(self.config.output) / f"{name}.safetensors", label, styles)

    def work(self, resume):
        config = self.config
        fast_results.check_places(config, self.nets)
        self.devices = api.devices_of(config.device)
        self.mesh = train.spread_over(self.devices, len(self.nets), config.batch)
        say(f"device: {self.devices[0].platform} ({self.devices[0].device_kind}) x {self.mesh.size}")
        self._read()
        found = self._checkpoint(resume)
        if found and found.facts["step"] >= config.steps and self._is_finished():
            say(f"{config.output}: finished already, at step {config.steps}")
            return DONE
        for path in (net.path for net in self.nets):
            files.check_writable(path)
        files.check_writable(report.record_path(self.base))
        for path in (self.base, fast_results.sheet_path(self.base), *(net.path for net in self.nets)):
            report.sweep(str(path))
        self.before = found.facts["seconds"] if found else 0.0
        self.start = time.perf_counter()
        prepared = self._prepared(found)
        result = self._train(prepared)
        if result.stopped and self.interrupt.seen:
            warn(f"interrupted after step {result.step}{self.interrupt.remains}")
            return INTERRUPTED
        self.interrupt.running = False  # all of it is kept: from here on Ctrl-C ends at once
        code = fast_results.leave(self, result, self._seconds())
        return BAD_INPUT if self.failed and code == DONE else code

    def _read(self):
        config = self.config
        found = list(dict.fromkeys(images.find(split_list(config.photos))))
        every = max(_HELD_OUT, len(found) // _MOST_HELD_OUT)
        chunks = (found[place : place + every] for place in range(0, len(found), every))
        self.unseen = [path for chunk in chunks if (path := next(filter(self._is_whole, chunk), None))]
        if not self.unseen:
            raise InputError(f"--photos={config.photos}: none of {len(found)} pictures can be read")
        apart = {*self.unseen, *self.broken}
        self.photos = [path for path in found if path not in apart]
        if self.photos:
            say(f"photos: {len(self.photos)} to train on, {len(self.unseen)} held out")
        else:
            self.photos = self.unseen
            say("photos: 1, both trained on and shown")
        layers = [
            *parse_layers("content_layers", config.content_layers, may_be_empty=True)[0],
            *parse_layers("style_layers", config.style_layers)[0],
        ]
        self.backbone = weights.load(config.weights, layers, source=config.source, progress=download.Bar)
        names = dict.fromkeys(name for net in self.nets for name in split_list(net.config.style))
        self.pictures = {name: images.load(name) for name in names}
        for picture in self.pictures.values():
            if picture.note:
                say(picture.note)
        self.started = stylenets.load(config.start) if config.start else None
        self.spec = training.Spec(
            net=self._architecture(),
            objective=config.objective(self.backbone.padding),
            training=config.training,
            together=config.together,
        )
        styles = len(split_list(config.style)) if config.conditional else 1
        several = f", of {styles} styles" if config.conditional else ""
        say(
            f"networks: {len(self.nets)}{several}  widths: {','.join(map(str, self.spec.net.widths))}  "
            f"blocks: {self.spec.net.blocks}  weights: {self.backbone.name}  steps: {config.steps}"
        )
        self.inputs = {
            "weights": self.backbone.sha256,
            "photos": files.sha256_of_names(self.photos),
            **{f"style {name}": files.sha256_of(_place(name)) for name in names},
            **({"start": self.started.sha256} if self.started else {}),
        }

    def _is_whole(self, path):
        try:
            images.load(path)
        except InputError as error:
            self.warn(f"skipped: {error}")
            self.broken.append(path)
            return False
        return True

    def _is_finished(self):
        """Whether all that this very training leaves is there: its record is written last."""
        record = report.read_record(self.base)
        if not record or record["inputs"] != self.inputs or not all(net.path.is_file() for net in self.nets):
            return False
        try:
            path = report.record_path(self.base)
            checkpoint.check_same_flags(path, record["flags"], self.chosen, growing=())
        except InputError:
            return False
        return True

    def _architecture(self):
        net = self.config.net
        if self.started is None:
            return net
        own = self.started.spec
        for field in dataclasses.fields(net):
            name, asked = field.name, getattr(net, field.name)
            if name != "styles" and asked not in (field.default, getattr(own, name)):
                asked, has = (",".join(map(str, x)) if isinstance(x, tuple) else x for x in (asked, getattr(own, name)))
                raise InputError(f"--{name}={asked}: --start={self.config.start} has {has}; expected that, or no flag")
        return dataclasses.replace(own, styles=net.styles)

    def crops(self, stream, *, unseen=False, batch=1, zoom=1.0, size=0):
        """A loader of photos, by seed and stream."""
        config, paths = self.config, self.unseen if unseen else self.photos
        size = size or config.size
        return images.Crops(paths, seed=config.seed + stream, size=size, batch=batch, zoom=zoom, warn=self.warn)

    def _checkpoint(self, resume):
        path = self.checkpoints.path
        if not resume:
            step = self.checkpoints.step_of_another()
            if step is not None:
                say(f"{path} is of an earlier training, at step {step}: this one starts anew (--resume would go on)")
            return None
        found = self.checkpoints.read()
        if found is None:
            say(f"{path}: no checkpoint: the training starts anew")
            return None
        checkpoint.check_same_flags(path, found.facts["flags"], self.chosen, growing=())
        for name, digest in self.inputs.items():
            if found.facts["inputs"].get(name) != digest:
                raise InputError(
                    f"--{name.split()[0]}: not what it was when {path} was written; expected the same with --resume"
                )
        say(f"going on from step {found.facts['step']}")
        return found

    def _prepared(self, found):
        config = self.config
        layers = objective.layers_of(self.spec.objective)
        pictures = [jnp.asarray(picture.opaque()) for picture in self.pictures.values()]
        standardize = config.weights.partition(":")[0] == "random"
        how = self.spec.objective
        self.loss = network.network(
            self.backbone.params, pictures, layers, pooling=how.pooling, padding=how.padding, standardize=standardize
        )
        self.choices = [self._choice(net.config) for net in self.nets]
        key = jax.random.key(config.seed)
        start = self.started and _with_styles(self.started, self.spec.net.styles)
        snapshot = found and found.snapshot
        try:
            return training.prepare(
                key, self.loss, self.choices, self.spec, mesh=self.mesh, start=start, snapshot=snapshot
            )
        except ValueError as error:
            if found is None:
                raise
            path = self.checkpoints.path
            raise InputError(f"{path}: does not fit this training; without --resume it starts anew") from error

    def _choice(self, config):
        names = split_list(config.style)
        pictures = [self.pictures[name] for name in names]
        sized = [images.resize(picture, images.fit(picture.size, config.style_size)).opaque() for picture in pictures]
        how = self.spec.objective
        least = vgg.min_size(how.style_layers, how.padding)
        for name, style in zip(names, sized, strict=True):
            short = min(style.shape[:2])
            if short < least:
                raise InputError(
                    f"--style_size={config.style_size}: {Path(name).name} has a side of {short} pixels then; expected "
                    f"at least {least}"
                )
        numbers = (config.content_weight, config.style_weight, config.tv_weight)
        layers = (
            parse_layers("content_layers", config.content_layers, may_be_empty=True)[1],
            parse_layers("style_layers", config.style_layers)[1],
        )
        chosen = Weights(*map(jnp.float32, numbers), *(jnp.asarray(each, jnp.float32) for each in layers))
        mix = None if config.conditional else parse_mix(config.style_mix, len(names))
        rates = Rates(learning_rate=jnp.float32(config.learning_rate))
        return training.style_choice(self.loss, sized, mix, chosen, rates, self.spec.objective)

    def _train(self, prepared):
        config, interrupt = self.config, self.interrupt
        done = int(np.asarray(prepared.state.step).flat[0])
        progress = Progress(config.steps, config.print_every, done, terms=training.TERMS)
        # What is shown must be fetched, which on a GPU makes the next step wait.
        often = 1 if self.devices[0].platform == "cpu" else 10

        def callback(record):
            last = record.step == record.steps
            if last or record.step % often == 0 or (config.print_every and record.step % config.print_every == 0):
                rows = record.terms()
                progress.show(_Shown(record.step, record.steps, fast_results.means(rows)))
                if not any(np.isfinite(row["total"]) for row in rows):
                    return True
            if config.save_every and record.step % config.save_every == 0 and not last:
                place = report.intermediate(str(fast_results.sheet_path(self.base)), record.step)
                self._try(lambda: images.save(place, fast_results.sheet(self, record.variables())))
            every = config.checkpoint_every
            if every and (interrupt.seen or last or record.step % every == 0):
                self._try(lambda: self._keep(record))
            return interrupt.seen

        if not config.checkpoint_every:
            interrupt.remains = "; nothing of it is kept, with --checkpoint_every=0"
        interrupt.begin()
        crops = self.crops(0, batch=config.batch, zoom=config.zoom)
        try:
            with images.Ahead(crops.batch, stop=config.steps) as source:
                key = jax.random.key(config.seed)
                return training.run(key, prepared, source, print_every=config.print_every, callback=callback)
        finally:
            progress.close()

    def _try(self, write):
        """A file on the way that cannot be written is no reason to lose the training."""
        try:
            write()
        except InputError as error:
            if str(error) not in self.failed:
                warn(error)
            self.failed.add(str(error))

    def _keep(self, record):
        facts = {"flags": self.chosen, "inputs": self.inputs, "step": record.step, "seconds": self._seconds()}
        self.checkpoints.write(record.snapshot(), facts)
        report.write_flags(self.base, self.chosen)
        again = f"{program()} train {shlex.quote(f'--flagfile={report.flags_path(self.base)}')} --resume"
        self.interrupt.remains = f"; step {record.step} is kept, go on with: {again}"

    def _seconds(self):
        return round(self.before + time.perf_counter() - self.start, 1)


def _with_places(text):
    """An axis with absolute paths: what a rerun from another folder needs."""
    flag, _, _ = text.partition("=")
    if flag.strip() != "style":
        return text
    (axis,) = parse_axes((text,), of=FastConfig, among=FAST_AXES)
    values = [flags.resolved(FastConfig(style=flags.at_home("style", value)))["style"] for value in axis.values]
    return f"style={';'.join(values)};"


def _label(axes, texts):
    """What a network of several is called: by what it has of its own."""
    if [axis.flag for axis in axes] == ["style"]:
        return texts[0]
    return ",".join(f"{axis.flag}={text}" for axis, text in zip(axes, texts, strict=True))


def _place(name):
    return bundled.find(name, "examples", ("", ".jpg", ".png"))


def _with_styles(started, count):
    """Its variables with rows for so many styles: its own where they are as many, else each the mean of them."""

    def rows(path, leaf):
        leaf = np.asarray(leaf)
        if path[-1].key not in ("scale", "shift") or len(leaf) == count:
            return leaf
        return np.repeat(leaf.mean(0, keepdims=True), count, 0)

    return jax.tree_util.tree_map_with_path(rows, dict(started.variables))
