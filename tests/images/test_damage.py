"""Files that are cut, flipped or lie: an InputError of one line or a picture, and nothing on stderr."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from images import files
from images.files import noise, write
from jnst import images
from jnst.errors import InputError
from jnst.images import Picture, png, reading

CLAIM = (60000, 60000)


def saved(format, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def several(format, **options):
    first, *rest = (Image.fromarray(noise(7, 9 + index, 3)[:, :9]) for index in range(3))
    return saved(format, first, save_all=True, append_images=rest, **options)


def tiled():
    buffer = io.BytesIO()
    options = {"photometric": "rgb", "compression": "lzw", "tile": (16, 16), "predictor": True}
    tifffile.imwrite(buffer, noise(40, 36, 3, dtype=np.uint16), **options)
    return buffer.getvalue()


RGB, DEEP = Image.fromarray(noise(7, 9, 3)), noise(7, 9, 4, dtype=np.uint16)
PROFILE = files.chunk(b"iCCP", b"x\0\0" + zlib.compress(files.LINEAR))
SAMPLES = {
    "png": files.png(noise(7, 9, 4), 6, 8, before=PROFILE),
    "png16": files.png(DEEP, 6, 16, before=PROFILE, after=files.chunk(b"eXIf", files.exif(6))),
    "png16 interlaced": files.png(DEEP[..., :1], 0, 16, interlaced=True, before=files.chunk(b"tRNS", b"\0\1")),
    "apng": several("PNG"),
    "jpeg": saved("JPEG", RGB),
    "webp": several("WEBP"),
    "avif": saved("AVIF", RGB),
    "avif frames": several("AVIF"),
    "gif": several("GIF"),
    "bmp": saved("BMP", RGB),
    "jp2": saved("JPEG2000", RGB),
    "tiff": saved("TIFF", RGB),
    "tiff pages": several("TIFF", compression="tiff_adobe_deflate"),
    "tiff16": files.tiff(DEEP, 2, extra=(1,), rows=3, tags={34675: ("B", list(files.LINEAR))}),
    "tiff16 planar": files.tiff(DEEP[..., :3], 2, planar=True, deflate=True, predictor=True, order=">"),
    "tiff16 tiled": tiled(),
    "tiff32": files.tiff(DEEP[..., :3] / np.float32(65535), 2, deflate=True),
}


def attempt(path):
    """The picture and None, or None and what is wrong."""
    try:
        return images.load(path), None
    except InputError as error:
        return None, str(error)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SAMPLES)
def test_damage_is_an_input_error_or_a_picture(tmp_path, capfd, name):
    rng = np.random.default_rng(len(SAMPLES[name]))
    data, path = SAMPLES[name], tmp_path / "a.bin"
    images.load(write(path, data))
    refused = 0
    for round_ in range(60):
        damaged = bytearray(data)
        if round_ % 4 == 0:
            del damaged[rng.integers(0, len(data)) :]
        for _ in range(rng.integers(1, 4)):
            # Headers matter more than pixels.
            place = rng.integers(0, min(len(damaged), 100 if rng.random() < 0.4 else len(damaged)) or 1)
            damaged[place : place + 1] = bytes([rng.integers(0, 256)]) if damaged else b""
        found, problem = attempt(write(path, bytes(damaged)))
        if found is None:
            refused += 1
            assert problem.startswith(f"{path}: ")
            assert len(problem.splitlines()) == 1
        else:
            assert found.rgb.dtype == np.float32
            assert 0 <= found.rgb.min() <= found.rgb.max() <= 1  # false for NaN
    assert refused > 5
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_file_is_one_clear_error(tmp_path, capfd, name):
    # What stands behind all pixels of the first picture may be missing: other pictures, in "tiff16" the profile.
    pixels_first = name in ("apng", "gif", "webp", "avif frames", "tiff pages", "tiff16")
    data, path = SAMPLES[name], tmp_path / "cut.bin"
    for end in (12, len(data) // 4, len(data) // 2, len(data) * 3 // 4):
        found, problem = attempt(write(path, data[:end]))
        if found is None:
            assert problem.startswith((f"{path}: damaged or truncated", f"{path}: not a picture"))
            assert len(problem.splitlines()) == 1
        else:
            assert pixels_first
            assert end > len(data) // 4
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("format", sorted(set(images.FORMATS.values())))
@pytest.mark.parametrize("depth", [8, 16])
def test_truncated_file_of_our_own_is_one_clear_error(tmp_path, capfd, format, depth):
    if depth == 16 and format not in ("PNG", "TIFF"):
        depth = 8
    data = images.encode(Picture(noise(32, 32, 3) / np.float32(255)), format, bit_depth=depth)
    for end in (12, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(InputError, match=r"cut\.bin: (damaged or truncated|not a picture)") as caught:
            images.load(write(tmp_path / "cut.bin", data[:end]))
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_missing_pixels_are_no_black_ones(tmp_path):
    values = noise(8, 4, 3, dtype=np.uint16)
    two_of_eight = files.tiff(values, 2, rows=1, tags={273: ("I", [8, 8]), 279: ("I", [24, 24])})
    with pytest.raises(InputError, match="damaged or truncated picture .a part of the pixels is missing"):
        images.load(write(tmp_path / "a.tif", two_of_eight))
    beyond_the_end = files.tiff(values, 2, tags={279: ("I", [10**6])})
    with pytest.raises(InputError, match="damaged or truncated"):
        images.load(write(tmp_path / "a.tif", beyond_the_end))


def test_odd_chunks_are_no_reason_to_write_to_stderr(tmp_path, capfd):
    odd = files.chunk(b"iCCP", b"x\0\0" + zlib.compress(b"bad")) + files.chunk(b"zzZz", b"")
    path = write(tmp_path / "a.png", files.png(DEEP, 6, 16, before=odd, after=files.chunk(b"tIME", bytes(7))))
    np.testing.assert_allclose(images.load(path).rgb, DEEP[..., :3] / 65535, atol=1e-7)
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("error")
def test_damaged_avif_is_an_input_error(tmp_path):
    data = SAMPLES["avif"]
    for position in range(40, len(data), 7):
        attempt(write(tmp_path / "a.avif", data[:position] + bytes(8) + data[position + 8 :]))


def test_a_process_that_reads_damaged_files_says_nothing_of_its_own(tmp_path):
    """In a test logging has a listener; here it has none, as in the command."""
    rng = np.random.default_rng(0)
    odd = files.chunk(b"iCCP", b"x\0\0" + zlib.compress(b"bad")) + files.chunk(b"tRNS", b"\0")
    write(tmp_path / "odd.bin", files.png(DEEP, 6, 16, before=odd))
    for name, data in SAMPLES.items():
        for index in range(12):
            damaged = bytearray(data[: len(data) - index * len(data) // 24])
            damaged[rng.integers(0, len(damaged))] ^= 1 << rng.integers(0, 8)
            write(tmp_path / f"{name}-{index:02}.bin", bytes(damaged))
    code = """
import pathlib, sys
from jnst import images
from jnst.errors import InputError
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        images.load(path)
        print("read")
    except InputError:
        print("refused")
"""
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.split()
    assert len(answers) == 1 + 12 * len(SAMPLES)
    assert min(answers.count("read"), answers.count("refused")) > 20


# ---- Headers that claim too much


def claims_png(depth, color_type=2, size=CLAIM):
    header = struct.pack(">IIBBBBB", *size, depth, color_type, 0, 0, 0)
    chunks = (files.chunk(b"IHDR", header), files.chunk(b"IDAT", zlib.compress(b"")), files.chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def claims_tiff(kind, size=CLAIM, photometric=2, **options):
    tags = {256: ("I", [size[0]]), 257: ("I", [size[1]]), 278: ("I", [size[1]])}
    return files.tiff(np.zeros((1, 1, 3), kind), photometric, tags=tags, **options)


def claims_bmp():
    data = bytearray(saved("BMP", RGB))
    data[18:26] = struct.pack("<ii", *CLAIM)
    return bytes(data)


def claims_jpeg():
    data = bytearray(SAMPLES["jpeg"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", *CLAIM)
    return bytes(data)


def claims_gif():
    data = bytearray(SAMPLES["gif"])
    data[6:10] = struct.pack("<HH", *CLAIM)
    return bytes(data)


def claims_avif(data=SAMPLES["avif"]):
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", *CLAIM) + data[at + 8 :]


BOMBS = {
    "png": claims_png(8),
    "png16": claims_png(16),
    "png16 gray": claims_png(16, 0),
    "tiff": claims_tiff(np.uint8),
    "tiff16": claims_tiff(np.uint16),
    "tiff16 deflate": claims_tiff(np.uint16, deflate=True),
    "tiff32 that Pillow does not know": claims_tiff(np.float32, deflate=True, planar=True),
    "tiff of one pixel in a tile": files.tiff(
        np.zeros((1, 1, 3), np.uint16),
        2,
        tags={322: ("I", [60000]), 323: ("I", [60000]), 324: ("I", [8]), 325: ("I", [6])},
    ),
    "tiff palette": claims_tiff(np.uint8, photometric=6),
    "bmp": claims_bmp(),
    "jpeg": claims_jpeg(),
    "gif": claims_gif(),
    "ppm": b"P6 60000 60000 65535\n" + bytes(12),
    "jp2": SAMPLES["jp2"]
    .replace(struct.pack(">II", 7, 9), struct.pack(">II", *CLAIM))
    .replace(struct.pack(">II", 9, 7), struct.pack(">II", *CLAIM)),
}
TOO_MANY = "its header claims more than 178,956,970 pixels; expected no more"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("name", BOMBS)
def test_header_of_a_bomb_is_refused_before_anything_is_decoded(tmp_path, monkeypatch, capfd, name, any_size):
    if any_size:  # what programs that use Pillow often set
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = write(tmp_path / "bomb.bin", BOMBS[name])
    images.load(write(tmp_path / "a.tif", SAMPLES["tiff16"]))  # loads the libraries
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            images.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value) == f"{path}: {TOO_MANY}"
    assert peak < 2**21
    assert capfd.readouterr().err == ""


def test_avif_that_claims_too_much_is_refused(tmp_path):
    with pytest.raises(InputError, match="bomb"):
        images.load(write(tmp_path / "bomb.avif", claims_avif()))


def test_bombs_are_refused_where_memory_is_short(tmp_path):
    for index, data in enumerate([*BOMBS.values(), claims_avif()]):
        write(tmp_path / f"{index:02}.bin", data)
    code = """
import pathlib, resource, sys
from jnst import images
from jnst.errors import InputError
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))  # 60,000 x 60,000 in one byte each are 3.4 GiB
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        images.load(path)
    except InputError as error:
        print(error)
"""
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(lines) == len(BOMBS) + 1
    assert all(line.endswith(TOO_MANY) for line in lines[:-1])


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_limit_is_one_number_for_all(tmp_path, monkeypatch, ending, kind):
    monkeypatch.setattr(reading, "MOST_PIXELS", 12)
    for size, fits in (((3, 4), True), ((13, 1), False)):
        values = noise(*size, 3, dtype=kind)
        data = files.tiff(values, 2) if ending == ".tif" else files.png(values, 2, kind().itemsize * 8)
        write(tmp_path / f"a{ending}", data)
        if fits:
            images.load(tmp_path / f"a{ending}")
        else:
            with pytest.raises(InputError, match="claims more than 12 pixels"):
                images.load(tmp_path / f"a{ending}")


@pytest.mark.slow
def test_deep_png_wider_than_its_library_takes_is_refused_in_silence(tmp_path, capfd):
    path = write(tmp_path / "a.png", files.png(np.zeros((1, png.MOST + 1, 1), np.uint16), 0, 16))
    with pytest.raises(InputError, match=r"1000001x1 pixels: a PNG of 16 bits has at most 1,000,000 on a side"):
        images.load(path)
    assert capfd.readouterr().err == ""


def test_too_little_memory_is_said(tmp_path, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(reading.color, "image_to_srgb", no_memory)
    with pytest.raises(InputError, match=r"a\.bin: too large for the memory that is left"):
        images.load(write(tmp_path / "a.bin", SAMPLES["png"]))
