"""jnst as a library: pictures in, picture out. The commands are thin layers over these functions."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from jnst import images, weights
from jnst.config import INITS, StylizeConfig, check_config, parse_layers, split_list
from jnst.errors import InputError
from jnst.images import Picture
from jnst.nets import vgg
from jnst.tasks import stylize as task
from jnst.tasks.stylize import many
from jnst.weights import Progress

__all__ = [
    "Inputs",
    "Result",
    "computing",
    "device_of",
    "devices_of",
    "footprint",
    "prepare",
    "read_inputs",
    "run_of",
    "shrunk",
    "stylize",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that a run reads, at the size that it runs at."""

    content: Picture
    styles: tuple[Picture, ...]
    init: Picture | None
    backbone: weights.Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A stylized picture and how it came about; see `tasks.stylize.Result` for the fields of `run`."""

    picture: Picture
    run: task.Result
    config: StylizeConfig

    @property
    def image(self) -> np.ndarray:
        """`[H, W, 3]` float32 sRGB in [0, 1]."""
        return self.picture.rgb

    @property
    def trace(self) -> list[dict[str, float]]:
        """Rows of step, total, content, style and tv."""
        return self.run.trace

    def save(self, path: str | Path) -> None:
        """Writes the picture in `config.bit_depth` bits, with the content's alpha channel where it had one."""
        images.save(path, self.picture, bit_depth=self.config.bit_depth)


def stylize(
    content: str | Path | np.ndarray,
    style: str | Path | np.ndarray | Sequence[str | Path | np.ndarray],
    *,
    weights: str | Path = "mini",
    init: str | Path | np.ndarray = "content",
    style_mix: str | Sequence[float] = "",
    callback: task.Callback | None = None,
    **options: object,
) -> Result:
    """Paints a content picture in the style of one or several others.

    Args:
        content: A file, a bundled picture's name, or an array `[H, W, 3]` of floats in [0, 1] or of uint8.
        style: The same, or a list of several that are blended.
        weights: `mini` (bundled), `vgg19` (downloaded at its first use, in silence), a file, or `random[:SEED]`.
        init: `content`, `noise`, `mix`, a file or an array.
        style_mix: A share for each style, as numbers or as the command's text.
        callback: Called between steps with a `tasks.stylize.Record`; a true answer ends the run.
        **options: Further fields of `config.StylizeConfig`, named like the command's flags: `size`, `steps`,
            `style_weight`... `output`, `save_every` and `checkpoint_every` are the command's alone.

    Returns:
        The best iterate as `image`, its `trace`, and `save(path)`.

    Raises:
        InputError: something in the input is wrong, or the loss of the very start is not finite.
        TypeError: an option that does not exist here.

    >>> content = np.linspace(0, 1, 32 * 32 * 3).reshape(32, 32, 3)
    >>> result = stylize(content, content[::-1], size=16, steps=2, style_layers="relu1_1", content_layers="relu1_1")
    >>> result.image.shape, [row["step"] for row in result.trace]
    ((16, 16, 3), [0, 2])
    """
    styles = list(style) if isinstance(style, (list, tuple)) else [style]
    for name in {"output", "save_every", "checkpoint_every"} & options.keys():
        raise TypeError(f"{name}: only the command writes files; the result has save(path)")
    mix = style_mix if isinstance(style_mix, str) else ",".join(map(str, map(float, style_mix)))
    start = str(init) if isinstance(init, (str, Path)) else StylizeConfig.init
    config = StylizeConfig(weights=str(weights), init=start, style_mix=mix, **options)
    check_config(config, count=len(styles))
    with computing(config):
        inputs = read_inputs(config, content=content, styles=styles, init=init)
        result = task.run(prepare(inputs, config), callback=callback)
    if result.image is None:
        raise InputError(
            f"the {result.bad_term} term is not finite at the start: weights or layer weights are too large"
        )
    return Result(picture=Picture(result.image, inputs.content.alpha), run=result, config=config)


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
    picture = once(("content", content, config.size), lambda: _content(config, content))
    longest = max(1, round(max(picture.size) * config.style_scale))
    found = [
        once(("style", source, longest), lambda source=source: _fitted("style", source, longest))
        for source in (split_list(config.style) if styles is None else styles)
    ]
    init = config.init if init is None else init
    is_word = isinstance(init, str) and init in INITS
    size = picture.size
    start = None if is_word else once(("init", init, size), lambda: images.resize(_picture("init", init), size))
    # After the pictures: a mistake in their names is not worth a download.
    flags = {flag: parse_layers(flag, getattr(config, flag))[0] for flag in ("content_layers", "style_layers")}
    layers = flags["content_layers"] + flags["style_layers"]
    load = lambda: weights.load(config.weights, layers, source=config.source, progress=progress)  # noqa: E731
    backbone = once(("weights", config.weights, config.source, vgg.convolutions(layers)), load)
    for flag, names in flags.items():
        backbone.require(flag, names)
    least = vgg.min_size(layers, backbone.padding)
    _check_size("content", content, picture, least, layers)
    for source, style in zip(split_list(config.style) if styles is None else styles, found, strict=True):
        _check_size("style", source, style, least, layers)
    return Inputs(content=picture, styles=tuple(found), init=start, backbone=backbone)


def _once(memo, key, make):
    """`make()`, or what it gave before; an array is no name that could be looked up."""
    if not all(isinstance(part, (str, Path, int, tuple)) for part in key):
        return make()
    if key not in memo:
        memo[key] = make()
    return memo[key]


def _content(config, source):
    picture = _picture("content", source)
    size = images.fit(picture.size, config.size)
    if config.output:  # before a picture is made that its format cannot hold
        images.check_encodable(size, images.format_of(config.output), bit_depth=config.bit_depth)
    return images.resize(picture, size)


def _fitted(flag, source, longest):
    picture = _picture(flag, source)
    return images.resize(picture, images.fit(picture.size, longest))


def run_of(inputs: Inputs, config: StylizeConfig) -> many.Run:
    """A run for a batch of them; see `tasks.stylize.many`."""
    return many.Run(
        key=jax.random.key(config.seed),
        config=config,
        content=inputs.content.opaque(),
        styles=tuple(style.opaque() for style in inputs.styles),
        init=None if inputs.init is None else inputs.init.opaque(),
    )


def prepare(inputs: Inputs, config: StylizeConfig) -> task.Prepared:
    """Computes targets and compiles; call it and the run within `computing(config)`."""
    return task.prepare(**_arguments(inputs, config))


def footprint(inputs: Inputs, config: StylizeConfig) -> int:
    """Bytes that the compiled step needs on the device; compiles, but computes nothing."""
    return task.footprint(**_arguments(inputs, config))


def _arguments(inputs, config):
    return {
        "key": jax.random.key(config.seed),
        "params": inputs.backbone.params,
        "content": inputs.content.opaque(),
        "styles": [style.opaque() for style in inputs.styles],
        "config": config,
        "init": None if inputs.init is None else inputs.init.opaque(),
        "padding": inputs.backbone.padding,
        "standardize": inputs.backbone.standardize,
    }


def shrunk(inputs: Inputs, longest: int) -> Inputs:
    """The same inputs, each picture at most `longest` pixels long: to time a step before making a large one."""

    def small(picture):
        return picture and images.resize(picture, images.fit(picture.size, min(longest, max(picture.size))))

    return dataclasses.replace(
        inputs, content=small(inputs.content), styles=tuple(map(small, inputs.styles)), init=small(inputs.init)
    )


@contextlib.contextmanager
def computing(config: StylizeConfig) -> Iterator[jax.Device]:
    """Runs its body on the configuration's device, with 64-bit numbers where its precision asks for them."""
    device = device_of(config.device)
    with jax.default_device(device), jax.enable_x64(config.precision == "float64"):
        yield device


def device_of(name: str) -> jax.Device:
    """The device that `--device=name` means: `auto` is JAX's first.

    Raises:
        InputError: there is no such device here.
    """
    devices, number = _devices(name)
    index = int(number or 0)
    if index >= len(devices):
        raise InputError(f"--device={name}: expected a number below {len(devices)}; here: {_here()}")
    return devices[index]


def devices_of(name: str) -> list[jax.Device]:
    """All devices of this process that `--device=name` leaves to choose from: one, where it has a number.

    Raises:
        InputError: there is no such device here.
    """
    return [device_of(name)] if ":" in name else list(_devices(name)[0])


def _here():
    return ", ".join(sorted({device.platform for device in jax.devices()} | {"cpu"}))


def _devices(name):
    platform, colon, number = name.partition(":")
    here = _here()
    if (
        platform not in ("auto", "cpu", "gpu", "tpu")
        or (colon and not number.isdecimal())
        or (platform == "auto" and colon)
    ):
        raise InputError(
            f"--device={name}: expected auto, cpu, gpu, tpu, or one of several such as gpu:1; here: {here}"
        )
    try:
        return jax.local_devices(backend=None if platform == "auto" else platform), number
    except RuntimeError as error:
        extra = {"gpu": "; NVIDIA GPUs need the extra jnst[cuda]", "tpu": "; TPUs need the extra jnst[tpu]"}
        raise InputError(f"--device={name}: no such device; here: {here}{extra.get(platform, '')}") from error


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
        deepest = max(layers, key=lambda layer: layer[4:])
        raise InputError(
            f"--{flag}{of}: {width}x{height} pixels are too few: {deepest} needs at least {least} on each side "
            f"(a larger --size, or layers less deep)"
        )
