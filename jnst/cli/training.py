"""One training of `distill`, with all that surrounds it: what it reads, says, keeps on the way and leaves."""

import functools
import json
import time
from pathlib import Path

import jax

from jnst import api, files, heads, images, weights
from jnst.cli import checkpoint, download, flags, report
from jnst.cli.command import DONE, INTERRUPTED
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.cli.progress import Progress
from jnst.config import DistillConfig, split_list
from jnst.errors import InputError
from jnst.tasks import distill
from jnst.version import __version__
from jnst.weights import save_safetensors

__all__ = ["MADE", "run"]

MADE = "distilled by jnst"
"""How the origin of every file begins that was written here."""

_HELD_OUT = 20  # of so many pictures, in the order of their names, one is not trained on but scored on
_START = 128  # crops from which the student starts
_SCORED = 64  # crops that heads are fitted on, and as many that they are scored on


def run(config: DistillConfig, interrupt: Interrupt, *, resume: bool) -> int:
    """Trains a student and writes OUTPUT, its record, flagfile and checkpoints. Returns the exit code.

    Raises:
        InputError: something in the input is wrong, or another run is writing OUTPUT.
    """
    device = api.device_of(config.device)
    with jax.default_device(device), checkpoint.alone(config.output):
        say(f"device: {device.platform} ({device.device_kind})")
        return _Run(config, interrupt).work(resume)


class _Run:
    """What the parts of one training share."""

    def __init__(self, config, interrupt):
        self.config, self.interrupt = config, interrupt
        self.warn = functools.cache(warn)  # a broken picture is named once, whichever crops it was meant for
        self.chosen = flags.resolved(config)
        found = images.find(split_list(config.photos))
        self.unseen = list(dict.fromkeys(found))[::_HELD_OUT]
        held = set(self.unseen)
        self.photos = [path for path in found if path not in held]
        if not self.photos:
            raise InputError(
                f"--photos={config.photos}: one picture only; expected more, as 1 of {_HELD_OUT} is held out"
            )
        self.backbones, self.teachers, taught = [], [], set()
        wanted = config.layers
        for flag in filter(lambda flag: getattr(config, flag), ("teacher", "deep_teacher")):
            name = getattr(config, flag)
            backbone = weights.load(name, wanted, progress=download.Bar, flag=f"--{flag}=")
            layers = tuple(layer for layer in wanted if "conv" + layer[4:] in backbone.params and layer not in taught)
            taught.update(layers)
            if layers:
                self.backbones.append(backbone)
                self.teachers.append(distill.Teacher(backbone.params, layers))
                say(f"{name}: teaches {layers[0]} to {layers[-1]}")
                self._check_widths(backbone, layers)
        missing = [layer for layer in wanted if layer not in taught]
        if missing:
            raise InputError(
                f"--deepest={config.deepest}: no teacher has {missing[0]}; expected another --deep_teacher"
            )

    def _check_widths(self, backbone, layers):
        for layer in layers:
            width = self.config.block_widths[int(layer[4]) - 1]
            most = backbone.params["conv" + layer[4:]]["kernel"].shape[-1]
            if width > most:
                raise InputError(
                    f"--widths={self.config.widths}: {width} channels in {layer}; expected no more than the {most} "
                    f"that {backbone.name} has"
                )

    def work(self, resume):
        config = self.config
        say(f"photos: {len(self.photos)} to train on, {len(self.unseen)} held out")
        found = self._checkpoint(resume)
        self._crops(2, config.crop, unseen=True).batch(0)  # one of them at least can be read
        self.before = found.facts["seconds"] if found else 0.0
        self.start = time.perf_counter()
        if found is None:
            say("start: choosing channels")
        crops = [self._crops(1, config.crop).batch(index)[0] for index in range(0 if found else _START)]
        try:
            prepared = distill.prepare(self.teachers, crops, config, snapshot=found and found.snapshot)
        except ValueError as error:
            if found is None:
                raise
            path = checkpoint.path_of(config.output)
            raise InputError(f"{path}: does not fit this training; without --resume it starts anew") from error
        files.check_writable(config.output)
        report.sweep(config.output)
        result = self._train(jax.random.key(config.seed), prepared)
        if result.stopped:
            warn(f"interrupted after step {self.step}{self.interrupt.remains}")
            return INTERRUPTED
        self.interrupt.running = False  # all of it is kept: from here on Ctrl-C ends at once
        return self._leave(result)

    def _crops(self, stream, size, *, unseen=False, batch=1, zoom=1.25):
        paths = self.unseen if unseen else self.photos
        return images.Crops(paths, seed=self.config.seed + stream, size=size, batch=batch, zoom=zoom, warn=self.warn)

    def _checkpoint(self, resume):
        path = checkpoint.path_of(self.config.output)
        self.inputs = {f"teacher {index}": backbone.sha256 for index, backbone in enumerate(self.backbones)}
        self.inputs["photos"] = files.sha256_of_names(self.photos)
        if not resume:
            return None
        found = checkpoint.read(self.config.output)
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

    def _train(self, key, prepared):
        config, interrupt = self.config, self.interrupt
        done = int(prepared.state.step)
        progress = Progress(config.steps, config.print_every, done, terms=("total", "features", "grams"))
        crops = self._crops(0, config.crop, batch=config.batch, zoom=2.0)

        def callback(record):
            progress.show(record)
            self.step = record.step
            every = config.checkpoint_every
            if every and (interrupt.seen or record.step % every == 0 or record.step == record.steps):
                self._keep(record)
            return interrupt.seen

        interrupt.begin()
        try:
            return distill.run(key, prepared, crops.batch, callback=callback)
        finally:
            progress.close()

    def _keep(self, record):
        facts = {"flags": self.chosen, "inputs": self.inputs, "step": record.step, "seconds": self._seconds()}
        try:
            checkpoint.write(self.config.output, record.snapshot(), facts)
            report.write_flags(self.config.output, self.chosen)
        except InputError as error:  # no reason to lose the training
            warn(error)
            return
        self.interrupt.remains = f"; step {record.step} is kept, go on with the same flags and --resume"

    def _seconds(self):
        return round(self.before + time.perf_counter() - self.start, 1)

    def _leave(self, result):
        config = self.config
        say("scoring on pictures that were held out")
        size = config.crop * 3 // 2
        fitted, unseen = (
            [self._crops(2, size, unseen=held).batch(index)[0] for index in range(_SCORED)] for held in (False, True)
        )
        found, scores = distill.compare(result.params, self.teachers, fitted, unseen, config)
        for layer, (explained, cosine) in scores.items():
            say(f"{layer}  R2 {explained:.3f}  cosine of Gram matrices {cosine:.3f}")
        params = heads.balance(result.params, found)
        distinct = list(dict.fromkeys(backbone.licence for backbone in self.backbones if backbone.licence))
        save_safetensors(
            config.output,
            params,
            padding=config.padding,
            origin=f"{MADE} {__version__} from " + "; ".join(b.origin or Path(b.name).name for b in self.backbones),
            licence="; ".join(distinct),
            dtype="float16",
        )
        record = {
            "version": __version__,
            "teachers": [{"name": Path(b.name).name, "sha256": b.sha256} for b in self.backbones],
            "photos": {"trained": len(self.photos), "held_out": len(self.unseen)},
            "flags": self.chosen,
            "sha256": files.sha256_of(config.output),
            "scores": {
                layer: {"r2": round(r2, 4), "gram_cosine": round(cos, 4)} for layer, (r2, cos) in scores.items()
            },
            "trace": result.trace,
            "seconds": self._seconds(),
        }
        files.write_atomically(report.record_path(config.output), (json.dumps(record, indent=1) + "\n").encode())
        report.write_flags(config.output, self.chosen)
        say(f"{config.output}: written, {self._seconds():.0f} s; use it with --weights={config.output}")
        return DONE
