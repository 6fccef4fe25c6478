"""What a backbone is: weights, what must be known to use them, and the check that they are a VGG-19."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jnst.config import CONVOLUTIONS, convolution_of
from jnst.errors import InputError

__all__ = ["CAFFE_MEAN_BGR", "Backbone", "check", "nested", "present"]

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
"""Channel means of the network's training pictures, blue, green, red in 0..255, as the Oxford group published them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network's weights and what must be known to use them."""

    name: str
    """A path, a name, or `random:0`."""
    sha256: str
    """Of the file; of the filters before standardizing, for random ones."""
    params: Mapping[str, object]
    """See `types.Params`; numpy float32."""
    padding: str = "zeros"
    standardize: bool = False
    """Whether the kernels wait to be scaled to unit variance on the pictures at hand (random filters do)."""
    source: str = ""
    """What the file is and how that is known, in words."""
    origin: str = ""
    licence: str = ""

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names of the convolutions that it has, in order: always an unbroken run from conv1_1."""
        return tuple(name for name in CONVOLUTIONS if name in self.params)

    def require(self, flag: str, layers: Sequence[str]) -> None:
        """Raises `InputError` where one of `layers` lies deeper than these weights go."""
        for layer in layers:
            if convolution_of(layer) not in self.params:
                last = self.convolutions[-1]
                raise InputError(
                    f"--{flag}: {layer} is not in --weights={self.name}, which ends at {last} (relu{last[4:]})"
                )


def present(params: Mapping[str, object]) -> list[str]:
    """The names of the convolutions in `params`, in order."""
    return [name for name in CONVOLUTIONS if name in params]


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """`{"conv1_1/kernel": a}` -> `{"conv1_1": {"kernel": a}}`, float32, for VGG-19's names only."""
    params: dict[str, dict] = {}
    for key, array in arrays.items():
        name, _, part = key.partition("/")
        if name in CONVOLUTIONS and part in ("kernel", "bias"):
            with np.errstate(over="ignore"):  # infinite then, which is refused by name
                params.setdefault(name, {})[part] = np.asarray(array, np.float32)
    return params


def check(path: str | Path, params: Mapping[str, object]) -> None:
    """Raises `InputError` unless `params` are an unbroken run of layers with fitting shapes and finite numbers."""
    names = present(params)
    if not names:
        raise InputError(f"{path}: no layer of VGG-19 found")
    if np.shape(params["mean"]) != (3,) or not np.isfinite(params["mean"]).all():
        raise InputError(f"{path}: mean: expected 3 finite numbers")
    channels = 3
    for name in CONVOLUTIONS[: CONVOLUTIONS.index(names[-1]) + 1]:
        for part in ("kernel", "bias"):
            if part not in params.get(name, {}):
                raise InputError(f"{path}: {name}/{part} is missing, though {names[-1]} is there")
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        width = kernel.shape[-1] if kernel.ndim == 4 else 0
        if kernel.shape != (3, 3, channels, width) or width == 0:
            raise InputError(f"{path}: {name}/kernel has shape {kernel.shape}: expected (3, 3, {channels}, out)")
        if bias.shape != (width,):
            raise InputError(f"{path}: {name}/bias has shape {bias.shape}: expected ({width},)")
        for part, array in (("kernel", kernel), ("bias", bias)):
            if not np.isfinite(array).all():
                raise InputError(f"{path}: {name}/{part} holds numbers that are not finite")
        channels = width
