"""What a run reads: pictures, at the sizes of its scales, and the backbone."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from jnst import images, weights
from jnst.config import INITS, LAYERS, PictureConfig, StylizeConfig, chosen_layers, is_explicit, plan_scales, split_list
from jnst.errors import InputError
from jnst.images import Picture
from jnst.nets import vgg
from jnst.tasks import stylize as task
from jnst.weights import Progress

__all__ = ["Inputs", "Smaller", "read_backbone", "read_inputs", "read_picture", "shrunk"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that a run reads, at the size that it runs at."""

    content: Picture
    styles: tuple[Picture, ...]
    init: Picture | None
    backbone: weights.Backbone
    steps: int
    """At this size."""
    smaller: tuple["Smaller", ...] = ()
    """The scales before this one, smallest first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smaller:
    """The pictures of a smaller scale."""

    content: Picture
    styles: tuple[Picture, ...]
    init: Picture | None
    steps: int

    def level(self) -> task.Level:
        """For the task."""
        pictures = (self.content, *self.styles)
        content, *styles = (picture.opaque() for picture in pictures)
        return task.Level(content, tuple(styles), self.init and self.init.opaque(), self.steps)


def read_inputs(
    config: StylizeConfig,
    *,
    content: str | Path | np.ndarray | None = None,
    styles: Sequence[str | Path | np.ndarray] | None = None,
    init: str | Path | np.ndarray | None = None,
    progress: Progress | None = None,
    memo: dict[object, object] | None = None,
) -> Inputs:
    """Reads the backbone and the pictures and brings them to size.

    Args:
        config: Its `content`, `style` and `init` are read where the next three are not given.
        content: A file or an array.
        styles: Files or arrays.
        init: A file, an array, or one of the words that `--init` knows.
        progress: Told of a download, where the weights are not here yet.
        memo: What calls with the same one have read from files is read once, and is one object.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    once = functools.partial(_once, {} if memo is None else memo)
    content = config.content if content is None else content
    sources = split_list(config.style) if styles is None else styles
    init = config.init if init is None else init
    reader = _Reader(config, content, tuple(sources), init, once)
    picture = reader.content(config.size)
    found = reader.styles(picture)
    start = reader.start(picture)
    # After the pictures: a mistake in their names is not worth a download.
    flags = {flag: chosen_layers(config, flag)[0] for flag in ("content_layers", "style_layers")}
    layers = flags["content_layers"] + flags["style_layers"]
    backbone = _backbone(config, flags, once, progress)
    least = vgg.min_size(layers, backbone.padding)
    reader.check_sizes(picture, found, least, layers)
    *before, last = plan_scales(config, max(picture.size))
    smaller = []
    for scale in before:
        if min(images.fit(picture.size, scale.size)) < least and not is_explicit(config):
            continue
        resized = reader.content(scale.size)
        its = reader.styles(resized)
        reader.check_sizes(resized, its, least, layers)
        smaller.append(Smaller(content=resized, styles=its, init=reader.start(resized), steps=scale.steps))
    return Inputs(
        content=picture, styles=found, init=start, backbone=backbone, steps=last.steps, smaller=tuple(smaller)
    )


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Pictures, each brought from its file to its size in one go."""

    config: StylizeConfig
    source: object
    sources: tuple[object, ...]
    init: object
    once: Callable

    def content(self, longest):
        how = self.config.resample
        return self.once(("content", self.source, longest, how), lambda: self._content(longest))

    def _content(self, longest):
        picture = _picture("content", self.source)
        size = images.fit(picture.size, longest)
        if self.config.output:  # before a picture is made that its format cannot hold
            images.check_encodable(size, images.format_of(self.config.output), bit_depth=self.config.bit_depth)
        return images.resize(picture, size, self.config.resample)

    def styles(self, content):
        """For a content picture of this size."""
        longest = max(1, round(max(content.size) * self.config.style_scale))
        how = self.config.style_fit, self.config.resample
        make = lambda source: self.once(("style", source, longest, *how), lambda: self._style(source, longest))  # noqa: E731
        return tuple(map(make, self.sources))

    def _style(self, source, longest):
        picture = _picture("style", source)
        if self.config.style_fit == "shrink":
            longest = min(longest, max(picture.size))
        return images.resize(picture, images.fit(picture.size, longest), self.config.resample)

    def start(self, content):
        """The picture to start from, or None where `init` is a word."""
        if isinstance(self.init, str) and self.init in INITS:
            return None
        size, how = content.size, self.config.resample
        return self.once(("init", self.init, size, how), lambda: images.resize(_picture("init", self.init), size, how))

    def check_sizes(self, content, styles, least, layers):
        """Raises `InputError` where a picture is too small for the network."""
        _check_size("content", self.source, content, least, layers)
        for source, style in zip(self.sources, styles, strict=True):
            _check_size("style", source, style, least, layers)


def read_backbone(
    config: PictureConfig, flags: dict[str, Sequence[str]], *, progress: Progress | None = None
) -> weights.Backbone:
    """The weights that a task's configuration names, under its padding.

    Args:
        config: Says `weights`, `source` and `padding`.
        flags: By flag, the layers that are needed.
        progress: Told of a download, where the weights are not here yet.

    Raises:
        InputError: naming the file or the flag and what is wrong with it.
    """
    return _backbone(config, {flag: tuple(names) for flag, names in flags.items()}, lambda key, make: make(), progress)


def read_picture(flag: str, name: str, longest: int, layers: Sequence[str], padding: str) -> Picture:
    """A picture at a size that `layers` can be computed of.

    Args:
        flag: The flag's name, for messages.
        name: A file, or a bundled picture's name.
        longest: Its longest side in pixels; 0 keeps the file's.
        layers: Names.
        padding: The network's.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    picture = images.load(name)
    picture = images.resize(picture, images.fit(picture.size, longest))
    _check_size(flag, name, picture, vgg.min_size(layers, padding), layers)
    return picture


def _backbone(config, flags, once, progress):
    layers = sum(flags.values(), ())
    load = lambda: weights.load(config.weights, layers, source=config.source, progress=progress)  # noqa: E731
    found = once(("weights", config.weights, config.source, vgg.convolutions(layers)), load)
    for flag, names in flags.items():
        found.require(flag, names)
    if config.padding == "auto":
        return found
    # Once, too: it is by their backbone that runs are told to share a program.
    return once(("padding", id(found), config.padding), lambda: dataclasses.replace(found, padding=config.padding))


def _once(memo, key, make):
    """`make()`, or what it gave before; an array is no name that could be looked up."""
    if not all(isinstance(part, (str, Path, int, tuple)) for part in key):
        return make()
    if key not in memo:
        memo[key] = make()
    return memo[key]


def shrunk(inputs: Inputs, longest: int) -> Inputs:
    """The same inputs, each picture at most `longest` pixels long: to time a step before making a large one."""

    def small(picture):
        return picture and images.resize(picture, images.fit(picture.size, min(longest, max(picture.size))))

    return dataclasses.replace(
        inputs,
        content=small(inputs.content),
        styles=tuple(map(small, inputs.styles)),
        init=small(inputs.init),
        smaller=(),
    )


def _picture(flag, source):
    if isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        return Picture(_unit_array(flag, np.asarray(source)))
    if not str(source):
        raise InputError(f"--{flag}=: expected a picture file")
    return images.load(source)


def _unit_array(flag, array):
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f"{flag}: an array of shape {array.shape}: expected [H, W, 3]")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255
    if jax.dtypes.issubdtype(array.dtype, np.floating):  # numpy's own does not know bfloat16
        unit = array.astype(np.float32)
        if ((unit >= 0) & (unit <= 1)).all():
            return unit
    raise InputError(f"{flag}: an array of {array.dtype}: expected uint8, or floats in [0, 1]")


def _check_size(flag, source, picture, least, layers):
    width, height = picture.size
    if min(picture.size) < least:
        of = f"={source}" if isinstance(source, (str, Path)) else ""  # an array has no name
        deepest = max(layers, key=LAYERS.index)
        raise InputError(
            f"--{flag}{of}: {width}x{height} pixels are too few: {deepest} needs at least {least} on each side "
            f"(a larger --size, or layers less deep)"
        )
