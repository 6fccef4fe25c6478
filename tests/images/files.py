"""Picture files made by hand, byte by byte, so that what is read is compared with what was meant."""

import struct
import zlib

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
SRGB_PRIMARIES = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
P3_PRIMARIES = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))

# What each EXIF orientation does to the stored pixels, from the standard's table (not from Pillow).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def smooth(height=32, width=24):
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([y / height, x / width, 1 - y / height], -1)


def write(path, image, **options):
    """`image` is Pillow's, or a file's bytes."""
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return path


# ---- ICC profiles


def srgb_encode(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def to_srgb(values, primaries, exponent):
    """What `rgb_profile` means, in float64."""
    exponent = round(exponent * 256) / 256  # as the profile holds it
    matrix = np.linalg.inv(np.array(SRGB_PRIMARIES).T) @ np.array(primaries).T
    return srgb_encode(np.clip(values**exponent @ matrix.T, 0, 1))


def icc_profile(space, kind, tags, pcs=b"XYZ "):
    """The bytes of a version 2 ICC profile."""
    text = b"text\0\0\0\0test\0"
    tags = {b"cprt": text, b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"t\0" + bytes(78), **tags}
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x02400000, kind, space, pcs)
    header += bytes(12) + b"acsp" + bytes(28) + _xyz(*D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(*values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def rgb_profile(primaries, exponent):
    tags = {name + b"XYZ": _xyz(*primary) for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= {name + b"TRC": _gamma(exponent) for name in (b"r", b"g", b"b")} | {b"wtpt": _xyz(*D50)}
    return icc_profile(b"RGB ", b"mntr", tags)


def gray_profile(exponent):
    return icc_profile(b"GRAY", b"mntr", {b"kTRC": _gamma(exponent), b"wtpt": _xyz(*D50)})


def cmyk_profile():
    """Full cyan alone is red, full everything else black, no ink white: no plain conversion would say so."""
    white, red, black = (255, 128, 128), (136, 208, 195), (0, 128, 128)  # L a b in 8 bits
    corners = [white if i == 0 else red if i == 8 else black for i in range(16)]  # the first ink varies slowest
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + bytes(sum(corners, ())) + ramp * 3
    return icc_profile(b"CMYK", b"prtr", {b"A2B0": lut, b"wtpt": _xyz(*D50)}, pcs=b"Lab ")


LINEAR = rgb_profile(SRGB_PRIMARIES, 1.0)
SWAPPED = rgb_profile(SRGB_PRIMARIES[::-1], 2.2)


# ---- PNG

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_ADAM7 = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def exif(orientation):
    """An EXIF block that says nothing else."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def png(values, color_type, depth, *, interlaced=False, before=b"", after=b""):
    """`values` is `[H, W, C]` of integers below 2**depth; `before` and `after` are chunks around the pixels'."""
    height, width, channels = values.shape
    assert channels == CHANNELS[color_type]
    passes = [values]
    if interlaced:
        passes = [values[top::down, left::right] for top, down, left, right in _ADAM7]
    rows = b"".join(_rows(part, depth) for part in passes if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    parts = (chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(rows)), after, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _rows(values, depth):
    """Filtered rows; every filter has its turn."""
    packed = []
    for row in values.reshape(len(values), -1):
        bits = (row[:, None].astype(np.int64) >> np.arange(depth)[::-1]) & 1
        packed.append(np.packbits(bits.astype(np.uint8).ravel()).astype(np.int64))
    distance = max(1, depth * values.shape[2] // 8)
    found, above = b"", np.zeros_like(packed[0])
    for index, row in enumerate(packed):
        left, corner = (np.r_[np.zeros(distance, np.int64), a][: len(row)] for a in (row, above))
        estimate = left + above - corner
        distances = np.abs(np.stack([estimate - left, estimate - above, estimate - corner]))
        paeth = np.choose(distances.argmin(0), [left, above, corner])
        kind = index % 5
        guess = (0 * row, left, above, (left + above) // 2, paeth)[kind]
        found += bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return found


# ---- TIFF


def tiff(values, photometric, *, order="<", planar=False, deflate=False, predictor=False, rows=0, extra=(), tags=None):
    """`values` is `[H, W, C]` of any NumPy type; `tags` are further `{number: (type, values)}`."""
    height, width, channels = values.shape
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[values.dtype.kind]
    values = values.astype(values.dtype.newbyteorder(order))
    rows = rows or height
    planes = [values[..., c : c + 1] for c in range(channels)] if planar else [values]
    strips = []
    for plane in planes:
        for top in range(0, height, rows):
            strip = plane[top : top + rows].copy()
            if predictor:
                strip[:, 1:] -= plane[top : top + rows, :-1]
            strips.append(zlib.compress(strip.tobytes()) if deflate else strip.tobytes())
    offsets = np.cumsum([8, *map(len, strips)])
    entries = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [values.dtype.itemsize * 8] * channels),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [photometric]),
        273: ("I", offsets[:-1].tolist()),
        277: ("H", [channels]),
        278: ("I", [rows]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [kind] * channels),
    }
    if predictor:
        entries[317] = ("H", [2])
    if extra:
        entries[338] = ("H", list(extra))
    entries |= tags or {}
    data = b"".join(strips) + bytes(offsets[-1] % 2)
    at = 8 + len(data)
    table, beyond = b"", b""
    for number, (code, numbers) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        size = {"H": 3, "I": 4, "B": 1}[code]
        if len(packed) > 4:
            place = struct.pack(f"{order}I", at + 2 + 12 * len(entries) + 4 + len(beyond))
            beyond += packed + bytes(len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        table += struct.pack(f"{order}HHI", number, size, len(numbers)) + place
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    return header + data + struct.pack(f"{order}H", len(entries)) + table + bytes(4) + beyond
