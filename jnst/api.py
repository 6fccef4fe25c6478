"""jnst as a library: pictures in, picture out. The commands are thin layers over these functions."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from jnst import images, memory
from jnst.config import PictureConfig, StylizeConfig, check_config, check_scales
from jnst.errors import InputError
from jnst.images import Picture
from jnst.inputs import Inputs, read_inputs, shrunk
from jnst.tasks import stylize as task
from jnst.tasks.stylize import many
from jnst.types import Snapshot

__all__ = [
    "Inputs",
    "Result",
    "computing",
    "device_of",
    "devices_of",
    "footprint",
    "prepare",
    "read_inputs",
    "room",
    "run_of",
    "shrunk",
    "stylize",
]


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
        images.save(path, self.picture, bit_depth=self.config.bit_depth, rounding=self.config.rounding)


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
    check_scales(config)
    with computing(config):
        inputs = read_inputs(config, content=content, styles=styles, init=init)
        result = task.run(prepare(inputs, config), callback=callback)
    if result.image is None:
        raise InputError(
            f"the {result.bad_term} term is not finite at the start: weights or layer weights are too large"
        )
    return Result(picture=Picture(result.image, inputs.content.alpha), run=result, config=config)


def run_of(inputs: Inputs, config: StylizeConfig) -> many.Run:
    """A run for a batch of them; see `tasks.stylize.many`."""
    return many.Run(
        key=jax.random.key(config.seed),
        config=config,
        content=inputs.content.opaque(),
        styles=tuple(style.opaque() for style in inputs.styles),
        init=None if inputs.init is None else inputs.init.opaque(),
    )


def prepare(inputs: Inputs, config: StylizeConfig, *, snapshot: Snapshot | None = None) -> task.Prepared:
    """Plans for the memory there is, and compiles; call it and the run within `computing(config)`.

    Args:
        inputs: From `read_inputs`.
        config: The run.
        snapshot: Where a run was left that now goes on.

    Raises:
        InputError: there is not enough memory.
        ValueError: the snapshot is of another run.
    """
    return task.prepare(**_arguments(inputs, config), snapshot=snapshot)


def footprint(inputs: Inputs, config: StylizeConfig) -> tuple[int, str]:
    """Bytes that a step at the largest scale needs on a device, and what there is to say of the plan; compiles, but
    computes nothing."""
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
        "smaller": [scale.level() for scale in inputs.smaller],
        "steps": inputs.steps,
        "devices": (devices := devices_of(config.device)),
        "room": _room(devices),
    }


_BESIDES = 2**29
"""Bytes of a host that programs do not count: what compiling takes, pictures, pages that are freed but kept."""


def room(device: str) -> int | None:
    """Bytes that a program may use on each of the devices that `--device` means, or None where nobody knows."""
    return _room(devices_of(device))


def _room(devices):
    found = memory.available(devices)
    return found if found is None or devices[0].platform != "cpu" else max(0, found - _BESIDES // len(devices))


@contextlib.contextmanager
def computing(config: StylizeConfig | PictureConfig) -> Iterator[jax.Device]:
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
