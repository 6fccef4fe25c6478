"""`fast apply`: a trained network on a picture, a folder or a film; which of them, and what is wrong with them."""

import os
from pathlib import Path

from jnst import bundled, files, images
from jnst.cli import filmed, sharing
from jnst.cli.brush import Brush, digest_of
from jnst.cli.command import DONE
from jnst.cli.interrupt import Interrupt
from jnst.cli.lines import say
from jnst.config import ApplyConfig
from jnst.errors import InputError
from jnst.weights import stylenets

__all__ = ["run"]


def run(name: str, source: str, output: str, config: ApplyConfig, interrupt: Interrupt) -> int:
    """Uses a network. Returns the exit code.

    Args:
        name: The network's file, or a bundled one's name.
        source: A picture, a folder of pictures, or a film.
        output: A file, or a folder where `source` is one.
        config: Checked.
        interrupt: Ctrl-C's watcher.

    Raises:
        InputError: something in the input is wrong.
    """
    is_folder, is_film = os.path.isdir(source), filmed.is_film(source, output)
    if config.format and not is_folder:
        raise InputError(f"--format={config.format}: expected none, since {source} is no folder: {output} names it")
    net = stylenets.load(name)
    brush = Brush(net, config)
    if is_folder:
        return _folder(brush, source, output, interrupt)
    path = Path(source) if is_film else bundled.find(source, "examples", ("", ".jpg", ".png"))
    if path is None or not bundled.is_file(path):
        raise InputError(f"{source}: no such file or folder")
    for read in (str(path), net.path):
        if os.path.exists(output) and os.path.samefile(read, output):
            raise InputError(f"{output}: would replace {read}, which is read; expected another name")
    if is_film:
        return filmed.run(net, config, source, output, brush.mix, interrupt)
    return _picture(brush, path, output, interrupt)


def _picture(brush, source, output, interrupt):
    try:
        files.check_place(output)
        _check_ending(output, brush.config)
        files.check_writable(output)
    except InputError as error:  # there is no such flag here
        raise InputError(str(error).removeprefix("--output=").replace("--output", "the output")) from error
    with brush.ready():
        interrupt.remains = "; nothing written"
        made = brush.make(source, output, digest_of(source))
    if made.note:
        say(made.note)
    tiles = f", tiles of {made.tile}" if made.tile else ""
    say(f"{output}: {made.size[0]}x{made.size[1]}{tiles}, {made.seconds:.2f} s")
    return DONE


def _folder(brush, source, output, interrupt):
    asked = brush.config.format or ".png"
    ending = (asked if asked.startswith(".") else f".{asked}").lower()
    if ending not in images.FORMATS:
        raise InputError(f"--format={asked}: expected one of {', '.join(images.FORMATS)}")
    images.format_of(f"picture{ending}", bit_depth=brush.config.bit_depth)
    if os.path.exists(output) and not os.path.isdir(output):
        raise InputError(f"{output}: expected a folder, since {source} is one")
    if os.path.splitext(output)[1].lower() in images.FORMATS and not os.path.exists(output):
        raise InputError(f"{output}: expected a folder's name, since {source} is a folder")
    if os.path.realpath(output) == os.path.realpath(source):
        raise InputError(f"{output}: is the folder that is read; expected another one")
    interrupt.remains = ": the same command goes on"
    return sharing.run(brush, source, output, ending, interrupt)


def _check_ending(output, config):
    if Path(output).suffix.lower() not in images.FORMATS:
        raise InputError(f"{output}: expected an output that ends in {', '.join(images.FORMATS)}")
    images.format_of(output, bit_depth=config.bit_depth)
