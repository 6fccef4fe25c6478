import dataclasses
import os
import shlex
from pathlib import Path

import pytest
from absl import flags as absl_flags

from jnst import bundled
from jnst.cli import flags, lines
from jnst.config import StylizeConfig, check, parse_layers
from jnst.errors import InputError

PRESETS = sorted((Path(__file__).resolve().parents[2] / "presets").glob("*.flags"))
# The others are other commands'; see test_readme.py.
PRESETS = [path for path in PRESETS if not path.stem.startswith(("distill_", "deepdream", "fast_", "gatys2015"))]


def parsed(*arguments):
    values = absl_flags.FlagValues()
    flags.define(StylizeConfig, values)
    flags.parse(values, ["stylize", *arguments])
    return flags.to_config(StylizeConfig, values)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_are_those_of_the_dataclass():
    assert parsed() == StylizeConfig()


def test_values_are_read_by_their_kind():
    config = parsed("--size=64", "--style_weight", "2.5", "-tv=l1", "--canvas_scale=255", "--learning_rate=1e-3")
    assert (config.size, config.style_weight, config.tv, config.canvas_scale) == (64, 2.5, "l1", 255)
    assert config.learning_rate == 0.001


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--unknown=1", "unknown"),
        ("--sizes=1", "sizes"),
        ("--size=abc", r"--size=abc: expected a whole number"),
        ("--size=1.5", r"--size=1.5: expected a whole number"),
        ("--size=", r"--size=: expected a whole number"),
        ("--size", "size"),
        ("--style_weight=x", r"--style_weight=x: expected a number"),
        ("photo.jpg", r"'photo\.jpg': expected flags only"),
        ("--flagfile", "--flagfile: expected a file"),
        ("--flagfile=", "--flagfile: expected a file"),
        ("--flagfile=nothing.flags", "--flagfile=nothing.flags: no such file; presets: .*gatys2016"),
        ("--flagfile=.", r"--flagfile=\.: no such file"),
    ],
)
def test_bad_argument_is_one_input_error(argument, message):
    with pytest.raises(InputError, match=message):
        parsed(argument)


def test_flagfiles_that_name_each_other_are_refused(here, capsys):
    (here / "a.flags").write_text("--flagfile=b.flags\n")
    (here / "b.flags").write_text("--flagfile=a.flags\n")
    with pytest.raises(InputError, match="flagfile"):
        parsed("--flagfile=a.flags")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("data", [b"\x9c\xff\x00", b"\0\0\0", b"\x89PNG\r\n\x1a\n\0\0"])
def test_binary_flagfile_is_refused(here, data):
    (here / "a.flags").write_bytes(data)
    with pytest.raises(InputError):
        parsed("--flagfile=a.flags")


def test_flagfile_that_is_named_in_a_flagfile_and_missing_is_refused(here):
    (here / "a.flags").write_text("--flagfile=nothing.flags\n")
    with pytest.raises(InputError, match="nothing.flags"):
        parsed("--flagfile=a.flags")


def test_later_flags_win_over_the_flagfile(here):
    (here / "a.flags").write_text("# a comment\n\n--size=64\n--steps=7\n")
    assert parsed("--flagfile=a.flags", "--size=32") == StylizeConfig(size=32, steps=7)
    assert parsed("--size=32", "--flagfile", "a.flags") == StylizeConfig(size=64, steps=7)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_is_found_by_name_and_valid(here, path):
    config = parsed("--flagfile=" + path.stem)
    check(config)
    for flag in ("content_layers", "style_layers"):
        parse_layers(flag, getattr(config, flag))
    assert config != StylizeConfig()
    assert path.read_text().startswith("#"), "a preset begins by naming its source"


def test_home_folder_is_expanded_in_paths_only(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    config = parsed("--content=~/a.png", "--style=~/b.png, ~/c.png", "--init=~/d.png", "--output=~/e.png")
    assert (config.content, config.init, config.output) == tuple(f"/home/somebody/{x}.png" for x in "ade")
    assert config.style == "/home/somebody/b.png,/home/somebody/c.png"


@pytest.mark.parametrize(
    "name", ["a b.png", "Paris, France.png", "Paris,France.png", "#é'\"=.png", "--a.png", "$HOME.png"]
)
def test_flagfile_of_resolved_flags_means_the_same_from_elsewhere(here, monkeypatch, name):
    (here / "elsewhere").mkdir()
    for file in (name, "style 1.png", "s2.png", "w.npz"):
        (here / file).write_bytes(b"")
    config = parsed(f"--content={name}", "--style=style 1.png,s2.png", f"--init={name}", "--weights=w.npz")
    config = dataclasses.replace(config, output="o/o.png", style_mix="0.3,0.7", style_weight=1 / 3, size=64)
    chosen = flags.resolved(config)
    (here / "o.flags").write_text(flags.flagfile(chosen))
    monkeypatch.chdir(here / "elsewhere")
    again = parsed(f"--flagfile={here / 'o.flags'}")
    expected = dataclasses.replace(
        config,
        content=str(here / name),
        style=f"{here / 'style 1.png'},{here / 's2.png'}",
        init=str(here / name),
        weights=str(here / "w.npz"),
        output=str(here / "o/o.png"),
    )
    assert again == expected
    assert flags.resolved(again) == chosen


def test_words_and_bundled_names_stay_words_whatever_lies_in_the_folder(here):
    for name in ("content", "noise", "mix", "random", "random:3", "harbor"):
        (here / name).mkdir()
    for init in ("content", "noise", "mix"):
        assert flags.resolved(parsed(f"--init={init}"))["init"] == init
    chosen = flags.resolved(parsed("--weights=random:3", "--content=harbor", "--style=harbor,strokes"))
    assert (chosen["weights"], chosen["content"], chosen["style"]) == ("random:3", "harbor", "harbor,strokes")


def test_a_picture_that_is_gone_keeps_its_place(here):
    assert flags.resolved(parsed("--content=gone.jpg"))["content"] == str(here / "gone.jpg")


def test_words_stay_words_beside_files_of_their_name(here):
    for name in ("content", "noise", "mix"):
        (here / name).write_bytes(b"")
        assert flags.resolved(parsed(f"--init={name}"))["init"] == name


def test_every_flag_is_resolved_and_has_its_line():
    chosen = flags.resolved(parsed())
    assert list(chosen) == [field.name for field in dataclasses.fields(StylizeConfig)]
    mark, *lines = flags.flagfile(chosen).splitlines()
    assert mark == flags.MARK
    assert [line.partition("=")[0] for line in lines] == [f"--{name}" for name in chosen]


def test_floats_survive_the_flagfile(here):
    for value in (0.1, 1 / 3, 1e-7, 123456789.123456789, 1e12):
        (here / "a.flags").write_text(flags.flagfile({"style_weight": value}))
        assert parsed("--flagfile=a.flags").style_weight == value


def test_help_names_every_flag_default_and_choice():
    text = flags.help_text(StylizeConfig, "usage: stylize")
    for field in dataclasses.fields(StylizeConfig):
        assert f"--{field.name} (default: {field.default if field.default != '' else 'none'})" in text
        for choice in field.metadata["choices"] or ():
            assert str(choice) in text


def test_failure_is_one_line_on_stderr(capsys):
    lines.warn(InputError("a\nb\n  c"))
    assert capsys.readouterr() == ("", "jnst: a b c\n")


def test_usage_example_parses(here):
    from jnst.cli import stylize

    examples = [line.strip() for line in stylize.USAGE.splitlines() if line.startswith("  stylize --content")]
    assert examples
    for line in examples:
        check(parsed(*shlex.split(line)[1:]))
    assert os.listdir(here) == []
    assert bundled.names("presets", ".flags")
