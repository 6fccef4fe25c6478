"""The command as its user sees it: files, lines, exit codes. 16 pixels, one layer, a few steps."""

import dataclasses
import fcntl
import gc
import io
import json
import math
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jnst
from jnst import weights
from jnst.cli import flags, stylize
from jnst.config import StylizeConfig

ROOT = Path(jnst.__file__).resolve().parents[1]
COMMAND = [sys.executable, "-P", "-m", "jnst.cli.stylize"]
SMALL = ["--size=16", "--steps=5", "--print_every=2", "--style_layers=relu1_1", "--content_layers=conv1_1"]
SMALL += ["--learning_rate=0.003"]  # small enough that every step is better than the one before
PICTURES = ["--content=photo.png", "--style=painting.png"]
ENDLESS = ["--steps=10000000", "--print_every=1"]
FIELDS = dataclasses.fields(StylizeConfig)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder but for two pictures; the command's own cache is the session's."""
    rng = np.random.default_rng(0)
    for name in ("photo.png", "painting.png"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def run(*arguments, **options):
    """A real process, in the working folder."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, **options)


def start(*arguments, **options):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*COMMAND, *arguments], text=True, **streams)


def call(*arguments):
    """The same in this process, which has jax loaded already."""
    return stylize.main(["stylize", *arguments])


def read_until(stream, beginning):
    for line in stream:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"no line began with {beginning!r}")


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read_json(path):
    return json.loads(Path(path).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def assert_one_line(err, *words):
    assert err.startswith("jnst: "), err
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err, err


# ---- A run


def test_run_leaves_picture_record_and_flags_that_repeat_it(here, tmp_path_factory):
    done = run(*PICTURES, *SMALL, "--output=out/o.png")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("device: ")
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["0/5", "2/5", "4/5", "5/5"]
    assert all(word in line for line in lines[2:6] for word in ("total", "content", "style"))
    assert listed(here / "out") == ["o.flags", "o.json", "o.png"]
    picture = (here / "out/o.png").read_bytes()
    assert Image.open(io.BytesIO(picture)).size == (16, 16)

    record = read_json("out/o.json")
    assert record["version"] == jnst.__version__
    assert lines[0] == f"device: {record['device']}"
    random = weights.random_backbone(0, ["relu1_1"])
    assert record["weights"] == {"name": "random:0", "sha256": random.sha256}
    assert list(record["flags"]) == [field.name for field in FIELDS]
    assert record["flags"]["steps"] == 5
    assert record["flags"]["content"] == str(here / "photo.png")
    assert record["size"] == [16, 16]
    assert [row["step"] for row in record["trace"]] == [0, 2, 4, 5]
    for row in record["trace"]:
        assert list(row) == ["step", "total", "content", "style", "tv"]
        assert row["total"] == row["content"] + row["style"] + row["tv"]
    assert record["trace"][0]["content"] == 0  # the start, before any update
    assert record["best_step"] == 5
    assert record["stopped"] == ""
    assert record["compile_seconds"] > 0
    assert record["run_seconds"] > 0

    flagfile = (here / "out/o.flags").read_text()
    (here / "out/o.png").unlink()
    again = run(f"--flagfile={here / 'out/o.flags'}", cwd=tmp_path_factory.mktemp("elsewhere"))
    assert (again.returncode, again.stderr) == (0, "")
    assert (here / "out/o.png").read_bytes() == picture
    assert (here / "out/o.flags").read_text() == flagfile
    assert read_json("out/o.json")["trace"] == record["trace"]


def test_embedded_text_leaves_out_output_times_and_device(here):
    assert call(*PICTURES, *SMALL, "--output=a.png") == 0
    assert call(*PICTURES, *SMALL, f"--output={here}/sub/b.png", "--device=cpu") == 0
    assert (here / "a.png").read_bytes() == (here / "sub/b.png").read_bytes()
    with Image.open("a.png") as image:
        embedded = json.loads(image.text["jnst"])
    assert embedded["jnst"] == jnst.__version__
    assert not {"output", "device"} & embedded["flags"].keys()
    assert "seconds" not in json.dumps(embedded)
    assert str(here) not in json.dumps(embedded)
    assert embedded["flags"]["content"] == "photo.png"


def test_same_seed_same_bytes_other_seed_other_bytes(here):
    pictures = []
    for seed in (1, 1, 2):
        assert call(*PICTURES, *SMALL, "--init=noise", f"--seed={seed}", "--output=o.tif") == 0
        pictures.append((here / "o.tif").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_save_every_numbers_pictures_between(here):
    assert call(*PICTURES, *SMALL, "--save_every=2", "--output=out/o.png") == 0
    assert listed(here / "out") == ["o-000002.png", "o-000004.png", "o.flags", "o.json", "o.png"]
    found = [np.asarray(Image.open(here / "out" / name), int) for name in ("o-000002.png", "o-000004.png", "o.png")]
    assert all((one != other).any() for one, other in zip(found, found[1:], strict=False))
    assert [row["step"] for row in read_json("out/o.json")["trace"]] == [0, 2, 4, 5]


def test_fewer_steps_end_where_a_saved_picture_stands(here):
    assert call(*PICTURES, *SMALL, "--save_every=4", "--output=a.png") == 0
    assert call(*PICTURES, *SMALL, "--steps=4", "--output=b.png") == 0
    between, end = (np.asarray(Image.open(name)) for name in ("a-000004.png", "b.png"))
    np.testing.assert_array_equal(between, end)


def test_trace_with_print_every_zero_is_first_and_last(here, capsys):
    assert call(*PICTURES, *SMALL, "--print_every=0", "--output=o.png") == 0
    assert [row["step"] for row in read_json("o.json")["trace"]] == [0, 5]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["0/5", "5/5"]


def test_rerun_replaces_the_picture_without_asking(here):
    (here / "o.png").write_bytes(b"old")
    assert call(*PICTURES, *SMALL, "--output=o.png") == 0
    assert Image.open("o.png").size == (16, 16)


def test_alpha_is_put_back(here):
    alpha = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    with Image.open("photo.png") as image:
        image.putalpha(Image.fromarray(alpha))
        image.save("photo.png")
    assert call(*PICTURES, *SMALL, "--output=o.png", "--save_every=4") == 0
    for name in ("o.png", "o-000004.png"):
        with Image.open(name) as image:
            assert image.mode == "RGBA"
            np.testing.assert_array_equal(np.asarray(image)[..., 3], alpha)


def chroma(name):
    return np.asarray(Image.open(name).convert("YCbCr"), int)[4:-4, 4:-4, 1:]


def test_preserve_color_keeps_the_contents_chroma(here):
    Image.new("RGB", (16, 16), (140, 110, 90)).save("photo.png")
    Image.effect_noise((16, 16), 60).convert("RGB").save("painting.png")
    assert call(*PICTURES, *SMALL, "--init=mix", "--preserve_color=luminance", "--output=kept.png") == 0
    assert call(*PICTURES, *SMALL, "--init=mix", "--output=free.png") == 0
    assert np.abs(chroma("kept.png") - chroma("photo.png")).max() <= 3
    assert np.abs(chroma("free.png") - chroma("photo.png")).max() > 6


def test_blend_goes_from_one_style_to_the_other(here):
    made = {}
    Image.new("RGB", (16, 16), (200, 30, 30)).save("other.png")
    for mix in ("1,0", "0,1", "1,1"):
        styles = ["--style=painting.png,other.png", f"--style_mix={mix}"]
        assert call("--content=photo.png", *styles, *SMALL, "--output=o.png") == 0
        made[mix] = read_json("o.json")["trace"][0]["style"]
    assert call(*PICTURES, *SMALL, "--output=o.png") == 0
    assert made["1,0"] == pytest.approx(read_json("o.json")["trace"][0]["style"], rel=1e-5)
    assert len(set(made.values())) == 3


def test_a_picture_as_start(here):
    Image.new("RGB", (64, 64), (255, 0, 0)).save("start.png")
    assert call(*PICTURES, *SMALL, "--init=start.png", "--learning_rate=1e-9", "--output=o.png") == 0
    np.testing.assert_array_equal(np.asarray(Image.open("o.png")), np.full((16, 16, 3), (255, 0, 0)))


def test_reader_that_goes_away_costs_no_picture(here):
    child = start(*PICTURES, *SMALL, "--steps=30", "--print_every=1", "--output=o.png")
    read_until(child.stdout, "device: ")
    child.stdout.close()
    assert child.wait(60) == 0
    assert child.stderr.read() == ""
    assert Image.open("o.png").size == (16, 16)


# ---- What is asked without a run


def test_no_arguments_print_a_usage_example(capsys):
    assert call() == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: stylize --content=")
    assert "stylize --flagfile=" in out
    assert err == ""


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"jnst {jnst.__version__}\n"


def test_help_usage_version_and_bad_flags_do_not_wait_for_jax(here):
    code = """
import sys
from jnst.cli.stylize import main
lines = ("", "--help", "--version", "--x=1", "--tv_weight=nan")
codes = [main(["stylize", *words.split()]) for words in lines]
sys.exit(f"{codes} {'jax' in sys.modules}")
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 2, 2] False"
    for field in FIELDS:
        assert f"--{field.name} " in done.stdout
    for name in ("dry_run", "flagfile", "version"):
        assert f"--{name}" in done.stdout


def test_dry_run_says_size_memory_and_time_and_writes_nothing(here, capsys):
    before = listed(here)
    assert call(*PICTURES, *SMALL, "--output=out/o.png", "--save_every=1", "--dry_run") == 0
    out = capsys.readouterr().out
    assert out.startswith("device: ")
    for line in ("size: 16x16", "memory: ", "time: about "):
        assert f"\n{line}" in out
    assert listed(here) == before
    assert not (here / "out").exists()


# ---- What the user got wrong: one line, exit 2, nothing written


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
    "text as weights": (["--weights=text.png"], "text.png: neither .npz nor"),
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
        "--style: 4x4 pixels are too few",
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


@pytest.mark.parametrize("case", ["unknown flag", "recursive flagfile", "text as content", "device unknown"])
def test_bad_input_is_one_line_of_a_real_process_too(troubled, case):
    arguments, message = BAD[case]
    done = run(*PICTURES, *SMALL, "--output=out/o.png", *arguments)
    assert done.returncode == 2
    assert_one_line(done.stderr, message)


def test_a_mistake_of_ours_is_shown_whole_and_exits_1(here, monkeypatch, capsys):
    from jnst import api

    def broken(*arguments):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(api, "prepare", broken)
    assert call(*PICTURES, *SMALL, "--output=o.png") == 1
    assert "Traceback" in capsys.readouterr().err


# ---- Runs that do not reach their end

# Plain descent with a step that overshoots: the losses grow until they overflow.
OVERSHOOT = ["--optimizer=sgd", "--projection=none", "--learning_rate=1e6", "--normalization=gatys"]
OVERSHOOT += ["--style_weight=1e9", "--steps=50", "--print_every=1"]


def test_divergence_names_step_and_term_and_saves_the_best(here, capsys):
    assert call(*PICTURES, *SMALL, *OVERSHOOT, "--output=o.png") == 3
    out, err = capsys.readouterr()
    record = read_json("o.json")
    bad = record["diverged"]
    assert f"jnst: diverged: the {bad['term']} term is not finite at step {bad['step']}\n" in err
    assert bad["term"] in ("total", "content", "style", "tv")
    assert "Traceback" not in err
    assert record["stopped"] == "diverged"
    assert 0 <= record["best_step"] < bad["step"]
    assert [row["step"] for row in record["trace"]] == list(range(bad["step"]))
    assert all(math.isfinite(value) for row in record["trace"] for value in row.values())
    best = min(record["trace"], key=lambda row: row["total"])
    assert record["best_step"] == best["step"] == 0
    np.testing.assert_array_equal(np.asarray(Image.open("o.png")), np.asarray(Image.open("photo.png")))


def test_start_that_is_not_finite_overwrites_nothing(here, capsys):
    net = {"mean": np.zeros(3), "conv1_1": {"kernel": np.full((3, 3, 3, 4), 1e30), "bias": np.zeros(4)}}
    weights.save_safetensors(here / "huge.st", net)
    old = {"o.png": b"old", "o.json": b'{"trace": []}', "o.flags": flags.MARK.encode()}
    for name, data in old.items():
        (here / name).write_bytes(data)
    assert call(*PICTURES, *SMALL, "--weights=huge.st", "--output=o.png") == 3
    err = capsys.readouterr().err
    assert "jnst: diverged: the style term is not finite at step 0\n" in err
    assert "nothing written" in err
    assert all((here / name).read_bytes() == data for name, data in old.items())


def test_ctrl_c_leaves_the_best_picture_and_says_so(here):
    child = start(*PICTURES, *SMALL, *ENDLESS, "--output=o.png")
    read_until(child.stdout, "step 3/")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    record = read_json("o.json")
    last = record["trace"][-1]["step"]
    assert record["stopped"] == "interrupted"
    assert [row["step"] for row in record["trace"]] == list(range(last + 1))
    assert record["best_step"] == min(record["trace"], key=lambda row: row["total"])["step"]
    assert f"jnst: interrupted after step {last}: o.png holds the best picture so far" in err
    assert "Traceback" not in err
    assert Image.open("o.png").size == (16, 16)
    assert (here / "o.flags").exists()


def test_ctrl_c_before_the_first_step_leaves_nothing(here, tiny_file):
    before = listed(here)
    deep = [f"--weights={tiny_file}", "--style_layers=relu1_1,relu5_4"]  # long to prepare
    child = start(*PICTURES, *SMALL, *deep, "--output=o.png")
    read_until(child.stdout, "content: ")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert err == "jnst: interrupted before there was a picture; nothing written\n"
    assert listed(here) == before


def test_ctrl_c_within_a_callback_from_c_is_not_lost(here, monkeypatch, capsys):
    from jnst import api

    prepare = api.prepare

    def interrupt(phase, info):
        gc.callbacks.remove(interrupt)
        signal.raise_signal(signal.SIGINT)

    def interrupted(*arguments):  # what is raised in a garbage collection's callback, Python drops
        gc.callbacks.append(interrupt)
        gc.collect()
        return prepare(*arguments)

    before = listed(here)
    monkeypatch.setattr(api, "prepare", interrupted)
    assert call(*PICTURES, *SMALL, "--output=o.png") == 130
    assert capsys.readouterr().err == "jnst: interrupted before there was a picture; nothing written\n"
    assert listed(here) == before


def test_kill_leaves_the_old_picture_and_whole_files_only(here):
    (here / "o.png").write_bytes(b"old")
    child = start(*PICTURES, *SMALL, *ENDLESS, "--save_every=1", "--output=o.png")
    read_until(child.stdout, "step 20/")
    child.kill()
    child.communicate(timeout=60)
    assert (here / "o.png").read_bytes() == b"old"
    saved = sorted(here.glob("o-*.png"))
    assert len(saved) >= 19
    for path in saved:
        with Image.open(path) as image:
            image.load()
    assert not (here / "o.json").exists()


def test_full_disk_at_the_end_keeps_the_old_picture(here, capsys):
    (here / "o.tif").write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        code = call(*PICTURES, *SMALL, "--output=o.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert "o.tif: cannot be written: File too large" in capsys.readouterr().err
    assert (here / "o.tif").read_bytes() == b"old"
    assert listed(here) == ["o.tif", "painting.png", "photo.png"]


@pytest.mark.parametrize("size", [(24, 160), (0, 0)])
def test_terminal_shows_a_bar(here, size):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
    child = start(*PICTURES, *SMALL, "--output=o.png", stdout=slave, stderr=slave)
    os.close(slave)
    shown, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        try:
            data = os.read(master, 4096)
        except OSError:  # the child has gone
            break
        if not data:
            break
        shown += data
    os.close(master)
    assert child.wait(60) == 0
    text = shown.decode()
    assert "step 2/5" not in text
    assert "5/5" in text
    assert "%|" in text
    assert all(f"{name}=" in text for name in ("total", "content", "style", "tv"))


def test_log_of_a_command_on_a_terminal_holds_the_lines(here):
    master, slave = pty.openpty()
    child = start(*PICTURES, *SMALL, "--output=o.png", stderr=slave)
    os.close(slave)
    assert "step 2/5" in child.stdout.read()
    assert child.wait(60) == 0
    os.close(master)


def test_closed_stderr_is_no_fault(here):
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    assert subprocess.run([*shell, *COMMAND, *PICTURES, *SMALL, "--output=o.png"], timeout=60).returncode == 0
    assert (here / "o.png").exists()


def test_folder_with_a_comma_repeats_the_picture(here, monkeypatch, capsys):
    (here / "a,b").mkdir()
    for name in ("photo.png", "painting.png"):
        (here / "a,b" / name).write_bytes((here / name).read_bytes())
    monkeypatch.chdir(here / "a,b")
    assert call(*PICTURES, *SMALL, "--output=o.png") == 0
    first = (here / "a,b" / "o.png").read_bytes()
    assert call("--flagfile=o.flags") == 0
    assert (here / "a,b" / "o.png").read_bytes() == first


def test_preset_is_found_from_within_a_flagfile(here, capsys):
    (here / "mine.flags").write_text("--flagfile=course\n# smaller\n--steps=1\n--save_every=0\n")
    assert call("--flagfile=mine.flags", *PICTURES, *SMALL, "--output=o.png") == 0
    chosen = json.loads((here / "o.json").read_text())["flags"]
    assert (chosen["normalization"], chosen["canvas_scale"], chosen["steps"]) == ("course", 255, 5)


def test_wrong_layers_are_said_before_a_cache_is_made(here, monkeypatch, capsys):
    monkeypatch.setenv("JNST_CACHE", str(here / "cache"))
    assert call(*PICTURES, "--style_layers=relu9_9", "--output=o.png") == 2
    assert call(*PICTURES, "--style_mix=nan", "--output=o.png") == 2
    assert not (here / "cache").exists()


def test_second_ctrl_c_does_not_say_that_there_was_no_picture(here):
    child = start(*PICTURES, *SMALL, *ENDLESS, "--save_every=1", "--output=o.png")
    read_until(child.stdout, "step 3/")
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "before there was a picture" not in err
    assert "Traceback" not in err
