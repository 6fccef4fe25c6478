"""From a file's arrays to params under the one input rule: which layer is which, and what the network was fed.

Every rule of the peers is affine in an RGB pixel in [0, 1]: u = A x + b, with padding after it. With m the pixel that
gives u = 0, that is A (x - m): A goes into conv1_1's kernel, m is the mean. So borders of zeros stay what they were.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jnst.config import BLOCKS, CONVOLUTIONS, SOURCES
from jnst.errors import InputError
from jnst.weights import fingerprint
from jnst.weights.backbone import CAFFE_MEAN_BGR, check, nested, present

__all__ = ["Converted", "convert", "convert_mat"]

# torchvision's transforms for its models: RGB in [0, 1].
_TORCHVISION_MEAN = (0.485, 0.456, 0.406)
_TORCHVISION_DEVIATION = (0.229, 0.224, 0.225)

_OXFORD = ("Simonyan & Zisserman, VGG-19", "CC BY 4.0")
_ORIGINS = {  # and licence
    "caffe": _OXFORD,
    "keras": _OXFORD,
    "matconvnet": _OXFORD,
    "torchvision": ("torchvision, VGG19_Weights.IMAGENET1K_V1", "BSD-3-Clause"),
    "normalised": ("Simonyan & Zisserman, VGG-19; channels rescaled as by Gatys et al.", "CC BY 4.0"),
    "slim16x": ("Wang et al. 2020, Collaborative Distillation, 16 times compressed VGG-19", "MIT"),
}

_ASKED = "asked for by --source"

# What a name may begin with, where a checkpoint or a wrapper holds the network.
_WITHIN = r"(?:(?:state_dict|model|module|net|vgg|vgg19|encoder)\.)*"
_FEATURES = re.compile(_WITHIN + r"features\.(\d+)\.(weight|bias)")
_NUMBERED = re.compile(_WITHIN + r"(\d+)\.(weight|bias)")
_NAMED = re.compile(_WITHIN + r"conv(0|\d_?\d)\.(weight|bias)")
_KERAS = re.compile(r"block(\d+)_conv(\d+)/(kernel|bias)")


class Converted(NamedTuple):
    """What a file holds, in the house's own terms."""

    params: dict[str, object]
    padding: str
    source: str
    """One of `config.SOURCES`."""
    reason: str
    """How that is known."""
    origin: str
    licence: str


class _Layers(NamedTuple):
    """Arrays under the house's names, and the file's own first layer (1x1, from RGB in [0, 1]) where it has one."""

    params: dict[str, dict[str, np.ndarray]]
    first: tuple[np.ndarray, np.ndarray] | None
    kinds: tuple[str, ...]
    """The sources whose files are named like this one; the first is taken where numbers say nothing."""
    padding: str


def convert(path: str | Path, arrays: Mapping[str, np.ndarray], source: str = "auto") -> Converted:
    """Params from arrays under Keras' or PyTorch's names.

    Args:
        path: For messages.
        arrays: `block1_conv1/kernel` `[3, 3, in, out]`, or `features.0.weight` `[out, in, 3, 3]` and its like.
        source: One of `config.SOURCES`: what the network was fed, where the names and numbers do not tell.

    Raises:
        InputError: no VGG-19, or names and numbers leave open what it was fed.
    """
    layers = _find_layers(path, arrays)
    if source != "auto" and source not in layers.kinds:
        raise InputError(f"--source={source}: {path} is named like {' or '.join(layers.kinds)}")
    placeholder = {"mean": np.zeros(3, np.float32), **layers.params}
    check(path, placeholder)
    if layers.first is not None:
        matrix, offset = layers.first
        kind, reason = layers.kinds[0], "its own first layer says what it is fed"
    else:
        kind, order, reason = _recognize(path, layers, source)
        matrix, offset = _input_rule(kind, order)
    params = _folded(path, layers.params, matrix, offset)
    origin = ("", "") if reason == _ASKED else _ORIGINS[kind]  # how it is fed does not say who made it
    return Converted(params, layers.padding, kind, reason, *origin)


def convert_mat(
    path: str | Path, arrays: Mapping[str, np.ndarray], mean: np.ndarray, source: str = "auto"
) -> Converted:
    """Params from MatConvNet's arrays (see `mat.read`), fed RGB in 0..255 minus the file's mean.

    The peers disagree on whether these kernels lie height first or width first: conv1_1 is compared with the Oxford
    group's filters, and all kernels follow it.

    Raises:
        InputError: no VGG-19, or filters that are not Oxford's in either orientation.
    """
    if source not in ("auto", "matconvnet"):
        raise InputError(f"--source={source}: {path} is a file of matconvnet")
    layers = nested(arrays)
    check(path, {"mean": mean, **layers})
    first = layers["conv1_1"]
    found = fingerprint.match(first["kernel"], first["bias"])
    if found is None or found.training != "oxford":
        raise InputError(
            f"{path}: conv1_1/kernel: neither its filters nor their transposes are those of the Oxford VGG-19, "
            "so which axis is the picture's height is not known: refused"
        )
    if found.transposed:
        layers = {
            name: {"kernel": parts["kernel"].transpose(1, 0, 2, 3), "bias": parts["bias"]}
            for name, parts in layers.items()
        }
    matrix = 255 * (np.eye(3) if found.order == "rgb" else np.eye(3)[::-1])
    params = _folded(path, layers, matrix, -mean)
    axes = "width first, as conv1_1 shows" if found.transposed else "height first, as conv1_1 shows"
    return Converted(params, "zeros", "matconvnet", f"kernels lie {axes}", *_ORIGINS["matconvnet"])


def _find_layers(path, arrays):
    """Which array is which layer, by the names of one of the layouts that go around."""
    for find in (_keras_layers, _features_layers, _named_layers, _numbered_layers):
        layers = find(path, arrays)
        if layers is not None:
            return layers
    raise InputError(
        f"{path}: no layer found; expected arrays such as block1_conv1/kernel and block1_conv1/bias, "
        "or features.0.weight and features.0.bias"
    )


def _keras_layers(path, arrays):
    params = {}
    for key, array in arrays.items():
        if found := _KERAS.fullmatch(key):
            params[f"conv{found[1]}_{found[2]}/{found[3]}"] = _numbers(path, key, array)
    return _Layers(nested(params), None, ("keras", "caffe", "torchvision"), "zeros") if params else None


def _features_layers(path, arrays):
    named = _matches(path, _FEATURES, arrays)
    return _torch_layers(path, arrays, named, _PLAIN, None, ("caffe", "torchvision"), "zeros") if named else None


def _named_layers(path, arrays):
    """`conv1_1.weight`, or, with a layer `conv0` before it, `conv11.weight`."""
    named = _matches(path, _NAMED, arrays)
    if not named:
        return None
    names = {number: f"conv{number[0]}_{number[-1]}" for number, _ in named if number != "0"}
    names = {number: name for number, name in names.items() if name in CONVOLUTIONS}
    if any(number == "0" for number, _ in named):
        return _torch_layers(path, arrays, named, names, "0", ("slim16x",), "reflect")
    return _torch_layers(path, arrays, named, names, None, ("caffe", "torchvision"), "zeros")


def _numbered_layers(path, arrays):
    """`0.weight` and so on: of `vgg19().features`, or of a network with a 1x1 layer and paddings of their own."""
    named = _matches(path, _NUMBERED, arrays)
    if not named:
        return None
    start = named.get(("0", "weight"))
    if start is not None and np.shape(arrays[start])[2:] == (1, 1):
        return _torch_layers(path, arrays, named, _PADDED, "0", ("normalised",), "reflect")
    return _torch_layers(path, arrays, named, _PLAIN, None, ("caffe", "torchvision"), "zeros")


def _matches(path, pattern, arrays):
    """`{(number, part): key}` of the keys of this form."""
    matches = {}
    for key in arrays:
        if found := pattern.fullmatch(key):
            other = matches.setdefault((found[1], found[2]), key)
            if other != key:
                raise InputError(f"{path}: {other} and {key}: two networks in one file, and no word which is meant")
    return matches


def _numbers_of(first, before):
    """The numbers of the convolutions in PyTorch's Sequential; `before` layers stand before each (its padding)."""
    names, index = {}, first
    for block, count in enumerate(BLOCKS, 1):
        for position in range(1, count + 1):
            index += before
            names[str(index)] = f"conv{block}_{position}"
            index += 2  # itself and its rectifier
        index += 1  # the pooling
    return names


_PLAIN = _numbers_of(0, 0)
_PADDED = _numbers_of(1, 1)


def _torch_layers(path, arrays, named, names, first, kinds, padding):
    params, own = {}, {}
    for (number, part), key in named.items():
        array = _numbers(path, key, arrays[key])
        if number == first:
            own[part] = array
        elif number in names:
            if part == "weight" and array.ndim == 4:
                array = array.transpose(2, 3, 1, 0)
            params[f"{names[number]}/{'kernel' if part == 'weight' else 'bias'}"] = array
        else:
            raise InputError(
                f"{path}: {key} {array.shape} is no convolution of VGG-19, whose layers here are {', '.join(names)}: "
                "another network?"
            )
    layers = _Layers(nested(params), None, kinds, padding)
    return layers._replace(first=_first_layer(path, own, first)) if first is not None else layers


def _first_layer(path, parts, number):
    """The 1x1 layer that maps RGB in [0, 1] to what the rest is fed: matrix `[3, 3]` and offset `[3]`."""
    weight, bias = parts.get("weight"), parts.get("bias")
    if weight is None or bias is None or weight.shape != (3, 3, 1, 1) or bias.shape != (3,):
        shapes = [None if array is None else array.shape for array in (weight, bias)]
        raise InputError(
            f"{path}: its first layer ({number}) has shapes {shapes[0]} and {shapes[1]}: expected (3, 3, 1, 1) and (3,)"
        )
    matrix, offset = weight[:, :, 0, 0].astype(np.float64), bias.astype(np.float64)
    if not (np.isfinite(matrix).all() and np.isfinite(offset).all()) or np.linalg.cond(matrix) > 1e6:
        raise InputError(f"{path}: its first layer ({number}) holds no map of colors that could be undone")
    return matrix, offset


def _recognize(path, layers, source):
    """Kind and order of channels that conv1_1's numbers tell, or that are asked for."""
    first = layers.params["conv1_1"]
    found = fingerprint.match(first["kernel"], first["bias"])
    if found is not None and found.transposed:
        raise InputError(
            f"{path}: conv1_1/kernel: its filters are those of {found.training}, but transposed; expected height first"
        )
    if found is not None:
        kind = "torchvision" if found.training == "torchvision" else layers.kinds[0]
        if source != "auto" and (source == "torchvision") != (kind == "torchvision"):
            raise InputError(f"--source={source}: the numbers of conv1_1 in {path} are those of {kind}")
        return kind, found.order, f"conv1_1 holds the numbers of {_ORIGINS[kind][0]}, {found.order.upper()}"
    if source != "auto":
        return source, "rgb" if source == "torchvision" else "bgr", _ASKED
    if layers.kinds[0] == "keras":
        return "keras", "bgr", "its layers are named as Keras names them"
    choices = "; ".join(f"--source={kind}: {SOURCES[kind]}" for kind in layers.kinds)
    raise InputError(
        f"{path}: its numbers do not show what the network was fed; expected one of these to say it: {choices}"
    )


def _input_rule(kind, order):
    """The affine map from RGB in [0, 1] to what conv1_1 is fed, channels in this order."""
    if kind == "torchvision":
        matrix = np.diag(1 / np.array(_TORCHVISION_DEVIATION))
        offset = -np.array(_TORCHVISION_MEAN) / _TORCHVISION_DEVIATION
        return (matrix, offset) if order == "rgb" else (matrix[::-1], offset[::-1])
    if order == "rgb":
        return 255 * np.eye(3), -np.array(CAFFE_MEAN_BGR[::-1])
    return 255 * np.eye(3)[::-1], -np.array(CAFFE_MEAN_BGR)


def _folded(path, layers, matrix, offset):
    """Params with the input map in conv1_1 and the mean; float64 in between."""
    first = layers["conv1_1"]
    kernel = np.einsum("hwco,ci->hwio", first["kernel"].astype(np.float64), matrix)
    with np.errstate(over="ignore"):  # infinite then, which is refused by name
        params = {
            "mean": np.linalg.solve(matrix, -np.asarray(offset, np.float64)).astype(np.float32),
            "conv1_1": {"kernel": np.ascontiguousarray(kernel, np.float32), "bias": first["bias"]},
        }
    params |= {name: layers[name] for name in present(layers) if name != "conv1_1"}
    check(path, params)
    return params


def _numbers(path, key, array):
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {key} holds {array.dtype}: expected numbers")
    return array
