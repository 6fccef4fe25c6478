"""`distill`: a small backbone out of a large one and folders of pictures."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jnst import files
from jnst.cli import flags
from jnst.cli.command import DONE, INTERRUPTED, guard, start
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.config import DistillConfig, check, split_list
from jnst.errors import InputError
from jnst.version import __version__

__all__ = ["main"]

USAGE = """\
usage: distill --photos=FOLDER,... --teacher=WEIGHTS --output=SMALL.safetensors [flags]

  distill --flagfile=mini --photos=photos,paintings --output=out/mini.safetensors
  distill --flagfile=out/mini.flags --resume    goes on with it where it was stopped
"""

_SWITCHES = {"resume": "Go on from OUTPUT's checkpoint, to the same bytes as a training that was never interrupted."}

_HELD_OUT = 20  # of so many pictures, in the order of their names, one is not trained on but scored on
_START = 128  # crops from which the student starts
_SCORED = 64  # crops that heads are fitted on, and as many that they are scored on


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 130 Ctrl-C."""
    interrupt = Interrupt()
    return guard(
        lambda: _main(sys.argv if argv is None else argv, interrupt), lambda: f"interrupted{interrupt.remains}"
    )


def _main(argv, interrupt):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags")
        return DONE
    parsed = start(DistillConfig, argv, USAGE, switches=_SWITCHES)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(DistillConfig, values)
        _check_flags(config)
        # Late: what is wrong with the flags is said without waiting for jax.
        import jax

        from jnst import api
        from jnst.cli import cache, checkpoint

        cache.use()
        device = api.device_of(config.device)
        with jax.default_device(device), checkpoint.alone(config.output):
            say(f"device: {device.platform} ({device.device_kind})")
            return _Run(config, interrupt).work(resume=values.resume)


def _check_flags(config):
    """What can be wrong with the flags alone."""
    check(config)
    for name in ("photos", "teacher", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing (no arguments at all show an example)")
    config.check()
    if Path(config.output).suffix != ".safetensors":
        raise InputError(f"--output={config.output}: expected a name that ends in .safetensors")
    files.check_place(config.output)


class _Run:
    """What the parts of one training share."""

    def __init__(self, config, interrupt):
        from jnst import images, weights
        from jnst.cli import download
        from jnst.tasks.distill import Teacher

        self.config, self.interrupt = config, interrupt
        self.chosen = flags.resolved(config)
        found = images.find(split_list(config.photos))
        self.unseen = list(dict.fromkeys(found))[::_HELD_OUT]
        self.photos = [path for path in found if path not in set(self.unseen)]
        if not self.photos:
            raise InputError(
                f"--photos={config.photos}: one picture only; expected more, as 1 of {_HELD_OUT} is held out"
            )
        self.backbones, self.teachers, taught = [], [], set()
        wanted = config.layers
        for name in filter(None, (config.teacher, config.deep_teacher)):
            backbone = weights.load(name, wanted, progress=download.Bar, flag="--teacher=")
            layers = tuple(layer for layer in wanted if "conv" + layer[4:] in backbone.params and layer not in taught)
            taught.update(layers)
            if layers:
                self.backbones.append(backbone)
                self.teachers.append(Teacher(backbone.params, layers))
                say(f"{name}: teaches {layers[0]} to {layers[-1]}")
        missing = [layer for layer in wanted if layer not in taught]
        if missing:
            raise InputError(
                f"--deepest={config.deepest}: no teacher has {missing[0]}; expected another --deep_teacher"
            )

    def work(self, *, resume):
        import jax

        from jnst.tasks import distill

        config = self.config
        say(f"photos: {len(self.photos)} to train on, {len(self.unseen)} held out")
        found = self._checkpoint(resume)
        files.check_writable(config.output)
        self.before = found.facts["seconds"] if found else 0.0
        self.start = time.perf_counter()
        if found is None:
            say("start: choosing channels")
        crops = [self._crops(1, config.crop).batch(index)[0] for index in range(0 if found else _START)]
        try:
            prepared = distill.prepare(self.teachers, crops, config, snapshot=found and found.snapshot)
        except ValueError as error:
            raise InputError(f"{config.output}: {error}") from error
        result = self._train(distill, jax.random.key(config.seed), prepared)
        if result.stopped:
            warn(f"interrupted after step {result.trace[-1]['step']}{self.interrupt.remains}")
            return INTERRUPTED
        return self._leave(distill, result)

    def _crops(self, stream, size, *, unseen=False, batch=1, zoom=1.25):
        from jnst import images

        paths = self.unseen if unseen else self.photos
        return images.Crops(paths, seed=self.config.seed + stream, size=size, batch=batch, zoom=zoom, warn=warn)

    def _checkpoint(self, resume):
        from jnst.cli import checkpoint

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

    def _train(self, distill, key, prepared):
        from jnst.cli.progress import Progress

        config, interrupt = self.config, self.interrupt
        done = int(prepared.state.step)
        progress = Progress(config.steps, config.print_every, done, terms=("total", "features", "grams"))
        crops = self._crops(0, config.crop, batch=config.batch, zoom=2.0)

        def callback(record):
            progress.show(record)
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
        from jnst.cli import checkpoint, report

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

    def _leave(self, distill, result):
        from jnst import heads
        from jnst.cli import report
        from jnst.weights import save_safetensors

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
            origin=f"distilled by jnst {__version__} from "
            + "; ".join(b.origin or Path(b.name).name for b in self.backbones),
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


if __name__ == "__main__":
    sys.exit(main())
