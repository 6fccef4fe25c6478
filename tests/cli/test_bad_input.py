"""Every mistake of a user: one line on stderr, exit code 2, nothing written."""

import numpy as np
import pytest
from PIL import Image

from cli.command import FIELDS, PICTURES, SMALL, assert_one_line, call, listed, run
from jnst import weights


def bad_numbers():
    for field in FIELDS:
        kind, rule = type(field.default), field.metadata
        if kind is float:
            yield from ((field.name, value) for value in ("nan", "inf", "-inf", "-1", "abc", "", "1e+300"))
        if kind is int:
            yield from ((field.name, value) for value in ("-1", "1.5", "nan", "abc", ""))
        if rule["above"] is not None:
            yield field.name, f"{rule['above']}"
        if rule["choices"] is not None:
            yield field.name, "7" if kind is int else "wrong"


@pytest.mark.parametrize(("name", "value"), list(bad_numbers()))
def test_bad_number_or_choice_is_said_before_anything_is_read(tmp_path, monkeypatch, capsys, name, value):
    monkeypatch.chdir(tmp_path)
    flags = ["--content=not_there.png", "--style=not_there.png", "--output=out/o.png", f"--{name}={value}"]
    assert call(*flags) == 2
    assert_one_line(capsys.readouterr().err, f"--{name}={value}", "expected")
    assert listed(tmp_path) == []


BAD = {
    "unknown flag": (["--sizes=3"], "sizes"),
    "stray argument": (["other.png"], "other.png"),
    "no content": (["--content="], "--content is missing"),
    "no style": (["--style="], "--style is missing"),
    "no output": (["--output="], "--output is missing"),
    "blank style": (["--style=,"], "--style"),
    "missing content": (["--content=nothing.png"], "nothing.png: no such file"),
    "missing style": (["--style=painting.png,nothing.png"], "nothing.png: no such file"),
    "missing init": (["--init=nothing.png"], "nothing.png: no such file"),
    "missing weights": (["--weights=nothing.npz"], "nothing.npz: no such file"),
    "folder as content": (["--content=folder"], "folder"),
    "name too long": (["--content=" + "a" * 300], "aaa"),
    "text as content": (["--content=text.png"], "text.png: not a picture"),
    "text as style": (["--style=text.png"], "text.png: not a picture"),
    "empty content": (["--content=empty.png"], "empty.png: an empty file"),
    "truncated content": (["--content=cut.png"], "cut.png: damaged or truncated"),
    "truncated TIFF": (["--content=cut.tif"], "cut.tif: "),
    "text as weights": (["--weights=text.png"], "text.png: not a weights file"),
    "random seed": (["--weights=random:x"], "--weights=random:x"),
    "unknown ending": (["--output=out/o.bmp"], "--output=out/o.bmp: expected a name ending in .png"),
    "no ending": (["--output=out/o"], "--output=out/o: expected a name ending in"),
    "output folder is a file": (["--output=text.png/o.png"], "--output=text.png/o.png: cannot be written"),
    "output is a folder": (["--output=folder.png"], "--output=folder.png: is a folder"),
    "output name too long": (["--output=" + "a" * 300 + ".png"], "name too long"),
    "record is a folder": (["--output=taken.png"], "taken.json: is a folder"),
    "output is the content": (["--output=photo.png"], "--output=photo.png: would replace photo.png"),
    "output is a style": (["--output=sub/../painting.png"], "would replace"),
    "output is the start": (["--init=cut.png", "--output=cut.png"], "would replace"),
    "no flagfile": (["--flagfile=nothing.flags"], "--flagfile=nothing.flags: no such file; presets: "),
    "weights that the record would replace": (
        ["--weights=net.json", "--output=net.png"],
        "would replace net.json, which is read",
    ),
    "a flagfile written by hand": (["--output=mine.png"], "would replace mine.flags, which no run of jnst wrote"),
    "a record of something else": (["--output=other.png"], "would replace other.json, which no run of jnst wrote"),
    "a flagfile's line that is no flag": (["--flagfile=text.png"], "expected a line such as --size=512"),
    "a layer weight too large": (["--style_layers=relu1_1:1e300"], "'1e300' is not a number from 0 to 1e12"),
    "recursive flagfile": (["--flagfile=loop.flags"], "loop.flags"),
    "binary flagfile": (["--flagfile=binary.flags"], "--flagfile"),
    "mix of another count": (["--style_mix=1,2"], "--style_mix=1,2: expected 1 numbers"),
    "mix below zero": (["--style_mix=-1"], "--style_mix=-1"),
    "mix of nan": (["--style_mix=nan"], "--style_mix=nan"),
    "mix of zero": (["--style_mix=0"], "--style_mix=0"),
    "unknown layer": (["--style_layers=relu9_1"], "--style_layers=relu9_1: 'relu9_1' is no layer"),
    "layer twice": (
        ["--content_layers=relu1_1,relu1_1"],
        "--content_layers=relu1_1,relu1_1: relu1_1 is named twice",
    ),
    "layer weight": (["--style_layers=relu1_1:nan"], "--style_layers=relu1_1:nan"),
    "no layer": (["--style_layers="], "--style_layers"),
    "an intermediate is the content": (
        ["--content=o-000002.png", "--output=o.png", "--save_every=1"],
        "would replace o-000002.png",
    ),
    "a name that is no text": (["--output=out/\udcff.png"], "expected a name in UTF-8"),
    "picture too small": (
        ["--weights=tiny.st", "--style_layers=relu5_1", "--size=15"],
        "needs at least 16 on each side",
    ),
    "style too small": (
        ["--weights=tiny.st", "--style_layers=relu4_1", "--style_scale=0.25"],
        "--style=painting.png: 4x4 pixels are too few",
    ),
    "weights too shallow": (
        ["--weights=net.st", "--style_layers=relu1_2"],
        "relu1_2 is not in --weights=net.st",
    ),
    "device unknown": (["--device=foo"], "--device=foo: expected auto, cpu, gpu, tpu"),
    "device not here": (["--device=tpu"], "--device=tpu: no such device; here: "),
    "device number": (["--device=cpu:99"], "--device=cpu:99: expected a number below"),
    "webp too wide": (["--content=wide.png", "--size=0", "--style_scale=0.001", "--output=o.webp"], "16383"),
}


@pytest.fixture
def troubled(here, tiny_file):
    (here / "tiny.st").symlink_to(tiny_file)
    for folder in ("folder", "folder.png", "taken.json"):
        (here / folder).mkdir()
    (here / "text.png").write_text("These are words, and not a picture.\n")
    (here / "empty.png").write_bytes(b"")
    Image.new("L", (16384, 16)).save(here / "wide.png")
    (here / "o-000002.png").write_bytes((here / "photo.png").read_bytes())
    noise = Image.effect_noise((64, 64), 50)
    for ending in ("png", "tif"):
        noise.save(here / f"cut.{ending}")
        data = (here / f"cut.{ending}").read_bytes()
        (here / f"cut.{ending}").write_bytes(data[: len(data) // 2])
    (here / "loop.flags").write_text("--flagfile=loop.flags\n")
    (here / "mine.flags").write_text("--size=16\n")
    (here / "other.json").write_text("[1]")
    (here / "binary.flags").write_bytes(b"\x9c\xff\0")
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
    net = {"mean": np.zeros(3), "conv1_1": {"kernel": kernel, "bias": np.zeros(4)}}
    for name in ("net.st", "net.json"):
        weights.save_safetensors(here / name, net)
    return here


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(troubled, capsys, case):
    arguments, message = BAD[case]
    before = {name: (troubled / name).read_bytes() for name in listed(troubled)}
    assert call(*PICTURES, *SMALL, "--output=out/o.png", *arguments) == 2
    assert_one_line(capsys.readouterr().err, message)
    assert {name: (troubled / name).read_bytes() for name in listed(troubled)} == before
    assert not (troubled / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["unknown flag", "recursive flagfile", "text as content", "device unknown"])
def test_bad_input_is_one_line_of_a_real_process_too(troubled, case):
    arguments, message = BAD[case]
    done = run(*PICTURES, *SMALL, "--output=out/o.png", *arguments)
    assert done.returncode == 2
    assert_one_line(done.stderr, message)
