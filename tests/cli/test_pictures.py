"""Pictures of every kind through the command: what is said, what is written, what is refused."""

import numpy as np
import pytest
from images import files
from PIL import Image

from cli.command import PICTURES, SMALL, assert_one_line, call, listed
from jnst import images
from jnst.config import StylizeConfig

FAST = [*SMALL, "--steps=1"]


def animated(path, frames):
    rng = np.random.default_rng(0)
    first, *rest = (Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(frames))
    first.save(path, save_all=True, append_images=rest)


def text_of(path):
    with Image.open(path) as image:
        return image.text


def test_it_is_said_which_frame_is_used_and_once(here, capsys):
    animated("photo.gif", 12)
    animated("pages.tif", 3)
    flags = ["--content=photo.gif", "--style=pages.tif,photo.gif,painting.png", "--init=photo.gif", "--output=o.png"]
    assert call(*FAST, *flags) == 0
    out = capsys.readouterr().out.splitlines()
    assert out.count("photo.gif: 12 frames, the first is used") == 1
    assert out.count("pages.tif: 3 pages, the first is used") == 1
    assert not any("painting" in line and "frame" in line for line in out)


def test_a_dry_run_says_it_too(here, capsys):
    animated("photo.gif", 2)
    assert call(*FAST, *PICTURES, "--content=photo.gif", "--output=o.png", "--dry_run") == 0
    assert "photo.gif: 2 frames, the first is used\n" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_in_and_out(here, ending):
    values = files.noise(16, 16, 4, dtype=np.uint16)
    (here / "content.png").write_bytes(files.png(values, 6, 16))
    flags = [*FAST, "--content=content.png", "--style=painting.png", "--save_every=1"]
    assert call(*flags, "--output=flat.png") == 0
    assert call(*flags, f"--output=deep{ending}", "--bit_depth=16") == 0
    flat, deep, between = (images.load(here / name) for name in ("flat.png", f"deep{ending}", f"deep-000001{ending}"))
    steps = np.rint(deep.rgb * 65535)
    assert np.abs(deep.rgb * 65535 - steps).max() < 0.01
    assert (steps % 257 != 0).any()  # more than 8 bits, spread
    np.testing.assert_allclose(deep.rgb, flat.rgb, rtol=0, atol=0.51 / 255)
    np.testing.assert_array_equal(np.rint(deep.alpha * 65535), values[..., 3])
    assert between.size == deep.size
    assert (np.rint(between.rgb * 65535) % 257 != 0).any()


def test_equal_runs_give_equal_bytes_of_each_format(here):
    names = ["o.png", "o.tif", "o.jpg", "o.webp", "o.avif", "deep.png", "deep.tif"]
    for folder in ("a", "b"):
        (here / folder).mkdir()
        for name in names:
            depth = ["--bit_depth=16"] if name.startswith("deep") else []
            assert call(*FAST, *PICTURES, f"--output={folder}/{name}", *depth) == 0
    for name in names:
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes(), name


def test_record_in_the_picture_differs_by_the_depth_alone(here):
    assert call(*FAST, *PICTURES, "--output=flat.png") == 0
    assert call(*FAST, *PICTURES, "--output=deep.png", "--bit_depth=16") == 0
    flat, deep = text_of("flat.png"), text_of("deep.png")
    assert flat.keys() == deep.keys() == {"jnst"}
    assert flat["jnst"].replace('"bit_depth": 8', '"bit_depth": 16') == deep["jnst"]
    for words in ("seconds", "trace", "device", str(here)):
        assert words not in deep["jnst"]


def test_flagfile_of_a_deep_run_makes_it_again(here):
    assert call(*FAST, *PICTURES, "--output=deep.png", "--bit_depth=16") == 0
    data = (here / "deep.png").read_bytes()
    (here / "deep.png").unlink()
    assert call("--flagfile=deep.flags") == 0
    assert (here / "deep.png").read_bytes() == data


@pytest.mark.slow
@pytest.mark.parametrize("size", [(40, 1), (1, 40)])
@pytest.mark.parametrize("target", [0, 16])
def test_pictures_of_one_row_or_column_come_through(here, size, target):
    Image.fromarray(files.noise(*size[::-1], 3)).save("line.png")
    assert call(*FAST, "--content=line.png", "--style=line.png", f"--size={target}", "--output=o.png") == 0
    expected = size if target == 0 else tuple(min(side, target) for side in size)
    assert images.load("o.png").size == expected


BAD = {
    "sixteen bits of a JPEG": (
        ["--bit_depth=16", "--content=not_there.png", "--output=out/o.jpg"],
        "--bit_depth=16: JPEG holds 8; expected --output to end in .png, .tif, .tiff",
    ),
    "twelve bits": (["--bit_depth=12"], "--bit_depth=12: expected one of 8, 16"),
    "a header of 60,000 x 60,000": (["--content=bomb.png"], "bomb.png: its header claims more than 178,956,970 pixels"),
    "the same in 16 bits": (["--style=bomb16.png"], "bomb16.png: its header claims more than 178,956,970 pixels"),
    "signed pixels": (["--content=signed.tif"], "signed.tif: signed pixels"),
    "too wide for WebP": (["--content=wide.png", "--size=0", "--output=out/o.webp"], "WEBP holds at most 16383"),
    "too wide for JPEG": (["--content=wider.png", "--size=0", "--output=out/o.jpg"], "JPEG holds at most 65500"),
    "too wide for a PNG of 16 bits": (
        ["--content=widest.png", "--size=0", "--bit_depth=16"],
        "PNG holds at most 1000000 on a side; expected .tif, or --bit_depth=8",
    ),
    "too wide for AVIF": (["--content=wider.png", "--size=0", "--output=out/o.avif"], "AVIF holds at most 32768"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD)
def test_bad_pictures_are_one_line_and_leave_nothing(here, capfd, monkeypatch, case):
    arguments, message = BAD[case]
    header = files.png(np.zeros((1, 1, 3), int), 2, 8)
    for name, depth in (("bomb.png", 8), ("bomb16.png", 16)):
        ihdr = files.chunk(b"IHDR", (60000).to_bytes(4) * 2 + bytes([depth, 2, 0, 0, 0]))
        (here / name).write_bytes(header[:8] + ihdr + header[33:])
    (here / "signed.tif").write_bytes(files.tiff(np.int32([[[-1]]]), 1))
    Image.new("L", (16384, 2)).save("wide.png")
    Image.new("L", (65501, 2)).save("wider.png")
    Image.new("1", (1_000_001, 1)).save("widest.png")
    before = listed(here)
    assert call(*PICTURES, *FAST, "--style_scale=0.001", "--output=out/o.png", *arguments) == 2
    assert_one_line(capfd.readouterr().err, message)
    assert listed(here) == before
    assert not (here / "out").exists()


@pytest.mark.slow
def test_library_writes_the_depth_that_it_was_asked_for(here):
    import jnst

    options = {"size": 16, "steps": 1, "style_layers": "relu1_1", "content_layers": "relu1_1"}
    result = jnst.stylize("photo.png", "painting.png", bit_depth=16, **options)
    result.save("o.png")
    assert (here / "o.png").read_bytes()[24] == 16
    assert StylizeConfig().bit_depth == 8
