import json

import numpy as np
import pytest
import stylenet_files
from PIL import Image

from cli.command import assert_one_line, listed
from jnst import bundled, images
from jnst.cli import brush, fast
from jnst.config import ApplyConfig
from jnst.images import Picture
from jnst.tasks.fast import painting
from jnst.weights import stylenets


@pytest.fixture
def net(here):
    return stylenet_files.write(here / "net.safetensors")


def call(*arguments):
    return fast.main(["fast", "apply", *map(str, arguments)])


def expected(name, mix=(1, 0), **options):
    """What the network makes of a file, by the task itself."""
    net = stylenets.load("net.safetensors")
    rgb = images.load(name).opaque()
    return np.asarray(painting.paint(net.variables, rgb[None], np.array(mix, np.float32), net.spec, **options))[0]


def assert_painted(name, source, *more, within=0.51 / 255, **options):
    np.testing.assert_allclose(images.load(name).rgb, expected(source, *more, **options), rtol=0, atol=within)


# ---- One picture


@pytest.mark.slow
@pytest.mark.parametrize(
    "size",
    [(16, 16), (31, 17), pytest.param((1, 1), marks=pytest.mark.slow), pytest.param((2, 5), marks=pytest.mark.slow)],
)
def test_a_picture_of_any_size(here, net, size, capsys):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save("a.png")
    assert call(net, "a.png", "out/deep/b.png") == 0
    assert Image.open("out/deep/b.png").size == size
    assert_painted("out/deep/b.png", "a.png")
    assert f"out/deep/b.png: {size[0]}x{size[1]}" in capsys.readouterr().out
    assert listed(here / "out") == ["deep/b.png"]


def test_the_network_paints(here, net):
    assert call(net, "photo.png", "a.png") == 0
    assert np.abs(images.load("a.png").rgb - images.load("photo.png").rgb).mean() > 0.02


def test_gray_and_palette(here, net):
    gray = Image.open("photo.png").convert("L")
    gray.save("gray.png")
    gray.convert("RGB").quantize(7).save("few.gif")
    for name in ("gray.png", "few.gif"):
        assert call(net, name, "a.png") == 0
        assert_painted("a.png", name)


def test_a_turned_photo_is_upright(here, net):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (17, 31), "red").save("a.jpg", exif=exif)
    assert call(net, "a.jpg", "b.png") == 0
    assert Image.open("b.png").size == (31, 17)


def test_alpha_is_kept(here, net):
    alpha = np.linspace(0, 1, 16 * 16, dtype=np.float32).reshape(16, 16)
    images.save("a.png", Picture(images.load("photo.png").rgb, alpha))
    assert call(net, "a.png", "b.png") == 0
    np.testing.assert_allclose(images.load("b.png").alpha, alpha, rtol=0, atol=0.51 / 255)
    assert_painted("b.png", "a.png")
    assert call(net, "a.png", "b.jpg") == 0
    assert images.load("b.jpg").alpha is None


def test_what_is_odd_about_a_file_is_said(here, net, capsys):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    frames[0].save("a.webp", save_all=True, append_images=frames[1:])
    assert call(net, "a.webp", "b.png") == 0
    assert "a.webp: 2 frames, the first is used" in capsys.readouterr().out


def test_size_is_that_of_the_longest_side(here, net):
    Image.open("photo.png").resize((62, 34)).save("a.png")
    assert call(net, "a.png", "b.png", "--size=31") == 0
    assert Image.open("b.png").size == (31, 17)


def test_strength_zero_is_the_photo(here, net):
    assert call(net, "photo.png", "a.png", "--strength=0") == 0
    np.testing.assert_array_equal(images.load("a.png").rgb, images.load("photo.png").rgb)
    assert call(net, "photo.png", "b.png", "--strength=0.5") == 0
    assert_painted("b.png", "photo.png", strength=0.5)


@pytest.mark.slow
def test_preserve_color(here, net):
    assert call(net, "photo.png", "a.png", "--preserve_color=luminance") == 0
    assert_painted("a.png", "photo.png", preserve_color="luminance")
    with pytest.raises(AssertionError):
        assert_painted("a.png", "photo.png")


def test_sixteen_bits(here, net):
    assert call(net, "photo.png", "a.png", "--bit_depth=16") == 0
    assert_painted("a.png", "photo.png", within=0.6 / 65535)


def test_styles_by_name_number_and_share(here, net):
    for flags, mix in (
        ([], (1, 0)),
        (["--style=waves"], (1, 0)),
        (["--style=stars"], (0, 1)),
        (["--style=2"], (0, 1)),
        (["--style_mix=1,3"], (0.25, 0.75)),
    ):
        assert call(net, "photo.png", "a.png", *flags) == 0
        assert_painted("a.png", "photo.png", mix)
    assert np.abs(expected("photo.png", (1, 0)) - expected("photo.png", (0, 1))).mean() > 0.01


def test_a_style_whose_name_is_a_number(here):
    net = stylenets.load(stylenet_files.write("n.safetensors", styles=("2", "1")))
    assert brush.mix_of(net, ApplyConfig(style="2")).tolist() == [1, 0]


def test_what_a_png_says(here, net):
    assert call(net, "photo.png", "a.png", "--style=2", "--strength=0.5") == 0
    text = json.loads(images.text_of("a.png"))
    assert text["network"] == {"name": "net", "sha256": stylenets.load(net).sha256}
    assert text["input"] == brush.digest_of("photo.png")
    assert text["flags"] == {"bit_depth": 8, "mix": [0, 1], "preserve_color": "none", "size": 0, "strength": 0.5}
    assert text["jnst"]


def test_equal_pictures_have_equal_bytes(here, net):
    for name in ("a.png", "b.png"):
        assert call(net, "photo.png", name) == 0
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()


def test_a_bare_name_is_a_bundled_network(here, net, monkeypatch):
    folder = here / "root/weights/stylenets"
    folder.mkdir(parents=True)
    stylenet_files.write(folder / "starry.safetensors", seed=5)
    monkeypatch.setattr(bundled, "_ROOTS", (here / "root",))
    assert call("starry", "photo.png", "a.png") == 0
    assert call(net, "photo.png", "b.png") == 0
    assert (here / "a.png").read_bytes() != (here / "b.png").read_bytes()


def test_a_flagfile(here, net):
    (here / "a.flags").write_text("--strength=0\n")
    assert call(net, "photo.png", "a.png", "--flagfile=a.flags") == 0
    np.testing.assert_array_equal(images.load("a.png").rgb, images.load("photo.png").rgb)


# ---- Tiles


@pytest.mark.slow
def test_tiles_give_the_same_picture(here, net, capsys):
    pixels = np.random.default_rng(2).integers(0, 256, (101, 141, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("a.png")
    assert call(net, "a.png", "b.png", "--tile=64", "--bit_depth=16") == 0
    assert "141x101, tiles of 64" in capsys.readouterr().out
    assert_painted("b.png", "a.png", within=1e-4)


@pytest.mark.slow
def test_auto_takes_tiles_where_the_whole_does_not_fit(here, net):
    rgb = np.random.default_rng(3).random((300, 270, 3), np.float32)
    tool = brush.Brush(stylenets.load(net), ApplyConfig())
    with tool.ready():
        whole, tile = tool.paint(rgb, "a.png")
        assert tile == 0
        tool._room = brush.bytes_of((300, 270), stylenet_files.SPEC) - 1
        tiled, tile = tool.paint(rgb, "a.png")
        assert tile == 256
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-4)


# ---- What is wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["expected a network, a picture, folder or film, and an output"]),
        (["net.safetensors", "photo.png"], ["found 2"]),
        (["net.safetensors", "photo.png", "a.png", "b.png"], ["'b.png'"]),
        (["nett", "photo.png", "a.png"], ["nett: no such network file"]),
        (["photo.png", "photo.png", "a.png"], ["photo.png: not a whole safetensors file"]),
        (["net.safetensors", "gone.png", "a.png"], ["gone.png: no such file"]),
        (["net.safetensors", "net.safetensors", "a.png"], ["net.safetensors: not a picture"]),
        (["net.safetensors", "photo.png", "a.xyz"], ["a.xyz: expected an output that ends in .png"]),
        (["net.safetensors", "photo.png", "a"], ["a: expected an output that ends in .png"]),
        (["net.safetensors", "photo.png", "."], [".: is a folder"]),
        (["net.safetensors", "photo.png", "photo.png"], ["would replace photo.png"]),
        (["net.safetensors", "photo.png", "./photo.png"], ["would replace photo.png"]),
        (["net.safetensors", "photo.png", "net.safetensors"], ["would replace", "net.safetensors"]),
        (["net.safetensors", "photo.png", "photo.png/a.png"], ["photo.png/a.png: cannot be written"]),
        (["net.safetensors", "photo.png", "a.jpg", "--bit_depth=16"], ["--bit_depth=16: JPEG holds 8"]),
        (["net.safetensors", "photo.png", "a.webp", "--size=20000"], ["20000x20000"]),
        (["net.safetensors", "photo.png", "a.png", "--size=-1"], ["--size=-1"]),
        (["net.safetensors", "photo.png", "a.png", "--strength=2"], ["--strength=2.0"]),
        (["net.safetensors", "photo.png", "a.png", "--style=moon"], ["--style=moon", "1 waves, 2 stars"]),
        (["net.safetensors", "photo.png", "a.png", "--style=3"], ["--style=3", "1 waves, 2 stars"]),
        (["net.safetensors", "photo.png", "a.png", "--style_mix=1"], ["--style_mix=1: expected 2 numbers"]),
        (["net.safetensors", "photo.png", "a.png", "--style=1", "--style_mix=1,1"], ["not both"]),
        (["net.safetensors", "photo.png", "a.png", "--tile=3"], ["--tile=3"]),
        (["net.safetensors", "photo.png", "a.png", "--format=.jpg"], ["--format=.jpg: expected none"]),
        (["net.safetensors", "photo.png", "a.png", "--device=abacus"], ["--device=abacus"]),
        (["net.safetensors", "photo.png", "a.png", "--colour=red"], ["colour"]),
    ],
)
def test_bad_input_is_one_line(here, net, capsys, arguments, words):
    before = listed(here)
    assert call(*arguments) == 2
    err = capsys.readouterr().err
    assert_one_line(err)
    assert any(word in err for word in words), err
    assert listed(here) == before


def test_a_broken_picture_is_one_line(here, net, capsys):
    (here / "a.jpg").write_bytes((here / "photo.png").read_bytes()[:200])
    assert call(net, "a.jpg", "b.png") == 2
    assert_one_line(capsys.readouterr().err, "a.jpg: damaged or truncated")
    assert not (here / "b.png").exists()


def test_a_link_to_the_photo_is_not_replaced(here, net, capsys):
    (here / "link.png").symlink_to("photo.png")
    assert call(net, "photo.png", "link.png") == 2
    assert_one_line(capsys.readouterr().err, "would replace photo.png")


def test_a_network_that_overflows_is_one_line(here, capsys):
    def huge(params):
        params["ups_0"]["scale"][:] = 3e38
        params["last"] *= 1e4

    stylenet_files.write(here / "huge.safetensors", change=huge)
    assert call("huge.safetensors", "photo.png", "a.png") == 2
    assert_one_line(capsys.readouterr().err, "huge.safetensors gives numbers that are not finite")
    assert not (here / "a.png").exists()


# ---- The command


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_usage(capsys, arguments):
    assert fast.main(["fast", *arguments]) == 0
    out = capsys.readouterr().out
    assert "fast train --style=" in out
    assert "fast apply NETWORK" in out


@pytest.mark.parametrize(("word", "flag"), [("train", "--photos"), ("apply", "--strength")])
def test_help_lists_the_flags_of_a_word(capsys, word, flag):
    assert fast.main(["fast", word, "--help"]) == 0
    assert f"\n  {flag}" in capsys.readouterr().out


def test_the_word_comes_first(capsys):
    assert fast.main(["fast", "aply", "a", "b", "c"]) == 2
    assert_one_line(capsys.readouterr().err, "'aply': expected train or apply first")


def test_version(capsys):
    assert fast.main(["fast", "--version"]) == 0
    assert capsys.readouterr().out.startswith("jnst ")
