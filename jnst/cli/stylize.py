"""`stylize`: two pictures in, one out."""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence

from jnst import bundled, files
from jnst.cli import flags
from jnst.cli.command import BAD_INPUT, DIVERGED, DONE, INTERRUPTED, guard, start
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say, warn
from jnst.config import StylizeConfig, check, check_config, split_list
from jnst.errors import InputError
from jnst.version import __version__

__all__ = ["main"]

USAGE = """\
usage: stylize --content=PHOTO --style=PAINTING --output=PICTURE [flags]

  stylize --flagfile=quickstart
  stylize --content=photo.jpg --style=painting.jpg --output=out.png --size=512
  stylize --content=photo.jpg --style=a.jpg,b.jpg --style_mix=0.3,0.7 --output=out.png
  stylize --flagfile=out.flags                  makes out.png again
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 3 diverged, 130 Ctrl-C."""
    interrupt = Interrupt()

    def interrupted():
        when = "at once; the picture is not" if interrupt.running else "before there was a picture; nothing"
        return f"interrupted {when} written"

    return guard(lambda: _main(sys.argv if argv is None else argv, interrupt), interrupted)


def _main(argv, interrupt):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags; presets: " + ", ".join(bundled.names("presets", ".flags")))
        return DONE
    dry_run = {"dry_run": "Print size, memory and estimated time, then stop."}
    parsed = start(StylizeConfig, argv, USAGE, switches=dry_run)
    if parsed is None:
        return DONE
    with interrupt:
        values, _ = parsed
        config = flags.to_config(StylizeConfig, values)
        _check_flags(config)
        return _stylize(config, interrupt, dry_run=values.dry_run)


def _stylize(config, interrupt, dry_run):
    # Late: what is wrong with the flags is said without waiting for jax.
    from jnst import api, images
    from jnst.cli import cache, report

    cache.use()
    with api.computing(config) as device:
        say(f"device: {device.platform} ({device.device_kind})")
        inputs = _read_inputs(config, dry_run)
        pictures = (inputs.content, *inputs.styles, inputs.init)
        for note in dict.fromkeys(picture.note for picture in pictures if picture and picture.note):
            say(note)
        images.check_encodable(inputs.content.size, images.format_of(config.output), bit_depth=config.bit_depth)
        if not dry_run:
            for path in report.outputs(config.output, config.steps if config.save_every else 0):
                files.check_writable(path)
        say(_summary(inputs, config))
        if dry_run:
            from jnst.cli import estimate

            say(estimate.describe(inputs, config))
            return DONE
        start = time.perf_counter()
        prepared = api.prepare(inputs, config)
        compile_seconds = time.perf_counter() - start
        return _run(config, inputs, prepared, interrupt, f"{device.platform} ({device.device_kind})", compile_seconds)


def _read_inputs(config, dry_run):
    from jnst import api
    from jnst.cli import download
    from jnst.weights import fetch

    if dry_run and config.weights in fetch.DOWNLOADS and not fetch.here(config.weights):
        say(f"{config.weights} is not here: a run would first {download.describe(fetch.DOWNLOADS[config.weights])}")
        config = dataclasses.replace(config, weights="random")  # of the same widths, so the same costs
    return api.read_inputs(config, progress=download.Bar)


def _run(config, inputs, prepared, interrupt, device, compile_seconds):
    from jnst import images
    from jnst.cli import report
    from jnst.cli.progress import Progress
    from jnst.images import Picture
    from jnst.tasks import stylize as task

    chosen = flags.resolved(config)
    weights = {"name": inputs.backbone.name, "sha256": inputs.backbone.sha256}
    text = report.embedded(chosen, weights)
    progress, unsaved = Progress(config.steps, config.print_every), []

    def callback(record):
        progress.show(record)
        if config.save_every and record.step and record.step % config.save_every == 0:
            picture = Picture(record.image(), inputs.content.alpha)
            try:
                images.save(report.intermediate(config.output, record.step), picture, text, bit_depth=config.bit_depth)
            except InputError as error:  # no reason to lose the run
                warn(error)
                unsaved.append(record.step)
        return interrupt.seen

    start = time.perf_counter()
    interrupt.begin()
    try:
        result = task.run(prepared, callback=callback)
    finally:
        progress.close()
    interrupt.finish()
    run_seconds = time.perf_counter() - start
    if result.stopped == "diverged":
        warn(f"diverged: the {result.bad_term} term is not finite at step {result.bad_step}")
    if result.image is None:
        warn(f"{config.output}: nothing written: not even the start has a finite loss")
        return DIVERGED
    picture = Picture(result.image, inputs.content.alpha)
    images.save(config.output, picture, text, bit_depth=config.bit_depth)
    report.write_flags(config.output, chosen)
    record = {
        "version": __version__,
        "device": device,
        "weights": weights,
        "flags": chosen,
        "size": list(inputs.content.size),
        "best_step": result.best_step,
        "stopped": result.stopped,
        "trace": result.trace,
        "compile_seconds": round(compile_seconds, 3),
        "run_seconds": round(run_seconds, 3),
    }
    if result.stopped == "diverged":
        record["diverged"] = {"step": result.bad_step, "term": result.bad_term}
    report.write_record(config.output, record)
    kind = (
        f"the best picture so far (step {result.best_step})" if result.stopped else f"best at step {result.best_step}"
    )
    say(f"{config.output}: {kind}, {run_seconds:.1f} s")
    if result.stopped == "interrupted":
        warn(f"interrupted after step {result.trace[-1]['step']}: {config.output} holds {kind}")
    return {"": BAD_INPUT if unsaved else DONE, "interrupted": INTERRUPTED, "diverged": DIVERGED}[result.stopped]


def _check_flags(config):
    """What can be wrong with the flags alone, before jax is loaded or a file is touched."""
    check(config)
    for name in ("content", "style", "output"):
        if not getattr(config, name):
            raise InputError(f"--{name} is missing: expected a picture file (no arguments at all show an example)")
    check_config(config, count=len(split_list(config.style)))
    from jnst import images
    from jnst.cli import report

    images.format_of(config.output, bit_depth=config.bit_depth)
    for name, value in flags.resolved(config).items():
        if name in flags.PATHS and not _fits_a_line(value):
            raise InputError(f"--{name}={value!r}: expected a name in UTF-8 without line breaks")
    given = [config.content, *split_list(config.style), config.init, config.weights]
    outputs = report.outputs(config.output, 0)
    places = [os.path.realpath(path) for path in outputs]
    for name in filter(os.path.exists, given):
        written = os.path.realpath(name) in places
        if written or (config.save_every and report.is_intermediate(config.output, name)):
            raise InputError(f"--output={config.output}: would replace {name}, which is read; expected another name")
    for path in outputs:
        files.check_place(path)
        if path.suffix in (".json", ".flags") and bundled.is_file(path) and not report.is_ours(path):
            raise InputError(
                f"--output={config.output}: would replace {path}, which no run of jnst wrote; expected another name"
            )


def _fits_a_line(name):
    """Whether a file name could stand in OUTPUT.flags."""
    try:
        return len(name.encode().splitlines()) <= 1
    except UnicodeEncodeError:
        return False


def _summary(inputs, config):
    width, height = inputs.content.size
    styles = ", ".join("{}x{}".format(*style.size) for style in inputs.styles)
    return f"content: {width}x{height}  style: {styles}  weights: {inputs.backbone.name}  steps: {config.steps}"


if __name__ == "__main__":
    sys.exit(main())
