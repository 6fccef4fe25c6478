"""The command as its user sees it: files, lines, terminals. 16 pixels, one layer, a few steps."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from PIL import Image

import jnst
from cli.command import COMMAND, FIELDS, PICTURES, SMALL, call, listed, read_json, read_until, run, start
from jnst import weights


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
    assert record["weights"] == {"name": "mini", "sha256": weights.load("mini").sha256}
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_log_of_a_command_on_a_terminal_holds_the_lines(here):
    master, slave = pty.openpty()
    child = start(*PICTURES, *SMALL, "--output=o.png", stderr=slave)
    os.close(slave)
    assert "step 2/5" in child.stdout.read()
    assert child.wait(60) == 0
    os.close(master)


@pytest.mark.slow
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


@pytest.mark.slow
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
