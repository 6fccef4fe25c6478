"""`weights`: fetch a backbone, convert one to jnst's own file, look into one."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from jnst import bundled, files
from jnst.cli import flags
from jnst.cli.command import DONE, guard, start
from jnst.cli.lines import say
from jnst.config import WeightsConfig, check
from jnst.errors import InputError

__all__ = ["main"]

USAGE = """\
usage: weights fetch NAME | convert FILE [--output=...] | inspect FILE [--output=...]

  weights fetch vgg19                           the Oxford VGG-19, once; then --weights=vgg19 works offline
  weights convert vgg19-dcbb9e9d.pth            to jnst's own file; then --weights=vgg19-dcbb9e9d works anywhere
  weights inspect vgg19.npz                     layers and numbers, and a picture of the first layer's filters

FILE: .safetensors, .npz, .pth (PyTorch), .h5 (Keras) or .mat (MatConvNet).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 done, 1 our fault, 2 the user's input, 130 Ctrl-C."""
    return guard(lambda: _main(sys.argv if argv is None else argv), lambda: "interrupted; nothing written")


def _main(argv):
    if len(argv) == 1:
        print(USAGE + "\n  --help lists the flags")
        return DONE
    parsed = start(WeightsConfig, argv, USAGE, words=2)
    if parsed is None:
        return DONE
    values, words = parsed
    config = flags.to_config(WeightsConfig, values)
    check(config)
    if not words or words[0] not in _WORK:
        raise InputError(f"{words[0] if words else 'no command'!r}: expected one of {', '.join(_WORK)}")
    if len(words) == 1:
        raise InputError(f"{words[0]}: expected {'a name, such as vgg19' if words[0] == 'fetch' else 'a weights file'}")
    for name, command in (("url", "fetch"), ("source", "convert inspect"), ("output", "convert inspect")):
        if getattr(config, name) != getattr(WeightsConfig, name) and words[0] not in command.split():
            raise InputError(f"--{name}={getattr(config, name)}: {words[0]} takes no such flag")
    _WORK[words[0]](os.path.expanduser(words[1]), config)
    return DONE


def _fetch(name, config):
    from jnst.cli import download
    from jnst.weights import fetch

    if name not in fetch.DOWNLOADS:
        raise InputError(f"fetch {name}: expected one of {', '.join(fetch.DOWNLOADS)}")
    there = fetch.here(name)
    path = fetch.fetch(name, url=config.url, progress=download.Bar)
    say(f"{path}: {'was here' if there else 'fetched'}, {fetch.DOWNLOADS[name].hash} is right")
    say(f"SHA-256 {files.sha256_of(path)}")
    say(f"use it with --weights={name}")


def _convert(name, config):
    from jnst.weights import save_safetensors
    from jnst.weights.canonical import read_facts

    if name.partition(":")[0] == "random":
        raise InputError(f"convert {name}: expected a file: random filters are scaled to the pictures of each run")
    if config.output:
        if Path(config.output).suffix != ".safetensors":
            raise InputError(f"--output={config.output}: expected a name that ends in .safetensors")
        files.check_place(config.output)
    backbone = _load(name, config)
    output = Path(config.output) if config.output else _own_place(name, backbone)
    if os.path.exists(name) and os.path.realpath(output) == os.path.realpath(name):
        raise InputError(f"--output={output}: would replace {name}, which is read; expected another name")
    facts = read_facts(output) if bundled.is_file(output) else None
    if facts is not None and facts.get("source_sha256") != backbone.sha256:
        raise InputError(
            f"--output={output}: is there already and was not made from {name}; expected another --output, or remove it"
        )
    files.check_writable(output)
    save_safetensors(
        output,
        backbone.params,
        padding=backbone.padding,
        origin=backbone.origin,
        licence=backbone.licence,
        source_sha256=backbone.sha256,
    )
    say(_summary(name, backbone))
    say(f"{output}: written; use it with {shlex.quote(f'--weights={output if config.output else output.stem}')}")


def _own_place(name, backbone):
    """In the cache folder, under the file's own name; a name that means something else already gets its source too."""
    from jnst.weights import is_word

    stem = Path(name).stem
    if is_word(stem) or stem in bundled.names("weights", ".safetensors"):
        stem = f"{stem}-{backbone.source.split()[0]}"
    return files.weights_folder() / f"{stem}.safetensors"


def _inspect(name, config):
    import numpy as np

    from jnst import images

    output = config.output or os.path.join("out", f"{Path(name).stem}-conv1_1.png")
    images.format_of(output)
    if os.path.exists(name) and os.path.realpath(output) == os.path.realpath(name):
        raise InputError(f"--output={output}: would replace {name}, which is read; expected another name")
    files.check_place(output)
    backbone = _load(name, config)
    files.check_writable(output)
    say(_summary(name, backbone))
    say(f"licence: {backbone.licence or 'not said'}; origin: {backbone.origin or 'not said'}")
    say(f"SHA-256: {backbone.sha256}")
    mean = ", ".join(f"{255 * value:.3f}" for value in np.asarray(backbone.params["mean"]))
    say(f"input: RGB in [0, 1] minus ({mean})/255; beyond the border: {backbone.padding}")
    say(f"{'layer':8} {'kernel':>18} {'mean':>11} {'deviation':>11} {'bias mean':>11} {'deviation':>11}")
    for layer in backbone.convolutions:
        kernel, bias = (np.asarray(backbone.params[layer][part], np.float64) for part in ("kernel", "bias"))
        shape = "x".join(map(str, kernel.shape))
        numbers = (kernel.mean(), kernel.std(), bias.mean(), bias.std())
        say(f"{layer:8} {shape:>18} " + " ".join(f"{number:11.4g}" for number in numbers))
    images.save(output, images.Picture(_filters(backbone.params["conv1_1"]["kernel"])))
    say(f"{output}: the filters of conv1_1, red, green and blue as they are weighed, gray is 0")


def _filters(kernel):
    """Each filter around gray, in its own range, 16 pixels a tap."""
    import numpy as np

    from jnst import images

    filters = np.moveaxis(np.asarray(kernel, np.float32), -1, 0)
    largest = np.abs(filters).max((1, 2, 3), keepdims=True)
    filters = 0.5 + 0.5 * filters / np.where(largest > 0, largest, 1)
    return images.contact_sheet([tile.repeat(16, 0).repeat(16, 1) for tile in filters], gap=4)


def _load(name, config):
    from jnst import weights
    from jnst.cli import download

    return weights.load(name, source=config.source, progress=download.Bar, flag="")


def _summary(name, backbone):
    layers = backbone.convolutions
    widths = [backbone.params[layer]["kernel"].shape[-1] for layer in layers if layer.endswith("_1")]
    return (
        f"{name}: {backbone.source}; {layers[0]} to {layers[-1]}, {'/'.join(map(str, widths))} channels, "
        f"borders: {backbone.padding}"
    )


_WORK = {"fetch": _fetch, "convert": _convert, "inspect": _inspect}


if __name__ == "__main__":
    sys.exit(main())
