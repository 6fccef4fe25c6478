"""Writes weight files as the programs that make them do, without those programs: PyTorch, Keras, MatConvNet.

What the files hold is `{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}}`. Layouts and numbers are written here
from those programs' own files, not from jnst.
"""

import dataclasses
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import h5py
import numpy as np
import reference
import scipy.io

from jnst.weights import fingerprint

NAMES = reference.LAYERS
WIDTHS = (64, 64, 128, 128, *(256,) * 4, *(512,) * 8)
MEAN_RGB = np.array([123.68, 116.779, 103.939])
TORCH_MEAN, TORCH_DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

# Where the convolutions stand in PyTorch's Sequential: torchvision's, and the one that pads before each convolution.
PLAIN = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
PADDED = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51)


def network(*widths, seed=0):
    """The first layers, random."""
    rng, layers, channels = np.random.default_rng(seed), {}, 3
    for name, width in zip(NAMES, widths, strict=False):
        kernel = rng.standard_normal((3, 3, channels, width), np.float32)
        layers[name] = {"kernel": kernel, "bias": rng.standard_normal(width, np.float32)}
        channels = width
    return layers


def params(*widths, seed=0):
    """The same with a mean, as jnst holds them."""
    return {"mean": np.float32([0.5, 0.25, 0.125])} | network(*widths, seed=seed)


def planted(training, *, order=None, transposed=False, widths=(64, 4, 5), seed=0):
    """A network whose first filters have a fingerprint's numbers and are random otherwise."""
    layers = network(*widths, seed=seed)
    known, rng = fingerprint.TRAININGS[training], np.random.default_rng(seed)
    y, x, c = np.indices((3, 3, 3)).reshape(3, 27)
    measured = np.stack([(x == 2) * 1.0 - (x == 0), (y == 2) * 1.0 - (y == 0), *(1.0 * (c == i) for i in range(3))])
    back = np.linalg.pinv(measured)
    for index, row in known.rows.items():
        least = back @ row[:5]
        rest = rng.standard_normal(27)
        rest -= back @ (measured @ rest)
        unit = least + np.sqrt(1 - least @ least) * rest / np.linalg.norm(rest)
        norm = row[5] if known.scale == "norm" else rng.uniform(0.5, 2)
        layers["conv1_1"]["kernel"][..., index] = norm * unit.reshape(3, 3, 3)
        if known.scale == "bias":
            layers["conv1_1"]["bias"][index] = norm * row[5]
    if order not in (None, known.order):
        layers["conv1_1"]["kernel"] = layers["conv1_1"]["kernel"][:, :, ::-1]
    return turned(layers) if transposed else layers


def turned(layers):
    """All kernels with height and width exchanged."""
    return {name: {"kernel": p["kernel"].transpose(1, 0, 2, 3), "bias": p["bias"]} for name, p in layers.items()}


def by_hand(layers, image, feed, padding="zeros"):
    """conv1_1 in float64, as it was trained: on what `feed` makes of the image, padded then."""
    first = layers["conv1_1"]
    kernel, bias = np.asarray(first["kernel"], np.float64), np.asarray(first["bias"], np.float64)
    return reference.conv3x3(feed(np.asarray(image, np.float64)), kernel, bias, padding)


FEEDS = {
    "bgr": lambda image: (255 * image - MEAN_RGB)[..., ::-1],
    "rgb": lambda image: 255 * image - MEAN_RGB,
    "torchvision": lambda image: (image - TORCH_MEAN) / TORCH_DEVIATION,
}


# Keras


def keras(layers):
    """Arrays by `block1_conv1/kernel`, as in an `.npz`."""
    layers = {name: parts for name, parts in layers.items() if name != "mean"}
    return {f"block{n[4]}_conv{n[6]}/{part}": a for n, parts in layers.items() for part, a in parts.items()}


def write_keras(path, layers, *, old=True, top=False, within=""):
    """An .h5 file of Keras 1 and 2.0 (`block1_conv1_W_1:0`) or later (`kernel:0`); `top` adds what follows them."""
    with h5py.File(path, "w") as file:
        root = file.create_group(within) if within else file
        names = ["input_1"]
        for name in layers:
            names.append(f"block{name[4]}_conv{name[6]}")
            last = {"1": "2", "2": "2"}.get(name[4], "4")
            names += [f"block{name[4]}_pool"] if name[6] == last else []
        names += ["flatten", "fc1", "fc2", "predictions"] if top else []
        root.attrs["layer_names"] = np.array(names, "S")
        if not old:
            root.attrs["backend"], root.attrs["keras_version"] = np.bytes_("tensorflow"), np.bytes_("2.2.4")
        for name in names:
            group, arrays = root.create_group(name), {}
            if "_conv" in name:
                parts = layers[f"conv{name[5]}_{name[-1]}"]
                arrays = {"kernel": parts["kernel"], "bias": parts["bias"]}
            elif name in ("fc1", "fc2", "predictions"):
                arrays = {"kernel": np.ones((4, 4), np.float32), "bias": np.ones(4, np.float32)}
            letters = {"kernel": f"{name}_W_1:0", "bias": f"{name}_b_1:0"}
            paths = {part: letters[part] if old else f"{name}/{part}:0" for part in arrays}
            group.attrs["weight_names"] = np.array(list(paths.values()), "S")
            for part, array in arrays.items():
                group.create_dataset(paths[part], data=array)
    return str(path)


# MatConvNet


def write_mat(path, layers, mean=MEAN_RGB, /, *, generation="new", compress=False, change=None, **variables):
    """imagenet-vgg-verydeep-19.mat: the generations `oldest` (filters, biases), `old` (2015) and `new` (beta 17 on).

    `change` is called with the list of layers, each a dict of fields, before they are written.
    """
    cells, kernels = [], {name: parts for name, parts in layers.items()}
    for block, count in enumerate((2, 2, 4, 4, 4), 1):
        for index in range(1, count + 1):
            if f"conv{block}_{index}" in kernels:
                parts = kernels[f"conv{block}_{index}"]
                cells.append(_convolution(f"conv{block}_{index}", parts["kernel"], parts["bias"], 1, generation))
                cells.append(_plain(f"relu{block}_{index}", "relu", generation))
        if f"conv{block}_{count}" in kernels:
            pool = {"method": "max", "pool": [2.0, 2.0], "stride": [2.0, 2.0], "pad": [0.0] * 4}
            cells.append(_plain(f"pool{block}", "pool", generation) | pool)
    for name, shape in (("fc6", (7, 7, 2, 3)), ("fc7", (1, 1, 3, 3)), ("fc8", (1, 1, 3, 4))):
        cells.append(_convolution(name, np.ones(shape, np.float32), np.ones(shape[3], np.float32), 0, generation))
        if name != "fc8":
            cells.append(_plain("relu" + name[2:], "relu", generation))
    cells.append(_plain("prob", "softmax", generation))
    if change is not None:
        change(cells)
    row = np.empty((1, len(cells)), object)
    row[0, :] = cells
    classes = {"name": _cell("n01440764", "n01443537"), "description": _cell("tench", "goldfish")}
    normalization = {"imageSize": [224.0, 224.0, 3.0, 10.0], "keepAspect": True, "border": [32.0, 32.0]}
    normalization |= {"interpolation": "bicubic"}
    if generation == "new":
        average = np.reshape(np.asarray(mean, np.float32), (1, 1, 3))
        normalization = {"cropSize": [0.875, 0.875], **normalization, "averageImage": average}
        inputs = {"name": "input", "size": [224.0, 224.0, 3.0, 10.0]}
        content = {"layers": row, "meta": {"inputs": inputs, "classes": classes, "normalization": normalization}}
    else:
        # A picture whose average is the mean; the original's is not the same everywhere either.
        wave = np.sin(np.arange(224) * 2 * np.pi / 224)
        average = (mean + 9 * (wave[:, None] + wave)[:, :, None]).astype(np.float32)
        normalization = {"averageImage": average, **normalization}
        content = {"layers": row, "classes": classes, "normalization": normalization}
    content = {key: value for key, value in (content | variables).items() if value is not None}
    scipy.io.savemat(path, content, appendmat=False, do_compression=compress)
    return str(path)


def _convolution(name, kernel, bias, pad, generation):
    pad, stride = [float(pad)] * 4, [1.0, 1.0]
    if generation == "oldest":
        return {
            **{"name": name, "type": "conv", "filters": kernel, "biases": bias[None]},
            **{"stride": stride, "pad": pad},
        }
    weights = np.empty((1, 2), object)
    weights[0, 0], weights[0, 1] = kernel, bias[None] if generation == "old" else bias[:, None]
    if generation == "old":
        return {"weights": weights, "pad": pad, "type": "conv", "name": name, "stride": stride}
    return {
        **{"name": name, "type": "conv", "weights": weights, "size": [float(n) for n in kernel.shape]},
        **{"pad": pad, "stride": stride, "precious": False, "dilate": 1.0, "opts": np.empty((0, 0), object)},
    }


def _plain(name, kind, generation):
    fields = {"name": name, "type": kind} if generation != "old" else {"type": kind, "name": name}
    return fields | ({"leak": 0.0, "weights": np.empty((0, 0), object), "precious": False} if kind == "relu" else {})


def _cell(*texts):
    row = np.empty((1, len(texts)), object)
    row[0, :] = texts
    return row


# PyTorch


def state_dict(layers, layout="features.", first=None):
    """Kernels `[out, in, 3, 3]` under the names of a layout: a prefix of numbers, `normalised`, `named` or `slim`.

    `first` is the 1x1 layer of the layouts that have one: matrix `[3, 3]` and offset `[3]`.
    """
    arrays = OrderedDict()
    if first is not None:
        name = "conv0" if layout == "slim" else "0"
        arrays[f"{name}.weight"] = np.float32(first[0])[:, :, None, None]
        arrays[f"{name}.bias"] = np.float32(first[1])
    for index, (name, parts) in enumerate(layers.items()):
        own = {"normalised": str(PADDED[index]), "named": name, "slim": f"conv{name[4]}{name[6]}"}.get(layout)
        own = f"{layout}{PLAIN[NAMES.index(name)]}" if own is None else own
        arrays[f"{own}.weight"] = np.ascontiguousarray(parts["kernel"].transpose(3, 2, 0, 1))
        arrays[f"{own}.bias"] = parts["bias"]
    if layout == "slim":
        arrays["conv11_aux.weight"] = np.ones((8, arrays["conv11.bias"].size, 1, 1), np.float32)
        arrays["conv11_aux.bias"] = np.ones(8, np.float32)
    return arrays


KINDS = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "u1": "Byte"}


class Name(NamedTuple):
    """A module's attribute, which a pickle names."""

    module: str
    name: str

    def __call__(self):
        raise AssertionError("never called: pickle wants what it reduces to be callable")


@dataclasses.dataclass(eq=False)
class Storage:
    """A run of numbers that tensors look at."""

    data: np.ndarray
    kind: str = ""

    def __post_init__(self):
        self.kind = self.kind or KINDS[self.data.dtype.str[1:]]


@dataclasses.dataclass(eq=False)
class Tensor:
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    shape: tuple
    strides: tuple
    offset: int = 0
    parameter: bool = False
    older: bool = False
    """As PyTorch 0.1 wrote it."""


def tensor(array, **how):
    """A tensor with a storage of its own, whose strides are the array's."""
    array = np.asarray(array)
    base = array.base if array.base is not None and array.base.size == array.size else array
    strides = tuple(step // array.itemsize for step in array.strides)
    return Tensor(Storage(np.ascontiguousarray(base).reshape(-1)), array.shape, strides, **how)


def bfloat16(array):
    """A tensor of bfloat16: the upper halves of float32 numbers."""
    bits = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return tensor_of(Storage(bits.reshape(-1), "BFloat16"), array.shape)


def tensor_of(storage, shape, offset=0):
    """A contiguous tensor somewhere in a storage."""
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    return Tensor(storage, tuple(shape), strides, offset)


def tensors(arrays):
    """A state dict as PyTorch's modules give it."""
    found = OrderedDict((name, tensor(array)) for name, array in arrays.items())
    found._metadata = OrderedDict({"": {"version": 1}, "features": {"version": 1}})
    return found


V2, V1 = Name("torch._utils", "_rebuild_tensor_v2"), Name("torch._utils", "_rebuild_tensor")
PARAMETER = Name("torch._utils", "_rebuild_parameter")
STORAGES = {kind: Name("torch", f"{kind}Storage") for kind in (*KINDS.values(), "BFloat16", "Char", "Bool")}


class Pickler(pickle._Pickler):
    """Python's own, at PyTorch's protocol; names modules that are not here, and gives storages their keys."""

    def __init__(self, file, *, zipped, python2=False):
        super().__init__(file, 2)
        self.storages, self._zipped, self._python2 = {}, zipped, python2

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        key = self.storages.setdefault(id(obj), (str(len(self.storages) + (0 if self._zipped else 94000)), obj))[0]
        identity = ("storage", STORAGES[obj.kind], key, "cpu", obj.data.size)
        return identity if self._zipped else (*identity, None)

    def save(self, obj, save_persistent_id=True):
        known = self.memo.get(id(obj))
        if isinstance(obj, Name) or (self._python2 and isinstance(obj, str)):
            if known is not None:
                self.write(self.get(known[0]))
                return
            if isinstance(obj, Name):
                self.write(f"c{obj.module}\n{obj.name}\n".encode())
            else:  # SHORT_BINSTRING
                self.write(b"U" + bytes([len(obj)]) + obj.encode())
            self.memoize(obj)
        elif known is None and isinstance(obj, Tensor):
            view = (obj.storage, obj.offset, obj.shape, obj.strides)
            if obj.parameter:
                plain = dataclasses.replace(obj, parameter=False)
                self._kept = (*getattr(self, "_kept", ()), plain)  # the memo goes by identity
                self.save_reduce(PARAMETER, (plain, True, OrderedDict()), obj=obj)
            elif obj.older:
                self.save_reduce(V1, view, obj=obj)
            else:
                self.save_reduce(V2, (*view, False, OrderedDict()), obj=obj)
        elif known is None and self._python2 and isinstance(obj, OrderedDict):
            items = ([[key, value] for key, value in obj.items()],) if obj else ()
            self.save_reduce(OrderedDict, items, vars(obj) or None, obj=obj)
        else:
            super().save(obj, save_persistent_id)


def pickled(obj, *, zipped, python2=False):
    """The pickle of nested dicts of tensors, and the storages that it speaks of by their keys."""
    file = io.BytesIO()
    pickler = Pickler(file, zipped=zipped, python2=python2)
    pickler.dump(obj)
    return file.getvalue(), dict(pickler.storages.values())


def zip_file(obj, *, name="archive", big=False):
    """The bytes that `torch.save` writes since version 1.6."""
    program, storages = pickled(obj, zipped=True)
    return zip_of(program, {key: _bytes(storage, big) for key, storage in storages.items()}, name=name, big=big)


def zip_of(program, data=(), *, name="archive", big=False, compress=()):
    """A PyTorch archive of any pickle and any data; entries whose end is in `compress` are compressed."""
    entries = {"data.pkl": program, "byteorder": b"big" if big else b"little"}
    entries |= {f"data/{key}": value for key, value in dict(data).items()}
    entries |= {"version": b"3\n", ".data/serialization_id": b"0561108523619670529412111275971253190084"}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for entry, value in entries.items():
            info = zipfile.ZipInfo(f"{name}/{entry}")
            info.compress_type = zipfile.ZIP_DEFLATED if entry.endswith(tuple(compress)) else zipfile.ZIP_STORED
            gap = -(file.tell() + 30 + len(info.filename) + 4) % 64  # numbers begin at multiples of 64
            info.extra = b"FB" + struct.pack("<H", gap) + b"Z" * gap
            archive.writestr(info, value)
    return file.getvalue()


MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def old_file(obj, *, python2=False, big=False):
    """The bytes that `torch.save` wrote until version 1.5; the numbers are little-endian on any machine."""
    program, storages = pickled(obj, zipped=False, python2=python2)
    return old_of(program, {key: (storage.data.size, _bytes(storage, False)) for key, storage in storages.items()}, big)


def old_of(program, data=(), big=False):
    """An old file of any pickle; `data` gives a count and bytes by key."""
    system = {"protocol_version": PROTOCOL, "little_endian": not big, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    data = dict(sorted(dict(data).items()))
    head = b"".join(pickle._dumps(thing, 2) for thing in (MAGIC, PROTOCOL, system))
    numbers = b"".join(struct.pack("<q", count) + raw for count, raw in data.values())
    return head + program + pickle._dumps(list(data), 2) + numbers


def _bytes(storage, big):
    return storage.data.astype(storage.data.dtype.newbyteorder(">" if big else "<")).tobytes()
