"""bin/grid: what it leaves, what it refuses, and that nothing is lost."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cli.command import SMALL, assert_one_line, listed, read_json, read_until
from cli.command import call as stylize
from jnst import images, memory, objective, weights
from jnst.cli import checkpoint, gallery, grid, page, plan, sweep
from jnst.config import StylizeConfig
from jnst.errors import InputError
from jnst.tasks.stylize import many, parts

COMMAND = [sys.executable, "-P", "-m", "jnst.cli.grid"]
BASE = ["--content=photo.png", "--style=painting.png", *SMALL, "--weights=mini", "--output=out"]
AXES = ["--axis=style_weight=1e1,1e2,1e3", "--axis=style=painting.png,other.png", "--axis=seed=0,1", "--init=mix"]
OWN = ("grid.csv", "index.html", "sheet.png")


@pytest.fixture
def here(here):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (14, 20, 3), dtype=np.uint8)).save(here / "other.png")
    return here


def call(*arguments):
    return grid.main(["grid", *arguments])


def start(*arguments, **options):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*COMMAND, *arguments], text=True, **streams)


def pictures(folder="out"):
    """Name and pixels of each run's picture."""
    return {
        path.stem: np.asarray(Image.open(path), float)
        for path in sorted(Path(folder).glob("*.png"))
        if path.name not in OWN
    }


def table(folder="out"):
    with open(Path(folder) / "grid.csv", newline="") as file:
        head, *rows = csv.reader(file)
    # An axis may have a term's name: style is both here.
    names = [*(f"axis {name}" for name in head[1:-6]), "total", "content", "style", "tv", "seconds", "picture"]
    return [dict(zip(["run", *names], row, strict=True)) for row in rows]


def stamps(folder="out"):
    return {
        name: (Path(folder, name).stat().st_mtime_ns, Path(folder, name).stat().st_ino) for name in listed(Path(folder))
    }


@pytest.mark.slow
def test_a_grid_of_three_by_two_by_two(here, capsys, monkeypatch):
    traces, original = [], objective.style_objective
    monkeypatch.setattr(objective, "style_objective", lambda *them: traces.append(1) or original(*them))
    assert call(*BASE, *AXES) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(traces) == 1  # one program, batches and padding included
    assert "plan: 12 runs, 1 group, 1 program, 6 runs at once, memory " in out
    rows = table()
    with open("out/grid.csv") as file:
        assert file.readline() == "run,style_weight,style,seed,total,content,style,tv,seconds,picture\n"
    assert [row["run"] for row in rows] == sorted(row["run"] for row in rows)
    assert rows[6]["run"] == "07_style_weight=1e2_style=other_seed=0"
    assert [rows[6]["axis style_weight"], rows[6]["axis seed"]] == ["1e2", "0"]
    expected = {f"{row['run']}{ending}" for row in rows for ending in (".png", ".json", ".flags")}
    assert set(listed(Path("out"))) == expected | set(OWN)
    for row in rows:
        assert float(row["total"]) == pytest.approx(sum(float(row[name]) for name in ("content", "style", "tv")))
        assert float(row["seconds"]) >= 0  # of so small a run perhaps less than is written
    assert len({picture.tobytes() for picture in pictures().values()}) == 12
    assert out.count("Pareto front of content against style loss, of 6 runs: ") == 2  # by style
    text = Path("out/index.html").read_text()
    assert all(row["run"] in text for row in rows)
    assert Image.open("out/sheet.png").size[0] > 3 * 16


@pytest.mark.slow
def test_each_run_is_what_stylize_makes_of_its_flagfile(here, capsys):
    assert call(*BASE, *AXES[:2], "--axis=init=content,noise") == 0
    for name, ours in pictures().items():
        assert stylize(f"--flagfile=out/{name}.flags", "--output=alone.png") == 0
        theirs = np.asarray(Image.open("alone.png"), float)
        assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.1, name
        assert np.abs(ours - theirs).max() <= 1
        record, other = read_json(f"out/{name}.json"), read_json("alone.json")
        assert record.keys() == other.keys() | {"best_terms"}
        assert record["best_step"] == other["best_step"]
        np.testing.assert_allclose(record["trace"][-1]["total"], other["trace"][-1]["total"], rtol=1e-3)
    assert stylize(f"--flagfile=out/{name}.flags", "--resume") == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_command_again_does_nothing_again(here, capsys):
    assert call(*BASE, *AXES[:1]) == 0
    before = stamps()
    capsys.readouterr()
    assert call(*BASE, *AXES[:1]) == 0
    assert "3 runs, all of them done" in capsys.readouterr().out
    after = stamps()
    assert {name: stamp for name, stamp in before.items() if name not in OWN} == {
        name: stamp for name, stamp in after.items() if name not in OWN
    }


@pytest.mark.slow
def test_a_grid_that_grows_keeps_what_it_has(here):
    assert call(*BASE, "--axis=style_weight=1e2,1e3") == 0
    before = stamps()
    assert call(*BASE, "--axis=style_weight=1e1,1e2,1e3", "--axis=seed=0,1") == 0
    after = stamps()
    for name in before.keys() - set(OWN):
        assert after[name] == before[name]
    rows = table()
    assert len(rows) == 6
    assert len({row["run"] for row in rows}) == 6
    weights = {read_json(f"out/{row['run']}.json")["flags"]["style_weight"]: row["axis style_weight"] for row in rows}
    assert weights == {10.0: "1e1", 100.0: "1e2", 1000.0: "1e3"}


@pytest.mark.slow
def test_another_s_files_are_never_replaced(here, capsys):
    Path("out").mkdir()
    names = ["1_style_weight=1e1.png", "1_style_weight=1e1-2.json", "2_style_weight=1e2.flags"]
    for name in names:
        Path("out", name).write_text("precious")
    assert call(*BASE, "--axis=style_weight=1e1,1e2") == 0
    assert [Path("out", name).read_text() for name in names] == ["precious"] * 3
    assert [row["run"] for row in table()] == ["1_style_weight=1e1-3", "2_style_weight=1e2-2"]
    for name in OWN:
        kept = Path("out", name).read_bytes()
        Path("out", name).write_text("precious")
        before = stamps()
        capsys.readouterr()
        assert call(*BASE, "--axis=style_weight=1e4,1e5") == 2
        assert_one_line(capsys.readouterr().err, "--output=out", name, "no grid wrote")
        assert stamps() == before
        Path("out", name).write_bytes(kept)


@pytest.mark.slow
def test_a_picture_that_has_changed_since_makes_a_new_run(here):
    assert call(*BASE, "--axis=seed=0,1") == 0
    before = stamps()
    Image.open("other.png").save("photo.png")
    assert call(*BASE, "--axis=seed=0,1") == 0
    assert [row["run"] for row in table()] == ["1_seed=0-2", "2_seed=1-2"]
    assert all(stamps()[name] == stamp for name, stamp in before.items() if name not in OWN)


@pytest.mark.slow
def test_what_a_finished_run_read_may_be_gone(here, capsys):
    assert call(*BASE, "--axis=style=painting.png,other.png") == 0
    os.remove("other.png")
    capsys.readouterr()
    assert call(*BASE, "--axis=style=painting.png,other.png") == 0
    assert "all of them done" in capsys.readouterr().out


@pytest.mark.slow
def test_values_that_hold_commas(here):
    assert (
        call(
            *BASE,
            "--axis=style=painting.png,other.png;other.png",
            "--axis=style_layers=relu1_1:0.3,relu1_2;relu1_1,relu1_2:2",
        )
        == 0
    )
    assert [row["axis style_layers"] for row in table()] == ["relu1_1:0.3,relu1_2", "relu1_1,relu1_2:2"] * 2
    names = [row["run"] for row in table()]
    assert names[0] == "1_style=painting+other_style_layers=relu1_1-0.3,relu1_2"
    flags = Path("out", names[0] + ".flags").read_text()
    assert f"--style={here}/painting.png,{here}/other.png\n" in flags


@pytest.mark.slow
def test_static_axes_make_groups_and_the_plan_says_so(here, capsys):
    arguments = [
        *BASE,
        "--axis=pooling=avg,max",
        "--axis=optimizer=adam,lbfgs",
        "--axis=seed=0,1",
        "--learning_rate=0.01",
    ]
    assert call(*arguments, "--dry_run") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "plan: 8 runs, 4 groups, 4 programs, 2 runs at once, memory " in out
    assert "group 4 of 4: 2 runs (16x16, pooling=max, optimizer=lbfgs)" in out
    assert "about " in out.splitlines()[-1]
    assert not Path("out").exists()
    assert call(*arguments) == 0
    assert len(pictures()) == 8


@pytest.mark.slow
def test_sizes_make_groups_too(here):
    assert call(*BASE, "--axis=size=16,24", "--axis=content=photo.png,other.png") == 0
    assert sorted(picture.shape[:2] for picture in pictures().values()) == [(11, 16), (16, 16), (17, 24), (24, 24)]


@pytest.mark.slow
def test_random_filters_run_by_their_pictures(here, capsys):
    assert call(*BASE, "--weights=random", "--axis=style=painting.png,other.png", "--axis=style_weight=1,10") == 0
    assert "1 group, 1 program" in capsys.readouterr().out
    for name, ours in pictures().items():
        assert stylize(f"--flagfile=out/{name}.flags", "--output=alone.png") == 0
        assert np.abs(ours - np.asarray(Image.open("alone.png"), float)).max() <= 1


@pytest.mark.slow
def test_float64_beside_float32(here):
    assert call(*BASE, "--axis=precision=float32,float64") == 0
    one, other = pictures().values()
    assert np.abs(one - other).max() <= 1


@pytest.mark.slow
def test_a_line_search_runs_one_at_a_time(here, capsys):
    arguments = ["--optimizer=lbfgs", "--learning_rate=0", "--line_search=zoom", "--steps=2"]
    assert call(*BASE, *arguments, "--axis=seed=0,1", "--init=noise") == 0
    assert "1 program, 1 run at once" in capsys.readouterr().out


@pytest.mark.slow
def test_sixteen_bits_and_pictures_on_the_way(here):
    assert call(*BASE, "--axis=seed=0,1", "--bit_depth=16", "--save_every=2") == 0
    assert Path("out/1_seed=0.png").read_bytes()[24] == 16
    assert Path("out/2_seed=1-000004.png").is_file()


@pytest.mark.slow
def test_what_stylize_made_of_a_flagfile_is_the_grid_s_run(here, capsys):
    assert call(*BASE, "--axis=seed=0,1", "--init=noise") == 0
    assert stylize("--flagfile=out/1_seed=0.flags") == 0
    os.remove("out/2_seed=1.png")  # a picture that is taken away is made again, under its name
    before = stamps()["1_seed=0.png"]
    assert call(*BASE, "--axis=seed=0,1", "--init=noise") == 0
    assert "2, 1 done, 1 to do" in capsys.readouterr().out
    assert [row["run"] for row in table()] == ["1_seed=0", "2_seed=1"]
    assert stamps()["1_seed=0.png"] == before
    assert set(listed(Path("out"))) >= {"2_seed=1.png"}
    assert not list(Path("out").glob("*-2*"))


@pytest.mark.slow
def test_weights_that_have_changed_under_their_name_make_new_runs(here, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("JNST_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "weights" / "mine.safetensors"
    place.parent.mkdir(parents=True)
    arguments = [*BASE, "--weights=mine", "--axis=seed=0,1"]
    weights.save_safetensors(place, tiny, origin="random", licence="none")
    assert call(*arguments) == 0
    other = {**tiny, "conv1_1": {**tiny["conv1_1"], "kernel": tiny["conv1_1"]["kernel"] * np.float32(1.5)}}
    weights.save_safetensors(place, other, origin="random", licence="none")
    assert call(*arguments) == 0
    assert [row["run"] for row in table()] == ["1_seed=0-2", "2_seed=1-2"]


def test_a_page_that_cannot_be_written_on_the_way_costs_no_run(here, capsys, monkeypatch):
    original, calls = gallery.Gallery.write, []

    def write(self, entries):
        calls.append(1)
        if len(calls) == 1:
            raise InputError("out/index.html: cannot be written: No space left on device")
        original(self, entries)

    monkeypatch.setattr(gallery.Gallery, "write", write)
    monkeypatch.setattr(grid, "_REFRESH", -1)
    assert call(*BASE, "--axis=seed=0,1,2", "--runs_at_once=2") == 2
    assert_one_line(capsys.readouterr().err, "No space left")
    assert len(calls) == 4
    assert len(pictures()) == 3


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_takes_no_other_along(here, capsys, monkeypatch):
    original = images.save

    def save(path, *them, **others):
        if Path(path).name == "1_seed=0.png":
            raise InputError(f"{path}: cannot be written: No space left on device")
        original(path, *them, **others)

    monkeypatch.setattr(images, "save", save)
    assert call(*BASE, "--axis=seed=0,1,2", "--init=noise") == 2
    assert_one_line(capsys.readouterr().err, "1_seed=0.png", "No space left")
    assert sorted(pictures()) == ["2_seed=1", "3_seed=2"]
    before = stamps()["3_seed=2.png"]
    monkeypatch.setattr(images, "save", original)
    assert call(*BASE, "--axis=seed=0,1,2", "--init=noise") == 0
    assert [row["run"] for row in table()] == ["1_seed=0", "2_seed=1", "3_seed=2"]
    assert stamps()["3_seed=2.png"] == before


@pytest.mark.slow
def test_a_plan_without_the_weights_is_that_of_weights_of_their_widths(here, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JNST_CACHE", str(tmp_path / "empty"))
    layers = ["--style_layers=relu1_1", "--content_layers=relu1_1"]
    assert call(*BASE, *layers, "--weights=vgg19", "--axis=style=painting.png,other.png", "--dry_run") == 0
    out = capsys.readouterr().out
    assert out.startswith("vgg19 is not here: a run would first ")
    assert "1 program, 2 runs at once" in out
    assert call(*BASE, *layers, "--axis=weights=vgg19,random", "--dry_run") == 0
    assert "2 groups, 2 programs" in capsys.readouterr().out


def test_what_a_picture_has_to_say_is_said(here, capsys):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    frames[0].save("two.gif", save_all=True, append_images=frames[1:])
    assert call(*BASE, "--axis=style=two.gif,painting.png") == 0
    assert capsys.readouterr().out.count("two.gif: 2 frames, the first is used") == 1


def test_targets_are_computed_once_for_all_batches(here, monkeypatch):
    calls, original = [], parts.style_statistics
    monkeypatch.setattr(parts, "style_statistics", lambda *them: calls.append(1) or original(*them))
    assert call(*BASE, "--axis=style_weight=1,10,100", "--axis=style=painting.png,other.png", "--runs_at_once=2") == 0
    assert len(calls) == 2 + 1  # each style once, and one more time when the program's shapes are asked for


@pytest.mark.parametrize("memory_of", [31, 17, 9, 5, 1])
def test_a_tpu_s_tiles_are_filled_only_within_what_fits(monkeypatch, memory_of):
    """With a program that says what it needs: fewer lanes each time, and none beyond the limit."""
    device = types.SimpleNamespace(platform="tpu")
    monkeypatch.setattr(sweep.memory, "available", lambda devices: memory_of)
    monkeypatch.setattr(sweep.grid, "make_mesh", lambda devices: None)
    tried = []

    def compile_batch(*, lanes, **others):
        tried.append(lanes)
        return types.SimpleNamespace(bytes=lanes, lanes=lanes)

    monkeypatch.setattr(many, "compile_batch", compile_batch)
    monkeypatch.setattr(many, "table_sizes", lambda runs, lanes: (1, 1))
    backbone = types.SimpleNamespace(params={}, padding="zeros", standardize=False)
    run = types.SimpleNamespace(content=np.zeros((96, 128, 3)))
    entry = types.SimpleNamespace(config=StylizeConfig(), run=run, inputs=types.SimpleNamespace(backbone=backbone))
    fitted = sweep.fit(plan.Group(kin=((entry,) * 30,)), [device], "auto")
    assert fitted.program.lanes <= memory_of
    assert sorted(set(tried), reverse=True) == tried
    assert sum(map(len, fitted.batches)) == 30
    assert sweep.fit(plan.Group(kin=((entry,) * 30,)), [device], "10").program.lanes <= 10


@pytest.mark.parametrize(("size", "lanes"), [(128, 8), (256, 3), (512, 1), (1024, 1)])
def test_on_a_cpu_large_pictures_are_not_many_at_once(size, lanes):
    """Of eight square ones: as many as the caches hold, in equal batches."""
    assert sweep._lanes(8, sweep._most(StylizeConfig(), jax.devices()[:1], "auto", size * size), jax.devices()[:1]) == (
        {128: 8, 256: 3}.get(size, 1)
    )
    assert sweep._most(StylizeConfig(), jax.devices()[:1], "auto", size * size) == lanes
    assert sweep._most(StylizeConfig(), jax.devices()[:1], "3", size * size) == 3


BAD = {
    "no axis": ([], "--axis is missing"),
    "no value": (["--axis=seed="], "--axis=seed=", "a flag and its values"),
    "no flag": (["--axis=1,2"], "--axis=1,2", "a flag and its values"),
    "unknown": (["--axis=stile=a,b"], "'stile'", "did you mean style?"),
    "of no picture": (["--axis=print_every=1,2"], "'print_every'", "changes a picture"),
    "twice": (["--axis=seed=0", "--axis=seed=1"], "--axis=seed=0", "named twice"),
    "value twice": (["--axis=style_weight=100,1e2"], "1e2", "named twice"),
    "one run twice": (["--axis=style=painting.png,./painting.png"], "painting.png", "the same run"),
    "small style": (["--axis=style=painting.png,thin.png"], "--style=thin.png", "too few"),
    "no number": (["--axis=style_weight=1,heavy"], "--style_weight=heavy", "a number"),
    "no whole number": (["--axis=seed=0.5"], "--seed=0.5", "a whole number"),
    "not finite": (["--axis=style_weight=1,nan"], "--style_weight=nan", "finite"),
    "out of range": (["--axis=style_weight=1,-1"], "--style_weight=-1", "not below 0"),
    "no choice": (["--axis=pooling=avg,median"], "--pooling=median", "one of max, avg, l2"),
    "combination": (["--axis=line_search=none,zoom"], "--line_search=zoom", "L-BFGS"),
    "mix": (["--axis=style_mix=0.3,0.7", "--style=painting.png,other.png"], "--style_mix=0.3", "separated by ';'"),
    "no file": (["--axis=style=painting.png,absent.jpg"], "absent.jpg", "no such file"),
    "no picture": (["--axis=style=painting.png,base.flags"], "base.flags"),
    "layer": (["--axis=style_layers=relu1_1,relu9_1"], "--style_layers=relu9_1", "relu9_1"),
    "at once": (["--axis=seed=0,1", "--runs_at_once=many"], "--runs_at_once=many", "auto"),
    "none at once": (["--axis=seed=0,1", "--runs_at_once=0"], "--runs_at_once=0", "whole number"),
    "folder": (["--axis=seed=0,1", "--content=."], "--content=.", "folder"),
    "file": (["--axis=seed=0,1", "--output=base.flags"], "--output=base.flags", "folder"),
    "picture": (["--axis=seed=0,1", "--output=out.png"], "--output=out.png", "a folder's name"),
    "no output": (["--axis=seed=0,1", "--output="], "--output is missing"),
    "no content": (["--axis=seed=0,1", "--content="], "--content is missing"),
    "too many": (
        ["--axis=seed=" + ",".join(map(str, range(400))), "--axis=style_weight=" + ",".join(map(str, range(400)))],
        "160000 runs",
    ),
    "processes": (["--axis=seed=0,1", "--num_processes=2"], "--process_id=-1"),
    "device": (["--axis=seed=0,1", "--device=gpu:7"], "--device=gpu:7"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(here, capsys, case):
    Path("base.flags").write_text("--size=16\n")
    Image.new("RGB", (64, 1)).save("thin.png")
    before = listed(here)
    arguments, *words = BAD[case]
    if case == "small style":
        arguments += ["--style_layers=relu2_1"]
    assert call(*BASE, *arguments) == 2
    out, err = capsys.readouterr()
    assert_one_line(err, *words)
    assert listed(here) == before


def test_help_and_no_arguments(here, capsys):
    assert call() == 0
    assert "usage: grid" in capsys.readouterr().out
    assert call("--help") == 0
    assert "--runs_at_once (default: auto)" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_decides_how_many_run_at_once(here, capsys, monkeypatch):
    needs = {}
    original = many.compile_batch

    def compiled(*them, lanes, **others):
        program = original(*them, lanes=lanes, **others)
        needs[lanes] = program.bytes
        return program

    monkeypatch.setattr(many, "compile_batch", compiled)
    assert call(*BASE, "--axis=seed=0,1,2,3,4,5", "--dry_run") == 0
    assert "6 runs at once" in capsys.readouterr().out
    monkeypatch.setattr(memory, "available", lambda devices: needs[6] - 1)
    assert call(*BASE, "--axis=seed=0,1,2,3,4,5") == 0
    assert "3 runs at once" in capsys.readouterr().out  # two equal batches
    assert needs[3] < needs[6]
    assert call(*BASE, "--axis=seed=10,11,12,13,14,15", "--runs_at_once=6") == 0
    out = capsys.readouterr().out
    assert "--runs_at_once=6: memory holds 3" in out  # a host's: Linux would end the process
    assert "3 runs at once" in out
    monkeypatch.setattr(memory, "available", lambda devices: 1000)
    assert call(*BASE, "--axis=seed=7,8") == 2
    assert_one_line(capsys.readouterr().err, "--size=16", "free", "smaller --size")


@pytest.mark.parametrize("where", ["compile_batch", "begin"])
def test_out_of_memory_before_the_first_step_halves_too(here, capsys, monkeypatch, where):
    """As a GPU's compiler does, which tries kernels out, or the first step."""
    original, calls = getattr(many, where), []

    def exhausted(*them, lanes, **others):
        calls.append(lanes)
        if lanes > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.")
        return original(*them, lanes=lanes, **others)

    monkeypatch.setattr(many, where, exhausted)
    assert call(*BASE, "--axis=seed=0,1,2,3,4,5,6,7", "--init=noise") == 0
    assert list(dict.fromkeys(calls)) == [8, 4, 2]
    assert "2 runs at once, memory" in capsys.readouterr().out
    assert len(pictures()) == 8


def _exhausted(limit, calls):
    """The program of more than `limit` lanes fails as a device does whose memory is full."""
    original = many.drive

    def drive(program, batch, **others):
        calls.append(program.lanes)
        if program.lanes > limit:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.")
        return original(program, batch, **others)

    return drive


@pytest.mark.slow
def test_out_of_memory_halves_and_goes_on(here, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr(many, "drive", _exhausted(2, calls))
    assert call(*BASE, "--axis=seed=0,1,2,3,4,5,6,7", "--init=noise") == 0
    out = capsys.readouterr().out
    assert calls == [8, 4, 2, 2, 2, 2]
    assert "out of memory with 8 runs at once: going on with at most 4" in out
    assert len(pictures()) == 8
    assert len({picture.tobytes() for picture in pictures().values()}) == 8


@pytest.mark.slow
def test_not_even_one_fits(here, capsys, monkeypatch):
    monkeypatch.setattr(many, "drive", _exhausted(0, []))
    assert call(*BASE, "--axis=seed=0,1") == 2
    assert_one_line(capsys.readouterr().err, "--size=16", "not even one run")


@pytest.mark.slow
def test_a_run_that_diverges_is_said_and_not_done_again(here, capsys):
    arguments = [*BASE, "--projection=none", "--style_weight=1e12", "--axis=learning_rate=0.003,1e6"]
    arguments += ["--style_layers=relu1_1:1e12"]
    assert call(*arguments) == 3
    out, err = capsys.readouterr()
    assert_one_line(err, "1 of 2 runs diverged", "2_learning_rate=1e6")
    assert "diverged at step" in Path("out/index.html").read_text()
    before = stamps()
    assert call(*arguments) == 3
    assert {name: stamps()[name] for name in before if name not in OWN} == {
        name: before[name] for name in before if name not in OWN
    }


@pytest.mark.slow
def test_a_start_that_is_not_finite_has_a_row_without_numbers(here, tiny, capsys):
    heavy = {**tiny, "conv1_1": {**tiny["conv1_1"], "kernel": tiny["conv1_1"]["kernel"] * np.float32(1e20)}}
    weights.save_safetensors("heavy.safetensors", heavy, origin="random", licence="none")
    arguments = [*BASE, "--weights=heavy.safetensors", "--axis=seed=0,1"]
    for _ in range(2):
        assert call(*arguments) == 3
        assert [[row[name] for name in ("total", "style", "picture")] for row in table()] == [[""] * 3] * 2
        assert_one_line(capsys.readouterr().err, "2 of 2 runs diverged")
    assert sorted(path.suffix for path in Path("out").glob("*_seed*")) == [".flags", ".flags", ".json", ".json"]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_there_and_the_same_command_goes_on(here):
    arguments = [
        *BASE,
        "--axis=style_weight=1,10",
        "--steps=400",
        "--history=3",
        "--optimizer=lbfgs",
        "--learning_rate=0",
    ]
    process = start(*arguments)
    read_until(process.stdout, "step 40/400")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0 of 2 runs are finished; go on with: " in err
    assert "Traceback" not in err
    assert sorted(path.suffix for path in Path("out").glob("*_style*")) == [".ckpt", ".ckpt"]
    assert "not yet" in Path("out/index.html").read_text()
    assert call(*arguments) == 0
    assert not list(Path("out").glob("*.ckpt"))
    broken = pictures()
    assert call(*arguments, "--output=whole") == 0
    for name, whole in pictures("whole").items():
        np.testing.assert_array_equal(whole, broken[name])


@pytest.mark.slow
def test_kill_9_and_the_same_command_goes_on(here):
    arguments = [*BASE, "--axis=style_weight=1,10,100", "--steps=400", "--checkpoint_every=20", "--runs_at_once=2"]
    moments = ["*.ckpt", "1_*.flags", "1_*.json", "3_*.ckpt", "3_*.ckpt", "3_*.png"]
    for number, pattern in enumerate(moments):
        process = start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not list(Path("out").glob(pattern)) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        if number == 4:  # anywhere
            time.sleep(0.3)
        process.kill()
        process.wait()
        assert list(Path("out").glob(pattern))
    assert list(Path("out").glob("3_*"))
    assert call(*arguments) == 0
    assert call(*arguments, "--output=whole") == 0
    assert [row["run"] for row in table()] == [row["run"] for row in table("whole")]
    for name, whole in pictures("whole").items():
        np.testing.assert_array_equal(whole, pictures()[name])
    left = set(listed(Path("out"))) - set(listed(Path("whole")))
    assert not left


@pytest.mark.slow
def test_killed_between_picture_and_record(here, monkeypatch):
    """The picture without a record is the run's own: it keeps its name. A checkpoint beside a record goes."""
    original = checkpoint.write
    monkeypatch.setattr(
        checkpoint, "write", lambda *them: original(*them) or shutil.copy("out/1_seed=0.ckpt", "kept.ckpt")
    )
    assert call(*BASE, "--axis=seed=0,1", "--checkpoint_every=4") == 0
    os.remove("out/2_seed=1.json")
    for name in (".2_seed=1.png.abcdefgh.part", ".index.html.abcdefgh.part", ".other.png.abcdefgh.part"):
        Path("out", name).write_text("half")
    Path("out/1_seed=0.ckpt").write_bytes(Path("kept.ckpt").read_bytes())
    assert call(*BASE, "--axis=seed=0,1") == 0
    assert [row["run"] for row in table()] == ["1_seed=0", "2_seed=1"]
    assert not list(Path("out").glob("*.ckpt"))
    assert [path.name for path in Path("out").glob(".*")] == [".other.png.abcdefgh.part"]


@pytest.mark.slow
def test_a_second_grid_in_the_same_folder_is_refused(here, capsys):
    process = start(*BASE, "--axis=seed=0,1", "--steps=100000")
    try:
        read_until(process.stdout, "plan: ")
        assert call(*BASE, "--axis=seed=2,3") == 2
        assert_one_line(capsys.readouterr().err, "--output=out", "another run is writing it")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_eight_devices(here):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
    arguments = [*BASE, "--axis=style_weight=1,10,100", "--axis=seed=0,1,2", "--init=mix"]
    process = start(*arguments, env=environment)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "devices: 8 x cpu" in out
    assert "16 runs at once" in out
    assert call(*arguments, "--output=one") == 0
    for name, picture in pictures("one").items():
        assert np.abs(picture - pictures()[name]).max() <= 1


def test_the_record_is_strict_json_and_the_page_is_whole(here):
    assert call(*BASE, "--axis=seed=0,1") == 0
    record = json.loads(Path("out/1_seed=0.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert record["best_terms"]["total"] == pytest.approx(float(table()[0]["total"]))
    assert page.render  # the page's own tests: test_page.py
    assert Path("out/index.html").read_text().rstrip().endswith("</html>")
